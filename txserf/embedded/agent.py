"""One agent of an embedded cluster, as a test holds it: over all of its processes."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import TCP4ServerEndpoint, TCP6ServerEndpoint
from twisted.internet.interfaces import (
    IAddress,
    IListeningPort,
    IStreamClientEndpoint,
    IStreamServerEndpoint,
)
from twisted.internet.protocol import Factory
from twisted.logger import Logger
from zope.interface import implementer

from txserf.embedded.keyring import Keyring
from txserf.embedded.memory import MemoryEndpoint
from txserf.embedded.network import Network, Pool
from txserf.embedded.process import AgentProcess
from txserf.embedded.queries import QueryHandler
from txserf.embedded.server import ServerProtocol
from txserf.model import Tags

_log = Logger(namespace="txserf.embedded")


def tcp_endpoint(reactor: object, interface: str, port: int) -> IStreamServerEndpoint:
    """Return where to listen on a TCP port of an interface, IPv4 or IPv6; 0 is a free one."""
    kind = TCP6ServerEndpoint if ":" in interface else TCP4ServerEndpoint
    endpoint: IStreamServerEndpoint = kind(reactor, port, interface=interface)
    return endpoint


class _AgentFactory(Factory):
    """Makes the server's side of connections, while the agent runs."""

    noisy = False

    def __init__(self, agent: EmbeddedAgent) -> None:
        self._agent = agent

    def buildProtocol(self, addr: IAddress) -> ServerProtocol | None:  # type: ignore[override]
        return self._agent.accept(addr)


@implementer(IListeningPort)
class _Port:
    """
    A port of an agent: closed while the agent is down, open at the same address afterwards.

    :param endpoint: listens first; a TCP port that was chosen then is kept.
    """

    def __init__(self, reactor: object, endpoint: IStreamServerEndpoint, factory: Factory) -> None:
        self._reactor = reactor
        self._endpoint = endpoint
        self._factory = factory
        self._port: IListeningPort | None = None
        self._host: IAddress | None = None
        self._wanted = True

    async def open(self) -> IListeningPort:
        """Listen."""
        port: IListeningPort = await self._endpoint.listen(self._factory)
        self._port, self._host = port, port.getHost()
        if isinstance(self._host, (IPv4Address, IPv6Address)):
            self._endpoint = tcp_endpoint(self._reactor, self._host.host, self._host.port)
        if not self._wanted:
            await self.close()
        return self

    async def close(self) -> None:
        """Listen no more, for now."""
        port, self._port = self._port, None
        if port is not None:
            await maybeDeferred(port.stopListening)

    @property
    def wanted(self) -> bool:
        return self._wanted

    def startListening(self) -> None:
        """It listens already."""

    def stopListening(self) -> Deferred[None]:
        self._wanted = False
        return Deferred.fromCoroutine(self.close())

    def getHost(self) -> IAddress:
        assert self._host is not None
        return self._host


class EmbeddedAgent:
    """
    An agent of an `EmbeddedCluster`, which makes it.

    :ivar name: its node name.
    :ivar latency: seconds that it adds to each round trip with another node; may be set.
    :ivar keyring: its keys, None where gossip is not encrypted; may be set to others, so that a key command fails here.
    """

    def __init__(
        self,
        network: Network[AgentProcess],
        name: str,
        tags: Mapping[str, str],
        address: tuple[ipaddress.IPv4Address, int],
        *,
        default_bind: bool,
        auth_key: str,
        keyring: Keyring | None,
    ) -> None:
        self.name = name
        self.keyring = keyring
        self._initial_tags = Tags(tags)
        self._handlers: dict[str, QueryHandler] = {}
        self._network = network
        self._seat = network.new_seat(name, *address, default_bind=default_bind)
        self._auth_key = auth_key
        self._factory = _AgentFactory(self)
        self._ports: list[_Port] = []

    def __repr__(self) -> str:
        state = "down" if self.process is None else self.process.state.value
        return f"<EmbeddedAgent {self.name}: {state}>"

    # -- its name, address and state

    @property
    def process(self) -> AgentProcess | None:
        """Its process; None while it is down."""
        return self._seat.node

    @property
    def bind(self) -> str:
        """``host:port`` of its gossip, for ``join``."""
        return f"{self._seat.address}:{self._seat.port}"

    @property
    def running(self) -> bool:
        """Whether it runs: it has neither failed nor left."""
        self._network.agenda.catch_up()
        return self.process is not None

    @property
    def tags(self) -> Tags:
        """Its tags now; those that it starts with while it is down."""
        return self._initial_tags if self.process is None else self.process.tags

    @property
    def latency(self) -> float:
        return self._seat.place.latency

    @latency.setter
    def latency(self, seconds: float) -> None:
        self._seat.place.latency = seconds

    @property
    def connections(self) -> int:
        """The number of connections to its RPC."""
        return 0 if self.process is None else len(self.process.connections)

    @property
    def log(self) -> list[str]:
        """The last 512 lines of its log, which begins with the first connection."""
        return [] if self.process is None else list(self.process.log)

    # -- its RPC

    def endpoint(self) -> IStreamClientEndpoint:
        """
        Return an endpoint that connects to it in memory.

        It refuses connections while the agent is down.
        """
        network = self._network
        return MemoryEndpoint(
            lambda: network.agenda.clock,
            IPv4Address("TCP", str(self._seat.address), 7373),
            self.accept,
            network.client_address,
            self.name,
        )

    def listen(self, server_endpoint: IStreamServerEndpoint | None = None) -> Deferred[IListeningPort]:
        """
        Have it listen on a real port, too.

        While the agent is down it does not; afterwards it does again, on the same TCP port.

        :param server_endpoint: where; None for a free TCP port of 127.0.0.1.
        :returns: a Deferred of the port, whose ``getHost()`` has the address. It fails as that of
            the endpoint's own ``listen`` does.
        """
        reactor = self._network.agenda.clock
        port = _Port(reactor, server_endpoint or tcp_endpoint(reactor, "127.0.0.1", 0), self._factory)
        self._ports.append(port)
        return Deferred.fromCoroutine(port.open())

    def accept(self, address: IAddress) -> ServerProtocol | None:
        """Make the server's side of a connection; None while the agent is down."""
        return None if self.process is None else ServerProtocol(self.process, self._auth_key)

    def drop_connections(self) -> None:
        """Cut all connections to its RPC; it takes new ones at once."""
        if self.process is not None:
            self.process.drop_connections(abort=True)

    def pause(self) -> None:
        """
        Let it hang: it accepts connections and answers nothing, and the other nodes hear nothing from it.

        They take it for failed when that lasts (`EmbeddedCluster.failure_detection`).
        """
        self._network.agenda.catch_up()
        if self.process is not None and not self.process.frozen:
            self.process.freeze()
            self._network.look_for_the_unreachable()

    def resume(self) -> None:
        """Let it go on, with all that was sent to it meanwhile."""
        self._network.agenda.catch_up()
        if self.process is not None and self.process.frozen:
            self.process.thaw()
            self._network.reunite()
            self._network.look_for_the_unreachable()

    def handle_query(self, name: str, function: QueryHandler | None) -> None:
        """
        Have it answer queries of a name.

        :param function: called with each `QueryEvent`; returns the answer as bytes or str, None for
            no answer, or an awaitable of one of these, such as a Deferred. An exception is logged, and is
            no answer. None removes the function.
        """
        if function is None:
            self._handlers.pop(name, None)
        else:
            self._handlers[name] = function

    # -- its processes (called by the cluster)

    def start(self, pool: Pool, started_at: float) -> None:
        """Start it, among the nodes of *pool*."""
        process = AgentProcess(
            self._seat,
            self._initial_tags,
            self._network,
            pool,
            started_at,
            owner=self,
            handlers=self._handlers,
            on_end=self._ended,
        )
        self._ports = [port for port in self._ports if port.wanted]
        for port in self._ports:
            Deferred.fromCoroutine(port.open()).addErrback(
                lambda failure: _log.failure("{name} can't listen again", failure, name=self.name)
            )
        process.start()

    def _ended(self) -> None:
        for port in self._ports:
            Deferred.fromCoroutine(port.close())

    async def close(self) -> None:
        """Listen no more, for good."""
        ports, self._ports = self._ports, []
        for port in ports:
            await port.stopListening()
