"""Stories: random steps of a program, of its agents and of the clock, and what must be true at the end."""

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
from txserf.connection.session import Session
from txserf.errors import SerfError, StopReceiveData
from txserf.model import KeyReply
from txserf.serf.call import Call

#: The bodies of replies that have one.
BODIES: dict[str, dict[str, Any]] = {
    "members": NO_MEMBERS,
    "members-filtered": NO_MEMBERS,
    "join": {"Num": 1},
    "list-keys": KeyReply().to_wire(listing=True),
    "stats": {},
}

#: What comes behind a reply that opens a stream.
RECORDS: dict[str, list[dict[str, Any]]] = {
    "stream": [user_event()],
    "monitor": [{"Log": "a line"}],
    "query": [answer("n1"), DONE],
}

#: Whose value in a change's body is a name that is given once.
NAMED = {"event": "Name", "query": "Name", "join": "Existing"}


class Mistake(Exception):
    """What a callback raises."""


def steps(*names: str) -> st.SearchStrategy[list[tuple[str, int]]]:
    """Give lists of steps: a method of a `Story`, and a number that says to whom or how much."""
    common = "dial dial dial accept refuse reply reply reply lose wait close".split()
    # Not shorter: few of the short ones get as far as a reply.
    return st.lists(
        st.tuples(st.sampled_from([*common, *names]), st.integers(0, 7)), min_size=20, max_size=60
    )


class Story:
    """
    What agents and the clock do.

    :ivar ends: for each Deferred that a program was given, what it fired with.
    :ivar changed: what was in the changes that some agent has got.
    """

    def __init__(self) -> None:
        self.clock, self.host = Clock(), Endpoint()
        self.waiting: list[Deferred[Any]] = []
        self.ends: list[list[object]] = []
        self.changed: list[str] = []
        self._gone: list[Agent] = []
        self._names = itertools.count()

    def tell(self, story: list[tuple[str, int]]) -> None:
        """Do all of it, and disconnect."""
        for step, number in story:
            getattr(self, step)(number)
        self.disconnect(0)
        self.disconnect(0)  # as it was told of the first end, the program may have begun again

    def check(self, case: SynchronousTestCase) -> None:
        """See that all has ended, once."""
        case.flushLoggedErrors(Mistake)  # one that a callback made after its request was over
        for end in self.ends:
            case.assertEqual(len(end), 1, self.ends)
            if isinstance(end[0], Failure):
                case.assertIsNotNone(end[0].check(SerfError, CancelledError, Mistake), end[0])
        case.assertEqual(len(self.changed), len(set(self.changed)), "a change was sent twice")
        case.assertEqual(self.host.waiting, 0, "somebody is being dialled")
        case.assertEqual(self.clock.getDelayedCalls(), [], "timers are left")

    def watch_over(self, deferred: Deferred[Any]) -> None:
        end: list[object] = []
        self.ends.append(end)
        self.waiting.append(deferred)
        deferred.addBoth(end.append)

    def name(self) -> str:
        """Return a name that was not given yet."""
        return str(next(self._names))

    # The steps

    def dial(self, number: int) -> None:
        if self.host.waiting:
            self.host.accept_and_greet()

    def accept(self, number: int) -> None:
        if self.host.waiting:
            self.host.accept()  # its greeting is answered by a reply

    def refuse(self, number: int) -> None:
        if self.host.waiting:
            self.host.refuse()

    def reply(self, number: int) -> None:
        """Answer what was asked in one piece, but for the last *number* of it: that is never answered."""
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
        """Let the transports end that the client has closed."""
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
        """Return the ends of the connections that are open, as far as agents know."""
        return [agent for agent in self.host.agents if agent not in self._gone]

    def _lose(self, agent: Agent) -> None:
        self._read(agent)
        self._gone.append(agent)
        agent.lose()

    def _read(self, agent: Agent) -> list[Asked]:
        asked = agent.asked()
        self.changed += [str(body_of(one)[NAMED[one.command]]) for one in asked if one.command in NAMED]
        return asked


class SessionStory(Story):
    """
    A session, and operations by it.

    :ivar streams: subscriptions, which end with the session.
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
        """Call something whose end makes the program disconnect, and perhaps ask again."""

        def close(result: object) -> object:
            self.session.disconnect()
            if number % 2:
                self.get(number)
            return result

        self._call(commands.EVENT, Name=self.name()).addBoth(close)

    def then_ask(self, number: int) -> None:
        """Call something whose end makes the program call something else."""
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
        for _ in range(3):  # who is told may ask again, and close that too
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
    """A client, and requests of it whose callbacks wait, fail, stop, ask again or close it."""

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
        while self.gates:  # what a callback waits for is its own to end
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
        """Request something whose callbacks do one of all things."""
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

    # What callbacks do

    def _guarded(self, function: Callable[[Response], object]) -> Callable[[Response], object]:
        def called(response: Response) -> object:
            assert not self.at_work, "a callback was called inside another one's stack"
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
