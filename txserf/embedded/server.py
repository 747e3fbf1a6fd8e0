"""
The server's side of a connection: bytes in, requests one after the other, replies and records out.

Serf's agent reads the next request once it has answered the last, and sends replies and records one after the other.
A client that does not read gets no replies either, and loses the records for which its streams' queues have no room.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable
from typing import Any, ClassVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IHalfCloseableProtocol, IPushProducer
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from txserf import commands
from txserf.commands import Command
from txserf.embedded.agenda import Entry
from txserf.embedded.process import AgentProcess
from txserf.embedded.requests import BadRequest, decode_body, decode_header
from txserf.embedded.rpc import Closed, Conversation, Result
from txserf.wire import GREETING_ITEMS, GREETING_LIMIT, Unpacker, pack

_log = Logger(namespace="txserf.embedded")

#: Bytes that one object of a request may have, and members that a list in it may have. Serf has no such limits.
#: Until a client has begun with a handshake, those of the client hold that waits for one: a stranger takes little.
REQUEST_LIMIT = 512 * 1024
_MOST_ITEMS = 8192

# Seconds that a client has to read the last bytes of a connection.
_LINGER = 5.0

# Stands behind the last request of a connection that sends nothing more, or nothing that can be read.
_END = object()


class ServerState(enum.Enum):
    """A stage in the life of a connection, as the agent sees it."""

    READING = "takes the next request"
    WORKING = "carries out a request that takes its time"
    HELD = "has its result, which a pause of the agent holds back"
    ENDING = "closed by the agent; waiting for the transport"
    GONE = "lost"


# Read for every request and record: an Enum's member takes 40 ns to look up.
_READING, _ENDING, _GONE = ServerState.READING, ServerState.ENDING, ServerState.GONE


def _header(seq: int, error: str = "") -> bytes:
    return pack({"Error": error, "Seq": seq})


class StreamQueue:
    """
    The records of one Seq, on their way to a client that may read slowly.

    :param limit: how many may wait; None for any number.
    """

    def __init__(self, server: ServerProtocol, seq: int, limit: int | None) -> None:
        self._server = server
        self._header = _header(seq)
        self._limit = limit
        self._waiting: deque[Callable[[], dict[str, Any]]] = deque()

    def put(self, record: Callable[[], dict[str, Any]]) -> bool:
        if self._server.gone:
            return True
        if not self._waiting and self._server.writable:
            self._send(record)
        elif self._limit is not None and len(self._waiting) >= self._limit:
            return False
        else:
            self._waiting.append(record)
            self._server.queues[self] = None
        return True

    def flush(self) -> None:
        """Send the records that wait, as far as the client reads."""
        while self._waiting and self._server.writable:
            self._send(self._waiting.popleft())
        if not self._waiting:
            self._server.queues.pop(self, None)

    def close(self) -> None:
        self._waiting.clear()

    def _send(self, record: Callable[[], dict[str, Any]]) -> None:
        self._server.send(self._header + pack(record()))


@implementer(IHalfCloseableProtocol, IPushProducer)
class ServerProtocol(Protocol):
    """
    A connection to an agent.

    :param process: the agent, as it runs now.
    :param auth_key: the key that it wants; empty for none.
    :ivar queues: the streams that have records waiting.
    """

    _MOVES: ClassVar[dict[ServerState, set[ServerState]]] = {
        ServerState.READING: {ServerState.WORKING, ServerState.ENDING, ServerState.GONE},
        ServerState.WORKING: {ServerState.READING, ServerState.HELD, ServerState.ENDING, ServerState.GONE},
        ServerState.HELD: {ServerState.READING, ServerState.ENDING, ServerState.GONE},
        ServerState.ENDING: {ServerState.GONE},
        ServerState.GONE: set(),
    }

    def __init__(self, process: AgentProcess, auth_key: str) -> None:
        self.state: ServerState = ServerState.READING
        self._process = process
        self._unpacker = Unpacker(GREETING_LIMIT, GREETING_ITEMS)
        self._greeted = False  # a handshake has come
        self._inbox: deque[Any] = deque()
        self._conversation = Conversation(process, auth_key, self)
        self._command, self._seq = "", 0  # the last header's
        self._due: Command | None = None  # the header's command, while its body is to come
        self._held: tuple[Command, Result] | None = None  # in state HELD
        # Two flags of the transport: the client does not read; we do.
        self._clogged = False
        self._reads = True
        self._lingering: Entry | None = None
        self.queues: dict[StreamQueue, None] = {}
        self.name: str = ""

    # -- the connection

    def connectionMade(self) -> None:
        assert self.transport is not None
        peer = self.transport.getPeer()
        self.name = f"{getattr(peer, 'host', peer)}:{getattr(peer, 'port', '')}".rstrip(":")
        self._process.agenda.observed()
        self._process.connections[self] = None
        self._process.watch()
        self._process.log.write("INFO", f"agent.ipc: Accepted client: {self.name}")
        self.transport.registerProducer(self, True)  # type: ignore[attr-defined]  # every transport of a stream has it
        self._throttle()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._move(_GONE)
        if self._lingering is not None:
            self._lingering.cancel()
        self._inbox.clear()
        self._unpacker.close()
        for queue in self.queues:
            queue.close()
        self.queues.clear()
        self._conversation.close()
        self._process.connections.pop(self, None)
        self._process.agenda.unobserved()

    def drop(self, *, abort: bool) -> None:
        """End the connection; *abort* throws away the bytes under way."""
        if self.gone or self.transport is None:
            return
        self._move(_ENDING)
        if abort:
            self.transport.abortConnection()  # type: ignore[attr-defined]  # every transport of a stream has it
        else:
            self.transport.unregisterProducer()  # type: ignore[attr-defined]  # likewise
            self.transport.loseConnection()
            self._lingering = self._process.agenda.later(_LINGER, self.transport.abortConnection)  # type: ignore[attr-defined]

    def readConnectionLost(self) -> None:
        """The client sends nothing more: the requests that it has sent are answered first."""
        self._inbox.append(_END)
        self._work()

    def writeConnectionLost(self) -> None:
        """The client reads no more."""

    @property
    def gone(self) -> bool:
        """Whether nothing can be sent any more."""
        return self.state is _ENDING or self.state is _GONE

    def _move(self, state: ServerState) -> None:
        assert state in self._MOVES[self.state], f"from {self.state} to {state}"
        self.state = state

    # -- back-pressure (IPushProducer: the transport tells whether the client reads)

    @property
    def writable(self) -> bool:
        return not self._clogged and self._process.frozen_at is None and not self.gone

    def pauseProducing(self) -> None:
        self._clogged = True

    def resumeProducing(self) -> None:
        self._clogged = False
        self._flow()

    def stopProducing(self) -> None:
        """The connection is lost: `connectionLost` is called for it."""

    def resumed(self) -> None:
        """The agent goes on after a pause."""
        self._flow()

    def _flow(self) -> None:
        if self._held is not None and not self._process.frozen:
            held, self._held = self._held, None
            if self.state is ServerState.HELD:
                self._move(_READING)
            self._reply(*held)
            self._work()
        for queue in tuple(self.queues):
            queue.flush()
        self._work()

    def _throttle(self) -> None:
        """Read on only when the last request has been answered."""
        if self.gone or self.transport is None:
            return
        reads = self.state is _READING and not self._inbox and self.writable
        if reads != self._reads:
            self._reads = reads
            if reads:
                self.transport.resumeProducing()  # type: ignore[attr-defined]  # every transport of a stream has it
            else:
                self.transport.pauseProducing()  # type: ignore[attr-defined]  # likewise

    # -- requests

    def dataReceived(self, data: bytes) -> None:
        if not self.gone:
            self._unpack(data)
            if self._unpacker.failure is not None:
                self._inbox.append(_END)
            self._work()

    def _unpack(self, data: bytes) -> None:
        values = self._unpacker.feed(data)
        self._inbox.extend(values)
        if not self._greeted and values:
            first = values[0]
            self._greeted = first.__class__ is dict and first.get("Command") == commands.HANDSHAKE.wire
            if self._greeted:
                self._unpacker, rest = self._unpacker.relieved(data, REQUEST_LIMIT, _MOST_ITEMS)
                self._inbox.extend(self._unpacker.feed(rest))

    def _work(self) -> None:
        """Do all that can be done now, one request after the other."""
        while self._inbox and self.state is _READING and self._process.frozen_at is None:
            if self._inbox[0] is _END:
                self._end()
            elif self._clogged:
                break
            else:
                self._take(self._inbox.popleft())
        self._throttle()

    def _end(self) -> None:
        failure = self._unpacker.failure
        if failure is not None:
            self._close(f"failed to decode request header: {failure}")
        else:
            self._close("Failed to evaluate request: decode failed: EOF" if self._due else "")

    def _close(self, reason: str) -> None:
        if reason:
            self._process.log.write("ERR", f"agent.ipc: {reason}")
        self._inbox.clear()
        self._conversation.close()
        self.drop(abort=False)

    def _take(self, value: Any) -> None:
        """Take one object: a header, or the body that is due."""
        row, self._due = self._due, None
        try:
            if row is None:
                self._command, self._seq = decode_header(value, self._command, self._seq)
                row = self._checked()
                if row is None:
                    return
                if row.args:
                    self._due = row
                    return
                self._run(row, {})
            else:
                self._run(row, decode_body(row, value))
        except BadRequest as reason:
            what = (
                "failed to decode request header:"
                if row is None
                else "Failed to evaluate request: decode failed:"
            )
            self._close(f"{what} {reason}")
        except Closed as reason:
            self._close(str(reason))

    def _checked(self) -> Command | None:
        """Return the row of the header's command, unless that alone is answered already."""
        conversation, row = self._conversation, commands.BY_WIRE.get(self._command)
        if row is not commands.HANDSHAKE and not conversation.shaken:
            self._refuse("Handshake required", "Handshake required")
        elif conversation.needs_auth and row not in (commands.HANDSHAKE, commands.AUTH):
            self._process.log.write("WARN", "agent.ipc: Client sending commands before auth")
            self.send(_header(self._seq, commands.AUTHENTICATION_REQUIRED))
        elif row is None:
            self._refuse("Unsupported command", f"command '{self._command}' not recognized")
        else:
            return row
        return None

    def _refuse(self, error: str, reason: str) -> None:
        self.send(_header(self._seq, error))
        self._close(f"Failed to evaluate request: {reason}")

    def _run(self, row: Command, values: dict[str, Any]) -> None:
        result = self._conversation.run(row, values, self._seq)
        if isinstance(result, Result):
            self._reply(row, result)
            return
        self._move(ServerState.WORKING)
        waiting: Deferred[Result] = Deferred.fromCoroutine(result)
        waiting.addCallback(self._finished, row)
        if self.state is ServerState.WORKING:
            # Where the result is there at once, the loop in _work that called this goes on by itself.
            waiting.addCallback(lambda _: self._work())
        waiting.addErrback(self._failed, row)

    def _failed(self, failure: Failure, row: Command) -> None:
        _log.failure("{command} failed in the embedded agent", failure, command=row.wire)
        self.drop(abort=True)

    def _finished(self, result: Result, row: Command) -> None:
        """Reply to a request that took its time, unless the agent is paused."""
        if self.state is ServerState.WORKING:
            if self._process.frozen:
                self._held = row, result
                self._move(ServerState.HELD)
                return
            self._move(_READING)
        self._reply(row, result)

    def _reply(self, row: Command, result: Result) -> None:
        has_body = row.body_on_error if result.error else row.body_on_success
        assert bool(result.body) == has_body, (
            f"{row.wire} is answered with a body, or without, against the table"
        )
        self.send(_header(self._seq, result.error) + result.body)
        if result.then is not None:
            result.then()

    # -- sending

    def send(self, data: bytes) -> None:
        """Send one reply or record, whole."""
        if not self.gone:
            assert self.transport is not None
            self.transport.write(data)

    def open_stream(self, seq: int, limit: int | None) -> StreamQueue:
        return StreamQueue(self, seq, limit)
