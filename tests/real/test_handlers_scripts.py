"""Scripts can't tell whether ``serf agent -event-handler`` or txserf runs them."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.agents import Agent, cluster, holds_in_time
from tests.real.helpers import in_reactor
from tests.real.routers import Run
from txserf.handlers.work import Outcome


@contextlib.contextmanager
def a_handling_agent_and_a_plain_one(folder: Path, *specs: str) -> Iterator[list[Agent]]:
    """Two agents of one cluster. The first runs the scripts as its own event handlers, the second runs none."""
    with contextlib.ExitStack() as stack:
        handling = Agent("n1", folder, event_handlers=list(specs))
        plain = Agent("n2", folder)
        for agent, join in ((handling, []), (plain, [handling])):
            stack.callback(agent.kill)
            agent.start(join=join)
        for agent in (handling, plain):
            for name in ("n1", "n2"):
                agent.wait_for_member(name, "alive")
        yield [handling, plain]


# -- environment and input

#: A script that saves the environment that it was started with, and its standard input.
KEEP = (
    'd=$KEPT/$SIDE; n=$SERF_EVENT-$SERF_USER_LTIME$SERF_QUERY_LTIME; mkdir -p "$d"; '
    'cat /proc/$$/environ > "$d/$n.env"; cat > "$d/$n.tmp"; mv "$d/$n.tmp" "$d/$n.in"'
)

ODD_TAGS = {"role": "we\tb\nx", "my-tag.x": "v=1,2 'q'", "é": "ü$(x)", "straße": "s", "lower_case9": "\\t"}


EVENTS = [
    ("deploy", b""),
    ("deploy", b"no newline"),
    ("deploy", b"newline\n"),
    ("deploy", b"\n"),
    ("deploy", b"nul\0 and \xff\xfe no text"),
    ("$(touch pwned) `touch pwned`; touch pwned", b"$(touch pwned)"),
    ("quotes ' and \" and \\ and\nnewline", b"x"),
    ("a=b é", "é".encode()),
    ("", b"x"),
    ("large", b"y" * 450),
]


def environment(folder: Path, name: str) -> set[bytes]:
    """Return the environment that a script got, without the differences that the test itself makes."""
    lines = set((folder / f"{name}.env").read_bytes().split(b"\0"))
    # LINES and COLUMNS: readline, which pytest loads, sets them only for the agent.
    return {line for line in lines if not line.startswith((b"SIDE=", b"LINES=", b"COLUMNS="))}


def standard_input(folder: Path, name: str) -> bytes | list[list[bytes]]:
    """Return a script's input. For member events in sorted parts, because Serf writes members and tags in any order."""
    text = (folder / f"{name}.in").read_bytes()
    if not name.startswith("member-"):
        return text
    return sorted(sorted(re.split(b"([\t,\n])", line)) for line in text.splitlines(keepends=True))


@in_reactor
async def test_environment_and_input_are_the_same_byte_by_byte(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs, ours = tmp_path / "agent", tmp_path / "txserf"
    monkeypatch.setenv("KEPT", str(tmp_path))
    monkeypatch.setenv("SIDE", theirs.name)
    spec = f"user,query,member-update,member-join={KEEP}"
    with cluster(1, tags=[ODD_TAGS], event_handlers=[spec]) as (agent,), contextlib.ExitStack() as stack:
        monkeypatch.setenv("SIDE", ours.name)
        assert holds_in_time(
            (theirs / "member-join-.in").exists
        )  # the agent's own join, before ours has started
        (theirs / "member-join-.in").unlink()
        running = run(agent)
        await running.start(spec)
        for number, (name, payload) in enumerate(EVENTS, 1):
            await running.serf.event(name, payload, coalesce=False)
            await running.ended.count(number)
        await running.serf.query("load", b"15m", timeout=0.5)
        await running.ended.count(len(EVENTS) + 1)
        # The environment has the tags that the node has when the script starts.
        await running.serf.set_tags({"new": "1"}, delete=["straße"])
        await running.serf.event("after", coalesce=False)
        other = Agent("n2", tmp_path, tags={"role": "db"})
        stack.callback(other.kill)
        other.start(join=[agent])
        outcomes = await running.ended.count(len(EVENTS) + 4)
        assert outcomes == [Outcome.OK] * (len(EVENTS) + 4)
        names = [f"user-{number}" for number in range(1, len(EVENTS) + 2)]
        names += ["query-1", "member-update-", "member-join-"]
        assert holds_in_time(lambda: len(list(theirs.glob("*.in"))) == len(names))
    for name in names:
        assert environment(ours, name) == environment(theirs, name), name
        assert standard_input(ours, name) == standard_input(theirs, name), name
    after = environment(ours, f"user-{len(EVENTS) + 1}")
    assert {b"SERF_TAG_NEW=1", b"SERF_TAG_MY_TAG_X=v=1,2 'q'", "SERF_TAG__=ü$(x)".encode()} <= after
    assert not any(line.startswith(b"SERF_TAG_STRA_E=") for line in after)
    assert (ours / "member-join-.in").read_bytes() == b"n2\t127.0.0.1\tdb\trole=db\n"
    assert not Path("pwned").exists()


# -- answers

#: Scripts by the name of their query. Serf's answers are the expected ones.
ANSWERS = {
    "plain": "echo 0.31",
    "exactly": "printf 'no newline'",
    "both": "echo out; echo err >&2; echo out",
    "silent": "true",
    "fails": "echo no; exit 3",
    "signal": "echo no; kill -9 $$",
    "binary": r"printf '\377\000\376'",
    "echo": "cat",
    "large": "head -c 2000 /dev/zero",
    "ring": "head -c 20000 /dev/zero; echo end",
    "fits": "head -c 900 /dev/zero",
    "ignores-input": "exec <&-; echo closed",
    "missing": "/no/such/script",
    "not-executable": "/etc/passwd",
    "background": "(sleep 0.3; echo later) & echo first",
    "arguments": "set -- a 'b c'; echo $#",
    "name": "/bin/echo $0",
}


@in_reactor
async def test_answers_are_the_same(run: Run, tmp_path: Path) -> None:
    specs = [f"query:{name}={script}" for name, script in ANSWERS.items()]
    with a_handling_agent_and_a_plain_one(tmp_path, *specs) as (_, plain):
        running = run(plain)
        await running.start(*specs)
        asked = [running.serf.query(name, b"payload", timeout=2.0) for name in ANSWERS]
        answers = {name: (await query).responses for name, query in zip(ANSWERS, asked, strict=True)}
        different = {name: by for name, by in answers.items() if by.get("n1") != by.get("n2")}
        assert different == {}
        assert sum("n2" in by for by in answers.values()) == 10


@in_reactor
async def test_a_script_of_two_filters_runs_twice_and_the_first_answer_counts(
    run: Run, tmp_path: Path
) -> None:
    count = f'echo x >> "{tmp_path}/$SERF_SELF_NAME"; wc -l < "{tmp_path}/$SERF_SELF_NAME"'
    spec = f"query:q,query={count}"
    with a_handling_agent_and_a_plain_one(tmp_path, spec) as (_, plain):
        running = run(plain)
        await running.start(spec)
        result = await running.serf.query("q", timeout=1.0)
        await running.ended.count(2)
        assert {name: answer.strip() for name, answer in result.responses.items()} == {"n1": b"1", "n2": b"1"}
        assert (tmp_path / "n1").read_text() == (tmp_path / "n2").read_text() == "x\nx\n"
