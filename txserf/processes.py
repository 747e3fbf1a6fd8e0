"""
Runs scripts, and finds and kills their processes.

They are the script's process group, and on Linux also those that have left it: descendants, the sessions that these have
begun, and the processes that hold the script's output open. A process is not found that has begun a session of its
own, whose parent has ended, and whose output goes elsewhere; neither is one that the system hides.
"""

from __future__ import annotations

import contextlib
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

from txserf.errors import SerfError

#: How much of a script's output counts: its last bytes.
OUTPUT_LIMIT = 8192

_SHELL = "/bin/sh"

# Exit codes of a shell that could not start the command.
_NOT_STARTED = {126: "it can't be executed", 127: "it was not found"}

# How often it looks again. A process that is stopped starts no others, so that a second look finds those which were
# started during the first one.
_LOOKS = 5


class ScriptFailed(SerfError):
    """
    A script did not start or did not succeed. The text never has its output.

    :ivar output: the last bytes of its output.
    """

    def __init__(self, message: str = "", *, output: bytes = b"") -> None:
        super().__init__(message)
        self.output = output


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


def run(reactor: Any, command: str, given: bytes, environment: Mapping[bytes, bytes]) -> Deferred[bytes]:
    """
    Run a script.

    :param reactor: an ``IReactorProcess``.
    :param command: a command line for a shell.
    :param given: its standard input.
    :returns: a Deferred of the last 8,192 bytes of its output. It fires when the script has exited and its
        output is closed, and fails with `ScriptFailed` for another exit code than 0. Cancelling it kills
        the script and the processes that it has started, as far as `kill` finds them; so does the end of the reactor.
    :raises ScriptFailed: at the call, if the script can't be started.
    """
    process = _Running(reactor, given)
    try:
        process.start([*_own_group(), _SHELL, "-c", command], environment)
    except OSError as error:
        raise ScriptFailed(f"not started: {error}") from None
    return process.result


# All scripts at work: as children they are the program's, whichever router has started them.
_at_work: set[_Running] = set()


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

    def __init__(self, reactor: Any, fd: int, process: _Running) -> None:
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


class _Running(ProcessProtocol):
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
            self.result.errback(ScriptFailed(f"killed by {_signal_name(status.signal)}", output=self._tail))
        else:
            hint = _NOT_STARTED.get(status.exitCode)
            reason = f"exit code {status.exitCode}" + (f": {hint}" if hint else "")
            self.result.errback(ScriptFailed(reason, output=self._tail))

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
            kill(self._pid, self._pipe, ended=self._status is not None)

    def _cancel(self, _: Deferred[bytes]) -> None:
        self._cancelled = True
        self.kill()
        self._let_go()
        self._output.close()


# -- killing a script


def kill(leader: int, output: int, *, ended: bool) -> None:
    """
    Kill the processes of a script.

    :param leader: the process that was started. It leads a group, or is about to.
    :param output: the inode of the pipe that is the script's output.
    :param ended: whether the leader has exited, so that its number may be another process's.
    """
    _signal_group(leader, signal.SIGSTOP)
    found: set[int] = set()
    for _ in range(_LOOKS):
        new = _find(leader, output, ended) - found
        if not new:
            break
        for pid in new:
            _signal(pid, signal.SIGSTOP)
        found |= new
    _signal_group(leader, signal.SIGKILL)
    for pid in found:
        _signal(pid, signal.SIGKILL)


def _signal(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):  # it has ended, or is another user's
        os.kill(pid, number)


def _signal_group(leader: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, number)


@attrs.frozen
class _Process:
    pid: int
    parent: int
    session: int


def _find(leader: int, output: int, ended: bool) -> set[int]:
    # In its first instant the leader is in this program's session, to which nothing else of the script belongs.
    # The session 0 is any outside of a container.
    foreign = {0, os.getsid(0)}
    others = [process for process in _processes() if process.session not in foreign]
    found = {process.pid for process in others if _holds(process.pid, output)}
    sessions = {process.session for process in others if process.pid in found}
    if not ended:
        found.add(leader)
        sessions.add(leader)
    while True:
        new = [p for p in others if p.pid not in found and (p.parent in found or p.session in sessions)]
        if not new:
            return found
        found.update(process.pid for process in new)
        sessions.update(process.session for process in new)


def _processes() -> list[_Process]:
    """Return all processes of the system; none if it has no ``/proc`` as Linux has it."""
    found = []
    for name in _listed("/proc"):
        if name.isdecimal():
            with contextlib.suppress(OSError, ValueError):  # it has ended, or is hidden
                with open(f"/proc/{name}/stat", "rb") as file:
                    # Its name is in parentheses, and may have any bytes.
                    _, parent, _, session, *_ = file.read().rpartition(b")")[2].split()
                found.append(_Process(int(name), int(parent), int(session)))
    return found


def _holds(pid: int, output: int) -> bool:
    """Whether a process has the writing end of a pipe open."""
    for fd in _listed(f"/proc/{pid}/fd"):
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/{pid}/fd/{fd}") == f"pipe:[{output}]":
                # The link of an end that is only read has no right to write.
                if os.lstat(f"/proc/{pid}/fd/{fd}").st_mode & 0o200:
                    return True
    return False


def _listed(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []
