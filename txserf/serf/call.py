"""A command of the typed API: one Deferred of the decoded reply."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from twisted.internet.defer import Deferred

from txserf import commands
from txserf.commands import Command, Road
from txserf.connection.operation import Operation
from txserf.connection.session import Session
from txserf.errors import ConnectionLost, ProtocolError, RequestTimeout, RpcError, SerfError
from txserf.wire import Items

_MAIN = Road.MAIN  # read for every call: an Enum's member takes 40 ns to look up


class Call(Operation):
    """
    An operation whose decoded reply goes to a Deferred.

    :param timeout: seconds to wait for it, the wait for a connection included; None: no limit.
    :ivar result: fires once; cancelling it leaves the connection good.
    """

    takes_value = True

    def __init__(
        self, session: Session, command: Command, values: Mapping[str, Any], timeout: float | None
    ) -> None:
        # The lines of Operation.__init__() and of Exchange's, without the calls: a twentieth of a whole call's time.
        self.seq: int | None = None
        self.command = command
        self.values = values
        self.packed_body: bytes = command.body(values) if values else b""
        self.road = _MAIN if command.takes_main_road else command.road_of(values, lanes=True)
        self._session = session
        self._timeout = timeout
        self.result: Deferred[Any] = Deferred(self)
        if timeout is not None:
            session.deadlines.watch(timeout, self)

    def replied(self, error: str, body: Mapping[str, Any] | None) -> None:
        if self.done:
            return
        fault: SerfError
        try:
            if not error:
                self.answered(self.command.decode(body or {}))
                return
            fault = self.command.refusal(self.command.without_keys(error, self.values), body)
        except ProtocolError as broken:
            fault = ProtocolError(f"{self.command.wire}: {broken}")
        self._session.settle(self)
        self.result.errback(fault)

    def answered(self, value: Any) -> None:
        if not self.done:
            # The lines of Session.settle(), without the call.
            self.done: bool = True
            self._session.deadlines.forget(self)
            self.result.callback(value)

    def items(self, number: int) -> Items | None:
        return None if self.command.items is None else self.command.items(number)

    def lost(self, reason: SerfError) -> None:
        if self.command is commands.LEAVE and isinstance(reason, ConnectionLost) and self.seq is not None:
            # The agent exits as it answers, and a second ``leave`` makes it exit without an answer.
            self.result.callback(None)
        else:
            self.result.errback(reason)

    def refused(self, error: RpcError) -> None:
        self.result.errback(error)

    def expired(self) -> None:
        self._session.abandon(self)
        self.result.errback(
            RequestTimeout(
                f"{self.command.wire}: no answer within {self._timeout} s{self._session.why_waiting()}"
            )
        )

    def __call__(self, _: Deferred[Any]) -> None:
        """Take that *result* is cancelled. A bound method would be one more object for each call to the garbage collector."""
        self._session.abandon(self)


class Ping(Call):
    """
    A ``stop`` of a Seq that no stream has, which an agent answers at once.

    The answer counts where it came by the connection that the request began on. Otherwise it only
    says that there is a connection now, and the request is sent once more.

    :ivar result: fires with the seconds of one round trip.
    """

    def __init__(
        self, session: Session, command: Command, values: Mapping[str, Any], timeout: float | None
    ) -> None:
        super().__init__(session, command, values, timeout)
        self._sent_by = session.factory.open_connection
        self._sent_at = session.clock.seconds()

    def answered(self, value: Any) -> None:
        now = self._session.clock.seconds()
        if self.connection is self._sent_by:
            super().answered(now - self._sent_at)
        else:
            self._sent_by, self._sent_at = self.connection, now
            self._session.submit_one(self)
