"""The events that wait for their handlers."""

from __future__ import annotations

from collections import deque

from twisted.logger import Logger

from txserf.handlers.work import describe
from txserf.model import Event

_log = Logger(namespace="txserf.handlers")


class Backlog:
    """
    A queue of events, which drops the oldest one where it is full.

    :param size: how many events may wait.
    :ivar dropped: how many events were dropped.
    """

    def __init__(self, size: int) -> None:
        self.dropped: int = 0
        self._size = size
        self._events: deque[Event] = deque()
        self._overflows = False

    def __len__(self) -> int:
        return len(self._events)

    def put(self, event: Event) -> None:
        """Let an event wait behind the others."""
        self._events.append(event)
        if len(self._events) > self._size:
            self._drop(self._events.popleft())

    def put_back(self, event: Event) -> None:
        """Let an event wait before the others."""
        self._events.appendleft(event)

    def next(self) -> Event | None:
        """Take out the event that has waited longest; None where none waits."""
        if not self._events:
            return None
        self._overflows = False
        return self._events.popleft()

    def drop_all(self) -> None:
        """Drop all that wait, at the end of a stop."""
        if self._events:
            self.dropped += len(self._events)
            _log.error("stopping: {count} events that waited are dropped", count=len(self._events))
            self._events.clear()

    def _drop(self, event: Event) -> None:
        self.dropped += 1
        if not self._overflows:  # logged once until there is room again: a flood must not flood the log
            self._overflows = True
            _log.error(
                "{count} events wait, the oldest ones are dropped from {event} on",
                event=describe(event),
                count=self._size,
            )
