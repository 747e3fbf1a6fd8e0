"""One event at work: its handlers in order, each with its time and its failures."""

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
from txserf.errors import Disconnected, RequestTimeout, RpcError, SerfError, encodable, reason_text
from txserf.handlers.handled import Key
from txserf.handlers.routes import RESPONSES, Context, Handler, never_ran
from txserf.handlers.scripts import ScriptFailed
from txserf.model import Event, MemberEvent, QueryEvent

_P = ParamSpec("_P")

_log = Logger(namespace="txserf.handlers")

# How many members of a member event are named in a line.
_NAMED = 5


class HandlerFailed(SerfError):
    """A handler did what none may do; the text says what."""


class Outcome(str, enum.Enum):
    """How a handler ended, or an event: as the worst of its handlers."""

    OK = "ok"
    FAILED = "failed"
    TIMEOUT = "timeout"
    CANCELLED = "cancelled"


_SEVERITY = list(Outcome)

# Whose texts are ours, or the agent's own words.
_TELLING = (HandlerFailed, ScriptFailed, RpcError)


class Observer:
    """Is told what happens; this one ignores it. Where one raises, that is logged, and no more."""

    def arrived(self, type: str) -> None:
        """An event came that has handlers."""

    def duplicate(self, type: str) -> None:
        """It was handled before."""

    def resumed(self) -> None:
        """The stream was down, so that events may have been missed; it is back, or has ended for good."""

    def ended(self, type: str, handler: str, outcome: Outcome, duration: float) -> None:
        """A handler has ended, *duration* in seconds."""


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
    """Who runs the work, and hears of its end."""

    handler_timeout: float | None
    observers: list[Observer]

    def finished(self, work: Work) -> None: ...


def describe(event: Event) -> str:
    """Name an event in a line of a log: never its payload, and nothing that breaks a line."""
    if isinstance(event, MemberEvent):
        names = [repr(member.name) for member in event.members[:_NAMED]]
        if (more := len(event.members) - len(names)) > 0:
            names.append(f"{more} more")
        return f"{event.type} of {', '.join(names)}"
    return f"{event.type} {event.name!r} (LTime {event.ltime})"


class Work:
    """
    The handlers of one event, one after the other.

    A handler that fails or takes too long is logged, and the next one has its turn.

    :ivar type: Serf's word for the event's type.
    :ivar outcome: how the event ended, as the worst of its handlers.
    :ivar duration: how long that took, in seconds.
    """

    __slots__ = (
        "_aborted", "_began_at", "_handlers", "_next", "_runner", "_turn", "duration", "event", "key", "outcome", "type",
    )  # fmt: skip

    def __init__(self, runner: Runner, event: Event, handlers: Sequence[Handler], key: Key | None) -> None:
        self.event = event
        self.type = event.type
        self.key = key
        self.outcome = Outcome.OK
        self.duration = 0.0
        self._began_at = 0.0
        self._runner = runner
        self._handlers = handlers
        self._next = 0
        self._turn: _Turn | None = None
        self._aborted = False

    def run(self) -> None:
        """Begin; the runner hears of the end, which may be at once."""
        self._began_at = now = self._runner.clock.seconds()
        self._go_on(now)

    def abort(self) -> None:
        """Cancel the handler that is at work, and leave out the others."""
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
                    continue
            except KeyboardInterrupt:
                self.outcome = Outcome.CANCELLED
                self._finish(runner.clock.seconds())  # so that the next event has its turn
                raise
            except BaseException:  # sys.exit() in a handler, too, must not take the connection down
                now = self.ended(handler, began_at, Outcome.FAILED, Failure())
                continue
            now = self.ended(handler, began_at, Outcome.OK)
        self._finish(now)

    def _finish(self, now: float) -> None:
        self.duration = now - self._began_at
        self._runner.finished(self)

    def resume(self, turn: _Turn, now: float) -> None:
        """A handler is through: go on behind it, unless that is done already."""
        if self._turn is turn:
            self._turn = None
            self._go_on(now)

    def ended(
        self, handler: Handler, began_at: float, outcome: Outcome, failure: Failure | None = None
    ) -> float:
        """Note and log how a handler ended, which is now; return the time."""
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


_WHAT = {Outcome.TIMEOUT: "took too long and was cancelled", Outcome.CANCELLED: "was cancelled"}


def _without_text(failure: Failure) -> Failure:
    """
    Give a failure of the same type and traceback, its text left out.

    No part of a payload may be in a log, and what a user's code makes of one can't be told from it.
    """
    return _with_text(failure, "its text is left out, for it may show the event's payload")


def _loggable(failure: Failure) -> Failure:
    """Give the failure, or one of the same type and traceback where an observer could not write its text."""
    text = safe_str(failure.value)
    shown = encodable(text)
    return failure if shown == text else _with_text(failure, shown)


def _with_text(failure: Failure, text: str) -> Failure:
    return Failure(HandlerFailed(text), failure.type, failure.getTracebackObject())


class _Turn:
    """One handler's turn, where it returned something: a result, or what will be one."""

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
        """Take what the handler returned; False where it is through with that."""
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
        """Respond with what a query's handler has returned."""
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
            return  # it ended long after it was given up; nobody asks any more
        self._over = True
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        failure = value if isinstance(value, Failure) else None
        outcome = self._early or (Outcome.OK if failure is None else Outcome.FAILED)
        now = self._work.ended(self._handler, self._began_at, outcome, failure)
        self._work.resume(self, now)

    def end_early(self, outcome: Outcome) -> None:
        """Cancel the handler; where it does not care, forget it."""
        self._early = outcome
        try:
            self._waiting.cancel()
        except KeyboardInterrupt:
            raise
        except BaseException:  # of a canceller
            _log.failure("cancelling {handler} failed", _without_text(Failure()), handler=self._handler.label)
        if not self._over:
            self._done(None)


def _not_answered(failure: Failure) -> None:
    failure.trap(Disconnected, RequestTimeout)  # an RpcError is told as it is
    raise HandlerFailed(f"not answered: {reason_text(failure)}")
