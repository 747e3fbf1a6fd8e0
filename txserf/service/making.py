"""What ``twistd txserf`` runs: its options, and the service made from them."""

from __future__ import annotations

import atexit
import contextlib
import getopt
import io
import logging
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twisted.application.service import IService, MultiService, Service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.error import ReactorNotRunning
from twisted.internet.interfaces import IStreamServerEndpoint
from twisted.logger import ILogObserver, Logger
from twisted.python import usage

from txserf.arguments import did_you_mean
from txserf.handlers.router import Router
from txserf.handlers.running import RouterService
from txserf.serf.serf import Serf
from txserf.service import apps, settings
from txserf.service.follow import Follower
from txserf.service.lines import FORMATS, Format
from txserf.service.readiness import Guard, Observers
from txserf.service.reload import Reloader
from txserf.service.settings import ConfigError, Takes

if TYPE_CHECKING:
    from txserf.embedded import EmbeddedCluster
    from txserf.service.metrics import Metrics

_log = Logger(namespace="txserf.service")


class Ending:
    """
    Ends the process where a service can't work, with exit code 1.

    twistd has no other code than 0 for a service that ended by itself, so this has the last word behind it.
    It is made before anything of an application's is imported: what that registers to run at exit runs first.
    """

    def __init__(self) -> None:
        self._failed = False
        atexit.register(self._exit)

    def fail(self, reason: BaseException) -> None:
        """Stop the reactor."""
        from twisted.internet import reactor

        def stop() -> None:
            with contextlib.suppress(ReactorNotRunning):  # another reason was first
                reactor.stop()

        self._failed = True
        reactor.callWhenRunning(stop)  # it may not run yet, and can't be stopped then

    def _exit(self) -> None:
        if not self._failed:
            return
        try:
            logging.shutdown()  # which was registered before this, and would not run
            for stream in (sys.__stdout__, sys.__stderr__):
                if stream is not None:
                    with contextlib.suppress(OSError, ValueError):  # nobody reads it, or it is closed
                        stream.flush()
        finally:
            os._exit(1)


class Options(usage.Options):
    """
    The options of ``twistd txserf``: the rows of `txserf.service.settings.SETTINGS`.

    :ivar ending: ends the process where what was chosen can't work.
    :ivar chosen: all of them, from the command line, else from the file, else the defaults.
    :ivar router: the handlers; None where there is nothing to handle.
    :ivar http: where to serve /health and /metrics; None for nowhere.
    """

    synopsis = "[options]"
    longdesc = (
        "Runs scripts and Python functions for the events of a Serf cluster or, without any, shows the members and "
        "each event as it comes; through agents that come and go. With -n what is shown goes to standard output "
        "and the log to standard error, else all goes to the log."
    )

    optFlags = [
        [row.name, row.short, row.summary] for row in settings.SETTINGS if row.kind is Takes.FLAG
    ]  # as usage.Options wants it

    optParameters = [
        [row.name, row.short, None, row.summary, row.from_text]
        for row in settings.SETTINGS
        if row.kind not in (Takes.FLAG, Takes.LIST)
    ]  # as usage.Options wants it

    def opt_handler(self, spec: str) -> None:
        self["handler"] = [*self.get("handler", ()), spec]

    opt_handler.__doc__ = settings.BY_NAME["handler"].summary

    def parseOptions(self, options: Any = None) -> None:
        """Parse a command line; the refusal of an unknown option names the nearest known one."""
        try:
            super().parseOptions(options)  # type: ignore[no-untyped-call]  # Twisted's own
        except usage.UsageError as error:
            wrong = error.__context__
            if (
                not isinstance(wrong, getopt.GetoptError)
                or len(wrong.opt) == 1
                or wrong.opt in settings.BY_NAME
            ):
                raise
            hint = did_you_mean(f"--{wrong.opt}", [f"--{row.name}" for row in settings.SETTINGS])
            raise usage.UsageError(f"{error}{hint}") from None

    def postOptions(self) -> None:
        """Refuse what can't work, by name."""
        self.ending = Ending()
        # What names files is fixed before twistd goes to another folder; scripts are run in that one.
        for name in ("config", "state"):
            if self[name] is not None:
                self[name] = os.path.abspath(self[name])
        flags = {flag for flag, _, _ in self.optFlags}
        self._given = {
            name: value for name, value in self.items() if (value if name in flags else value is not None)
        }
        self._folder = os.path.abspath(self._twistd.get("rundir") or ".")
        self._started_in = os.getcwd()
        try:
            self.chosen, router = self.read()
            self._check_log()
            self.http = self._endpoint()
        except ConfigError as error:
            raise usage.UsageError(str(error)) from None
        handles = self.chosen["handler"] or self.chosen["app"] or self.chosen["config"]
        self.router = router if handles else None

    def read(self, again: bool = False) -> tuple[dict[str, Any], Router]:
        """
        Read the file, and find the handlers.

        :param again: import the module of ``--app`` anew.
        :returns: the values of all options, and the router that they ask for.
        :raises ConfigError: for what can't work.
        """
        path = self._given.get("config")
        found = {} if path is None else settings.load(Path(path))
        if "state" in found:
            found["state"] = os.path.join(self._started_in, found["state"])
        values = settings.merged(self._given, found)
        settings.check(values)
        if values["app"] is not None and self._started_in not in sys.path:
            sys.path.insert(0, self._started_in)
        router = apps.make_router(values["handler"] or (), values["app"], folder=self._folder, again=again)
        return values, router

    @property
    def _twistd(self) -> Any:
        return self.parent or {}

    def _check_log(self) -> None:
        if self.chosen["log-format"] != "json":
            return
        for name in ("syslog", "logger"):
            if self._twistd.get(name):
                raise ConfigError(f"--log-format json and twistd's --{name} exclude each other")

    def _endpoint(self) -> Any:
        if self.chosen["http"] is None:
            return None
        from twisted.internet import reactor

        from txserf.service import web  # not to be paid for by who serves nothing

        return web.parse_endpoint(reactor, self.chosen["http"])


class Parts(MultiService):
    """
    Services of which each one is stopped once those behind it have stopped.

    :param observer: makes the observer of the log of the application that it becomes part of; None: twistd's own.
    """

    def __init__(self, observer: Callable[[], ILogObserver] | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Twisted's own
        self._observer = observer

    def setServiceParent(self, parent: Any) -> None:
        """Become part of an application, and log as it should."""
        super().setServiceParent(parent)  # type: ignore[no-untyped-call]  # Twisted's own
        if self._observer is not None:
            parent.setComponent(ILogObserver, self._observer())

    def add(self, part: IService) -> None:
        part.setServiceParent(self)

    def stopService(self) -> Deferred[None]:
        """Stop them one after the other, the last one first."""
        Service.stopService(self)
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        for part in reversed(list(self)):
            try:
                await maybeDeferred(part.stopService)
            except Exception:
                _log.failure("{part} did not stop well", part=part)


def makeService(options: Options) -> IService:
    """Make the service that the options ask for."""
    values, router, failed = options.chosen, options.router, options.ending.fail
    write, format = _line_writer(options), FORMATS[values["format"]]
    cluster = None if values["embedded"] is None else _embedded_cluster(values["embedded"])
    shows_all = cluster is not None and not values["embedded-quiet"]
    serf = Serf(values["agent"] if cluster is None else cluster.endpoints())
    handles = values["handler"] or values["app"]
    follower = None
    if shows_all or not handles or values["stream"] is not None or values["monitor"] is not None:
        stream = "*" if values["stream"] is None and (shows_all or not handles) else values["stream"]
        monitor = values["monitor"] or ("INFO" if shows_all else None)
        follower = Follower(serf, write, format, stream=stream or None, monitor=monitor, failed=failed)
    parts = Parts(_json_log(options.parent) if values["log-format"] == "json" else None)
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
        parts.add(handling)
        parts.add(guard)
        parts.add(Reloader(handling, values, partial(options.read, again=True)))
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
    observer = guard if metrics is None else Observers(guard, metrics)
    service = router.bind(
        serf,
        concurrency=values["concurrency"],
        timeout=values["handler-timeout"] or None,
        state=values["state"],
        observer=observer,
    )
    guard.handling = service
    if metrics is not None:
        metrics.service = service
    return service


def _metrics(serf: Serf) -> Metrics | None:
    try:
        from txserf.service.metrics import Metrics
    except ImportError:  # the page says so
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
    from txserf.embedded import EmbeddedCluster  # not to be paid for by who follows real agents

    return EmbeddedCluster(nodes=nodes)


def _line_writer(options: Options) -> Callable[[str], object]:
    twistd: Any = options.parent or {}
    if not twistd.get("nodaemon"):
        return lambda line: _log.info("{log_line}", log_line=line)  # no field of its own in a JSON log
    if not twistd.get("logfile"):
        # twistd is about to log to standard output, where it would be mixed into what we write there.
        sys.stdout = sys.stderr
    output = sys.__stdout__
    assert output is not None
    # A stranger's event must not end this for a name that the terminal's encoding does not have. What
    # PYTHONIOENCODING asks for beyond these defaults is left alone.
    if isinstance(output, io.TextIOWrapper) and output.errors in ("strict", "surrogateescape"):
        output.reconfigure(errors="backslashreplace")

    def write(line: str) -> None:
        output.write(line + "\n")
        output.flush()

    return write
