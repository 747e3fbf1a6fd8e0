"""
The values that users hold: members, events, queries, coordinates, keys.

All are immutable and comparable. This module is the one place that knows the shapes of the wire:
``from_wire`` reads one and raises `ProtocolError` for anything else, and ``to_wire`` writes it
for the embedded agent.
"""

from __future__ import annotations

import enum
import ipaddress
import math
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from operator import itemgetter
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, TypeVar

import attrs

from txserf import wire
from txserf.errors import ProtocolError

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

_T = TypeVar("_T")
_Record = Mapping[str, Any]

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


# An agent that listens on 0.0.0.0, Serf's default, sends its IPv4 address in 16 bytes, as ::ffff:10.0.0.1.
_MAPPED = bytes(10) + b"\xff\xff"

# Of text that an agent sent, an error shows no more characters: it may have millions of them.
_MOST_SHOWN = 60


def _shown(text: str) -> str:
    return repr(text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}...")


def _take(record: _Record, field: str, kind: type[_T]) -> _T:
    value = record.get(field)
    # The exact class, for a bool is no int here, and MessagePack has no subclasses.
    if value.__class__ is kind:
        return value
    raise ProtocolError(f"{field} is {type(value).__name__}, not {kind.__name__}")


def _take_payload(record: _Record) -> bytes:
    value = record.get("Payload")
    if value is None:  # an empty payload comes as nil or as empty bytes, depending on Serf's release
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


# The ``ID`` of a query is a uint64 of Serf, and so is that of ``respond``.
_IDS = range(2**64)


def _take_id(record: _Record) -> int:
    value = _take(record, "ID", int)
    if value not in _IDS:
        raise ProtocolError("ID is not of 0 to 2^64-1")
    return value


def _take_float(record: _Record, field: str) -> float:
    value = record.get(field)
    if value.__class__ is float or value.__class__ is int:
        return float(value)
    raise ProtocolError(f"{field} is {type(value).__name__}, not a number")


class Tags(dict[str, str]):
    """The tags of a node: a dict that can't be changed."""

    __slots__ = ()

    def _refuse(self, *args: object, **kwargs: object) -> NoReturn:
        raise TypeError("the tags of a member can't be changed here; see Serf.set_tags()")

    __setitem__: Callable[..., NoReturn] = _refuse
    __delitem__: Callable[..., NoReturn] = _refuse
    __ior__: Callable[..., NoReturn] = _refuse
    clear: Callable[..., NoReturn] = _refuse
    pop: Callable[..., NoReturn] = _refuse
    popitem: Callable[..., NoReturn] = _refuse
    setdefault: Callable[..., NoReturn] = _refuse
    update: Callable[..., NoReturn] = _refuse

    def __hash__(self) -> int:  # type: ignore[override]  # a dict has none, but this one can't change
        return hash(frozenset(self.items()))

    def __reduce__(self) -> tuple[type[Tags], tuple[dict[str, str]]]:
        return Tags, (dict(self),)


class MemberStatus(str, enum.Enum):
    """
    The status of a member, as the agent sees it. Each is equal to Serf's own word for it.

    The ``status`` of a `Member` may be another one, from an agent of a newer release.
    """

    NONE = "none"
    ALIVE = "alive"
    LEAVING = "leaving"
    LEFT = "left"
    FAILED = "failed"

    def __str__(self) -> str:
        return self.value


_STATUS = {status.value: status for status in MemberStatus}
_ALIVE = MemberStatus.ALIVE  # read for every reply: an Enum's member takes 40 ns to look up


def _status(word: str) -> MemberStatus | str:
    # A newer agent may have a status that this txserf does not know.
    if not isinstance(word, str):
        raise TypeError(f"the status of a member is text, not {type(word).__name__}")
    return _STATUS.get(word, word)


def _as_tags(tags: Mapping[str, str]) -> Tags:
    return tags if isinstance(tags, Tags) else Tags(tags)  # one can't change, so that members may share it


# The versions of Serf 0.8 to 0.10.
_PROTOCOL, _DELEGATE = (1, 5, 2), (2, 5, 5)

# Versions that came, each kept once: nearly all members have the same, and a tuple takes 80 bytes.
_VERSIONS: dict[tuple[int, int, int], tuple[int, int, int]] = {_PROTOCOL: _PROTOCOL, _DELEGATE: _DELEGATE}
_MOST_VERSIONS = 64


# A value that was read is built as a draft: the same fields in the same slots, and nothing that keeps them from being
# set. The draft of a Member takes 0.3 us, and to make it a Member, by its ``__class__``, another 0.06 us. An
# ``__init__`` of a frozen class takes 2 us, for it sets each field by a call of ``object.__setattr__``.


class _MemberDraft:
    __slots__ = ("__weakref__", "address", "delegate", "name", "port", "protocol", "status", "tags")

    name: str
    address: Any
    port: int
    tags: Tags
    status: MemberStatus | str
    protocol: tuple[int, int, int]
    delegate: tuple[int, int, int]


@attrs.frozen(kw_only=True)
class Member(_MemberDraft):
    """
    A node of the cluster, as the agent knows it.

    :ivar name: the node's name.
    :ivar address: the IP address of its gossip; None if the agent sent none. An IPv4 address is always an
        ``IPv4Address``, though an agent that listens on 0.0.0.0 sends it as an IPv6 one.
    :ivar port: the port of its gossip (not of its RPC).
    :ivar tags: its tags.
    :ivar status: its `MemberStatus`; the agent's own word, as a str, where that is none of these.
    :ivar protocol: of memberlist's protocol, the lowest, the highest and the current version.
    :ivar delegate: the same of Serf's protocol.
    """

    name: str
    address: IPAddress | None = None
    port: int = 0
    tags: Tags = attrs.field(factory=Tags, converter=_as_tags)
    status: MemberStatus | str = attrs.field(default=MemberStatus.ALIVE, converter=_status)
    protocol: tuple[int, int, int] = _PROTOCOL
    delegate: tuple[int, int, int] = _DELEGATE

    # attrs compares addresses, which would make two of them for each comparison.

    def __eq__(self, other: object) -> bool:
        if other.__class__ is not self.__class__:
            return NotImplemented
        assert isinstance(other, Member)
        return (
            self.name == other.name
            and self.status == other.status
            and self.tags == other.tags
            and _kept_address(self) == _kept_address(other)
            and self.port == other.port
            and self.protocol == other.protocol
            and self.delegate == other.delegate
        )

    def __hash__(self) -> int:
        address = _kept_address(self)
        return hash((self.name, address, self.port, self.tags, self.status, self.protocol, self.delegate))

    @classmethod
    def from_wire(cls, record: _Record) -> Member:
        """Read a member; wire: ``Member`` of Serf's ``client/const.go``."""
        if record.__class__ is not dict:
            raise ProtocolError(f"a member is {type(record).__name__}, not a map")
        packed = _take(record, "Addr", bytes) if record.get("Addr") else b""
        try:
            address = ipaddress.ip_address(packed) if packed else None
        except ValueError:
            raise ProtocolError(f"Addr is no IP address: it has {len(packed)} bytes") from None
        return cls(
            name=_take(record, "Name", str),
            address=address,
            port=_take(record, "Port", int),
            tags=Tags(_take_map(record, "Tags", str)),
            status=_take(record, "Status", str),
            protocol=_take_versions(record, "Protocol"),
            delegate=_take_versions(record, "Delegate"),
        )

    def to_wire(self) -> dict[str, Any]:
        """Return what `from_wire` reads, keys in Serf's order."""
        record: dict[str, Any] = {
            "Addr": self.address.packed if self.address else b"",
            "Name": self.name,
            "Port": self.port,
            "Status": str(self.status),
            "Tags": dict(self.tags),
        }
        for prefix, versions in (("Protocol", self.protocol), ("Delegate", self.delegate)):
            record.update(zip((f"{prefix}Min", f"{prefix}Max", f"{prefix}Cur"), versions, strict=True))
        return dict(sorted(record.items()))


# A member keeps its address as 4 or 16 bytes, and makes an object of them whenever it is asked: that takes 1 us and
# 130 bytes, and few programs ask for the addresses of all members. attrs reads and sets the field by this property.
_ADDRESS: Any = vars(_MemberDraft)["address"]
_kept_address = _ADDRESS.__get__


def _address(member: Member) -> IPAddress | None:
    kept = _kept_address(member)
    return ipaddress.ip_address(kept) if kept.__class__ is bytes else kept


def _keep_address(member: Member, address: IPAddress | None) -> None:
    kept: Any = address
    if isinstance(address, ipaddress.IPv6Address):
        address = address.ipv4_mapped or address
        kept = address if getattr(address, "scope_id", None) else address.packed
    elif isinstance(address, ipaddress.IPv4Address):
        kept = address.packed
    elif address is not None:
        shown = type(address).__name__
        raise TypeError(f"the address of a member is an IPv4Address, an IPv6Address or None, not {shown}")
    _ADDRESS.__set__(member, kept)


Member.address = property(_address, _keep_address)  # type: ignore[assignment]  # mypy knows the field


def _take_versions(record: _Record, prefix: str) -> tuple[int, int, int]:
    versions = (
        _take(record, f"{prefix}Min", int),
        _take(record, f"{prefix}Max", int),
        _take(record, f"{prefix}Cur", int),
    )
    kept = _VERSIONS.get(versions)
    if kept is None:
        if len(_VERSIONS) < _MOST_VERSIONS:
            _VERSIONS[versions] = versions
        return versions
    return kept


#: The fields of a member.
MEMBER_FIELDS = (
    *("Name", "Addr", "Port", "Status", "Tags"),
    *("ProtocolMin", "ProtocolMax", "ProtocolCur", "DelegateMin", "DelegateMax", "DelegateCur"),
)
_member_fields = itemgetter(*MEMBER_FIELDS)


class _SharedTags:
    """
    Tags that came, each kept once: in large clusters many members have the same, and those of one take some 200 bytes.

    :param most: the number of entries past which all are forgotten.
    :ivar sharing: whether it is still worthwhile to look for equal ones.
    :ivar by_values: by their values, in each order in which these came. A tuple takes a third of the time of a frozenset.
    :ivar distinct: by what they have.
    """

    __slots__ = ("_most", "_worthwhile", "by_values", "distinct", "sharing")

    def __init__(self, most: int) -> None:
        self._most = most
        self._worthwhile = _MOST_RECENT + most // 8
        self.sharing = True
        self.by_values: dict[tuple[Any, ...], Tags] = {}
        self.distinct: dict[frozenset[tuple[Any, Any]], Tags] = {}

    def add(self, tags: dict[Any, Any], values: tuple[Any, ...]) -> Tags:
        if len("".join(tags)) + len("".join(values)) > _TAGS_LIMIT:  # a TypeError for all but text
            return Tags(tags)
        if len(self.by_values) >= self._most:
            self.by_values.clear()
            self.distinct.clear()
        items = frozenset(tags.items())
        shared = self.distinct.get(items)
        if shared is None:
            shared = self.distinct[items] = Tags(tags)
            self.sharing = len(self.distinct) < self._worthwhile
        self.by_values[values] = shared
        return shared


# Longer tags are not kept. In Serf all tags of a node together have 512 bytes at the most.
_TAGS_LIMIT = 512

# A list of so many members shares their tags with the lists before it: few agents have more neighbours than this, and an
# event has one member mostly. The tags of longer lists are forgotten behind it, and from this number on they are shared
# only where one in eight is another one at the most: to look for equal ones takes as long as to make them.
_FEW_MEMBERS = 64
_MOST_RECENT = 256
_recent_tags = _SharedTags(_MOST_RECENT)
_NO_TAGS = Tags()


def _tags_for(number: int) -> _SharedTags:
    return _recent_tags if number <= _FEW_MEMBERS else _SharedTags(number)


def members_from_wire(body: _Record) -> list[Member]:
    """Read the body of ``members`` and ``members-filtered``, and of a member event."""
    records = body.get("Members")
    if records.__class__ is list:
        return _read_members(records, _tags_for(len(records)))
    if records.__class__ is MemberItems:
        return records.members()
    if records is None:
        return []
    raise ProtocolError(f"Members is {type(records).__name__}, not a list")


class MemberItems:
    """
    Reads the members of a long list as they come: an `Items` of `txserf.wire`.

    :param number: of all of them.
    """

    __slots__ = ("_fault", "_members", "_tags")

    def __init__(self, number: int) -> None:
        self._members: list[Member] = []
        self._tags = _tags_for(number)
        self._fault: ProtocolError | None = None

    def read(self, items: list[Any]) -> None:
        if self._fault is None:
            try:
                self._members += _read_members(items, self._tags)
            except ProtocolError as fault:
                self._fault = fault.with_traceback(None)

    def members(self) -> list[Member]:
        """Return those that came; raises `ProtocolError` if one was not as agents send them."""
        if self._fault is not None:
            raise self._fault
        return self._members


def _read_members(records: list[Any], all_tags: _SharedTags) -> list[Member]:
    # It reads what `Member.from_wire` reads, and leaves each record to it that is not as agents send them. It is one
    # function that calls none of Python's own: by `Member.from_wire` 10,000 members take six times as long.
    members: list[Any] = []
    add = members.append
    find_tags, sharing = all_tags.by_values.get, all_tags.sharing
    shared: Tags = _NO_TAGS
    status: MemberStatus | str = _ALIVE
    last_word, last_port = "alive", 0
    protocol, delegate = _PROTOCOL, _DELEGATE
    (p_min, p_max, p_cur), (d_min, d_max, d_cur) = protocol, delegate
    for record in records:
        try:
            name, packed, port, word, tags, a, b, c, d, e, f = _member_fields(record)
            # Small ints are one object each, and True and 1.0 are others. So this also proves that they are ints.
            if not (a is p_min and b is p_max and c is p_cur and d is d_min and e is d_max and f is d_cur):
                protocol, delegate = _take_versions(record, "Protocol"), _take_versions(record, "Delegate")
                (p_min, p_max, p_cur), (d_min, d_max, d_cur) = protocol, delegate
            if name.__class__ is not str or packed.__class__ is not bytes or port.__class__ is not int:
                raise TypeError
            size = len(packed)
            if size == 16:
                packed = packed.removeprefix(_MAPPED)
            elif size != 4:
                raise TypeError
            if word != last_word:
                status, last_word = _status(word), word
            if sharing:
                if tags != shared:  # those of the member before it
                    values = tuple(tags.values())
                    shared = find_tags(values, _NO_TAGS)
                    if shared != tags:
                        shared = all_tags.add(tags, values)
                        sharing = all_tags.sharing
            else:
                "".join(tags), "".join(tags.values())
                shared = Tags(tags)
        except (KeyError, TypeError, AttributeError):
            add(Member.from_wire(record))
            continue
        if port != last_port:
            last_port = port
        draft = _MemberDraft()
        draft.name = name
        draft.address = packed
        draft.port = last_port
        draft.tags = shared
        draft.status = status
        draft.protocol = protocol
        draft.delegate = delegate
        draft.__class__ = Member
        add(draft)
    return members


def joined_from_wire(body: _Record) -> int:
    """Read the body of ``join``: the number of addresses that were joined."""
    return _take(body, "Num", int)


def stats_from_wire(body: _Record) -> dict[str, dict[str, str]]:
    """Read the body of ``stats``: text by name by section."""
    if not all(section.__class__ is str for section in body):
        raise ProtocolError("a section of stats has a name that is not text")
    return {section: _take_map(body, section, str) for section in body}


class _UserEventDraft:
    __slots__ = ("__weakref__", "coalesce", "ltime", "name", "payload")

    name: str
    payload: bytes
    ltime: int
    coalesce: bool


@attrs.frozen
class UserEvent(_UserEventDraft):
    """
    A user event.

    :ivar name: its name.
    :ivar payload: its bytes.
    :ivar ltime: its Lamport time. User events have a clock of their own.
    :ivar coalesce: whether an agent may deliver a later event of the same name instead of this one.
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


class _MemberEventDraft:
    __slots__ = ("__weakref__", "kind", "members")

    kind: str
    members: tuple[Member, ...]


@attrs.frozen
class MemberEvent(_MemberEventDraft):
    """
    A change of one member or of several. The agent reports it one to three seconds late.

    :ivar kind: ``join``, ``leave``, ``failed``, ``update`` or ``reap``.
    :ivar members: the members that changed, as they are after the change.
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


class _QueryEventDraft:
    __slots__ = ("__weakref__", "_responder", "id", "ltime", "name", "payload")

    id: int
    name: str
    payload: bytes
    ltime: int
    _responder: Callable[[int, bytes], Deferred[None]] | None


@attrs.frozen
class QueryEvent(_QueryEventDraft):
    """
    A query that was sent to the cluster, and that this program may answer.

    :ivar id: the agent's number for it, valid only on the connection that it came by.
    :ivar name: its name.
    :ivar payload: its bytes.
    :ivar ltime: its Lamport time. Queries have a clock of their own.
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
            _take_id(record),
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
        Answer this query, on the connection that it came by.

        :param payload: the answer; str is sent as UTF-8. About 980 bytes fit.
        :returns: a Deferred of None, which fires when the agent has taken the answer. Nobody knows whether
            it reaches the asker. An agent takes one answer to a query, the first.
        :raises InvalidRequest: at the call, for a *payload* that is neither bytes nor str.
            The Deferred fails with `QueryError` (too late, too large, already answered),
            or with `ConnectionLost` if that connection is gone.
        """
        if self._responder is None:
            raise AssertionError("this QueryEvent did not come by a connection, so it can't be answered")
        return self._responder(self.id, payload)  # type: ignore[arg-type]  # the table takes str too

    def bound(self, responder: Callable[[int, bytes], Deferred[None]]) -> QueryEvent:
        """Return a copy of this query whose `respond` calls *responder(id, payload)*."""
        return QueryEvent(self.id, self.name, self.payload, self.ltime, responder=responder)


Event = UserEvent | MemberEvent | QueryEvent

#: The kinds of a `MemberEvent`. On the wire ``member-`` stands before them.
MEMBER_KINDS = ("join", "leave", "failed", "update", "reap")

_EVENTS: dict[str, Callable[[_Record], Event]] = {
    UserEvent.type: UserEvent.from_wire,
    QueryEvent.type: QueryEvent.from_wire,
    **{f"member-{kind}": MemberEvent.from_wire for kind in MEMBER_KINDS},
}

#: Serf's words for the kinds of events: each event's ``type``.
EVENT_TYPES = tuple(_EVENTS)


_user_fields = itemgetter("Name", "Payload", "LTime", "Coalesce")
_query_fields = itemgetter("ID", "Name", "Payload", "LTime")
_KINDS = {f"member-{kind}": kind for kind in MEMBER_KINDS}


def event_from_wire(record: _Record) -> Event:
    """Read a record of ``stream``."""
    # The usual records are read here, each other one by the ``from_wire`` of its class.
    event = record.get("Event")
    draft: Any
    try:
        if event == "user":
            name, payload, ltime, coalesce = _user_fields(record)
            if (
                (payload.__class__ is bytes or payload is None)
                and name.__class__ is str
                and ltime.__class__ is int
                and coalesce.__class__ is bool
            ):
                draft = _UserEventDraft()
                draft.name = name
                draft.payload = payload or b""
                draft.ltime = ltime
                draft.coalesce = coalesce
                draft.__class__ = UserEvent
                return draft  # type: ignore[no-any-return]  # it is one now
        elif event == "query":
            id, name, payload, ltime = _query_fields(record)
            if (
                (payload.__class__ is bytes or payload is None)
                and id.__class__ is int
                and 0 <= id < 1 << 64
                and name.__class__ is str
                and ltime.__class__ is int
            ):
                draft = _QueryEventDraft()
                draft.id = id
                draft.name = name
                draft.payload = payload or b""
                draft.ltime = ltime
                draft._responder = None
                draft.__class__ = QueryEvent
                return draft  # type: ignore[no-any-return]  # as above
        elif event in _KINDS:
            draft = _MemberEventDraft()
            draft.members = tuple(members_from_wire(record))
            draft.kind = _KINDS[event]
            draft.__class__ = MemberEvent
            return draft  # type: ignore[no-any-return]  # as above
    except (KeyError, TypeError):
        pass  # a field is absent, or the event is no text
    read = _EVENTS.get(_take(record, "Event", str))
    if read is None:
        raise ProtocolError(f"unknown event: {_shown(record['Event'])}")
    return read(record)


@attrs.frozen
class Gap:
    """
    A time in which events may have been missed, because the stream was down.

    :ivar lost_at: when the agent of the lost connection was last heard, in seconds of the reactor's clock. A loss may be
        noticed long after it.
    :ivar resumed_at: when the stream was active again, in seconds of the reactor's clock.
    """

    lost_at: float
    resumed_at: float


_LOG_LINE = r"(?s)(?P<time>\d{4}/\d\d/\d\d \d\d:\d\d:\d\d) \[(?P<level>[A-Z]+)\] +(?:(?P<subsystem>[\w.-]+): )?(?P<text>.*)"


@attrs.frozen
class LogLine:
    """
    A line of an agent's log.

    :ivar line: the whole line, as it came.
    :ivar time: when it was written, in the agent's clock and time zone; None if unknown.
    :ivar level: ``TRACE``, ``DEBUG``, ``INFO``, ``WARN`` or ``ERR``; empty if unknown.
    :ivar subsystem: the part of the agent that wrote it, such as ``agent.ipc``; empty if unknown.
    :ivar text: the rest. If the line can't be parsed, all of it.
    """

    line: str = attrs.field(repr=False)
    time: datetime | None = None
    level: str = ""
    subsystem: str = ""
    text: str = ""

    @classmethod
    def parse(cls, line: str) -> LogLine:
        """Take a line apart. A line that has no such parts becomes the ``text``."""
        match = re.fullmatch(_LOG_LINE, line)
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
    """The acknowledgement of a node that has received the query."""

    node: str


@attrs.frozen
class Answer:
    """A node's answer to the query."""

    node: str
    payload: bytes


def query_record_from_wire(record: _Record) -> Ack | Answer | None:
    """
    Read a record of ``query``. None stands for ``done``, and for a record without a sender.

    Around the deadline an agent may send records with an empty ``From``.
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
    raise ProtocolError(f"unknown record of a query: {_shown(kind)}")


@attrs.frozen
class QueryResult:
    """
    The acks and answers to a query.

    :ivar acks: the nodes that have received it, in order of their acks.
    :ivar responses: the answers by node, in order of arrival.
    :ivar complete: whether no more will come: ``done`` came, or as many answers as were expected. With
        ``expect="all"``: whether nobody is missing.
    :ivar missing: with ``expect="all"``: the nodes that were to answer and did not, sorted. Else empty.
    """

    acks: list[str] = attrs.field(factory=list)
    responses: dict[str, bytes] = attrs.field(factory=dict)
    complete: bool = False
    missing: list[str] = attrs.field(factory=list)


@attrs.frozen
class KeyReply:
    """
    The answers of the nodes to a key command.

    :ivar keys: for ``list_keys``: by key (base64), how many nodes have it. The keys are secret, so ``repr()`` shows
        their number only.
    :ivar messages: the messages of nodes, by node. Not all of them are errors.
    :ivar nodes: the number of nodes that were asked.
    :ivar errors: the number of nodes that failed.
    :ivar responses: the number of nodes that answered.
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
    The network coordinate of a node, by the algorithm Vivaldi. All values but ``error`` are seconds.

    :ivar vec: its position in a Euclidean space.
    :ivar error: the uncertainty of the estimate, without a unit.
    :ivar adjustment: a correction that is added to distances, learned from past round trips.
    :ivar height: its distance from that space.
    """

    vec: tuple[float, ...]
    error: float = 1.5
    adjustment: float = 0.0
    height: float = 1e-05

    @classmethod
    def from_wire(cls, body: _Record) -> Coordinate | None:
        """Read the body of ``get-coordinate``; None if the agent has no coordinate for that node."""
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
        # Each pair is summed first, so that the distance back is the same to the last bit.
        distance = math.dist(self.vec, other.vec) + (self.height + other.height)
        adjusted = distance + (self.adjustment + other.adjustment)
        return adjusted if adjusted > 0.0 else distance
