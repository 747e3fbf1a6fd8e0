"""`twistd txserf` without handlers, as a process on real agents."""

from __future__ import annotations

import json
import re
from datetime import datetime, timedelta

from tests.agents import Agent
from tests.real.helpers import in_reactor
from tests.real.processes import Start


@in_reactor
async def test_the_members_come_first_and_then_every_event(two_agents: list[Agent], twistd: Start) -> None:
    near, far = two_agents
    running = twistd("--agent", near.rpc, "--stream", "user")
    await running.line(f"member {far.name} ")
    assert [line.split()[2] for line in running.lines] == [near.name, far.name]
    far.serf("event", "deploy", "v2")
    assert (await running.line("user deploy")).endswith(" user deploy ltime=1 v2")


@in_reactor
async def test_json_is_one_object_on_each_line_and_nothing_else_on_standard_output(
    agent: Agent, twistd: Start
) -> None:
    running = twistd("--agent", agent.rpc, "--format", "json", "--monitor", "INFO")
    member = await running.record(type="member", name=agent.name)
    assert (member["status"], member["address"]) == ("alive", "127.0.0.1")
    log = await running.record(type="log", text="Serf agent starting")
    assert (log["level"], log["subsystem"]) == ("INFO", "agent")
    agent.serf("event", "deploy", "v2")
    event = await running.record(type="user")
    assert datetime.fromisoformat(event.pop("time")).utcoffset() == timedelta(0)
    assert event == {"type": "user", "name": "deploy", "payload": "v2", "ltime": 1, "coalesce": True}
    running.process.signalProcess("TERM")
    await running.ended
    for line in running.lines:
        assert isinstance(json.loads(line), dict)


@in_reactor
async def test_events_go_on_through_an_agent_that_is_killed_and_started_again(
    agent: Agent, twistd: Start
) -> None:
    running = twistd("--agent", agent.rpc, "--stream", "user")
    await running.line(f"member {agent.name} ")
    agent.serf("event", "before")
    await running.line("user before")
    agent.kill()
    agent.restart()
    await running.line("gap of ")
    agent.serf("event", "after")
    await running.line("user after")


@in_reactor
async def test_it_waits_for_an_agent_that_is_not_there_yet(agent: Agent, twistd: Start) -> None:
    agent.kill()
    running = twistd("--agent", agent.rpc)
    await running.until(lambda: "no connection to" in running.log)
    agent.restart()
    await running.line(f"member {agent.name} ")


@in_reactor
async def test_a_refused_key_ends_it_and_is_not_shown(auth_agent: Agent, twistd: Start) -> None:
    running = twistd("--agent", f"serf://{auth_agent.rpc}?AuthKey=wr0ng-key")
    assert await running.ended == 1
    assert "refused the key" in running.log
    assert "wr0ng-key" not in running.log + "".join(running.lines)


@in_reactor
async def test_a_filter_that_no_agent_has_is_refused_before_anything_is_dialled(
    agent: Agent, twistd: Start
) -> None:
    running = twistd("--agent", agent.rpc, "--stream", "nonsense")
    assert await running.ended == 1
    assert "--stream 'nonsense'" in "".join(running.lines) + running.log
    assert "connected to" not in running.log


@in_reactor
async def test_a_bad_host_list_is_refused_at_once_by_name(twistd: Start) -> None:
    running = twistd("--agent", "127.0.0.1:99999")
    assert await running.ended == 1
    assert "--agent" in running.log + "".join(running.lines)
    assert "99999" in running.log + "".join(running.lines)


@in_reactor
async def test_an_embedded_cluster_shows_each_kind_of_record_by_itself(twistd: Start) -> None:
    running = twistd("--embedded", "3", "--format", "json")
    assert (await running.record(type="member", name="n3"))["status"] == "alive"
    assert (await running.record(type="user"))["payload"] == "v2"
    assert (await running.record(type="query"))["name"] == "load"
    assert (await running.record(type="answer", node="n2"))["payload"] == "1.07"
    for kind in ("join", "update", "failed", "leave", "reap"):
        assert (await running.record(type=f"member-{kind}"))["members"]
    records = [json.loads(line) for line in running.lines]
    assert all(record["time"] for record in records)
    assert "log" not in {record["type"] for record in records}


@in_reactor
async def test_the_log_of_an_embedded_agent_is_shown_if_it_is_asked_for(twistd: Start) -> None:
    running = twistd("--embedded", "1", "--format", "json", "--monitor", "INFO")
    assert (await running.record(type="log"))["subsystem"]


@in_reactor
async def test_an_embedded_cluster_says_what_it_shows_and_how_to_go_on(twistd: Start) -> None:
    running = twistd("--embedded", "3")
    await running.line("member n3")
    first, second, *_ = running.lines
    assert first == "A cluster of 3 agents in this process: its members, then events as they happen."
    assert "Ctrl-C" in second and "txserf events -a" in second


@in_reactor
async def test_it_ends_when_nobody_reads_its_output(twistd: Start) -> None:
    running = twistd("--embedded", "2")
    await running.line("member n2")
    running.process.closeStdout()
    assert await running.ended == 1
    # Two parts of the program write to it. Either may be the first to notice.
    assert re.search(r"stopped (following|showing): \[Errno 32\] Broken pipe", running.log), running.log
    assert "Traceback" not in running.log


@in_reactor
async def test_a_quiet_embedded_cluster_answers_the_serf_program_on_its_ports(
    twistd: Start, shared_cluster: list[Agent]
) -> None:
    # Run the serf program against an embedded agent. Any real agent here can start it.
    running = twistd("--embedded", "2", "--embedded-quiet", "--embedded-port", "17373")
    await running.until(lambda: "embedded agents listen" in running.log)
    told = shared_cluster[0].serf("members", "-rpc-addr=127.0.0.1:17374")
    assert sorted(line.split()[0] for line in told.splitlines()) == ["n1", "n2"]
    await running.line("member n2")
    assert [line.split()[1] for line in running.lines] == ["member", "member"]


@in_reactor
async def test_options_that_do_not_go_together_are_refused(twistd: Start) -> None:
    for options in (
        ("--embedded", "0"),
        ("--embedded", "many"),
        ("--embedded-quiet",),
        ("--embedded", "1", "--agent", "127.0.0.1"),
        ("--format", "xml"),
    ):
        running = twistd(*options)
        assert await running.ended == 1, options
        assert "Traceback" not in running.log, options


@in_reactor
async def test_it_ends_cleanly_on_sigterm(agent: Agent, twistd: Start) -> None:
    running = twistd("--agent", agent.rpc)
    await running.line(f"member {agent.name} ")
    running.process.signalProcess("TERM")
    await running.ended
    assert "Server Shut Down" in running.log
    assert "Traceback" not in running.log
