"""The least that a client has to do: the baselines that are not txserf's."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
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
        self.transport.write(data)  # type: ignore[union-attr]  # it is connected
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
