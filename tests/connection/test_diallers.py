"""Attempts to connect, and the two ways of making them."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from tests.fakes import Connector, Endpoint, RaisingEndpoint
from txserf.connection.diallers import Attempt, ConnectorDialler, HostDialler, Listener, Sockets
from txserf.connection.exchange import Exchange
from txserf.connection.hosts import Host
from txserf.connection.protocol import SerfProtocol
from txserf.errors import SerfError


class AttemptCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.sockets = Sockets()
        self.heard: list[str] = []

    def attempt(self, endpoint: object) -> Attempt:
        def closed(attempt: Attempt, reason: SerfError, unanswered: list[Exchange]) -> None:
            self.heard.append("closed")

        listener = Listener(
            lambda attempt: self.heard.append("opened"),
            closed,
            lambda attempt, reason: self.heard.append(f"failed: {type(reason).__name__}"),
        )
        host = Host(endpoint=endpoint)  # type: ignore[arg-type]  # some of them have mistakes
        return Attempt(host, 0, "the host", listener, self.sockets)

    def make(self, attempt: Attempt) -> SerfProtocol:
        return SerfProtocol(host=attempt.label, reactor=self.clock, heartbeat=None, owner=attempt)


@implementer(IStreamClientEndpoint)
class ExitingEndpoint:
    """An endpoint that calls ``sys.exit()``."""

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        raise SystemExit(3)


@implementer(IStreamClientEndpoint)
class ForgetfulEndpoint:
    """An endpoint that returns no Deferred."""

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        return None  # type: ignore[return-value]  # the mistake


class HostDiallerTests(AttemptCase):
    def setUp(self) -> None:
        super().setUp()
        self.endpoint = Endpoint()
        self.dialler = HostDialler(self.make, lambda: self.clock, lambda: self.clock, lambda: 3.0)

    def dial(self, endpoint: object) -> tuple[Attempt, BaseException | None]:
        attempt = self.attempt(endpoint)
        return attempt, self.dialler.dial(attempt)

    def test_a_failure_at_once_is_returned_and_told_to_nobody(self) -> None:
        for endpoint in (Endpoint(OSError("no")), RaisingEndpoint(), ExitingEndpoint(), ForgetfulEndpoint()):
            _, reason = self.dial(endpoint)
            self.assertIsNotNone(reason)
        self.assertEqual((self.heard, self.clock.getDelayedCalls()), ([], []))

    def test_a_later_failure_is_told(self) -> None:
        _, reason = self.dial(self.endpoint)
        self.endpoint.refuse()
        self.assertEqual((reason, self.heard), (None, ["failed: ConnectionRefusedError"]))

    def test_an_endpoint_that_takes_too_long_is_cancelled_and_that_is_told(self) -> None:
        self.dial(self.endpoint)
        self.clock.advance(3.0)
        self.assertEqual((self.heard, self.endpoint.cancelled), (["failed: TimeoutError"], 1))

    def test_a_connection_is_told_of_as_it_opens_and_as_it_is_closed(self) -> None:
        self.dial(self.endpoint)
        self.endpoint.accept_and_greet().lose()
        self.assertEqual(self.heard, ["opened", "closed"])

    def test_one_that_is_cancelled_as_it_is_dialled_ends_unheard(self) -> None:
        attempt, _ = self.dial(self.endpoint)
        attempt.cancel()
        self.assertEqual((self.heard, self.endpoint.cancelled), ([], 1))

    def test_one_that_is_cancelled_with_a_transport_is_told_of_its_end(self) -> None:
        attempt, _ = self.dial(self.endpoint)
        agent = self.endpoint.accept()
        attempt.cancel()
        self.assertEqual(self.heard, [])
        agent.finish_closing()
        self.assertEqual(self.heard, ["closed"])

    def test_one_that_connects_though_it_was_cancelled_is_closed_unheard(self) -> None:
        attempt, _ = self.dial(self.endpoint)
        connect = self.endpoint.prepare_late()
        attempt.cancel()
        agent = connect()
        closed = self.sockets.close()
        self.assertNoResult(closed)
        agent.finish_closing()
        self.successResultOf(closed)
        self.assertEqual(self.heard, [])


class ConnectorDiallerTests(AttemptCase):
    def setUp(self) -> None:
        super().setUp()
        self.connector = Connector("10.0.0.9", 7400, self, self.clock)
        self.dialler = ConnectorDialler(self.connector, self.make)

    # The connector's factory, as far as it is needed

    def doStart(self) -> None:
        pass

    def doStop(self) -> None:
        pass

    def startedConnecting(self, connector: Connector) -> None:
        self.dialler.started("10.0.0.9:7400", lambda: None)

    def buildProtocol(self, address: object) -> SerfProtocol | None:
        return self.dialler.connected()

    def clientConnectionFailed(self, connector: Connector, reason: object) -> None:
        self.dialler.ended(OSError("refused"))

    def clientConnectionLost(self, connector: Connector, reason: object) -> None:
        self.dialler.ended(ConnectionDone())

    def dial(self) -> Attempt:
        attempt = self.attempt(Endpoint())
        self.assertIsNone(self.dialler.dial(attempt))
        return attempt

    def test_the_connector_is_told_to_dial_and_its_failure_is_told(self) -> None:
        self.dial()
        self.connector.refuse()
        self.assertEqual((self.connector.attempts, self.heard), (1, ["failed: OSError"]))

    def test_the_attempt_is_called_by_the_connectors_address(self) -> None:
        attempt = self.dial()
        self.connector.accept()
        assert attempt.protocol is not None
        self.assertEqual(attempt.protocol.host, "10.0.0.9:7400")

    def test_the_next_attempt_waits_until_the_connector_is_free(self) -> None:
        self.dial()
        agent = self.connector.accept()
        agent.greet()
        self.dial()
        self.assertEqual(self.connector.attempts, 1)
        agent.lose()
        self.assertEqual(self.connector.attempts, 2)

    def test_one_that_is_cancelled_as_it_waits_is_not_dialled(self) -> None:
        self.dial()
        agent = self.connector.accept()
        self.dial().cancel()
        agent.lose()
        self.assertEqual((self.connector.attempts, self.heard), (1, ["closed"]))

    def test_one_that_is_cancelled_as_it_is_dialled_stops_the_connector_unheard(self) -> None:
        self.dial().cancel()
        self.assertEqual((self.connector.state, self.heard), ("disconnected", []))

    def test_one_that_is_cancelled_where_the_program_has_stopped_the_connector_ends_too(self) -> None:
        attempt = self.dial()
        self.patch(self.connector, "state", "disconnected")
        attempt.cancel()
        self.assertEqual(self.heard, [])

    def test_a_transport_that_nobody_has_asked_for_gets_no_connection(self) -> None:
        self.assertIsNone(self.dialler.connected())
        self.dial()
        self.connector.accept()
        self.assertIsNone(self.dialler.connected())


class SocketsTests(AttemptCase):
    def test_without_any_they_are_closed_at_once(self) -> None:
        self.assertEqual(self.successResultOf(self.sockets.close()), None)
