"""
One life of an agent, from its start to its leave or its failure.

What survives is the agent's (`EmbeddedAgent`): its name, address, keyring and
handlers. Most of many agents are never looked at: only once somebody connects
to one does it get a view, a log and events of its own (`AgentProcess.watch`).
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable
from inspect import isawaitable
from typing import TYPE_CHECKING, Any, Protocol

from twisted.internet.defer import Deferred, DeferredLock, ensureDeferred
from twisted.logger import Logger

from txserf.embedded.agenda import Agenda, Entry
from txserf.embedded.events import QUIET, AgentEvent, MemberCoalescer, UserCoalescer, describe
from txserf.embedded.keyring import NOT_ENCRYPTED, NOTHING_TO_LIST, KeyFailure, Keyring, listed
from txserf.embedded.log import AgentLog
from txserf.embedded.membership import Knowledge, NodeRecord
from txserf.embedded.queries import (
    BadPattern,
    Content,
    KeyAnswer,
    Question,
    ReceivedQuery,
    Refused,
    RunningQuery,
)
from txserf.model import Member, MemberStatus, QueryEvent, Tags, UserEvent
from txserf.wire import as_bytes

if TYPE_CHECKING:
    from txserf.embedded.agent import EmbeddedAgent
    from txserf.embedded.network import Network, Pool

_log = Logger(namespace="txserf.embedded")

#: Seconds between two rounds of gossip: how long a command waits that tells the others something.
GOSSIP_INTERVAL = 0.1

#: Seconds that a leave waits for the news to spread.
LEAVE_PROPAGATE_DELAY = 1.0

#: Seconds after which a broadcast has failed.
BROADCAST_TIMEOUT = 5.0

#: Seconds until a node's coordinate is known.
PROBE_INTERVAL = 1.0

# What the kernel would hold for an agent that hangs.
_MOST_HELD = 4096


class State(enum.Enum):
    """Where an agent is in its life."""

    ALIVE = "running"
    LEAVING = "leaving"
    LEFT = "has left"
    SHUTDOWN = "ended"


class Stream(Protocol):
    """Who wants this agent's events."""

    def handle(self, event: AgentEvent) -> None:
        """Take an event, of whatever kind."""


class Connection(Protocol):
    """A connection to this agent's RPC."""

    def resumed(self) -> None:
        """The agent goes on after a pause."""

    def drop(self, *, abort: bool) -> None:
        """End it; *abort* throws away what is under way."""


class AgentProcess:
    """
    An agent that runs.

    :param agent: whose life this is.
    :param network: where it gossips.
    :param started_at: when it started; a coordinate is known a second later.
    """

    def __init__(self, agent: EmbeddedAgent, network: Network, pool: Pool, started_at: float) -> None:
        self.agent = agent
        self.name = agent.name
        self.network = network
        self.agenda: Agenda = network.agenda
        self.pool = pool
        self.tags = Tags(agent.initial_tags)
        self.started_at = started_at
        self.state = State.ALIVE
        self.frozen_at: float | None = None
        self.connections: dict[Connection, None] = {}
        self.streams: dict[Stream, None] = {}
        self.join_lock = DeferredLock()
        self.keys_lock = DeferredLock()
        self.members_locked: Deferred[None] | None = None
        self._held: deque[Callable[[], None]] = deque(maxlen=_MOST_HELD)
        self._own: Knowledge | None = None
        self._running_queries: dict[int, RunningQuery] = {}
        self._events: deque[AgentEvent] = deque()
        self._reaping: Entry | None = None
        agent.incarnation += 1

    def __repr__(self) -> str:
        return f"<AgentProcess {self.name}: {self.state.value}>"

    # -- being looked at

    @property
    def watched(self) -> bool:
        """Whether it has a view of its own."""
        return self._own is not None

    @property
    def knowledge(self) -> Knowledge:
        """What it knows: its own, or what its whole cluster knows while nobody looks."""
        return self.pool.common if self._own is None else self._own

    def watch(self) -> None:
        """Have it keep a view, a log and events of its own from now on."""
        if self._own is not None:
            return
        self.log = AgentLog(self.network.date)
        own = self._own = self.pool.common.copy(self.name, self)
        for name in tuple(own.members):
            # A newcomer does not hear of those that were gone before.
            if name not in own.present and own.members[name].since < self.started_at:
                del own.members[name]
        self.network.watched[self] = None
        started = self.seconds() - self.started_at < QUIET
        self._members_held = MemberCoalescer(self.agenda, self._post, [] if started else list(own.members))
        self._user_held = UserCoalescer(self.agenda, self._post)
        self.log.write("INFO", "agent: Serf agent starting")
        for name in sorted(own.present, key=lambda name: (name != self.name, name)):
            member = own.members[name].member
            if started:  # its streams are still to hear of its own start
                self.member_changed("join", member)
            else:
                self.log.write("INFO", f"serf: EventMemberJoin: {name} {member.address}")
        if len(own.present) < len(own.members):
            self.ended()
        self.network.look_for_the_unreachable()

    # -- what it knows (membership.Listener)

    def seconds(self) -> float:
        return self.agenda.seconds()

    def member_changed(self, kind: str, member: Member) -> None:
        names = {"join": "Join", "leave": "Leave", "failed": "Failed", "update": "Update", "reap": "Reap"}
        where = "" if kind in ("update", "reap") else f" {member.address}"
        self.log.write("INFO", f"serf: EventMember{names[kind]}: {member.name}{where}")
        self._members_held.hold(kind, member)

    def user_event(self, event: UserEvent) -> None:
        if event.coalesce:
            self._user_held.hold(event)
        else:
            self._post(event)

    def refute(self) -> None:
        self.log.write("DEBUG", "serf: Refuting an older leave intent")
        self.agenda.later(0, lambda: self.broadcast_join())

    def prune_leaving(self, name: str) -> None:
        """Erase a member once it should have left; until then nobody can read the members."""
        locked = self.members_locked = Deferred()

        def unlock() -> None:
            self.members_locked = None
            self.knowledge.erase(name)
            locked.callback(None)

        self.agenda.later(BROADCAST_TIMEOUT + LEAVE_PROPAGATE_DELAY, unlock)

    def ended(self) -> None:
        if self._reaping is None:
            self._reap()

    def _reap(self) -> None:
        self._reaping = None
        due = self.knowledge.reap() if self.state is not State.SHUTDOWN else None
        if due is not None:
            # Serf looks each 15 s.
            self._reaping = self.agenda.later(due - self.seconds() + 15.0, self._reap)

    async def readable(self) -> None:
        """Wait while nobody can read the members."""
        while self.members_locked is not None:
            waiting: Deferred[None] = Deferred()
            self.members_locked.addCallback(waiting.callback)
            await waiting

    # -- gossip

    @property
    def record(self) -> NodeRecord:
        """What it says of itself."""
        agent = self.agent
        return NodeRecord(self.name, agent.address, agent.port, self.tags, agent.incarnation)

    @property
    def running(self) -> bool:
        return self.state is not State.SHUTDOWN

    @property
    def frozen(self) -> bool:
        return self.frozen_at is not None

    def send(self, target: AgentProcess, call: Callable[[], None]) -> None:
        """Have *call* called at *target*, as soon as a message gets there; or never."""
        self.network.send(self, target, call)

    def receive(self, call: Callable[[], None]) -> None:
        """Take a message."""
        if not self.running:
            return
        if self.frozen:
            self._held.append(call)
        else:
            call()

    def broadcast(self, message: Callable[[Knowledge], None]) -> None:
        """Have all that hear of it take *message*, this node excepted."""
        message(self.pool.common)
        for other in tuple(self.network.watched):
            if other is not self and other.pool is self.pool:
                self.send(other, lambda other=other: message(other.knowledge))  # type: ignore[misc]  # a default binds

    def broadcast_join(self) -> None:
        """Tell all that this node means to stay."""
        ltime = self.knowledge.clock.time
        self.knowledge.join_intent(ltime, self.name)
        self.broadcast(lambda knowledge: knowledge.join_intent(ltime, self.name))

    def broadcast_alive(self) -> None:
        """Tell all what this node says of itself now."""
        record = self.record
        if self.watched:
            self.knowledge.alive(record)
        self.broadcast(lambda knowledge: knowledge.alive(record))

    async def gossip(self) -> None:
        """Wait until a broadcast has gone out: no time at all where there is nobody else."""
        if len(self.knowledge.present) > (self.name in self.knowledge.present):
            await self.agenda.sleep(GOSSIP_INTERVAL)

    # -- events

    def _post(self, event: AgentEvent) -> None:
        """Have the event loop tell the streams, in a later turn: after the reply to what caused it."""
        self._events.append(event)
        if len(self._events) == 1:
            self.agenda.later(0, self._tell)

    def _tell(self) -> None:
        events, self._events = self._events, deque()
        for event in events:
            if not self.running:
                return
            if self.watched:
                self.log.write("INFO", f"agent: Received event: {describe(event)}")
            for stream in tuple(self.streams):
                stream.handle(event)
            if isinstance(event, ReceivedQuery):
                self._handle(event)

    def send_user_event(self, name: str, payload: bytes, coalesce: bool) -> None:
        """Start a user event whose size was checked."""
        clock = self.knowledge.event_clock
        event = UserEvent(name, payload, clock.time, coalesce)
        clock.increment()
        self.knowledge.user_event(event)
        self.broadcast(lambda knowledge: knowledge.user_event(event))

    # -- queries

    def ask(self, question: Question, running: RunningQuery) -> None:
        """Start a query whose size was checked."""
        timeout = question.timeout * 1e-9
        ltime = question.ltime
        self._running_queries[ltime] = running

        def over() -> None:
            del self._running_queries[ltime]
            running.done()

        self.agenda.later(timeout, over)
        self.knowledge.query_clock.witness(ltime)
        self.broadcast(lambda knowledge: knowledge.query_clock.witness(ltime))
        for process in self.network.processes_of(self.pool):
            self.send(process, lambda process=process: process.asked(question, self))  # type: ignore[misc]

    def asked(self, question: Question, origin: AgentProcess) -> None:
        """Take a query."""
        try:
            if not question.is_for(self.name, self.tags):
                return
        except BadPattern as reason:
            if self.watched:
                patterns = ", ".join(question.filter_tags.values())
                self.log.write("WARN", f"serf: failed to compile filter regex ({patterns}): {reason}")
            return
        query = ReceivedQuery(question, self, origin, self.seconds() + question.timeout * 1e-9)
        if question.request_ack:
            self.send(origin, lambda: origin.query_answered(question, self.name, None))
        if question.internal:
            self._answer_internal(query)
        elif self.watched or question.name in self.agent.handlers:
            self._post(query)

    def query_answered(self, question: Question, node: str, content: Content | None) -> None:
        """Take an ack (None) or a response to a query of this node; past its deadline it is lost."""
        running = self._running_queries.get(question.ltime)
        if self.watched:
            self.log.write("DEBUG", f"serf: messageQueryResponseType: {node}")
        if running is None:
            if self.watched:
                reply = f"reply for non-running query (LTime: {question.ltime}) From: {node}"
                self.log.write("WARN", f"serf: {reply}")
        elif content is None:
            running.ack(node)
        else:
            running.response(node, content)

    def _answer_internal(self, query: ReceivedQuery) -> None:
        ring, command = self.agent.keyring, query.name.removeprefix("_serf_")
        if command == "list-keys":
            answer = KeyAnswer(False, NOTHING_TO_LIST)
            if ring is not None:
                message, keys = listed(ring, query.question.ltime, self.name)
                answer = KeyAnswer(True, message, tuple(keys))
        elif command in ("install-key", "use-key", "remove-key"):
            answer = KeyAnswer(False, NOT_ENCRYPTED)
            if ring is not None:
                answer = _change(ring, command, query.question.key)
        else:
            return
        query.send(answer)

    def _handle(self, query: ReceivedQuery) -> None:
        """Have the program's own function answer."""
        function = self.agent.handlers.get(query.name)
        if function is None:
            return

        def failed(failure: Any) -> None:
            _log.failure("handle_query's {name} failed at {node}", failure, name=query.name, node=self.name)

        def answer(value: bytes | str | None) -> None:
            if value is not None and self.running:
                query.respond(as_bytes(value))

        def refused(failure: Any) -> None:
            failure.trap(Refused)
            if self.watched:
                text = f"agent: Failed to respond to query 'query: {query.name}': {failure.value}"
                self.log.write("WARN", text)

        async def run() -> bytes | str | None:
            event = QueryEvent(0, query.name, query.question.payload, query.question.ltime)
            value = function(event.bound(lambda _, payload: _respond(query, payload)))
            answered: bytes | str | None = await value if isawaitable(value) else value
            return answered

        ensureDeferred(run()).addCallback(answer).addErrback(refused).addErrback(failed)

    # -- the end

    def freeze(self) -> None:
        """Let it hang."""
        self.frozen_at = self.seconds()

    def thaw(self) -> None:
        """Let it go on with what has come meanwhile."""
        self.frozen_at = None
        held, self._held = self._held, deque(maxlen=_MOST_HELD)
        for call in held:
            call()
        for connection in tuple(self.connections):
            connection.resumed()

    def end(self, *, abort: bool) -> None:
        """End at once; its connections are lost."""
        if not self.running:
            return
        self.state = State.SHUTDOWN
        self.network.ended(self)
        if self._reaping is not None:
            self._reaping.cancel()
        self.drop_connections(abort=abort)

    def drop_connections(self, *, abort: bool) -> None:
        for connection in tuple(self.connections):
            connection.drop(abort=abort)

    # -- what others ask about it

    def coordinate_known(self) -> bool:
        """Whether it has been up for long enough to be measured."""
        return self.seconds() - self.started_at >= PROBE_INTERVAL

    def stats(self) -> dict[str, dict[str, str]]:
        """Return what ``stats`` answers."""
        knowledge = self.knowledge
        counts = knowledge.counts()
        serf = {
            "members": len(knowledge.members),
            "failed": counts[MemberStatus.FAILED],
            "left": counts[MemberStatus.LEFT],
            "health_score": 0,
            "member_time": knowledge.clock.time,
            "event_time": knowledge.event_clock.time,
            "query_time": knowledge.query_clock.time,
            "intent_queue": 0,
            "event_queue": 0,
            "query_queue": 0,
            "encrypted": "false" if self.agent.keyring is None else "true",
            "coordinate_resets": 0,
        }
        runtime = {
            "arch": "amd64",
            "os": "linux",
            "version": "txserf.embedded",
            "max_procs": "1",
            "goroutines": "1",
            "cpu_count": "1",
        }
        return {
            "agent": {"name": self.name},
            "runtime": runtime,
            "serf": {name: str(value) for name, value in serf.items()},
            "tags": dict(self.tags),
            "event_handlers": {},
        }


def _change(ring: Keyring, command: str, key: bytes) -> KeyAnswer:
    change = {"install-key": ring.install, "use-key": ring.use, "remove-key": ring.remove}[command]
    try:
        change(key)
    except KeyFailure as failure:
        return KeyAnswer(False, str(failure))
    return KeyAnswer(True)


def _respond(query: ReceivedQuery, payload: bytes | str) -> Deferred[None]:
    """Answer a query on behalf of a `QueryEvent`."""
    responding: Deferred[None] = Deferred()
    try:
        query.respond(as_bytes(payload))
    except Refused as refusal:
        responding.errback(refusal)
    else:
        responding.callback(None)
    return responding
