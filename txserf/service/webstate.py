"""``/health``, ``/state`` and ``/metrics``: how txserf itself stands."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Protocol

from twisted.web import http
from twisted.web.server import Request

from txserf.service.answers import Refusal, WebReply, parameters
from txserf.service.live import Live, utc

_NO_METRICS = "there are no metrics without prometheus_client, which the extra txserf[metrics] brings"


class Exposed(Protocol):
    """Has metrics to show."""

    def exposition(self, accept: str) -> tuple[bytes, str]:
        """Return the metrics and their content type, for an ``Accept`` header."""


class StatePages:
    """
    Answers with the state of the connection and of the service.

    :param live: the live view and its stream.
    :param unready: returns the reason why handlers or the lines that are shown may miss events now; None if there is none.
    :param metrics: the metrics; None for none.
    :param more: returns further fields for ``/state``.
    """

    def __init__(
        self,
        live: Live,
        unready: Callable[[], str | None],
        metrics: Exposed | None,
        more: Callable[[], dict[str, Any]],
    ) -> None:
        self._live = live
        self._unready = unready
        self._metrics = metrics
        self._more = more

    def health(self, request: Request) -> WebReply:
        """Answer whether events may be missed now, and why."""
        parameters(request, ())
        found = self._health()
        return WebReply.of(found, http.OK if found["healthy"] else http.SERVICE_UNAVAILABLE)

    def state(self, request: Request) -> WebReply:
        """Answer with all numbers that txserf has of itself."""
        parameters(request, ())
        live = self._live
        factory = live.serf.factory
        return WebReply.of(
            {
                **self._health(),
                "agents": [host.label for host in factory.hosts],
                "txserf": _version(),
                "started": utc(live.started_at),
                "connections": factory.connections,
                "failovers": factory.failovers,
                "gaps": live.gaps,
                "dropped": live.dropped,
                "unreadable": live.unreadable,
                "stale": live.view.stale,
                "repairs": live.view.repairs,
                "members": live.by_status(),
                "events": live.counts,
                **self._more(),
            }
        )

    def metrics(self, request: Request) -> WebReply:
        """Answer with the metrics for Prometheus."""
        if self._metrics is None:
            raise Refusal(http.NOT_IMPLEMENTED, _NO_METRICS)
        # A header may have any bytes. Twisted decodes it as UTF-8, and fails, only if it is asked for by a str.
        accept: bytes = request.getHeader(b"accept") or b""
        body, content_type = self._metrics.exposition(accept.decode("latin-1"))
        return WebReply(body, content_type)

    def _health(self) -> dict[str, Any]:
        reason = self._unready() or self._live.unready
        return {
            "healthy": reason is None,
            "agent": self._live.agent,
            "since": utc(self._live.since),
            "reason": reason,
        }


def _version() -> str | None:
    try:
        return version("txserf")
    except PackageNotFoundError:  # it runs from its source
        return None
