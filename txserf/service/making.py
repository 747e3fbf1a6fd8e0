"""The service that ``twistd txserf`` runs, made from its options."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from twisted.application.service import IService, MultiService, Service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IStreamServerEndpoint
from twisted.logger import ILogObserver, Logger

from txserf.errors import hides_arguments
from txserf.handlers.router import Router
from txserf.handlers.running import RouterService
from txserf.serf.serf import Serf
from txserf.service import settings
from txserf.service.ending import Interrupts
from txserf.service.follow import Follower
from txserf.service.lines import FORMATS, Format
from txserf.service.options import Options
from txserf.service.readiness import Guard
from txserf.service.reload import Reloader
from txserf.service.templates import Templates

if TYPE_CHECKING:
    from txserf.embedded import EmbeddedCluster
    from txserf.service.metrics import Metrics

_log = Logger(namespace="txserf.service")


class Parts(MultiService):
    """
    Services that are stopped one after the other, the last one first.

    :param observer: makes the log observer of the application that this becomes part of; None: that of ``twistd``.
    """

    def __init__(self, observer: Callable[[], ILogObserver] | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Twisted's own
        self._observer = observer

    def setServiceParent(self, parent: Any) -> None:
        """Become part of an application, and set its log observer."""
        super().setServiceParent(parent)  # type: ignore[no-untyped-call]  # Twisted's own
        if self._observer is not None:
            parent.setComponent(ILogObserver, self._observer())

    def add(self, part: IService) -> None:
        part.setServiceParent(self)

    def stopService(self) -> Deferred[None]:
        """Stop each service once those behind it have stopped."""
        Service.stopService(self)
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        for part in reversed(list(self)):
            try:
                await maybeDeferred(part.stopService)
            except Exception:
                _log.failure("{part} did not stop well", part=part)


@hides_arguments
def makeService(options: Options) -> IService:
    """Make the service that the options ask for."""
    values, router, failed = options.chosen, options.router, options.ending.fail
    write, format = _line_writer(options), FORMATS[values["format"]]
    cluster = None if values["embedded"] is None else _embedded_cluster(values["embedded"])
    shows_all = cluster is not None and not values["embedded-quiet"]
    serf = Serf(options.agents if cluster is None else cluster.endpoints())
    handles = values["handler"] or values["app"] or values["template"]
    follower = None
    if shows_all or not handles or values["stream"] is not None or values["monitor"] is not None:
        stream = "*" if values["stream"] is None and (shows_all or not handles) else values["stream"]
        monitor = values["monitor"] or ("INFO" if shows_all else None)
        follower = Follower(serf, write, format, stream=stream or None, monitor=monitor, failed=failed)
    parts = Parts(_json_log(options.parent) if values["log-format"] == "json" else None)
    interrupts = Interrupts()
    parts.add(interrupts)
    if cluster is not None:
        parts.add(_demo(values, cluster, follower if shows_all else None, write, format, failed))
    parts.add(serf)
    metrics = None if options.http is None else _metrics(serf)
    guard = Guard(failed)
    handling = None if router is None else _handling(values, router, serf, guard, metrics)
    if options.http is not None:
        served = [part for part in (handling, follower) if part is not None]
        parts.add(_web(options.http, served, metrics, failed))
    if handling is not None:
        interrupts.abandon = handling.abandon
        parts.add(handling)
        parts.add(guard)
        files = None
        if values["template"] or values["config"]:
            files = Templates(serf, values["template"])
            parts.add(files)
        read = partial(options.read, again=True)
        parts.add(Reloader(handling, values, read, agents=lambda: options.agents, templates=files))
    if follower is not None:
        parts.add(follower)
    result: IService = parts
    return result


def _json_log(twistd: Any) -> Callable[[], ILogObserver]:
    from txserf.service import jsonlog

    return partial(jsonlog.observer, twistd)


def _handling(
    values: settings.Values, router: Router, serf: Serf, guard: Guard, metrics: Metrics | None
) -> RouterService:
    service = router.bind(
        serf,
        concurrency=values["concurrency"],
        timeout=values["handler-timeout"] or None,
        drain=values["drain-timeout"],
        state=values["state"],
        observer=guard,
    )
    guard.handling = service
    if metrics is not None:
        service.observers.append(metrics)
        metrics.service = service
    return service


def _metrics(serf: Serf) -> Metrics | None:
    try:
        from txserf.service.metrics import Metrics
    except ImportError:  # /metrics says so then
        return None
    return Metrics(serf)


def _web(
    endpoint: IStreamServerEndpoint,
    parts: list[RouterService | Follower],
    metrics: Metrics | None,
    failed: Callable[[BaseException], object],
) -> IService:
    from txserf.service import web

    def unready() -> str | None:
        return next((part.unready for part in parts if part.unready is not None), None)

    service: IService = web.WebService(endpoint, web.Site(unready, metrics), failed)
    return service


def _demo(
    values: settings.Values,
    cluster: EmbeddedCluster,
    follower: Follower | None,
    write: Callable[[str], object],
    format: Format,
    failed: Callable[[BaseException], object],
) -> IService:
    from txserf.service.demo import Demo

    port = values["embedded-port"]
    demo: IService = Demo(cluster, port=port, follower=follower, write=write, format=format, failed=failed)
    return demo


def _embedded_cluster(nodes: int) -> EmbeddedCluster:
    from txserf.embedded import EmbeddedCluster  # here, for only --embedded needs it

    return EmbeddedCluster(nodes=nodes)


def _line_writer(options: Options) -> Callable[[str], object]:
    twistd: Any = options.parent or {}
    if not twistd.get("nodaemon"):
        # The field's name begins with log_, so that a JSON log does not repeat the text.
        return lambda line: _log.info("{log_line}", log_line=line)
    if not twistd.get("logfile"):
        # twistd would log to standard output, between the lines that are written there.
        sys.stdout = sys.stderr
    output = sys.__stdout__
    assert output is not None
    # A name in a stranger's event may have letters that the output's encoding does not have: these are written as
    # escapes. An error handler that PYTHONIOENCODING asks for is left alone.
    if isinstance(output, io.TextIOWrapper) and output.errors in ("strict", "surrogateescape"):
        output.reconfigure(errors="backslashreplace")

    def write(line: str) -> None:
        output.write(line + "\n")
        output.flush()

    return write
