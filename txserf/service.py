"""What ``twistd txserf`` runs: its options, and the service made from them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.application.service import IService, MultiService
from twisted.logger import Logger
from twisted.python import usage

from txserf import follow
from txserf.errors import InvalidHostURL
from txserf.hosts import parse_hosts
from txserf.serf import Serf

if TYPE_CHECKING:
    from txserf.embedded import EmbeddedCluster

_log = Logger()


def _count(text: str) -> int:
    if text.isdecimal() and int(text) >= 1:
        return int(text)
    raise ValueError("it is a number of agents, from 1 on")


def _port(text: str) -> int:
    if text.isdecimal() and 1 <= int(text) <= 65535:
        return int(text)
    raise ValueError("it is a TCP port, from 1 to 65535")


class Options(usage.Options):
    """The options of ``twistd txserf``."""

    synopsis = "[options]"
    longdesc = (
        "Shows the members of a Serf cluster, then each event as it comes, through agents that come and go. "
        "With -n lines go to standard output and the log to standard error, else all goes to the log."
    )

    optFlags = [  # as usage.Options wants it
        ["embedded-quiet", None, "Let nothing happen in the embedded cluster by itself."],
    ]

    optParameters = [  # as usage.Options wants it
        ["agent", "a", None, "Agents, as HOST:PORT or serf://HOST:PORT?AuthKey=KEY, with commas "
                             "[default: $SERF_RPC_ADDR, else 127.0.0.1:7373]"],
        ["stream", "s", "*", "Events to show, as user:deploy,member-failed,query; empty: none."],
        ["monitor", "m", None, "Show the agent's log too, from this level up: DEBUG, INFO, WARN, ERR."],
        ["format", "f", "text", "How lines are written: text, or json for an object a line."],
        ["embedded", None, None, "Follow a cluster of so many agents in this process: no Serf is needed.", _count],
        ["embedded-port", None, None, "Let the embedded agents listen on 127.0.0.1, from this port on.", _port],
    ]  # fmt: skip

    def postOptions(self) -> None:
        """Refuse what can't work, by name."""
        if self["format"] not in follow.FORMATS:
            raise usage.UsageError(f"--format is text or json, not {self['format']!r}")
        if self["embedded"] is None and (self["embedded-port"] is not None or self["embedded-quiet"]):
            raise usage.UsageError("--embedded-port and --embedded-quiet go with --embedded")
        if self["embedded"] is not None and self["agent"] is not None:
            raise usage.UsageError("--agent and --embedded exclude each other")
        try:
            parse_hosts(self["agent"])
        except InvalidHostURL as error:
            raise usage.UsageError(f"--agent: {error}") from None


def makeService(options: Options) -> IService:
    """Make the service that the options ask for."""
    parts = MultiService()
    write, format = _line_writer(options), follow.FORMATS[options["format"]]
    cluster = None if options["embedded"] is None else _embedded_cluster(options["embedded"])
    shows_all = cluster is not None and not options["embedded-quiet"]
    serf = Serf(options["agent"] if cluster is None else cluster.endpoints())
    serf.setServiceParent(parts)  # type: ignore[no-untyped-call]  # Twisted's own
    follower = follow.Follower(
        serf,
        write,
        format,
        stream=options["stream"] or None,
        monitor=options["monitor"] or ("INFO" if shows_all else None),
        failed=_stop,
    )
    follower.setServiceParent(parts)  # type: ignore[no-untyped-call]  # Twisted's own
    if cluster is not None:
        from txserf.demo import Demo

        demo = Demo(
            cluster,
            port=options["embedded-port"],
            follower=follower if shows_all else None,
            write=write,
            format=format,
            failed=_stop,
        )
        demo.setServiceParent(parts)  # type: ignore[no-untyped-call]  # Twisted's own
    result: IService = parts
    return result


def _embedded_cluster(nodes: int) -> EmbeddedCluster:
    from txserf.embedded import EmbeddedCluster  # not to be paid for by who follows real agents

    return EmbeddedCluster(nodes=nodes)


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


def _stop(reason: BaseException) -> None:
    from twisted.internet import reactor

    reactor.stop()
