"""
Further connections to the agent that a session is connected to.

The agent works through a connection's requests in order, and closes a
connection for some mistakes. A lane keeps both from everybody else.
"""

from __future__ import annotations

from typing import Any, Protocol

from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure

from txserf.commands import Road
from txserf.connection.exchange import Exchange
from txserf.connection.factory import SerfClientFactory
from txserf.connection.operation import Operation
from txserf.connection.protocol import SerfProtocol, State
from txserf.errors import ConnectError, ConnectionLost, Disconnected, SerfError, reason_text


class LaneOwner(Protocol):
    """Who has lanes: a session."""

    @property
    def factory(self) -> SerfClientFactory:
        """What dials for them."""

    def lane_over(
        self, lane: Lane, reason: SerfError, unanswered: list[Exchange], waiting: list[Operation]
    ) -> None:
        """A lane is gone; what was under way by it, and what waited for it, is the owner's again."""


class Lane:
    """
    One further connection, made when it gets its first operation.

    :param session: whose factory dials, and who is told of a loss.
    :param road: what the session calls it.
    :param once: close it behind the first answer.
    :ivar was_ready: whether it ever was open for requests.
    """

    def __init__(self, session: LaneOwner, road: Road, once: bool) -> None:
        self.road = road
        self.was_ready = False
        self._is_over = False
        self._session = session
        self._once = once
        self._waiting: dict[Operation, None] = {}
        self._closing: list[Deferred[None]] = []
        self._protocol: SerfProtocol | None = None
        self._dialling: Deferred[Any] | None = None
        self._ended_by: SerfError | None = None  # why we ended it before it was open

    def submit(self, operation: Operation) -> None:
        """Send *operation* by this lane, as soon as it is open."""
        self._waiting[operation] = None
        if self._protocol is None:
            self._protocol, self._dialling = self._session.factory.new_lane(self)
            self._dialling.addErrback(self._not_connected)
        elif self.was_ready and self._protocol.state is State.READY:
            self._flush()

    def drop(self, operation: Operation) -> None:
        """Forget an operation that was not sent yet."""
        self._waiting.pop(operation, None)

    def take_waiting(self) -> list[Operation]:
        """Return the operations that were not sent yet, and forget them."""
        waiting, self._waiting = list(self._waiting), {}
        return waiting

    def retire(self) -> None:
        """Close it once all that was sent is answered; what was not sent goes back to the session."""
        assert self._protocol is not None
        if self.was_ready:
            self._protocol._drain()
        elif self._ended_by is None:
            self._ended_by = ConnectionLost(f"lost {self._protocol.host}", host=self._protocol.host)
            self._end()

    def close(self) -> Deferred[None]:
        """Close it now; the Deferred fires once the transport is closed."""
        if self._is_over:
            return succeed(None)
        closed: Deferred[None] = Deferred()
        self._closing.append(closed)
        assert self._protocol is not None
        self._ended_by = Disconnected(f"the connection to {self._protocol.host} was closed by us")
        self._end()
        return closed

    # What the connection tells

    def connection_ready(self, protocol: SerfProtocol) -> None:
        if self._is_over:
            protocol.close()  # it was cancelled, but its endpoint has connected all the same
            return
        self.was_ready = True
        self._protocol = protocol  # an endpoint may be done before submit() has it
        self._flush()

    def connection_closed(
        self, protocol: SerfProtocol, reason: SerfError, unanswered: list[Exchange]
    ) -> None:
        self._over(reason, unanswered)
        self._session.factory.sockets.closed(protocol)

    # How it works

    def _end(self) -> None:
        assert self._protocol is not None and self._dialling is not None
        self._protocol.close()
        self._dialling.cancel()  # does nothing where it is connected

    def _flush(self) -> None:
        assert self._protocol is not None
        operations = self.take_waiting()
        for operation in operations:
            operation.connection = self._protocol
        self._protocol._send(operations)
        if self._once:
            self._protocol._drain()

    def _not_connected(self, failure: Failure) -> None:
        assert self._protocol is not None
        host = self._protocol.host
        reason = reason_text(failure)
        self._over(ConnectError(f"{host}: {reason}", failures=((host, failure.value),)), [])  # type: ignore[arg-type]  # it has a value

    def _over(self, reason: SerfError, unanswered: list[Exchange]) -> None:
        self._is_over = True
        self._session.lane_over(self, self._ended_by or reason, unanswered, self.take_waiting())
        closing, self._closing = self._closing, []
        for asker in closing:
            asker.callback(None)
