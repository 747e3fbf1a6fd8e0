"""
The user events that were handled already, and the file that keeps them.

A user event may come twice: an agent that rejoins may send it again, and after a failover another agent may
send it a moment later than the first one. Queries do not come twice. Agents do not replay them, and
two queries with the same LTime and name are two questions.
"""

from __future__ import annotations

import json
import zlib
from collections import deque
from pathlib import Path
from typing import Any

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from txserf.arguments import what_it_is
from txserf.errors import SerfError, reason_text
from txserf.model import UserEvent
from txserf.newfile import NewFile

_log = Logger(namespace="txserf.handlers")

# Seconds between two writes of the state file.
_SAVE_EVERY = 1.0

# How many events are remembered. An agent replays those of its last 512 LTimes, and several events may have the same LTime.
_KEPT = 2048

# The permissions of the state file.
_MODE = 0o600

_VERSION = 1

Key = tuple[int, str, int]


class StateError(SerfError):
    """A state file can't be read or written."""


def key_of(event: UserEvent) -> Key:
    """Return the values by which an event that comes again is recognised: LTime, name and a checksum of the payload."""
    # Two nodes may give the same LTime to events of the same name. Agents tell these apart by their payload, too.
    return event.ltime, event.name, zlib.crc32(event.payload)


class LTimes:
    """
    The last 2,048 user events that came, by `key_of`.

    :ivar last: the highest LTime among them; 0 if there are none.
    :ivar changed: whether an event was handled since the last `save`.
    """

    def __init__(self) -> None:
        self.last: int = 0
        self.changed: bool = False
        self._handled: dict[Key, bool] = {}  # False while its handlers are at work
        self._order: deque[Key] = deque()

    def __contains__(self, key: Key) -> bool:
        return key in self._handled

    def begun(self, key: Key) -> None:
        """Remember an event whose handlers begin; it does not count as handled yet."""
        self._add(key, False)

    def handled(self, key: Key) -> None:
        """Count an event as handled: `save` writes it, and a restart does not handle it again."""
        if key in self._handled:
            self._handled[key] = self.changed = True

    def discard(self, key: Key) -> None:
        """Forget an event whose handlers were cut off: it is handled if it comes again."""
        if self._handled.pop(key, None) is not None:
            self._order.remove(key)

    def forget(self) -> None:
        """Forget all events, because the cluster has begun anew."""
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
        Read the events of a file. A file that does not exist has none, and neither has an empty one.

        :raises StateError: for a file that can't be read or is no state file of txserf. Nothing of it is remembered then.
        """
        try:
            kind = what_it_is(path)
            if kind is not None:
                raise StateError(f"{path} can't be read: it is {kind}")
            content = path.read_bytes()
            if not content:
                return
            state: Any = json.loads(content)
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
        Write the events that were handled to a file, in one piece or not at all.

        If *path* is a link, its target is written, and the link stays.

        :raises StateError: if it can't be written.
        """
        recent = [key for key, handled in self._handled.items() if handled]
        last = max((key[0] for key in recent), default=0)
        text = json.dumps({"version": _VERSION, "last": last, "recent": recent})
        try:
            new = NewFile(path, text.encode(), _MODE, keeps_owner=False)
            try:
                if new.differs:
                    new.replace()
            finally:
                new.drop()
        except OSError as error:
            raise StateError(f"{path} can't be written: {error}") from None
        self.changed = False


class StateFile:
    """
    The file that keeps handled events over restarts, written at most once a second.

    :param ltimes: the events.
    :ivar path: None if nothing is kept. A file that can't be read is left alone, since it may be another program's:
        *path* is None from then on.
    """

    def __init__(self, path: Path | None, ltimes: LTimes) -> None:
        self.path = path
        self._ltimes = ltimes
        self._due: IDelayedCall | None = None

    def load(self) -> None:
        """Read the file; an error is logged."""
        if self.path is not None:
            try:
                self._ltimes.load(self.path)
            except StateError as error:
                _log.error(
                    "handled events are not remembered over restarts: {reason}", reason=reason_text(error)
                )
                self.path = None

    def save_soon(self, clock: IReactorTime) -> None:
        """Write the file within a second."""
        if self.path is not None and self._due is None:
            self._due = clock.callLater(_SAVE_EVERY, self.save)

    def save(self) -> None:
        """Write the file now, if there is anything new; an error is logged."""
        due, self._due = self._due, None
        if due is not None and due.active():
            due.cancel()
        if self.path is not None and self._ltimes.changed:
            try:
                self._ltimes.save(self.path)
            except StateError as error:
                _log.error("handled events can't be saved: {reason}", reason=reason_text(error))


def _int(value: object) -> int:
    if not isinstance(value, int):
        raise ValueError("no whole number")
    return value


def _str(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("no text")
    return value
