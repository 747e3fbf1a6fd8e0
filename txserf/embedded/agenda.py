"""
The cluster's time: calls that are due later, in one order.

One timer of the reactor serves a whole cluster. Calls that are due at the same time
are made in the order in which they were asked for, so that two runs under a `Clock`
are the same. While nobody is connected, no timer is left in the reactor. The calls
that became due meanwhile are made before anybody looks again, each at its own time.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from heapq import heappop, heappush

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from txserf.arguments import time_source

_log = Logger(namespace="txserf.embedded")


class Entry:
    """A call that is due at a time; see `Agenda.later`."""

    __slots__ = ("at", "call", "order")

    def __init__(self, at: float, order: int, call: Callable[[], object]) -> None:
        self.at: float = at
        self.order: int = order
        self.call: Callable[[], object] | None = call

    def __lt__(self, other: Entry) -> bool:
        return (self.at, self.order) < (other.at, other.order)

    def cancel(self) -> None:
        """Do not make the call; if it was made already, nothing happens."""
        self.call = None


class Agenda:
    """
    Makes the calls that are due, in order of time.

    :param reactor: the source of time; None for the global one, at first use.
    """

    def __init__(self, reactor: object | None) -> None:
        self._clock = None if reactor is None else time_source(reactor)
        self._heap: list[Entry] = []
        self._orders = itertools.count()
        self._observers = 0
        self._now: float | None = None  # the time of the entry whose call is being made
        self._timer: IDelayedCall | None = None

    @property
    def clock(self) -> IReactorTime:
        """The reactor, as a clock."""
        if self._clock is None:
            self._clock = time_source(None)
        return self._clock

    def seconds(self) -> float:
        """Return the time: that of the entry whose call is being made, else the clock's."""
        return self.clock.seconds() if self._now is None else self._now

    def later(self, delay: float, call: Callable[[], object]) -> Entry:
        """
        Call a function later.

        :param delay: seconds; 0 is the next turn.
        :returns: the entry, by which the call can be cancelled.
        """
        entry = Entry(self.seconds() + max(0.0, delay), next(self._orders), call)
        heappush(self._heap, entry)
        self._arm()
        return entry

    def sleep(self, delay: float) -> Deferred[None]:
        """Return a Deferred that fires in *delay* seconds."""
        waiting: Deferred[None] = Deferred()
        self.later(delay, lambda: waiting.callback(None))
        return waiting

    def observed(self) -> None:
        """Note that one more looks from now on, so that calls have to be made at their time."""
        self._observers += 1
        if self._observers == 1:
            self.catch_up()
            self._arm()

    def unobserved(self) -> None:
        """Note that one less looks; after the last one the reactor is left alone."""
        self._observers -= 1
        if not self._observers and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def catch_up(self) -> None:
        """Make all calls that are due by now."""
        if self._now is not None:
            return  # asked for by a call that is being made: its loop goes on
        until = self.clock.seconds()
        try:
            while self._heap and self._heap[0].at <= until:
                entry = heappop(self._heap)
                if entry.call is None:
                    continue
                self._now = entry.at
                try:
                    entry.call()
                except Exception:
                    _log.failure("a step of the embedded cluster failed")
        finally:
            self._now = None

    def _arm(self) -> None:
        if not self._observers or self._now is not None or not self._heap:
            return
        at = self._heap[0].at
        if self._timer is not None:
            if self._timer.getTime() <= at:
                return
            self._timer.cancel()
        self._timer = self.clock.callLater(max(0.0, at - self.clock.seconds()), self._due)

    def _due(self) -> None:
        self._timer = None
        try:
            self.catch_up()
        finally:  # a KeyboardInterrupt goes on up, and the cluster goes on as well
            self._arm()
