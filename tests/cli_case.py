"""The base class for tests of the command ``txserf``: an embedded cluster, a `Clock`, and what was written."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from txserf.cli.main import work
from txserf.cli.parsing import parse
from txserf.embedded import EmbeddedCluster


class Terminal(io.StringIO):
    """A stream that says that it is a terminal."""

    def isatty(self) -> bool:
        return True


class Running:
    """A command that runs, or has run: what it has written, and its exit code."""

    def __init__(self, case: CliCase, out: io.StringIO, done: Deferred[int], err: io.StringIO) -> None:
        self._case = case
        self._out = out
        self._err = err
        self._done = done

    @property
    def output(self) -> str:
        return self._out.getvalue()

    @property
    def lines(self) -> list[str]:
        return self.output.splitlines()

    @property
    def errors(self) -> str:
        return self._err.getvalue()

    @property
    def json(self) -> Any:
        return json.loads(self.output)

    @property
    def has_ended(self) -> bool:
        return self._done.called

    def code(self, after: float = 0.0) -> int:
        """Let so many seconds pass, and return the exit code: it has to be there then."""
        self._case.advance(after)
        return self._case.successResultOf(self._done)

    def cancel(self) -> Deferred[int]:
        self._done.cancel()
        self._case.advance(0)
        return self._done


class CliCase(SynchronousTestCase):
    """
    A test of commands on three nodes, ``n1`` to ``n3``, whose first one is asked.

    :ivar hosts: the agents that commands are given.
    """

    hosts: Sequence[IStreamClientEndpoint]

    def setUp(self) -> None:
        self.clock = Clock()
        self.cluster = EmbeddedCluster(self.clock, nodes=3, seed=1)
        self.hosts = self.cluster.endpoints()
        self.addCleanup(self._close)

    def _close(self) -> None:
        self.cluster.close()
        self.advance(1)

    def advance(self, seconds: float) -> None:
        """Let time pass, in steps."""
        self.clock.pump([0.0, *[0.05] * round(seconds / 0.05), 0.0])

    def start(self, *argv: str, out: io.StringIO | None = None, log: Any = None) -> Running:
        """Start a command."""
        row, values = parse(argv)
        out, err = io.StringIO() if out is None else out, io.StringIO()
        done = Deferred.fromCoroutine(work(self.clock, row, values, self.hosts, out, err, log))
        running = Running(self, out, done, err)
        self.advance(0)
        return running

    def run_command(self, *argv: str, after: float = 0.2) -> Running:
        """Run a command that has to succeed within *after* seconds."""
        running = self.start(*argv)
        self.assertEqual((running.code(after), running.errors), (0, ""))
        return running
