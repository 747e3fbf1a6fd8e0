"""
The commands of ``txserf``: one table.

The parser, ``--help`` and the documentation are made from `COMMANDS`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import attrs

#: The outputs, and each in a sentence.
OUTPUTS = {
    "table": "Aligned columns with a heading, in colours; the default on a terminal.",
    "text": "The same without the heading and colours; the default elsewhere.",
    "json": "One JSON document; of a command that goes on, one object a line.",
    "jsonl": "A JSON object a line.",
    "names": "The names of nodes, one a line.",
    "hosts": "Lines for /etc/hosts. A name that no host can have is left out.",
    "ansible": "An inventory for Ansible. A name that no host can have is left out.",
    "prometheus": "Targets for Prometheus' file_sd.",
}

_PLAIN = ("table", "text", "json", "jsonl")
_MEMBERS = tuple(OUTPUTS)


@attrs.frozen
class Parameter:
    """
    An argument or an option of a command.

    :ivar names: one name without dashes for an argument; else the option's, such as ``("-a", "--agent")``.
    :ivar help: what it is for, in a sentence or two.
    :ivar shown: the placeholder of its value; None for an option without a value.
    :ivar kind: makes the value: `str`, `int` or `float`.
    :ivar many: whether it may be given several times; an argument takes all that are there, at least one.
    :ivar optional: whether an argument may be left out.
    :ivar choices: all that it may be; empty for anything.
    :ivar default: the value if it is not given.
    :ivar lowest: the lowest number that it may be.
    :ivar highest: the highest; None for any.
    """

    names: tuple[str, ...]
    help: str
    shown: str | None = None
    kind: type[Any] = str
    many: bool = False
    optional: bool = False
    choices: tuple[str, ...] = ()
    default: Any = None
    lowest: int = 1
    highest: int | None = None

    @property
    def is_option(self) -> bool:
        return self.names[0].startswith("-")

    @property
    def rule(self) -> str:
        """The rule that numbers follow, as in "a whole number from 1 to 255"."""
        if self.kind is float:
            return "seconds, above 0" if self.lowest else "seconds, 0 or more"
        return f"a whole number from {self.lowest} " + (
            "on" if self.highest is None else f"to {self.highest}"
        )

    def accepts(self, value: float) -> bool:
        """Whether a number is within the limits."""
        if self.kind is float:
            return (0 < value if self.lowest else 0 <= value) and value < math.inf
        return self.lowest <= value and (self.highest is None or value <= self.highest)

    @property
    def key(self) -> str:
        """The name of its value among those that were parsed."""
        return self.names[-1].lstrip("-").replace("-", "_")


@attrs.frozen
class CliCommand:
    """
    A row of the table.

    :ivar name: the word on the command line.
    :ivar summary: what it does, in a sentence.
    :ivar function: ``module:function`` of the coroutine function that does it; empty for one that is handed on
        to ``twistd``.
    :ivar parameters: its arguments and options, without `COMMON`.
    :ivar outputs: the outputs that it has; empty for one that is handed on.
    :ivar more: further sentences for ``--help`` and the documentation.
    :ivar handed_on: the arguments of ``twistd -n txserf`` that stand before those that were given.
    """

    name: str
    summary: str
    function: str = ""
    parameters: tuple[Parameter, ...] = ()
    outputs: tuple[str, ...] = _PLAIN
    more: str = ""
    handed_on: Sequence[str] | None = None


COMMON = (
    Parameter(
        ("-a", "--agent"),
        "Agents, with commas, as HOST:PORT, serf://HOST:PORT?AuthKey=KEY or a client endpoint of Twisted's. They are tried "
        "in order. Without it $SERF_RPC_ADDR, else 127.0.0.1:7373.",
        "HOSTS",
    ),
    Parameter(
        ("--auth-key-file",),
        "A file with the key of the agents, which its owner alone can read. Without it $SERF_RPC_AUTH.",
        "FILE",
    ),
    Parameter(("-o", "--output"), "The form of the output.", "FORM", choices=tuple(OUTPUTS)),
    Parameter(
        ("--timeout",),
        "Seconds that the command may take. Without it 10; a command that follows or waits has no limit then, and a query "
        "takes the agent's own.",
        "SECONDS",
        float,
    ),
)

_STATUS = Parameter(
    ("--status",),
    "Members of this status only: alive, leaving, left or failed; a regular expression.",
    "STATUS",
)
_ALIVE = attrs.evolve(_STATUS, default="alive")
_TAG = Parameter(
    ("--tag",),
    "Members with this tag only. The value is a regular expression (Go's RE2), which has to match all of it. May be given "
    "several times: all must match.",
    "KEY=VALUE",
    many=True,
)
_PORT = Parameter(("--port",), "The port of the targets of -o prometheus.", "PORT", int, highest=65535)
_PORT_TAG = Parameter(
    ("--port-tag",), "The tag that has the port of each target; members without it are left out.", "TAG"
)
_LIST = Parameter(("--list",), "For Ansible: the whole inventory, which is printed anyway.")
_HOST = Parameter(("--host",), "For Ansible: the variables of this host only.", "NAME")
_PAYLOAD = Parameter(("payload",), "Its bytes; - takes them from standard input.", "PAYLOAD", optional=True)

COMMANDS = (
    CliCommand(
        "members",
        "Show the members of the cluster.",
        "asking:members",
        (
            Parameter(("--name",), "Members with this name only; a regular expression.", "NAME"),
            _STATUS,
            _TAG,
            Parameter(
                ("--watch",),
                "Go on and show each change: the table is drawn again on a terminal, a line is written elsewhere.",
            ),
            _PORT,
            _PORT_TAG,
            _LIST,
            _HOST,
        ),
        _MEMBERS,
        "Without --port and --port-tag the targets of -o prometheus have the port of the members' gossip.",
    ),
    CliCommand(
        "event",
        "Send a user event to all members.",
        "asking:event",
        (
            Parameter(("name",), "The event's name.", "NAME"),
            _PAYLOAD,
            Parameter(
                ("--no-coalesce",), "Agents must deliver it even if another of that name follows at once."
            ),
        ),
    ),
    CliCommand(
        "query",
        "Ask the members, and show their answers as they come.",
        "watching:query",
        (
            Parameter(("name",), "The query's name.", "NAME"),
            _PAYLOAD,
            Parameter(
                ("--expect",),
                "End with this many answers, or with the last one of all members that were asked and alive (all). If fewer "
                "come, the exit code is 3.",
                "N|all",
            ),
            Parameter(("--no-ack",), "Ask for no acknowledgements."),
            Parameter(("--node",), "Ask this node only. May be given several times.", "NAME", many=True),
            Parameter(
                ("--tag",),
                "Ask the members with this tag only. The value is a regular expression (Go's RE2), which may match any part of "
                "it. May be given several times: all must match.",
                "KEY=VALUE",
                many=True,
            ),
            Parameter(
                ("--relay-factor",),
                "How many other members relay each answer.",
                "N",
                int,
                default=0,
                lowest=0,
                highest=255,
            ),
        ),
        (*_PLAIN, "names"),
        "Without --expect it ends when the agents stop answering, and the exit code is 3 if nobody has answered. "
        "--expect 0 needs no answer.",
    ),
    CliCommand(
        "events",
        "Show events as they come, until Ctrl-C.",
        "watching:events",
        (
            Parameter(
                ("filter",), "Such as user:deploy,member-failed,query.", "FILTER", optional=True, default="*"
            ),
            Parameter(("-n", "--count"), "End after this many events.", "N", int),
        ),
        _PLAIN,
        "It goes on with another agent when one is lost, and shows the gap in which events may have been missed. With "
        "--count and --timeout the exit code is 3 if fewer events came in time.",
    ),
    CliCommand(
        "monitor",
        "Show the log of the agent as it is written, until Ctrl-C.",
        "watching:monitor",
        (
            Parameter(
                ("level",),
                "The lowest level: TRACE, DEBUG, INFO, WARN or ERR.",
                "LEVEL",
                optional=True,
                default="INFO",
            ),
        ),
    ),
    CliCommand(
        "wait",
        "Wait until enough members are there.",
        "watching:wait",
        (Parameter(("number",), "How many.", "N", int), _ALIVE, _TAG),
        (*_PLAIN, "names", "hosts"),
        "It shows them. Past --timeout the exit code is 3. An agent that is not there yet is waited for too.",
    ),
    CliCommand(
        "nearest",
        "Show the members by their distance, the nearest first.",
        "asking:nearest",
        (
            Parameter(("node",), "The node from which; without it the agent's own.", "NODE", optional=True),
            Parameter(("-n", "--count"), "Show this many at the most.", "N", int),
            Parameter(("--within",), "Show those within this round trip only.", "SECONDS", float, lowest=0),
            _ALIVE,
            _TAG,
        ),
        (*_PLAIN, "names"),
    ),
    CliCommand(
        "rtt",
        "Estimate the round trip between two nodes.",
        "asking:rtt",
        (
            Parameter(("node",), "A member's name.", "NODE"),
            Parameter(("other",), "Another's; without it the agent's own.", "OTHER", optional=True),
        ),
    ),
    CliCommand("info", "Show figures about the agent.", "asking:info"),
    CliCommand(
        "join",
        "Make the agent join a cluster.",
        "asking:join",
        (
            Parameter(("address",), "Gossip addresses of members, as HOST:PORT.", "ADDRESS", many=True),
            Parameter(("--replay",), "Let past user events come."),
        ),
    ),
    CliCommand("leave", "Make the agent leave its cluster and exit.", "asking:leave"),
    CliCommand(
        "force-leave",
        "Make a failed member one that left.",
        "asking:force_leave",
        (
            Parameter(("node",), "The member's name.", "NODE"),
            Parameter(("--prune",), "Forget it at once."),
        ),
    ),
    CliCommand(
        "tags",
        "Show or change the tags of the agent's own node.",
        "asking:change_tags",
        (
            Parameter(
                ("action",),
                "set or delete; without it they are shown.",
                "ACTION",
                optional=True,
                choices=("set", "delete"),
            ),
            Parameter(("item",), "KEY=VALUE to set, KEY to delete.", "ITEM", many=True, optional=True),
        ),
    ),
    CliCommand(
        "keys",
        "Show or change the keys of the cluster's gossip.",
        "asking:keys",
        (
            Parameter(
                ("action",),
                "list, install, use or remove.",
                "ACTION",
                optional=True,
                default="list",
                choices=("list", "install", "use", "remove"),
            ),
            Parameter(
                ("key",),
                "The key in base64; - takes it from standard input, so that no list of processes has it.",
                "KEY",
                optional=True,
            ),
        ),
    ),
    CliCommand(
        "template",
        "Write a file that a Jinja2 template makes of the members.",
        "watching:template",
        (
            Parameter(("source",), "The template.", "SRC"),
            Parameter(("destination",), "The file to write.", "DEST"),
            Parameter(
                ("--check",),
                "A command that has to succeed before the file is written; %s is the new file's name.",
                "COMMAND",
            ),
            Parameter(("--reload",), "A command to run once it was written.", "COMMAND"),
            Parameter(("--mode",), "The permissions of the file, in octal digits.", "MODE"),
            Parameter(("--watch",), "Go on and write it at each change, until Ctrl-C."),
        ),
        more="It needs the extra txserf[templates].",
    ),
    CliCommand(
        "run",
        "Run handlers for the events of the cluster: the same as twistd -n txserf, with all its options.",
        outputs=(),
        handed_on=(),
    ),
    CliCommand(
        "demo",
        "Show a cluster that runs in this process; no Serf is needed. The same as run --embedded 3.",
        outputs=(),
        handed_on=("--embedded", "3"),
    ),
)

BY_NAME = {row.name: row for row in COMMANDS}

#: The exit codes, and what each says.
EXIT_CODES = {
    0: "It was done.",
    1: "The agent refused, or could not be reached.",
    2: "The command line is wrong. Nothing was changed.",
    3: "Not all that was expected came (query, events, wait). The names of the missing are on standard error.",
    130: "It was ended by Ctrl-C.",
}
