"""
Event handler scripts, as ``serf agent -event-handler`` runs them.

Specification, environment, standard input and the rules for the output are those of Serf's agent, so
that a script can't tell them apart. Names and payloads of events go into environment variables
and standard input only, never into a command line.

Serf's source: ``cmd/serf/command/agent/invoke.go`` and ``event_handler.go``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import attrs
from twisted.internet.defer import Deferred

from txserf import processes
from txserf.errors import InvalidRequest
from txserf.filters import EventFilter, parse_filter
from txserf.model import Event, IPAddress, MemberEvent, QueryEvent, UserEvent
from txserf.processes import ScriptFailed
from txserf.wire import as_bytes


def parse_spec(spec: str) -> tuple[tuple[EventFilter, ...], str]:
    """
    Read ``SCRIPT`` or ``FILTER=SCRIPT``; the first ``=`` counts.

    :returns: the elements of the filter, and the script: a command line for a shell.
    :raises InvalidRequest: for a type that Serf does not have, or no script; it does not repeat *spec*.
    """
    if not isinstance(spec, str):
        raise InvalidRequest(f"it must be text as 'user:deploy=./deploy.sh', not {type(spec).__name__}")
    first, equals, rest = spec.partition("=")
    filters, command = (first, rest) if equals else ("", first)
    if not command.strip():
        raise InvalidRequest("it names no script")
    if "\0" in command:
        raise InvalidRequest("there is a NUL in its script")
    return parse_filter(filters or "*"), command


def what_is_wrong(command: str, folder: str = ".") -> str | None:
    """
    Check that a script can run, as far as that can be known before: its first word may be a path.

    :param folder: the folder that it will be run in.
    :returns: the reason why it can't run, or None.
    """
    words = command.split()
    if not words or "/" not in words[0] or set(words[0]) & set("'\"\\$`;&|<>(){}*?[~="):
        return None  # only a shell knows what that means
    path = os.path.join(folder, words[0])
    if not os.path.exists(path):
        return f"{words[0]} does not exist"
    if os.path.isdir(path) or not os.access(path, os.X_OK):
        return f"{words[0]} is not executable"
    return None


# -- the input of a script


@attrs.frozen
class Myself:
    """Name and tags of the agent's own node."""

    name: str
    tags: Mapping[str, str]

    @classmethod
    def from_stats(cls, stats: Mapping[str, Mapping[str, str]]) -> Myself:
        """Read them from the reply to ``stats``."""
        return cls(stats.get("agent", {}).get("name", ""), stats.get("tags", {}))


def _variable(tag: str) -> str:
    # Letter by letter, as Go does. A letter whose upper case has two letters (ß) becomes an underscore.
    letters = (letter.upper() for letter in tag)
    return "".join(c if len(c) == 1 and ((c.isascii() and c.isalnum()) or c == "_") else "_" for c in letters)


def variables(event: Event, myself: Myself) -> dict[bytes, bytes]:
    """
    Return the environment variables that *event* adds to the program's own.

    :raises ScriptFailed: for a value with a NUL, which no environment can hold.
    """
    found = {
        "SERF_EVENT": event.type,
        "SERF_SELF_NAME": myself.name,
        "SERF_SELF_ROLE": myself.tags.get("role", ""),
    }
    for tag, value in myself.tags.items():
        found[f"SERF_TAG_{_variable(tag)}"] = value
    if isinstance(event, UserEvent):
        found |= {"SERF_USER_EVENT": event.name, "SERF_USER_LTIME": str(event.ltime)}
    elif isinstance(event, QueryEvent):
        found |= {"SERF_QUERY_NAME": event.name, "SERF_QUERY_LTIME": str(event.ltime)}
    for variable, value in found.items():
        if "\0" in value:
            raise ScriptFailed(f"not started: there is a NUL in {variable}")
    return {as_bytes(variable): as_bytes(value) for variable, value in found.items()}


def standard_input(event: Event) -> bytes:
    """Return the standard input of a script: the payload, or a line for each member."""
    if isinstance(event, MemberEvent):
        return b"".join(
            _line(member.name, member.address, member.tags.get("role", ""), member.tags)
            for member in event.members
        )
    payload = event.payload
    return payload + b"\n" if payload and not payload.endswith(b"\n") else payload


def _line(name: str, address: IPAddress | None, role: str, tags: Mapping[str, str]) -> bytes:
    def clean(text: str) -> str:
        return text.replace("\t", "\\t").replace("\n", "\\n")

    pairs = ",".join(f"{tag}={value}" for tag, value in tags.items())
    fields = (clean(name), "<nil>" if address is None else str(address), clean(role), clean(pairs))
    return as_bytes("\t".join(fields) + "\n")


def run(
    reactor: Any, command: str, event: Event, myself: Myself, *, rpc_auth: bool = False
) -> Deferred[bytes]:
    """
    Run a script for an event.

    :param command: a command line for a shell.
    :param rpc_auth: whether it gets the key of the agents that the program has in its environment.
    :returns: a Deferred of the last 8,192 bytes of its output. It fires when the script has exited and its
        output is closed, and fails with `ScriptFailed` for another exit code than 0. Cancelling it kills
        the script and the processes that it has started, as far as `txserf.processes` finds them; so
        does the end of the reactor.
    :raises ScriptFailed: at the call, if the script can't be started.
    """
    environment = processes.inherited(rpc_auth) | variables(event, myself)
    return processes.run(reactor, command, standard_input(event), environment)
