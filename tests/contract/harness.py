"""
Raw RPC to an agent, real or embedded, for the contract tests.

Nothing here uses txserf's client. `Raw` sends any objects, valid or not, and returns each object
that comes back.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Factory, connectionDone
from twisted.internet.protocol import Protocol as TwistedProtocol
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from tests import agents
from tests.in_reactor import LIMIT as LIMIT
from tests.in_reactor import UNUSED as UNUSED
from tests.in_reactor import in_reactor as in_reactor
from tests.in_reactor import reactor as reactor
from tests.in_reactor import wait_for as wait_for
from tests.namespace import Namespace
from txserf import commands, wire
from txserf.embedded import EmbeddedCluster

#: Seconds to wait for any one object.
PATIENCE = 10.0

#: `Raw.read` returns this once the agent has closed the connection.
CLOSED = "<closed>"


def turns(seconds: float) -> Deferred[None]:
    """Let time pass. Use it only to check that nothing happens, or if the agent gives no sign to wait for."""
    return deferLater(reactor, seconds, lambda: None)


async def takes(least: float, most: float, attempt: Callable[[], Awaitable[float]]) -> None:
    """
    Assert how long something takes, on a machine of any speed.

    A busy machine makes it longer, so one attempt of several that is in time is enough. None may be too short.

    :param attempt: does it, and returns the seconds from before its cause.
    """
    taken: list[float] = []
    while not taken or min(taken) >= most:
        assert len(taken) < 5, f"{taken} seconds, all of them over {most}"
        taken.append(await attempt())
        assert taken[-1] >= least


class Reply(NamedTuple):
    """The reply to a request. *body* is None if the reply has none."""

    error: str
    body: Any = None


class Raw(TwistedProtocol):
    """
    A connection that sends and reads objects.

    :ivar records: the records of each stream, by Seq, that came while waiting for something else.
    """

    def __init__(self) -> None:
        self._unpacker = wire.Unpacker()
        self._objects: deque[Any] = deque()
        self._waiting: Deferred[None] | None = None
        self._seq = 0
        self.records: dict[int, deque[Any]] = {}
        self.lost: Failure | None = None

    def dataReceived(self, data: bytes) -> None:
        self._objects.extend(self._unpacker.feed(data))
        assert self._unpacker.failure is None, self._unpacker.failure
        self._wake()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost = reason
        self._wake()

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.callback(None)

    # -- objects

    def send(self, *objects: Any) -> None:
        """Send objects in one write. Bytes are sent as they are, and all else is packed."""
        assert self.transport is not None
        self.transport.write(
            b"".join(each if isinstance(each, bytes) else wire.pack(each) for each in objects)
        )

    def request(self, command: str, *body: Any, seq: int | None = None) -> int:
        """Send a request without waiting for the reply, and return its Seq."""
        if seq is None:
            self._seq += 1
            seq = self._seq
        self.send({"Command": command, "Seq": seq}, *body)
        return seq

    async def read(self, timeout: float = PATIENCE) -> Any:
        """Return the next object, or `CLOSED`."""
        while not self._objects:
            if self.lost is not None:
                return CLOSED
            self._waiting = Deferred()
            await self._waiting.addTimeout(timeout, reactor)
        return self._objects.popleft()

    async def rest(self) -> list[Any]:
        """Return all objects that come until the agent closes the connection."""
        objects = []
        while (value := await self.read()) != CLOSED:
            objects.append(value)
        return objects

    # -- requests and streams

    async def call(self, command: str, *body: Any, seq: int | None = None) -> Reply:
        """Send a request and return its reply. Records of streams that come before it are kept."""
        return await self.reply(command, self.request(command, *body, seq=seq))

    async def reply(self, command: str, seq: int) -> Reply:
        """Return the reply to a request that was sent before."""
        row = commands.BY_WIRE[command]
        while True:
            header = await self.read()
            assert header != CLOSED, f"closed instead of a reply to {command}"
            assert set(header) == {"Error", "Seq"}, header
            if header["Seq"] == seq:
                break
            await self._keep(header)
        error = header["Error"]
        follows = row.body_on_error if error else row.body_on_success
        if error == "Authentication required":
            follows = False
        body = await self.read() if follows else None
        if row.streams and not error:
            self.records[seq] = deque()
        return Reply(error, body)

    async def ok(self, command: str, *body: Any, seq: int | None = None) -> Any:
        """Send a request that has to succeed, and return the body of its reply."""
        error, reply = await self.call(command, *body, seq=seq)
        assert error == "", error
        return reply

    async def opened(self, command: str, *body: Any) -> int:
        """Open a stream, wait until it misses no event, and return its Seq."""
        seq = self.request(command, *body)
        error, _ = await self.reply(command, seq)
        assert error == "", error
        await self.ok("stop", {"Stop": UNUSED})
        return seq

    async def _keep(self, header: Any) -> None:
        assert header["Seq"] in self.records and header["Error"] == "", f"nobody's: {header}"
        self.records[header["Seq"]].append(await self.read())

    async def record(self, seq: int) -> Any:
        """Return the next record of a stream, or `CLOSED`."""
        while not self.records[seq]:
            header = await self.read()
            if header == CLOSED:
                return CLOSED
            await self._keep(header)
        return self.records[seq].popleft()

    async def record_where(self, seq: int, wanted: Callable[[Any], bool]) -> Any:
        """Return the next record of a stream for which *wanted* is true. Drop those before it."""
        while True:
            record = await self.record(seq)
            assert record != CLOSED, "closed while a record was waited for"
            if wanted(record):
                return record

    async def quiet(self, seconds: float, seq: int) -> list[Any]:
        """Wait some seconds, and return the records of a stream that came. A quiet stream has none."""
        await turns(seconds)
        await self.ok("stop", {"Stop": UNUSED})
        return list(self.records[seq])

    async def all_of_query(self, seq: int) -> list[Any]:
        """Return a query's records up to ``done``, without other records that have no sender."""
        records: list[Any] = []
        while True:
            record = await self.record(seq)
            if record["Type"] == "done":
                return [*records, record]
            if record["From"]:
                records.append(record)


class Cluster(Protocol):
    """A cluster of real or embedded agents. The agent with index 0 is called ``n1``, and so on."""

    kind: str

    def endpoint(self, index: int) -> IStreamClientEndpoint:
        """Return the endpoint of an agent's RPC."""

    def bind(self, index: int) -> str:
        """Return an agent's gossip address."""

    def add(self, name: str) -> int:
        """Start another agent, which joins no other, and return its index."""

    def fail(self, index: int) -> None:
        """Crash an agent."""

    def recover(self, index: int) -> None:
        """Start an agent again, and let it join the first of the others."""

    def pause(self, index: int) -> None:
        """Make an agent hang."""

    def resume(self, index: int) -> None:
        """Let an agent that hangs go on."""

    def close(self) -> None:
        """End all agents."""


class Nodes:
    """A cluster under test, and the connections of the test."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.kind = cluster.kind
        self._connections: list[Raw] = []

    async def connect(self, index: int = 0, *, shaken: bool = True) -> Raw:
        """Connect to an agent, and make the handshake if *shaken*."""
        raw = await self.cluster.endpoint(index).connect(Factory.forProtocol(Raw))
        assert isinstance(raw, Raw)
        self._connections.append(raw)
        if shaken:
            await raw.ok("handshake", {"Version": 1})
        return raw

    async def until(self, condition: Callable[[], Awaitable[bool]]) -> None:
        """Poll *condition* until it is true. Fail if it takes too long."""
        deadline = reactor.seconds() + 2 * PATIENCE
        while not await condition():
            assert reactor.seconds() < deadline, "the condition did not become true in time"
            await turns(0.05)

    async def status(self, raw: Raw, name: str) -> str:
        """Return a member's status as an agent sees it, or "" if it does not know the member."""
        body = await raw.ok("members")
        statuses: dict[str, str] = {member["Name"]: member["Status"] for member in body["Members"]}
        return statuses.get(name, "")

    async def newer(self) -> bool:
        """
        Return whether the agents are of a newer release, which words some things differently.

        The version that an agent reports does not tell them apart. The error of a failed join does.
        """
        error, _ = await (await self.connect()).call("join", {"Existing": ["127.0.0.1:1"]})
        return "Failed to join 127.0.0.1:1:" in error

    async def takes_bin(self) -> bool:
        """
        Return whether the agents were built with a newer codec, which takes bin for text and keeps empty bin.

        The release does not tell: 0.10.2 was, Debian's 0.10.1 was not.
        """
        raw = await self.connect()
        raw.send({"Command": b"stop", "Seq": 7}, {"Stop": 1})
        return bool(await raw.read() != CLOSED)

    async def until_status(self, raw: Raw, name: str, status: str) -> None:
        """Wait until an agent sees a member in a status; "" waits until it does not know the member."""

        async def seen() -> bool:
            return await self.status(raw, name) == status

        await self.until(seen)

    def disconnect(self) -> None:
        """Abort the connections of the test."""
        connections, self._connections = self._connections, []
        for raw in connections:
            if raw.lost is None and raw.transport is not None:
                raw.transport.abortConnection()  # type: ignore[attr-defined]  # every transport of a stream has it
                while raw.lost is None:
                    wait_for(turns(0))


class RealCluster:
    """
    A cluster of ``serf agent`` processes.

    :param default_bind: let their gossip listen on 0.0.0.0, in a network namespace of their own.
    """

    kind = "real"

    def __init__(
        self,
        tags: Sequence[Mapping[str, str]],
        *,
        auth_key: str | None = None,
        encrypt_key: str | None = None,
        default_bind: bool = False,
    ) -> None:
        agents.serf_binary()  # without it no other reason for a skip counts
        with contextlib.ExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="txserf-contract-"))
            self._folder = Path(folder)
            self._namespace: Namespace | None = None
            own: dict[str, Any] = {}
            if default_bind:
                self._namespace = stack.enter_context(contextlib.closing(Namespace(self._folder)))
                own = {"interface": "0.0.0.0", "enter": self._namespace.enter}
            running = agents.cluster(len(tags), rpc_auth=auth_key, encrypt=encrypt_key, tags=tags, **own)
            self._agents = list(stack.enter_context(running))
            if self._namespace is not None:
                self._namespace.relay([agent.rpc.rpartition(":")[2] for agent in self._agents])
            self._stack = stack.pop_all()

    def endpoint(self, index: int) -> IStreamClientEndpoint:
        host, _, port = self._agents[index].rpc.rpartition(":")
        if self._namespace is not None:
            return self._namespace.endpoint(port)
        endpoint: IStreamClientEndpoint = TCP4ClientEndpoint(reactor, host, int(port))
        return endpoint

    def bind(self, index: int) -> str:
        return self._agents[index].bind

    def add(self, name: str) -> int:
        agent = agents.Agent(name, self._folder)
        self._stack.callback(agent.kill)
        agent.start()
        self._agents.append(agent)
        return len(self._agents) - 1

    def fail(self, index: int) -> None:
        self._agents[index].kill()

    def recover(self, index: int) -> None:
        self._agents[index].start(join=[agent for agent in self._agents if agent.running])

    def pause(self, index: int) -> None:
        self._agents[index].pause()

    def resume(self, index: int) -> None:
        self._agents[index].resume()

    def close(self) -> None:
        self._stack.close()


class EmbeddedNodes:
    """An `EmbeddedCluster`, with connections in memory."""

    kind = "embedded"

    def __init__(
        self,
        tags: Sequence[Mapping[str, str]],
        *,
        auth_key: str | None = None,
        encrypt_key: str | None = None,
        default_bind: bool = False,
    ) -> None:
        self._cluster = EmbeddedCluster(
            reactor, nodes=0, auth_key=auth_key, encrypt_key=encrypt_key, default_bind=default_bind
        )
        for number, own in enumerate(tags, 1):
            self._cluster.add(f"n{number}", own)
        self._names = list(self._cluster.agents)

    def endpoint(self, index: int) -> IStreamClientEndpoint:
        return self._cluster.agents[self._names[index]].endpoint()

    def bind(self, index: int) -> str:
        return self._cluster.agents[self._names[index]].bind

    def add(self, name: str) -> int:
        self._cluster.add(name, join=False)
        self._names.append(name)
        return len(self._names) - 1

    def fail(self, index: int) -> None:
        self._cluster.fail(self._names[index])

    def recover(self, index: int) -> None:
        self._cluster.recover(self._names[index])

    def pause(self, index: int) -> None:
        self._cluster.agents[self._names[index]].pause()

    def resume(self, index: int) -> None:
        self._cluster.agents[self._names[index]].resume()

    def close(self) -> None:
        wait_for(self._cluster.close())


KINDS: dict[str, Callable[..., Cluster]] = {"real": RealCluster, "embedded": EmbeddedNodes}
