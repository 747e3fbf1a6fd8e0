"""``/health``, ``/state`` and ``/metrics``, requested in memory."""

from __future__ import annotations

from typing import Any

from tests.service.web_case import WebCase
from txserf.service.website import Site


class FakeMetrics:
    def exposition(self, accept: str) -> tuple[bytes, str]:
        return f"metrics as {accept}".encode(), "text/x-metrics"


class StateCase(WebCase):
    reason: str | None = None

    def make_site(self, **options: Any) -> Site:
        return super().make_site(unready=lambda: self.reason, metrics=FakeMetrics())


class HealthTests(StateCase):
    def test_it_is_200_with_the_agent_while_all_is_well(self) -> None:
        got = self.get("/health")
        self.assertEqual((got.status, got.headers["content-type"]), (200, "application/json"))
        health = got.json
        self.assertEqual(
            (health["healthy"], health["agent"], health["reason"]), (True, "<MemoryEndpoint n1>", None)
        )
        self.assertRegex(health["since"], r"^1970-01-01T00:00:00\.[0-9]{3}\+00:00$")

    def test_it_is_503_with_the_reason_while_the_agent_is_away_and_since_it_was_last_heard(self) -> None:
        self.run_for(60.0)
        self.nodes.fail("n1")
        self.nodes.fail("n2")
        self.run_for(10.0)
        got = self.get("/health")
        self.assertEqual((got.status, got.json["healthy"], got.json["agent"]), (503, False, None))
        self.assertIn("not connected", got.json["reason"])
        self.assertIn("T00:01:00", got.json["since"])
        self.nodes.recover("n1")
        self.run_for(60.0)
        got = self.get("/health")
        self.assertEqual(got.status, 200)
        self.assertRegex(got.json["since"], "T00:0[12]:")
        self.assertGreater(got.json["since"], "1970-01-01T00:01:10")

    def test_it_is_503_while_handlers_may_miss_events(self) -> None:
        self.reason = "no stream: é"
        got = self.get("/health")
        self.assertEqual((got.status, got.json["reason"]), (503, "no stream: é"))


class StateTests(StateCase):
    def test_it_has_the_numbers_of_the_connection_the_view_and_the_readers(self) -> None:
        self.follow()
        done = self.serf.event("deploy", coalesce=False)
        self.run_for(0.5)
        self.successResultOf(done)
        self.nodes.agents["n1"].drop_connections()
        self.run_for(2.0)
        state = self.get("/state").json
        expected = {
            "healthy": True,
            "agents": ["<MemoryEndpoint n1>", "<MemoryEndpoint n2>"],
            "agent": "<MemoryEndpoint n2>",
            "connections": 2,
            "failovers": 1,
            "gaps": 1,
            "dropped": 0,
            "unreadable": 0,
            "stale": False,
            "repairs": 0,
            "members": {"alive": 3},
            "readers": 1,
            "cut_off": 0,
        }
        self.assertEqual({name: state[name] for name in expected}, expected)
        self.assertEqual(state["events"]["user"], 1)
        self.assertEqual(state["started"], "1970-01-01T00:00:00.000+00:00")

    def test_before_the_start_it_says_so(self) -> None:
        self.live.stopService()
        self.run_for(0.5)
        got = self.get("/health")
        self.assertEqual((got.status, got.json["reason"]), (503, "not running"))


class MetricsTests(StateCase):
    def test_they_are_in_the_format_that_was_asked_for(self) -> None:
        got = self.get("/metrics", Accept="x/y")
        self.assertEqual(
            (got.status, got.headers["content-type"], got.body), (200, "text/x-metrics", "metrics as x/y")
        )

    def test_a_header_may_have_any_bytes(self) -> None:
        for header in ("Accept", "Cookie", "Content-Type", "If-None-Match"):
            for path in ("/metrics", "/health", "/members"):
                self.assertEqual(self.get(path, **{header: "x; version=\xff"}).status, 200, (header, path))
        self.assertEqual(self.get("/metrics", Accept="x/\xff").body, "metrics as x/\xff")


class NoMetricsTests(WebCase):
    def test_without_metrics_the_extra_is_named(self) -> None:
        got = self.get("/metrics")
        self.assertEqual(got.status, 501)
        self.assertIn("txserf[metrics]", got.json["error"])
        self.assertEqual(self.get("/health").status, 200)
