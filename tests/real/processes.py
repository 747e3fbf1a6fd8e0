"""`twistd txserf` in a separate process, for tests on real agents."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from twisted.internet import error
from twisted.internet.defer import Deferred
from twisted.internet.protocol import ProcessProtocol, connectionDone
from twisted.python.failure import Failure

from tests.real.helpers import Watched, reactor, wait_for

ROOT = Path(__file__).parents[2]


class Twistd(Watched, ProcessProtocol):
    """A running ``twistd -n txserf``: its lines of output, and its log."""

    def __init__(self, folder: Path, *options: str) -> None:
        super().__init__()
        self.lines: list[str] = []
        self.log = ""
        self.ended: Deferred[int | None] = Deferred()
        self.is_gone = False
        self.killed_by: int | None = None
        self._partial = ""
        command = [
            sys.executable,
            "-c",
            "from twisted.scripts.twistd import run; run()",
            "-n",
            "--pidfile=",
            "txserf",
        ]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        self.process = reactor.spawnProcess(
            self, sys.executable, [*command, *options], env=environment, path=str(folder)
        )

    def outReceived(self, data: bytes) -> None:
        *lines, self._partial = (self._partial + data.decode()).split("\n")
        self.lines += lines
        self.changed()

    def errReceived(self, data: bytes) -> None:
        self.log += data.decode()
        self.changed()

    def processEnded(self, reason: Failure = connectionDone) -> None:
        assert isinstance(reason.value, (error.ProcessDone, error.ProcessTerminated))
        self.is_gone = True
        self.killed_by = reason.value.signal
        if not self.ended.called:  # it was cancelled if the test ran out of time
            self.ended.callback(reason.value.exitCode)
        self.changed()

    def gone(self) -> Deferred[None]:
        """Wait until the process has ended."""
        return self.until(lambda: self.is_gone)

    async def logged(self, part: str, times: int = 1) -> None:
        """Wait until the log has *part* at least *times* times."""
        await self.until(lambda: self.log.count(part) >= times)

    @property
    def logged_records(self) -> list[dict[str, Any]]:
        """The records of a JSON log, without a last line that is still incomplete."""
        whole, _, _ = self.log.rpartition("\n")
        return [json.loads(line) for line in whole.splitlines()]

    async def line(self, part: str) -> str:
        """Wait for a line of output that contains *part*."""
        await self.until(lambda: any(part in line for line in self.lines))
        return next(line for line in self.lines if part in line)

    async def record(self, **fields: Any) -> dict[str, Any]:
        """Wait for a JSON object in the output that has these fields."""

        def fits(line: str) -> bool:
            record = json.loads(line)
            return all(record.get(name) == value for name, value in fields.items())

        await self.until(lambda: any(map(fits, self.lines)))
        found: dict[str, Any] = json.loads(next(filter(fits, self.lines)))
        return found


class Start:
    """Starts `Twistd` processes, and ends them after the test."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._started: list[Twistd] = []

    def __call__(self, *options: str) -> Twistd:
        twistd = Twistd(self._folder, *options)
        self._started.append(twistd)
        return twistd

    def end(self) -> None:
        for twistd in self._started:
            if not twistd.is_gone:
                twistd.process.signalProcess("KILL")
                wait_for(twistd.gone())
