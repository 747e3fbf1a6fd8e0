"""The endpoint of ``--http``, and the service that listens there."""

from __future__ import annotations

from unittest import mock

from twisted.internet import error
from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IListeningPort, IProtocolFactory, IStreamServerEndpoint
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from txserf.serf.serf import Serf
from txserf.service.live import Live
from txserf.service.settings import ConfigError
from txserf.service.web import WebService, parse_endpoint
from txserf.service.website import Site


class EndpointTests(SynchronousTestCase):
    def test_a_number_is_a_port_of_127_0_0_1(self) -> None:
        reactor = MemoryReactorClock()
        parse_endpoint(reactor, "9100").listen(None)  # type: ignore[arg-type]  # nobody connects
        ((port, _, _, interface),) = reactor.tcpServers
        self.assertEqual((port, interface), (9100, "127.0.0.1"))

    def test_anything_else_is_a_server_endpoint_of_twisted(self) -> None:
        reactor = MemoryReactorClock()
        parse_endpoint(reactor, "unix:/run/txserf").listen(None)  # type: ignore[arg-type]  # nobody connects
        self.assertEqual(reactor.unixServers[0][0], "/run/txserf")

    def test_what_is_neither_is_refused_by_name(self) -> None:
        for text in ("0", "65536", "tcp", "tcp:x", "nonsense:80", "", "127.0.0.1:80", "tcp:80:interfaze=x"):
            told = str(self.assertRaises(ConfigError, parse_endpoint, MemoryReactorClock(), text))
            self.assertIn("--http: ", told)
            self.assertIn(text, told)

    def test_a_parser_that_exits_is_refused_likewise(self) -> None:
        with mock.patch("txserf.service.web.serverFromString", side_effect=SystemExit("no such thing")):
            told = str(self.assertRaises(ConfigError, parse_endpoint, MemoryReactorClock(), "odd:1"))
        self.assertEqual(told, "--http: 'odd:1' is no server endpoint: no such thing")


@implementer(IStreamServerEndpoint)
class Failing:
    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:
        return fail(error.CannotListenError("127.0.0.1", 80, OSError("in use")))


@implementer(IStreamServerEndpoint)
class Raising:
    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:
        raise SystemExit("no such thing")


class ServiceTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.failures: list[BaseException] = []
        self.reactor = MemoryReactorClock()
        self.site = Site(Live(Serf("127.0.0.1", reactor=self.reactor)), reactor=self.reactor)

    def test_it_listens_before_privileges_are_given_up_and_not_twice(self) -> None:
        service = WebService(parse_endpoint(self.reactor, "80"), self.site, self.failures.append)
        service.privilegedStartService()
        self.assertEqual(len(self.reactor.tcpServers), 1)
        service.startService()
        self.assertEqual(len(self.reactor.tcpServers), 1)
        self.successResultOf(service.stopService())

    def test_where_it_can_not_listen_it_says_so_and_tells(self) -> None:
        service = WebService(Failing(), self.site, self.failures.append)
        service.startService()
        self.assertEqual([type(failure) for failure in self.failures], [error.CannotListenError])
        self.successResultOf(service.stopService())

    def test_so_it_does_where_the_endpoint_raises(self) -> None:
        service = WebService(Raising(), self.site, self.failures.append)
        service.startService()
        self.assertEqual([type(failure) for failure in self.failures], [SystemExit])
        self.successResultOf(service.stopService())
