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
    Ends the process where a service can't work, with exit code 1.

    twistd has no other code than 0 for a service that ended by itself, so this has the last word behind it.
    It is made before anything of an application's is imported: what that registers to run at exit runs first.
    """

    def __init__(self) -> None:
        self._failed = False
        atexit.register(self._exit)

    def fail(self, reason: BaseException) -> None:
        """Stop the reactor."""
        reactor = reactor_or_global()

        def stop() -> None:
            with contextlib.suppress(ReactorNotRunning):  # another reason was first
                reactor.stop()

        self._failed = True
        reactor.callWhenRunning(stop)  # it may not run yet, and can't be stopped then

    def _exit(self) -> None:
        if not self._failed:
            return
        try:
            logging.shutdown()  # which was registered before this, and would not run
            for stream in (sys.__stdout__, sys.__stderr__):
                if stream is not None:
                    with contextlib.suppress(OSError, ValueError):  # nobody reads it, or it is closed
                        stream.flush()
        finally:
            os._exit(1)
