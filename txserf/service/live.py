"""The one live view, and the one stream of events, that all paths of ``--http`` are made from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import datetime, timezone

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from txserf import constant
from txserf.cluster.view import ClusterView
from txserf.errors import SerfError
from txserf.filters import parse_filter
from txserf.model import EVENT_TYPES, Event, Gap, Member, QueryEvent, UserEvent
from txserf.serf.feed import Feed
from txserf.serf.serf import Serf

_log = Logger(namespace="txserf.service")

#: Takes the records of the stream, one by one. What it raises is logged, and the others miss nothing.
Listener = Callable[["Event | Gap"], None]


class LiveEvents(Feed["Event | Gap"]):
    """
    The events of a `Live` that match a filter, for ``async for``, and its gaps.

    It ends as the stream does, and when the `Live` is stopped.
    """

    def __init__(self, live: Live, filter: str) -> None:
        super().__init__(constant.STREAM_BUFFER)
        self._live = live
        self._filters = parse_filter(filter)

    def __repr__(self) -> str:
        return "<LiveEvents>"

    @property
    def is_active(self) -> bool:
        """Whether no event is missed now."""
        return self._live.unready is None

    def put(self, item: Event | Gap) -> None:
        """Take a record."""
        if isinstance(item, Gap) or self._lets_through(item):
            self._deliver(item)

    def _lets_through(self, event: Event) -> bool:
        name = event.name if isinstance(event, (UserEvent, QueryEvent)) else None
        return any(each.matches(event.type, name) for each in self._filters)


class Live(Service):
    """
    A cluster's members and events, for any number of readers: the agent sees one stream, and one reading of the members
    each time that the view needs one.

    :param serf: the connection; its owner starts and stops it.
    :ivar view: the members.
    :ivar version: it grows with each change of a member.
    :ivar counts: how many events came, by type. All types are there.
    :ivar gaps: how many gaps the stream had.
    :ivar listeners: each gets each record.
    :ivar started_at: when this was started, in seconds of the clock.
    """

    def __init__(self, serf: Serf) -> None:
        self.serf = serf
        self.view = ClusterView(serf)
        self.version = 0
        self.counts: Counter[str] = Counter(dict.fromkeys(EVENT_TYPES, 0))
        self.gaps = 0
        self.listeners: dict[Listener, None] = {}  # in order
        self.started_at = 0.0
        self._since = 0.0
        self._counted: tuple[int, Counter[str]] = (0, Counter())
        self._ready: Deferred[None] | None = None
        self._following = self.view._following
        self._following.listener = self._take
        self._following.ended = self._end_feeds
        self._feeds: list[LiveEvents] = []
        self.view.on_change(self._changed)

    # -- a service

    def startService(self) -> None:
        """Begin to follow the cluster."""
        super().startService()  # type: ignore[no-untyped-call]  # Twisted's own
        self.started_at = self._since = self.serf.clock.seconds()
        self.view.startService()
        self._ready = self.view.when_ready().addCallbacks(self._was_ready, _unneeded)

    def stopService(self) -> Deferred[None]:
        """End it; the Deferred fires when the agent has stopped the stream."""
        super().stopService()  # type: ignore[no-untyped-call]  # Twisted's own
        if self._ready is not None:
            self._ready.cancel()
        self._end_feeds(None)
        return self.view.stopService()

    def events(self, filter: str) -> LiveEvents:
        """
        Follow the events from now on.

        :param filter: those that are wanted, as of `Serf.stream`.
        :raises InvalidRequest: for a filter that is none.
        """
        feed = LiveEvents(self, filter)
        self._feeds.append(feed)
        self.listeners[feed.put] = None
        return feed

    # -- how it stands

    @property
    def is_read(self) -> bool:
        """Whether the members were read at least once."""
        return self._following.read_at is not None

    @property
    def unready(self) -> str | None:
        """The reason why events may be missed now; None if there is none."""
        if self.serf.why_disconnected is not None:
            return self.serf.why_disconnected
        if not self.running:
            return "not running"
        stream = self._following.stream
        if stream is None or not stream.is_active:
            return "not subscribed"
        return None if self.is_read else "the members are not read yet"

    @property
    def since(self) -> float:
        """
        When it became ready, or when the agent was last heard, in seconds of the clock.

        Before the first connection it is the time of the start.
        """
        lost_at = self._following.lost_at
        return self._since if lost_at is None else lost_at

    @property
    def agent(self) -> str | None:
        """The agent of the connection; None while there is none. It has no key."""
        connection = self.serf.factory.open_connection
        return None if connection is None else str(connection.host)

    @property
    def dropped(self) -> int:
        """How many events were lost to a full buffer."""
        return 0 if self._following.stream is None else self._following.stream.dropped

    @property
    def unreadable(self) -> int:
        """How many records of the stream could not be read, and were left out."""
        return 0 if self._following.stream is None else self._following.stream.unreadable

    def by_status(self) -> Counter[str]:
        """Count the members by status, once for each change of a member."""
        if self._counted[0] != self.version:
            members = self.view.select(status=None)
            self._counted = (self.version, Counter(str(member.status) for member in members))
        return self._counted[1].copy()

    # -- what happens

    def _was_ready(self, view: ClusterView) -> None:
        self._since = self.serf.clock.seconds()

    def _changed(self, old: Member | None, new: Member | None) -> None:
        self.version += 1

    def _end_feeds(self, reason: SerfError | None) -> None:
        feeds, self._feeds = self._feeds, []
        for feed in feeds:
            self.listeners.pop(feed.put, None)
            feed._end(reason)

    def _take(self, item: Event | Gap) -> None:
        if isinstance(item, Gap):
            self.gaps += 1
            self._since = item.resumed_at
        else:
            self.counts[item.type] += 1
        for listener in list(self.listeners):
            try:
                listener(item)
            except Exception:
                _log.failure("{listener!r} failed on a record", listener=listener)


def _unneeded(failure: Failure) -> None:
    """The view tells its log why it can't be ready."""


def utc(seconds: float) -> str:
    """Return a time of the reactor's clock in ISO 8601."""
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="milliseconds")
