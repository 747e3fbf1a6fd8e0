"""
One process of an agent, from its start to its leave or its failure.

Its name, address, keyring and handlers outlive it: it is handed them. Nobody ever connects to most of many
agents, so an agent gets a view, a log and events of its own only when somebody does (`AgentProcess.watch`).
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable, Mapping
from typing import Protocol

import attrs
from twisted.internet.defer import Deferred, DeferredLock

from txserf.embedded import sizes
from txserf.embedded.agenda import Agenda, Entry
from txserf.embedded.events import QUIET, AgentEvent, MemberCoalescer, UserCoalescer, describe
from txserf.embedded.keyring import KeyCommands, KeyOwner
from txserf.embedded.log import AgentLog
from txserf.embedded.membership import Knowledge, NodeRecord, WideMember
from txserf.embedded.network import Network, Pool, Seat
from txserf.embedded.queries import GOSSIP_INTERVAL, Queries, QueryHandler, ReceivedQuery, Refused
from txserf.model import Member, MemberStatus, Tags, UserEvent
from txserf.wire import as_bytes

#: Seconds that a leave waits for the news to spread.
LEAVE_PROPAGATE_DELAY = 1.0

#: Seconds after which a broadcast has failed.
BROADCAST_TIMEOUT = 5.0

# Messages to an agent that hangs: a bound as the kernel has one.
_MOST_HELD = 4096


class AgentState(enum.Enum):
    """A stage of an agent's process."""

    ALIVE = "running"
    LEAVING = "leaving"
    LEFT = "has left"
    SHUTDOWN = "ended"


class EventSink(Protocol):
    """Gets this agent's events."""

    def handle(self, event: AgentEvent) -> None:
        """Take an event, of any kind."""


class Connection(Protocol):
    """A connection to this agent's RPC."""

    def resumed(self) -> None:
        """The agent goes on after a pause."""

    def drop(self, *, abort: bool) -> None:
        """End it; *abort* throws away the bytes under way."""


@attrs.frozen(eq=False)
class _View:
    """
    A node's own view of its cluster, kept once somebody connects to its agent.

    :ivar members: holds back its member events.
    :ivar user: holds back user events that may coalesce.
    """

    knowledge: Knowledge
    members: MemberCoalescer
    user: UserCoalescer


def _told_by(member: Member) -> str:
    """Return the kind of the event that an agent told last of a member."""
    kinds: dict[str, str] = {MemberStatus.FAILED: "failed", MemberStatus.LEFT: "leave"}
    return kinds.get(member.status, "join")


class AgentProcess:
    """
    An agent that runs.

    :param seat: its part of the network, which this process takes.
    :param tags: those that it starts with.
    :param network: the network that it gossips in.
    :param pool: the nodes that it has joined.
    :param started_at: when it started; a coordinate is known a second later.
    :param owner: has its keyring; read at each use.
    :param handlers: the program's own functions that answer queries; read at each query.
    :param on_end: called once it has ended.
    """

    def __init__(
        self,
        seat: Seat[AgentProcess],
        tags: Tags,
        network: Network[AgentProcess],
        pool: Pool,
        started_at: float,
        *,
        owner: KeyOwner,
        handlers: Mapping[str, QueryHandler],
        on_end: Callable[[], None],
    ) -> None:
        self.seat = seat
        self.name: str = seat.name
        self.tags = tags
        self.network = network
        self.agenda: Agenda = network.agenda
        self.pool = pool
        self.started_at = started_at
        self.state: AgentState = AgentState.ALIVE
        self.frozen_at: float | None = None
        self.connections: dict[Connection, None] = {}
        self.streams: dict[EventSink, None] = {}
        self.log: AgentLog = AgentLog(network.date)
        self.keys: KeyCommands = KeyCommands(self, owner)
        self.queries: Queries = Queries(self, network, handlers, self.keys.answer, self._post)
        self.join_lock: DeferredLock = DeferredLock()
        self.members_locked: Deferred[None] | None = None
        self._owner = owner
        self._on_end = on_end
        self._view: _View | None = None
        self._held: deque[Callable[[], None]] = deque(maxlen=_MOST_HELD)
        self._events: deque[AgentEvent] = deque()
        self._reaping: Entry | None = None

    def __repr__(self) -> str:
        return f"<AgentProcess {self.name}: {self.state.value}>"

    # -- its view

    @property
    def watched(self) -> bool:
        """Whether it has a view of its own."""
        return self._view is not None

    @property
    def knowledge(self) -> Knowledge:
        """Its own view of the cluster; until somebody connects, the common one of its pool."""
        return self.pool.common if self._view is None else self._view.knowledge

    def watch(self) -> None:
        """Keep a view, a log and events of its own from now on."""
        if self._view is not None:
            return
        own = self.pool.common.copy(self.name, self)
        for name in tuple(own.members):
            # A newcomer does not hear of those that were gone before.
            if name not in own.present and own.members[name].since < self.started_at:
                del own.members[name]
        started = self.seconds() - self.started_at < QUIET
        told: dict[str, str] = {}
        if not started:
            told = {name: _told_by(known.member) for name, known in own.members.items()}
        members = MemberCoalescer(self.agenda, self._post, told)
        self._view = _View(own, members, UserCoalescer(self.agenda, self._post))
        self.network.watched[self] = None
        self.log.keep()
        self.log.write("INFO", "agent: Serf agent starting")
        # A node that runs is no member after it was pruned.
        there = own.present.keys() & own.members.keys()
        for name in sorted(there, key=lambda name: (name != self.name, name)):
            member = own.members[name].member
            if started:  # its streams are still to hear of its own start
                self.member_changed("join", member)
            else:
                self.log.write("INFO", f"serf: EventMemberJoin: {name} {member.address}")
        if len(there) < len(own.members):
            self.ended()
        self.network.look_for_the_unreachable()

    # -- its knowledge (membership.Watcher)

    def seconds(self) -> float:
        return self.agenda.seconds()

    def member_changed(self, kind: str, member: Member) -> None:
        assert self._view is not None, "it has knowledge of its own"
        where = "" if kind in ("update", "reap") else f" {member.address}"
        self.log.write("INFO", f"serf: EventMember{kind.capitalize()}: {member.name}{where}")
        self._view.members.hold(kind, member)

    def user_event(self, event: UserEvent) -> None:
        assert self._view is not None, "it has knowledge of its own"
        if event.coalesce:
            self._view.user.hold(event)
        else:
            self._post(event)

    def refute(self) -> None:
        self.log.write("DEBUG", "serf: Refuting an older leave intent")
        self.agenda.later(0, self.broadcast_join)

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
        due = self.knowledge.reap() if self.state is not AgentState.SHUTDOWN else None
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
        """The record that it spreads of itself."""
        seat = self.seat
        kind = WideMember if seat.default_bind else Member
        return NodeRecord(seat.name, seat.address, seat.port, self.tags, seat.incarnation, kind)

    @property
    def running(self) -> bool:
        return self.state is not AgentState.SHUTDOWN

    @property
    def frozen(self) -> bool:
        return self.frozen_at is not None

    def receive(self, call: Callable[[], None]) -> None:
        """Take a message."""
        if not self.running:
            return
        if self.frozen:
            self._held.append(call)
        else:
            call()

    def start(self) -> None:
        """Take its seat, and tell all that it is there."""
        self.network.started(self)
        self.broadcast_alive()
        self.broadcast_join()

    def broadcast_join(self) -> None:
        """Tell all that this node means to stay."""
        ltime = self.knowledge.clock.time
        self.knowledge.join_intent(ltime, self.name)
        self.network.broadcast(self, lambda knowledge: knowledge.join_intent(ltime, self.name))

    def broadcast_alive(self) -> None:
        """Spread its record."""
        record = self.record
        if self.watched:
            self.knowledge.alive(record)
        self.network.broadcast(self, lambda knowledge: knowledge.alive(record))

    async def gossip(self) -> None:
        """Wait until a broadcast has gone out: no time at all where there is nobody else."""
        if len(self.knowledge.present) > (self.name in self.knowledge.present):
            await self.agenda.sleep(GOSSIP_INTERVAL)

    # -- events

    def _post(self, event: AgentEvent) -> None:
        """Hand an event to the streams in a later turn: after the reply to the request that caused it."""
        self._events.append(event)
        if len(self._events) == 1:
            self.agenda.later(0, self._tell)

    def _tell(self) -> None:
        events, self._events = self._events, deque()
        for event in events:
            if not self.running:
                return
            self.log.write("INFO", f"agent: Received event: {describe(event)}")
            for stream in tuple(self.streams):
                stream.handle(event)
            if isinstance(event, ReceivedQuery):
                self.queries.handle(event)

    def send_user_event(self, name: str, payload: bytes, coalesce: bool) -> None:
        """
        Start a user event.

        :raises Refused: where it is too large.
        """
        clock = self.knowledge.event_clock
        limit = f"exceeds configured limit of {sizes.EVENT_LIMIT} bytes"
        if len(as_bytes(name)) + len(payload) > sizes.EVENT_LIMIT:
            raise Refused(f"user event {limit} before encoding")
        if sizes.user_event(clock.time, name, payload) > sizes.EVENT_LIMIT:
            raise Refused(f"encoded user event {limit} after encoding")
        event = UserEvent(name, payload, clock.time, coalesce)
        clock.increment()
        self.knowledge.user_event(event)
        self.network.broadcast(self, lambda knowledge: knowledge.user_event(event))

    # -- the end

    def freeze(self) -> None:
        """Let it hang."""
        self.frozen_at = self.seconds()

    def thaw(self) -> None:
        """Let it go on with the messages that have come meanwhile."""
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
        self.state = AgentState.SHUTDOWN
        self.network.ended(self)
        self._on_end()
        if self._reaping is not None:
            self._reaping.cancel()
        self.drop_connections(abort=abort)

    def drop_connections(self, *, abort: bool) -> None:
        for connection in tuple(self.connections):
            connection.drop(abort=abort)

    def stats(self) -> dict[str, dict[str, str]]:
        """Return the answer to ``stats``."""
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
            "encrypted": "false" if self._owner.keyring is None else "true",
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
