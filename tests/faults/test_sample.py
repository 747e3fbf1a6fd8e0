"""
A sample of the faults and the fuzzers, always the same: nothing that is promised is broken.

All of it, with other numbers each time: ``python -m tests.faults --minutes 10``.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
from twisted.internet.task import deferLater

from tests.agents import Agent, cluster
from tests.faults.__main__ import EVERYWHERE, Row, memory_turn, real_turn
from tests.faults.damage import Kind
from tests.faults.fuzz import FUZZERS
from tests.faults.programs import PROGRAMS
from tests.faults.runs import AUTH_KEY, cut_run, places, random_memory_run, random_real_run
from tests.in_reactor import in_reactor, reactor

#: The session is broken at one of so many places in the sample. A silence takes more time than the others.
STEPS = {kind: 199 if kind is Kind.SILENCE else 61 for kind in EVERYWHERE}

KINDS = [pytest.param(kind, id=kind.value if kind else "all kinds") for kind in (*Kind, None)]


def told(row: Row, capsys: pytest.CaptureFixture[str]) -> None:
    """Fail with what the row has printed, if it found anything."""
    assert row.runs > 0
    printed = capsys.readouterr().out
    assert row.violations == 0, printed


@pytest.mark.parametrize("kind", EVERYWHERE, ids=lambda kind: kind.value)
@pytest.mark.parametrize("face", PROGRAMS)
def test_a_session_that_breaks_at_any_byte(face: str, kind: Kind, capsys: pytest.CaptureFixture[str]) -> None:
    row = Row("cut")
    for number, fault in itertools.islice(places(face, [kind]), 0, None, STEPS[kind]):
        row.count(cut_run(face, number, fault))
    told(row, capsys)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("face", PROGRAMS)
def test_a_random_program_with_random_faults(
    face: str, kind: Kind | None, capsys: pytest.CaptureFixture[str]
) -> None:
    row = Row("random", lambda number: random_memory_run(face, kind, f"sample/{kind}/{number}"))
    memory_turn(row, 0)
    told(row, capsys)


@pytest.mark.parametrize("name", FUZZERS)
def test_anything(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    row = Row("fuzzed", lambda number: FUZZERS[name](f"sample/{number}"))
    for turn in range(4):
        memory_turn(row, turn * 25)
    told(row, capsys)


@pytest.fixture(scope="module")
def agent_with_key() -> Iterator[Agent]:
    """One agent, for all tests of this module."""
    with cluster(1, rpc_auth=AUTH_KEY) as (agent,):
        yield agent


@pytest.mark.real
@pytest.mark.parametrize("face", PROGRAMS)
@in_reactor
async def test_a_random_program_on_a_real_agent(
    face: str, agent_with_key: Agent, capsys: pytest.CaptureFixture[str]
) -> None:
    # The corrupting ones by themselves, for behind them less is promised.
    kinds = [None, None, *Kind]
    row = Row(
        "real",
        None,
        lambda number: random_real_run(
            reactor, agent_with_key, face, kinds[number % len(kinds)], f"sample/{number}"
        ),
    )
    await deferLater(reactor, 0)  # it may have begun with this test, and has a few readers of its own
    await real_turn(reactor, row, range(len(kinds)))
    told(row, capsys)
