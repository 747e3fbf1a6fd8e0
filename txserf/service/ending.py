"""The end of a process: of one whose service can't work, and of one that is told twice to end."""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from twisted.application.service import Service
from twisted.internet.error import ReactorNotRunning
from twisted.logger import Logger

from txserf.arguments import reactor_or_global

_log = Logger(namespace="txserf.service")

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


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


class Interrupts(Service):
    """
    Lets a second SIGTERM or SIGINT end the process at once, killed by that signal.

    The first one is the reactor's, which stops the services. A second one, or any during a stop that something else
    has begun, does not wait for the reactor: it ends a process too that hangs in a function. Add it to its parent
    before all other services, for then it is stopped last.

    :param reactor: has its own signal handlers once it runs; None takes the global reactor.
    :param end: ends the process; its argument is the signal.
    :ivar abandon: called before that end.
    """

    def __init__(self, reactor: Any = None, end: Callable[[int], object] | None = None) -> None:
        self.abandon: Callable[[], object] = lambda: None
        self._reactor = reactor
        self._end = end or killed_by
        self._before: dict[int, Callable[[int, Any], object]] = {}
        self._received = False

    def startService(self) -> None:
        """Take over the signals, once the reactor runs."""
        super().startService()  # type: ignore[no-untyped-call]  # Twisted's own
        reactor_or_global(self._reactor).callWhenRunning(self._install)

    def stopService(self) -> None:
        """Give the signals back."""
        super().stopService()  # type: ignore[no-untyped-call]  # Twisted's own
        before, self._before = self._before, {}
        for number, handler in before.items():
            signal.signal(number, handler)

    def _install(self) -> None:
        if not self.running:
            return
        for number in _SIGNALS:
            handler = signal.getsignal(number)
            if callable(handler):  # else the signal is ignored, or ends the process anyway
                self._before[number] = handler
                signal.signal(number, self._signalled)

    def _signalled(self, number: int, frame: Any) -> None:
        stopping = self._received or self.parent is None or not self.parent.running
        self._received = True
        if not stopping:
            self._before[number](number, frame)
            return
        for each in self._before:
            signal.signal(each, signal.SIG_DFL)  # a third one does not even wait for what follows
        _log.warn("received {signal} during the stop: ends at once", signal=signal.Signals(number).name)
        try:
            self.abandon()
        finally:
            self._end(number)


def killed_by(number: int) -> NoReturn:
    """End the process as that signal ends one that does not handle it."""
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    os._exit(128 + number)  # the first process of a container ignores a signal that it does not handle
