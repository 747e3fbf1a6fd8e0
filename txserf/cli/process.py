"""The process of ``txserf``: the reactor, and the signals that end it."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Coroutine
from typing import IO, Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import ILogObserver, LogEvent, LogLevel, formatEvent, globalLogBeginner
from twisted.python.failure import Failure
from zope.interface import implementer

from txserf.cli.invocation import complain

# Seconds that a line of the log waits.
_MOMENT = 0.1

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@implementer(ILogObserver)
class StderrLog:
    """
    Writes what is logged to a stream, a line each, a moment later.

    A command that fails says why in a line of its own. What was logged in the same moment says the same, and is dropped.

    :param clock: gives the time.
    :param stream: where it goes.
    :ivar level: the lowest level that is written.
    """

    def __init__(self, clock: Any, stream: IO[str] | None) -> None:
        self.level = LogLevel.error
        self._clock = clock
        self._stream = stream
        self._lines: list[str] = []
        self._due: Any = None

    def __call__(self, event: LogEvent) -> None:
        if event["log_level"] >= self.level:
            failure: Failure | None = event.get("log_failure")
            reason = "" if failure is None else f": {failure.getErrorMessage()}"
            self._lines.append(f"{formatEvent(event)}{reason}")
            if self._due is None:
                self._due = self._clock.callLater(_MOMENT, self.flush)

    def flush(self) -> None:
        """Write what waits."""
        lines = self._lines
        self.drop()
        for line in lines:
            complain(self._stream, line)

    def drop(self) -> None:
        """Forget what waits."""
        self._lines = []
        if self._due is not None and self._due.active():
            self._due.cancel()
        self._due = None


def in_reactor(work: Callable[[Any, StderrLog], Coroutine[Any, Any, int]]) -> int:
    """
    Run the reactor until *work* is done.

    A SIGINT or SIGTERM cancels it, and the exit code is 128 and the signal's number then. A second one ends the process at
    once.

    :param work: called with the reactor and the log; its result is the exit code.
    :returns: the exit code.
    :raises BaseException: what *work* raises.
    """
    from twisted.internet import reactor

    log = StderrLog(reactor, sys.stderr)
    globalLogBeginner.beginLoggingTo([log], discardBuffer=True, redirectStandardIO=False)
    outcome: list[Any] = []
    signals: list[int] = []

    def start() -> None:
        doing = Deferred.fromCoroutine(work(reactor, log))
        for number in _SIGNALS:
            signal.signal(number, lambda number, _: interrupt(number, doing))
        doing.addBoth(done)

    def interrupt(number: int, doing: Deferred[Any]) -> None:
        if signals:
            os._exit(128 + number)
        signals.append(number)
        reactor.callFromThread(doing.cancel)  # type: ignore[attr-defined]  # it is typed as less than it is

    def done(result: Any) -> None:
        outcome.append(result)
        log.flush()
        reactor.stop()

    reactor.callWhenRunning(start)
    reactor.run()
    (result,) = outcome
    if signals and isinstance(result, Failure) and result.check(CancelledError):
        return 128 + signals[0]
    if isinstance(result, Failure):
        result.raiseException()
    code: int = result
    return code
