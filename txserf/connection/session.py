"""
Calls and subscriptions that outlive a connection.

A `Session` has one connection that everything shares, and *lanes*: further
connections to the same agent for what would hold up the others or might take
the connection down. Both APIs stand on it.

What a loss means, with ``reconnect``: a command that only reads is sent again,
a subscription is opened again, and one that changes something fails, for
nobody knows whether it was done. Each keeps its Seq for life, so that a Seq
that a user holds means the same after a reconnect.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred, DeferredList

from txserf import commands, constant
from txserf.commands import Road
from txserf.connection.deadlines import Deadline, Deadlines
from txserf.connection.exchange import Exchange
from txserf.connection.factory import SerfClientFactory
from txserf.connection.hosts import Hosts
from txserf.connection.lanes import Lane
from txserf.connection.operation import Operation
from txserf.connection.protocol import SerfProtocol, State
from txserf.errors import (
    AuthenticationError,
    ConnectionLost,
    Disconnected,
    SerfError,
    failures_text,
)

_MAIN, _READY = Road.MAIN, State.READY  # read for every operation: an Enum's member takes 40 ns to look up

_CLOSED = "the agent closed the connection instead of an answer: a filter is no regular expression (Go's RE2)"


class Session:
    """
    Operations over connections that come and go.

    :param hosts: see `txserf.connection.hosts.parse_hosts`.
    :param reconnect: stay connected until `disconnect`; else one round over the hosts for a connection.
    :param reactor: dials and keeps the time; None takes the global reactor at the first use.
    :param connect_timeout: seconds to connect, and again for handshake and auth.
    :param heartbeat: seconds between checks of an idle connection; None for none.
    :ivar deadlines: those of all operations.
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
        self.factory = SerfClientFactory(
            hosts, reactor=reactor, connect_timeout=connect_timeout, heartbeat=heartbeat, observer=self
        )
        self.deadlines = Deadlines(self.factory.time)
        self.reconnect = reconnect
        if not reconnect:
            self.factory.maxRetries = 0  # type: ignore[assignment]  # Twisted's own is None
        self._queue: dict[Operation, None] = {}  # waiting for a connection, in order
        self._greeted: dict[Operation, None] = {}  # to be answered with the connection's own
        self._lanes: dict[Road, Lane] = {}
        self._all_lanes: set[Lane] = set()
        self._given_up_by_lane = False  # the connection, for a lane was told that the agent wants a key
        self._key: str | None = None  # the last that was submitted and accepted; None: those of the hosts
        self._flush_due: Deadline | None = None  # when what a lane gave back is sent, if it was not before

    # What the faces call

    @property
    def clock(self) -> Any:
        """The source of time."""
        return self.factory.time()

    def connect(self) -> None:
        """Begin to connect, unless it is connected or trying already."""
        self.factory.start()

    def submit(self, operations: Sequence[Operation]) -> None:
        """Send operations in one write: now, or once there is a connection."""
        connection = self.factory.connection
        if connection is not None and connection.state is _READY:
            self._send(connection, operations, asked_now=True)
            return
        self._queue.update(dict.fromkeys(operations))
        self._submit_keys(operations)
        self.factory.start()

    def submit_one(self, operation: Operation) -> None:
        """Send an operation, as `submit` does."""
        connection = self.factory.connection
        if connection is not None and connection.state is _READY and operation.road is _MAIN:
            operation.connection = connection
            connection._send_one(operation)
        else:
            self.submit((operation,))

    def authenticated(self, key: str) -> None:
        """Keep a key that an agent has accepted, for the connections to come."""
        self._key = key
        self.factory.use_key(key)

    def abandon(self, operation: Operation) -> None:
        """Forget an operation: what still comes for it is dropped, a stream is stopped at the agent."""
        self.settle(operation)
        self._withdraw_key(operation)
        if operation.connection is not None:
            operation.connection._disown(operation)
        else:
            self._queue.pop(operation, None)
            self._greeted.pop(operation, None)
            for lane in self._all_lanes:
                lane.drop(operation)

    def settle(self, operation: Operation) -> None:
        """Mark an operation as done."""
        operation.done = True
        self.deadlines.forget(operation)

    def disconnect(self) -> Deferred[None]:
        """
        Close all connections; what is under way or waiting ends with `Disconnected`.

        :returns: a Deferred of None, once the transports are closed.
        """
        waiting = [*self._take_queue(), *self._greeted]
        self._greeted = {}
        for lane in self._all_lanes:
            waiting += lane.take_waiting()
        if self._flush_due is not None:
            self.deadlines.forget(self._flush_due)
            self._flush_due = None
        closing: list[Deferred[Any]] = [self.factory.disconnect()]
        closing += [lane.close() for lane in list(self._all_lanes)]
        # In a turn of its own: nobody's errback is called inside the caller's stack.
        told: Deferred[None] = Deferred()
        self.clock.callLater(0, told.callback, None)
        told.addCallback(lambda _: self._fail(waiting, Disconnected("the connection was closed by us")))
        finished: Deferred[None] = DeferredList([told, *closing]).addCallback(
            lambda _: self.deadlines.close()
        )
        return finished

    def why_waiting(self) -> str:
        """Say why nothing is sent, for the text of a timeout; empty where there is a connection."""
        if self.factory.open_connection is not None:
            return ""
        failures = failures_text(self.factory.last_failures)
        return f" (no connection: {failures})" if failures else ""

    # What the factory tells

    def connected(self, protocol: SerfProtocol) -> None:
        self._send(protocol, self._take_queue())

    def lost(self, reason: SerfError, unanswered: list[Exchange]) -> None:
        lanes, self._lanes = self._lanes, {}
        for lane in lanes.values():
            lane.retire()
        by_lane, self._given_up_by_lane = self._given_up_by_lane, False
        if by_lane and isinstance(reason, AuthenticationError):
            # What a lane was told says nothing of what was done on this one.
            reason = ConnectionLost(str(reason), host=reason.host)
        # Nothing was done on a connection that wanted a key: all of it may go to another host.
        self._take_back(reason, unanswered, untouched=isinstance(reason, AuthenticationError))
        if not self.factory.goes_on and self._flush_due is None:
            self._fail(self._take_queue(), reason)
        if not self.reconnect:
            self.deadlines.close()  # nothing may be due any more: then no timer is left behind

    def gave_up(self, reason: SerfError) -> None:
        queue = self._take_queue()
        if isinstance(reason, AuthenticationError):
            self._key = None
            self.factory.use_key(None)
        self._fail(queue, reason)
        self.deadlines.close()  # as above

    # What a lane tells

    def lane_over(
        self, lane: Lane, reason: SerfError, unanswered: list[Exchange], waiting: list[Operation]
    ) -> None:
        """A lane is gone; what was under way by it, and what waited for it, is the session's again."""
        self._all_lanes.discard(lane)
        if self._lanes.get(lane.road) is lane:
            del self._lanes[lane.road]
        again: list[Exchange] = []
        wants_key = lane.was_ready and isinstance(reason, AuthenticationError)
        if wants_key and self.factory.auth_key is None and self.factory.open_connection is not None:
            # What the agent wants of one connection it wants of all: the next host's turn has come.
            self._given_up_by_lane = True
            self.factory.open_connection._give_up(copy.copy(reason))
        for exchange in unanswered:
            if lane.road is Road.ALONE and isinstance(exchange, Operation) and self._ended_twice(exchange):
                self.settle(exchange)
                if type(reason) is ConnectionLost:
                    exchange.refused(exchange.command.refusal(_CLOSED))
                else:
                    exchange.lost(copy.copy(reason))
            else:
                again.append(exchange)
        # What goes alone only reads, and a closed lane is not the session's loss: it is asked once more.
        alone = lane.road is Road.ALONE and self.factory.open_connection is not None
        fails = type(reason) is Disconnected or (isinstance(reason, AuthenticationError) and not wants_key)
        if waiting and not fails:
            # It could not be opened, though the session is connected: the agent may have just gone.
            self._queue.update(dict.fromkeys(waiting))
            if self._flush_due is None:
                self._flush_due = self.deadlines.add(self.factory.initialDelay, self._flush)
        self._take_back(reason, again, untouched=alone or wants_key)
        if fails:
            self._fail(waiting, reason)

    # How it works

    def _ended_twice(self, operation: Operation) -> bool:
        # Twice beside a connection that stays open: that is not the agent's death, but what it thinks of
        # the request. The first time is noted here.
        beside, operation.main_when_refused = operation.main_when_refused, self.factory.open_connection
        return not operation.done and beside is not None and beside is operation.main_when_refused

    def _take_queue(self) -> list[Operation]:
        queue, self._queue = list(self._queue), {}
        return queue

    def _flush(self) -> None:
        self._flush_due = None
        if self.factory.open_connection is not None:
            self.connected(self.factory.open_connection)
        elif self._queue:
            self.factory.start()

    def _send(
        self, connection: SerfProtocol, operations: Sequence[Operation], asked_now: bool = False
    ) -> None:
        plain = True
        for operation in operations:
            if operation.road is _MAIN:
                operation.connection = connection
            else:
                plain = False
        if plain:
            if operations:
                connection._send(operations)
            return
        if asked_now:
            self._submit_keys(operations)
        main: list[Operation] = []
        greeted: list[Operation] = []
        others: list[Operation] = []
        for operation in operations:
            if operation.road is Road.GREETING and self._is_greeted(connection, operation):
                greeted.append(operation)
                continue
            if operation.seq is None:
                operation.seq = self.factory.next_seq()
            if operation.road is Road.MAIN or operation.road is Road.GREETING:
                operation.connection = connection
                main.append(operation)
            else:
                others.append(operation)
        if main:
            connection._send(main)
        for operation in others:
            if not operation.done:
                self._lane(operation.road).submit(operation)
        self._greeted.update(dict.fromkeys(greeted))
        for operation in greeted:
            if asked_now:
                # In a turn of its own: whoever asks may be a callback.
                self.clock.callLater(0, self._greet, operation)
            else:
                self._greet(operation)

    def _lane(self, road: Road) -> Lane:
        lane = self._lanes.get(road)
        if lane is None:
            lane = Lane(self, road, once=road is Road.ALONE)
            self._all_lanes.add(lane)
            if road is not Road.ALONE:
                self._lanes[road] = lane
        return lane

    def _is_greeted(self, connection: SerfProtocol, operation: Operation) -> bool:
        """Whether this was answered as the connection was made; not so a key that it was not made with."""
        for greeting in connection._greeting:
            if greeting.command is operation.command and greeting.values == operation.values:
                operation.seq = greeting.seq
                return True
        return False

    def _greet(self, operation: Operation) -> None:
        if operation in self._greeted:  # else it was abandoned, or all of it was closed
            del self._greeted[operation]
            operation.replied("", None)

    def _take_back(self, reason: SerfError, unanswered: list[Exchange], untouched: bool = False) -> None:
        failed: list[Exchange] = []
        interrupted: list[Operation] = []
        again: list[Operation] = []
        closed = type(reason) is Disconnected or not self.factory.goes_on
        for exchange in unanswered:
            if not isinstance(exchange, Operation):
                failed.append(exchange)
                continue
            exchange.connection = None
            if exchange.done or not exchange.asked_again:  # done: a stream whose ``stop`` was under way
                continue
            reads = exchange.command.subscribes or not exchange.command.changes
            if not closed and (untouched or (self.reconnect and reads)):
                again.append(exchange)
                if exchange.command.subscribes and not untouched:
                    interrupted.append(exchange)
            else:
                failed.append(exchange)
        # They wait while others are told, who may close the connection, or make another one.
        self._queue.update(dict.fromkeys(again))
        for operation in interrupted:
            operation.interrupted()
        self._fail(failed, reason)
        if again and self.factory.open_connection is not None:
            self.connected(self.factory.open_connection)

    def _fail(self, exchanges: Sequence[Exchange], reason: SerfError) -> None:
        for exchange in exchanges:
            if isinstance(exchange, Operation):
                if exchange.done:
                    continue
                self.settle(exchange)
                self._withdraw_key(exchange)
            exchange.lost(copy.copy(reason))

    def _submit_keys(self, operations: Sequence[Operation]) -> None:
        # From now on, and not once it is accepted: a lane that is dialled meanwhile needs it too.
        for operation in operations:
            if operation.command is commands.AUTH:
                self.factory.use_key(operation.values["AuthKey"])

    def _withdraw_key(self, operation: Operation) -> None:
        # A key that was submitted and not accepted, for whatever reason, opens no connection any more.
        if operation.command is commands.AUTH:
            self.factory.use_key(self._key)
            self._submit_keys([other for other in self._queue if other is not operation and not other.done])
