"""The stream of a router's service, which can be exchanged for another one without losing an event."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable
from functools import partial

from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from txserf.errors import Disconnected, RpcError, SerfError, reason_text
from txserf.model import Event, Gap, QueryEvent
from txserf.serf.serf import Serf
from txserf.serf.streams import EventStream

_log = Logger(namespace="txserf.handlers")


def _twin(event: Event) -> Hashable:
    # The same query has a different id on each stream.
    return (event.name, event.ltime, event.payload) if isinstance(event, QueryEvent) else event


class Intake:
    """
    Follows a cluster's events by one stream. While it changes to another filter, two streams overlap.

    :param serf: makes the streams.
    :param deliver: called with each event, once.
    :param active: called with None when the first stream is active, and with the `Gap` after each gap. No event
        is missed from then on.
    """

    def __init__(
        self,
        serf: Serf,
        deliver: Callable[[Event], None],
        active: Callable[[Gap | None], None],
    ) -> None:
        self._serf = serf
        self._deliver = deliver
        self._active = active
        self._wanted: str | None = None
        self._stream: EventStream | None = None
        self._next: EventStream | None = None
        # While two streams overlap: for each, the events that it has brought and the other one has not yet.
        self._ahead: dict[EventStream, Counter[Hashable]] | None = None
        self._failure: BaseException | None = None
        self._unreadable = 0  # by streams that have ended

    @property
    def failure(self) -> BaseException | None:
        """The error that ended the stream for good; None while there is none."""
        return self._failure or (self._stream.error if self._stream is not None else None)

    @property
    def unreadable(self) -> int:
        """How many records the streams have left out, for they could not be read."""
        return self._unreadable + sum(stream.unreadable for stream in self._streams)

    @property
    def _streams(self) -> set[EventStream]:
        return {stream for stream in (self._stream, self._next, *(self._ahead or ())) if stream is not None}

    @property
    def is_active(self) -> bool:
        """Whether no event is missed now."""
        return self._wanted is None or any(
            stream is not None and stream.is_active for stream in (self._stream, self._next)
        )

    def when_active(self) -> Deferred[None]:
        """Return a Deferred that fires when no event that is sent from then on is missed."""
        stream = self._next or self._stream
        return succeed(None) if stream is None else stream.when_active()

    def follow(self, type: str | None) -> None:
        """
        Follow the events of a filter. The stream of the filter before goes on until the new one is active.

        :param type: the filter; None for no events.
        """
        self._wanted = type
        self._failure = None
        if self._next is not None:
            return  # a change is under way, and at its end this is asked again
        if self._stream is not None and (type is None or self._stream.error is not None):
            self._end(self._stream)
            self._stream = None
        if self._stream is None:
            if type is not None:
                self._stream = self._open(type)
                self._stream.when_active().addCallbacks(lambda _: self._active(None), self._over)
        elif type is not None and self._stream.type != type:
            self._change(self._stream, type)

    def stop(self) -> None:
        """End the streams."""
        self._wanted = None
        streams = self._streams
        self._stream = self._next = self._ahead = None
        for stream in streams:
            self._end(stream)

    def _end(self, stream: EventStream) -> None:
        self._unreadable += stream.unreadable
        stream.stop()

    def _open(self, type: str) -> EventStream:
        stream = self._serf.stream(type, gaps=True)
        stream.add_callback(partial(self._take, stream))
        return stream

    def _take(self, stream: EventStream, item: Event | Gap) -> None:
        if isinstance(item, Gap):
            if stream is self._stream:
                self._active(item)
            return
        if self._ahead is not None:
            twin = _twin(item)
            for other, brought in self._ahead.items():
                if other is not stream and brought[twin] > 0:
                    brought[twin] -= 1
                    return
            if stream in self._ahead:
                self._ahead[stream][twin] += 1
        self._deliver(item)

    def _over(self, failure: Failure) -> None:
        """Note that a stream can't be opened."""
        if failure.check(Disconnected):
            return
        failure.trap(SerfError)
        self._failure = failure.value
        _log.error("no events: {reason}", reason=reason_text(failure))

    # -- from one filter to another

    def _change(self, old: EventStream, type: str) -> None:
        brought: Counter[Hashable] = Counter()
        if self._serf.why_disconnected is None:
            # The agent answers this ping before it registers the new stream. Events that came before the answer
            # are not brought by the new stream, so that no copy of them will come.
            self._serf.ping().addCallbacks(lambda _: brought.clear(), _ignored)
        new = self._next = self._open(type)
        self._ahead = {old: brought, new: Counter()}
        new.when_active().addCallback(lambda _: self._swap(old, new)).addErrback(self._kept, new)

    def _swap(self, old: EventStream, new: EventStream) -> None:
        if self._next is not new:
            return  # stop() was called meanwhile
        self._stream = new

        def stopped(_: object) -> None:
            if self._next is new:
                self._next = self._ahead = None
                self._end(old)
                self.follow(self._wanted)

        # One round trip brings the events that the old stream had under way when the new one was registered.
        # Another one brings the new stream's copies of the old stream's last events.
        self._serf.ping().addBoth(lambda _: old.stop()).addBoth(lambda _: self._serf.ping()).addBoth(stopped)

    def _kept(self, failure: Failure, new: EventStream) -> None:
        if self._next is not new:
            return
        self._next = self._ahead = None
        if failure.check(RpcError) and new.type != self._wanted:
            self.follow(self._wanted)  # another filter was asked for meanwhile
        else:
            self._over(failure)


def _ignored(failure: Failure) -> None:
    failure.trap(SerfError)
