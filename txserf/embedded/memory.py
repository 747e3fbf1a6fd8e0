"""
Connections in memory: two protocols in one process, with a clock between them.

Written bytes arrive in order, in a later turn of the clock, so that no protocol is called from inside its own call.
Buffers have a limit as a socket's have: a protocol that writes faster than the other side reads has its producer paused.
Connections end as with TCP: `loseConnection` delivers all that was written, `abortConnection` drops it,
`loseWriteConnection` closes one direction.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import cast

from twisted.internet import error
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IAddress,
    IConsumer,
    IDelayedCall,
    IHalfCloseableProtocol,
    IProducer,
    IProtocol,
    IProtocolFactory,
    IPullProducer,
    IPushProducer,
    IReactorTime,
    IStreamClientEndpoint,
    ITCPTransport,
)
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

_log = Logger(namespace="txserf.embedded")

# Above this the producer is paused; the value that Twisted has for a socket.
_BUFFER = 65536

# The most that one turn delivers: as much as Twisted reads from a socket at once.
_CHUNK = 65536


def _failure(why: type[Exception]) -> Failure:
    return Failure(why())


@implementer(ITCPTransport, IConsumer, IPushProducer)
class MemoryTransport:
    """
    One end of a connection.

    :param clock: bytes arrive in its turns.
    :param host: this end's address.
    :param peer: the other end's.
    """

    disconnecting: bool = False

    def __init__(self, clock: IReactorTime, host: IPv4Address, peer: IPv4Address) -> None:
        self._clock = clock
        self._host, self._peer_address = host, peer
        self.protocol: IProtocol | None = None
        self.other: MemoryTransport = self
        self._out: deque[bytes] = deque()
        self._size = 0
        self._turn: IDelayedCall | None = None  # it will deliver _out
        self._reading = True
        self._ends_output = False  # no more will be written; the other side is told after the last byte
        self._told_end = False
        self._closed: Failure | None = None  # the reason, once connectionLost was called or is due
        self._producer: IPushProducer | IPullProducer | None = None
        self._streaming = False
        self._producer_paused = False
        self.on_closed: Callable[[], None] = lambda: None

    # -- writing

    def write(self, data: bytes) -> None:
        if not isinstance(data, (bytes, bytearray, memoryview)):
            raise TypeError(f"only bytes can be written, not {type(data).__name__}")
        if self._closed or self._ends_output or self.disconnecting or not data:
            return
        self._out.append(bytes(data))
        self._size += len(data)
        self._wake()
        if self._streaming and self._size > _BUFFER and not self._producer_paused:
            self._producer_paused = True
            self._producer.pauseProducing()  # type: ignore[union-attr]  # a streaming producer is a push producer

    def writeSequence(self, data: Iterable[bytes]) -> None:
        self.write(b"".join(data))

    def loseConnection(self) -> None:
        if self._closed is None:
            self.disconnecting = True
            self._wake()

    def loseWriteConnection(self) -> None:
        if self._closed is None:
            self._ends_output = True
            self._wake()

    def abortConnection(self) -> None:
        if self._closed is None:
            self._end_at_once(error.ConnectionAborted)
            self.other._end_at_once(error.ConnectionLost)

    def _end_at_once(self, why: type[Exception]) -> None:
        self._drop()
        self._told_end = True
        self._close(_failure(why))

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        if self._producer is not None:
            raise RuntimeError(f"a producer is registered already: {self._producer!r}")
        if self._closed:
            producer.stopProducing()
            return
        self._producer = cast("IPushProducer | IPullProducer", producer)  # *streaming* says which
        self._streaming, self._producer_paused = streaming, False
        if not streaming:
            self._producer.resumeProducing()

    def unregisterProducer(self) -> None:
        self._producer, self._streaming = None, False
        if self.disconnecting:
            self._wake()

    # -- what a protocol reads

    def pauseProducing(self) -> None:
        self._reading = False

    def resumeProducing(self) -> None:
        if not self._reading and self._closed is None and not self.disconnecting:
            self._reading = True
            self.other._wake()

    def stopProducing(self) -> None:
        self.loseConnection()

    # -- the way to the other end

    def _wake(self) -> None:
        if self._turn is None:
            self._turn = self._clock.callLater(0, self._deliver)

    def _deliver(self) -> None:
        """Hand the next bytes to the other end, or tell it of the end."""
        self._turn = None
        other = self.other
        if other._closed:
            self._drop()
        if self._out and other._reading:
            other.receive(self._take())
            self._feed_producer()
            if self._out or self.disconnecting or self._ends_output:
                self._wake()
        elif not self._out and other._reading and self._ends:
            self._tell_end()
        # As with a socket, the side that closes does not wait for the other one to read.
        if self.disconnecting and self._producer is None and not (self._out and other._reading):
            self._close(_failure(error.ConnectionDone))

    @property
    def _ends(self) -> bool:
        """Whether nothing more will be written."""
        return self._ends_output or (self.disconnecting and self._producer is None)

    def _take(self) -> bytes:
        chunk = self._out.popleft()
        if len(chunk) < _CHUNK and self._out:
            parts, size = [chunk], len(chunk)
            while self._out and size + len(self._out[0]) <= _CHUNK:
                parts.append(self._out.popleft())
                size += len(parts[-1])
            chunk = b"".join(parts)
        elif len(chunk) > _CHUNK:
            self._out.appendleft(chunk[_CHUNK:])
            chunk = chunk[:_CHUNK]
        self._size -= len(chunk)
        return chunk

    def _feed_producer(self) -> None:
        if self._producer is None or self._out:
            return
        if not self._streaming or self._producer_paused:
            self._producer_paused = False
            self._producer.resumeProducing()

    def receive(self, data: bytes) -> None:
        """Take what the other end wrote."""
        if self._closed or self.disconnecting:
            return
        assert self.protocol is not None
        try:
            self.protocol.dataReceived(data)
        except KeyboardInterrupt:
            raise
        except BaseException:
            _log.failure("{protocol} failed with what it received", protocol=self.protocol)
            self.abortConnection()

    def _tell_end(self) -> None:
        if not self._told_end:
            self._told_end = True
            self.other.end_received()

    def end_received(self) -> None:
        """Nothing more will come from the other end."""
        if self._closed or self.disconnecting:
            return
        half: IHalfCloseableProtocol | None = IHalfCloseableProtocol(self.protocol, None)
        if half is not None:
            half.readConnectionLost()
        else:
            self.disconnecting = True
            self._stopped_producer()
            self._wake()

    def _stopped_producer(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.stopProducing()

    def _drop(self) -> None:
        self._out.clear()
        self._size = 0

    def _close(self, reason: Failure) -> None:
        """End this side; its protocol is told in a later turn."""
        if self._closed is None:
            self._closed = reason
            self._clock.callLater(0, self._closed_turn)

    def _closed_turn(self) -> None:
        assert self._closed is not None and self.protocol is not None
        self._stopped_producer()
        try:
            self.protocol.connectionLost(self._closed)
        except KeyboardInterrupt:
            raise
        except BaseException:
            _log.failure("{protocol} failed when its connection was lost", protocol=self.protocol)
        self.on_closed()

    # -- the rest of what a TCP transport has

    def getHost(self) -> IAddress:  # type: ignore[override]
        return self._host

    def getPeer(self) -> IAddress:  # type: ignore[override]
        return self._peer_address

    def getTcpNoDelay(self) -> bool:
        return True

    def setTcpNoDelay(self, enabled: bool) -> None:
        """Nothing is ever delayed."""

    def getTcpKeepAlive(self) -> bool:
        return False

    def setTcpKeepAlive(self, enabled: bool) -> None:
        """Nothing has to be kept alive."""


@implementer(IStreamClientEndpoint)
class MemoryEndpoint:
    """
    Connects in memory to whatever *accept* gives.

    :param clock: returns the clock, at the time of use.
    :param address: of the server.
    :param accept: makes the server's protocol for the address of a client, or returns
        None where connections are refused now.
    :param client_address: makes the next client's address.
    :param name: the server's, which errors and log lines call it by.
    """

    def __init__(
        self,
        clock: Callable[[], IReactorTime],
        address: IPv4Address,
        accept: Callable[[IPv4Address], IProtocol | None],
        client_address: Callable[[], IPv4Address],
        name: str = "",
    ) -> None:
        self._name = name
        self._clock = clock
        self._address = address
        self._accept = accept
        self._client_address = client_address

    def __repr__(self) -> str:
        return f"<MemoryEndpoint {self._name or self._address}>"

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """
        Connect in a later turn.

        :returns: a Deferred of the client's protocol, which fails with `ConnectionRefusedError`
            while nobody listens; it can be cancelled.
        """

        def cancelled(connecting: Deferred[IProtocol]) -> None:
            turn.cancel()
            connecting.errback(error.ConnectingCancelledError(self._address))

        connecting: Deferred[IProtocol] = Deferred(cancelled)
        turn = self._clock().callLater(0, self._connect, protocolFactory, connecting)
        return connecting

    def _connect(self, factory: IProtocolFactory, connecting: Deferred[IProtocol]) -> None:
        client_address = self._client_address()
        server = self._accept(client_address)
        if server is None:
            connecting.errback(_failure(error.ConnectionRefusedError))
            return
        clock = self._clock()
        near = MemoryTransport(clock, client_address, self._address)
        far = MemoryTransport(clock, self._address, client_address)
        near.other, far.other = far, near
        far.protocol = server
        try:
            factory.doStart()
            client = factory.buildProtocol(self._address)
        except KeyboardInterrupt:
            raise
        except BaseException as failed:
            connecting.errback(failed)
            return
        if client is None:
            factory.doStop()
            connecting.errback(error.NoProtocol())
            return
        near.protocol = client
        near.on_closed = factory.doStop
        server.makeConnection(far)
        client.makeConnection(near)
        connecting.callback(client)
