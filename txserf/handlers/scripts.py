"""
Event handler scripts, as ``serf agent -event-handler`` runs them.

Specification, environment, standard input and the rules for the output are those of Serf's agent, so
that a script can't tell them apart. Names and payloads of events go into environment variables
and standard input only, never into a command line.

Serf's source: ``cmd/serf/command/agent/invoke.go`` and ``event_handler.go``.
"""

from __future__ import annotations

import functools
import os
import shutil
import signal
import sys
from collections.abc import Mapping
from typing import Any

import attrs
from twisted.internet import fdesc
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IReadDescriptor
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from txserf.errors import InvalidRequest, SerfError
from txserf.filters import EventFilter, parse_filter
from txserf.handlers import processes
from txserf.model import Event, IPAddress, MemberEvent, QueryEvent, UserEvent
from txserf.wire import as_bytes

#: How much of a script's output counts: its last bytes.
OUTPUT_LIMIT = 8192

_SHELL = "/bin/sh"

# Exit codes of a shell that could not start the command.
_NOT_STARTED = {126: "it can't be executed", 127: "it was not found"}


class ScriptFailed(SerfError):
    """A script did not start or did not succeed. The text never has its output."""


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


# -- running a script


def inherited(rpc_auth: bool) -> dict[bytes, bytes]:
    """
    Return the environment of the program as a script gets it.

    :param rpc_auth: whether the key of the agents stays in it: ``$SERF_RPC_AUTH``, and a ``$SERF_RPC_ADDR`` with a key.
    """
    environment = dict(os.environb)
    if not rpc_auth:
        environment.pop(b"SERF_RPC_AUTH", None)
        if b"?" in environment.get(b"SERF_RPC_ADDR", b""):
            del environment[b"SERF_RPC_ADDR"]
    return environment


def run(
    reactor: Any, command: str, event: Event, myself: Myself, *, rpc_auth: bool = False
) -> Deferred[bytes]:
    """
    Run a script for an event.

    :param command: a command line for a shell.
    :param rpc_auth: whether it gets the key of the agents that the program has in its environment.
    :returns: a Deferred of the last 8,192 bytes of its output. It fires when the script has exited and its
        output is closed, and fails with `ScriptFailed` for another exit code than 0. Cancelling it kills
        the script and the processes that it has started, as far as `txserf.handlers.processes` finds them; so
        does the end of the reactor.
    :raises ScriptFailed: at the call, if the script can't be started.
    """
    environment: dict[bytes, bytes] = inherited(rpc_auth) | variables(event, myself)
    process = _Process(reactor, standard_input(event))
    try:
        process.start([*_own_group(), _SHELL, "-c", command], environment)
    except OSError as error:
        raise ScriptFailed(f"not started: {error}") from None
    return process.result


# All scripts at work: as children they are the program's, whichever router has started them.
_at_work: set[_Process] = set()


def kill_all() -> None:
    """Kill all scripts that are at work."""
    for process in list(_at_work):
        process.kill()


@functools.cache
def _own_group() -> tuple[str, ...]:
    """Return the words before a command that make it the leader of a process group, which can be killed as a whole."""
    setsid = shutil.which("setsid")
    if setsid is not None:
        return (setsid,)
    become = "import os, sys; os.setsid(); os.execv(sys.argv[1], sys.argv[1:])"
    return (sys.executable, "-I", "-S", "-c", become)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal has no name
        return f"signal {number}"


@implementer(IReadDescriptor)
class _Output:
    """Reads the pipe that is both the standard output and the standard error of a script."""

    def __init__(self, reactor: Any, fd: int, process: _Process) -> None:
        self._reactor = reactor
        self._fd = fd
        self._process = process
        fdesc.setNonBlocking(fd)
        reactor.addReader(self)

    def logPrefix(self) -> str:
        return "script"

    def fileno(self) -> int:
        return self._fd

    def doRead(self) -> Failure | None:
        reason: Failure | None = fdesc.readFromFD(self._fd, self._process.written)
        return reason

    def connectionLost(self, reason: Failure) -> None:
        self.close()
        if not reason.check(ConnectionDone):  # not the script has closed it: the reactor ends
            self._process.kill()
        self._process.output_closed()

    def close(self) -> None:
        if self._fd != -1:
            self._reactor.removeReader(self)
            os.close(self._fd)
            self._fd = -1


class _Process(ProcessProtocol):
    """
    One run of a script.

    It is over when the script has exited *and* its output is closed, as for Serf's agent: a process that it has
    left in the background may still write.
    """

    transport: Any

    def __init__(self, reactor: Any, given: bytes) -> None:
        self._reactor = reactor
        self._given = given
        self._tail = b""
        self._status: Failure | None = None
        self._closed = False
        self._cancelled = False
        self._at_end: object = None
        self.result: Deferred[bytes] = Deferred(self._cancel)

    def start(self, argv: list[str], environment: Mapping[bytes, bytes]) -> None:
        ours, theirs = os.pipe()
        self._pipe = os.fstat(ours).st_ino
        self._output = _Output(self._reactor, ours, self)
        try:
            self._reactor.spawnProcess(
                self, argv[0], argv, environment, childFDs={0: "w", 1: theirs, 2: theirs}
            )
        except BaseException:
            self._output.close()
            raise
        finally:
            os.close(theirs)

    def connectionMade(self) -> None:
        self._pid = self.transport.pid
        _at_work.add(self)
        # Not before the shutdown: until then a service may wait for its scripts.
        self._at_end = self._reactor.addSystemEventTrigger("during", "shutdown", self._reactor_ends)
        # A script that does not read its input closes the pipe when it exits. That is no error.
        self.transport.write(self._given)
        self.transport.closeStdin()

    def written(self, data: bytes) -> None:
        self._tail = (self._tail + data)[-OUTPUT_LIMIT:]

    def output_closed(self) -> None:
        self._closed = True
        self._finish()

    def processExited(self, reason: Failure) -> None:
        self._status = reason
        self._finish()

    @property
    def _over(self) -> bool:
        return self._status is not None and self._closed

    def _finish(self) -> None:
        if not self._over:
            return
        self._let_go()
        if self._cancelled:
            return
        assert self._status is not None
        status: Any = self._status.value
        if status.exitCode == 0:
            self.result.callback(self._tail)
        elif status.signal is not None:
            self.result.errback(ScriptFailed(f"killed by {_signal_name(status.signal)}"))
        else:
            hint = _NOT_STARTED.get(status.exitCode)
            self.result.errback(ScriptFailed(f"exit code {status.exitCode}" + (f": {hint}" if hint else "")))

    def _let_go(self) -> None:
        _at_work.discard(self)
        if self._at_end is not None:
            self._reactor.removeSystemEventTrigger(self._at_end)
            self._at_end = None

    def _reactor_ends(self) -> None:
        self._at_end = None
        self.kill()

    def kill(self) -> None:
        """Kill it, with the processes that it has started."""
        # When its leader has exited and its output is closed, the group may be gone, and its id in use by another one.
        if not self._over:
            processes.kill(self._pid, self._pipe, ended=self._status is not None)

    def _cancel(self, _: Deferred[bytes]) -> None:
        self._cancelled = True
        self.kill()
        self._let_go()
        self._output.close()
