"""Streams of log lines, all of them fed by the one monitor that an agent allows a connection."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from twisted.internet.defer import Deferred, succeed

from txserf import commands
from txserf.connection.session import Session
from txserf.errors import ProtocolError, SerfError
from txserf.model import LogLine
from txserf.serf.streams import Stream, Subscriber, Subscription

_RANKS = {level: rank for rank, level in enumerate(commands.LOG_LEVELS)}

# How many lines an agent replays when a monitor is opened.
_REPLAYED = 512


class _History:
    """
    The last lines that somebody has got. It tells new lines from those that an agent replays.

    :ivar lines: at most as many as an agent replays.
    """

    def __init__(self) -> None:
        self.lines: deque[LogLine] = deque(maxlen=_REPLAYED)
        self._awaited: deque[str] = deque()  # those that may be replayed, the oldest first

    @property
    def awaits_replay(self) -> bool:
        """Whether lines of the history may come once more."""
        return bool(self._awaited)

    def expect_replay(self) -> None:
        """Note that a monitor is being opened anew."""
        self._awaited = deque(line.line for line in self.lines)

    def takes(self, line: LogLine) -> bool:
        """Whether *line* is new; a new one is remembered."""
        if self._awaited:
            if line.line in self._awaited:
                while self._awaited.popleft() != line.line:
                    pass
                return False
            # Lines are replayed in order: behind the first new one all are new.
            self._awaited.clear()
        self.lines.append(line)
        return True


class Share:
    """
    One stream's share of the monitor: the lines from its level up, each once.

    :ivar level: the lowest level, in capitals.
    :ivar rank: its place among all levels; None for one that we don't know.
    :ivar subscriber: gets the lines, and is told when the monitor is active, interrupted or over.
    :ivar history: the lines that it has got.
    """

    def __init__(self, level: str, subscriber: Subscriber) -> None:
        self.level = level
        self.rank: int | None = _RANKS.get(level)
        self.subscriber = subscriber
        self.history: _History = _History()

    def take(self, line: LogLine) -> None:
        """Hand a line of the monitor on, unless it is below the level or was handed on before."""
        rank = _RANKS.get(line.level)
        wanted = rank is None or self.rank is None or rank >= self.rank
        if wanted and self.history.takes(line):
            self.subscriber.record(line)


class LogStream(Stream[LogLine]):
    """
    The lines of the agent's log from a level up, in order; see `Serf.monitor`.

    Iterate it with ``async for``, or give it callbacks, or both.
    """

    def __init__(self, monitors: Monitors, level: str, buffer: int) -> None:
        super().__init__(buffer)
        self.level: str = level.upper()
        self._monitors = monitors
        subscriber = Subscriber(
            self._activated,
            self._interrupted,
            self._deliver,
            self._deliver_all,
            self._leave_out,
            self._over,
        )
        self._share = Share(self.level, subscriber)
        monitors.add(self._share)

    def __repr__(self) -> str:
        return f"<LogStream: {self.level}>"

    def stop(self) -> Deferred[None]:
        """
        End it: lines that wait for a reader are dropped.

        :returns: a Deferred of None; the agent's monitor is stopped with the last stream of it.
        """
        stopping = self._monitors.remove(self._share)
        self._finish(None, discard=True)
        return stopping

    def _stop_asked(self) -> None:
        self.stop()


class Monitors:
    """
    The one monitor that an agent allows a connection, shared by all streams of log lines.

    It is asked for the lowest level that a stream wants.
    """

    def __init__(self, session: Session, timeout: float) -> None:
        self._session = session
        self._timeout = timeout
        self._shares: list[Share] = []
        self._subscription: Subscription | None = None
        self._rank = 0
        self._history = _History()  # of the whole monitor, for those that come later
        self._is_active = False

    def add(self, share: Share) -> None:
        """Begin to feed *share*."""
        if share.rank is None:
            # No level that we know: the agent's own words are the answer.
            self._open(share.level, share.subscriber)
        elif self._subscription is None or share.rank < self._rank:
            if self._subscription is not None:
                self._subscription.stop(self._timeout)
                self._expect_replay()
            self._shares.append(share)
            self._rank = share.rank
            self._is_active = False
            self._history = _History()
            subscriber = Subscriber(
                self._activated, self._interrupted, self._line, self._lines, self._unreadable, self._over
            )
            self._subscription = self._open(share.level, subscriber)
        else:
            self._shares.append(share)
            for line in list(self._history.lines):
                share.take(line)
            if self._history.awaits_replay:
                share.history.expect_replay()
            if self._is_active:
                share.subscriber.active()

    def remove(self, share: Share) -> Deferred[None]:
        """Feed *share* no more."""
        if share not in self._shares:
            return succeed(None)
        self._shares.remove(share)
        subscription = self._subscription
        if self._shares or subscription is None:
            return succeed(None)
        self._subscription = None
        return subscription.stop(self._timeout)

    def _open(self, level: str, subscriber: Subscriber) -> Subscription:
        subscription = Subscription(
            self._session, commands.MONITOR, {"LogLevel": level}, subscriber, self._timeout
        )
        self._session.submit_one(subscription)
        return subscription

    def _expect_replay(self) -> None:
        self._history.expect_replay()
        for share in self._shares:
            share.history.expect_replay()

    # Told by the subscription

    def _activated(self) -> None:
        self._is_active = True
        for share in list(self._shares):
            share.subscriber.active()

    def _interrupted(self, heard_at: float) -> None:
        self._is_active = False
        self._expect_replay()
        for share in list(self._shares):
            share.subscriber.interrupted(heard_at)

    def _line(self, line: LogLine) -> None:
        self._history.takes(line)
        for share in list(self._shares):
            share.take(line)

    def _lines(self, lines: Iterator[LogLine]) -> None:
        for line in lines:
            self._line(line)

    def _unreadable(self, why: ProtocolError) -> None:
        for share in list(self._shares):
            share.subscriber.unreadable(why)

    def _over(self, reason: SerfError) -> None:
        shares, self._shares = self._shares, []
        self._subscription = None
        for share in shares:
            share.subscriber.over(reason)
