"""The metrics, as a scrape shows them."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from tests.router_case import RouterCase
from txserf import Serf, UserEvent
from txserf.embedded import rpc
from txserf.handlers.running import RouterService
from txserf.service.live import Live
from txserf.service.metrics import ROWS, Metrics


class MetricsCase(RouterCase):
    def setUp(self) -> None:
        super().setUp()
        self.metrics = Metrics(self.serf)

    def observed(self, **options: Any) -> RouterService:
        service = self.bind(observer=self.metrics, **options)
        self.metrics.service = service
        return service

    def live(self) -> Live:
        """Return the live cluster of these metrics, started."""
        live = self.metrics.live = Live(self.serf)
        live.startService()
        self.addCleanup(self.turn, 0.5)
        self.addCleanup(live.stopService)
        return live

    def scrape(self, accept: str = "") -> str:
        return self.metrics.exposition(accept)[0].decode()

    def value(self, sample: str) -> float:
        """Return the value of a sample, named as in the exposition: ``name{label="value"}``."""
        for line in self.scrape().splitlines():
            if line.startswith(f"{sample} "):
                return float(line.rpartition(" ")[2])
        raise AssertionError(f"{sample} is not in:\n{self.scrape()}")


class FormatTests(MetricsCase):
    def test_what_no_format_is_asked_for_by_gets_the_default_one(self) -> None:
        default = self.metrics.exposition("")
        for type in ("text/plain", "application/openmetrics-text"):
            for version in ("a.b.c", "\xff", "\xb2", "9" * 5000):
                accept = f"{type}; version={version}; escaping=\xff"
                self.assertEqual(self.metrics.exposition(accept), default, accept)

    def test_open_metrics_may_be_asked_for(self) -> None:
        body, content_type = self.metrics.exposition("application/openmetrics-text; version=1.0.0")
        self.assertIn("application/openmetrics-text", content_type)
        self.assertTrue(body.endswith(b"# EOF\n"))


class ConnectionTests(MetricsCase):
    def test_it_tells_whether_there_is_a_connection(self) -> None:
        self.turn(0.5)
        self.assertEqual(self.value("txserf_connected"), 1)
        self.cluster.agents["n1"].drop_connections()
        self.cluster.fail("n1")
        self.turn(0.2)
        self.assertEqual(self.value("txserf_connected"), 0)

    def test_another_host_than_before_is_a_failover_and_the_same_one_is_none(self) -> None:
        serf = Serf(self.cluster.endpoints(), reactor=self.clock)
        self.addCleanup(serf.close)
        self.metrics = Metrics(serf)
        serf.startService()
        self.turn(0.5)
        self.assertEqual(
            (self.value("txserf_connections_total"), self.value("txserf_failovers_total")), (1, 0)
        )
        self.cluster.agents["n1"].drop_connections()
        self.turn(0.5)
        self.assertEqual(
            (self.value("txserf_connections_total"), self.value("txserf_failovers_total")), (2, 1)
        )
        self.cluster.fail("n1")
        self.cluster.agents["n2"].drop_connections()
        self.turn(5.0)
        self.assertEqual(
            (self.value("txserf_connections_total"), self.value("txserf_failovers_total")), (3, 1)
        )


class HandlerTests(MetricsCase):
    def test_events_are_counted_by_type_and_never_by_name(self) -> None:
        self.router.any(self.got.append)
        self.observed()
        self.send("secret-name", "b")
        self.ask("load-name")
        self.assertEqual(self.value('txserf_events_total{type="user"}'), 2)
        self.assertEqual(self.value('txserf_events_total{type="query"}'), 1)
        self.assertNotIn("-name", self.scrape())

    def test_an_event_with_two_handlers_is_one_event(self) -> None:
        self.router.any(self.got.append)
        self.router.any(self.got.append)
        self.observed()
        self.send("a")
        self.assertEqual(self.value('txserf_events_total{type="user"}'), 1)

    def test_handlers_are_timed_and_their_failures_counted(self) -> None:
        @self.router.user_event()
        def works(event: UserEvent) -> Deferred[None]:
            return deferLater(self.clock, 0.3)

        @self.router.user_event()
        def fails(event: UserEvent) -> None:
            raise ValueError

        self.observed()
        self.send("a")
        self.turn(0.5)
        self.flushLoggedErrors(ValueError)
        works_label = f'handler="{works.__module__}.{works.__qualname__}"'
        fails_label = f'handler="{fails.__module__}.{fails.__qualname__}"'
        self.assertEqual(self.value(f'txserf_handler_results_total{{{works_label},result="ok"}}'), 1)
        self.assertEqual(self.value(f'txserf_handler_results_total{{{fails_label},result="failed"}}'), 1)
        self.assertAlmostEqual(self.value(f"txserf_handler_seconds_sum{{{works_label}}}"), 0.3, delta=0.03)
        self.assertEqual(self.value(f'txserf_handler_seconds_bucket{{{works_label},le="0.25"}}'), 0)
        self.assertEqual(self.value(f'txserf_handler_seconds_bucket{{{works_label},le="0.5"}}'), 1)

    def test_a_handler_past_its_limit_is_a_timeout(self) -> None:
        @self.router.user_event()
        def hangs(event: UserEvent) -> Deferred[None]:
            return Deferred()

        self.observed(timeout=0.2)
        self.send("a")
        self.assertRegex(self.scrape(), r'results_total\{handler="[^"]*hangs",result="timeout"\} 1.0')

    def test_the_queue_is_as_deep_as_it_is_when_it_is_scraped(self) -> None:
        going: list[Deferred[None]] = []

        @self.router.user_event()
        def slow(event: UserEvent) -> Deferred[None]:
            going.append(Deferred())
            return going[-1]

        self.observed(buffer=2)
        self.send("a", "b", "c", "d")
        self.assertEqual((self.value("txserf_working"), self.value("txserf_queued")), (1, 2))
        self.assertEqual(self.value("txserf_dropped_total"), 1)
        going[0].callback(None)
        self.assertEqual((self.value("txserf_working"), self.value("txserf_queued")), (1, 1))

    def test_records_that_can_not_be_read_are_counted(self) -> None:
        self.router.any(self.got.append)
        self.observed()
        self.patch(rpc.Conversation, "event_record", lambda conversation, event: {"Event": "member-promoted"})
        self.send("a", "b")
        self.assertEqual(self.value("txserf_unreadable_total"), 2)

    def test_a_stream_that_came_back_is_a_gap(self) -> None:
        self.router.any(self.got.append)
        self.observed()
        self.assertEqual(self.value("txserf_gaps_total"), 0)
        self.cluster.agents["n1"].drop_connections()
        self.turn(1.0)
        self.assertEqual(self.value("txserf_gaps_total"), 1)

    def test_duplicates_are_counted_by_type(self) -> None:
        self.router.any(self.got.append)
        service = self.observed()
        self.send("a")
        service._take(self.got[0])
        self.turn(0.1)
        self.assertEqual(self.value('txserf_duplicates_total{type="user"}'), 1)
        self.assertEqual(len(self.got), 1)


class ClusterTests(MetricsCase):
    def test_members_are_counted_by_status(self) -> None:
        self.live()
        self.assertNotIn("serf_members{", self.scrape())  # none is known yet
        self.turn(0.5)
        alive = len(self.cluster.agents)
        self.assertEqual(self.value('serf_members{status="alive"}'), alive)
        self.assertEqual(self.value('serf_members{status="failed"}'), 0)
        self.cluster.fail("n2")
        self.turn(10.0)
        self.assertEqual(self.value('serf_members{status="alive"}'), alive - 1)
        self.assertEqual(self.value('serf_members{status="failed"}'), 1)

    def test_a_status_that_nobody_knows_is_another_one(self) -> None:
        live = self.live()
        self.turn(0.5)
        self.patch(live, "by_status", lambda: Counter({"alive": 1, "evil": 2, "odd": 3}))
        self.assertEqual(self.value('serf_members{status="other"}'), 5)
        self.assertNotIn("evil", self.scrape())

    def test_events_of_the_agent_are_counted_by_type(self) -> None:
        self.live()
        self.turn(0.5)
        self.assertEqual(self.value('serf_events_total{type="user"}'), 0)
        self.send("secret-name", "b")
        self.assertEqual(self.value('serf_events_total{type="user"}'), 2)
        self.assertEqual(self.value('serf_events_total{type="member-reap"}'), 0)
        self.assertNotIn("-name", self.scrape())

    def test_the_agent_is_up_while_it_tells_of_events(self) -> None:
        self.live()
        self.assertEqual(self.value("serf_agent_up"), 0)
        self.turn(0.5)
        self.assertEqual(self.value("serf_agent_up"), 1)
        self.cluster.agents["n1"].drop_connections()
        self.cluster.fail("n1")
        self.turn(0.2)
        self.assertEqual(self.value("serf_agent_up"), 0)


class ExpositionTests(MetricsCase):
    def test_every_row_and_nothing_else_is_exposed(self) -> None:
        self.router.any(self.got.append)
        self.metrics.live = self.live()
        service = self.observed()
        self.send("a")
        service._take(self.got[0])
        self.turn(0.5)
        told = dict(re.findall(r"^# TYPE (\S+) (\S+)$", self.scrape(), re.MULTILINE))
        told = {name: kind for name, kind in told.items() if not name.endswith("_created")}
        self.assertEqual(told, {row.name: row.kind.value for row in ROWS})
        for row in ROWS:
            self.assertIn(f"# HELP {row.name} {row.help}\n", self.scrape())

    def test_the_dashboard_asks_for_metrics_that_there_are(self) -> None:
        text = (Path(__file__).parents[2] / "examples" / "prometheus" / "dashboard.json").read_text()
        named = {name.removesuffix("_bucket") for name in re.findall(r"\b(?:tx)?serf_[a-z_]+", text)}
        self.assertEqual(named - {row.name for row in ROWS}, set())
        self.assertGreater(len(named), 8)

    def test_two_services_of_a_process_share_nothing(self) -> None:
        other = Metrics(self.serf)
        self.metrics.arrived("user")
        self.assertNotIn(b'type="user"', other.exposition("")[0])

    def test_a_scraper_gets_the_format_that_it_asks_for(self) -> None:
        self.assertIn("text/plain", self.metrics.exposition("")[1])
        body, content_type = self.metrics.exposition("application/openmetrics-text; version=1.0.0")
        self.assertIn("application/openmetrics-text", content_type)
        self.assertTrue(body.endswith(b"# EOF\n"))

    def test_neither_txserf_nor_its_service_imports_the_client_library_unasked(self) -> None:
        check = "import sys, txserf, txserf.service; sys.exit('prometheus_client' in sys.modules)"
        root = Path(__file__).parents[2]
        subprocess.run([sys.executable, "-c", check], check=True, cwd=root)
