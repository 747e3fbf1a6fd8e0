"""The parts of a table: what is measured, and what a measurement gives."""

from __future__ import annotations

import importlib.util
import json
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import attrs


@attrs.frozen
class Sample:
    """
    One figure of one turn.

    :ivar value: the figure, in *unit*.
    :ivar unit: a rate ends with ``/s``.
    :ivar cpu: the CPU seconds of the subject's process, for one call; None where they say nothing.
    :ivar row: the row that it belongs to; empty for the row of the subject's name.
    :ivar at: the size that it was measured at, in a table that shows how cost grows.
    """

    value: float
    unit: str
    cpu: float | None = None
    row: str = ""
    at: int | None = None


Turn = list[Sample]

#: A folder for what is made once for a user, and kept.
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "txserf"


@attrs.frozen
class Setting:
    """
    How to measure.

    :ivar address: ``host:port`` of an agent, for the tables that want one.
    :ivar seconds: how long to measure a rate.
    :ivar small: as little as possible, only to see that it works.
    """

    address: str = ""
    seconds: float = 0.5
    small: bool = False

    def number(self, usual: int, small: int = 10) -> int:
        """Return *usual*, and less of it where little is wanted."""
        return min(usual, small) if self.small else usual

    def to_json(self) -> str:
        return json.dumps(attrs.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Setting:
        return cls(**json.loads(text))


Measure = Callable[[Setting], "Iterator[Turn] | AsyncIterator[Turn]"]


@attrs.frozen
class Subject:
    """
    One that takes part in a table. It measures in turns with the others.

    :ivar name: its row.
    :ivar measure: a generator function, or an async one under a reactor: each item is a turn.
    :ivar program: returns the arguments of another program instead, which prints a turn for each line that it reads.
    :ivar ours: it runs txserf's code, so that two commits of it can be compared.
    :ivar missing: returns why it can't be measured here; empty where it can.
    :ivar reactor: ``epoll``, ``asyncio``, ``uvloop``, or empty for Twisted's own choice.
    """

    name: str
    measure: Measure | None = None
    program: Callable[[Setting], list[str]] | None = None
    ours: bool = True
    missing: Callable[[], str] = str
    reactor: str = ""


def without(module: str) -> Callable[[], str]:
    """Return a `Subject.missing` for one that needs a module."""
    return lambda: "" if importlib.util.find_spec(module) else f"{module} is not installed"


@attrs.frozen
class Table:
    """
    Figures that belong together.

    :ivar name: how it is asked for.
    :ivar title: a line about it.
    :ivar subjects: who takes part, in the order of their rows.
    :ivar base: the row that the others are compared with, turn by turn; empty for none.
    :ivar agents: how many agents it wants.
    :ivar growth: what its sizes count, where it shows how cost grows.
    :ivar rounds: the turns of each subject, where that differs from what the user asked for: at the most.
    """

    name: str
    title: str
    subjects: tuple[Subject, ...]
    base: str = ""
    agents: int = 0
    growth: str = ""
    rounds: int | None = None


class Stopwatch:
    """Seconds and CPU seconds of this process since it was made."""

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self._cpu = time.process_time()

    def seconds(self) -> float:
        return time.perf_counter() - self._start

    def cpu(self) -> float:
        """For what waits for nobody: another program on the machine takes no part of them."""
        return time.process_time() - self._cpu

    def rate(self, calls: int) -> Sample:
        """Return *calls* a second, with the CPU of one."""
        return Sample(calls / self.seconds(), "calls/s", self.cpu() / calls)
