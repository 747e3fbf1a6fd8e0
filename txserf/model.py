"""
The values that users hold: members, events, queries, coordinates, keys.

All are immutable and comparable. Each shape of the wire is read (``from_wire``)
and, for the embedded agent, written (``to_wire``) in one place: here. What an
agent sends that does not have its shape is a `ProtocolError`.
"""

from __future__ import annotations

import enum
import ipaddress
import math
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, TypeVar

import attrs

from txserf import wire
from txserf.errors import ProtocolError

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

_T = TypeVar("_T")
_Record = Mapping[str, Any]

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


def address_text(address: IPAddress) -> str:
    """
    Return an address as Serf prints it.

    An agent that listens on 0.0.0.0 sends IPv4 in 16 bytes, as ``::ffff:10.0.0.1``: that is written ``10.0.0.1``.
    """
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)


def _take(record: _Record, field: str, kind: type[_T]) -> _T:
    value = record.get(field)
    # No isinstance: a bool is no int here, and MessagePack gives exact types.
    if value.__class__ is kind:
        return value
    raise ProtocolError(f"{field} is {type(value).__name__}, not {kind.__name__}")


def _take_payload(record: _Record) -> bytes:
    value = record.get("Payload")
    if value is None:  # nil and empty are the same; which one comes depends on the release
        return b""
    if value.__class__ is str:
        return wire.as_bytes(value)
    return _take(record, "Payload", bytes)


def _take_map(record: _Record, field: str, kind: type[_T]) -> dict[str, _T]:
    values = record.get(field)
    if values is None:
        return {}
    if values.__class__ is dict and all(
        k.__class__ is str and v.__class__ is kind for k, v in values.items()
    ):
        return dict(values)
    raise ProtocolError(f"{field} is not a map of str to {kind.__name__}")


def _take_float(record: _Record, field: str) -> float:
    value = record.get(field)
    if value.__class__ is float or value.__class__ is int:
        return float(value)
    raise ProtocolError(f"{field} is {type(value).__name__}, not a number")


class Tags(dict[str, str]):
    """A node's tags: a dict that can't be changed."""

    __slots__ = ()

    def _refuse(self, *args: object, **kwargs: object) -> NoReturn:
        raise TypeError("the tags of a member can't be changed here; see Serf.set_tags()")

    __setitem__ = __delitem__ = clear = pop = popitem = setdefault = update = _refuse
    __ior__ = _refuse

    def __hash__(self) -> int:  # type: ignore[override]  # a dict has none, but this one can't change
        return hash(frozenset(self.items()))

    def __reduce__(self) -> tuple[type[Tags], tuple[dict[str, str]]]:
        return Tags, (dict(self),)


class MemberStatus(str, enum.Enum):
    """What the agent thinks of a member. Equal to Serf's own word for it."""

    NONE = "none"
    ALIVE = "alive"
    LEAVING = "leaving"
    LEFT = "left"
    FAILED = "failed"

    def __str__(self) -> str:
        return self.value


_STATUS = {status.value: status for status in MemberStatus}


@attrs.frozen(kw_only=True)
class Member:
    """
    A node of the cluster, as the agent knows it.

    :ivar name: the node's name.
    :ivar address: where it gossips; None if the agent sent none that is an IP address.
    :ivar port: the port of its gossip (not of its RPC).
    :ivar tags: its tags.
    :ivar status: what the agent thinks of it.
    :ivar protocol: the least, the highest and the spoken version of memberlist's protocol.
    :ivar delegate: likewise of Serf's protocol.
    """

    name: str
    address: IPAddress | None = None
    port: int = 0
    tags: Tags = attrs.field(factory=Tags, converter=Tags)
    status: MemberStatus = attrs.field(default=MemberStatus.ALIVE, converter=MemberStatus)
    protocol: tuple[int, int, int] = (1, 5, 2)
    delegate: tuple[int, int, int] = (2, 5, 5)

    @classmethod
    def from_wire(cls, record: _Record) -> Member:
        """Read a member; wire: ``Member`` of Serf's ``client/const.go``."""
        if record.__class__ is not dict:
            raise ProtocolError(f"a member is {type(record).__name__}, not a map")
        status = _STATUS.get(_take(record, "Status", str))
        if status is None:
            raise ProtocolError(f"unknown status of a member: {record['Status']!r}")
        try:
            address = ipaddress.ip_address(_take(record, "Addr", bytes)) if record.get("Addr") else None
        except ValueError as error:
            raise ProtocolError(f"Addr is no IP address: {error}") from None
        return cls(
            name=_take(record, "Name", str),
            address=address,
            port=_take(record, "Port", int),
            tags=Tags(_take_map(record, "Tags", str)),
            status=status,
            protocol=_take_versions(record, "Protocol"),
            delegate=_take_versions(record, "Delegate"),
        )

    def to_wire(self) -> dict[str, Any]:
        """Return what `from_wire` reads, keys in Serf's order."""
        record: dict[str, Any] = {
            "Addr": self.address.packed if self.address else b"",
            "Name": self.name,
            "Port": self.port,
            "Status": self.status.value,
            "Tags": dict(self.tags),
        }
        for prefix, versions in (("Protocol", self.protocol), ("Delegate", self.delegate)):
            record.update(zip((f"{prefix}Min", f"{prefix}Max", f"{prefix}Cur"), versions, strict=True))
        return dict(sorted(record.items()))


def _take_versions(record: _Record, prefix: str) -> tuple[int, int, int]:
    return (
        _take(record, f"{prefix}Min", int),
        _take(record, f"{prefix}Max", int),
        _take(record, f"{prefix}Cur", int),
    )


def members_from_wire(body: _Record) -> list[Member]:
    """Read the body of ``members`` and ``members-filtered``, and of a member event."""
    members = body.get("Members")
    if members is None:
        return []
    if members.__class__ is not list:
        raise ProtocolError(f"Members is {type(members).__name__}, not a list")
    return [Member.from_wire(member) for member in members]


def joined_from_wire(body: _Record) -> int:
    """Read the body of ``join``: how many addresses were joined."""
    return _take(body, "Num", int)


def stats_from_wire(body: _Record) -> dict[str, dict[str, str]]:
    """Read the body of ``stats``: text by name by section."""
    if not all(section.__class__ is str for section in body):
        raise ProtocolError("a section of stats has a name that is not text")
    return {section: _take_map(body, section, str) for section in body}


@attrs.frozen
class UserEvent:
    """
    A user event.

    :ivar name: what its sender called it.
    :ivar payload: its bytes.
    :ivar ltime: its Lamport time among the cluster's user events.
    :ivar coalesce: whether a later event of the same name may replace it.
    :ivar type: Serf's word for this kind of event, ``user``.
    """

    type: ClassVar[str] = "user"

    name: str
    payload: bytes = b""
    ltime: int = 0
    coalesce: bool = False

    @classmethod
    def from_wire(cls, record: _Record) -> UserEvent:
        """Read a record whose ``Event`` is ``user``."""
        return cls(
            _take(record, "Name", str),
            _take_payload(record),
            _take(record, "LTime", int),
            _take(record, "Coalesce", bool),
        )

    def to_wire(self) -> dict[str, Any]:
        """Return what `from_wire` reads, keys in Serf's order."""
        return {
            "Coalesce": self.coalesce,
            "Event": self.type,
            "LTime": self.ltime,
            "Name": self.name,
            "Payload": self.payload or None,
        }


@attrs.frozen
class MemberEvent:
    """
    A change of one member or of several; the agent reports it one to three seconds late.

    :ivar kind: ``join``, ``leave``, ``failed``, ``update`` or ``reap``.
    :ivar members: those that changed, as they are now.
    """

    kind: str
    members: tuple[Member, ...]

    @property
    def type(self) -> str:
        """Serf's word for this kind of event, such as ``member-join``."""
        return f"member-{self.kind}"

    @classmethod
    def from_wire(cls, record: _Record) -> MemberEvent:
        """Read a record whose ``Event`` is ``member-`` and a kind."""
        return cls(_take(record, "Event", str).removeprefix("member-"), tuple(members_from_wire(record)))

    def to_wire(self) -> dict[str, Any]:
        """Return what `from_wire` reads, keys in Serf's order."""
        return {"Event": self.type, "Members": [member.to_wire() for member in self.members]}


@attrs.frozen
class QueryEvent:
    """
    A query that somebody asks the cluster, and that this program may answer.

    :ivar id: the agent's number for it, known on the connection that it came by only.
    :ivar name: what is asked.
    :ivar payload: the bytes that came with it.
    :ivar ltime: its Lamport time among the cluster's queries.
    :ivar type: Serf's word for this kind of event, ``query``.
    """

    type: ClassVar[str] = "query"

    id: int
    name: str
    payload: bytes = b""
    ltime: int = 0
    _responder: Callable[[int, bytes], Deferred[None]] | None = attrs.field(
        default=None, eq=False, repr=False, kw_only=True
    )

    @classmethod
    def from_wire(cls, record: _Record) -> QueryEvent:
        """Read a record whose ``Event`` is ``query``."""
        return cls(
            _take(record, "ID", int),
            _take(record, "Name", str),
            _take_payload(record),
            _take(record, "LTime", int),
        )

    def to_wire(self) -> dict[str, Any]:
        """Return what `from_wire` reads, keys in Serf's order."""
        return {
            "Event": self.type,
            "ID": self.id,
            "LTime": self.ltime,
            "Name": self.name,
            "Payload": self.payload or None,
        }

    def respond(self, payload: bytes | str = b"") -> Deferred[None]:
        """
        Answer this query, by the connection that it came by.

        :param payload: the answer's bytes (text goes as UTF-8); about 980 of them fit.
        :returns: a Deferred of None, once the agent has taken the answer; that it
            reached who asked is not known. One answer counts for an agent, the first.
        :raises InvalidRequest: at the call, where *payload* is neither bytes nor str.
            The Deferred fails with `QueryError` (too late, too large, already answered)
            or with `ConnectionLost` where that connection is gone.
        """
        if self._responder is None:
            raise AssertionError("this QueryEvent was not received, so there is nobody to answer")
        return self._responder(self.id, payload)  # type: ignore[arg-type]  # the table takes str too

    def bound(self, responder: Callable[[int, bytes], Deferred[None]]) -> QueryEvent:
        """Return this query with what `respond` calls: *responder(id, payload)*."""
        return attrs.evolve(self, responder=responder)


Event = UserEvent | MemberEvent | QueryEvent

#: What may happen to members: each `MemberEvent.kind`, on the wire behind ``member-``.
MEMBER_KINDS = ("join", "leave", "failed", "update", "reap")

_EVENTS: dict[str, Callable[[_Record], Event]] = {
    UserEvent.type: UserEvent.from_wire,
    QueryEvent.type: QueryEvent.from_wire,
    **{f"member-{kind}": MemberEvent.from_wire for kind in MEMBER_KINDS},
}

#: Serf's words for the kinds of events: each event's ``type``.
EVENT_TYPES = tuple(_EVENTS)


def event_from_wire(record: _Record) -> Event:
    """Read a record of ``stream``."""
    read = _EVENTS.get(_take(record, "Event", str))
    if read is None:
        raise ProtocolError(f"unknown event: {record['Event']!r}")
    return read(record)


@attrs.frozen
class Gap:
    """
    A time in which events may have been missed, for the stream was down.

    :ivar lost_at: when the connection was lost, in the reactor's seconds.
    :ivar resumed_at: when the stream was active again, likewise.
    """

    lost_at: float
    resumed_at: float


_LOG_LINE = re.compile(
    r"(?P<time>\d{4}/\d\d/\d\d \d\d:\d\d:\d\d) \[(?P<level>[A-Z]+)\] +(?:(?P<subsystem>[\w.-]+): )?(?P<text>.*)",
    re.DOTALL,
)


@attrs.frozen
class LogLine:
    """
    A line of an agent's log.

    :ivar line: all of it, as it came.
    :ivar time: when it was written, by the agent's clock and zone; None where unknown.
    :ivar level: ``TRACE``, ``DEBUG``, ``INFO``, ``WARN`` or ``ERR``; empty where unknown.
    :ivar subsystem: who wrote it, such as ``agent.ipc``; empty where unknown.
    :ivar text: the rest, or all of a line that can't be parsed.
    """

    line: str = attrs.field(repr=False)
    time: datetime | None = None
    level: str = ""
    subsystem: str = ""
    text: str = ""

    @classmethod
    def parse(cls, line: str) -> LogLine:
        """Take a line apart; one that has no such parts stays whole, as ``text``."""
        match = _LOG_LINE.fullmatch(line)
        if match is None:
            return cls(line, text=line)
        try:
            time = datetime.strptime(match["time"], "%Y/%m/%d %H:%M:%S")
        except ValueError:
            return cls(line, text=line)
        return cls(line, time, match["level"], match["subsystem"] or "", match["text"])

    @classmethod
    def from_wire(cls, record: _Record) -> LogLine:
        """Read a record of ``monitor``."""
        return cls.parse(_take(record, "Log", str))


@attrs.frozen
class Ack:
    """A node has received the query."""

    node: str


@attrs.frozen
class Answer:
    """A node's answer to the query."""

    node: str
    payload: bytes


def query_record_from_wire(record: _Record) -> Ack | Answer | None:
    """
    Read a record of ``query``; None for ``done`` and for noise.

    Around the deadline an agent may send records that are from nobody.
    """
    kind, node = record.get("Type"), record.get("From")
    if kind.__class__ is not str or node.__class__ is not str:
        kind, node = _take(record, "Type", str), _take(record, "From", str)
    if not node or kind == "done":
        return None
    if kind == "ack":
        return Ack(node)
    if kind == "response":
        payload = record.get("Payload")
        return Answer(node, payload if payload.__class__ is bytes else _take_payload(record))
    raise ProtocolError(f"unknown record of a query: {kind!r}")


@attrs.frozen
class QueryResult:
    """
    What a query brought.

    :ivar acks: the nodes that have received it, in order of their acks.
    :ivar responses: the answers by node, in order of arrival.
    :ivar complete: whether all was heard that will come: ``done`` came, or as many answers as were expected.
    """

    acks: list[str] = attrs.field(factory=list)
    responses: dict[str, bytes] = attrs.field(factory=dict)
    complete: bool = False


@attrs.frozen
class KeyReply:
    """
    What the nodes answered to a key command.

    :ivar keys: for ``list_keys``: how many nodes have each key (base64). Keys are secret: not shown.
    :ivar messages: what nodes had to say, by node; not only errors.
    :ivar nodes: the number of nodes that were asked.
    :ivar errors: how many of them failed.
    :ivar responses: how many of them answered.
    """

    keys: dict[str, int] = attrs.field(factory=dict, repr=lambda keys: f"<{len(keys)}>")
    messages: dict[str, str] = attrs.field(factory=dict)
    nodes: int = 0
    errors: int = 0
    responses: int = 0

    @classmethod
    def from_wire(cls, body: _Record) -> KeyReply:
        """Read the body of a key command; wire: ``keyRequest``'s reply in Serf's ``client/const.go``."""
        return cls(
            _take_map(body, "Keys", int),
            _take_map(body, "Messages", str),
            _take(body, "NumNodes", int),
            _take(body, "NumErr", int),
            _take(body, "NumResp", int),
        )

    def to_wire(self, *, listing: bool = False) -> dict[str, Any]:
        """
        Return what `from_wire` reads, keys in Serf's order.

        :param listing: whether this is the answer to ``list-keys``: the others have no Keys.
        """
        return {
            "Keys": dict(self.keys) if listing else None,
            "Messages": dict(self.messages),
            "NumErr": self.errors,
            "NumNodes": self.nodes,
            "NumResp": self.responses,
        }


@attrs.frozen
class Coordinate:
    """
    Where a node lies in the network, as Vivaldi estimates it; seconds except for ``error``.

    :ivar vec: its place in a Euclidean space.
    :ivar error: how unsure the estimate is, without a unit.
    :ivar adjustment: what past round trips add to distances.
    :ivar height: how far it is from that space.
    """

    vec: tuple[float, ...]
    error: float = 1.5
    adjustment: float = 0.0
    height: float = 1e-05

    @classmethod
    def from_wire(cls, body: _Record) -> Coordinate | None:
        """Read the body of ``get-coordinate``; None where the agent has none."""
        if not _take(body, "Ok", bool):
            return None
        coord = _take(body, "Coord", dict)
        vec = coord.get("Vec")
        if vec.__class__ is not list or not all(v.__class__ is float or v.__class__ is int for v in vec):
            raise ProtocolError("Vec is not a list of numbers")
        return cls(
            tuple(map(float, vec)),
            _take_float(coord, "Error"),
            _take_float(coord, "Adjustment"),
            _take_float(coord, "Height"),
        )

    @staticmethod
    def to_wire(coordinate: Coordinate | None) -> dict[str, Any]:
        """Return what `from_wire` reads, keys in Serf's order."""
        known = coordinate or Coordinate((), error=0.0, height=0.0)
        coord = {
            "Adjustment": known.adjustment,
            "Error": known.error,
            "Height": known.height,
            "Vec": list(known.vec) or None,
        }
        return {"Coord": coord, "Ok": coordinate is not None}

    def distance_to(self, other: Coordinate) -> float:
        """
        Return the estimated round trip between this node and *other*, in seconds.

        :raises ValueError: for coordinates of different dimensions.

        As Serf's ``coordinate/coordinate.go``, ``DistanceTo``.
        """
        if len(self.vec) != len(other.vec):
            raise ValueError(f"coordinates of {len(self.vec)} and {len(other.vec)} dimensions")
        # Each pair is summed first, so that rounding makes no difference between there and back.
        distance = math.dist(self.vec, other.vec) + (self.height + other.height)
        adjusted = distance + (self.adjustment + other.adjustment)
        return adjusted if adjusted > 0.0 else distance
