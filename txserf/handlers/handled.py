"""
Which user events were handled already, told by LTime and name, and kept in a file.

An agent that rejoins may tell once more what it had told before, and another agent
may be a moment late with what the first one told. Only user events come twice: agents
don't replay queries, and two queries of one LTime and name are two questions.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import zlib
from collections import deque
from pathlib import Path
from typing import Any

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from txserf.errors import SerfError, reason_text
from txserf.model import UserEvent

_log = Logger(namespace="txserf.handlers")

# Seconds between two writes of the state file.
_SAVE_EVERY = 1.0

# An agent keeps the events of 512 LTimes. Several may have the same one.
_KEPT = 2048

_VERSION = 1

Key = tuple[int, str, int]


class StateError(SerfError):
    """A state file can't be read, or can't be written."""


def key_of(event: UserEvent) -> Key:
    """Return what an event is recognised by."""
    # Two nodes may give one LTime to two events of a name: agents, too, tell those by their payload.
    return event.ltime, event.name, zlib.crc32(event.payload)


class LTimes:
    """
    The user events that were seen, the last 2,048 of them, by `key_of`.

    :ivar last: the highest LTime of them; 0 for none.
    :ivar changed: whether more is handled than was saved.
    """

    def __init__(self) -> None:
        self.last = 0
        self.changed = False
        self._handled: dict[Key, bool] = {}  # False while its handlers are at work
        self._order: deque[Key] = deque()

    def __contains__(self, key: Key) -> bool:
        return key in self._handled

    def begun(self, key: Key) -> None:
        """Remember an event; it does not count as handled yet."""
        self._add(key, False)

    def handled(self, key: Key) -> None:
        """Its handlers are through: a restart need not handle it."""
        if key in self._handled:
            self._handled[key] = self.changed = True

    def discard(self, key: Key) -> None:
        """It was cut off at work: it is handled where it comes again."""
        if self._handled.pop(key, None) is not None:
            self._order.remove(key)

    def forget(self) -> None:
        """Begin anew: the cluster did."""
        self.last = 0
        self.changed = True
        self._handled.clear()
        self._order.clear()

    def _add(self, key: Key, handled: bool) -> None:
        if key not in self._handled:
            self._order.append(key)
            if len(self._order) > _KEPT:
                del self._handled[self._order.popleft()]
        self._handled[key] = handled
        self.last = max(self.last, key[0])

    # -- the file

    def load(self, path: Path) -> None:
        """
        Take what a file remembers; nothing where there is none.

        :raises StateError: for a file that is none of ours, or can't be read.
        """
        try:
            state: Any = json.loads(path.read_bytes())
        except FileNotFoundError:
            return
        except (OSError, ValueError, RecursionError) as error:
            raise StateError(f"{path} can't be read: {error}") from None
        try:
            if state["version"] != _VERSION:
                raise ValueError("another version")
            last = _int(state["last"])
            recent = [(_int(ltime), _str(name), _int(checksum)) for ltime, name, checksum in state["recent"]]
        except (KeyError, TypeError, ValueError):
            raise StateError(f"{path} is no state file of txserf") from None
        for key in recent:
            self._add(key, True)
        self.last = max(self.last, last)

    def save(self, path: Path) -> None:
        """
        Write what was handled, at once or not at all.

        :raises StateError: where it can't be written.
        """
        recent = [key for key, handled in self._handled.items() if handled]
        last = max((key[0] for key in recent), default=0)
        text = json.dumps({"version": _VERSION, "last": last, "recent": recent})
        try:
            fd, new = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
            try:
                with os.fdopen(fd, "w") as file:
                    file.write(text)
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(new, path)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(new)
                raise
        except OSError as error:
            raise StateError(f"{path} can't be written: {error}") from None
        self.changed = False


class StateFile:
    """
    The file that keeps handled events over restarts.

    It is written at most once a second. A file that can't be read is left as it is: it may be another program's.

    :ivar path: None where nothing is kept.
    """

    def __init__(self, path: Path | None, ltimes: LTimes) -> None:
        self.path = path
        self._ltimes = ltimes
        self._due: IDelayedCall | None = None

    def load(self) -> None:
        """Take what the file remembers."""
        if self.path is not None:
            try:
                self._ltimes.load(self.path)
            except StateError as error:
                _log.error(
                    "which events were handled is not known, nor kept: {reason}", reason=reason_text(error)
                )
                self.path = None

    def save_soon(self, clock: IReactorTime) -> None:
        """Write within a second what was handled by then."""
        if self.path is not None and self._due is None:
            self._due = clock.callLater(_SAVE_EVERY, self.save)

    def save(self) -> None:
        """Write what was handled, now."""
        due, self._due = self._due, None
        if due is not None and due.active():
            due.cancel()
        if self.path is not None and self._ltimes.changed:
            try:
                self._ltimes.save(self.path)
            except StateError as error:
                _log.error("which events were handled is not kept: {reason}", reason=reason_text(error))


def _int(value: object) -> int:
    if not isinstance(value, int):
        raise ValueError("no whole number")
    return value


def _str(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("no text")
    return value
