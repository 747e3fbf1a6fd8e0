"""Lamport clocks: counters that order what happens on different nodes."""

from __future__ import annotations


class LamportClock:
    """
    A counter that never falls behind what it has heard of.

    :ivar time: what the next event of this node gets.
    """

    __slots__ = ("time",)

    def __init__(self, time: int = 1) -> None:
        self.time = time

    def increment(self) -> int:
        """Step on; returns the new time."""
        self.time += 1
        return self.time

    def witness(self, time: int) -> None:
        """Take note of the time of an event from elsewhere."""
        if time >= self.time:
            self.time = time + 1
