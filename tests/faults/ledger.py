"""Counts the commands that clients send, and the events that an agent has. Nothing of txserf is used here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import msgpack
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

#: The argument, by a command that changes something, that a program gives another value each time.
NAMED = {
    "event": "Name",
    "query": "Name",
    "join": "Existing",
    "tags": "Tags",
    "force-leave": "Node",
    "install-key": "Key",
    "use-key": "Key",
    "remove-key": "Key",
    "respond": "Payload",
}


def unpacker() -> Any:
    # Its buffer begins with `read_size`, which is a megabyte unless it is given: more than what the fuzzers measure.
    return msgpack.Unpacker(raw=False, unicode_errors="surrogateescape", strict_map_key=False, read_size=4096)


def packed(*objects: object) -> bytes:
    return b"".join(
        msgpack.packb(each, use_bin_type=True, unicode_errors="surrogateescape") for each in objects
    )


class Ledger:
    """
    What clients have sent, over all connections.

    :ivar commands: all commands, by name.
    :ivar changes: those that change something, by name and by what they were given.
    """

    def __init__(self) -> None:
        self.commands: Counter[str] = Counter()
        self.changes: Counter[tuple[str, str]] = Counter()

    def reader(self) -> Callable[[bytes], None]:
        """Return what reads the bytes of one connection."""
        objects, command = unpacker(), ""

        def read(data: bytes) -> None:
            nonlocal command
            objects.feed(data)
            for value in objects:
                if "Command" in value and "Seq" in value:
                    command = value["Command"]
                    self.commands[command] += 1
                elif command in NAMED:
                    self.changes[command, repr(value[NAMED[command]])] += 1

        return read

    @property
    def sent_twice(self) -> list[tuple[str, str]]:
        return [change for change, times in self.changes.items() if times > 1]


class Listener(Protocol):
    """
    Follows the user events of an agent on a connection without faults.

    :ivar names: those of the events, in order.
    :ivar ready: fires once no event is missed.
    :ivar gone: fires when the connection is gone.
    :ivar lost: whether the connection is gone.
    """

    _HANDSHAKE, _AUTH, _STREAM, _CONFIRM = range(4)

    def __init__(self, auth_key: str | None) -> None:
        self._auth_key = auth_key
        self.names: list[str] = []
        self.ready: Deferred[None] = Deferred()
        self.gone: Deferred[None] = Deferred()
        self.lost = False
        self._objects = unpacker()
        self._seq = self._CONFIRM

    @classmethod
    async def at(cls, agent: IStreamClientEndpoint, auth_key: str | None) -> Listener:
        """Connect one, and wait until it misses nothing."""
        listener = await agent.connect(Factory.forProtocol(lambda: cls(auth_key)))
        assert isinstance(listener, cls)
        await listener.ready
        return listener

    def connectionMade(self) -> None:
        self._write({"Command": "handshake", "Seq": self._HANDSHAKE}, {"Version": 1})
        if self._auth_key is not None:
            self._write({"Command": "auth", "Seq": self._AUTH}, {"AuthKey": self._auth_key})
        self._write({"Command": "stream", "Seq": self._STREAM}, {"Type": "user"})
        # An agent replies to `stream` a moment before it registers the stream; behind this nothing is missed.
        self._write({"Command": "stop", "Seq": self._CONFIRM}, {"Stop": 2**63})

    def event(self, name: str) -> None:
        """Send a user event that is not coalesced."""
        self._seq += 1
        self._write({"Command": "event", "Seq": self._seq}, {"Name": name, "Payload": b"", "Coalesce": False})

    def close(self) -> Deferred[None]:
        transport: Any = self.transport
        transport.abortConnection()
        return self.gone

    def dataReceived(self, data: bytes) -> None:
        self._objects.feed(data)
        for value in self._objects:
            if "Event" in value:
                self.names.append(value["Name"])
            elif value.get("Seq") == self._CONFIRM:
                self.ready.callback(None)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost = True
        self.gone.callback(None)

    def _write(self, *objects: object) -> None:
        assert self.transport is not None
        self.transport.write(packed(*objects))
