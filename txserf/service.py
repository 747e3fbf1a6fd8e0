"""What ``twistd txserf`` runs: its options, and the service made from them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from twisted.application.service import IService, MultiService
from twisted.logger import Logger
from twisted.python import usage

from txserf import follow
from txserf.errors import InvalidHostURL
from txserf.hosts import parse_hosts
from txserf.serf import Serf

_log = Logger()


class Options(usage.Options):
    """The options of ``twistd txserf``."""

    synopsis = "[options]"
    longdesc = (
        "Shows the members of a Serf cluster, then each event as it comes, through agents that come and go. "
        "With -n lines go to standard output and the log to standard error, else all goes to the log."
    )

    optParameters = [  # as usage.Options wants it
        ["agent", "a", None, "Agents, as HOST:PORT or serf://HOST:PORT?AuthKey=KEY, with commas "
                             "[default: $SERF_RPC_ADDR, else 127.0.0.1:7373]"],
        ["stream", "s", "*", "Events to show, as user:deploy,member-failed,query; empty: none."],
        ["monitor", "m", None, "Show the agent's log too, from this level up: DEBUG, INFO, WARN, ERR."],
        ["format", "f", "text", "How lines are written: text, or json for an object a line."],
    ]  # fmt: skip

    def postOptions(self) -> None:
        """Refuse what can't work, by name."""
        if self["format"] not in follow.FORMATS:
            raise usage.UsageError(f"--format is text or json, not {self['format']!r}")
        try:
            parse_hosts(self["agent"])
        except InvalidHostURL as error:
            raise usage.UsageError(f"--agent: {error}") from None


def makeService(options: Options) -> IService:
    """Make the service that the options ask for."""
    parts = MultiService()
    serf = Serf(options["agent"])
    serf.setServiceParent(parts)  # type: ignore[no-untyped-call]  # Twisted's own
    follower = follow.Follower(
        serf,
        _line_writer(options),
        follow.FORMATS[options["format"]],
        stream=options["stream"] or None,
        monitor=options["monitor"],
        failed=lambda reason: _stop(),
    )
    follower.setServiceParent(parts)  # type: ignore[no-untyped-call]  # Twisted's own
    result: IService = parts
    return result


def _line_writer(options: Options) -> Callable[[str], object]:
    twistd: Any = options.parent or {}
    if not twistd.get("nodaemon"):
        return lambda line: _log.info("{line}", line=line)
    if not twistd.get("logfile"):
        # twistd is about to log to standard output, where it would be mixed into what we write there.
        sys.stdout = sys.stderr
    output = sys.__stdout__
    assert output is not None

    def write(line: str) -> None:
        output.write(line + "\n")
        output.flush()

    return write


def _stop() -> None:
    from twisted.internet import reactor

    reactor.stop()
