"""Programs: what is done with a `Serf` and with a `Client` while connections go wrong."""

from __future__ import annotations

import base64
import itertools
import random
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

from twisted.internet.defer import Deferred

import txserf
from tests.faults.witness import Mistake, Watched, Witness
from tests.faults.worlds import World
from txserf import Gap, QueryEvent

#: Seconds that a call may take, and that a connection has for its greeting; and between two heartbeats.
CALL, CONNECT, HEARTBEAT = 3.0, 0.5, 0.4

#: Seconds until a program has to be connected again, with its stream active: a heartbeat and its answer, then a round of
#: greetings. Where the answer to the second request of a `Serf` stream was lost, it is asked for again after twice `CALL`.
BACK = 10.0

#: The same where the agent may be at work on a slow command, which is left alone for two minutes (``docs/connecting.rst``).
LATE = 130.0

#: Seconds that an agent collects answers where a query names no timeout, and no more than that.
COLLECT = 2.0

#: What all keys of key commands begin with.
KEY_MARK = base64.b64encode(b"KEY-OF-A-TEST").decode()[:16]

#: Where a stream says that it may have missed something.
GAP = "<gap>"


class Program:
    """
    What a program does with one face of txserf.

    :param name: what all its events begin with.
    :param careful: give each query a timeout, for its end may be lost, or take any time.
    :ivar back: seconds that it may take to be connected again.
    :ivar delivered: the names of the events that its stream delivered, and `GAP`.
    :ivar sure: the names of events that were sent for sure.
    :ivar followed: the end of its stream.
    """

    #: Those operations that are slow commands on the connection that the rest uses.
    slow: frozenset[str]
    #: The operations by name.
    operations: dict[str, Callable[[], object]]
    delivered: list[str]
    followed: Watched

    def __init__(self, world: World, witness: Witness, rng: random.Random, name: str, careful: bool) -> None:
        self.world, self.witness, self.rng = world, witness, rng
        self.careful = careful
        self.back: float = BACK
        self.delivered = []
        self.sure: list[str] = []
        self.tried: list[str] = []
        self._name = name
        self._numbers = itertools.count()
        self._pending: list[tuple[Deferred[Any], Watched]] = []

    def begin(self) -> None:
        """Connect, and open the stream that is followed all along."""
        raise NotImplementedError

    def active(self) -> Deferred[Any]:
        """Wait until no event is missed by the stream."""
        raise NotImplementedError

    def end(self) -> Deferred[Any]:
        """Close it."""
        raise NotImplementedError

    async def take(self, steps: Sequence[str]) -> None:
        """Begin operations, and watch over them; ``wait N`` is a pause of so many milliseconds."""
        for step in steps:
            if step.startswith("wait "):
                await self.world.wait(int(step[5:]) / 1000)
            else:
                self.witness.call(step, self.operations[step])

    def tag(self) -> str:
        """Return a name that was not given yet."""
        return f"{self._name}-{next(self._numbers)}"

    def key(self) -> str:
        return base64.b64encode(b"KEY-OF-A-TEST" + f"{next(self._numbers):03}".encode()).decode()

    def event_name(self) -> str:
        self.tried.append(self.tag())
        return self.tried[-1]

    def under_way(self, what: str, result: Deferred[Any], within: float, then: Any = None) -> None:
        self._pending.append((result, self.witness.watch(what, result, within, then)))

    def cancel(self) -> None:
        """Cancel what was begun some time ago, if it still runs."""
        if self._pending:
            result, watched = self.rng.choice(self._pending[-5:])
            watched.cancelled = True
            result.cancel()

    @property
    def query_limit(self) -> float:
        """Seconds until a query without a timeout of its own has ended, or its connection is known to be lost."""
        return CALL + COLLECT + self.back

    def patience(self) -> float:
        """Choose a timeout: mostly a long one."""
        return self.rng.choice((CALL, CALL, CALL, 0.3, 0.05))


class SerfProgram(Program):
    """A program with a `Serf`."""

    slow = frozenset({"set_tags", "force_leave"})

    def __init__(self, world: World, witness: Witness, rng: random.Random, name: str, careful: bool) -> None:
        super().__init__(world, witness, rng, name, careful)
        self.serf = txserf.Serf(
            world.hosts, reactor=world.clock, timeout=CALL, connect_timeout=CONNECT, heartbeat=HEARTBEAT
        )
        self.serf.factory.maxDelay = 0.2
        self._streams: list[Any] = []
        serf, call = self.serf, self._call
        self.operations = {
            "members": lambda: call("members", serf.members),
            "members by filter": lambda: call(
                "members by filter", serf.members, name="n[12]", status="alive"
            ),
            "stats": lambda: call("stats", serf.stats),
            "coordinate": lambda: call("coordinate", serf.coordinate, "n1"),
            "rtt": lambda: call("rtt", serf.rtt, "n1", "n1"),
            "ping": lambda: call("ping", serf.ping),
            "event": self._event,
            "set_tags": lambda: call("set_tags", serf.set_tags, {"t": self.tag()}),
            "join": lambda: call("join", serf.join, [f"{self.tag()}/{world.joinable}"]),
            "force_leave": lambda: call("force_leave", serf.force_leave, self.tag()),
            "list_keys": lambda: call("list_keys", serf.list_keys),
            "install_key": lambda: call("install_key", serf.install_key, self.key()),
            "use_key": lambda: call("use_key", serf.use_key, self.key()),
            "remove_key": lambda: call("remove_key", serf.remove_key, self.key()),
            "query": self._query,
            "query for one": lambda: self._query(expect=1),
            "stream": self._stream,
            "monitor": self._monitor,
            "stop": self._stop,
            "cancel": self.cancel,
        }

    def begin(self) -> None:
        self.events = self.serf.stream("user", gaps=True)
        self.followed = self.witness.consume("the stream", self.events, self.deliver)
        self._queries = self.serf.stream("query").add_callback(self._respond)

    def active(self) -> Deferred[Any]:
        return self.events.when_active()

    def end(self) -> Deferred[Any]:
        return self.serf.close()

    def deliver(self, event: Any) -> None:
        # An agent that says anything sends other events, too.
        self.delivered.append(GAP if isinstance(event, Gap) else getattr(event, "name", repr(event)))

    def _respond(self, event: Any) -> None:
        if isinstance(event, QueryEvent):
            self.under_way("respond", event.respond(self.tag().encode()), CALL)

    def _call(self, what: str, function: Callable[..., Deferred[Any]], *given: Any, **named: Any) -> None:
        patience = self.patience()
        self.under_way(what, function(*given, timeout=patience, **named), patience)

    def _event(self) -> None:
        name, patience = self.event_name(), self.patience()
        sent = self.serf.event(name, b"x" * self.rng.randrange(50), coalesce=False, timeout=patience)
        self.under_way("event", sent, patience, lambda _: self.sure.append(name))

    def _query(self, expect: int | None = None) -> None:
        timeout = 0.3 if self.careful or self.rng.random() < 0.8 else None
        query = self.serf.query(self.rng.choice(("ask", self.tag())), expect=expect, timeout=timeout)
        within = self.query_limit if timeout is None else CALL + timeout + CALL
        watched = [self.witness.awaited("query", query, within)]
        if self.rng.random() < 0.3:
            watched.append(self.witness.consume("the answers of a query", query, lambda answer: None))
        if self.rng.random() < 0.1:
            for each in watched:
                each.cancelled = True
            query.cancel()

    def _stream(self) -> None:
        stream = self.serf.stream(self.rng.choice(("*", "user:x,query", "member-join", "no such type")))
        self._streams.append(stream)
        self.witness.consume("another stream", stream, lambda event: None)
        self.witness.watch("when_active", stream.when_active(), None)

    def _monitor(self) -> None:
        stream = self.serf.monitor(self.rng.choice(("DEBUG", "WARN"))).add_callback(self._look)
        self._streams.append(stream)

    def _look(self, line: Any) -> None:
        if self.rng.random() < 0.05:
            raise txserf.StopReceiveData

    def _stop(self) -> None:
        if self._streams:
            self.under_way("stop", self._streams.pop(0).stop(), CALL)


class ClientProgram(Program):
    """A program with a `Client` that stays connected, and one that does not."""

    slow = frozenset({"mixed", "join", "force-leave", "keys"})

    def __init__(self, world: World, witness: Witness, rng: random.Random, name: str, careful: bool) -> None:
        super().__init__(world, witness, rng, name, careful)
        self._clients = [
            txserf.Client(
                world.hosts,
                auto_reconnect=reconnect,
                reactor=world.clock,
                connect_timeout=CONNECT,
                heartbeat=HEARTBEAT,
            )
            for reconnect in (True, False)
        ]
        self._steady = self._clients[0]
        self._steady.factory.maxDelay = 0.2
        self.operations = {
            "members": lambda: self._request("members", lambda c: c.members()),
            "many": lambda: self._request(
                "many", lambda c: c.members().stats().get_coordinate(Node="n1").members(Name="n[12]")
            ),
            "mixed": lambda: self._request(
                "mixed", lambda c: c.members().tags(Tags={"t": self.tag()}).stats()
            ),
            "event": self._event,
            "join": lambda: self._request(
                "join", lambda c: c.join(Existing=[f"{self.tag()}/{world.joinable}"])
            ),
            "force-leave": lambda: self._request("force-leave", lambda c: c.force_leave(Node=self.tag())),
            "keys": lambda: self._request("keys", lambda c: c.list_keys().install_key(Key=self.key())),
            "query": self._query,
            "collect": lambda: self._request("collect", lambda c: c.stream().monitor(LogLevel="DEBUG")),
            "bad filter": lambda: self._request("bad filter", lambda c: c.members(Name="(").members()),
            "bad arguments": lambda: self._client().event(Name=7, Payload=1.5),  # type: ignore[arg-type]  # so it is
            "mistake": lambda: self._request("mistake", lambda c: c.members().add_callback(self._fail)),
            "watch": self._watch,
            "cancel": self.cancel,
        }

    def begin(self) -> None:
        watched = self._steady.stream(Type="user").add_callback(self._deliver).watch()
        self.followed = self.witness.watch("the watch", watched.addCallback(self._refused), None)

    def active(self) -> Deferred[Any]:
        # The agent works on it only after it has registered the stream.
        return self._steady.stop(Stop=2**63).request(timeout=self.back)

    def end(self) -> Deferred[Any]:
        for client in self._clients:
            client.disconnect()
        closed = [client.disconnect(wait=True).request() for client in self._clients]
        return closed[0].addCallback(lambda _: closed[1])

    def _deliver(self, response: Any) -> None:
        self.delivered.append(GAP if response.body is None else response.body.get("Name"))

    def _refused(self, responses: txserf.Responses) -> None:
        for response in responses:
            if response.error:
                raise txserf.RpcError(response.error, command="stream")

    def _client(self) -> txserf.Client:
        return self.rng.choice((self._steady, self._steady, self._clients[1]))

    def _fail(self, response: Any) -> None:
        raise Mistake

    def _request(self, what: str, queue: Callable[[txserf.Client], txserf.Client]) -> None:
        patience = self.patience()
        self.under_way(what, queue(self._client()).request(timeout=patience), patience)

    def _event(self) -> None:
        name, patience = self.event_name(), self.patience()

        def sent(responses: Any) -> None:
            if responses.is_success:
                self.sure.append(name)

        client = self._client().event(Name=name, Payload=b"x" * self.rng.randrange(50), Coalesce=False)
        self.under_way("event", client.request(timeout=patience), patience, sent)

    def _query(self) -> None:
        name = self.rng.choice(("ask", self.tag()))
        client = self._client().query(Name=name, Timeout=timedelta(seconds=0.3))
        timeout = 1.0 if self.careful or self.rng.random() < 0.5 else None
        self.under_way("query", client.request(timeout=timeout), timeout or self.query_limit)

    def _watch(self) -> None:
        """Watch until the second thing comes."""
        seen: list[object] = []

        def look(response: Any) -> None:
            seen.append(response)
            if len(seen) > 1:
                raise txserf.StopReceiveData

        client = self._client().stream(Type="user,query").add_callback(look)
        self.witness.watch("a watch", client.watch(), None)


PROGRAMS: dict[str, type[Program]] = {"serf": SerfProgram, "client": ClientProgram}
