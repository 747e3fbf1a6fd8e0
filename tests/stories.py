"""Random tests: a story is a list of random steps of a program, its agents and the clock, checked at its end."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests.fakes import DONE, NO_MEMBERS, Agent, Asked, Endpoint, answer, body_of, reply, user_event
from tests.session_case import Told
from txserf import commands
from txserf.client.client import Client
from txserf.client.requests import Response
from txserf.commands import Command
from txserf.connection.factory import Phase, SerfClientFactory
from txserf.connection.session import Session
from txserf.errors import SerfError, StopReceiveData
from txserf.model import KeyReply
from txserf.serf.call import Call

#: The body of each reply that has one.
BODIES: dict[str, dict[str, Any]] = {
    "members": NO_MEMBERS,
    "members-filtered": NO_MEMBERS,
    "join": {"Num": 1},
    "list-keys": KeyReply().to_wire(listing=True),
    "stats": {},
}

#: The records that follow the reply to a command that opens a stream.
RECORDS: dict[str, list[dict[str, Any]]] = {
    "stream": [user_event()],
    "monitor": [{"Log": "a line"}],
    "query": [answer("n1"), DONE],
}

#: For each command that changes something: the argument with the name that identifies the call.
NAMED = {"event": "Name", "query": "Name", "join": "Existing"}


class Mistake(Exception):
    """Raised by callbacks."""


def steps(*names: str) -> st.SearchStrategy[list[tuple[str, int]]]:
    """Return a strategy of stories. A step is the name of a `Story`'s method and the number to call it with."""
    common = "dial dial dial accept refuse reply reply reply lose wait close".split()
    # Shorter stories hardly ever get as far as a reply.
    return st.lists(
        st.tuples(st.sampled_from([*common, *names]), st.integers(0, 7)), min_size=20, max_size=60
    )


class Story:
    """
    The steps of agents and the clock.

    :ivar ends: for each Deferred that the program got, a list of the results that it fired with.
    :ivar changed: the names in all changes that agents have received.
    """

    def __init__(self) -> None:
        self.clock, self.host = Clock(), Endpoint()
        self.waiting: list[Deferred[Any]] = []
        self.ends: list[list[object]] = []
        self.changed: list[str] = []
        self._gone: list[Agent] = []
        self._names = itertools.count()

    def tell(self, story: list[tuple[str, int]]) -> None:
        """Do all steps, and disconnect."""
        for step, number in story:
            getattr(self, step)(number)
        self.disconnect(0)
        self.disconnect(0)  # a callback of the first disconnect may have connected again

    def check(self, case: SynchronousTestCase) -> None:
        """Check that each Deferred has fired once, no change was sent twice and nothing is left."""
        case.flushLoggedErrors(Mistake)  # raised by callbacks after their request had ended
        for end in self.ends:
            case.assertEqual(len(end), 1, self.ends)
            if isinstance(end[0], Failure):
                case.assertIsNotNone(end[0].check(SerfError, CancelledError, Mistake), end[0])
        case.assertEqual(len(self.changed), len(set(self.changed)), "a change was sent twice")
        case.assertEqual(self.host.waiting, 0, "a connection attempt is left")
        case.assertEqual(self.clock.getDelayedCalls(), [], "timers are left")

    def watch_over(self, deferred: Deferred[Any]) -> None:
        end: list[object] = []
        self.ends.append(end)
        self.waiting.append(deferred)
        deferred.addBoth(end.append)

    def name(self) -> str:
        """Return a new name."""
        return str(next(self._names))

    # The steps

    def dial(self, number: int) -> None:
        if self.host.waiting:
            self.host.accept_and_greet()

    def accept(self, number: int) -> None:
        if self.host.waiting:
            self.host.accept()  # a later `reply` answers its greeting

    def refuse(self, number: int) -> None:
        if self.host.waiting:
            self.host.refuse()

    def reply(self, number: int) -> None:
        """Let each agent answer its new requests in one piece. The last *number* of them never get an answer."""
        for agent in self._agents():
            asked = self._read(agent)
            data: list[bytes] = []
            for one in asked[: len(asked) - number]:
                bodies = [BODIES.get(one.command), *RECORDS.get(one.command, ())]
                data += [reply(one.seq, body) for body in bodies]
            agent.send(*data)

    def lose(self, number: int) -> None:
        agents = self._agents()
        if agents:
            self._lose(agents[number % len(agents)])

    def close(self, number: int) -> None:
        """End the connections that the client has closed."""
        for agent in self._agents():
            if agent.closed_by_client:
                self._lose(agent)

    def wait(self, number: int) -> None:
        self.clock.advance(number * number / 4.0)

    def cancel(self, number: int) -> None:
        if self.waiting:
            self.waiting[number % len(self.waiting)].cancel()

    def disconnect(self, number: int) -> None:
        raise NotImplementedError

    # How it works

    def _agents(self) -> list[Agent]:
        """Return the agents' ends of the connections that have not ended."""
        return [agent for agent in self.host.agents if agent not in self._gone]

    def _lose(self, agent: Agent) -> None:
        self._read(agent)
        self._gone.append(agent)
        agent.lose()

    def _read(self, agent: Agent) -> list[Asked]:
        asked = agent.asked()
        self.changed += [str(body_of(one)[NAMED[one.command]]) for one in asked if one.command in NAMED]
        return asked


class FactoryStory(Story):
    """A story of a factory that is used by itself, with endpoints that fail or connect when they should not."""

    STEPS = (
        "start",
        "ask",
        "then_start",
        "then_disconnect",
        "call",
        "stop",
        "retry",
        "reset",
        "key",
        "refuse_key",
        "connect_and_fail",
        "connect_late",
        "cancel",
        "disconnect",
    )

    def __init__(self) -> None:
        super().__init__()
        self.factory = SerfClientFactory([self.host], reactor=self.clock, heartbeat=None)

    def start(self, number: int) -> None:
        self.factory.start()

    def ask(self, number: int) -> None:
        self.watch_over(self.factory.when_connected())

    def then_start(self, number: int) -> None:
        self.watch_over(self.factory.when_connected().addBoth(self._and_then, self.start))

    def then_disconnect(self, number: int) -> None:
        self.watch_over(self.factory.when_connected().addBoth(self._and_then, self.disconnect))

    def call(self, number: int) -> None:
        if self.factory.connection is not None:
            self.watch_over(self.factory.connection.call("members", timeout=5.0))

    def stop(self, number: int) -> None:
        self.factory.stopTrying()

    def retry(self, number: int) -> None:
        self.factory.retry()

    def reset(self, number: int) -> None:
        self.factory.resetDelay()

    def key(self, number: int) -> None:
        self.factory.auth_key = (None, "k1", "k2")[number % 3]

    def refuse_key(self, number: int) -> None:
        if self.host.waiting:
            self.host.accept().greet("Invalid authentication token")

    def connect_and_fail(self, number: int) -> None:
        """Let an endpoint connect and then fail, for odd numbers after the handshake."""
        if self.host.waiting:
            agent = self.host.accept_untold()
            if number % 2:
                agent.greet()
            self.host.refuse()

    def connect_late(self, number: int) -> None:
        """Let an endpoint connect though its attempt was cancelled, or for odd numbers has timed out."""
        if self.host.waiting == 1:
            connect = self.host.prepare_late()
            if number % 2:
                self.clock.advance(self.factory.connect_timeout)
            else:
                self.factory.stopTrying()
            self.host.agents.append(connect())

    def disconnect(self, number: int) -> None:
        self.factory.disconnect()
        self.close(0)

    def check(self, case: SynchronousTestCase) -> None:
        super().check(case)
        case.assertIs(self.factory.phase, Phase.IDLE)
        case.assertEqual(self._agents(), [], "a connection is left")

    def _and_then(self, result: object, step: Callable[[int], None]) -> object:
        step(0)
        return result


class SessionStory(Story):
    """
    A story of a session and its operations.

    :ivar streams: the streams. They end with the session.
    """

    STEPS = (
        "get",
        "change",
        "join",
        "keys",
        "filter",
        "stream",
        "then_close",
        "then_ask",
        "cancel",
        "disconnect",
    )

    def __init__(self, reconnect: bool) -> None:
        super().__init__()
        self.session = Session([self.host], reconnect=reconnect, reactor=self.clock, heartbeat=None)
        self.streams: list[Told] = []

    def get(self, number: int) -> None:
        self._call(commands.MEMBERS)

    def change(self, number: int) -> None:
        self._call(commands.EVENT, Name=self.name())

    def join(self, number: int) -> None:
        self._call(commands.JOIN, Existing=[self.name()])

    def keys(self, number: int) -> None:
        self._call(commands.LIST_KEYS)

    def filter(self, number: int) -> None:
        self._call(commands.MEMBERS_FILTERED, Name="(a|b)")

    def then_close(self, number: int) -> None:
        """Call a command. When it ends the program disconnects, and for odd numbers calls another one."""

        def close(result: object) -> object:
            self.session.disconnect()
            if number % 2:
                self.get(number)
            return result

        self._call(commands.EVENT, Name=self.name()).addBoth(close)

    def then_ask(self, number: int) -> None:
        """Call a command. When it ends the program makes another step."""
        step = (self.get, self.change, self.join, self.keys, self.filter, self.stream)[number % 6]

        def ask(result: object) -> object:
            step(number)
            return result

        self._call(commands.LIST_KEYS).addBoth(ask)

    def stream(self, number: int) -> None:
        self.streams.append(Told(self.session, commands.STREAM))
        self.session.submit([self.streams[-1]])

    def disconnect(self, number: int) -> None:
        closed = self.session.disconnect()
        for _ in range(3):  # callbacks may connect again and disconnect again
            self.close(0)
            self.clock.advance(0)
        assert closed.called

    def check(self, case: SynchronousTestCase) -> None:
        super().check(case)
        for stream in self.streams:
            case.assertEqual(len(stream.reasons), 1, stream.told)
            case.assertTrue(stream.done)

    def _call(self, command: Command, **given: Any) -> Deferred[Any]:
        call = Call(self.session, command, command.arguments(given), 50.0)
        self.watch_over(call.result)
        self.session.submit([call])
        return call.result


class ClientStory(Story):
    """A story of a client, with callbacks that wait, fail, stop, make requests or close the client."""

    STEPS = ("one", "several", "auth", "watch", "callback", "open_gate", "shut_gate", "cancel", "disconnect")

    def __init__(self, reconnect: bool) -> None:
        super().__init__()
        self.client = Client([self.host], auto_reconnect=reconnect, reactor=self.clock, heartbeat=None)
        self.gates: list[Deferred[None]] = []
        self.at_work = False
        self._behaviour = itertools.cycle(
            (self._none, self._gate, self._wait_for_gate, self._ask, self._fail, self._stop, self._close)
        )

    def tell(self, story: list[tuple[str, int]]) -> None:
        super().tell(story)
        while self.gates:  # the client does not cancel the Deferreds of callbacks
            self.open_gate(0)
        self.disconnect(0)

    def one(self, number: int) -> None:
        self._queue(number)
        self.watch_over(self.client.request(timeout=5.0))

    def several(self, number: int) -> None:
        for _ in range(3):
            self._queue(number)
            number = (number + 3) % 8
        self.watch_over(self.client.request())

    def auth(self, number: int) -> None:
        self._queue(number)
        self.client.auth(AuthKey="k").handshake()
        self._queue((number + 5) % 8)
        self.watch_over(self.client.request())

    def watch(self, number: int) -> None:
        self._queue(number)
        self.watch_over(self.client.stream().add_callback(self._guarded(self._gate)).watch())

    def callback(self, number: int) -> None:
        """Make a request with two callbacks: one with the behaviour that *number* selects, and one that does nothing."""
        self._queue(number)
        function = next(itertools.islice(self._behaviour, number, None))
        self.client.add_callback(self._guarded(function), self._guarded(self._none))
        self.watch_over(self.client.request())

    def open_gate(self, number: int) -> None:
        if self.gates:
            self.gates.pop(0).callback(None)

    def shut_gate(self, number: int) -> None:
        if self.gates:
            self.gates.pop(0).errback(Mistake())

    def disconnect(self, number: int) -> None:
        self.client.disconnect()
        self.close(0)
        self.clock.advance(0)

    def _queue(self, number: int) -> None:
        queue: list[Callable[[], Client]] = [
            self.client.members,
            self.client.stream,
            self.client.handshake,
            self.client.list_keys,
            lambda: self.client.event(Name=self.name()),
            lambda: self.client.query(Name=self.name()),
            lambda: self.client.members(Name="(a|b)"),
            lambda: self.client.monitor(LogLevel="INFO"),
        ]
        queue[number]()

    # Behaviours of callbacks

    def _guarded(self, function: Callable[[Response], object]) -> Callable[[Response], object]:
        def called(response: Response) -> object:
            assert not self.at_work, "a callback was called inside another one's call"
            self.at_work = True
            try:
                return function(response)
            finally:
                self.at_work = False

        return called

    def _none(self, response: Response) -> None:
        pass

    def _gate(self, response: Response) -> Deferred[None]:
        self.gates.append(Deferred())
        return self.gates[-1]

    async def _wait_for_gate(self, response: Response) -> None:
        await self._gate(response)

    def _ask(self, response: Response) -> None:
        self.several(3)

    def _fail(self, response: Response) -> None:
        raise Mistake

    def _stop(self, response: Response) -> None:
        raise StopReceiveData

    def _close(self, response: Response) -> None:
        self.client.disconnect()
