"""A record as a line: text for people, or a JSON object."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any, TypeAlias

from twisted.logger import formatTime

from txserf import wire
from txserf.connection.hosts import address_label
from txserf.model import (
    Ack,
    Answer,
    Event,
    Gap,
    LogLine,
    Member,
    MemberEvent,
    QueryEvent,
    UserEvent,
)
from txserf.service import members
from txserf.service.terminal import Cell, Look, places, printable

#: A record that can be shown.
Record: TypeAlias = "Member | Event | Gap | LogLine | Ack | Answer"

#: Makes a line of a record.
Format = Callable[[Record], str]

#: The names that ``--format`` has for formats.
FORMATS = ("text", "json")

# On a terminal: places for the longest kind of record, and for names. A longer name shifts the rest of its line.
_KIND, _NAME, _LONG_NAME = 13, 8, 24


def line_format(name: str, look: Look, now: Callable[[], float] | None) -> Format:
    """
    Return the format of this name.

    :param name: one of `FORMATS`.
    :param look: how text looks where the lines go. On a terminal it has columns.
    :param now: gives the time, in seconds since 1970, which each line has; None where something else adds it to text.
    """
    if name == "json":
        return as_json if now is None else lambda record: as_json(record, now())
    if now is None:
        return as_text
    if look.is_terminal:
        return Columns(look, now)
    return lambda record: f"{formatTime(now())} {as_text(record)}"


def as_text(record: Record) -> str:
    """Return a record as a line for people. Characters that could steer a terminal are escaped."""
    match record:
        case Member():
            name, tags = printable(record.name), printable(_tags(record))
            return f"member {name} {_where(record)} {printable(str(record.status))} {tags}".rstrip()
        case UserEvent() | QueryEvent():
            name, payload = printable(record.name), printable(_payload(record))
            return f"{record.type} {name} ltime={record.ltime} {payload}".rstrip()
        case MemberEvent():
            return f"{record.type} {' '.join(printable(member.name) for member in record.members)}"
        case Ack():
            return f"ack {printable(record.node)}"
        case Answer():
            return f"answer {printable(record.node)} {printable(_payload(record))}".rstrip()
        case Gap():
            return f"gap of {_seconds(record)} s: events may have been missed"
        case LogLine():
            return f"log {printable(record.line)}"


class Columns:
    """
    Makes lines for a terminal: the time, the kind and the name stand below each other, each in its style.

    :param look: of the terminal.
    :param now: gives the time, in seconds since 1970.
    """

    def __init__(self, look: Look, now: Callable[[], float]) -> None:
        self._look = look
        self._now = now
        self._name = _NAME

    def __call__(self, record: Record) -> str:
        """Return the line of a record."""
        kind, name, rest = _cells(record)
        if rest:
            self._name = max(self._name, min(places(printable(name)), _LONG_NAME))
        cells = [
            self._look.styled(formatTime(self._now(), "%H:%M:%S"), "time"),
            self._look.cell((kind, kind), _KIND),
            self._look.cell(name, self._name),
            *(self._look.cell(cell) for cell in rest if cell),
        ]
        return "  ".join(cells).rstrip()


def _cells(record: Record) -> tuple[str, str, list[Cell]]:
    """Return the kind, the name, and more about a record."""
    match record:
        case Member():
            status = str(record.status)
            return "member", record.name, [_where(record), (status, status), _tags(record)]
        case UserEvent() | QueryEvent():
            return record.type, record.name, [_payload(record), (f"LTime {record.ltime}", "hint")]
        case MemberEvent(members=(member,)):
            return record.type, member.name, [_where(member), _tags(member)]
        case MemberEvent():
            return record.type, " ".join(member.name for member in record.members), []
        case Ack():
            return "ack", record.node, []
        case Answer():
            return "answer", record.node, [_payload(record)]
        case Gap():
            return "gap", f"{_seconds(record)} s", ["events may have been missed"]
        case LogLine():
            text = f"{record.subsystem}: {record.text}" if record.subsystem else record.text
            return "log", record.level, [text]


def _payload(record: UserEvent | QueryEvent | Answer) -> str:
    return record.payload.decode("utf-8", "backslashreplace")


def _seconds(gap: Gap) -> str:
    return f"{gap.resumed_at - gap.lost_at:.3f}"


def _where(member: Member) -> str:
    return "-" if member.address is None else address_label(str(member.address), member.port)


def _tags(member: Member) -> str:
    return ",".join(f"{key}={value}" for key, value in sorted(member.tags.items()))


def as_json(record: Record, at: float | None = None) -> str:
    """
    Return a record as a JSON object, whose ``type`` names its kind; in ASCII.

    :param at: seconds since 1970 at which the record came, which become its ``time`` (ISO 8601, UTC). A log line keeps
        the agent's own time, if it has one. None: no other record has a time.
    """
    return json.dumps(record_fields(record, at))


def record_fields(record: Record, at: float | None = None) -> dict[str, Any]:
    """Return the fields of the JSON object that `as_json` makes."""
    fields = _fields(record)
    if at is not None and fields.get("time") is None:
        fields["time"] = datetime.fromtimestamp(at, timezone.utc).isoformat(timespec="microseconds")
    return fields


def _fields(record: Record) -> dict[str, Any]:
    match record:
        case Member():
            return {"type": "member", **members.brief(record)}
        case UserEvent():
            return {**_named(record), "coalesce": record.coalesce}
        case QueryEvent():
            return {**_named(record), "id": record.id}
        case MemberEvent():
            return {"type": record.type, "members": [members.brief(member) for member in record.members]}
        case Ack():
            return {"type": "ack", "node": record.node}
        case Answer():
            return {"type": "answer", "node": record.node, "payload": _text(record.payload)}
        case Gap():
            return {"type": "gap", "seconds": record.resumed_at - record.lost_at}
        case LogLine():
            return {
                "type": "log",
                "level": record.level,
                "subsystem": record.subsystem,
                "text": record.text,
                "time": None if record.time is None else record.time.isoformat(),
            }


def _named(event: UserEvent | QueryEvent) -> dict[str, Any]:
    return {
        "type": event.type,
        "name": event.name,
        "payload": _text(event.payload),
        "ltime": event.ltime,
    }


def _text(payload: bytes) -> str:
    # Bytes that are not UTF-8 become lone surrogates, which JSON can hold, so that a reader can get the bytes back.
    return wire.as_text(payload)
