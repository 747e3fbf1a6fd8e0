"""
Calls and subscriptions that outlive a connection.

A `Session` has one connection that everything shares, and *lanes*: further
connections to the same agent for operations that would hold up the others or might take
the connection down. Both APIs stand on it.

After a loss, with ``reconnect``, a command that only reads is sent again unless its own reply
broke the rules, a subscription is opened again, and a command that changes something fails, since
nobody knows whether it was carried out. Each keeps its Seq for life, so that a Seq
that a user holds means the same after a reconnect.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from twisted.internet.defer import Deferred, DeferredList

from txserf import constant
from txserf.commands import RESPOND, Road
from txserf.connection.deadlines import Deadline, Deadlines
from txserf.connection.exchange import Exchange
from txserf.connection.factory import SerfClientFactory
from txserf.connection.hosts import Hosts
from txserf.connection.keys import Greetings, Keys
from txserf.connection.lanes import Lanes
from txserf.connection.observers import DialBeside
from txserf.connection.operation import Operation
from txserf.connection.protocol import SerfProtocol, State
from txserf.errors import (
    AuthenticationError,
    ConnectionLost,
    Disconnected,
    Overloaded,
    SerfError,
    failures_text,
)

_MAIN, _READY = Road.MAIN, State.READY  # read for every operation: an Enum's member takes 40 ns to look up


class SessionObserver(Protocol):
    """Is told when there is a connection and when there is none, after the operations of the session."""

    def connected(self) -> None:
        """Take that there is a connection."""

    def lost(self) -> None:
        """Take that there is none any more."""

    def gave_up(self, reason: SerfError) -> None:
        """Take that there will be none until somebody asks for one."""


class Session:
    """
    Operations over connections that come and go.

    :param hosts: see `txserf.connection.hosts.parse_hosts`.
    :param reconnect: stay connected until `disconnect`; else one round over the hosts for a connection.
    :param reactor: dials and keeps the time; None takes the global reactor at the first use.
    :param connect_timeout: seconds to connect, and again for handshake and auth.
    :param heartbeat: seconds between checks of the connection; None for none.
    :ivar deadlines: those of all operations.
    :ivar next_seq: gives the next Seq.
    :ivar observers: those that are told of connections, in order.
    """

    def __init__(
        self,
        hosts: Hosts = None,
        *,
        reconnect: bool,
        reactor: Any = None,
        connect_timeout: float | None = None,
        heartbeat: float | None = constant.HEARTBEAT,
    ) -> None:
        self.next_seq: Callable[[], int] = itertools.count().__next__
        self._keys = Keys()
        self.factory: SerfClientFactory = SerfClientFactory(
            hosts,
            reactor=reactor,
            connect_timeout=connect_timeout,
            heartbeat=heartbeat,
            observer=self,
            keys=self._keys,
            next_seq=self.next_seq,
        )
        self.deadlines: Deadlines = Deadlines(self.factory.time)
        self.observers: list[SessionObserver] = []
        self.reconnect = reconnect
        if not reconnect:
            self.factory.maxRetries = 0  # type: ignore[assignment]  # Twisted's own is None
        self._connection: SerfProtocol | None = None  # the one that all share, as the factory has told
        self._queue: dict[Operation, None] = {}  # waiting for a connection, in order
        self._greetings = Greetings(self.factory.time)
        self._lanes = Lanes(self)
        self._lane_wanted_key: AuthenticationError | None = (
            None  # why we gave up the connection, if a lane was told so
        )
        self._flush_due: Deadline | None = None  # sends what a lane gave back, if nothing else does before

    # For the two faces

    @property
    def clock(self) -> Any:
        """The source of time."""
        return self.factory.time()

    def connect(self) -> None:
        """Begin to connect, unless it is connected or trying already."""
        self.factory.start()

    def admit(self, number: int = 1) -> None:
        """
        Check that there is room for further calls.

        :raises Overloaded: where *number* more would be over `constant.CALLS_LIMIT`.
        """
        limit, connection = constant.CALLS_LIMIT, self._connection
        if limit is None:
            return
        # Most calls find a connection, no queue and no lane: to look no further saves 0.1 us.
        under_way = number + (0 if connection is None else len(connection._calls))
        if self._queue or self._lanes.all:
            under_way += len(self._queue) + self._lanes.under_way
        if under_way > limit:
            raise Overloaded(f"{limit} calls are under way: no more are allowed (constant.CALLS_LIMIT)")

    def submit(self, operations: Sequence[Operation]) -> None:
        """Send operations in one write: now, or once there is a connection."""
        connection = self._connection
        if connection is not None and connection.state is _READY:
            self._send(connection, operations)
            self._greetings.answer_soon()  # not now: the caller may be a callback
            return
        self._queue.update(dict.fromkeys(operations))
        self._keys.submit(operations)
        self.factory.start()

    def submit_one(self, operation: Operation) -> None:
        """Send an operation, as `submit` does."""
        connection = self._connection
        if connection is not None and connection.state is _READY and operation.road is _MAIN:
            operation.connection = connection
            connection._send_one(operation)
        else:
            self.submit((operation,))

    def authenticated(self, key: str) -> None:
        """Keep a key that an agent has accepted, for the connections to come."""
        self._keys.accept(key)

    def abandon(self, operation: Operation) -> None:
        """Forget an operation: late replies to it are dropped, a stream is stopped at the agent."""
        self.settle(operation)
        self._keys.withdraw(operation)
        if operation.connection is not None:
            operation.connection._disown(operation)
        else:
            self._queue.pop(operation, None)
            self._greetings.drop(operation)
            self._lanes.drop(operation)

    def settle(self, operation: Operation) -> None:
        """Mark an operation as done."""
        operation.done = True
        self.deadlines.forget(operation)

    def disconnect(self) -> Deferred[None]:
        """
        Close all connections; all operations end with `Disconnected`.

        :returns: a Deferred of None, once the transports are closed, those of lanes and of cancelled
            attempts too.
        """
        waiting = [*self._take_queue(), *self._greetings.take(), *self._lanes.take_waiting()]
        self._withdraw_keys(waiting)
        if self._flush_due is not None:
            self.deadlines.forget(self._flush_due)
            self._flush_due = None
        closed = self.factory.disconnect()
        self._lanes.close()
        # In a turn of its own: nobody's errback is called inside the caller's stack.
        told: Deferred[None] = Deferred()
        self.clock.callLater(0, told.callback, None)
        told.addCallback(lambda _: self.fail(waiting, Disconnected("the connection was closed by us")))
        both: list[Deferred[Any]] = [told, closed]
        over: Deferred[None] = Deferred()  # its caller may cancel it, and the waiting end all the same

        def finish(_: object) -> None:
            self.deadlines.close()
            over.callback(None)

        DeferredList(both).addCallback(finish)
        return over

    def why_waiting(self) -> str:
        """Say why nothing is sent, for the text of a timeout; empty where there is a connection."""
        if self.open_connection is not None:
            return ""
        failures = failures_text(self.factory.last_failures)
        return f" (no connection: {failures})" if failures else ""

    # ConnectionObserver

    def connected(self, protocol: SerfProtocol, dial_beside: DialBeside) -> None:
        self._connection = protocol
        self._lanes.connected(dial_beside)
        self._send_queue()
        for observer in self.observers:
            observer.connected()

    def lost(self, reason: SerfError, unanswered: list[Exchange]) -> None:
        self._connection = None
        self._lanes.retire()
        # The agent has done nothing on a connection that wanted a key: all of it may go to another host.
        untouched = isinstance(reason, AuthenticationError)
        told_by_lane = self._lane_wanted_key
        if told_by_lane is not None and reason is told_by_lane:
            # But if a lane was told so, this connection's own requests may have been carried out.
            untouched = False
            reason = ConnectionLost(str(reason), host=told_by_lane.host)
        self.take_back(reason, unanswered, untouched)
        if not self.factory.phase.goes_on and self._flush_due is None:
            self.fail(self._take_queue(), reason)
        for observer in self.observers:
            observer.lost()
        if not self.reconnect:
            self.deadlines.close()  # nothing may be due any more: then no timer is left behind

    def gave_up(self, reason: SerfError) -> None:
        if self.factory.phase.goes_on:
            return  # somebody who was told before has started it again
        queue = self._take_queue()
        if isinstance(reason, AuthenticationError):
            self._keys.refuse()
        self.fail(queue, reason)
        for observer in self.observers:
            observer.gave_up(reason)
        self.deadlines.close()  # as above

    # LaneSession

    @property
    def open_connection(self) -> SerfProtocol | None:
        """The connection that all share, or None where requests would have to wait for one."""
        connection = self._connection
        return connection if connection is not None and connection.state is _READY else None

    def wants_key(self, reason: AuthenticationError) -> None:
        """
        Take that an agent has told a lane that it wants a key, and none was given.

        The agent wants it of all connections: this one is given up too, for the next host's turn has come.
        """
        connection = self.open_connection
        if connection is not None and self._keys.current is None:
            self._lane_wanted_key = copy.copy(reason)
            connection._give_up(self._lane_wanted_key)

    def send_soon(self, operations: Sequence[Operation]) -> None:
        """Send operations that no agent has got: with the next connection, or in a moment by the one there is."""
        if operations:
            self._queue.update(dict.fromkeys(operations))
            if self._flush_due is None:
                self._flush_due = self.deadlines.add(self.factory.initialDelay, self._flush)

    def take_back(self, reason: SerfError, unanswered: Sequence[Exchange], untouched: bool) -> None:
        """
        Send the unanswered exchanges of a connection again, where that is safe; fail the others.

        :param untouched: whether the agent has certainly done nothing of it: then changes may go again too.
        """
        failed: list[Exchange] = []
        interrupted: list[tuple[Operation, float]] = []
        again: list[Operation] = []
        closed = type(reason) is Disconnected or not self.factory.phase.goes_on
        for exchange in unanswered:
            if not isinstance(exchange, Operation):
                failed.append(exchange)
                continue
            connection, exchange.connection = exchange.connection, None
            if exchange.done or not exchange.asked_again:  # done: a stream whose ``stop`` was under way
                continue
            reads = exchange.command.subscribes or not exchange.command.changes
            # A query's number is known on its own connection only, so a response to it has no use on another.
            undone = untouched or not (exchange.left or exchange.command is RESPOND)
            exchange.left = True
            if not closed and not exchange.broken and (undone or (self.reconnect and reads)):
                again.append(exchange)
                if exchange.command.subscribes and not untouched:
                    assert connection is not None
                    interrupted.append((exchange, connection.heard_at))
            else:
                failed.append(exchange)
        # They are queued before others are told, since those may close the connection, or make another one.
        self._queue.update(dict.fromkeys(again))
        for operation, heard_at in interrupted:
            operation.interrupted(heard_at)
        self.fail(failed, reason)
        if again:
            self._send_queue()

    def fail(self, exchanges: Sequence[Exchange], reason: SerfError) -> None:
        """End exchanges with *reason*, each with a copy of its own."""
        self._withdraw_keys(exchanges)  # all, before somebody is told who may connect again
        for exchange in exchanges:
            if isinstance(exchange, Operation):
                if exchange.done:
                    continue
                self.settle(exchange)
            exchange.lost(copy.copy(reason))

    # How it works

    def _withdraw_keys(self, exchanges: Sequence[Exchange]) -> None:
        for exchange in exchanges:
            if isinstance(exchange, Operation):
                self._keys.withdraw(exchange)

    def _take_queue(self) -> list[Operation]:
        queue, self._queue = list(self._queue), {}
        return queue

    def _send_queue(self) -> None:
        connection = self.open_connection
        if connection is not None:
            self._send(connection, self._take_queue())
            self._greetings.answer()

    def _flush(self) -> None:
        self._flush_due = None
        self._send_queue()
        if self._queue:
            self.factory.start()

    def _send(self, connection: SerfProtocol, operations: Sequence[Operation]) -> None:
        """Send each by its road; all of those that go by *connection* in one write."""
        main: list[Operation] = []
        others: list[Operation] = []
        for operation in operations:
            if operation.road is _MAIN:
                operation.connection = connection
                main.append(operation)
            else:
                others.append(operation)
        if others:
            self._keys.submit(others)
            # Sorted anew: a greeting that has to be sent keeps its place among the others of the connection.
            main, others = self._sorted(connection, operations)
        if main:
            connection._send(main)
        for operation in others:
            if not operation.done:
                self._lanes.submit(operation)

    def _sorted(
        self, connection: SerfProtocol, operations: Sequence[Operation]
    ) -> tuple[list[Operation], list[Operation]]:
        """Return those that go by *connection*, and those that go by lanes, each with its Seq."""
        main: list[Operation] = []
        by_lane: list[Operation] = []
        for operation in operations:
            greets = operation.road is Road.GREETING
            if greets and self._greetings.hold(connection, operation):
                continue
            if operation.seq is None:
                operation.seq = self.next_seq()
            if greets or operation.road is _MAIN:
                operation.connection = connection
                main.append(operation)
            else:
                by_lane.append(operation)
        return main, by_lane


def summary(face: object) -> str:
    """Return the hosts and the phase of a client, for its repr. It never fails, as that of the factory."""
    session: Session | None = vars(face).get("_session")
    return "not made" if session is None else session.factory.summary
