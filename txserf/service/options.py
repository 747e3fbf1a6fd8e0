"""The command line of ``twistd txserf``."""

from __future__ import annotations

import getopt
import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

from twisted.python import usage

from txserf.arguments import did_you_mean, reactor_or_global
from txserf.errors import hides_arguments
from txserf.handlers.router import Router
from txserf.service import apps, settings, templates
from txserf.service.agents import read_agents, read_key
from txserf.service.ending import Ending
from txserf.service.settings import ConfigError, Takes
from txserf.wire import as_bytes

# The options that name a file, in the configuration file too.
_FILES = frozenset({"state", "auth-key-file", "http-token-file"})


def _checked(row: settings.Setting, text: str) -> Any:
    """Read a value. Twisted would put words of its own before the text of a ValueError."""
    try:
        return row.from_text(text)
    except ValueError as error:
        raise usage.UsageError(str(error)) from None


class WrongCommandLine(SystemExit):
    """
    Ends ``twistd`` for a command line of its part ``txserf`` that can't work.

    :ivar sentence: says why.
    """

    def __init__(self, sentence: str) -> None:
        super().__init__(f"txserf: {sentence}\n'twistd txserf --help' lists the options")
        self.sentence = sentence


class Options(usage.Options):
    """
    The options of ``twistd txserf``: the rows of `txserf.service.settings.SETTINGS`.

    :ivar ending: ends the process if its service can't work.
    :ivar chosen: the value of each option: from the command line, else from the file, else its default.
    :ivar agents: the agents; None with ``--embedded``.
    :ivar router: the handlers, perhaps none; None if there are no templates either, and no file that may bring some.
    :ivar http: the endpoint of the site; None for none.
    :ivar http_token: the token that opens the site's actions; None for none.
    """

    synopsis = "[options]"
    longdesc = (
        "Runs scripts and Python functions for the events of a Serf cluster. Without any it shows the members, and "
        "each event as it comes. When an agent dies, it goes on with another one. With -n members and events go to "
        "standard output and the log to standard error, else all goes to the log."
    )

    optFlags: list[list[object]] = [
        [row.name, row.short, row.summary] for row in settings.SETTINGS if row.kind is Takes.FLAG
    ]  # as usage.Options wants it

    optParameters: list[list[object]] = [
        [row.name, row.short, None, row.summary, partial(_checked, row)]
        for row in settings.SETTINGS
        if row.kind not in (Takes.FLAG, Takes.LIST, Takes.TABLES)
    ]  # as usage.Options wants it

    def opt_handler(self, spec: str) -> None:
        self["handler"] = [*self.get("handler", ()), spec]

    opt_handler.__doc__ = settings.BY_NAME["handler"].summary

    def opt_template(self, spec: str) -> None:
        try:
            self["template"] = [*self.get("template", ()), templates.from_text(spec)]
        except ConfigError as error:
            raise usage.UsageError(str(error)) from None

    opt_template.__doc__ = settings.BY_NAME["template"].summary

    @hides_arguments
    def parseOptions(self, options: Any = None) -> None:
        """
        Parse a command line.

        :raises UsageError: for one that can't work; its text is a sentence.
        :raises WrongCommandLine: instead, for a part of the command line of ``twistd``, which would print all options before
            that sentence.
        """
        try:
            self._parse(options)
        except usage.UsageError as error:
            if not isinstance(self.parent, usage.Options):
                raise
            raise WrongCommandLine(str(error)) from None

    def _parse(self, options: Any) -> None:
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

    def parseArgs(self, *words: str) -> None:
        """Refuse words that are no options."""
        if words:
            raise usage.UsageError(f"there is no {words[0]!r}: each option begins with --")

    def __repr__(self) -> str:
        return f"<Options of twistd txserf at {id(self):#x}>"  # that of a dict would show a key of --agent

    def postOptions(self) -> None:
        """Read the file and the handlers, and check all of it."""
        self.ending: Ending = Ending()
        # twistd goes to another folder later, where scripts are run. Files are meant from where it was started.
        for name in ("config", *_FILES):
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
            self.http: Any = self._endpoint()
        except ConfigError as error:
            raise usage.UsageError(str(error)) from None
        handles = any(self.chosen[name] for name in ("handler", "app", "template", "config"))
        self.router: Router | None = router if handles else None

    @hides_arguments
    def read(self, again: bool = False) -> tuple[dict[str, Any], Router]:
        """
        Read the file, and make the router.

        :param again: whether to import the module of ``--app`` anew.
        :returns: the values of all options, and the router that they ask for. `agents` and `http_token` are those of the values.
        :raises ConfigError: for an option that can't work.
        """
        path = self._given.get("config")
        found = {} if path is None else settings.load(Path(path))
        for name in _FILES & found.keys():
            found[name] = os.path.join(self._started_in, found[name])
        values = settings.merged(self._given, found)
        settings.check(values)
        agents = read_agents(values) if values["embedded"] is None else None
        path = values["http-token-file"]
        token = None if path is None else _token(Path(path))
        if values["app"] is not None and self._started_in not in sys.path:
            sys.path.insert(0, self._started_in)
        router = apps.make_router(
            values["handler"] or (),
            values["app"],
            folder=self._folder,
            again=again,
            rpc_auth=bool(values["script-rpc-auth"]),
        )
        values["template"] = templates.read(values["template"] or (), self._started_in)
        self.agents, self.http_token = agents, token
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
        from txserf.service import web  # here, for only --http needs it

        return web.parse_endpoint(reactor_or_global(), self.chosen["http"])


@hides_arguments
def _token(path: Path) -> bytes:
    token = as_bytes(read_key(path, "http-token-file"))
    if token != token.strip():
        raise ConfigError(
            f"--http-token-file {path}: the token begins or ends with a blank, which a request can't send"
        )
    return token
