"""One event at work: its handlers run in order, each with a time limit, and their failures are logged."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Concatenate, ParamSpec, Protocol

from twisted.internet.base import DelayedCall
from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.python.reflect import safe_str

from txserf.callbacks import waited_for
from txserf.errors import RpcError, SerfError, encodable, reason_text
from txserf.handlers.handled import Key
from txserf.handlers.routes import RESPONSES, Context, Handler, never_ran
from txserf.model import Event, MemberEvent, QueryEvent
from txserf.processes import ScriptFailed

_P = ParamSpec("_P")

_log = Logger(namespace="txserf.handlers")

# How many members of a member event a line of the log names.
_NAMED = 5

# Seconds for which a handler may hold everything up without a word in the log.
_BLOCKING = 1.0


class HandlerFailed(SerfError):
    """A handler broke a rule, which the text names."""


class Outcome(str, enum.Enum):
    """How a handler ended. An event ends as the worst of its handlers did."""

    OK = "ok"
    FAILED = "failed"
    TIMEOUT = "timeout"
    CANCELLED = "cancelled"


_SEVERITY = list(Outcome)

# Errors whose text is txserf's or the agent's own, so that no payload can be in it.
_TELLING = (HandlerFailed, ScriptFailed, RpcError)


class Observer:
    """
    Is told what happens to events. This class ignores all of it; override what you need.

    An exception that a method raises is logged, and changes nothing else.
    """

    def arrived(self, type: str) -> None:
        """
        Note that an event came that has handlers.

        :param type: its ``type``, such as ``user`` or ``member-join``.
        """

    def duplicate(self, type: str) -> None:
        """Note that an event came again that was handled already; it is not handled again."""

    def resumed(self) -> None:
        """Note that the stream was down, so that events may have been missed. It is back, or has ended for good."""

    def ended(self, type: str, handler: str, outcome: Outcome, duration: float) -> None:
        """
        Note that a handler has ended.

        :param type: the event's ``type``.
        :param handler: a function's full name, or a script's command line.
        :param duration: how long it took, in seconds.
        """


def tell(
    observers: Iterable[Observer],
    method: Callable[Concatenate[Observer, _P], None],
    *args: _P.args,
    **kwargs: _P.kwargs,
) -> None:
    """
    Call a method of each observer; what one raises is logged and stops nothing.

    :param method: one of `Observer` itself, such as ``Observer.arrived``.
    """
    for observer in observers:
        try:
            getattr(observer, method.__name__)(*args, **kwargs)
        except KeyboardInterrupt:
            raise
        except BaseException:
            _log.failure("an observer failed", _loggable(Failure()))


class Runner(Context, Protocol):
    """Runs the handlers of events, and is told of the end of each event."""

    handler_timeout: float | None
    observers: list[Observer]

    def finished(self, work: Work) -> None:
        """Note that all handlers of an event have ended."""


def describe(event: Event) -> str:
    """Return an event's name for a line of the log, without its payload and without line breaks."""
    if isinstance(event, MemberEvent):
        names = [repr(member.name) for member in event.members[:_NAMED]]
        if (more := len(event.members) - len(names)) > 0:
            names.append(f"{more} more")
        return f"{event.type} of {', '.join(names)}"
    return f"{event.type} {event.name!r} (LTime {event.ltime})"


class Work:
    """
    Runs the handlers of one event, one after the other.

    A handler that fails or takes too long is logged, and the next one is called.

    :param runner: is told of the end.
    :param key: of a user event, its `key_of`; else None.
    :ivar type: the event's ``type``.
    :ivar outcome: how the event ended: as the worst of its handlers did.
    :ivar duration: how long all of them took, in seconds.
    """

    __slots__ = (
        "_aborted", "_began_at", "_handlers", "_next", "_runner", "_turn", "duration", "event", "key", "outcome", "type",
    )  # fmt: skip

    def __init__(self, runner: Runner, event: Event, handlers: Sequence[Handler], key: Key | None) -> None:
        self.event: Event = event
        self.type: str = event.type
        self.key: Key | None = key
        self.outcome: Outcome = Outcome.OK
        self.duration: float = 0.0
        self._began_at = 0.0
        self._runner = runner
        self._handlers = handlers
        self._next = 0
        self._turn: _Turn | None = None
        self._aborted = False

    def run(self) -> None:
        """Begin. The runner is told of the end, maybe before this returns."""
        self._began_at = now = self._runner.clock.seconds()
        self._go_on(now)

    def abort(self) -> None:
        """Cancel the handler that is at work, and do not call those behind it."""
        self._aborted = True
        if self._turn is not None:
            self._turn.end_early(Outcome.CANCELLED)

    def _go_on(self, now: float) -> None:
        runner, event, handlers = self._runner, self.event, self._handlers
        while self._next < len(handlers) and not self._aborted:
            handler, began_at = handlers[self._next], now
            self._next += 1
            try:
                result = handler.start(event, runner)
                if result is not None:
                    turn = _Turn(self, handler, began_at)
                    if turn.waits_for(result):
                        self._turn = turn
                        return
                    now = runner.clock.seconds()
                    _check_blocking(handler, now - began_at)
                    continue
            except KeyboardInterrupt:
                self.outcome = Outcome.CANCELLED
                self._finish(runner.clock.seconds())  # so that the next event can be handled
                raise
            except BaseException:  # sys.exit() in a handler, too, must not take the connection down
                now = self.ended(handler, began_at, Outcome.FAILED, Failure())
                continue
            now = self.ended(handler, began_at, Outcome.OK)
            _check_blocking(handler, now - began_at)
        self._finish(now)

    def _finish(self, now: float) -> None:
        self.duration = now - self._began_at
        self._runner.finished(self)

    def resume(self, turn: _Turn, now: float) -> None:
        """Call the handlers behind the one that has ended, unless that is done already."""
        if self._turn is turn:
            self._turn = None
            self._go_on(now)

    def ended(
        self, handler: Handler, began_at: float, outcome: Outcome, failure: Failure | None = None
    ) -> float:
        """Note and log that a handler ends now; return the time."""
        now: float = self._runner.clock.seconds()
        duration = now - began_at
        tell(self._runner.observers, Observer.ended, self.type, handler.label, outcome, duration)
        if outcome is not Outcome.OK:
            self.outcome = max(self.outcome, outcome, key=_SEVERITY.index)
            self._tell(handler, outcome, failure, duration)
        return now

    def _tell(self, handler: Handler, outcome: Outcome, failure: Failure | None, duration: float) -> None:
        told: dict[str, Any] = {"event": describe(self.event), "handler": handler.label, "duration": duration}
        if outcome is not Outcome.FAILED:
            _log.error("{event}: {handler} {what} after {duration:.3f} s", what=_WHAT[outcome], **told)
            return
        assert failure is not None
        public = isinstance(self.event, MemberEvent)
        if isinstance(failure.value, SerfError if public else _TELLING):
            _log.error("{event}: {handler}: {reason}", reason=reason_text(failure), **told)
        else:
            failure = _loggable(failure) if public else _without_text(failure)
            _log.failure("{event}: {handler} failed", failure, **told)

    @property
    def runner(self) -> Runner:
        return self._runner


def _check_blocking(handler: Handler, duration: float) -> None:
    """Warn of a handler that took long before it returned: nothing else ran meanwhile."""
    if duration > _BLOCKING:
        _log.warn(
            "{handler} has blocked the reactor for {duration:.1f} s: nothing else ran meanwhile",
            handler=encodable(handler.label),
            duration=duration,
        )


_WHAT = {Outcome.TIMEOUT: "took too long and was cancelled", Outcome.CANCELLED: "was cancelled"}


def _without_text(failure: Failure) -> Failure:
    """
    Return a failure of the same type and traceback, without its text.

    No part of a payload may be in the log, and any text that a user's code makes may hold one.
    """
    return _with_text(failure, "its text is left out, for it may show the event's payload")


def _loggable(failure: Failure) -> Failure:
    """Return the failure, or one of the same type and traceback if a log observer could not write its text."""
    text = safe_str(failure.value)
    shown = encodable(text)
    return failure if shown == text else _with_text(failure, shown)


def _with_text(failure: Failure, text: str) -> Failure:
    return Failure(HandlerFailed(text), failure.type, failure.getTracebackObject())


class _Turn:
    """The end of one handler that has returned a value or an awaitable."""

    _waiting: Deferred[Any]

    __slots__ = ("_began_at", "_early", "_handler", "_over", "_timer", "_waiting", "_work")

    def __init__(self, work: Work, handler: Handler, began_at: float) -> None:
        self._work = work
        self._handler = handler
        self._began_at = began_at
        self._early: Outcome | None = None
        self._over = False
        self._timer: DelayedCall | None = None

    def waits_for(self, result: object) -> bool:
        """Take the value that the handler returned. Return whether the handler still has to be waited for."""
        waiting = waited_for(result)
        if waiting is None:
            waiting = succeed(result)
        self._waiting = waiting
        waiting.addCallback(self._answer).addBoth(self._done)
        if self._over:
            return False
        runner = self._work.runner
        if runner.handler_timeout is not None:
            self._timer = runner.clock.callLater(runner.handler_timeout, self.end_early, Outcome.TIMEOUT)
        return True

    def _answer(self, value: object) -> Deferred[None] | None:
        """Respond with the value of a query's handler."""
        event = self._work.event
        if value is None or self._over or self._early is not None:
            return None
        if not isinstance(event, QueryEvent):
            if never_ran(value):
                raise HandlerFailed("returned a generator, whose body never ran")
            return None
        if isinstance(value, RESPONSES):
            return event.respond(value).addErrback(_not_answered)
        raise HandlerFailed(f"returned {type(value).__name__}: an answer is bytes or str, or None for none")

    def _done(self, value: object) -> None:
        if self._over:
            return  # it was given up long before
        self._over = True
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        failure = value if isinstance(value, Failure) else None
        outcome = self._early or (Outcome.OK if failure is None else Outcome.FAILED)
        now = self._work.ended(self._handler, self._began_at, outcome, failure)
        self._work.resume(self, now)

    def end_early(self, outcome: Outcome) -> None:
        """Cancel the handler. If it goes on nevertheless, forget it."""
        self._early = outcome
        try:
            self._waiting.cancel()
        except KeyboardInterrupt:
            raise
        except BaseException:  # a user's canceller raised
            _log.failure("cancelling {handler} failed", _without_text(Failure()), handler=self._handler.label)
        if not self._over:
            self._done(None)


def _not_answered(failure: Failure) -> None:
    # Its text is txserf's own, without the payload. That of an RpcError is the agent's, and says enough.
    if not failure.check(SerfError) or failure.check(RpcError):
        failure.raiseException()
    raise HandlerFailed(f"not answered: {reason_text(failure)}")
