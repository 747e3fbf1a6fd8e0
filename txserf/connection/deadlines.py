"""
Many deadlines for the price of one timer.

A reactor's timer costs some 3 us to make and to cancel. With thousands of calls
under way, nearly all of them answered in time, that is most of the cost of a
call. Here one timer waits for the first deadline, and the others are sorted only
when it fires. By then most of them are done and forgotten.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from heapq import heapify, heappop, heappush
from typing import Any, Protocol, TypeAlias

from twisted.internet.interfaces import IDelayedCall, IReactorTime

# A heap with this many forgotten entries or fewer is not swept.
_FEW = 128

# The time, a number that keeps equal times in order, and the `Due`, which is None once it is forgotten.
# It is a list, because C code compares lists.
_Entry: TypeAlias = "list[Any]"
_AT, _ORDER, _WHAT = range(3)


class Due(Protocol):
    """
    Something that has a deadline, one at a time.

    :ivar due_at: the time of its deadline, in seconds of the clock; set by `Deadlines.watch`.
    """

    due_at: float

    @property
    def expired(self) -> Callable[[], None]:
        """The function to call at the deadline."""


class Deadline:
    """A deadline that calls a function."""

    __slots__ = ("due_at", "expired")

    def __init__(self, call: Callable[[], None]) -> None:
        self.expired: Callable[[], None] = call
        self.due_at: float = math.inf


class Deadlines:
    """
    Calls the `Due.expired` of all that is watched, in order of time.

    :param time: returns the clock; called when there is a first deadline.
    """

    def __init__(self, time: Callable[[], IReactorTime]) -> None:
        self._time = time
        self._seconds = self._first_seconds
        self._new: dict[Due, None] = {}  # not sorted yet: the timer fires before the first of them is due
        self._sorted: dict[Due, _Entry] = {}  # these are in the heap
        self._heap: list[_Entry] = []
        self._count = itertools.count().__next__
        self._timer: IDelayedCall | None = None
        self._timer_at = math.inf  # infinite while there is no timer

    def watch(self, delay: float, due: Due) -> None:
        """Call ``due.expired`` in *delay* seconds, unless it is forgotten by then. It must not be watched already."""
        due.due_at = at = self._seconds() + delay
        self._new[due] = None
        if at < self._timer_at:
            self._arm(at)

    def forget(self, due: Due) -> None:
        """Watch *due* no more. Nothing happens if its deadline has passed, or it was forgotten before."""
        try:
            del self._new[due]
        except KeyError:
            entry = self._sorted.pop(due, None)
            if entry is not None:
                entry[_WHAT] = None

    def add(self, delay: float, call: Callable[[], None]) -> Deadline:
        """Call *call* in *delay* seconds; return the deadline, which can be given to `forget`."""
        deadline = Deadline(call)
        self.watch(delay, deadline)
        return deadline

    def close(self) -> None:
        """Stop the timer if nothing is watched any more, so that none is left in the reactor."""
        if not self._new and not self._sorted:
            self._heap.clear()
            if self._timer is not None:
                self._timer.cancel()
                self._timer, self._timer_at = None, math.inf

    def _first_seconds(self) -> float:
        self._seconds = self._time().seconds
        return self._seconds()

    def _sort(self) -> None:
        """Move the new ones into the heap."""
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
