"""Streams of log lines, all of them from the one monitor that an agent allows a connection."""

from __future__ import annotations

from collections import deque
from typing import Any

from twisted.internet.defer import Deferred, succeed

from txserf import commands
from txserf.connection.protocol import SerfProtocol
from txserf.connection.session import Session
from txserf.errors import SerfError
from txserf.model import LogLine
from txserf.serf.streams import Listener, Stream, Subscription

_RANKS = {level: rank for rank, level in enumerate(commands.LOG_LEVELS)}

# How many lines an agent replays when a monitor is opened.
_REPLAYED = 512


class _History:
    """
    The last lines that somebody has got, to tell what an agent replays from what is new.

    :ivar lines: as many as an agent replays at the most.
    """

    def __init__(self) -> None:
        self.lines: deque[LogLine] = deque(maxlen=_REPLAYED)
        self._awaited: deque[str] = deque()  # those that may be replayed, the oldest first

    @property
    def awaits_replay(self) -> bool:
        """Whether lines that were got may come once more."""
        return bool(self._awaited)

    def expect_replay(self) -> None:
        """A monitor is being opened anew."""
        self._awaited = deque(line.line for line in self.lines)

    def takes(self, line: LogLine) -> bool:
        """Whether *line* is new; it is remembered then."""
        if self._awaited:
            if line.line in self._awaited:
                while self._awaited.popleft() != line.line:
                    pass
                return False
            # Lines are replayed in order: behind the first new one all are new.
            self._awaited.clear()
        self.lines.append(line)
        return True


class LogStream(Stream[LogLine]):
    """
    The lines of the agent's log from a level up, in order; see `Serf.monitor`.

    Iterate it with ``async for``, or give it callbacks, or both.
    """

    def __init__(self, monitors: Monitors, level: str, buffer: int) -> None:
        super().__init__(buffer)
        self.level = level.upper()
        self._monitors = monitors
        self._rank = _RANKS.get(self.level)
        self._history = _History()

    def __repr__(self) -> str:
        return f"<LogStream: {self.level}>"

    def stop(self) -> Deferred[None]:
        """
        End it: what waits for a reader is dropped.

        :returns: a Deferred of None; the agent's monitor is stopped with the last stream of it.
        """
        stopping = self._monitors.remove(self)
        self._finish(None, discard=True)
        return stopping

    def _stop_asked(self) -> None:
        self.stop()

    def _take(self, line: LogLine) -> None:
        rank = _RANKS.get(line.level)
        wanted = rank is None or self._rank is None or rank >= self._rank
        if wanted and self._history.takes(line):
            self._deliver(line)


class Monitors(Listener):
    """
    The one monitor that an agent allows a connection, shared by all streams of log lines.

    It is asked for the lowest level that a stream wants.
    """

    def __init__(self, session: Session, timeout: float) -> None:
        self._session = session
        self._timeout = timeout
        self._streams: list[LogStream] = []
        self._subscription: Subscription | None = None
        self._rank = 0
        self._history = _History()  # of the whole monitor, for who comes later
        self._is_active = False

    def add(self, stream: LogStream) -> None:
        """Begin to feed *stream*."""
        if stream._rank is None:
            # No level that we know: the agent's own words are the answer.
            self._open(stream.level, stream)
        elif self._subscription is None or stream._rank < self._rank:
            if self._subscription is not None:
                self._subscription.stop(self._timeout)
                self._expect_replay()
            self._streams.append(stream)
            self._rank = stream._rank
            self._is_active = False
            self._history = _History()
            self._subscription = self._open(stream.level, self)
        else:
            self._streams.append(stream)
            for line in list(self._history.lines):
                stream._take(line)
            if self._history.awaits_replay:
                stream._history.expect_replay()
            if self._is_active:
                stream._active()

    def remove(self, stream: LogStream) -> Deferred[None]:
        """Feed *stream* no more."""
        if stream not in self._streams:
            return succeed(None)
        self._streams.remove(stream)
        subscription = self._subscription
        if self._streams or subscription is None:
            return succeed(None)
        self._subscription = None
        return subscription.stop(self._timeout)

    def _open(self, level: str, listener: Listener) -> Subscription:
        values = commands.MONITOR.arguments({"LogLevel": level})
        subscription = Subscription(self._session, commands.MONITOR, values, listener)
        self._session.submit([subscription])
        return subscription

    def _expect_replay(self) -> None:
        self._history.expect_replay()
        for stream in self._streams:
            stream._history.expect_replay()

    # What the subscription tells

    def _active(self) -> None:
        self._is_active = True
        for stream in list(self._streams):
            stream._active()

    def _interrupted(self) -> None:
        self._is_active = False
        self._expect_replay()
        for stream in list(self._streams):
            stream._interrupted()

    def _record(self, record: Any, connection: SerfProtocol) -> None:
        self._history.takes(record)
        for stream in list(self._streams):
            stream._take(record)

    def _over(self, reason: SerfError) -> None:
        streams, self._streams = self._streams, []
        self._subscription = None
        for stream in streams:
            stream._over(reason)
