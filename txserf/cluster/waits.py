"""Those who wait until enough members match."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from txserf.cluster.matching import Match
from txserf.errors import RequestTimeout, SerfError
from txserf.model import Member

Select = Callable[[Match], list[Member]]

#: How many members are waited for, or a predicate of the list of them.
Enough = int | Callable[[list[Member]], object]


class Wait:
    """
    Waits until enough members match.

    :ivar result: fires with the list of them.
    """

    def __init__(self, waits: Waits, match: Match, enough: Enough) -> None:
        self.match = match
        self.enough = enough
        self.timer: Any = None
        self.seen = 0
        self.result: Deferred[list[Member]] = Deferred(lambda _: waits.forget(self))


class Waits:
    """
    All that wait.

    :param select: finds members.
    """

    def __init__(self, select: Select) -> None:
        self._select = select
        self._all: dict[Wait, None] = {}

    def __bool__(self) -> bool:
        return bool(self._all)

    def add(self, match: Match, enough: Enough) -> Wait:
        """Wait; `check` looks for the first time."""
        wait = Wait(self, match, enough)
        self._all[wait] = None
        return wait

    def limit(self, wait: Wait, clock: Any, timeout: float, why: Callable[[], str]) -> None:
        """Fail it in *timeout* seconds, with a text that *why* ends."""

        def late() -> None:
            wait.timer = None
            self.forget(wait)
            wanted = f" of {wait.enough}" if isinstance(wait.enough, int) else ""
            text = f"wait_for: {wait.seen}{wanted} members within {timeout} s{why()}"
            wait.result.errback(RequestTimeout(text))

        wait.timer = clock.callLater(timeout, late)

    def forget(self, wait: Wait) -> None:
        self._all.pop(wait, None)
        timer, wait.timer = wait.timer, None
        if timer is not None:
            timer.cancel()

    def check(self) -> None:
        """Fire those that need wait no longer."""
        for wait in list(self._all):
            self.check_one(wait)

    def check_one(self, wait: Wait) -> None:
        """Fire one if it need wait no longer."""
        if wait not in self._all:  # another one's callback has cancelled it
            return
        try:
            members = self._select(wait.match)
            enough = wait.enough
            wait.seen = len(members)
            met = len(members) >= enough if isinstance(enough, int) else enough(members)
        except Exception:  # of a predicate of the caller's
            self.forget(wait)
            wait.result.errback(Failure())
            return
        if met:
            self.forget(wait)
            wait.result.callback(members)

    def fail(self, make: Callable[[], SerfError]) -> None:
        """Fail them all, each with an error of its own."""
        while self._all:
            wait = next(iter(self._all))
            self.forget(wait)
            wait.result.errback(make())
