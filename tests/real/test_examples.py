"""Each program of ``examples/`` does on real agents what its docstring says."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.error import ProcessTerminated
from twisted.internet.interfaces import IProcessTransport
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.threads import deferToThread
from twisted.python.failure import Failure

import txserf
from tests.agents import Agent, holds_in_time, new_encrypt_key
from tests.real.helpers import Watched, in_reactor, reactor
from tests.real.web_servers import WebProcess

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted(path.name for path in (ROOT / "examples").glob("*.py"))


class Program(ProcessProtocol, Watched):
    """
    A running example.

    :ivar output: its output so far, with its standard error.
    :ivar code: its exit code; None until it has ended.
    """

    def __init__(self, name: str, *arguments: str, agents: list[Agent]) -> None:
        super().__init__()
        self.output = ""
        self.code: int | None = None
        environ = {**os.environ, "PYTHONPATH": str(ROOT), "SERF_RPC_ADDR": ",".join(a.rpc for a in agents)}
        argv = [sys.executable, str(ROOT / "examples" / name), *arguments]
        self.process: IProcessTransport = reactor.spawnProcess(self, sys.executable, argv, environ)

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        self.output += data.decode()
        self.changed()

    def processEnded(self, reason: Failure) -> None:
        value = reason.value
        self.code = value.exitCode if isinstance(value, ProcessTerminated) else 0
        self.changed()

    async def says(self, pattern: str) -> None:
        """Wait until its output matches *pattern*."""
        await self.until(lambda: re.search(pattern, self.output) is not None or self.code is not None)
        assert re.search(pattern, self.output), self.output

    def ended(self) -> Deferred[None]:
        return self.until(lambda: self.code is not None)

    async def interrupted(self) -> None:
        """End it as Ctrl-C does, and check that it ends without an error."""
        self.process.signalProcess("INT")
        await self.ended()
        assert self.code == 0, self.output
        assert "Traceback" not in self.output, self.output


@pytest.fixture
def programs() -> Iterator[list[Program]]:
    """A list for the programs of a test. Those that still run after the test are killed."""
    running: list[Program] = []
    yield running
    for program in running:
        if program.code is None and program.process.pid is not None:
            os.kill(program.process.pid, signal.SIGKILL)


async def finishes(name: str, *arguments: str, agents: list[Agent], code: int = 0) -> str:
    """Run an example to its end, and return its output."""
    program = Program(name, *arguments, agents=agents)
    await program.ended()
    assert program.code == code, program.output
    assert "Traceback" not in program.output, program.output
    return program.output


@in_reactor
async def test_the_deploy_listener_runs_its_command_for_each_event(
    two_agents: list[Agent], programs: list[Program]
) -> None:
    near, far = two_agents
    listener = Program("deploy_listener.py", "/bin/sh", "-c", "echo got $(cat)", agents=[near])
    programs.append(listener)
    await listener.says("waiting")
    far.serf("event", "-coalesce=false", "deploy", "v1")
    far.serf("event", "-coalesce=false", "deploy", "v2")
    await listener.says(r"(?s)exit code 0: 'got v1\\n'.*exit code 0: 'got v2\\n'")
    await listener.interrupted()


@in_reactor
async def test_the_node_handlers_deploy_and_answer_and_finish_what_they_began(
    two_agents: list[Agent], programs: list[Program], tmp_path: Path
) -> None:
    near, far = two_agents
    script = (
        f"cd {tmp_path}; read version; touch begun-$version; "
        "until [ $version = v1 ] || [ -e go ]; do sleep 0.02; done; echo $version >>versions"
    )
    node = Program("node_handlers.py", script, agents=[near])
    programs.append(node)
    await node.says("waiting")
    far.serf("event", "-coalesce=false", "deploy", "v1")
    await node.says("deploy 1 is done")
    async with txserf.Serf(far.rpc) as serf:
        answers = (await serf.query("load", expect=1, timeout=5)).responses
        assert list(answers) == ["n1"] and float(answers["n1"]) >= 0
    far.serf("event", "-coalesce=false", "deploy", "v2")
    await deferToThread(holds_in_time, (tmp_path / "begun-v2").exists)
    node.process.signalProcess("INT")
    await node.says("finishing")
    (tmp_path / "go").touch()
    await node.ended()
    assert (node.code, (tmp_path / "versions").read_text()) == (0, "v1\nv2\n"), node.output
    assert "deploy 2 is done" in node.output and "Traceback" not in node.output


@in_reactor
async def test_the_cluster_query_prints_each_answer_and_the_nodes_without_one(
    two_agents: list[Agent],
) -> None:
    near, far = two_agents

    def respond(event: Any) -> Deferred[None]:
        done: Deferred[None] = event.respond(b"0.3 and " + event.payload)
        return done

    async with txserf.Serf(near.rpc) as one, txserf.Serf(far.rpc) as other:
        await one.stream("query:load").add_callback(respond).when_active()
        output = await finishes("cluster_query.py", "load", "more", "--timeout", "1", agents=[near], code=1)
        assert output.splitlines() == ["n1: 0.3 and more", "n2: no answer"]
        await other.stream("query:load").add_callback(respond).when_active()
        output = await finishes("cluster_query.py", "load", "more", "--timeout", "30", agents=[near])
        assert sorted(output.splitlines()) == ["n1: 0.3 and more", "n2: 0.3 and more"]


@in_reactor
async def test_the_health_watcher_prints_failures_even_if_its_agent_dies(
    two_agents: list[Agent], programs: list[Program]
) -> None:
    near, far = two_agents
    watcher = Program("health_watcher.py", agents=[near, far])
    programs.append(watcher)
    await watcher.says(r"n1 \(127.0.0.1\): unknown -> alive")
    await watcher.says(r"n2 \(127.0.0.1\): unknown -> alive")
    near.kill()
    await watcher.says("s without an agent")
    await watcher.says("n1 .*: alive -> failed")
    near.start(join=[far])
    await watcher.says("n1 .*: failed -> alive")
    await watcher.interrupted()


@in_reactor
async def test_the_hosts_file_has_the_members_that_are_alive(
    two_agents: list[Agent], programs: list[Program], tmp_path: Path
) -> None:
    near, far = two_agents
    target = tmp_path / "hosts"
    keeper = Program("hosts_file.py", str(target), f"echo reloaded; cp {target} {target}.copy", agents=[near])
    programs.append(keeper)
    copy = tmp_path / "hosts.copy"

    def lines() -> list[str]:
        return copy.read_text().splitlines()[2:] if copy.exists() else []

    both = [f"127.0.0.1 {agent.name}.serf" for agent in two_agents]
    assert await deferToThread(holds_in_time, lambda: lines() == both), keeper.output
    far.kill()
    assert await deferToThread(holds_in_time, lambda: lines() == both[:1]), keeper.output
    far.start(join=[near])
    assert await deferToThread(holds_in_time, lambda: lines() == both), keeper.output
    assert "as n1 sees the cluster" in target.read_text()
    await keeper.interrupted()


@in_reactor
async def test_the_config_push_brings_a_file_to_all_nodes(
    two_agents: list[Agent], programs: list[Program], tmp_path: Path
) -> None:
    near, far = two_agents
    source = tmp_path / "app.conf"
    source.write_bytes(b"level = 11\n\xff")
    targets = [tmp_path / agent.name for agent in two_agents]
    for agent, target in zip(two_agents, targets, strict=True):
        programs.append(Program("config_push.py", "follow", str(target), agents=[agent]))
    await gatherResults([Deferred.fromCoroutine(program.says("following")) for program in programs])
    assert await finishes("config_push.py", "push", str(source), agents=[far]) == "2 nodes have app.conf\n"
    assert [target.read_bytes() for target in targets] == [source.read_bytes()] * 2
    source.write_bytes(b"x" * 600)
    output = await finishes("config_push.py", "push", str(source), agents=[near], code=1)
    assert "the agent says: user event exceeds" in output
    for program in programs:
        await program.interrupted()


@in_reactor
async def test_the_key_rotation_leaves_one_key_everywhere(encrypted_agents: list[Agent]) -> None:
    near, far = encrypted_agents
    key = new_encrypt_key()
    output = await finishes("key_rotation.py", key, agents=[near])
    assert "2 nodes have it, and no other" in output
    async with txserf.Serf(far.rpc) as serf:
        assert (await serf.list_keys()).keys == {key: 2}
    assert "2 nodes have it" in await finishes("key_rotation.py", agents=[far])
    output = await finishes("key_rotation.py", "bad", agents=[near], code=1)
    assert "install-key failed: illegal base64" in output


@in_reactor
async def test_the_rtt_matrix_has_a_row_and_a_column_for_each_member(shared_cluster: list[Agent]) -> None:
    async with txserf.Serf(shared_cluster[0].rpc) as serf:
        while await serf.coordinate("n2") is None:  # until n1 has probed n2 once
            pass
    head, *rows = (await finishes("rtt_matrix.py", agents=shared_cluster[:1])).splitlines()
    assert head.split() == ["n1", "n2"]
    assert [row.split()[0] for row in rows] == ["n1", "n2"]
    for row in rows:
        assert all(re.fullmatch(r"\d+\.\d{3}", cell) for cell in row.split()[1:]), row


@in_reactor
async def test_the_web_client_asks_the_members_of_a_role_whose_servers_live(two_agents: list[Agent]) -> None:
    arguments = ("web_client.py", "web", "http", "/", "4")
    assert "no member is alive" in await finishes(*arguments, agents=two_agents, code=1)
    servers = [WebProcess(agent) for agent in two_agents]
    try:
        for server in servers:
            await server.advertise()
        await deferToThread(holds_in_time, lambda: "role=web" in two_agents[0].serf("members", "-name=n2"))
        assert await finishes(*arguments, agents=two_agents) == "200 n1\n200 n2\n200 n1\n200 n2\n"
        await servers[0].kill()
        assert await finishes(*arguments, agents=two_agents) == "200 n2\n" * 4
    finally:
        for server in servers:
            await server.kill()
    assert "no member could be reached" in await finishes(*arguments, agents=two_agents, code=1)


def test_there_is_a_test_for_each_example() -> None:
    source = Path(__file__).read_text()
    assert [name for name in EXAMPLES if f'"{name}"' not in source] == []
    assert [name for name in EXAMPLES if name not in (ROOT / "examples" / "README.rst").read_text()] == []
