"""The service that ``twistd txserf`` runs, made from its options."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twisted.application.service import IService, MultiService, Service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import (
    FilteringLogObserver,
    ILogObserver,
    Logger,
    LogLevel,
    LogLevelFilterPredicate,
    textFileLogObserver,
)

from txserf.errors import hides_arguments
from txserf.handlers.router import Router
from txserf.handlers.running import RouterService
from txserf.serf.serf import Serf
from txserf.service import settings
from txserf.service.ending import Interrupts
from txserf.service.follow import Follower
from txserf.service.lines import Format, line_format
from txserf.service.locking import StateLock
from txserf.service.options import Options
from txserf.service.readiness import Guard
from txserf.service.reload import Reloader
from txserf.service.templates import Templates
from txserf.service.terminal import Look, is_terminal

if TYPE_CHECKING:
    from txserf.embedded import EmbeddedCluster
    from txserf.service.live import Live
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
    cluster = None if values["embedded"] is None else _embedded_cluster(values["embedded"])
    shows_all = cluster is not None and not values["embedded-quiet"]
    serf = Serf(options.agents if cluster is None else cluster.endpoints())
    write, format = _output(options, serf)
    handles = values["handler"] or values["app"] or values["template"]
    live = None if options.http is None else _live(serf)
    follower = None
    if shows_all or not handles or values["stream"] is not None or values["monitor"] is not None:
        stream = "*" if values["stream"] is None and (shows_all or not handles) else values["stream"]
        follower = Follower(
            serf, write, format, stream=stream or None, monitor=values["monitor"], live=live, failed=failed
        )
    _say_where_it_goes(options)
    parts = Parts(_log_observer(options, shows_all))
    interrupts = Interrupts()
    parts.add(interrupts)
    if cluster is not None:
        parts.add(_demo(values, cluster, follower if shows_all else None, write, format, failed))
    parts.add(serf)
    metrics = None if live is None else _metrics(live)
    guard = Guard(failed)
    handling = None if router is None else _handling(values, router, serf, guard, metrics)
    if live is not None:
        served = [part for part in (handling, follower) if part is not None]
        parts.add(live)
        parts.add(_web(options, live, served, metrics, failed))
    if handling is not None:
        interrupts.abandon = handling.abandon
        if values["state"] is not None:
            parts.add(StateLock(Path(values["state"]), failed))
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


def _log_observer(options: Options, shows_all: bool) -> Callable[[], ILogObserver] | None:
    """Return what makes the log's observer; None for that of ``twistd``."""
    twistd: Any = options.parent or {}
    if options.chosen["log-format"] == "json":
        from txserf.service import jsonlog

        return partial(jsonlog.observer, twistd)
    elsewhere = any(twistd.get(name) for name in ("logfile", "syslog", "logger"))
    if shows_all and twistd.get("nodaemon") and not elsewhere and is_terminal(sys.stderr):
        return _warnings
    return None


def _warnings() -> ILogObserver:
    # The log and the demonstration are on one terminal: what goes well would drown what is shown.
    serious = LogLevelFilterPredicate(LogLevel.warn)
    observer: ILogObserver = FilteringLogObserver(textFileLogObserver(sys.stderr), [serious])
    return observer


def _say_where_it_goes(options: Options) -> None:
    """Tell who starts it on a terminal without ``-n`` that it goes to the background, which shows nothing."""
    twistd: Any = options.parent or {}
    if twistd.get("nodaemon") or not is_terminal(sys.stderr):
        return
    if twistd.get("syslog"):
        log = "its log is the system's"
    else:
        log = f"its log is {os.path.abspath(twistd.get('logfile') or 'twistd.log')}"
    sys.stderr.write(f"txserf goes to the background; {log}. 'twistd -n txserf' stays here.\n")


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


def _live(serf: Serf) -> Live:
    from txserf.service.live import Live  # here, for only --http needs it

    return Live(serf)


def _metrics(live: Live) -> Metrics | None:
    try:
        from txserf.service.metrics import Metrics
    except ImportError:  # /metrics says so then
        return None
    metrics = Metrics(live.serf)
    metrics.live = live
    return metrics


def _web(
    options: Options,
    live: Live,
    parts: list[RouterService | Follower],
    metrics: Metrics | None,
    failed: Callable[[BaseException], object],
) -> IService:
    from txserf.service import web, website

    def unready() -> str | None:
        return next((part.unready for part in parts if part.unready is not None), None)

    site = website.Site(live, unready, metrics, lambda: options.http_token)
    service: IService = web.WebService(options.http, site, failed)
    return service


def _demo(
    values: settings.Values,
    cluster: EmbeddedCluster,
    follower: Follower | None,
    write: Callable[[str], object],
    format: Format,
    failed: Callable[[BaseException], object],
) -> IService:
    from txserf.service.demo import Demo, greeting

    port = values["embedded-port"]
    demo: IService = Demo(
        cluster,
        port=port,
        follower=follower,
        write=write,
        format=format,
        greeting=greeting(values["embedded"], port) if values["format"] == "text" else (),
        failed=failed,
    )
    return demo


def _embedded_cluster(nodes: int) -> EmbeddedCluster:
    from txserf.embedded import EmbeddedCluster  # here, for only --embedded needs it

    return EmbeddedCluster(nodes=nodes)


def _output(options: Options, serf: Serf) -> tuple[Callable[[str], object], Format]:
    """Return what writes a line, and what makes the line of a record."""
    twistd: Any = options.parent or {}
    name = options.chosen["format"]

    def now() -> float:
        seconds: float = serf.clock.seconds()
        return seconds

    if not twistd.get("nodaemon"):
        # The field's name begins with log_, so that a JSON log does not repeat the text. The log has times already.
        in_log = line_format(name, Look(None), now if name == "json" else None)
        return lambda line: _log.info("{log_line}", log_line=line), in_log
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

    return write, line_format(name, Look(output), now)
