"""The witness of one run: what was promised and did not happen, or happened twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import attrs
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher
from twisted.python.failure import Failure
from zope.interface import implementer

import txserf

T = TypeVar("T")

#: Seconds that a Deferred may fire late: a deadline is rounded up, and a machine may be busy.
SLACK = 1.0


class Mistake(Exception):
    """The mistake that a callback of a program raises."""


@attrs.define
class Watched:
    """
    A Deferred under watch.

    :ivar due: when it must have fired; None for never.
    :ivar fired: the number of times that it did.
    """

    what: str
    due: float | None
    fired: int = 0
    cancelled: bool = False
    outcome: str = ""


@implementer(ILogObserver)
class Witness:
    """
    Watches over Deferreds and over the log, from its making to `leave`.

    :param clock: the time.
    :param secrets: what nothing may show.
    :ivar violations: in words.
    :ivar agent_failed: how the agent itself failed, by which nothing can be said of the run; empty where it did not.
    :ivar outcomes: by what was called, and what became of it.
    """

    def __init__(self, clock: IReactorTime, secrets: tuple[str, ...] = ()) -> None:
        self._clock = clock
        self._secrets = secrets
        self.violations: list[str] = []
        self.watched: list[Watched] = []
        self.outcomes: Counter[tuple[str, str]] = Counter()
        self.agent_failed = ""
        globalLogPublisher.addObserver(self)

    def leave(self) -> None:
        globalLogPublisher.removeObserver(self)

    @property
    def operations(self) -> int:
        return len(self.watched)

    def accuse(self, what: str) -> None:
        self.violations.append(what)

    # The log

    def __call__(self, event: LogEvent) -> None:
        failure: Failure | None = event.get("log_failure")
        if failure is not None and failure.check(Mistake) is None:
            self.accuse(f"logged: {formatEvent(event)}\n{failure.getTraceback()}")
        shown = f"{formatEvent(event)} {event!r}"
        if any(secret in shown for secret in self._secrets):
            self.accuse(f"a key in the log: {event.get('log_format')}")

    # Deferreds

    def watch(
        self, what: str, result: Deferred[T], within: float | None, then: Callable[[T], object] | None = None
    ) -> Watched:
        """
        See that *result* fires once.

        :param within: seconds; None: it may take until everything is closed.
        :param then: called with what it fires with.
        """
        due = None if within is None else self._clock.seconds() + within + SLACK
        watched = Watched(what, due)
        self.watched.append(watched)

        def fired(value: Any) -> None:
            watched.fired += 1
            if watched.fired > 1:
                self.accuse(f"{what} fired {watched.fired} times")
            if watched.due is not None and self._clock.seconds() > watched.due:
                self.accuse(f"{what} fired {self._clock.seconds() - watched.due:.2f} s too late")
            watched.outcome = self._judge(watched, value)
            self.outcomes[what, watched.outcome] += 1
            if then is not None and not isinstance(value, Failure):
                then(value)

        result.addBoth(fired)
        return watched

    def _judge(self, watched: Watched, value: object) -> str:
        if not isinstance(value, Failure):
            return "success"
        allowed = value.check(txserf.SerfError, Mistake)
        if allowed is None and not (watched.cancelled and value.check(CancelledError)):
            self.accuse(f"{watched.what} failed with what is not ours: {value.getTraceback()}")
        shown = f"{value.value} {value.value!r} {value.getTraceback()}"
        if any(secret in shown for secret in self._secrets):
            self.accuse(f"a key in the error of {watched.what}")
        return type(value.value).__name__

    def call(self, what: str, function: Callable[[], T]) -> T | None:
        """Call *function*; it may raise our errors only. None where it did."""
        try:
            return function()
        except txserf.SerfError as error:
            self.outcomes[what, f"raised {type(error).__name__}"] += 1
        except Exception:
            self.accuse(f"{what} raised what is not ours: {Failure().getTraceback()}")
        return None

    def consume(self, what: str, items: Any, each: Callable[[Any], object]) -> Watched:
        """Iterate *items* to their end, which may take until everything is closed."""

        async def iterate() -> None:
            async for item in items:
                each(item)

        return self.watch(what, Deferred.fromCoroutine(iterate()), None)

    def awaited(self, what: str, thing: Awaitable[Any], within: float | None) -> Watched:
        """Await *thing*."""

        async def wait() -> Any:
            return await thing

        return self.watch(what, Deferred.fromCoroutine(wait()), within)

    @property
    def under_way(self) -> list[Watched]:
        """Those that are due at some time, and have not fired."""
        return [each for each in self.watched if not each.fired and each.due is not None]

    def check_fired(self, *, all_of_them: bool) -> None:
        """Accuse each Deferred that has not fired; with *all_of_them* those that could take for ever, too."""
        for each in self.watched if all_of_them else self.under_way:
            if not each.fired:
                self.accuse(f"{each.what} never fired")
