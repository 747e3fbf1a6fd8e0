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
from typing import Any, Protocol, TypeAlias

from twisted.internet.interfaces import IDelayedCall, IReactorTime

# Entries that are not worth a sweep of the forgotten ones.
_FEW = 128

# When, a number that keeps equal times in order, and what is due; None in its place: forgotten.
# A list, for those are compared by C.
_Entry: TypeAlias = "list[Any]"
_AT, _, _WHAT = range(3)


class Due(Protocol):
    """
    What may have a deadline, one at a time.

    :ivar due_at: when its time is over, in seconds of the clock; set by `Deadlines.watch`.
    """

    due_at: float

    @property
    def expired(self) -> Callable[[], None]:
        """What is called when its time is over."""


class Deadline:
    """A deadline that calls a function."""

    __slots__ = ("due_at", "expired")

    def __init__(self, call: Callable[[], None]) -> None:
        self.expired = call
        self.due_at = math.inf


class Deadlines:
    """
    Calls what is due, in order of time.

    :param time: returns the clock whose seconds count; it is asked once there is a deadline.
    """

    def __init__(self, time: Callable[[], IReactorTime]) -> None:
        self._time = time
        self._seconds = self._first_seconds
        self._new: dict[Due, None] = {}  # none of them is due before the timer fires
        self._sorted: dict[Due, _Entry] = {}  # these are in the heap
        self._heap: list[_Entry] = []
        self._count = itertools.count().__next__
        self._timer: IDelayedCall | None = None
        self._timer_at = math.inf  # there is none

    def watch(self, delay: float, due: Due) -> None:
        """Have *due*, which is not watched yet, expire in *delay* seconds, unless it is forgotten by then."""
        due.due_at = at = self._seconds() + delay
        self._new[due] = None
        if at < self._timer_at:
            self._arm(at)

    def forget(self, due: Due) -> None:
        """Let go of *due*, which is done; one that is over or was forgotten already is left alone."""
        try:
            del self._new[due]
        except KeyError:
            entry = self._sorted.pop(due, None)
            if entry is not None:
                entry[_WHAT] = None

    def add(self, delay: float, call: Callable[[], None]) -> Deadline:
        """Have *call* called in *delay* seconds; keep what is returned to `forget` it."""
        deadline = Deadline(call)
        self.watch(delay, deadline)
        return deadline

    def close(self) -> None:
        """Stop the timer where nothing is due any more, so that none is left in the reactor."""
        if not self._new and not self._sorted:
            self._heap.clear()
            if self._timer is not None:
                self._timer.cancel()
                self._timer, self._timer_at = None, math.inf

    def _first_seconds(self) -> float:
        self._seconds = self._time().seconds
        return self._seconds()

    def _sort(self) -> None:
        """Bring what is new into the heap."""
        new, self._new = self._new, {}
        for due in new:
            assert due not in self._sorted, "watched twice at a time"
            entry = self._sorted[due] = [due.due_at, self._count(), due]
            heappush(self._heap, entry)
        if len(self._heap) > 2 * len(self._sorted) + _FEW:
            self._heap = list(self._sorted.values())
            heapify(self._heap)

    def _arm(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = at
        self._timer = self._time().callLater(max(0.0, at - self._seconds()), self._due)

    def _due(self) -> None:
        self._timer, self._timer_at = None, math.inf
        now = self._seconds()
        self._sort()
        try:
            while self._heap and (self._heap[0][_AT] <= now or self._heap[0][_WHAT] is None):
                due = heappop(self._heap)[_WHAT]
                if due is not None:
                    del self._sorted[due]
                    due.expired()
        finally:
            if self._heap and self._heap[0][_AT] < self._timer_at:
                self._arm(self._heap[0][_AT])
