"""
The commands of the RPC, on one connection.

There is a method for each row of the table. The table says what a reply carries. The methods do the work of Serf's
agent, in its order.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from typing import Any, NamedTuple, Protocol

from txserf import commands
from txserf.commands import Command
from txserf.embedded import joining
from txserf.embedded.events import AgentEvent
from txserf.embedded.log import quoted, shows
from txserf.embedded.membership import Known
from txserf.embedded.process import AgentProcess
from txserf.embedded.queries import INTERNAL, Content, ReceivedQuery, Refused, RunningQuery
from txserf.embedded.re2 import BadPattern, compile_pattern
from txserf.errors import InvalidRequest
from txserf.filters import EventFilter, parse_filter
from txserf.model import Coordinate, MemberEvent, QueryEvent
from txserf.wire import pack, pack_list

#: Records of a stream that wait while the client does not read; later ones are dropped.
STREAM_QUEUE = 512

Values = Mapping[str, Any]


class Result(NamedTuple):
    """
    The reply to a request.

    :ivar error: empty for success.
    :ivar body: its bytes; empty for none.
    :ivar then: called once the reply is on its way.
    """

    error: str = ""
    body: bytes = b""
    then: Callable[[], None] | None = None


class Closed(Exception):
    """The agent closes the connection instead of an answer; its text is for the agent's log."""


class Records(Protocol):
    """The way of a stream's records to the client: see `server.StreamQueue`."""

    def put(self, record: Callable[[], dict[str, Any]]) -> bool:
        """Send a record, or keep it while the client does not read; False where it is dropped."""

    def close(self) -> None:
        """Keep nothing more."""


class Peer(Protocol):
    """The connection."""

    name: str

    def open_stream(self, seq: int, limit: int | None) -> Records:
        """Return the way of the records of a Seq; at most *limit* of them wait, or any number where it is None."""


class Events:
    """A ``stream`` of a connection."""

    def __init__(
        self, conversation: Conversation, filters: tuple[EventFilter, ...], records: Records
    ) -> None:
        self._conversation = conversation
        self._filters = filters
        self.records = records

    def handle(self, event: AgentEvent) -> None:
        name = None if isinstance(event, MemberEvent) else event.name
        if any(element.matches(event.type, name) for element in self._filters):
            if not self.records.put(lambda: self._conversation.event_record(event)):
                self._conversation.dropped("event")


class Lines:
    """The ``monitor`` of a connection."""

    def __init__(self, conversation: Conversation, level: str, records: Records, seq: int) -> None:
        self._conversation = conversation
        self._level = level
        self.records = records
        self.seq = seq
        self._dropping = False

    def handle(self, line: str) -> None:
        if not shows(self._level, line):
            return
        if self.records.put(lambda: {"Log": line}):
            self._dropping = False
        elif not self._dropping:
            self._dropping = True  # once, not for each line: this is one
            self._conversation.dropped("logs")


class Conversation:
    """
    A connection's state: handshake and auth, its streams, the queries that it may answer.

    :param process: the agent.
    :param auth_key: the key that it wants; empty for none.
    """

    def __init__(self, process: AgentProcess, auth_key: str, peer: Peer) -> None:
        self._process = process
        self._auth_key = auth_key
        self._peer = peer
        self.shaken: bool = False
        self.authenticated: bool = False
        self._streams: dict[int, Events] = {}
        self._monitor: Lines | None = None
        self._last_id = 0
        self._pending: dict[int, ReceivedQuery] = {}

    @property
    def needs_auth(self) -> bool:
        return bool(self._auth_key) and not self.authenticated

    def run(self, row: Command, values: Values, seq: int) -> Result | Coroutine[Any, Any, Result]:
        """
        Carry out a request.

        :raises Closed: also out of the coroutine.
        """
        return _METHODS[row.wire](self, values, seq)

    def close(self) -> None:
        """Forget all that is this connection's."""
        for stream in self._streams.values():
            self._process.streams.pop(stream, None)
        self._streams.clear()
        self._stop_monitor()
        self._pending.clear()

    def dropped(self, items: str) -> None:
        self._process.log.write("WARN", f"agent.ipc: Dropping {items} to ipc.client: {self._peer.name}")

    # -- handshake and auth

    def handshake(self, values: Values, seq: int) -> Result:
        if values["Version"] != 1:
            return Result("Unsupported IPC version")
        if self.shaken:
            return Result("Handshake already performed")
        self.shaken = True
        return Result()

    def auth(self, values: Values, seq: int) -> Result:
        if values["AuthKey"] != self._auth_key:
            return Result("Invalid authentication token")
        self.authenticated = True
        return Result()

    # -- members

    def members(self, values: Values, seq: int) -> Result | Coroutine[Any, Any, Result]:
        return self._when_readable(lambda: self._listed(lambda known: True))

    def members_filtered(self, values: Values, seq: int) -> Result | Coroutine[Any, Any, Result]:
        try:
            tags = {tag: compile_pattern(f"^{pattern}$") for tag, pattern in values["Tags"].items()}
            status = compile_pattern(f"^{values['Status']}$")
            name = compile_pattern(f"^{values['Name']}$")
        except BadPattern as reason:
            raise Closed(f"Failed to evaluate request: Failed to compile regex: {reason}") from None

        def wanted(known: Known) -> bool:
            member = known.member
            return (
                all(pattern.matches(member.tags.get(tag, "")) for tag, pattern in tags.items())
                and (not values["Status"] or status.matches(str(member.status)))
                and (not values["Name"] or name.matches(member.name))
            )

        return self._when_readable(lambda: self._listed(wanted))

    def _listed(self, wanted: Callable[[Known], bool]) -> Result:
        known = list(self._process.knowledge.members.values())
        # The order of a map in Go changes from one look to the next.
        start = self._process.network.rng.randrange(len(known) or 1)
        packed = [each.packed for each in known[start:] + known[:start] if wanted(each)]
        return Result(body=b"\x81" + pack("Members") + pack_list(packed))

    def _when_readable(self, answer: Callable[[], Result]) -> Result | Coroutine[Any, Any, Result]:
        if self._process.members_locked is None:
            return answer()

        async def later() -> Result:
            await self._process.readable()
            return answer()

        return later()

    async def join(self, values: Values, seq: int) -> Result:
        try:
            joined = await joining.join(self._process, values["Existing"], values["Replay"])
        except Refused as refusal:
            return Result(str(refusal), pack({"Num": 0}))
        return Result(body=pack({"Num": joined}))

    async def leave(self, values: Values, seq: int) -> Result:
        error = ""
        try:
            await joining.leave(self._process)
        except Refused as refusal:
            error = str(refusal)
        return Result(error, then=lambda: self._process.end(abort=False))

    async def force_leave(self, values: Values, seq: int) -> Result:
        await joining.force_leave(self._process, values["Node"], values["Prune"])
        return Result()

    async def tags(self, values: Values, seq: int) -> Result:
        try:
            await joining.set_tags(self._process, values["Tags"], values["DeleteTags"])
        except Refused as refusal:
            return Result(str(refusal))
        return Result()

    def stats(self, values: Values, seq: int) -> Result | Coroutine[Any, Any, Result]:
        return self._when_readable(lambda: Result(body=pack(self._process.stats())))

    def get_coordinate(self, values: Values, seq: int) -> Result:
        coordinate = self._process.network.coordinate(self._process, values["Node"])
        return Result(body=pack(Coordinate.to_wire(coordinate)))

    # -- streams

    def stream(self, values: Values, seq: int) -> Result:
        try:
            filters = parse_filter(values["Type"] or "*")
        except InvalidRequest:
            return Result("Invalid event filter")
        if seq in self._streams:
            return Result("Stream with given sequence exists")
        stream = self._streams[seq] = Events(self, filters, self._peer.open_stream(seq, STREAM_QUEUE))

        def register() -> None:
            self._process.streams[stream] = None

        return Result(then=register)

    def monitor(self, values: Values, seq: int) -> Result:
        level = values["LogLevel"].upper()
        if level not in commands.LOG_LEVELS:
            return Result(f"Unknown log level: {level}")
        if self._monitor is not None:
            return Result("Monitor already exists")
        monitor = self._monitor = Lines(self, level, self._peer.open_stream(seq, STREAM_QUEUE), seq)
        return Result(then=lambda: self._process.log.follow(monitor.handle))

    def stop(self, values: Values, seq: int) -> Result:
        if self._monitor is not None and self._monitor.seq == values["Stop"]:
            self._stop_monitor()
        stream = self._streams.pop(values["Stop"], None)
        if stream is not None:
            self._process.streams.pop(stream, None)
        return Result()

    def _stop_monitor(self) -> None:
        if self._monitor is not None:
            self._process.log.unfollow(self._monitor.handle)
            self._monitor = None

    def event_record(self, event: AgentEvent) -> dict[str, Any]:
        """Return an event's record; that of a query makes it one that this connection may answer."""
        if not isinstance(event, ReceivedQuery):
            return event.to_wire()
        self._last_id += 1
        number, question = self._last_id, event.question
        left = event.deadline - self._process.seconds()
        if left >= 0:
            self._pending[number] = event
            self._process.agenda.later(left, lambda: self._pending.pop(number, None))
        return QueryEvent(number, question.name, question.payload, question.ltime).to_wire()

    # -- events and queries

    def event(self, values: Values, seq: int) -> Result:
        name, payload, coalesce = values["Name"], values["Payload"], values["Coalesce"]
        flag = "true" if coalesce else "false"
        log = self._process.log
        text = f"{name}. Coalesced: {flag}. Payload: {quoted(payload)}"
        log.write("DEBUG", f"agent: Requesting user event send: {text}")
        try:
            self._process.send_user_event(name, payload, coalesce)
        except Refused as refusal:
            log.write("WARN", f"agent: failed to send user event: {refusal}")
            return Result(str(refusal))
        return Result()

    def query(self, values: Values, seq: int) -> Result:
        name, log = values["Name"], self._process.log
        if name.startswith(INTERNAL) and (name != f"{INTERNAL}ping" or values["Payload"]):
            return Result(f"Queries cannot contain the '{INTERNAL}' prefix")
        log.write("DEBUG", f"agent: Requesting query send: {name}. Payload: {quoted(values['Payload'])}")
        records = self._peer.open_stream(seq, None)

        def put(kind: str, node: str = "", content: Content = b"") -> None:
            payload = content or None
            records.put(lambda: {"From": node, "Payload": payload, "Type": kind})

        running = RunningQuery(
            on_ack=lambda node: put("ack", node),
            on_response=lambda node, content: put("response", node, content),
            on_done=lambda: put("done"),
        )
        try:
            self._process.queries.ask(
                name,
                values["Payload"],
                running,
                timeout=values["Timeout"],
                request_ack=values["RequestAck"],
                filter_nodes=values["FilterNodes"],
                filter_tags=values["FilterTags"],
            )
        except Refused as refusal:
            log.write("WARN", f"agent: failed to start user query: {refusal}")
            return Result(str(refusal))
        return Result()

    def respond(self, values: Values, seq: int) -> Result:
        query = self._pending.get(values["ID"])
        if query is None:
            return Result("No pending queries matching ID")
        try:
            query.respond(values["Payload"])
        except Refused as refusal:
            return Result(str(refusal))
        return Result()

    # -- keys

    async def list_keys(self, values: Values, seq: int) -> Result:
        return await self._keys("list-keys", "")

    async def install_key(self, values: Values, seq: int) -> Result:
        return await self._keys("install-key", values["Key"])

    async def use_key(self, values: Values, seq: int) -> Result:
        return await self._keys("use-key", values["Key"])

    async def remove_key(self, values: Values, seq: int) -> Result:
        return await self._keys("remove-key", values["Key"])

    async def _keys(self, command: str, key: str) -> Result:
        error, reply = await self._process.keys.run(command, key)
        return Result(error, pack(reply.to_wire(listing=command == "list-keys")))


# By wire name: a row has no hash.
_METHODS: dict[str, Callable[[Conversation, Values, int], Result | Coroutine[Any, Any, Result]]] = {
    row.wire: getattr(Conversation, row.wire.replace("-", "_")) for row in commands.TABLE
}
