"""
Many deadlines for the price of one timer.

A reactor's timer costs some 3 us to make and to cancel; with thousands of calls
under way, nearly all answered long before their time, that is most of a
call's cost. Here one timer waits for the first, and deadlines are sorted only when it
fires. Most are done by then, and forgotten.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from heapq import heapify, heappop, heappush
from typing import Protocol

from twisted.internet.interfaces import IDelayedCall, IReactorTime

# Entries that are not worth a sweep of those that are done.
_FEW = 128


class Due(Protocol):
    """
    What may have a deadline, one in its life.

    :ivar due_at: when its time is over, in seconds of the clock; set by `Deadlines.watch`.
    :ivar done: whether that no longer matters.
    """

    due_at: float
    done: bool

    @property
    def expired(self) -> Callable[[], None]:
        """What is called when its time is over, unless it is done."""


class Deadline:
    """A deadline that calls a function."""

    __slots__ = ("done", "due_at", "expired")

    def __init__(self, call: Callable[[], None]) -> None:
        self.expired = call
        self.done = False
        self.due_at = math.inf


def _nothing() -> None:
    pass


class Deadlines:
    """
    Calls what is due, in order of time.

    :param clock: whose seconds count.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._seconds = clock.seconds
        self._new: dict[Due, None] = {}  # none of them is due before the timer fires
        self._heap: list[tuple[float, int, Due]] = []
        self._sweep_at = _FEW
        self._count = itertools.count().__next__
        self._timer: IDelayedCall | None = None
        self._timer_at = math.inf  # there is none

    def watch(self, delay: float, due: Due) -> None:
        """Have *due* expire in *delay* seconds, unless it is done by then."""
        due.due_at = at = self._seconds() + delay
        self._new[due] = None
        if at < self._timer_at:
            self._arm(at)

    def forget(self, due: Due) -> None:
        """Let go of *due*, which is done; a sorted one is let go of later."""
        self._new.pop(due, None)

    def add(self, delay: float, call: Callable[[], None]) -> Deadline:
        """Have *call* called in *delay* seconds; keep what is returned to cancel it."""
        deadline = Deadline(call)
        self.watch(delay, deadline)
        return deadline

    def cancel(self, deadline: Deadline) -> None:
        """Forget *deadline*; one that is over or was cancelled already is left alone."""
        deadline.done = True
        deadline.expired = _nothing  # what that held need not wait for a sweep
        self.forget(deadline)

    def close(self) -> None:
        """Stop the timer where nothing is due any more, so that none is left in the reactor."""
        self._sort()
        self._sweep()
        if not self._heap and self._timer is not None:
            self._timer.cancel()
            self._timer, self._timer_at = None, math.inf

    def _sort(self) -> None:
        """Bring what is new, and alive, into the heap."""
        new, self._new = self._new, {}
        for due in new:
            if not due.done:
                heappush(self._heap, (due.due_at, self._count(), due))
        if len(self._heap) > self._sweep_at:
            self._sweep()

    def _sweep(self) -> None:
        self._heap = [entry for entry in self._heap if not entry[2].done]
        heapify(self._heap)
        self._sweep_at = 2 * len(self._heap) + _FEW

    def _arm(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = at
        self._timer = self._clock.callLater(max(0.0, at - self._seconds()), self._due)

    def _due(self) -> None:
        self._timer, self._timer_at = None, math.inf
        now = self._seconds()
        self._sort()
        try:
            while self._heap and (self._heap[0][0] <= now or self._heap[0][2].done):
                due = heappop(self._heap)[2]
                if not due.done:
                    due.expired()
        finally:
            if self._heap and self._heap[0][0] < self._timer_at:
                self._arm(self._heap[0][0])
