"""Scripts that fail, hang, or never end, on a real agent: the next event is handled."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from twisted.internet.threads import deferToThread

from tests.agents import Agent, holds_in_time
from tests.real.helpers import in_reactor
from tests.real.routers import Run
from txserf.handlers.work import Outcome


def alive(pid: int) -> bool:
    with contextlib.suppress(ProcessLookupError, FileNotFoundError):
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    return False


@in_reactor
async def test_a_script_that_takes_too_long_is_killed_with_all_that_it_started(
    run: Run, tmp_path: Path, agent: Agent, log: list[str]
) -> None:
    running = run(agent, timeout=0.5)
    pids = tmp_path / "pids"
    await running.start(
        f"user:hang=sleep 1000 & echo $! $$ > {pids}; sleep 1000", f"user:after=touch {tmp_path}/after"
    )
    await running.serf.event("hang", coalesce=False)
    await running.serf.event("after", coalesce=False)
    assert await running.ended.count(2) == [Outcome.TIMEOUT, Outcome.OK]
    assert holds_in_time(lambda: not any(alive(int(pid)) for pid in pids.read_text().split()))
    assert (tmp_path / "after").exists()
    assert [line for line in log if "took too long and was cancelled after 0.5" in line]


@in_reactor
async def test_output_without_an_end_takes_no_memory_and_ends_with_the_timeout(
    run: Run, agent: Agent
) -> None:
    running = run(agent, timeout=0.5)
    await running.start("user:endless=yes")
    await running.serf.event("endless", coalesce=False)
    assert await running.ended.count(1) == [Outcome.TIMEOUT]


@in_reactor
async def test_a_stop_kills_what_runs_past_its_limit(run: Run, tmp_path: Path, agent: Agent) -> None:
    running = run(agent, drain=0.3)
    pid = tmp_path / "pid"
    await running.start(f"user:hang=echo $$ > {pid}.new; mv {pid}.new {pid}; sleep 1000")
    await running.serf.event("hang", coalesce=False)
    await deferToThread(holds_in_time, pid.exists)
    await running.service.stopService()
    assert running.ended.outcomes == [Outcome.CANCELLED]
    assert holds_in_time(lambda: not alive(int(pid.read_text())))


@in_reactor
async def test_a_script_that_fails_says_how_in_the_log_and_the_next_event_comes(
    run: Run, agent: Agent, log: list[str]
) -> None:
    running = run(agent)
    await running.start(
        "user:code=exit 3",
        "user:signal=kill -TERM $$",
        "user:none=/no/such",
        "user:not=/etc/passwd",
        "user:ok=true",
    )
    for name in ("code", "signal", "none", "not", "ok"):
        await running.serf.event(name, coalesce=False)
    outcomes = await running.ended.count(5)
    assert outcomes == [Outcome.FAILED] * 4 + [Outcome.OK]
    reasons = [line.rpartition(": ")[2] for line in log if " handled in " not in line]
    told = "\n".join(log)
    assert "exit code 3" in reasons
    for reason in (
        "killed by SIGTERM",
        "exit code 127: it was not found",
        "exit code 126: it can't be executed",
    ):
        assert reason in told


@in_reactor
async def test_a_name_with_nul_is_an_error_and_no_script_is_run(
    run: Run, tmp_path: Path, agent: Agent, log: list[str]
) -> None:
    running = run(agent)
    await running.start(f"user=touch {tmp_path}/$SERF_USER_LTIME")
    await running.serf.event("nul\0name", coalesce=False)
    await running.serf.event("fine", coalesce=False)
    assert await running.ended.count(2) == [Outcome.FAILED, Outcome.OK]
    assert [path.name for path in tmp_path.iterdir()] == ["2"]
    assert "there is a NUL in SERF_USER_EVENT" in "\n".join(log)


@in_reactor
async def test_concurrency_lets_scripts_run_side_by_side(run: Run, tmp_path: Path, agent: Agent) -> None:
    os.mkfifo(tmp_path / "fifo")
    running = run(agent, concurrency=2)
    # Each script waits for the other, so they would hang if they ran one after the other.
    await running.start(f"user:a=echo x > {tmp_path}/fifo", f"user:b=read x < {tmp_path}/fifo")
    for name in ("a", "b"):
        await running.serf.event(name, coalesce=False)
    assert await running.ended.count(2) == [Outcome.OK, Outcome.OK]


@in_reactor
async def test_neither_payload_nor_output_of_a_script_is_logged(
    run: Run, agent: Agent, log: list[str]
) -> None:
    running = run(agent)
    await running.start("user,query=cat; cat >&2; exit 3", r"user=printf '\163\063cret \377'")
    await running.serf.event("a", b"s3cret", coalesce=False)
    await running.serf.query("q", b"s3cret", timeout=0.3)
    assert await running.ended.count(3) == [Outcome.FAILED, Outcome.OK, Outcome.FAILED]
    assert len([line for line in log if line.endswith(": exit code 3")]) == 2
    assert not [line for line in log if "s3cret" in line]
