"""SIGHUP: reads the options again that can change, while connection and events go on."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

from twisted.application.service import Service
from twisted.logger import Logger

from txserf.arguments import reactor_or_global
from txserf.connection.hosts import Host
from txserf.errors import encodable, reason_text
from txserf.handlers.router import Router
from txserf.handlers.running import RouterService
from txserf.service.settings import SETTINGS, ConfigError, Values
from txserf.service.templates import Templates

_log = Logger(namespace="txserf.service")


class Reloader(Service):
    """
    Reads the options again on SIGHUP.

    :param service: gets the new handlers and limits.
    :param values: the options as they are.
    :param read: reads the options again, and makes the router that they ask for; may raise `ConfigError`.
    :param reactor: reloads in its thread, not in the signal handler; None takes the global reactor.
    :param agents: returns the agents as they were read last, for their keys; None leaves them alone.
    :param templates: gets the new templates; None where there can be none.
    """

    def __init__(
        self,
        service: RouterService,
        values: Values,
        read: Callable[[], tuple[Values, Router]],
        reactor: Any = None,
        *,
        agents: Callable[[], tuple[Host, ...] | None] = lambda: None,
        templates: Templates | None = None,
    ) -> None:
        self._service = service
        self._values = values
        self._read = read
        self._agents = agents
        self._templates = templates
        self._reactor = reactor
        self._before: Any = None

    def startService(self) -> None:
        """Install the signal handler."""
        super().startService()  # type: ignore[no-untyped-call]  # Twisted's own
        self._reactor = reactor_or_global(self._reactor)
        self._before = signal.signal(signal.SIGHUP, self._signalled)

    def stopService(self) -> None:
        """Put back the signal handler that was there before."""
        super().stopService()  # type: ignore[no-untyped-call]  # Twisted's own
        signal.signal(signal.SIGHUP, self._before or signal.SIG_DFL)

    def _signalled(self, *_: object) -> None:
        self._reactor.callFromThread(self.reload)

    def reload(self) -> None:
        """Use the new options; if they can't work, log that and keep the old ones."""
        try:
            values, router = self._read()
        except ConfigError as error:
            _log.error("not reloaded, all stays as it was: {reason}", reason=reason_text(error))
            return
        fixed = [
            row.name for row in SETTINGS if not row.reloads and values[row.name] != self._values[row.name]
        ]
        if fixed:
            _log.warn("needs a restart to take effect: {options}", options=", ".join(fixed))
        self._values = {**values, **{name: self._values[name] for name in fixed}}
        agents = self._agents()
        if agents is not None and not {"agent", "auth-key-file"} & set(fixed):
            self._service.serf.factory.hosts = agents  # the same ones; their keys and certificates may be new
        limits = {"concurrency": values["concurrency"], "timeout": values["handler-timeout"] or None}
        self._service.replace(router.routes(), **limits)
        if self._templates is not None:
            self._templates.replace(values["template"])
        _log.info("reloaded: handles {types}", types=encodable(router.routes().stream_type or "nothing"))
