"""Streams that outlive an agent: their common base, and the stream of events."""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any, Generic, NamedTuple, TypeVar

from twisted.internet.defer import Deferred, fail, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from txserf import commands
from txserf.commands import Command
from txserf.connection.operation import Operation
from txserf.connection.protocol import SerfProtocol, State
from txserf.connection.session import Session
from txserf.errors import ConnectionLost, Disconnected, ProtocolError, SerfError
from txserf.model import Event, Gap, QueryEvent
from txserf.serf.call import Call
from txserf.serf.feed import Feed

_log = Logger(namespace="txserf.serf")

T = TypeVar("T")


# Seconds that an agent has to open a stream at the least, however short the timeouts of the calls are.
_LEAST_PATIENCE = 1.0


class Subscriber(NamedTuple):
    """
    Receives the records of a `Subscription`, and is told of its state.

    :ivar active: called when no record that comes from then on is missed.
    :ivar interrupted: called when the connection is lost, with the time at which the agent was last heard; the
        subscription will be opened again.
    :ivar record: called with a record that came alone, decoded as the table says.
    :ivar records: called with records that came one behind the other. Each is decoded when it is asked for; they may end
        in the middle.
    :ivar unreadable: called, with the reason, in the place of a record that can't be decoded.
    :ivar over: called at most once, with the reason: it ended, and will not be opened again.
    """

    active: Callable[[], None]
    interrupted: Callable[[float], None]
    record: Callable[[Any], None]
    records: Callable[[Iterator[Any]], None]
    unreadable: Callable[[ProtocolError], None]
    over: Callable[[SerfError], None]


class _Confirmation(Operation):
    """
    The second round trip behind the opening of a stream.

    The agent replies a moment before it registers the stream, and works on the
    next request of the connection only after that.
    """

    asked_again = False  # the stream is opened again, and asks for another one

    def __init__(self, session: Session, confirmed: Callable[[], None]) -> None:
        super().__init__(commands.STOP, {"Stop": session.next_seq()})
        self._confirmed = confirmed

    def replied(self, error: str, body: Mapping[str, Any] | None) -> None:
        self._confirmed()

    def lost(self, reason: SerfError) -> None:
        """The stream is told of its own loss."""


class Subscription(Operation):
    """
    A ``stream`` or ``monitor`` on the wire, opened again after each loss.

    :param timeout: seconds that an agent has to open it, and as many again; past them it is asked once more. And those to take
        the answer to a query that came by it.
    """

    def __init__(
        self,
        session: Session,
        command: Command,
        values: Mapping[str, Any],
        subscriber: Subscriber,
        timeout: float,
    ) -> None:
        super().__init__(command, values)
        self._session = session
        self._subscriber = subscriber
        self._timeout = timeout
        self._patience = max(timeout, _LEAST_PATIENCE)
        self._asked: SerfProtocol | None = None  # the connection that it had been sent by at the last look
        self._watch()

    def _watch(self) -> None:
        """Look in a while whether it is open."""
        self._session.deadlines.forget(self)
        self._session.deadlines.watch(self._patience, self)

    def expired(self) -> None:
        connection, asked = self.connection, self._asked
        self._asked = connection
        self._watch()
        # It may have been sent just now, so it is the second look with the same connection that counts.
        if connection is None or connection is not asked or connection.state is not State.READY:
            return
        _log.warn(
            "{host}: no answer to {command} within {patience} s; it is asked for again",
            host=connection.host,
            command=self.command.wire,
            patience=self._patience,
        )
        connection._disown(self)
        self._subscriber.interrupted(connection.heard_at)
        self.seq = self.connection = self._asked = (
            None  # by another Seq: the answer to this one may still come
        )
        self._session.submit_one(self)

    def replied(self, error: str, body: Mapping[str, Any] | None) -> None:
        if self.done:
            return
        if error:
            self._session.settle(self)
            self._subscriber.over(self.command.refusal(error))
            return
        self._session.submit_one(_Confirmation(self._session, partial(self._confirmed, self.seq)))

    def record(self, body: Mapping[str, Any]) -> None:
        # The lines of _decoded() without its generator, which is a tenth of the time of a record that comes alone.
        if self.done:
            return
        try:
            record = self.command.decode_record(body)
        except ProtocolError as broken:
            self._subscriber.unreadable(broken)
            return
        self._subscriber.record(self._bound(record) if record.__class__ is QueryEvent else record)

    def records(self, bodies: Iterable[Mapping[str, Any]]) -> None:
        if not self.done:
            self._subscriber.records(self._decoded(bodies))

    def _decoded(self, bodies: Iterable[Mapping[str, Any]]) -> Iterator[Any]:
        # A generator, so that nothing behind the record that ends it is decoded, counted or logged.
        decode = self.command.decode_record
        for body in bodies:
            if self.done:
                return
            try:
                record = decode(body)
            except ProtocolError as broken:
                self._subscriber.unreadable(broken)
                continue
            yield self._bound(record) if record.__class__ is QueryEvent else record

    def _bound(self, query: QueryEvent) -> QueryEvent:
        connection = self.connection
        assert connection is not None
        return query.bound(partial(self._respond, connection))

    def _respond(self, connection: SerfProtocol, id: int, payload: bytes) -> Deferred[None]:
        values = commands.RESPOND.typed_arguments({"id": id, "payload": payload})
        if connection.state is not State.READY:
            message = f"the connection to {connection.host}, by which the query came, is gone"
            return fail(ConnectionLost(message, host=connection.host))
        self._session.admit()
        call = Call(self._session, commands.RESPOND, values, self._timeout)
        call.connection = connection
        connection._send([call])
        return call.result

    def interrupted(self, heard_at: float) -> None:
        self._watch()
        self._subscriber.interrupted(heard_at)

    def _confirmed(self, seq: int | None) -> None:
        if not self.done and seq == self.seq:  # else it was asked for again since
            self._session.deadlines.forget(self)
            self._subscriber.active()

    def stopped(self) -> None:
        if not self.done:  # by a ``stop`` of its Seq that was not ours
            self._session.settle(self)
            self._subscriber.over(Disconnected("the stream was stopped"))

    def lost(self, reason: SerfError) -> None:
        self._subscriber.over(reason)

    def stop(self, timeout: float) -> Deferred[None]:
        """Stop it at the agent; the Deferred fires when that is done, or when there is nothing to stop."""
        if self.done:
            return succeed(None)
        if self.seq is None or self.connection is None or self._session.factory.open_connection is None:
            self._session.abandon(self)
            return succeed(None)
        self._session.settle(self)
        stop = Call(self._session, commands.STOP, {"Stop": self.seq}, timeout)
        self._session.submit_one(stop)
        # If the stop is lost or late, the stream is gone all the same.
        return stop.result.addErrback(_ignored)


def _ignored(failure: Failure) -> None:
    failure.trap(SerfError)


class Stream(Feed[T], Generic[T]):
    """A feed that is active or not: the base of streams of events and of log lines."""

    def __init__(self, buffer: int) -> None:
        super().__init__(buffer)
        self._is_active = False
        self._askers: deque[Deferred[None]] = deque()

    @property
    def is_active(self) -> bool:
        """Whether nothing that is sent now is missed."""
        return self._is_active

    def when_active(self) -> Deferred[None]:
        """
        Wait until nothing that is sent from then on is missed.

        :returns: a Deferred of None. It fails with `RpcError` where the agent refused
            the stream, or with the error that ended it. It can be cancelled.
        """
        if self._ended:
            return fail(self._why_ended())
        if self._is_active:
            return succeed(None)
        asker: Deferred[None] = Deferred(self._askers.remove)
        self._askers.append(asker)
        return asker

    # Told by its subscription

    def _activated(self) -> None:
        self._is_active = True
        while self._askers:  # one by one: each may cancel those behind it
            self._askers.popleft().callback(None)

    def _interrupted(self, heard_at: float) -> None:
        self._is_active = False

    def _over(self, reason: SerfError) -> None:
        # That the `Serf` is closed is no error for those that read its streams.
        self._finish(None if type(reason) is Disconnected else reason)

    def _finish(self, error: SerfError | None, discard: bool = False) -> None:
        self._is_active = False
        self._end(error, discard)
        while self._askers:
            self._askers.popleft().errback(self._why_ended())

    def _why_ended(self) -> BaseException:
        return Disconnected("the stream has ended") if self._error is None else copy.copy(self._error)


class EventStream(Stream["Event | Gap"]):
    """
    The events that match a filter, in order; see `Serf.stream`.

    Iterate it with ``async for``, or give it callbacks, or both.
    """

    def __init__(
        self, session: Session, values: Mapping[str, Any], buffer: int, gaps: bool, timeout: float
    ) -> None:
        super().__init__(buffer)
        self.type: str = values["Type"]
        self._session = session
        self._gaps = gaps
        self._timeout = timeout
        self._most_held = buffer
        self._was_active = False  # so that a loss makes a gap
        self._lost_at: float | None = None  # the beginning of a gap that has not ended yet
        self._held: list[Event] = []  # the events behind that gap
        # Without gaps, each event goes to its reader at once.
        subscriber = Subscriber(
            self._activated,
            self._interrupted,
            self._event if gaps else self._deliver,
            self._events if gaps else self._deliver_all,
            self._leave_out,
            self._over,
        )
        self._subscription = Subscription(session, commands.STREAM, values, subscriber, timeout)
        session.submit_one(self._subscription)

    def __repr__(self) -> str:
        return f"<EventStream: {self.type}>"

    def stop(self) -> Deferred[None]:
        """
        End it: events that wait for a reader are dropped, and the stream is stopped at the agent.

        :returns: a Deferred of None, once the agent has stopped it; it never fails.
        """
        stopping = self._subscription.stop(self._timeout)
        self._finish(None, discard=True)
        return stopping

    def _stop_asked(self) -> None:
        self.stop()

    # Told by the subscription

    def _event(self, event: Event) -> None:
        if self._lost_at is None:
            self._deliver(event)
        elif len(self._held) < self._most_held:
            self._held.append(event)
        else:
            self._end_gap(self._lost_at)
            self._deliver(event)

    def _events(self, events: Iterator[Event]) -> None:
        if self._lost_at is None:
            self._deliver_all(events)
            return
        for event in events:
            self._event(event)

    def _interrupted(self, heard_at: float) -> None:
        if self._held and self._lost_at is not None:
            self._end_gap(self._lost_at)  # what comes next may be behind further events that were missed
        if self._gaps and self._was_active and self._lost_at is None:
            self._lost_at = heard_at
        super()._interrupted(heard_at)

    def _activated(self) -> None:
        if self._lost_at is not None:
            self._end_gap(self._lost_at)
        self._was_active = True
        super()._activated()

    def _over(self, reason: SerfError) -> None:
        if self._lost_at is not None:
            self._end_gap(self._lost_at)
        super()._over(reason)

    def _end_gap(self, lost_at: float) -> None:
        self._lost_at = None
        self._deliver(Gap(lost_at, self._session.clock.seconds()))
        held, self._held = self._held, []
        for event in held:
            self._deliver(event)
