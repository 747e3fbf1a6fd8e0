"""
Finds and kills the processes of a script.

They are the script's process group, and on Linux also those that have left it: descendants, the sessions that these have
begun, and the processes that hold the script's output open. A process is not found that has begun a session of its
own, whose parent has ended, and whose output goes elsewhere; neither is one that the system hides.
"""

from __future__ import annotations

import contextlib
import os
import signal

import attrs

# How often it looks again. A process that is stopped starts no others, so that a second look finds those which were
# started during the first one.
_LOOKS = 5


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
