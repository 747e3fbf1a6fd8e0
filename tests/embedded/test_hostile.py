"""Hostile bytes to a listening agent: it goes on, and its memory does not grow."""

from __future__ import annotations

import gc
import random
import resource
import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from tests.contract.harness import in_reactor, reactor, turns, wait_for
from tests.embedded.helpers import ClusterTestCase, Line
from txserf import wire
from txserf.embedded import EmbeddedCluster

SHAKEN = wire.pack({"Command": "handshake", "Seq": 1}) + wire.pack({"Version": 1})
HALF = wire.pack({"Command": "event", "Seq": 2}) + wire.pack({"Name": "x", "Payload": bytes(300)})[:-5]


class Stranger(Protocol):
    """A connection that reads, and tells when it is lost."""

    def __init__(self) -> None:
        self.data = b""
        self.lost: Deferred[None] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        self.data += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost.callback(None)


@pytest.fixture
def address() -> Iterator[Any]:
    """Start an agent that listens on loopback, and give its address."""
    wait_for(turns(0))
    cluster = EmbeddedCluster(reactor, nodes=2, seed=1)
    port = wait_for(cluster.agents["n1"].listen())
    yield port.getHost()
    wait_for(cluster.close())


async def connect(address: Any) -> Stranger:
    endpoint = TCP4ClientEndpoint(reactor, address.host, address.port)
    stranger = await endpoint.connect(Factory.forProtocol(Stranger))
    assert isinstance(stranger, Stranger)
    return stranger


def write(stranger: Stranger, data: bytes) -> None:
    assert stranger.transport is not None
    stranger.transport.write(data)


async def cut(*strangers: Stranger) -> None:
    for stranger in strangers:
        stranger.transport.abortConnection()  # type: ignore[union-attr]  # a TCP transport has it
    await gatherResults([stranger.lost for stranger in strangers])


async def still_answers(address: Any) -> None:
    """Check that the agent answers a valid request."""
    stranger = await connect(address)
    write(stranger, SHAKEN + wire.pack({"Command": "members", "Seq": 2}))
    while stranger.data.count(b"alive") < 2:
        await turns(0.01)
    await cut(stranger)


def memory() -> int:
    """Return the peak memory of this process, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@in_reactor
async def test_it_listens_on_loopback_by_default(address: Any) -> None:
    assert address.host == "127.0.0.1"
    await still_answers(address)


@pytest.mark.parametrize(
    "data",
    [
        b"\xc1",
        b"\x91" * 100_000,  # lists in lists
        b"\x81\xa1x" * 100_000,  # maps in maps
        SHAKEN + b"\x82\xa7Command\xa7members\xa1x" + b"\x91" * 600 + b"\xc0",
        b"\xdd\xff\xff\xff\xff",  # a list of 4 billion
        b"\xdf\xff\xff\xff\xff",  # a map of 4 billion
        b"\xdb\xff\xff\xff\xff" + bytes(1000),  # text of 4 GB
        b"\xc6\xff\xff\xff\xff" + bytes(1000),
        b"\xc9\xff\xff\xff\xff\x05" + bytes(1000),
        b"\xdd\x00\x00\xff\xff" * 20,
        SHAKEN + b"\xc6\x00\x10\x00\x00" + bytes(2**20),  # a megabyte: more than any request
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),  # TLS
    ],
    ids=lambda data: f"{data[:8]!r}-{len(data)}",
)
@in_reactor
async def test_bytes_that_can_not_be_a_request_end_the_connection(data: bytes, address: Any) -> None:
    stranger = await connect(address)
    write(stranger, data)
    await turns(0.1)
    if not stranger.lost.called:  # the agent may still wait for the rest of an object
        write(stranger, bytes(2**20))
    await stranger.lost
    await still_answers(address)


@in_reactor
async def test_random_bytes_do_no_harm(address: Any) -> None:
    rng = random.Random(5)
    for _ in range(300):
        stranger = await connect(address)
        prefix = SHAKEN if rng.random() < 0.5 else b""
        write(stranger, prefix + rng.randbytes(rng.randrange(1, 400)))
        await turns(0)
        await cut(stranger)
    await still_answers(address)


@in_reactor
async def test_requests_with_changed_bytes_do_no_harm(address: Any) -> None:
    rng = random.Random(6)
    whole = SHAKEN + b"".join(
        wire.pack(each)
        for each in (
            {"Command": "stream", "Seq": 2},
            {"Type": "*"},
            {"Command": "query", "Seq": 3},
            {"Name": "x", "FilterTags": {"role": "(a|b)*"}, "RequestAck": True, "Timeout": 10**7},
            {"Command": "members-filtered", "Seq": 4},
            {"Name": "n.*", "Tags": {}, "Status": ""},
            {"Command": "tags", "Seq": 5},
            {"Tags": {}, "DeleteTags": ["a"]},
            {"Command": "respond", "Seq": 6},
            {"ID": 1, "Payload": b"x"},
        )
    )
    for _ in range(300):
        changed = bytearray(whole)
        for _ in range(rng.randrange(1, 4)):
            changed[rng.randrange(len(SHAKEN), len(changed))] = rng.randrange(256)
        stranger = await connect(address)
        write(stranger, bytes(changed))
        await turns(0)
        await cut(stranger)
    await still_answers(address)


@in_reactor
async def test_a_thousand_connections_with_half_a_request_each_do_no_harm(address: Any) -> None:
    await still_answers(address)
    before = memory()
    strangers = [await connect(address) for _ in range(1000)]
    for stranger in strangers:
        write(stranger, SHAKEN + HALF)
    await still_answers(address)
    assert memory() - before < 100 * 2**20
    assert not any(stranger.lost.called for stranger in strangers)
    await cut(*strangers)
    await still_answers(address)


@in_reactor
async def test_requests_of_a_client_that_never_reads_are_not_read_any_more(address: Any) -> None:
    stranger = await connect(address)
    stranger.transport.pauseProducing()  # type: ignore[union-attr]  # a TCP transport has it
    request = wire.pack({"Command": "members", "Seq": 2}) * 1000
    before = memory()
    write(stranger, SHAKEN)
    for _ in range(400):
        write(stranger, request)
        await turns(0)
    # 400,000 replies would be some 160 MB. The requests that the agent has not read wait in this process too.
    assert memory() - before < 60 * 2**20
    await still_answers(address)
    await cut(stranger)


@in_reactor
async def test_a_connection_that_is_cut_while_a_command_works_leaves_nothing(address: Any) -> None:
    for command, body in (
        ("tags", {"Tags": {"a": "1"}}),
        ("list-keys", None),
        ("join", {"Existing": ["127.0.0.1:7947"]}),
    ):
        stranger = await connect(address)
        write(
            stranger, SHAKEN + wire.pack({"Command": command, "Seq": 2}) + (wire.pack(body) if body else b"")
        )
        await turns(0.01)
        await cut(stranger)
    await turns(0.3)
    await still_answers(address)


class StrangerTests(ClusterTestCase):
    """Connections that have not begun with a handshake, in memory."""

    def strangers(self, cluster: EmbeddedCluster, count: int) -> list[Line]:
        lines = [self.successResultOf(self.connecting(cluster)) for _ in range(count)]
        return [line for line in lines if isinstance(line, Line)]

    def test_before_the_handshake_nested_arrays_take_little_memory_and_nothing_is_left_of_them(self) -> None:
        cluster = self.cluster(1)
        claims = (b"\xdd\x00\x00\xff\xff" * 1000, b"\xdd\x00\x00\x00\x10" * 800)
        gc.collect()
        gc.disable()  # what is in no cycle goes by itself
        tracemalloc.start()
        try:
            left: list[int] = []
            for _ in range(4):
                lines = self.strangers(cluster, 20)
                for place, line in enumerate(lines):
                    line.send(claims[place % 2])
                self.clock.advance(0)
                _, peak = tracemalloc.get_traced_memory()
                for line in lines:
                    assert line.transport is not None
                    line.transport.loseConnection()
                self.clock.advance(6)
                del line, lines
                left.append(tracemalloc.get_traced_memory()[0])
        finally:
            tracemalloc.stop()
            gc.enable()
        self.assertLess(peak, 20 * 300_000)
        self.assertLess(left[-1] - left[0], 20 * 3 * 20_000)

    def test_large_requests_in_one_chunk_with_the_handshake_are_taken_however_the_bytes_are_cut(self) -> None:
        cluster = self.cluster(1)
        join = wire.pack({"Command": "event", "Seq": 2}) + wire.pack({"Name": "e", "Payload": b"x" * 6000})
        asked = wire.pack({"Command": "query", "Seq": 3}) + wire.pack(
            {"Name": "q", "FilterNodes": ["n"] * 100}
        )
        data = SHAKEN + join + asked
        too_large = "user event exceeds configured limit of 512 bytes before encoding"
        for place in (*range(len(SHAKEN) + 60), len(data) - 50, len(data)):
            (line,) = self.strangers(cluster, 1)
            for chunk in (data[:place], data[place:]):
                line.send(chunk)
                self.clock.advance(0)
            self.assertEqual(
                line.take()[:3],
                [{"Error": "", "Seq": 1}, {"Error": too_large, "Seq": 2}, {"Error": "", "Seq": 3}],
            )
