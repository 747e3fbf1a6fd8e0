"""The agent's limit: requests that were packed beforehand, and replies that are only counted."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import msgpack

from benchmarks.harness import Setting, Stopwatch, Turn
from txserf import wire

ROW = "the agent's limit"


def dialled(address: str) -> socket.socket:
    """Return a socket whose handshake is over."""
    host, _, port = address.rpartition(":")
    agent = socket.create_connection((host, int(port)), timeout=30)
    agent.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    agent.sendall(wire.pack({"Command": "handshake", "Seq": 1}) + wire.pack({"Version": 1}))
    agent.recv(len(wire.pack({"Error": "", "Seq": 1})), socket.MSG_WAITALL)
    return agent


def reply_size(agent: socket.socket, request: bytes, objects: int) -> int:
    """Send *request*, and return the bytes of its reply, which is *objects* objects."""
    agent.sendall(request)
    unpacker = msgpack.Unpacker(raw=False)
    while objects:
        unpacker.feed(agent.recv(65_536))
        for _ in unpacker:
            objects -= 1
    return int(unpacker.tell())


def members(setting: Setting, in_flight: int) -> Iterator[Turn]:
    # All requests have one Seq, which the agent accepts. So all replies have one length, and counting bytes is enough.
    request = wire.pack({"Command": "members", "Seq": 1})
    room = memoryview(bytearray(262_144))
    with dialled(setting.address) as agent:
        while True:
            size = reply_size(agent, request, objects=2)  # it changes with a member's status
            watch, done, unread = Stopwatch(), 0, 0
            agent.sendall(request * in_flight)
            while watch.seconds() < setting.seconds:
                replies, unread = divmod(unread + agent.recv_into(room), size)
                done += replies
                agent.sendall(request * replies)
            turn = [watch.rate(done)]
            left = in_flight * size - unread
            while left:
                left -= agent.recv_into(room)
            yield turn
