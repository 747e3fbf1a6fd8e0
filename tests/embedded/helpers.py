"""An embedded cluster under a `Clock`, and connections to it that are worked by hand."""

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

    :ivar objects: all that came and was not taken.
    :ivar data: the bytes of all that came.
    :ivar lost: why the connection is gone; None while it is not.
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

    def send(self, *objects: Any) -> None:
        assert self.transport is not None
        self.transport.write(
            b"".join(each if isinstance(each, bytes) else wire.pack(each) for each in objects)
        )

    def request(self, command: str, *body: Any, seq: int = 9) -> None:
        self.send({"Command": command, "Seq": seq}, *body)

    def take(self) -> list[Any]:
        """Return what came since the last time."""
        taken, self.objects = self.objects, []
        return taken

    def records(self, seq: int) -> list[Any]:
        """Take what came, and return the records of a Seq among it."""
        taken = self.take()
        return [
            body
            for header, body in itertools.pairwise(taken)
            if "Seq" in header and header["Seq"] == seq and "Seq" not in body
        ]


class ClusterTestCase(SynchronousTestCase):
    """A test with a `Clock` and clusters."""

    def setUp(self) -> None:
        self.clock = Clock()

    def cluster(self, nodes: int = 3, **options: Any) -> EmbeddedCluster:
        """Return a new cluster; a seed of 1 unless another is asked for."""
        return EmbeddedCluster(self.clock, nodes=nodes, **{"seed": 1, **options})

    def connecting(self, cluster: EmbeddedCluster, name: str = "n1") -> Deferred[IProtocol]:
        """Begin to connect to an agent."""
        connecting: Deferred[IProtocol] = cluster.agents[name].endpoint().connect(Factory.forProtocol(Line))
        self.clock.advance(0)
        return connecting

    def connect(self, cluster: EmbeddedCluster, name: str = "n1") -> Line:
        """Connect to an agent and shake hands."""
        line = self.successResultOf(self.connecting(cluster, name))
        assert isinstance(line, Line)
        self.assertEqual(self.ask(line, "handshake", {"Version": 1}), [{"Error": "", "Seq": 9}])
        return line

    def ask(self, line: Line, command: str, *body: Any, within: float = 0.0) -> list[Any]:
        """Send a request; returns all that came by then and was not taken."""
        line.request(command, *body)
        self.clock.advance(0)
        if within:
            self.run_for(within)
        return line.take()

    def run_for(self, seconds: float) -> None:
        """Let time pass in steps, as a reactor would."""
        self.clock.pump([0.05] * round(seconds / 0.05))

    def stream(self, line: Line, kind: str = "*", seq: int = 5) -> None:
        line.request("stream", {"Type": kind}, seq=seq)
        self.clock.advance(0)
        self.assertEqual(line.take(), [{"Error": "", "Seq": seq}])

    def statuses(self, line: Line) -> dict[str, str]:
        """Return the status of each member as an agent sees it; takes all that came before, too."""
        body = self.ask(line, "members")[-1]
        return {member["Name"]: member["Status"] for member in body["Members"]}

    def events(self, line: Line, seq: int = 5) -> list[tuple[str, list[str]]]:
        """Take what came; returns the member events among it: their kinds and their members' names."""
        return [
            (record["Event"], sorted(member["Name"] for member in record["Members"]))
            for record in line.records(seq)
            if "Members" in record
        ]
