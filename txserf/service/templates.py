"""The templates of ``--template``: read from the options, and kept running over reloads."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from typing import Any

import attrs
from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredLock
from twisted.logger import Logger
from twisted.python.failure import Failure

from txserf.arguments import did_you_mean
from txserf.cluster.template import Template
from txserf.cluster.view import ClusterView
from txserf.errors import InvalidRequest, hides_arguments, reason_text
from txserf.serf.serf import Serf
from txserf.service.settings import ConfigError

_log = Logger(namespace="txserf.service")

# The keys of a table in the file: the arguments of a `Template`, and whether they are text.
_KEYS = {
    "source": True, "destination": True, "check": True, "reload": True, "mode": True, "settle": False, "at-most": False,
}  # fmt: skip


@attrs.frozen
class Wanted:
    """
    A template that is asked for.

    :ivar source: the absolute path of the template.
    :ivar destination: the absolute path of the file.
    :ivar options: the further arguments of a `Template`.
    """

    source: str
    destination: str
    options: Mapping[str, Any]

    def make(self, view: ClusterView) -> Template:
        return Template(view, self.source, self.destination, **self.options)


def from_text(text: str) -> dict[str, Any]:
    """
    Read ``SRC:DEST`` or ``SRC:DEST:RELOAD``, as the table that says the same.

    :raises ConfigError: for anything else.
    """
    source, _, rest = text.partition(":")
    destination, _, reload = rest.partition(":")
    if not source or not destination:
        raise ConfigError(f"--template is SRC:DEST or SRC:DEST:RELOAD, not {text!r}")
    table = {"source": source, "destination": destination}
    return {**table, "reload": reload} if reload else table


@hides_arguments
def read(tables: Iterable[Mapping[str, Any]], folder: str) -> list[Wanted]:
    """
    Read the tables of the file, or those of the command line, and the templates that they name.

    :param folder: relative paths begin there.
    :raises ConfigError: for one that can't work; it names the key, or the line of the template.
    """
    wanted = [_read_one(table, folder) for table in tables]
    destinations = [os.path.realpath(each.destination) for each in wanted]
    for destination in destinations:
        if destinations.count(destination) > 1:
            raise ConfigError(f"template: two of them have the destination {destination}")
    if wanted:
        # Nothing of it is started: it is here for the checks of the class.
        view = ClusterView(Serf("127.0.0.1"))
        for each in wanted:
            try:
                each.make(view)
            except InvalidRequest as error:
                raise ConfigError(f"template: {error}") from None
    return wanted


def _read_one(table: Mapping[str, Any], folder: str) -> Wanted:
    for key, value in table.items():
        if key not in _KEYS:
            hint = did_you_mean(key, _KEYS) or f"; there are {', '.join(_KEYS)}"
            raise ConfigError(f"template: there is no key {key!r}{hint}")
        if _KEYS[key] and not isinstance(value, str):
            raise ConfigError(f"template: {key} is text, not {type(value).__name__}")
    for key in ("source", "destination"):
        if not table.get(key):
            raise ConfigError(f"template: it has no {key}")
    options = {key.replace("-", "_"): value for key, value in table.items()}
    source, destination = (os.path.join(folder, options.pop(key)) for key in ("source", "destination"))
    if "mode" in options:
        if not re.fullmatch("0?[0-7]{3}", options["mode"]):
            raise ConfigError(
                f'template: mode is octal digits in quotes, such as "0640", not {options["mode"]!r}'
            )
        options["mode"] = int(options["mode"], 8)
    return Wanted(source, destination, options)


class Templates(Service):
    """
    The templates of a service, with the view that they share.

    :param serf: the connection.
    :param wanted: those to begin with. Without any there is no view either.
    """

    def __init__(self, serf: Serf, wanted: Iterable[Wanted]) -> None:
        self._view = ClusterView(serf)
        self._wanted = list(wanted)
        self._at_work: list[Template] = []
        self._lock = DeferredLock()  # starts and stops come one after the other

    def startService(self) -> None:
        """Begin to keep the files."""
        super().startService()  # type: ignore[no-untyped-call]  # Twisted's own
        self._again().addErrback(self._broke)

    def stopService(self) -> Deferred[None]:
        """Stop all; the Deferred fires once no command of them runs."""
        super().stopService()  # type: ignore[no-untyped-call]  # Twisted's own
        return self._again()

    def replace(self, wanted: Iterable[Wanted]) -> None:
        """Keep these from now on, and no others. Each is read and rendered anew."""
        self._wanted = list(wanted)
        if self.running:
            self._again().addErrback(self._broke)

    def _broke(self, failure: Failure) -> None:
        _log.failure("templates can't be started", failure)

    def _again(self) -> Deferred[None]:
        done: Deferred[None] = self._lock.run(lambda: Deferred.fromCoroutine(self._restart()))
        return done

    async def _restart(self) -> None:
        """Stop all, and start those that are wanted now."""
        stopping = [template.stopService() for template in self._at_work]
        self._at_work.clear()
        for stopped in stopping:
            await stopped
        if self.running:
            for wanted in self._wanted:
                try:
                    template = wanted.make(self._view)
                except InvalidRequest as error:  # its source has changed since the options were read
                    _log.error("not kept: {reason}", reason=reason_text(error))
                    continue
                template.startService()
                self._at_work.append(template)
        if not self._at_work and self._view.running:
            await self._view.stopService()
