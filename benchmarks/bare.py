"""The least that a client has to do: the baselines that are not txserf's."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from operator import attrgetter, itemgetter
from typing import Any

import msgpack
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol

UNPACKING = "bare unpacking"


def unpack(chunks: Sequence[bytes]) -> None:
    """Unpack alone, which every client has to do."""
    unpacker = msgpack.Unpacker(raw=False, max_buffer_size=2**30)
    for chunk in chunks:
        unpacker.feed(chunk)
        for _ in unpacker:
            pass


class Bare(Protocol):
    """Packs, unpacks and matches Seq, and does nothing else."""

    def connectionMade(self) -> None:
        self.transport.setTcpNoDelay(True)  # type: ignore[union-attr]  # it is a TCP one
        self.write: Callable[[bytes], object] = self.transport.write  # type: ignore[union-attr]  # it is connected
        self.unpacker = msgpack.Unpacker(raw=False)
        self.packer = msgpack.Packer()
        self.seq = itertools.count()
        self.waiting: dict[int, tuple[Deferred[Any], bool]] = {}
        self.header: dict[str, Any] | None = None

    def call(self, command: str, body: dict[str, Any] | None, replies: bool) -> Deferred[Any]:
        seq = next(self.seq)
        data = self.packer.pack({"Command": command, "Seq": seq})
        if body is not None:
            data += self.packer.pack(body)
        done: Deferred[Any] = Deferred()
        self.waiting[seq] = (done, replies)
        self.write(data)
        return done

    def dataReceived(self, data: bytes) -> None:
        self.unpacker.feed(data)
        for value in self.unpacker:
            header, self.header = self.header, None
            if header is None:
                if self.waiting[value["Seq"]][1]:
                    self.header = value
                else:
                    self.waiting.pop(value["Seq"])[0].callback((value, None))
            else:
                self.waiting.pop(header["Seq"])[0].callback((header, value))


class Value:
    """A member as a slotted value, as plain as can be."""

    __slots__ = ("address", "delegate", "name", "port", "protocol", "status", "tags")

    def __init__(
        self, name: str, address: bytes, port: int, status: str, tags: dict[str, str], *versions: int
    ) -> None:
        self.name = name
        self.address = address
        self.port = port
        self.status = status
        self.tags = tags
        self.protocol = versions[:3]
        self.delegate = versions[3:]


_name = attrgetter("name")
_fields = itemgetter(
    *("Name", "Addr", "Port", "Status", "Tags"),
    *("ProtocolMin", "ProtocolMax", "ProtocolCur", "DelegateMin", "DelegateMax", "DelegateCur"),
)


class StraightLine(Bare):
    """
    The floor of Python code on Twisted, for ``members``: it makes values, and sends what callbacks ask at once.

    It checks nothing, and has no timeouts.
    """

    def dataReceived(self, data: bytes) -> None:
        unsent: list[bytes] = []
        self.write = unsent.append
        self.unpacker.feed(data)
        header = self.header
        for value in self.unpacker:
            if header is None:
                header = value
                if not self.waiting[value["Seq"]][1]:
                    self.waiting.pop(value["Seq"])[0].callback(None)
                    header = None
            else:
                members = [Value(*_fields(record)) for record in value["Members"]]
                members.sort(key=_name)
                self.waiting.pop(header["Seq"])[0].callback(members)
                header = None
        self.header = header
        self.write = self.transport.write  # type: ignore[union-attr]  # it is connected
        requests = b"".join(unsent)
        if requests:
            sent = self.transport.writeSomeData(requests)  # type: ignore[union-attr]  # it is a TCP one
            assert sent == len(requests), "a loopback socket takes a few requests"
