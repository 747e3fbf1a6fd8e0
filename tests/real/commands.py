"""The command ``txserf`` in a process of its own, with pipes or in a terminal, for tests on real agents."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

ROOT = Path(__file__).parents[2]
PROGRAM = [sys.executable, "-m", "txserf"]

# Seconds that a command, or a piece of its output, may take.
_PATIENCE = 30.0


def environment(more: Mapping[str, str] = MappingProxyType({})) -> dict[str, str]:
    """Return the variables of a command: those of this process without Serf's, and *more*."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("SERF_")}
    return {**own, "PYTHONPATH": str(ROOT), **more}


def txserf(
    *argv: str, check: int = 0, environ: Mapping[str, str] = MappingProxyType({})
) -> subprocess.CompletedProcess[str]:
    """
    Run a command with pipes.

    :param check: the exit code that it has to have.
    :param environ: variables that it has beside those of this process.
    """
    done = subprocess.run(
        [*PROGRAM, *argv], env=environment(environ), stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=_PATIENCE,
    )  # fmt: skip
    assert "Traceback" not in done.stderr, done.stderr
    assert done.returncode == check, (done.returncode, done.stdout, done.stderr)
    return done


def answer(*argv: str) -> Any:
    """Run a command, and return its output as JSON."""
    return json.loads(txserf(*argv, "-o", "json").stdout)


class InTerminal:
    """
    A command in a terminal of 24 lines of 80 places.

    :ivar shown: all that it has written.
    """

    def __init__(self, *argv: str, **environ: str) -> None:
        self._ours, theirs = pty.openpty()
        # A session of its own, whose terminal this is: Ctrl-C is a signal then.
        self.process = subprocess.Popen(
            [sys.executable, "-c", _TAKE_TERMINAL, *PROGRAM[1:], *argv],
            env=environment({"TERM": "xterm-256color", **environ}), stdin=theirs, stdout=theirs, stderr=theirs,
            start_new_session=True,
        )  # fmt: skip
        os.close(theirs)
        self.shown = ""

    def read_until(self, part: str) -> str:
        """Read until it has written *part*; return all that it has written."""
        deadline = time.monotonic() + _PATIENCE
        while part not in self.shown:
            assert time.monotonic() < deadline, f"no {part!r} in {self.shown!r}"
            if not self._read(deadline):
                break
        assert part in self.shown, self.shown
        return self.shown

    def press(self, keys: bytes) -> None:
        os.write(self._ours, keys)

    def end(self) -> int:
        """Read to the end; return the exit code."""
        deadline = time.monotonic() + _PATIENCE
        while self._read(deadline):
            assert time.monotonic() < deadline, self.shown
        return self.process.wait(_PATIENCE)

    def _read(self, deadline: float) -> bool:
        select.select([self._ours], [], [], max(0.0, deadline - time.monotonic()))
        try:
            data = os.read(self._ours, 65536)
        except OSError as error:
            if error.errno != errno.EIO:  # nobody has the other end open
                raise
            return False
        self.shown += data.decode()
        return bool(data)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._ours)


# The first word behind -c is -m: what follows it is run as python -m runs it.
_TAKE_TERMINAL = """
import fcntl, os, runpy, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


@contextlib.contextmanager
def in_terminal(*argv: str, **environ: str) -> Iterator[InTerminal]:
    """Run a command in a terminal, and kill it at the end if it still runs."""
    running = InTerminal(*argv, **environ)
    try:
        yield running
    finally:
        running.close()


@contextlib.contextmanager
def piped(*argv: str) -> Iterator[subprocess.Popen[str]]:
    """Run a command whose output is a pipe, and kill it at the end if it still runs."""
    process = subprocess.Popen(
        [*PROGRAM, *argv], env=environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        process.communicate()


def has_written(process: subprocess.Popen[str]) -> bool:
    """Whether there is output that nobody has read; nothing may have been read yet."""
    assert process.stdout is not None
    return bool(select.select([process.stdout], [], [], 0.2)[0])
