"""Fuzzed peers: an agent that says anything to a program, and a stranger that sends anything to an embedded agent."""

from __future__ import annotations

import random
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

import txserf
from tests.fakes import DONE, MEMBER, MEMBERS, answer, user_event
from tests.faults.anything import any_value, broken_bytes, changed, report
from tests.faults.damage import Way
from tests.faults.ledger import packed, unpacker
from tests.faults.programs import BACK, CONNECT, PROGRAMS
from tests.faults.relay import Plans, Relay, join, no_faults
from tests.faults.runs import AUTH_KEY, SECRETS, Report, random_steps
from tests.faults.witness import Witness
from tests.faults.worlds import MemoryWorld

# -- an agent that says anything

_RING = {"Messages": {}, "Keys": {"a2V5": 1}, "NumNodes": 1, "NumErr": 0, "NumResp": 1}
_COORDINATE = {"Adjustment": 0.0, "Error": 1.5, "Height": 1e-5, "Vec": [0.0] * 8}

#: What a well-behaved agent replies, for the commands whose replies have a body.
_REPLIES: dict[str, Any] = {
    "members": MEMBERS, "members-filtered": MEMBERS, "join": {"Num": 1}, "stats": {"agent": {"name": "n1"}},
    "get-coordinate": {"Coord": _COORDINATE, "Ok": True}, "list-keys": _RING, "install-key": _RING,
    "use-key": _RING, "remove-key": _RING,
}  # fmt: skip
_RECORDS: dict[str, list[Any]] = {
    "stream": [
        user_event(),
        {"Event": "query", "ID": 1, "LTime": 1, "Name": "load", "Payload": b"x"},
        {"Event": "member-join", "Members": [MEMBER]},
    ],
    "monitor": [{"Log": "2026/11/24 00:47:08 [INFO] agent: Serf agent starting"}],
    "query": [answer("n1", None, "ack"), answer("n1", b"x"), DONE],
}


class _HostileAgent:
    """An agent's end of a connection. It answers in order at first, and at any moment something else."""

    relay: Relay

    def __init__(self, world: MemoryWorld, rng: random.Random) -> None:
        self._world, self._rng = world, rng
        self._objects = unpacker()
        self._streams: list[tuple[int, str]] = []
        self._polite = rng.randrange(12)  # requests that are answered as they should be
        self._closed = False

    def write(self, data: bytes) -> None:
        self._objects.feed(data)
        for value in self._objects:
            if isinstance(value, dict) and "Command" in value:
                self._world.clock.callLater(0, self._say, self._answer(value["Command"], value["Seq"]))

    def loseConnection(self) -> None:
        self._closed = True

    loseWriteConnection = abortConnection = loseConnection

    def _say(self, data: bytes) -> None:
        if self._closed:
            return
        if data:
            self.relay.received(Way.DOWN, data)
        elif self._rng.random() < 0.3:
            self._closed = True
            self.relay.ended(Way.DOWN)

    def _answer(self, command: str, seq: int) -> bytes:
        rng = self._rng
        self._polite -= 1
        header: Any = {"Error": "", "Seq": seq}
        objects: list[Any] = [header]
        if command in _REPLIES:
            objects.append(_REPLIES[command])
        if command in _RECORDS:
            self._streams.append((seq, command))
        for opened, kind in self._streams:
            for _ in range(rng.randrange(4)):
                objects += [{"Error": "", "Seq": opened}, rng.choice(_RECORDS[kind])]
        if self._polite > 0:
            return packed(*objects)
        return self._broken(header, objects, greeting=command in ("handshake", "auth"))

    def _broken(self, header: Any, objects: list[Any], *, greeting: bool) -> bytes:
        rng, seq = self._rng, header["Seq"]
        how = 8 if greeting and rng.random() < 0.3 else rng.randrange(10)
        if how <= 3:
            place = rng.randrange(len(objects))
            objects[place] = changed(rng, objects[place])
        elif how == 4:
            del objects[rng.randrange(len(objects))]
        elif how == 5:
            objects.insert(rng.randrange(len(objects) + 1), any_value(rng))
        elif how == 6:
            objects = [
                {"Error": rng.choice(("no", "Authentication required", "Handshake required")), "Seq": seq}
            ]
        elif how == 7:
            return packed(*objects)[: rng.randrange(len(packed(*objects)))]
        elif how == 8:
            return packed(*objects[: rng.randrange(len(objects))]) + broken_bytes(rng, deep=greeting)
        else:
            return b""
        return packed(*objects)


@implementer(IStreamClientEndpoint)
class _HostileEndpoint:
    """Connects to a new `_HostileAgent` each time."""

    def __init__(self, world: MemoryWorld, plans: Plans, rng: random.Random) -> None:
        self._world, self._plans, self._rng = world, plans, rng

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        agent = _HostileAgent(self._world, self._rng)
        client, agent.relay = join(self._plans, protocolFactory, agent)
        return succeed(client)


def hostile_agent(seed: str) -> Report:
    """Run a program against an agent that says anything: its calls end, with our errors only."""
    rng = random.Random(seed)
    world = MemoryWorld(no_faults, 1, AUTH_KEY)
    endpoint = _HostileEndpoint(world, world.plans, rng)
    world.hosts = [txserf.Host(endpoint=endpoint, auth_key=AUTH_KEY)]
    face = rng.choice(list(PROGRAMS))
    witness = Witness(world.clock, SECRETS)
    program = PROGRAMS[face](world, witness, rng, "e", True)
    steps = [step for step in random_steps(rng, face, None, rng.randrange(3, 20)) if step != "collect"]

    async def whole() -> None:
        program.begin()
        await program.take(steps)
        await world.until(lambda: not witness.under_way, program.query_limit)
        witness.check_fired(all_of_them=False)
        witness.watch("the end", program.end(), CONNECT + 2.0)
        await world.until(lambda: all(each.fired for each in witness.watched), BACK)
        witness.check_fired(all_of_them=True)
        await world.close()

    return report(f"{face}, an agent of seed {seed}", witness, world, whole())


# -- a stranger at an embedded agent


class _Stranger(Protocol):
    """Sends bytes, and reads what comes."""

    def __init__(self) -> None:
        self.data = b""
        self.lost = False

    def dataReceived(self, data: bytes) -> None:
        self.data += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost = True


_REQUESTS: list[tuple[str, Any]] = [
    ("auth", {"AuthKey": AUTH_KEY}), ("stream", {"Type": "*"}), ("monitor", {"LogLevel": "DEBUG"}),
    ("members", None), ("members-filtered", {"Name": "n.*", "Tags": {"role": "(a|b)*"}, "Status": ""}),
    ("query", {"Name": "x", "FilterTags": {}, "FilterNodes": ["n1"], "RequestAck": True, "Timeout": 10**7}),
    ("event", {"Name": "e", "Payload": b"x", "Coalesce": True}), ("tags", {"Tags": {"a": "1"}, "DeleteTags": ["b"]}),
    ("join", {"Existing": ["127.0.0.1:7947"], "Replay": True}), ("respond", {"ID": 1, "Payload": b""}),
    ("force-leave", {"Node": "n9", "Prune": True}), ("stop", {"Stop": 2}), ("list-keys", None), ("stats", None),
    ("install-key", {"Key": "AAAAAAAAAAAAAAAAAAAAAA=="}), ("get-coordinate", {"Node": "n1"}),
]  # fmt: skip


def stranger(seed: str) -> Report:
    """Send anything to an embedded agent: it logs no failure, and answers the next client."""
    rng = random.Random(seed)
    world = MemoryWorld(no_faults, 1, rng.choice((None, AUTH_KEY)))
    witness = Witness(world.clock)
    serf = txserf.Serf([txserf.Host(endpoint=world.agent, auth_key=world.auth_key)], reactor=world.clock)

    def request(number: int) -> bytes:
        command, body = rng.choice(_REQUESTS)
        objects = [{"Command": command, "Seq": number}, *([] if body is None else [body])]
        if rng.random() < 0.5:
            place = rng.randrange(len(objects))
            objects[place] = changed(rng, objects[place])
        return packed(*objects)

    async def whole() -> None:
        one = await world.agent.connect(Factory.forProtocol(_Stranger))
        assert isinstance(one, _Stranger) and one.transport is not None
        pieces = [
            packed({"Command": "handshake", "Seq": 1}, {"Version": 1}),
            packed(_auth(1), _REQUESTS[0][1]),
        ]
        pieces = pieces[: rng.randrange(3)] + [request(number) for number in range(2, rng.randrange(3, 12))]
        if rng.random() < 0.5:
            pieces.insert(rng.randrange(len(pieces) + 1), broken_bytes(rng, deep=True))
        data = bytearray(b"".join(pieces))
        for _ in range(rng.choice((0, 0, 1, 3))):
            data[rng.randrange(len(data))] = rng.randrange(256)
        while data and not one.lost:
            cut = rng.randrange(1, len(data) + 1)
            one.transport.write(bytes(data[:cut]))
            del data[:cut]
            await world.wait(rng.choice((0.0, 0.01, 1.0)))
        witness.watch("members", serf.members(timeout=5.0), 5.0)
        await world.until(lambda: not witness.under_way, 10.0)
        one.transport.loseConnection()
        witness.watch("the end", serf.close(), 1.0)
        await world.until(lambda: one.lost and not witness.under_way, 10.0)
        witness.check_fired(all_of_them=True)
        await world.close()
        await world.until(lambda: not world.left(), 30.0)

    def succeeded() -> bool:
        return all(each.outcome == "success" for each in witness.watched)

    told = report(f"a stranger of seed {seed}", witness, world, whole())
    if not told.violations and not succeeded():
        return Report(told.what, told.operations, (f"the next client was told {dict(witness.outcomes)}",))
    return told


def _auth(seq: int) -> dict[str, Any]:
    return {"Command": "auth", "Seq": seq}
