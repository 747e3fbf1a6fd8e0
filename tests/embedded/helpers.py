"""The base class for tests of embedded clusters under a `Clock`, with raw RPC connections to them."""

from __future__ import annotations

import itertools
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IProtocol
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from txserf import wire
from txserf.embedded import EmbeddedCluster


class Line(Protocol):
    """
    A connection to an agent.

    :ivar objects: the objects that came and were not taken yet.
    :ivar data: all bytes that came.
    :ivar lost: the reason of the connection's loss; None while it is open.
    """

    def __init__(self) -> None:
        self._unpacker = wire.Unpacker()
        self.objects: list[Any] = []
        self.data = b""
        self.lost: Failure | None = None

    def dataReceived(self, data: bytes) -> None:
        self.data += data
        self.objects += self._unpacker.feed(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost = reason
        self._unpacker.close()

    def send(self, *objects: Any) -> None:
        assert self.transport is not None
        self.transport.write(
            b"".join(each if isinstance(each, bytes) else wire.pack(each) for each in objects)
        )

    def request(self, command: str, *body: Any, seq: int = 9) -> None:
        self.send({"Command": command, "Seq": seq}, *body)

    def take(self) -> list[Any]:
        """Return the objects that came since the last call."""
        taken, self.objects = self.objects, []
        return taken

    def records(self, seq: int) -> list[Any]:
        """Take the objects that came, and return the records among them that have this Seq."""
        taken = self.take()
        return [
            body
            for header, body in itertools.pairwise(taken)
            if "Seq" in header and header["Seq"] == seq and "Seq" not in body
        ]


class ClusterTestCase(SynchronousTestCase):
    """
    A test with a `Clock` and embedded clusters.

    :cvar clock_class: makes the clock.
    """

    clock_class: type[Clock] = Clock

    def setUp(self) -> None:
        self.clock = self.clock_class()

    def cluster(self, nodes: int = 3, **options: Any) -> EmbeddedCluster:
        """Return a new cluster, with the seed 1 unless *options* has another."""
        return EmbeddedCluster(self.clock, nodes=nodes, **{"seed": 1, **options})

    def connecting(self, cluster: EmbeddedCluster, name: str = "n1") -> Deferred[IProtocol]:
        """Start to connect to an agent, and return the Deferred of the connection."""
        connecting: Deferred[IProtocol] = cluster.agents[name].endpoint().connect(Factory.forProtocol(Line))
        self.clock.advance(0)
        return connecting

    def connect(self, cluster: EmbeddedCluster, name: str = "n1") -> Line:
        """Connect to an agent and make the handshake."""
        line = self.successResultOf(self.connecting(cluster, name))
        assert isinstance(line, Line)
        self.assertEqual(self.ask(line, "handshake", {"Version": 1}), [{"Error": "", "Seq": 9}])
        return line

    def ask(self, line: Line, command: str, *body: Any, within: float = 0.0) -> list[Any]:
        """Send a request, let *within* seconds pass, and return all objects that came."""
        line.request(command, *body)
        self.clock.advance(0)
        if within:
            self.run_for(within)
        return line.take()

    def run_for(self, seconds: float) -> None:
        """Advance the clock in small steps."""
        self.clock.pump([0.05] * round(seconds / 0.05))

    def stream(self, line: Line, kind: str = "*", seq: int = 5) -> None:
        line.request("stream", {"Type": kind}, seq=seq)
        self.clock.advance(0)
        self.assertEqual(line.take(), [{"Error": "", "Seq": seq}])

    def statuses(self, line: Line) -> dict[str, str]:
        """Return the status of each member as an agent sees it. Objects that came before are dropped."""
        body = self.ask(line, "members")[-1]
        return {member["Name"]: member["Status"] for member in body["Members"]}

    def events(self, line: Line, seq: int = 5) -> list[tuple[str, list[str]]]:
        """Take the objects that came, and return the member events among them: kinds and members' names."""
        return [
            (record["Event"], sorted(member["Name"] for member in record["Members"]))
            for record in line.records(seq)
            if "Members" in record
        ]
