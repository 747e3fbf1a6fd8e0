"""The subjects of a table measure in turns, each in a process of its own."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.harness import CACHE, Sample, Setting, Subject, Table, Turn
from benchmarks.results import Result, Row
from tests.agents import cluster

HERE = Path(__file__).parents[1]


class Tree(NamedTuple):
    """
    A tree of txserf's code.

    :ivar suffix: stands behind the names of its rows; empty for this tree.
    """

    folder: Path = HERE
    suffix: str = ""


@contextlib.contextmanager
def tree_of(revision: str) -> Iterator[Tree]:
    """Give txserf of another commit beside these benchmarks."""
    with tempfile.TemporaryDirectory(prefix="txserf-benchmarks-") as folder:
        packed = subprocess.run(
            ["git", "archive", revision, "txserf", "twisted"], cwd=HERE, check=True, capture_output=True
        )
        subprocess.run(["tar", "-x"], cwd=folder, check=True, input=packed.stdout)
        for name in ("benchmarks", "tests"):
            (Path(folder) / name).symlink_to(HERE / name)
        yield Tree(Path(folder), f" at {revision}")


class Participant:
    """The process of a subject."""

    def __init__(self, table: Table, subject: Subject, setting: Setting, tree: Tree) -> None:
        self.subject = subject
        self.suffix = tree.suffix
        if subject.program is not None:
            argv = subject.program(setting)
        else:
            argv = [sys.executable, "-m", "benchmarks.worker", table.name, subject.name, setting.to_json()]
        environ = os.environ | {"PYTHONPATH": str(tree.folder), "PYTHONPYCACHEPREFIX": str(CACHE / "pycache")}
        environ.pop("PYTHONDONTWRITEBYTECODE", None)  # a program imports modules that were compiled before
        self._process = subprocess.Popen(
            argv, cwd=tree.folder, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def turn(self) -> Turn:
        """Measure once."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None and stdout is not None
        with contextlib.suppress(BrokenPipeError):  # it has ended, and the empty line says so
            stdin.write("\n")
            stdin.flush()
        line = stdout.readline()
        if not line:
            raise RuntimeError(f"{self.subject.name} ended; its error is above")
        return [Sample(**sample) for sample in json.loads(line)]

    def close(self) -> None:
        """Let it end."""
        assert self._process.stdin is not None and self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()


def measured(table: Table, setting: Setting, rounds: int, other: Tree | None = None) -> Result:
    """
    Measure a table.

    :param rounds: turns of each subject. One more comes before them, and does not count; not where little is wanted.
    :param other: the tree of another commit, whose rows stand beside those of this one.
    """
    rounds = min(rounds, table.rounds or rounds)
    left_out = {subject.name: why for subject in table.subjects if (why := subject.missing())}
    with contextlib.ExitStack() as stack:
        if table.agents:
            agents = stack.enter_context(cluster(table.agents, log_level="err"))
            setting = Setting(agents[0].rpc, setting.seconds, setting.small)
        taking_part = []
        for subject, tree in itertools.product(table.subjects, (Tree(), other)):
            if subject.name not in left_out and tree is not None and (subject.ours or not tree.suffix):
                taking_part.append(Participant(table, subject, setting, tree))
                stack.callback(taking_part[-1].close)
        rows = _rows_of_turns(taking_part, range(1 if setting.small else 0, rounds + 1))
    return Result(
        name=table.name, title=table.title, base=table.base, growth=table.growth, rows=rows, left_out=left_out
    )


def _rows_of_turns(taking_part: Sequence[Participant], turns: Iterable[int]) -> list[Row]:
    rows: dict[tuple[str, int | None], Row] = {}
    for turn in turns:
        # The order alternates, so that nobody always comes behind the same one.
        for each in taking_part if turn % 2 else reversed(taking_part):
            samples = each.turn()
            if not turn:
                continue
            for sample in samples:
                name = (sample.row or each.subject.name) + each.suffix
                row = rows.setdefault(
                    (name, sample.at), Row(name, sample.unit, at=sample.at, other=each.suffix)
                )
                row.values.append(sample.value)
                if sample.cpu is not None:
                    row.cpu.append(sample.cpu)
    names = list(dict.fromkeys(name for name, _ in rows))  # the sizes of one row stand together
    return sorted(rows.values(), key=lambda row: names.index(row.name))
