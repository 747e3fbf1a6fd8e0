"""The smallest run of each table that needs agents: all rows come. No time is checked."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import go
from benchmarks.goals import GOALS
from benchmarks.harness import Setting
from benchmarks.results import Result
from benchmarks.tables import TABLES
from benchmarks.turns import measured
from tests.test_benchmarks import WITH_AGENTS

ROOT = Path(__file__).parents[2]
SMALL = Setting(seconds=0.02, small=True)


# Each subject is a process that has to start.
pytestmark = pytest.mark.timeout(180)


@pytest.mark.parametrize(
    "name", sorted(WITH_AGENTS - {"reactors-one"})
)  # it is `reactors` with another number
def test_a_table_has_all_its_rows(name: str) -> None:
    result = measured(TABLES[name], SMALL, rounds=1)
    assert result.rows and all(len(row.values) == 1 and row.values[0] > 0 for row in result.rows)
    names = {row.name for row in result.rows}
    if result.base and not result.growth and result.base not in result.left_out and not go.missing():
        assert result.base in names
    for goal in GOALS:
        if goal.table == name and goal.of not in result.left_out and not go.missing():
            assert {goal.row, goal.of or goal.row} <= names


def test_the_program_keeps_its_figures_and_shows_them_again(tmp_path: Path) -> None:
    file = tmp_path / "figures.json"

    def benchmarks(*arguments: str) -> str:
        argv = [sys.executable, "-m", "benchmarks", *arguments]
        return subprocess.run(argv, cwd=ROOT, check=True, capture_output=True, text=True).stdout

    measured = benchmarks("decoding", "--small", "--rounds=1", f"--json={file}")
    (kept,) = json.loads(file.read_text())["tables"]
    assert [row.name for row in Result.from_dict(kept).rows] == ["bare unpacking", "Serf.members()"]
    assert benchmarks(f"--show={file}") == measured
