"""The end of a process whose service can't work."""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import sys

from twisted.internet.error import ReactorNotRunning

from txserf.arguments import reactor_or_global


class Ending:
    """
    Ends the process with exit code 1 if a service can't work.

    ``twistd`` exits with 0 when a service ends by itself, so this replaces its exit code at the very end. Make it
    before an application is imported: functions that the application registers with ``atexit`` run before it then.
    """

    def __init__(self) -> None:
        self._failed = False
        atexit.register(self._exit)

    def fail(self, reason: BaseException) -> None:
        """Stop the reactor, and let the process end with exit code 1."""
        reactor = reactor_or_global()

        def stop() -> None:
            with contextlib.suppress(ReactorNotRunning):  # another call was first
                reactor.stop()

        self._failed = True
        reactor.callWhenRunning(stop)  # a reactor that does not run yet can't be stopped

    def _exit(self) -> None:
        if not self._failed:
            return
        try:
            logging.shutdown()  # it is registered before this, and so would not run
            for stream in (sys.__stdout__, sys.__stderr__):
                if stream is not None:
                    with contextlib.suppress(OSError, ValueError):  # nobody reads the stream, or it is closed
                        stream.flush()
        finally:
            os._exit(1)
