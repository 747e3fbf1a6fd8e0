"""
The metrics of ``twistd txserf``, for Prometheus.

This module needs ``prometheus_client``, which the extra ``txserf[metrics]`` brings. No label has
a text that comes from the network.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable

import attrs
from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from txserf.handlers.running import RouterService
from txserf.handlers.work import Observer, Outcome
from txserf.model import MemberStatus
from txserf.serf.serf import Serf
from txserf.service.live import Live


class MetricKind(enum.Enum):
    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@attrs.frozen
class Row:
    """A metric: its name as it is scraped, its kind, its help text and the names of its labels."""

    name: str
    kind: MetricKind
    help: str
    labels: tuple[str, ...] = ()


CONNECTED = Row("txserf_connected", MetricKind.GAUGE, "Whether there is a connection to an agent.")
CONNECTIONS = Row("txserf_connections_total", MetricKind.COUNTER, "Connections that were made.")
FAILOVERS = Row(
    "txserf_failovers_total",
    MetricKind.COUNTER,
    "Connections that were made to another host than the one before.",
)
GAPS = Row(
    "txserf_gaps_total",
    MetricKind.COUNTER,
    "Times that the events' stream was down, whether or not it came back.",
)
EVENTS = Row("txserf_events_total", MetricKind.COUNTER, "Events that handlers were run for.", ("type",))
DUPLICATES = Row(
    "txserf_duplicates_total",
    MetricKind.COUNTER,
    "Events that came again, and were not handled again.",
    ("type",),
)
DROPPED = Row(
    "txserf_dropped_total",
    MetricKind.COUNTER,
    "Events that were lost to a full queue, or to the end of the service.",
)
UNREADABLE = Row(
    "txserf_unreadable_total",
    MetricKind.COUNTER,
    "Records of the events' stream that could not be read, and were left out.",
)
QUEUED = Row("txserf_queued", MetricKind.GAUGE, "Events that wait for their handlers.")
WORKING = Row("txserf_working", MetricKind.GAUGE, "Events whose handlers are at work.")
SECONDS = Row("txserf_handler_seconds", MetricKind.HISTOGRAM, "How long handlers took.", ("handler",))
RESULTS = Row(
    "txserf_handler_results_total",
    MetricKind.COUNTER,
    "How handlers ended: ok, failed, timeout or cancelled.",
    ("handler", "result"),
)
AGENT_UP = Row("serf_agent_up", MetricKind.GAUGE, "Whether the agent is connected and tells of events.")
MEMBERS = Row("serf_members", MetricKind.GAUGE, "Members by status, as the agent sees them.", ("status",))
SERF_EVENTS = Row(
    "serf_events_total", MetricKind.COUNTER, "Events that the agent told of, by type.", ("type",)
)

ROWS = (
    AGENT_UP, MEMBERS, SERF_EVENTS,
    CONNECTED, CONNECTIONS, FAILOVERS, GAPS, EVENTS, DUPLICATES, DROPPED, UNREADABLE, QUEUED, WORKING, SECONDS, RESULTS,
)  # fmt: skip


def _counter(row: Row, registry: CollectorRegistry) -> Counter:
    return Counter(row.name, row.help, row.labels, registry=registry)


class Metrics(Observer, Collector):
    """
    The metrics of one service, in a registry of their own.

    It counts events as an `Observer` of a router's service. Counts that the service and the connection keep
    themselves are read at each scrape.

    :param serf: the connection.
    :ivar service: the router's service, once there is one.
    :ivar live: the cluster, once there is one.
    """

    def __init__(self, serf: Serf) -> None:
        self.live: Live | None = None
        self.service: RouterService | None = None
        self._serf = serf
        self._registry = registry = CollectorRegistry()
        self._gaps = _counter(GAPS, registry)
        self._events = _counter(EVENTS, registry)
        self._duplicates = _counter(DUPLICATES, registry)
        self._results = _counter(RESULTS, registry)
        self._seconds = Histogram(SECONDS.name, SECONDS.help, SECONDS.labels, registry=registry)
        registry.register(self)

    def exposition(self, accept: str) -> tuple[bytes, str]:
        """
        Return all metrics in the format that a scraper asks for.

        :param accept: the scraper's ``Accept`` header. If it can't be understood, the format is the default one.
        :returns: the body, and its content type.
        """
        try:
            encoder, content_type = choose_encoder(accept)
        except (ValueError, TypeError):  # for a version such as a.b, or one of 5,000 digits
            encoder, content_type = choose_encoder("")
        return encoder(self._registry), content_type

    # -- counted as it happens

    def arrived(self, type: str) -> None:
        self._events.labels(type).inc()

    def duplicate(self, type: str) -> None:
        self._duplicates.labels(type).inc()

    def resumed(self) -> None:
        self._gaps.inc()

    def ended(self, type: str, handler: str, outcome: Outcome, duration: float) -> None:
        self._seconds.labels(handler).observe(duration)
        self._results.labels(handler, outcome.value).inc()

    # -- read at each scrape

    def collect(self) -> Iterable[CounterMetricFamily | GaugeMetricFamily]:
        """Read the counts of the cluster, the service and the connection."""
        if self.live is not None:
            yield _gauge(AGENT_UP, self.live.unready is None)
            if self.live.is_read:
                yield self._members(self.live)
            events = CounterMetricFamily(SERF_EVENTS.name, SERF_EVENTS.help, labels=SERF_EVENTS.labels)
            for type, count in self.live.counts.items():
                events.add_metric([type], count)
            yield events
        factory = self._serf.factory
        yield _gauge(CONNECTED, self._serf.why_disconnected is None)
        yield _count(CONNECTIONS, factory.connections)
        yield _count(FAILOVERS, factory.failovers)
        if self.service is not None:
            yield _count(DROPPED, self.service.dropped)
            yield _count(UNREADABLE, self.service.unreadable)
            yield _gauge(QUEUED, self.service.queued)
            yield _gauge(WORKING, self.service.working)

    def _members(self, live: Live) -> GaugeMetricFamily:
        counts = live.by_status()
        members = GaugeMetricFamily(MEMBERS.name, MEMBERS.help, labels=MEMBERS.labels)
        for status in MemberStatus:
            members.add_metric([str(status)], counts.pop(str(status), 0))
        if counts:  # a newer agent may have a status that this txserf does not know
            members.add_metric(["other"], counts.total())
        return members


def _gauge(row: Row, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(row.name, row.help, value)


def _count(row: Row, value: float) -> CounterMetricFamily:
    return CounterMetricFamily(row.name, row.help, value)
