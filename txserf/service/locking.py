"""The lock of ``--state``: two programs on one file would each undo what the other one has written."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from twisted.application.service import Service
from twisted.logger import Logger

from txserf.errors import SerfError

_log = Logger(namespace="txserf.service")


class StateLock(Service):
    """
    Holds the lock of a state file while it runs. The system gives it back however the process ends.

    The lock is on a file beside it, for each write of the state puts a new file in the place of the old one.

    :param state: the state file.
    :param failed: called with the reason if another program has the lock.
    """

    def __init__(self, state: Path, failed: Callable[[BaseException], object]) -> None:
        self.path = state.with_name(f"{state.name}.lock")
        self._state = state
        self._failed = failed
        self._held: int | None = None

    def startService(self) -> None:
        """Take the lock."""
        super().startService()  # type: ignore[no-untyped-call]  # Twisted's own
        try:
            self._held = _locked(self.path)
        except BlockingIOError:
            reason = SerfError(
                f"--state {self._state} is in use by another program: give each a file of its own"
            )
            _log.error("{reason}", reason=str(reason))
            self._failed(reason)
        except (ImportError, OSError) as error:  # a system, or a file system, without such locks
            _log.warn("--state {path} is not locked: {reason}", path=str(self._state), reason=str(error))

    def stopService(self) -> None:
        """Give it back."""
        super().stopService()  # type: ignore[no-untyped-call]  # Twisted's own
        held, self._held = self._held, None
        if held is not None:
            os.close(held)


def _locked(path: Path) -> int:
    """
    Lock a file, which is made if it is not there.

    :returns: its descriptor, which holds the lock until it is closed.
    :raises BlockingIOError: where another descriptor holds it.
    """
    import fcntl  # POSIX has it

    held = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(held)
        raise
    return held
