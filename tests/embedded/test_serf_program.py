"""The ``serf`` program works on embedded agents."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessDone, ProcessTerminated
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

from tests.agents import serf_binary
from tests.contract.harness import in_reactor, reactor, turns, wait_for
from txserf.embedded import EmbeddedCluster

pytestmark = pytest.mark.real

KEY = "a2tra2tra2tra2tra2traw=="
OTHER = "bGxsbGxsbGxsbGxsbGxsbA=="
AUTH_KEY = "s3cret"


class Run(ProcessProtocol):
    """A running ``serf`` program."""

    def __init__(self) -> None:
        self.output = ""
        self.ended: Deferred[int] = Deferred()
        self._waiting: list[tuple[str, Deferred[None]]] = []

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        self.output += data.decode()
        for entry in tuple(self._waiting):
            if entry[0] in self.output:
                self._waiting.remove(entry)
                entry[1].callback(None)

    def processEnded(self, reason: Failure) -> None:
        assert reason.check(ProcessDone, ProcessTerminated)
        self.ended.callback(getattr(reason.value, "exitCode", None) or 0)

    async def until(self, text: str) -> None:
        """Wait until its output contains *text*."""
        if text not in self.output:
            waiting: Deferred[None] = Deferred()
            self._waiting.append((text, waiting))
            await waiting.addTimeout(10, reactor)


class Serf:
    """Runs ``serf`` against an embedded cluster of ``n1`` with role web, ``n2`` and ``n3``."""

    def __init__(self) -> None:
        self._binary = str(serf_binary())
        self.cluster = EmbeddedCluster(reactor, nodes=0, auth_key=AUTH_KEY, encrypt_key=KEY, seed=1)
        for name, tags in (("n1", {"role": "web"}), ("n2", {}), ("n3", {})):
            self.cluster.add(name, tags)
        hosts = [port.getHost() for port in wait_for(self.cluster.listen())]
        self._ports = [getattr(host, "port", 0) for host in hosts]

    def start(self, *arguments: str, index: int = 0) -> Run:
        run = Run()
        address = f"127.0.0.1:{self._ports[index]}"
        environ = os.environ | {"SERF_RPC_ADDR": address, "SERF_RPC_AUTH": AUTH_KEY}
        reactor.spawnProcess(run, self._binary, [self._binary, *arguments], env=environ)
        return run

    async def __call__(self, *arguments: str, index: int = 0, code: int = 0) -> str:
        run = self.start(*arguments, index=index)
        assert await run.ended == code, run.output
        return run.output


@pytest.fixture
def serf() -> Iterator[Serf]:
    wait_for(turns(0))
    program = Serf()
    yield program
    wait_for(program.cluster.close())


@in_reactor
async def test_members(serf: Serf) -> None:
    listed = json.loads(await serf("members", "-format=json"))
    assert {each["name"]: each["status"] for each in listed["members"]} == dict.fromkeys(
        ["n1", "n2", "n3"], "alive"
    )
    assert [each["addr"] for each in listed["members"] if each["name"] == "n2"] == [
        serf.cluster.agents["n2"].bind
    ]
    assert "n1" in await serf("members", "-role=web") and "n2" not in await serf("members", "-role=web")
    assert await serf("members", "-status=failed") == "\n"


@in_reactor
async def test_a_bad_pattern(serf: Serf) -> None:
    assert "client closed" in await serf("members", "-name=(", code=1)


@in_reactor
async def test_event_query_and_monitor(serf: Serf) -> None:
    serf.cluster.agents["n2"].handle_query("load", lambda event: b"0.31" + event.payload)
    monitor = serf.start("monitor", "-log-level=debug")
    await monitor.until("agent: Serf agent starting")
    assert "dispatched" in await serf("event", "-coalesce=false", "deploy", "v2", index=1)
    await monitor.until('Name: "deploy"')
    assert "dispatched" in await serf("event", "together", index=2)
    await monitor.until('Name: "together"')
    queried = await serf("query", "-timeout=500ms", "load", "1m")
    assert "Response from 'n2': 0.311m" in queried
    assert "Total Acks: 3" in queried and "Total Responses: 1" in queried
    await monitor.until('Event: "query"')
    serf.cluster.fail("n3")
    await monitor.until('Event: "member-failed"')
    monitor.transport.signalProcess("INT")  # type: ignore[union-attr]  # it is a process's
    await monitor.ended


@in_reactor
async def test_info_rtt_and_reachability(serf: Serf) -> None:
    info = await serf("info")
    assert "name = n1" in info and "members = 3" in info and "role = web" in info
    await turns(1.1)  # until the agents have measured their round trips
    assert "Estimated n2 <-> n1 rtt: 0." in await serf("rtt", "n2")
    assert "Estimated n2 <-> n3 rtt: 0." in await serf("rtt", "n2", "n3")
    assert "Successfully contacted all live nodes" in await serf("reachability")


@in_reactor
async def test_keys(serf: Serf) -> None:
    assert f"{KEY}  [3/3]" in await serf("keys", "-list")
    assert "Successfully installed key" in await serf("keys", f"-install={OTHER}")
    assert "Successfully changed primary key" in await serf("keys", f"-use={OTHER}")
    assert "Successfully removed key" in await serf("keys", f"-remove={KEY}")
    serf.cluster.agents["n2"].keyring = None
    failed = await serf("keys", "-list", code=1)
    assert "1/3 nodes reported failure" in failed and "Keyring is empty" in failed


@in_reactor
async def test_tags(serf: Serf) -> None:
    await serf("tags", "-set=dc=east", "-delete=role")
    assert "dc=east" in await serf("members", "-name=n1", index=1)
    assert dict(serf.cluster.agents["n1"].tags) == {"dc": "east"}


@in_reactor
async def test_join_leave_and_force_leave(serf: Serf) -> None:
    alone = serf.cluster.add("n4", join=False)
    assert "contacting 1 nodes" in await serf("join", alone.bind)
    assert "n4" in await serf("members")
    refused = await serf("join", "127.0.0.1:1", code=1)
    assert "Failed to join 127.0.0.1: dial tcp 127.0.0.1:1: connect: connection refused" in refused
    assert "Graceful leave complete" in await serf("leave", index=2)
    assert "left" in await serf("members", "-name=n3")
    await serf("members", index=2, code=1)
    await serf("force-leave", "-prune", "n3")
    assert await serf("members", "-name=n3") == "\n"


@in_reactor
async def test_a_wrong_key_is_refused(serf: Serf) -> None:
    assert "Invalid authentication token" in await serf("members", "-rpc-auth=wrong", code=1)


@in_reactor
async def test_an_agent_that_recovers_listens_on_its_old_port(serf: Serf) -> None:
    serf.cluster.fail("n2")
    await serf("members", index=1, code=1)
    serf.cluster.recover("n2")
    await turns(0.05)
    assert "n2" in await serf("members", index=1)
