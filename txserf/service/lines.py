"""A record as a line: text for people, or a JSON object."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeAlias

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

#: A record that can be shown.
Record: TypeAlias = "Member | Event | Gap | LogLine | Ack | Answer"

#: Makes a line of a record.
Format = Callable[[Record], str]


def as_text(record: Record) -> str:
    """Return a record as a line for people. Characters that could steer a terminal are escaped."""
    match record:
        case Member():
            name, tags = _printable(record.name), _printable(_tags(record))
            return f"member {name} {_where(record)} {_printable(str(record.status))} {tags}".rstrip()
        case UserEvent() | QueryEvent():
            name, payload = _printable(record.name), _shown(record.payload)
            return f"{record.type} {name} ltime={record.ltime} {payload}".rstrip()
        case MemberEvent():
            return f"{record.type} {' '.join(_printable(member.name) for member in record.members)}"
        case Ack():
            return f"ack {_printable(record.node)}"
        case Answer():
            return f"answer {_printable(record.node)} {_shown(record.payload)}".rstrip()
        case Gap():
            return f"gap of {record.resumed_at - record.lost_at:.3f} s: events may have been missed"
        case LogLine():
            return f"log {_printable(record.line)}"


def _printable(text: str) -> str:
    return text if text.isprintable() else repr(text)[1:-1]


def _shown(payload: bytes) -> str:
    return _printable(payload.decode("utf-8", "backslashreplace"))


def _where(member: Member) -> str:
    return "-" if member.address is None else address_label(str(member.address), member.port)


def _tags(member: Member) -> str:
    return ",".join(f"{key}={value}" for key, value in sorted(member.tags.items()))


def as_json(record: Record) -> str:
    """Return a record as a JSON object, whose ``type`` names its kind; in ASCII."""
    return json.dumps(_fields(record))


def _fields(record: Record) -> dict[str, Any]:
    match record:
        case Member():
            return {"type": "member", **_member(record)}
        case UserEvent():
            return {**_named(record), "coalesce": record.coalesce}
        case QueryEvent():
            return {**_named(record), "id": record.id}
        case MemberEvent():
            return {"type": record.type, "members": [_member(member) for member in record.members]}
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


def _member(member: Member) -> dict[str, Any]:
    return {
        "name": member.name,
        "address": None if member.address is None else str(member.address),
        "port": member.port,
        "status": str(member.status),
        "tags": member.tags,
    }


def _text(payload: bytes) -> str:
    # Bytes that are not UTF-8 become lone surrogates, which JSON can hold, so that a reader can get the bytes back.
    return wire.as_text(payload)


#: By the names that ``--format`` has for them.
FORMATS: dict[str, Format] = {"text": as_text, "json": as_json}
