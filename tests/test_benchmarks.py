"""The benchmarks work: their harness, and the smallest turn of each table that needs no agent. No time is checked."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path

import pytest
from twisted.trial.unittest import SynchronousTestCase

from benchmarks import goals, results, turns
from benchmarks.goals import Goal
from benchmarks.harness import Sample, Setting, Subject, Table, Turn
from benchmarks.results import Result, Row, Spread
from benchmarks.tables import TABLES

SMALL = Setting(small=True)
# The subjects of these start agents, or need one.
WITH_AGENTS = {name for name, table in TABLES.items() if table.agents} | {"failover", "handlers"}


@pytest.mark.parametrize(
    "subject",
    [
        pytest.param(subject, id=f"{name}: {subject.name}")
        for name, table in TABLES.items()
        for subject in table.subjects
        if name not in WITH_AGENTS
    ],
)
def test_a_subject_measures_turn_after_turn(subject: Subject) -> None:
    assert subject.measure is not None
    turns = subject.measure(SMALL)
    assert isinstance(turns, Iterator)
    first, second = next(turns), next(turns)
    assert [(sample.row, sample.at) for sample in first] == [(sample.row, sample.at) for sample in second]
    assert first and all(sample.value > 0 and math.isfinite(sample.value) for sample in first + second)


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_no_two_subjects_of_a_table_have_one_name(table: Table) -> None:
    names = [subject.name for subject in table.subjects]
    assert len(names) == len(set(names))


def a_result(growth: str = "", base: str = "Go") -> Result:
    rows = [
        Row("Go", "calls/s", [100.0, 200.0, 400.0], [1e-6, 1e-6, 1e-6]),
        Row("Serf", "calls/s", [50.0, 300.0, 800.0], [2e-6, 3e-6, 4e-6]),
    ]
    if growth:
        rows = [Row("Serf", "us", [value], at=at) for at, value in ((1, 8.0), (10, 4.0), (100, 6.0))]
    return Result(name="members", title="members", base=base, growth=growth, rows=rows, left_out={})


class ResultTests(SynchronousTestCase):
    def test_a_ratio_is_of_the_same_turn(self) -> None:
        spread = Spread.of_ratios([50.0, 300.0, 800.0], [100.0, 200.0, 400.0])
        self.assertEqual((spread.least, spread.median, spread.most), (0.5, 1.5, 2.0))

    def test_a_row_has_its_median_its_spread_its_cpu_and_its_ratio(self) -> None:
        header, _, serf = results.cells(a_result())
        self.assertEqual(header, ["", "median (min to max)", "", "CPU a call", "of Go"])
        self.assertEqual(serf, ["Serf", "300 (50.0 to 800)", "calls/s", "3.00 us", "1.50 (0.50 to 2.00)"])

    def test_where_cost_grows_a_row_is_compared_with_the_same_at_the_size_of_the_base(self) -> None:
        lines = results.cells(a_result(growth="calls", base="10"))
        self.assertEqual(lines[0][-1], "of 10 calls")
        self.assertEqual([line[0] for line in lines[1:]], ["Serf, 1", "Serf, 10", "Serf, 100"])
        self.assertEqual([line[-1].split()[0] for line in lines[1:]], ["2.00", "1.00", "1.50"])

    def test_the_rows_of_another_commit_say_how_this_tree_compares(self) -> None:
        result = a_result()
        result.rows.append(Row("Serf at v1", "calls/s", [25.0, 100.0, 400.0], other=" at v1"))
        header, *_, serf, old = results.cells(result)
        self.assertEqual((header[-1], serf[-1], old[-1]), ("this tree's, of it", "", "2.00 (2.00 to 3.00)"))

    def test_what_was_left_out_is_said(self) -> None:
        result = a_result()
        result.left_out["Go"] = "there is no Go"
        self.assertIn("\nleft out: Go: there is no Go\n", results.text(result))

    def test_figures_are_kept_as_json(self) -> None:
        result = a_result()
        self.assertEqual(Result.from_dict(json.loads(json.dumps(results.kept(result)))), result)


class Each:
    """A participant that measures two things at one size."""

    suffix = ""

    def __init__(self, at: int) -> None:
        self.at = at

    def turn(self) -> Turn:
        return [Sample(float(self.at), "us", row=row, at=self.at) for row in ("event", "scan")]


class TurnTests(SynchronousTestCase):
    def test_the_sizes_of_a_row_stand_together_where_each_is_a_subject_of_its_own(self) -> None:
        rows = turns._rows_of_turns([Each(1), Each(10)], range(3))  # type: ignore[list-item]  # of the same kind
        self.assertEqual(
            [(row.name, row.at, row.values) for row in rows],
            [
                ("event", 1, [1.0, 1.0]),
                ("event", 10, [10.0, 10.0]),
                ("scan", 1, [1.0, 1.0]),
                ("scan", 10, [10.0, 10.0]),
            ],
        )


class GoalTests(SynchronousTestCase):
    def cells(self, goal: Goal) -> list[str]:
        self.patch(goals, "GOALS", (goal,))
        (_, line) = goals.cells([a_result()])
        return line

    def test_a_ratio_that_is_high_enough_meets_its_goal(self) -> None:
        goal = Goal(what="rate", table="members", row="Serf", of="Go", at_least=1.5)
        self.assertEqual(self.cells(goal), ["rate", "at least 1.5", "1.50 (0.50 to 2.00)", "yes"])

    def test_a_ratio_that_is_too_low_does_not(self) -> None:
        self.assertEqual(
            self.cells(Goal(what="", table="members", row="Serf", of="Go", at_least=1.6))[-1], "no"
        )

    def test_a_figure_of_its_own_and_the_cpu_have_bounds_too(self) -> None:
        self.assertEqual(self.cells(Goal(what="", table="members", row="Serf", at_most=299))[-1], "no")
        cpu = Goal(what="", table="members", row="Serf", of="Go", cpu=True, at_most=3)
        self.assertEqual(self.cells(cpu)[-2:], ["3.00 (2.00 to 4.00)", "yes"])

    def test_what_was_not_measured_is_not_shown(self) -> None:
        self.assertEqual(goals.text([a_result(growth="calls")]), "")

    def test_a_goal_compares_one_size_with_another(self) -> None:
        flat = Goal(what="", table="members", row="Serf", at=100, of="Serf", of_at=10, at_most=1.3)
        self.patch(goals, "GOALS", (flat,))
        (_, line) = goals.cells([a_result(growth="calls")])
        self.assertEqual(line[-2:], ["1.50 (1.50 to 1.50)", "no"])

    def test_each_goal_names_a_table(self) -> None:
        self.assertEqual({goal.table for goal in goals.GOALS} - set(TABLES), set())


def test_tables_are_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from benchmarks.plot import draw

    draw([a_result(), a_result(growth="calls", base="10")], tmp_path / "figures.png")
    assert (tmp_path / "figures.png").read_bytes().startswith(b"\x89PNG")
