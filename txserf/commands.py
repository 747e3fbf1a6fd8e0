"""
The commands of Serf's RPC: ONE table, a row for each command.

A row of `TABLE` has the name of a command on the wire, its arguments and their
kinds, and the shape and the decoder of its answer. Both APIs, the connection, the
embedded agent and the page of the docs read the rows; no other module has these facts.

Names and shapes are from Serf's ``client/const.go``; how the agent uses them is in
``cmd/serf/command/agent/ipc.go``.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Iterable, Mapping
from operator import attrgetter
from typing import Any

import attrs

from txserf import model, wire
from txserf.arguments import (
    DURATION,
    EVENT_PAYLOAD,
    FILLED_TEXT,
    FLAG,
    NANOSECONDS,
    PATTERN,
    PATTERN_MAP,
    PAYLOAD,
    REQUIRED,
    TEXT,
    TEXT_MAP,
    TEXTS,
    UINT8,
    UINT64,
    VERSION,
    Arg,
    did_you_mean,
    whole,
)
from txserf.errors import InvalidRequest, JoinError, KeyringError, QueryError, RpcError
from txserf.known import KnownItems
from txserf.wire import Items

#: The levels of an agent's log, the lowest first. The agent takes them in capitals and small letters.
LOG_LEVELS = ("TRACE", "DEBUG", "INFO", "WARN", "ERR")

AUTHENTICATION_REQUIRED = "Authentication required"


class Answered(enum.Enum):
    """The parts of an agent's answer."""

    HEADER = "a header"
    BODY = "a header, and a body unless it has an error"
    ALWAYS_BODY = "a header and a body, with an error too"
    RECORDS = "a header, then records until it is stopped or done"


class Road(enum.Enum):
    """
    The connection of a session that a command goes by.

    The agent works through the requests of one connection in order. A command that may
    take long has a connection where no other command waits behind it, in the typed API;
    the fluent API sends a batch in one write. So has a command that may cost the connection.
    """

    MAIN = "the connection that everything shares"
    JOIN = "one for joins: 10 s and more for each address that stays silent"
    KEYS = "one for key commands: they wait for the answer of every node"
    ALONE = "one of its own: the agent may close it instead of an answer"
    GREETING = "none: the connection's own handshake and auth are the answer"


def _no_body(body: Mapping[str, Any]) -> None:
    return None


@attrs.frozen
class Command:
    """
    A row of the table.

    :ivar wire: its name on the wire.
    :ivar args: the fields of its body, in Serf's order. Without any, no body may be sent: the
        agent would run the command twice.
    :ivar reply: the parts of the answer.
    :ivar shape: the reply's body, or a stream's record, in words for the docs.
    :ivar changes: whether running it twice differs from running it once. Such a command is
        never sent again after a loss.
    :ivar slow: whether the agent may work on it for seconds, and answer nothing else on that
        connection meanwhile.
    :ivar road: the connection that it takes.
    :ivar decode: makes the typed value of a reply's body; raises `ProtocolError` for another shape.
    :ivar items: makes what takes the items of a long list as they come; `decode` finds it in the place of the list.
    :ivar known: finds by a body's bytes what `decode` makes of the body.
    :ivar decode_record: makes the typed value of a stream's record, likewise.
    :ivar error: the typed API's class of an agent's error.
    :ivar ends: the ``Type`` of the record that is a stream's last; empty where ``stop`` ends it.
    :ivar sender: the field of a record with the name of its sender. A record without a sender
        means nothing and is dropped.
    :ivar succeeded: tells from a reply's body whether the command worked; None: it worked if there is no error.
    :ivar may_close: tells from the arguments whether the agent may close the connection instead of an answer.
    :ivar summary: its purpose, for the docs.
    """

    wire: str
    summary: str
    args: tuple[Arg, ...] = ()
    reply: Answered = Answered.HEADER
    shape: str = ""
    changes: bool = False
    slow: bool = False
    road: Road = Road.MAIN
    decode: Callable[[Mapping[str, Any]], Any] = _no_body
    items: Callable[[int], Items] | None = None
    known: KnownItems | None = None
    decode_record: Callable[[Mapping[str, Any]], Any] = _no_body
    error: type[RpcError] = RpcError
    ends: str = ""
    sender: str = ""
    succeeded: Callable[[Mapping[str, Any]], bool] | None = None
    may_close: Callable[[Mapping[str, Any]], bool] | None = None

    # Derived once, and read for every message.
    prefix: bytes = attrs.field(init=False, repr=False)
    body_on_success: bool = attrs.field(init=False, repr=False)
    body_on_error: bool = attrs.field(init=False, repr=False)
    streams: bool = attrs.field(init=False, repr=False)
    subscribes: bool = attrs.field(init=False, repr=False)  # records come until it is stopped
    answers_alone: bool = attrs.field(init=False, repr=False)  # one reply, and no handshake that goes with it
    has_secret: bool = attrs.field(init=False, repr=False)  # it has an argument that is shown nowhere
    takes_main_road: bool = attrs.field(init=False, repr=False)  # with any arguments
    _by_name: dict[str, Arg] = attrs.field(init=False, repr=False, eq=False)
    _defaults: dict[str, Any] = attrs.field(init=False, repr=False, eq=False)
    _checks: tuple[tuple[str, Callable[[Any], Any]], ...] = attrs.field(init=False, repr=False, eq=False)
    _only: tuple[str, Callable[[Any], Any]] | None = attrs.field(init=False, repr=False, eq=False)
    _fields: tuple[tuple[str, Callable[[Any], Any] | None], ...] = attrs.field(
        init=False, repr=False, eq=False
    )
    _as_is: bool = attrs.field(init=False, repr=False)  # the checked arguments are the body

    @prefix.default
    def _wire_prefix(self) -> bytes:
        return wire.request_prefix(self.wire)

    @body_on_success.default
    def _has_body(self) -> bool:
        return self.reply in (Answered.BODY, Answered.ALWAYS_BODY)

    @body_on_error.default
    def _always_has_body(self) -> bool:
        return self.reply is Answered.ALWAYS_BODY

    @streams.default
    def _has_records(self) -> bool:
        return self.reply is Answered.RECORDS

    @subscribes.default
    def _has_records_without_end(self) -> bool:
        return self.streams and not self.ends

    @answers_alone.default
    def _has_one_reply(self) -> bool:
        return not self.streams and self.road is not Road.GREETING

    @has_secret.default
    def _has_secret_arg(self) -> bool:
        return any(arg.secret for arg in self.args)

    @takes_main_road.default
    def _goes_with_others(self) -> bool:
        return self.road is Road.MAIN and self.may_close is None

    @_by_name.default
    def _args_by_name(self) -> dict[str, Arg]:
        return {arg.name: arg for arg in self.args}

    @_defaults.default
    def _args_defaults(self) -> dict[str, Any]:
        return {arg.name: arg.default for arg in self.args}

    @_checks.default
    def _args_checks(self) -> tuple[tuple[str, Callable[[Any], Any]], ...]:
        return tuple((arg.name, arg.kind.convert) for arg in self.args)

    @_only.default
    def _only_check(self) -> tuple[str, Callable[[Any], Any]] | None:
        return self._checks[0] if len(self._checks) == 1 else None

    @_fields.default
    def _body_fields(self) -> tuple[tuple[str, Callable[[Any], Any] | None], ...]:
        return tuple((arg.name, arg.kind.on_wire) for arg in self.args if arg.sent)

    @_as_is.default
    def _is_body(self) -> bool:
        return all(arg.sent and arg.kind.on_wire is None for arg in self.args)

    def arguments(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """
        Check and convert arguments.

        :param given: values by Serf's own names.
        :returns: all arguments of the row, in its order, the defaults filled in.
        :raises InvalidRequest: names the command, the argument and its fault.
        """
        if not given and not self.args:
            return {}
        if self._only is not None and len(given) == 1:
            # Half of the rows have one argument: 0.15 us less for each request.
            only, convert = self._only
            try:
                return {only: convert(given[only])}
            except (KeyError, TypeError, ValueError):
                pass  # the error is raised below
        values = {**self._defaults, **given}
        if len(values) != len(self._defaults):
            name = next(name for name in given if name not in self._by_name)
            hint = did_you_mean(name, self._by_name) or f" (it takes: {', '.join(self._by_name) or 'none'})"
            raise InvalidRequest(f"{self.wire}: unknown argument {name!r}{hint}")
        for name, convert in self._checks:
            try:
                values[name] = convert(values[name])
            except (TypeError, ValueError) as error:
                wrong = "is missing" if values[name] is REQUIRED else error
                raise InvalidRequest(f"{self.wire}: {name} {wrong}") from None
        return values

    def typed_arguments(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """
        Check and convert arguments of the typed API.

        :param given: values by the typed API's names; each has to be an argument of the row.
        :returns: as `arguments`.
        :raises InvalidRequest: names the argument by its name in the typed API.
        """
        values: dict[str, Any] = {}
        for arg in self.args:
            try:
                values[arg.name] = arg.kind.convert(given.get(arg.python, arg.default))
            except (TypeError, ValueError) as error:
                raise InvalidRequest(f"{self.wire}: {arg.python} {error}") from None
        return values

    def body(self, values: Mapping[str, Any]) -> bytes:
        """
        Return the request body of checked arguments; empty for a command without arguments.

        :raises InvalidRequest: for text that can't be encoded (a lone surrogate).
        """
        if not self.args:
            return b""
        sent = (
            values
            if self._as_is
            else {
                name: values[name] if on_wire is None else on_wire(values[name])
                for name, on_wire in self._fields
            }
        )
        try:
            return wire.pack(sent)
        except UnicodeEncodeError as error:
            bad = next(name for name, value in sent.items() if _unpackable(value))
            raise InvalidRequest(f"{self.wire}: {bad} is not text that can be sent: {error.reason}") from None

    def road_of(self, values: Mapping[str, Any], lanes: bool) -> Road:
        """
        Return the connection that it takes with checked arguments.

        :param lanes: whether a command that may take long has a connection of its own.
        """
        if self.may_close is not None and self.may_close(values):
            return Road.ALONE
        return self.road if lanes or self.road is Road.GREETING else Road.MAIN

    def shown(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return arguments as they may be shown: a key as ``'***'``."""
        by_name = self._by_name
        return {name: "***" if by_name[name].secret else value for name, value in values.items()}

    def without_keys(self, message: str, values: Mapping[str, Any]) -> str:
        """Return an agent's *message* without the keys of *values*: an agent may repeat what it was given."""
        for arg in self.args:
            if arg.secret and values[arg.name]:
                message = message.replace(values[arg.name], "***")
        return message

    def refusal(self, message: str, body: Mapping[str, Any] | None = None) -> RpcError:
        """
        Return the typed API's error for an agent's *message*.

        :param body: the reply's body, for the commands that send one with an error.
        """
        detail: dict[str, Any] = {}
        if self.error is JoinError:
            detail = {"joined": self.decode(body or {"Num": 0})}
        elif self.error is KeyringError and body is not None:
            reply = self.decode(body)
            detail = {"reply": reply}
            nodes = [f"{node}: {text}" for node, text in sorted(reply.messages.items())]
            if nodes:
                more = f", and {len(nodes) - 1} more" if len(nodes) > 1 else ""
                detail["text"] = f"{self.wire}: {message} ({nodes[0]}{more})"
        return self.error(command=self.wire, message=message, **detail)


def _unpackable(value: object) -> bool:
    try:
        wire.pack(value)
    except UnicodeEncodeError:
        return True
    return False


def _joined_some(body: Mapping[str, Any]) -> bool:
    number = body.get("Num")  # of any type: no error is raised here
    return number.__class__ is int and number > 0


_name = attrgetter("name")


def _members_by_name(body: Mapping[str, Any]) -> list[model.Member]:
    # An agent lists them in another order each time.
    members = model.members_from_wire(body)
    if len(members) > 1:
        members.sort(key=_name)
    return members


#: The members that came lately, in short lists.
KNOWN_MEMBERS = KnownItems("Members", model.MEMBER_FIELDS, model.members_from_wire, _name)


# Characters that RE2 takes for themselves in any place, and the dot.
_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.:/@=, ")


def _may_not_compile(values: Mapping[str, Any]) -> bool:
    patterns = [values["Name"], values["Status"], *values["Tags"].values()]
    return not all(_is_plain(pattern) or _compiles(pattern) for pattern in patterns)


def _is_plain(pattern: str) -> bool:
    return all(_PLAIN.issuperset(part) for part in pattern.replace(".*", "").split("|"))


# Patterns that RE2 and Python's re read alike: without classes, flags other than s, repeated groups, and escapes
# of letters and digits.
_KNOWN_ALIKE = r"(?a)(?:[\w.:/@=, |^$*+?-]|\((?!\?)|\(\?s?:|\)(?![*+?])|\\[ -/:-@\[-`{-~])*"
_FEW = 4  # repetitions; with many of them Python's re may take minutes
_POSSESSIVE = r"[*+?]\+"  # a repetition of Python's (from 3.11 on) that RE2 does not have
_NESTED = 50  # groups; with very many of them one in another, re.compile() runs out of stack


def _compiles(pattern: str) -> bool:
    """Tell whether RE2 certainly takes a pattern, so that the agent does not close the connection."""
    if (
        not re.fullmatch(_KNOWN_ALIKE, pattern)
        or re.search(_POSSESSIVE, pattern)
        or pattern.count("(") > _NESTED
    ):
        return False
    try:
        re.compile(pattern)
    except re.error:
        return False
    return True


def can_match(pattern: str, texts: Iterable[str]) -> bool:
    """
    Tell whether a filter of ``members-filtered`` matches any of *texts*; True where that can't be known.

    It is sent as `whole` makes it.
    """
    if not re.fullmatch(_KNOWN_ALIKE, pattern) or sum(map(pattern.count, "*+?")) > _FEW:
        return True
    try:
        return any(re.search(f"^{whole(pattern)}$", text) for text in texts)
    except re.error:
        return True


def read_alike(pattern: str) -> re.Pattern[str] | None:
    """Return a pattern of a query's tag, to be searched for as RE2 does; None where that can't be known."""
    if not _compiles(pattern) or sum(map(pattern.count, "*+?")) > _FEW:
        return None
    try:
        return re.compile(re.sub(_ESCAPE_OR_END, lambda found: _END.get(found[0], found[0]), pattern))
    except re.error:  # such as a repeated end
        return None


# In Python's re the end is also before a newline at the end.
_ESCAPE_OR_END = r"\\.|\$"
_END = {"$": r"\Z"}


_KEY_REPLY = "Messages: {node: text}, Keys: {key: nodes that have it} or nil, NumNodes, NumErr, NumResp: int"


def _key_command(name: str, summary: str) -> Command:
    return Command(
        name,
        summary,
        (Arg("Key", TEXT, "key", secret=True),),
        reply=Answered.ALWAYS_BODY,
        shape=_KEY_REPLY,
        changes=True,
        slow=True,
        road=Road.KEYS,
        decode=model.KeyReply.from_wire,
        error=KeyringError,
    )


_MEMBERS = "Members: list of members"

HANDSHAKE = Command(
    "handshake",
    "Agree on the version of the RPC.",
    (Arg("Version", VERSION, "version", 1),),
    road=Road.GREETING,
)
AUTH = Command(
    "auth",
    "Show the key that the agent wants.",
    (Arg("AuthKey", TEXT, "auth_key", secret=True),),
    road=Road.GREETING,
)
EVENT = Command(
    "event",
    "Send a user event to all members.",
    (
        Arg("Name", TEXT, "name"),
        Arg("Payload", EVENT_PAYLOAD, "payload", b""),
        Arg("Coalesce", FLAG, "coalesce", True),
    ),
    changes=True,
)
FORCE_LEAVE = Command(
    "force-leave",
    "Make a failed member one that left; pruned, it is forgotten at once.",
    (Arg("Node", FILLED_TEXT, "node"), Arg("Prune", FLAG, "prune", False)),
    changes=True,
    slow=True,
)
JOIN = Command(
    "join",
    "Make the agent join a cluster by the gossip addresses of members of it.",
    (Arg("Existing", TEXTS, "addresses"), Arg("Replay", FLAG, "replay", False)),
    reply=Answered.ALWAYS_BODY,
    shape="Num: int, the addresses that were joined",
    changes=True,
    slow=True,
    road=Road.JOIN,
    decode=model.joined_from_wire,
    succeeded=_joined_some,
    error=JoinError,
)
MEMBERS = Command(
    "members",
    "Return the members that the agent knows.",
    reply=Answered.BODY,
    shape=_MEMBERS,
    decode=_members_by_name,
    items=model.MemberItems,
    known=KNOWN_MEMBERS,
)
MEMBERS_FILTERED = Command(
    "members-filtered",
    "Return the members that match all filters (Go's RE2, for the whole text).",
    (
        Arg("Tags", PATTERN_MAP, "tags", {}),
        Arg("Status", PATTERN, "status", ""),
        Arg("Name", PATTERN, "name", ""),
    ),
    reply=Answered.BODY,
    shape=_MEMBERS,
    decode=_members_by_name,
    items=model.MemberItems,
    known=KNOWN_MEMBERS,
    may_close=_may_not_compile,
)
TAGS = Command(
    "tags",
    "Delete and then set tags of the agent's own node.",
    (Arg("Tags", TEXT_MAP, "tags", {}), Arg("DeleteTags", TEXTS, "delete", ())),
    changes=True,
    slow=True,
)
STREAM = Command(
    "stream",
    "Follow the events that match a filter.",
    (Arg("Type", TEXT, "type", "*"),),
    reply=Answered.RECORDS,
    shape="Event: str, and the fields of such an event",
    decode_record=model.event_from_wire,
)
MONITOR = Command(
    "monitor",
    "Follow the agent's log, from its last 512 lines on.",
    (Arg("LogLevel", TEXT, "level"),),
    reply=Answered.RECORDS,
    shape="Log: str, a line",
    decode_record=model.LogLine.from_wire,
)
STOP = Command("stop", "Stop the stream or monitor of a Seq.", (Arg("Stop", UINT64, "seq"),))
LEAVE = Command("leave", "Make the agent leave its cluster and exit.", changes=True, slow=True)
QUERY = Command(
    "query",
    "Ask members and collect their answers.",
    (
        Arg("Name", TEXT, "name"),
        Arg("Payload", PAYLOAD, "payload", b""),
        Arg("FilterNodes", TEXTS, "nodes", ()),
        Arg("FilterTags", TEXT_MAP, "tags", {}),
        Arg("RequestAck", FLAG, "acks", True),
        Arg("Timeout", NANOSECONDS, "timeout", 0),
        Arg("RelayFactor", UINT8, "relay_factor", 0),
    ),
    reply=Answered.RECORDS,
    shape="Type: ack, response or done; From: str, Payload: bytes or nil",
    changes=True,
    decode_record=model.query_record_from_wire,
    error=QueryError,
    ends="done",
    sender="From",  # around its deadline an agent may send records that are from nobody, before ``done``
)
RESPOND = Command(
    "respond",
    "Answer a query that came by a stream of this connection.",
    (
        Arg("ID", UINT64, "id"),
        Arg("Payload", PAYLOAD, "payload", b""),
        Arg("Timeout", DURATION, "timeout", 0, sent=False),
    ),
    changes=True,
    error=QueryError,
)
INSTALL_KEY = _key_command("install-key", "Add an encryption key to every node's keyring.")
USE_KEY = _key_command("use-key", "Make a key of the keyrings the primary one.")
REMOVE_KEY = _key_command("remove-key", "Remove a key from every node's keyring.")
LIST_KEYS = Command(
    "list-keys",
    "Return the keys of all keyrings.",
    reply=Answered.ALWAYS_BODY,
    shape=_KEY_REPLY,
    slow=True,
    road=Road.KEYS,
    decode=model.KeyReply.from_wire,
    error=KeyringError,
)
STATS = Command(
    "stats",
    "Return figures about the agent.",
    reply=Answered.BODY,
    shape="{section: {name: text}}",
    decode=model.stats_from_wire,
)
GET_COORDINATE = Command(
    "get-coordinate",
    "Return where a member lies in the network.",
    (Arg("Node", FILLED_TEXT, "node"),),
    reply=Answered.BODY,
    shape="Coord: a coordinate, Ok: bool",
    decode=model.Coordinate.from_wire,
)

#: All commands, in the order of Serf's manual.
TABLE: tuple[Command, ...] = (
    HANDSHAKE,
    AUTH,
    EVENT,
    FORCE_LEAVE,
    JOIN,
    MEMBERS,
    MEMBERS_FILTERED,
    TAGS,
    STREAM,
    MONITOR,
    STOP,
    LEAVE,
    QUERY,
    RESPOND,
    INSTALL_KEY,
    USE_KEY,
    REMOVE_KEY,
    LIST_KEYS,
    STATS,
    GET_COORDINATE,
)

BY_WIRE: dict[str, Command] = {row.wire: row for row in TABLE}
