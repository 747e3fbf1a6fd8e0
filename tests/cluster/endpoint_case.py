"""The base class for tests of endpoints: views of an embedded cluster, and a reactor that notes what is dialled."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.interfaces import IProtocol
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure

from tests.cluster.view_case import ViewCase

FACTORY = Factory.forProtocol(Protocol)
FACTORY.noisy = False


class EndpointCase(ViewCase):
    """A test whose clock is a reactor, too."""

    clock_class = MemoryReactorClock

    @property
    def dials(self) -> list[Any]:
        """The calls of ``connectTCP``: host, port, factory, timeout, local address."""
        assert isinstance(self.clock, MemoryReactorClock)
        dials: list[Any] = self.clock.tcpClients
        return dials

    @property
    def dialled(self) -> list[tuple[str, int]]:
        return [(host, port) for host, port, *_ in self.dials]

    def accept(self, connecting: Deferred[IProtocol]) -> IProtocol:
        """Make the connection that was dialled last, and return its protocol."""
        protocol = self.dials[-1][2].buildProtocol(None)
        protocol.makeConnection(StringTransport())
        made = self.successResultOf(connecting)
        assert isinstance(made, Protocol)
        return made

    def refuse(self, reason: BaseException | None = None) -> None:
        """Fail the connection that was dialled last."""
        self.dials[-1][2].clientConnectionFailed(
            None, Failure(reason or ConnectionRefusedError("no one there"))
        )

    def add(self, name: str, **tags: str) -> None:
        self.nodes.add(name, tags)
        self.run_for(4.0)  # in which an agent reports it
