"""
Lanes: further connections to the agent that a session is connected to.

The agent works through a connection's requests in order, and closes the connection for
some mistakes. A request that goes by a lane neither delays nor endangers the others.
"""

from __future__ import annotations

import copy
import enum
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import ClassVar, Protocol

from txserf.commands import Road
from txserf.connection.diallers import Attempt, Listener
from txserf.connection.exchange import Exchange
from txserf.connection.observers import DialBeside
from txserf.connection.operation import Operation
from txserf.connection.protocol import SerfProtocol, State
from txserf.errors import (
    AuthenticationError,
    ConnectError,
    ConnectionLost,
    Disconnected,
    SerfError,
    reason_text,
)

_CLOSED = "the agent closed the connection instead of an answer: a filter is no regular expression (Go's RE2)"


class LaneState(enum.Enum):
    """The state of a lane."""

    NEW = "without an operation"
    DIALLING = "being connected"
    OPEN = "open for requests"
    DRAINING = "closed once all that was sent has been answered"
    OVER = "gone"


class Lane:
    """
    One further connection, made when it gets its first operation.

    :param road: the operations that go by it.
    :param lanes: dials, and is told of its end.
    """

    _MOVES: ClassVar[Mapping[LaneState, frozenset[LaneState]]] = MappingProxyType(
        {
            LaneState.NEW: frozenset({LaneState.DIALLING}),
            LaneState.DIALLING: frozenset({LaneState.OPEN, LaneState.OVER}),
            LaneState.OPEN: frozenset({LaneState.DRAINING, LaneState.OVER}),
            LaneState.DRAINING: frozenset({LaneState.OVER}),
            LaneState.OVER: frozenset(),
        }
    )

    def __init__(self, road: Road, lanes: Lanes) -> None:
        self.road = road
        self.state: LaneState = LaneState.NEW
        self._lanes = lanes
        self._waiting: dict[Operation, None] = {}
        self._attempt: Attempt | None = None

    def submit(self, operation: Operation) -> None:
        """Send *operation* by this lane, as soon as it is open."""
        self._waiting[operation] = None
        if self.state is LaneState.NEW:
            self._move(LaneState.DIALLING)
            self._attempt = self._lanes.dial(Listener(self._opened, self._closed, self._not_connected))
        elif self.state is LaneState.OPEN and self._protocol.state is State.READY:
            self._flush()

    @property
    def under_way(self) -> int:
        """How many operations wait for an answer, or for the lane to open."""
        protocol = None if self._attempt is None else self._attempt.protocol
        return len(self._waiting) + (0 if protocol is None else len(protocol._calls))

    def drop(self, operation: Operation) -> None:
        """Forget an operation that was not sent yet."""
        self._waiting.pop(operation, None)

    def take_waiting(self) -> list[Operation]:
        """Return the operations that were not sent yet, and forget them."""
        waiting, self._waiting = list(self._waiting), {}
        return waiting

    def retire(self) -> None:
        """Close it once all that was sent is answered; operations that were not sent go back at once."""
        if self.state is LaneState.OPEN:
            self._drain()
        elif self.state is LaneState.DIALLING:
            host = self._protocol.host
            self._over(ConnectionLost(f"lost {host}", host=host), [])
            self._cancel()

    def close(self) -> None:
        """Close it now. Sent operations are given back once the transport is closed; the others are forgotten."""
        if self.state is LaneState.DIALLING:
            self._move(LaneState.OVER)
        self._cancel()

    # How it works

    @property
    def _protocol(self) -> SerfProtocol:
        assert self._attempt is not None and self._attempt.protocol is not None
        return self._attempt.protocol

    def _move(self, state: LaneState) -> None:
        assert state in self._MOVES[self.state], f"from {self.state} to {state}"
        self.state = state

    def _cancel(self) -> None:
        assert self._attempt is not None
        self._attempt.cancel()

    def _flush(self) -> None:
        protocol = self._protocol
        operations = self.take_waiting()
        for operation in operations:
            operation.connection = protocol
        protocol._send(operations)
        if self.road is Road.ALONE:
            self._drain()

    def _drain(self) -> None:
        self._move(LaneState.DRAINING)
        self._protocol._drain()

    def _opened(self, attempt: Attempt) -> None:
        self._attempt = attempt  # an endpoint may be done before submit() has it
        self._move(LaneState.OPEN)
        self._flush()

    def _closed(self, attempt: Attempt, reason: SerfError, unanswered: list[Exchange]) -> None:
        if self.state is not LaneState.OVER:
            self._over(reason, unanswered)

    def _not_connected(self, attempt: Attempt, reason: BaseException) -> None:
        host = attempt.label
        self._over(ConnectError(f"{host}: {reason_text(reason)}", failures=((host, reason),)), [])

    def _over(self, reason: SerfError, unanswered: list[Exchange]) -> None:
        was_open = self.state is not LaneState.DIALLING
        self._move(LaneState.OVER)
        self._lanes.over(self, was_open, reason, unanswered)


class LaneSession(Protocol):
    """A session, as its lanes see it."""

    @property
    def open_connection(self) -> SerfProtocol | None:
        """The connection that all share, where it is open."""

    def settle(self, operation: Operation) -> None:
        """Mark an operation as done."""

    def take_back(self, reason: SerfError, unanswered: Sequence[Exchange], untouched: bool) -> None:
        """Send again or fail; see `Session.take_back`."""

    def send_soon(self, operations: Sequence[Operation]) -> None:
        """Send operations that no agent has got, a moment later."""

    def fail(self, exchanges: Sequence[Exchange], reason: SerfError) -> None:
        """End exchanges with *reason*."""

    def wants_key(self, reason: AuthenticationError) -> None:
        """An agent has told a lane that it wants a key, and none was given."""


class Lanes:
    """
    The lanes of a session: one for each road, but one for each operation that goes alone.

    :param session: gets back the operations of a lane that is over.
    :ivar all: the lanes that there are; retired ones, and those of one operation, too.
    """

    def __init__(self, session: LaneSession) -> None:
        self._session = session
        self._by_road: dict[Road, Lane] = {}
        self.all: set[Lane] = set()
        self._dial_beside: DialBeside | None = None

    @property
    def under_way(self) -> int:
        """How many operations are under way, where each retired lane counts as one."""
        shared = self._by_road.values()
        return len(self.all) - len(shared) + sum(lane.under_way for lane in shared)

    def connected(self, dial_beside: DialBeside) -> None:
        """Dial the agent that is connected now, from here on."""
        self._dial_beside = dial_beside

    def submit(self, operation: Operation) -> None:
        """Send *operation* by a lane of its road."""
        lane = self._by_road.get(operation.road)
        if lane is None:
            lane = Lane(operation.road, self)
            self.all.add(lane)
            if operation.road is not Road.ALONE:
                self._by_road[operation.road] = lane
        lane.submit(operation)

    def drop(self, operation: Operation) -> None:
        """Forget an operation that was not sent yet."""
        for lane in self.all:
            lane.drop(operation)

    def take_waiting(self) -> list[Operation]:
        """Return the operations that were not sent yet, and forget them."""
        return [operation for lane in self.all for operation in lane.take_waiting()]

    def retire(self) -> None:
        """Let each lane end once its agent has answered: the next agent has lanes of its own."""
        self._dial_beside = None  # it holds the lost connection
        lanes, self._by_road = self._by_road, {}
        for lane in lanes.values():
            lane.retire()

    def close(self) -> None:
        """Close them now."""
        for lane in list(self.all):
            lane.close()

    # For the lanes

    def dial(self, listener: Listener) -> Attempt:
        """Dial the agent that is connected."""
        assert self._dial_beside is not None
        return self._dial_beside(listener)

    def over(self, lane: Lane, was_open: bool, reason: SerfError, unanswered: list[Exchange]) -> None:
        """
        Give the operations of a lane that is over back to the session.

        :param was_open: whether it ever was open for requests.
        """
        self.all.discard(lane)
        if self._by_road.get(lane.road) is lane:
            del self._by_road[lane.road]
        session = self._session
        waiting = lane.take_waiting()
        wants_key = was_open and isinstance(reason, AuthenticationError)
        if isinstance(reason, AuthenticationError) and wants_key:
            session.wants_key(reason)
        if lane.road is Road.ALONE:
            unanswered = [exchange for exchange in unanswered if not self._is_refused(exchange, reason)]
        # A command that goes alone only reads, and the session itself lost nothing: it is sent once more.
        alone = lane.road is Road.ALONE and session.open_connection is not None
        fails = type(reason) is Disconnected or (isinstance(reason, AuthenticationError) and not wants_key)
        if not fails:
            # The lane could not be opened. The agent may have just gone, and the session not know it yet.
            session.send_soon(waiting)
        session.take_back(reason, unanswered, untouched=alone or wants_key)
        if fails:
            session.fail(waiting, reason)

    def _is_refused(self, exchange: Exchange, reason: SerfError) -> bool:
        """
        End an operation whose lane the agent has closed twice; the first time is noted.

        If the shared connection stayed open both times, the agent is alive, and that is its answer.
        """
        if not isinstance(exchange, Operation):
            return False
        before, exchange.main_when_refused = exchange.main_when_refused, self._session.open_connection
        if exchange.done or before is None or before is not exchange.main_when_refused:
            return False
        self._session.settle(exchange)
        if type(reason) is ConnectionLost:
            exchange.refused(exchange.command.refusal(_CLOSED))
        else:
            exchange.lost(copy.copy(reason))
        return True
