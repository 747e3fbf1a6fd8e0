"""A whole cluster in this process, for tests and first steps."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from types import MappingProxyType

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IListeningPort, IStreamClientEndpoint

from txserf.embedded import joining, sizes
from txserf.embedded.agent import EmbeddedAgent, tcp_endpoint
from txserf.embedded.keyring import Keyring
from txserf.embedded.network import Network, Pool
from txserf.embedded.process import AgentProcess
from txserf.errors import hides_arguments

_FIRST_PORT = 7946
_MOST_PORTS = 50_000


class EmbeddedCluster:
    """
    Agents that answer Serf's RPC, with the cluster between them, and no socket or process at all.

    The first nodes have joined each other when it is made. Given a `Clock`, all that takes time takes that clock's,
    and nothing waits for real. Given a *seed* too, two runs are the same.

    :param reactor: gives the time; None for the global one, at first use.
    :param nodes: how many agents there are at first: ``n1``, ``n2``...
    :param auth_key: the key of every agent's RPC; None for none.
    :param seed: of all that is random.
    :param encrypt_key: the key of their gossip, in base64 as ``serf keygen`` makes one; None
        for no encryption, on which all key commands fail.
    :param default_bind: whether their gossip listens on 0.0.0.0, as that of an agent without ``-bind`` does. Each has
        an address of its own then, ``10.0.0.1`` and so on, which it sends in 16 bytes. Otherwise all are on
        127.0.0.1, and send 4 bytes.
    """

    @hides_arguments
    def __init__(
        self,
        reactor: object | None = None,
        *,
        nodes: int = 1,
        auth_key: str | None = None,
        seed: int | None = None,
        encrypt_key: str | None = None,
        default_bind: bool = False,
    ) -> None:
        self._auth_key = auth_key or ""
        self._encrypt_key = encrypt_key
        self._default_bind = default_bind
        self._network: Network[AgentProcess] = Network(reactor, seed)
        self._agents: dict[str, EmbeddedAgent] = {}
        for number in range(1, nodes + 1):
            # The first nodes count as up since ever: their coordinates are known.
            self._new_agent(f"n{number}", {}).start(self._network.home, float("-inf"))

    def __repr__(self) -> str:
        return f"<EmbeddedCluster of {len(self._agents)}>"

    # -- the agents

    @property
    def agents(self) -> Mapping[str, EmbeddedAgent]:
        """All agents by name, in order of their adding, also those that failed or left."""
        return MappingProxyType(self._agents)

    def endpoints(self) -> list[IStreamClientEndpoint]:
        """Return an endpoint in memory for each agent, for use as hosts."""
        return [agent.endpoint() for agent in self._agents.values()]

    def listen(self, port: int = 0, *, interface: str = "127.0.0.1") -> Deferred[list[IListeningPort]]:
        """
        Have all agents listen for real, also.

        :param port: of the first agent; the others take the next ones. 0 for free ones.
        :param interface: the address to listen on. A program that reaches it needs no more than the key, if there is one.
        :returns: a Deferred of the ports, in the order of the agents; it fails where one can't listen.
        """
        reactor = self._network.agenda.clock

        async def listen_all() -> list[IListeningPort]:
            ports: list[IListeningPort] = []
            for number, agent in enumerate(self._agents.values()):
                endpoint = tcp_endpoint(reactor, interface, port and port + number)
                ports.append(await agent.listen(endpoint))
            return ports

        return Deferred.fromCoroutine(listen_all())

    def add(self, name: str, tags: Mapping[str, str] | None = None, *, join: bool = True) -> EmbeddedAgent:
        """
        Start another agent.

        :param tags: those that it starts with, each time.
        :param join: whether it joins the others; else it is alone until a ``join``, for which
            each agent's address is its `EmbeddedAgent.bind`.
        :raises ValueError: for a name that is taken, or for tags over Serf's limit.
        """
        network = self._network
        network.agenda.catch_up()
        if name in self._agents:
            raise ValueError(f"there is a node {name!r} already")
        if sizes.tags(tags or {}) > sizes.TAGS_LIMIT:
            raise ValueError(f"the tags of {name!r} are over the limit of {sizes.TAGS_LIMIT} bytes")
        agent = self._new_agent(name, tags or {})
        agent.start(network.home if join else Pool(network.agenda), network.agenda.seconds())
        return agent

    def _new_agent(self, name: str, tags: Mapping[str, str]) -> EmbeddedAgent:
        number = len(self._agents)
        if self._default_bind:
            address, port = ipaddress.IPv4Address("10.0.0.1") + number, _FIRST_PORT
        else:
            address = ipaddress.IPv4Address("127.0.0.1") + number // _MOST_PORTS
            port = _FIRST_PORT + number % _MOST_PORTS
        keyring = None if self._encrypt_key is None else Keyring(self._encrypt_key)
        agent = self._agents[name] = EmbeddedAgent(
            self._network,
            name,
            tags,
            (address, port),
            default_bind=self._default_bind,
            auth_key=self._auth_key,
            keyring=keyring,
        )
        return agent

    # -- failures, leaves and partitions

    def _agent(self, name: str) -> EmbeddedAgent:
        agent = self._agents.get(name)
        if agent is None:
            raise KeyError(f"there is no node {name!r}")
        return agent

    def fail(self, name: str) -> None:
        """
        Let an agent crash: its connections are lost, its endpoints refuse.

        The others notice after `failure_detection`, and tell their streams a second later.
        """
        agent = self._agent(name)
        self._network.agenda.catch_up()
        if agent.process is not None:
            agent.process.end(abort=True)

    def recover(self, name: str) -> None:
        """
        Start an agent again that failed or left, with the tags that it started with.

        It joins the others, and listens again where it did.
        """
        agent = self._agent(name)
        self._network.agenda.catch_up()
        if agent.process is None:
            agent.start(self._network.home, self._network.agenda.seconds())

    def leave(self, name: str) -> Deferred[None]:
        """
        Let an agent leave, as ``serf leave`` does, and end.

        :returns: a Deferred of None, which fires when it has ended: in a second or a little more.
        """
        agent = self._agent(name)
        agenda = self._network.agenda
        agenda.catch_up()
        process = agent.process
        if process is None:
            return succeed(None)
        process.watch()
        agenda.observed()

        def left(result: object) -> None:
            process.end(abort=False)
            agenda.unobserved()

        return Deferred.fromCoroutine(joining.leave(process)).addBoth(left)

    def partition(self, *sides: Iterable[str]) -> None:
        """
        Cut the network: nodes reach only those of their own side.

        :param sides: names of nodes, such as ``["n1", "n2"], ["n3"]``; all that are on none of
            them are together on one more. A partition that there was is over.
        :raises KeyError: for a name that no node has.
        """
        listed = [tuple(side) for side in sides]
        for name in (name for side in listed for name in side):
            self._agent(name)
        self._network.agenda.catch_up()
        self._network.partition(listed)

    def heal(self) -> None:
        """End a partition: the sides find each other again."""
        self._network.agenda.catch_up()
        self._network.heal()

    @property
    def failure_detection(self) -> float:
        """Seconds until a node that can't be reached counts as failed; 1.0 unless it is set. Serf takes some five."""
        return self._network.detection

    @failure_detection.setter
    def failure_detection(self, seconds: float) -> None:
        self._network.detection = seconds

    # -- the end

    def close(self) -> Deferred[None]:
        """
        Drop all connections and listen no more; nothing of it is left in the reactor.

        :returns: a Deferred of None, which fires when no port is open any more.
        """

        async def close_all() -> None:
            for agent in self._agents.values():
                agent.drop_connections()
                await agent.close()

        return Deferred.fromCoroutine(close_all())
