"""The base class for tests of ``--http``: a site on an embedded cluster, requested in memory."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from tests.cluster.view_case import ViewCase
from txserf.service.live import Live
from txserf.service.website import Site


class Got(NamedTuple):
    """An answer: its status, its headers by their names in lower case, and its body."""

    status: int
    headers: dict[str, str]
    body: str

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class ReaderTransport(StringTransport):
    """
    The connection of a reader.

    :ivar aborted: whether it was cut off.
    """

    aborted = False

    def __init__(self, address: str = "127.0.0.1") -> None:
        here = IPv4Address("TCP", address, 9100)
        super().__init__(hostAddress=here, peerAddress=IPv4Address("TCP", address, 40000))

    def abortConnection(self) -> None:
        self.aborted = True


class Reader:
    """A connection to a site, by the address that the site listens on."""

    def __init__(self, site: Site, address: str = "127.0.0.1") -> None:
        self.transport = ReaderTransport(address)
        self.protocol: Any = site.buildProtocol(None)
        self.protocol.makeConnection(self.transport)
        self.is_open = True

    def send(self, data: bytes | str) -> None:
        self.protocol.dataReceived(data.encode("latin-1") if isinstance(data, str) else data)

    def request(self, path: str, method: str = "GET", body: str = "", **headers: str) -> None:
        """Send a request of HTTP/1.0, whose answer is not chunked."""
        if body:
            headers = {"Content-Length": str(len(body)), **headers}
        lines = [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        self.send("\r\n".join([f"{method} {path} HTTP/1.0", *lines, "", body]))

    @property
    def text(self) -> str:
        """All that came."""
        return str(self.transport.value().decode())

    @property
    def got(self) -> Got:
        head, _, body = self.text.partition("\r\n\r\n")
        status, *rest = head.split("\r\n")
        pairs = (line.split(": ", 1) for line in rest)
        return Got(int(status.split()[1]), {name.lower(): value for name, value in pairs}, body)

    @property
    def events(self) -> list[tuple[str, Any]]:
        """The server-sent events: their types, ``message`` for plain ones, and their data."""
        found = []
        for block in self.got.body.split("\n\n"):
            fields = dict(
                line.split(": ", 1) for line in block.split("\n") if not line.startswith(":") and line
            )
            if "data" in fields:
                found.append((fields.get("event", "message"), json.loads(fields["data"])))
        return found

    def lose(self) -> None:
        if self.is_open:
            self.is_open = False
            self.protocol.connectionLost(Failure(ConnectionDone()))


class WebCase(ViewCase):
    """
    A test with a cluster of three and a site for it, whose view has been read.

    :ivar live: the view and the stream of the site.
    """

    starts = True

    def setUp(self) -> None:
        super().setUp()
        self.readers: list[Reader] = []
        self.live = Live(self.serf)
        self.views.append(self.live.view)
        self.site = self.make_site()
        if self.starts:
            self.live.startService()
            self.run_for(0.5)

    def make_site(self, **options: Any) -> Site:
        return Site(self.live, reactor=self.clock, **options)

    def end(self, serf: Any) -> None:
        if self.live.running:
            self.live.stopService()
        self.site.close()
        for reader in self.readers:
            reader.lose()
        super().end(serf)

    def connect_reader(self, address: str = "127.0.0.1") -> Reader:
        self.readers.append(Reader(self.site, address))
        return self.readers[-1]

    def follow(self, path: str = "/events", **headers: str) -> Reader:
        """Begin to read server-sent events."""
        reader = self.connect_reader()
        reader.request(path, **headers)
        return reader

    def get(
        self, path: str, method: str = "GET", body: str = "", *, address: str = "127.0.0.1", **headers: str
    ) -> Got:
        """Send a request, and return its answer, which has to come at once."""
        reader = self.connect_reader(address)
        reader.request(path, method, body, **headers)
        return reader.got

    def names(self, path: str) -> list[str]:
        got = self.get(path)
        self.assertEqual(got.status, 200, got.body)
        return [member["name"] for member in got.json]
