"""Connections in memory: they behave like TCP's, and deliver when the clock moves."""

from __future__ import annotations

import sys
from typing import Any

from twisted.internet import error
from twisted.internet.address import IPv4Address
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from txserf.embedded.memory import MemoryEndpoint, MemoryTransport

SERVER = IPv4Address("TCP", "127.0.0.1", 7373)
CLIENT = IPv4Address("TCP", "127.0.0.1", 40000)


class End(Protocol):
    """An end of a connection that keeps the bytes it gets."""

    transport: MemoryTransport

    def __init__(self) -> None:
        self.data = b""
        self.lost: type[BaseException] | None = None

    def dataReceived(self, data: bytes) -> None:
        self.data += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost = reason.type


@implementer(IHalfCloseableProtocol)
class HalfEnd(End):
    """An end that stays open after the other end has closed its direction."""

    ended = False

    def readConnectionLost(self) -> None:
        self.ended = True

    def writeConnectionLost(self) -> None:
        pass


class Producer:
    """A producer that records the calls of its methods."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def pauseProducing(self) -> None:
        self.told.append("pause")

    def resumeProducing(self) -> None:
        self.told.append("resume")

    def stopProducing(self) -> None:
        self.told.append("stop")


class MemoryTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.server: Any = End()
        self.accepts = True
        self.endpoint = MemoryEndpoint(
            lambda: self.clock, SERVER, lambda _: self.server if self.accepts else None, lambda: CLIENT
        )

    def connect(self, kind: type[End] = End) -> Any:
        connecting = self.endpoint.connect(Factory.forProtocol(kind))
        self.clock.advance(0)
        return self.successResultOf(connecting)

    # -- connecting

    def test_a_connection_is_made_in_a_later_turn(self) -> None:
        connecting = self.endpoint.connect(Factory.forProtocol(End))
        self.assertNoResult(connecting)
        self.clock.advance(0)
        client: Any = self.successResultOf(connecting)
        self.assertEqual((client.transport.getHost(), client.transport.getPeer()), (CLIENT, SERVER))
        self.assertEqual((self.server.transport.getHost(), self.server.transport.getPeer()), (SERVER, CLIENT))

    def test_a_connection_is_refused_if_nobody_listens(self) -> None:
        self.accepts = False
        connecting = self.endpoint.connect(Factory.forProtocol(End))
        self.clock.advance(0)
        self.failureResultOf(connecting, error.ConnectionRefusedError)

    def test_connecting_can_be_cancelled(self) -> None:
        connecting = self.endpoint.connect(Factory.forProtocol(End))
        connecting.cancel()
        self.failureResultOf(connecting, error.ConnectingCancelledError)
        self.assertEqual(self.clock.calls, [])

    def test_a_factory_without_a_protocol_fails(self) -> None:
        factory = Factory.forProtocol(End)
        factory.buildProtocol = lambda addr: None  # type: ignore[method-assign]
        connecting = self.endpoint.connect(factory)
        self.clock.advance(0)
        self.failureResultOf(connecting, error.NoProtocol)

    # -- bytes

    def test_bytes_arrive_in_a_later_turn_and_in_order(self) -> None:
        client = self.connect()
        client.transport.write(b"a")
        client.transport.writeSequence([b"b", b"c"])
        self.assertEqual(self.server.data, b"")
        self.server.transport.write(b"x")
        self.clock.advance(0)
        self.assertEqual((self.server.data, client.data), (b"abc", b"x"))

    def test_only_bytes_can_be_written(self) -> None:
        self.assertRaises(TypeError, self.connect().transport.write, "text")

    def test_a_paused_end_gets_nothing_before_it_resumes(self) -> None:
        client = self.connect()
        self.server.transport.pauseProducing()
        client.transport.write(b"a")
        self.clock.advance(0)
        self.assertEqual(self.server.data, b"")
        self.server.transport.resumeProducing()
        self.clock.advance(0)
        self.assertEqual(self.server.data, b"a")

    def test_a_producer_is_paused_over_64_kib_and_resumed_when_all_is_delivered(self) -> None:
        client, producer = self.connect(), Producer()
        client.transport.registerProducer(producer, True)
        self.server.transport.pauseProducing()
        client.transport.write(bytes(65536))
        self.assertEqual(producer.told, [])
        client.transport.write(b"x")
        self.assertEqual(producer.told, ["pause"])
        self.server.transport.resumeProducing()
        self.clock.advance(0)
        self.assertEqual(producer.told, ["pause", "resume"])
        self.assertEqual(len(self.server.data), 65537)

    def test_a_pull_producer_is_asked_whenever_all_is_delivered(self) -> None:
        client, producer = self.connect(), Producer()
        client.transport.registerProducer(producer, False)
        client.transport.write(b"x")
        self.clock.advance(0)
        self.assertEqual(producer.told, ["resume", "resume"])

    def test_a_second_producer_is_refused(self) -> None:
        client = self.connect()
        client.transport.registerProducer(Producer(), True)
        self.assertRaises(RuntimeError, client.transport.registerProducer, Producer(), True)

    def test_a_protocol_that_raises_loses_its_connection(self) -> None:
        client = self.connect()
        self.server.dataReceived = lambda data: 1 // 0
        client.transport.write(b"x")
        self.clock.advance(0)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual((self.server.lost, client.lost), (error.ConnectionAborted, error.ConnectionLost))

    def test_a_protocol_that_calls_sys_exit_loses_its_connection(self) -> None:
        """A reactor treats SystemExit in this way too, and goes on."""
        client = self.connect()

        def lost(reason: object) -> None:
            sys.exit(1)

        self.server.dataReceived = lambda data: sys.exit(1)
        self.server.connectionLost = lost
        client.transport.write(b"x")
        self.clock.advance(0)
        self.assertEqual(len(self.flushLoggedErrors(SystemExit)), 2)
        self.assertEqual(client.lost, error.ConnectionLost)

    # -- ends

    def test_bytes_written_before_a_close_arrive(self) -> None:
        client = self.connect()
        client.transport.write(b"bye")
        client.transport.loseConnection()
        client.transport.write(b"more")
        self.assertIsNone(client.lost)
        self.clock.advance(0)
        self.assertEqual(self.server.data, b"bye")
        self.assertEqual((client.lost, self.server.lost), (error.ConnectionDone, error.ConnectionDone))
        self.assertEqual(self.clock.calls, [])

    def test_closing_does_not_wait_for_the_other_end_to_read(self) -> None:
        client = self.connect()
        self.server.transport.pauseProducing()
        client.transport.write(b"bye")
        client.transport.loseConnection()
        self.clock.advance(0)
        self.assertEqual((client.lost, self.server.lost), (error.ConnectionDone, None))
        self.server.transport.resumeProducing()
        self.clock.advance(0)
        self.assertEqual((self.server.data, self.server.lost), (b"bye", error.ConnectionDone))

    def test_closing_waits_for_the_producer(self) -> None:
        client, producer = self.connect(), Producer()
        client.transport.registerProducer(producer, True)
        client.transport.loseConnection()
        self.clock.advance(0)
        self.assertIsNone(client.lost)
        client.transport.unregisterProducer()
        self.clock.advance(0)
        self.assertEqual(client.lost, error.ConnectionDone)

    def test_an_abort_drops_what_is_under_way(self) -> None:
        client, producer = self.connect(), Producer()
        self.server.transport.registerProducer(producer, True)
        client.transport.write(b"x")
        client.transport.abortConnection()
        self.clock.advance(0)
        self.assertEqual(self.server.data, b"")
        self.assertEqual((client.lost, self.server.lost), (error.ConnectionAborted, error.ConnectionLost))
        self.assertEqual(producer.told, ["stop"])

    def test_one_direction_can_be_closed(self) -> None:
        self.server = HalfEnd()
        client = self.connect()
        client.transport.write(b"a")
        client.transport.loseWriteConnection()
        self.clock.advance(0)
        self.assertEqual((self.server.data, self.server.ended, client.lost), (b"a", True, None))
        self.server.transport.write(b"b")
        self.server.transport.loseConnection()
        self.clock.advance(0)
        self.assertEqual((client.data, client.lost), (b"b", error.ConnectionDone))
        self.assertEqual(self.server.lost, error.ConnectionDone)

    def test_an_end_without_half_close_closes_when_the_other_closes_one_direction(self) -> None:
        client = self.connect()
        client.transport.loseWriteConnection()
        self.clock.advance(0)
        self.assertEqual((client.lost, self.server.lost), (error.ConnectionDone, error.ConnectionDone))

    def test_the_factory_is_started_and_stopped(self) -> None:
        factory = Factory.forProtocol(End)
        connecting = self.endpoint.connect(factory)
        self.clock.advance(0)
        self.assertEqual(factory.numPorts, 1)
        client: Any = self.successResultOf(connecting)
        client.transport.loseConnection()
        self.clock.advance(0)
        self.assertEqual(factory.numPorts, 0)
