"""``/health`` and ``/metrics``, requested in memory."""

from __future__ import annotations

from unittest import mock

from twisted.internet import error
from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IListeningPort, IProtocolFactory, IStreamServerEndpoint
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from tests.fakes import Log
from txserf.service.settings import ConfigError
from txserf.service.web import Site, WebService, parse_endpoint


class FakeMetrics:
    def exposition(self, accept: str) -> tuple[bytes, str]:
        return f"metrics as {accept}".encode(), "text/x-metrics"


class SiteTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.reason: str | None = None
        self.metrics: FakeMetrics | None = FakeMetrics()

    def ask(self, path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], str]:
        """Request a page, and return its status, headers and body."""
        site = Site(lambda: self.reason, self.metrics, Clock())
        protocol = site.buildProtocol(None)
        transport = StringTransport()
        protocol.makeConnection(transport)
        lines = [
            f"{method} {path} HTTP/1.0",
            *(f"{name}: {value}" for name, value in headers.items()),
            "",
            "",
        ]
        protocol.dataReceived("\r\n".join(lines).encode("latin-1"))
        head, _, body = transport.value().decode().partition("\r\n\r\n")
        status, *rest = head.split("\r\n")
        return int(status.split()[1]), dict(line.lower().split(": ", 1) for line in rest), body

    def test_health_is_200_while_all_is_well(self) -> None:
        status, headers, body = self.ask("/health")
        self.assertEqual((status, body), (200, "ok\n"))
        self.assertEqual(headers["content-type"], "text/plain; charset=utf-8")

    def test_health_is_503_with_the_reason_else(self) -> None:
        self.reason = "not connected: é"
        status, _, body = self.ask("/health")
        self.assertEqual((status, body), (503, "not connected: é\n"))

    def test_health_is_asked_anew_each_time(self) -> None:
        self.assertEqual(self.ask("/health")[0], 200)
        self.reason = "gone"
        self.assertEqual(self.ask("/health")[0], 503)

    def test_metrics_are_in_the_format_that_was_asked_for(self) -> None:
        status, headers, body = self.ask("/metrics", Accept="x/y")
        self.assertEqual((status, headers["content-type"], body), (200, "text/x-metrics", "metrics as x/y"))

    def test_a_header_may_have_any_bytes(self) -> None:
        for header in ("Accept", "Host", "Cookie", "Content-Type"):
            for path in ("/metrics", "/health"):
                self.assertEqual(
                    self.ask(path, **{header: "text/plain; version=\xff"})[0], 200, (header, path)
                )
        _, _, body = self.ask("/metrics", Accept="x/\xff")
        self.assertEqual(body, "metrics as x/\xff")
        self.assertEqual(self.ask("/metrics", **{"\xff": "x"})[0], 400)  # of its name only Twisted decides

    def test_without_metrics_the_extra_is_named(self) -> None:
        self.metrics = None
        status, _, body = self.ask("/metrics")
        self.assertEqual(status, 501)
        self.assertIn("txserf[metrics]", body)
        self.assertEqual(self.ask("/health")[0], 200)

    def test_other_pages_are_not_there_and_those_that_are_get_named(self) -> None:
        for path in ("/", "/x", "/health/x"):
            status, headers, body = self.ask(path)
            self.assertEqual((status, headers["content-type"]), (404, "text/plain; charset=utf-8"))
            self.assertIn("/health", body)

    def test_only_get_and_head_are_allowed(self) -> None:
        log = Log(self)
        status, headers, body = self.ask("/health", "HEAD")
        self.assertEqual((status, headers["content-length"], body), (200, "3", ""))
        status, _, body = self.ask("/nowhere", "HEAD")
        self.assertEqual((status, body), (404, ""))
        self.assertEqual(log.texts, [])  # Twisted would warn about a body for HEAD
        self.assertEqual(self.ask("/health", "POST")[0], 405)


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
        self.site = Site(lambda: None, None, self.reactor)

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
