"""
One connection to an agent: handshake and auth, pipelining, streams by Seq.

`SerfProtocol` is one connection and knows of no other. Its owner decides what
becomes of unanswered requests after a loss.
"""

from __future__ import annotations

import copy
import enum
import itertools
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from itertools import islice
from typing import Any, ClassVar
from typing import Protocol as Shape

from twisted.internet.abstract import FileDescriptor
from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IConsumer, IDelayedCall, IPushProducer, ITCPTransport
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from txserf import commands, constant, wire
from txserf.arguments import time_source
from txserf.commands import Command
from txserf.connection.deadlines import Deadlines
from txserf.connection.exchange import Awaited, Beat, Exchange, Reply, Stop
from txserf.connection.heartbeat import Heartbeat, Progress
from txserf.connection.replies import Replies
from txserf.errors import (
    AuthenticationError,
    ConnectionLost,
    Disconnected,
    InvalidRequest,
    Overloaded,
    ProtocolError,
    RequestTimeout,
    SerfError,
)

# Seconds that an agent may still be busy with a slow command after its caller has given up. A join takes 10 s for
# each address that stays silent, 30 s between data centres. The limit is there so that a frozen agent is noticed.
_WORK_LIMIT = 120.0

# Requests that are given to the transport in one write. It takes no more once it has 64 KiB that the agent does not read.
_AT_ONCE = 256

# Bytes of a reply's body that have to come within ``connect_timeout`` for a heartbeat to wait for the rest of it. Records
# of streams may come meanwhile, so a few bytes show nothing.
_BODY_STEP = 1 << 16


_KEY_WANTED = (
    "wants a key, and none was given: set $SERF_RPC_AUTH, or write serf://HOST:PORT?AuthKey=KEY, "
    "or give the programs of txserf --auth-key-file"
)


class Owner(Shape):
    """The owner of a connection. `connection_ready` is called at most once, `connection_closed` exactly once."""

    def connection_ready(self, protocol: SerfProtocol) -> None:
        """Take the open connection: handshake and auth are through."""

    def connection_closed(
        self, protocol: SerfProtocol, reason: SerfError, unanswered: list[Exchange]
    ) -> None:
        """
        Take the end of the connection.

        :param unanswered: the exchanges under way, in order of Seq. They belong to the owner now.
        """


class State(enum.Enum):
    """A stage in the life of a connection."""

    NEW = "not connected yet"
    OPENING = "connected, handshake and auth under way"
    READY = "open for requests"
    DRAINING = "to be closed once all that was sent is answered"
    CLOSING = "given up, or closed by us; waiting for the transport"
    CLOSED = "gone"


# Read for every message: an Enum's member takes 40 ns to look up.
_READY, _DRAINING = State.READY, State.DRAINING
_LIVE = (State.READY, State.OPENING, State.DRAINING)

_log = Logger(namespace="txserf.connection")


def _greeting_failed(failure: Failure) -> None:
    # The owner is told of a loss. Any other error is a mistake in the owner's `connection_ready`.
    if failure.check(SerfError) is None:
        _log.failure("what waited for the handshake failed", failure)


@implementer(IPushProducer)
class SerfProtocol(Protocol):
    """
    A connection to an agent's RPC.

    `SerfClientFactory` makes them; ``factory.when_connected()`` has one that is open.

    :param host: the agent's name in errors and log lines.
    :param auth_key: the key; None where none is due.
    :param reactor: the source of time; None takes the global reactor.
    :param connect_timeout: seconds for handshake and auth, and for the answer to a heartbeat.
    :param heartbeat: seconds between checks of the connection; None for no checks.
    :param next_seq: gives the next Seq; None counts from 0.
    :param owner: is told when the connection is open and when it is gone.
    :ivar host: the agent's name in errors and log lines.
    :ivar state: the stage of its life, a ``State``.
    :ivar heard_at: the time, in seconds of the clock, at which bytes last came that were understood.
    """

    _MOVES: ClassVar[dict[State, set[State]]] = {
        State.NEW: {State.OPENING},
        State.OPENING: {State.READY, State.CLOSING, State.CLOSED},
        State.READY: {State.DRAINING, State.CLOSING, State.CLOSED},
        State.DRAINING: {State.CLOSING, State.CLOSED},
        State.CLOSING: {State.CLOSED},
        State.CLOSED: set(),
    }

    def __init__(
        self,
        *,
        host: str = "the agent",
        auth_key: str | None = None,
        reactor: object | None = None,
        connect_timeout: float | None = None,
        heartbeat: float | None = constant.HEARTBEAT,
        next_seq: Callable[[], int] | None = None,
        owner: Owner | None = None,
    ) -> None:
        self.host = host
        self.state: State = State.NEW
        self.heard_at: float = 0.0
        self._greeting: list[Awaited] = []
        self._auth_key = auth_key
        self._clock = time_source(reactor)
        self._deadlines = Deadlines(partial(time_source, reactor))
        self._connect_timeout = constant.CONNECT_TIMEOUT if connect_timeout is None else connect_timeout
        self._next_seq = itertools.count().__next__ if next_seq is None else next_seq
        self._owner = owner
        self._replies = Replies(host, self._key_wanted)
        self._calls = self._replies.calls  # the same dict: one look less for each request
        self._decoder = wire.Decoder(self._replies, first_limit=wire.GREETING_LIMIT)
        self._heartbeat = Heartbeat(
            self._clock,
            heartbeat,
            self._connect_timeout,
            progress=self._progress,
            at_work=lambda: self._replies.at_work(self._clock.seconds()),
            ask=self._beat,
            failed=self._beat_unanswered,
        )
        self._reason: SerfError | None = None  # why we ended it; None: it was lost under us
        self._timer: IDelayedCall | None = None  # of the opening, or of the closing
        self._seconds = self._clock.seconds
        self._corked = (
            False  # while bytes are handled, or many requests are sent: they go out in one write afterwards
        )
        self._full = False  # the transport's buffer is, for the agent does not read
        self._unsent: dict[int, Exchange] = {}  # those that wait for the end of either, by Seq
        self._straight = False  # the transport is a socket, which takes bytes at once

    # Called by Twisted

    def connectionMade(self) -> None:
        self._move(State.OPENING)
        assert self.transport is not None
        if ITCPTransport.providedBy(self.transport):
            self.transport.setTcpNoDelay(True)
        if IConsumer.providedBy(self.transport):
            self.transport.registerProducer(self, True)
        # Nothing public says whether bytes wait in its buffers.
        self._straight = isinstance(self.transport, FileDescriptor) and hasattr(
            self.transport, "_tempDataLen"
        )
        self._timer = self._clock.callLater(self._connect_timeout, self._too_slow, "the handshake")
        self._greeting = [Awaited(commands.HANDSHAKE, commands.HANDSHAKE.arguments({}))]
        self._greeting[0].result.addCallback(self._shaken)
        if self._auth_key is not None:
            auth = Awaited(commands.AUTH, commands.AUTH.arguments({"AuthKey": self._auth_key}))
            auth.result.addCallback(self._authenticated)
            self._greeting.append(auth)
        for opening in self._greeting:
            opening.result.addErrback(_greeting_failed)
        self._send(self._greeting)

    def dataReceived(self, data: bytes) -> None:
        self.heard_at = self._seconds()
        self._corked = True
        try:
            self._decoder.feed(data)
            if self.state is _DRAINING:
                self._close_if_drained()
        except ProtocolError as broken:
            self._replies.broke_off(self._decoder.due)
            told = "it answers HTTP, and is no Serf agent" if data.startswith(b"HTTP/") else broken
            self._give_up(ProtocolError(f"{self.host}: {told}"))
        finally:
            self._corked = False
            if self._unsent and self.state in _LIVE:
                self._flush(at_once=self._straight)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.state is State.CLOSED:
            return
        early = " before it answered the handshake" if self.state is State.OPENING else ""
        self._move(State.CLOSED)
        self._cancel_timer()
        why = self._reason or ConnectionLost(
            f"lost {self.host}{early}: {reason.getErrorMessage()}", host=self.host
        )
        unanswered = self._replies.close()
        for opening in self._greeting:
            if opening in unanswered:
                unanswered.remove(opening)
                opening.lost(copy.copy(why))
        if self._owner is not None:
            self._owner.connection_closed(self, why, unanswered)
        else:
            for exchange in unanswered:
                exchange.lost(copy.copy(why))
        self._deadlines.close()

    # The producer of what the transport sends: what it has taken can't be called back, so it gets no more than it asks for

    def pauseProducing(self) -> None:
        self._full = True

    def resumeProducing(self) -> None:
        self._full = False
        if self._unsent and not self._corked and self.state in _LIVE:
            self._flush()

    def stopProducing(self) -> None:
        """The transport is gone; `connectionLost` follows."""

    # Called by programs

    def call(
        self,
        command: str | Command,
        arguments: Mapping[str, Any] | None = None,
        *,
        timeout: float | None = None,
        on_record: Callable[[Mapping[str, Any]], object] | None = None,
    ) -> Deferred[Reply]:
        """
        Send one request.

        :param command: its wire name, or its row of the table.
        :param arguments: by Serf's own names.
        :param timeout: seconds to wait for the reply; None: as long as the connection lasts.
        :param on_record: called with each record (a dict) of a streaming command.
        :returns: a Deferred of the `Reply`. An agent's error is in its ``error``.
        :raises InvalidRequest: at the call, for an unknown command or a bad argument; `Overloaded` where
            `constant.CALLS_LIMIT` are under way.
            The Deferred fails with `RequestTimeout`, `AuthenticationError`,
            `ProtocolError`, `Disconnected` or `ConnectionLost`. Cancelling it leaves
            the connection good; a stream is stopped by it.
        """
        row = commands.BY_WIRE.get(command) if isinstance(command, str) else command
        if row is None:
            raise InvalidRequest(f"unknown command: {command!r}")
        call = Awaited(row, row.arguments(arguments or {}), on_record, self._disown)
        if self.state is not _READY:
            return fail(Disconnected(f"{self.host} is {self.state.value}"))
        limit = constant.CALLS_LIMIT
        if limit is not None and len(self._calls) >= limit:
            raise Overloaded(f"{limit} calls to {self.host} are under way: no more are allowed")
        if timeout is not None:
            deadline = self._deadlines.add(timeout, lambda: self._expire(call, timeout))

            def answered(result: Any) -> Any:
                self._deadlines.forget(deadline)
                return result

            call.result.addBoth(answered)
        self._send_one(call)
        return call.result

    def close(self) -> None:
        """Close the connection once all bytes are out. Unanswered calls fail with `Disconnected`."""
        if self.state not in (State.NEW, State.CLOSED):  # also for a connection that was given up before
            self._reason = Disconnected(f"the connection to {self.host} was closed by us")
        if self.state in _LIVE:
            if self._unsent:
                self._flush()
            self._move(State.CLOSING)
            self._cancel_timer()
            self._timer = self._clock.callLater(self._connect_timeout, self._abort)
            assert self.transport is not None
            self.transport.loseConnection()

    # Called by the package

    def _send(self, exchanges: Iterable[Exchange]) -> None:
        """
        Send requests, all in one write; see `_send_one`.

        :param exchanges: the requests, in order.
        """
        corked, self._corked = self._corked, True
        try:
            for exchange in exchanges:
                self._send_one(exchange)
        finally:
            self._corked = corked
            if not corked and self._unsent:
                self._flush()

    def _send_one(self, exchange: Exchange) -> None:
        """
        Send a request.

        :param exchange: gets its reply, its records or the loss. If it has a Seq already, it keeps it.

        The connection has to be open (`State.READY`).
        """
        seq = exchange.seq
        if seq is None:
            seq = exchange.seq = self._next_seq()
        self._calls[seq] = exchange
        if self._corked or self._full:
            # Requests that callbacks make while bytes are handled go out in one write behind the last callback, which is
            # no later than the transport would send them. A write costs more than all else here.
            self._unsent[seq] = exchange
        else:
            # Not by way of _unsent, which would cost 0.4 us more.
            assert self.transport is not None and self.state in _LIVE, (
                f"a request on a connection {self.state}"
            )
            self.transport.write(exchange.command.prefix + wire.pack(seq) + exchange.packed_body)

    def _disown(self, exchange: Exchange) -> None:
        """
        Drop all that still comes for *exchange*.

        A request that has not left is not sent any more. A live stream or monitor is also stopped at the agent.
        """
        seq = exchange.seq
        # But a ``stop`` is: nobody would stop that stream.
        if seq in self._unsent and self._calls.get(seq) is exchange and exchange.command is not commands.STOP:
            del self._unsent[seq], self._calls[seq]
            self._close_if_drained()
            return
        is_live = self._replies.disown(exchange, self._clock.seconds() + _WORK_LIMIT)
        if is_live and self.state is _READY:
            self._send_one(Stop(exchange.seq))

    def _drain(self) -> None:
        """Close the connection once all that was sent has been answered; nothing more is to be sent."""
        if self.state is _READY:
            self._move(State.DRAINING)
            self._close_if_drained()

    def _give_up(self, reason: SerfError) -> None:
        """End the connection at once, as *reason* says."""
        if self.state in _LIVE:
            self._reason = reason
            self._move(State.CLOSING)
            self._cancel_timer()
            self._abort()

    # How it works

    def _move(self, state: State) -> None:
        assert state in self._MOVES[self.state], f"from {self.state} to {state}"
        self.state = state
        if state is State.CLOSING or state is State.CLOSED:
            self._decoder.close()
            self._replies.cut()
            self._heartbeat.stop()
            for exchange in self._unsent.values():
                exchange.left = False
            self._unsent.clear()
        if state is State.CLOSING and IConsumer.providedBy(self.transport):
            self.transport.unregisterProducer()  # a transport does not close while it has one

    def _close_if_drained(self) -> None:
        if not self._calls and self.state is _DRAINING:
            self.close()

    def _abort(self) -> None:
        self._timer = None
        assert self.transport is not None
        try:
            self.transport.abortConnection()  # type: ignore[attr-defined]
        except AttributeError:
            if self.state is State.CLOSED:
                raise  # a mistake in the owner's connection_closed
            # Some endpoints have a transport that can't be aborted, or one that goes by such a transport. That of a
            # process may never end, so the owner is told without waiting for its end.
            self.transport.loseConnection()
            if self.state is State.CLOSING:  # else its end came inside that call
                self._timer = self._clock.callLater(0, self._gone)

    def _gone(self) -> None:
        self._timer = None
        self.connectionLost()

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _flush(self, at_once: bool = False) -> None:
        assert self.state in _LIVE, f"a request on a connection {self.state.value}"
        assert self.transport is not None
        unsent, pack = self._unsent, wire.pack
        while unsent and not self._full:
            exchanges = (
                [*unsent.values()] if len(unsent) <= _AT_ONCE else [*islice(unsent.values(), _AT_ONCE)]
            )
            parts: list[bytes] = []
            for exchange in exchanges:
                parts += (exchange.command.prefix, pack(exchange.seq), exchange.packed_body)
            if len(exchanges) == len(unsent):
                unsent.clear()
            else:
                for exchange in exchanges:
                    assert exchange.seq is not None
                    del unsent[exchange.seq]
            data = b"".join(parts)
            if at_once:
                self._write_at_once(data)
            else:
                self.transport.write(data)

    def _write_at_once(self, data: bytes) -> None:
        # write() leaves bytes to the reactor's next turn, which looks first whether the socket takes them. So a request
        # that a callback makes would cost four system calls more: one at a time, calls would take 1.3 times as long.
        transport: Any = self.transport
        is_plain = not getattr(transport, "TLS", False)  # somebody may have started it meanwhile
        if is_plain and not transport.dataBuffer and not transport._tempDataLen:
            sent = transport.writeSomeData(data)
            if sent == len(data):
                return
            if sent.__class__ is int:
                data = data[sent:]
            # Else the connection is lost, as the transport will find out in its own turn.
        transport.write(data)

    def _key_wanted(self) -> None:
        self._give_up(AuthenticationError(f"{self.host} {_KEY_WANTED}", host=self.host))

    def _expire(self, call: Awaited, timeout: float) -> None:
        self._disown(call)
        call.lost(RequestTimeout(f"{call.command.wire}: no answer from {self.host} within {timeout} s"))

    def _too_slow(self, what: str) -> None:
        self._timer = None
        self._give_up(
            ConnectionLost(
                f"lost {self.host}: no answer to {what} within {self._connect_timeout} s", host=self.host
            )
        )

    def _beat_unanswered(self) -> None:
        if self._decoder.waiting:  # it may be out of step, and since when, nobody knows
            self.heard_at = self._heartbeat.good_at
        self._too_slow("a heartbeat")

    def _progress(self) -> Progress:
        due = self._decoder.due
        size = self._decoder.waiting // _BODY_STEP if due is not None and due in self._calls else 0
        return next(iter(self._calls), None), size

    def _shaken(self, reply: Reply) -> None:
        if reply.error:
            self._give_up(ProtocolError(f"{self.host} refused the handshake: {self._told(reply)}"))
        elif self._auth_key is None:
            self._ready()

    def _authenticated(self, reply: Reply) -> None:
        if reply.error:
            self._give_up(
                AuthenticationError(f"{self.host} refused the key: {self._told(reply)}", host=self.host)
            )
        else:
            self._ready()

    def _told(self, reply: Reply) -> str:
        return commands.AUTH.without_keys(reply.error, {"AuthKey": self._auth_key})

    def _ready(self) -> None:
        self._move(State.READY)
        self._decoder.open()
        self._cancel_timer()
        self._heartbeat.start()
        if self._owner is not None:
            self._owner.connection_ready(self)

    def _beat(self, answered: Callable[[], None]) -> None:
        unopened = self._replies.unopened()
        self._send_one(Beat(self._next_seq(), partial(self._beat_answered, unopened, answered)))

    def _beat_answered(self, unopened: dict[int, Exchange], answered: Callable[[], None]) -> None:
        answered()
        for seq, exchange in unopened.items():
            # The agent has read it as something else, so no answer will come. A call has a timeout, a stream has none.
            if self._calls.get(seq) is exchange:
                what = f"no answer to {exchange.command.wire}, but to what was asked behind it"
                self._give_up(ConnectionLost(f"lost {self.host}: {what}", host=self.host))
                return
