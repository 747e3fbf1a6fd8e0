"""
Requests as Serf's agent decodes them: values that it takes, fills in and refuses.

A header's fields that are left out keep the value of the connection's last
header; those of a body are zero. A value of the wrong type ends the connection.
The table has the fields. This module has Go's reading of each kind.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from txserf import arguments, commands
from txserf.arguments import Kind
from txserf.commands import Command
from txserf.wire import as_bytes


class BadRequest(Exception):
    """The agent can't decode this, and closes the connection."""


def _text(value: Any) -> str:
    if value is None:
        return ""
    if value.__class__ is not str:
        raise BadRequest(f"{type(value).__name__} for text")
    return str(value)


def _payload(value: Any) -> bytes:
    if value is None:
        return b""
    if value.__class__ is bytes:
        return bytes(value)
    if value.__class__ is str:
        return as_bytes(value)
    if value.__class__ is list and all(item.__class__ is int and 0 <= item <= 255 for item in value):
        return bytes(value)
    raise BadRequest(f"{type(value).__name__} for a payload")


def _integer(least: int, most: int) -> Callable[[Any], int]:
    def decode(value: Any) -> int:
        if value is None:
            return 0
        if value.__class__ is not int or not least <= value <= most:
            raise BadRequest(f"not an integer from {least} to {most}")
        return int(value)

    return decode


_signed64 = _integer(-(2**63), 2**64 - 1)


def _nanoseconds(value: Any) -> int:
    number = _signed64(value)
    return number - 2**64 if number >= 2**63 else number


def _flag(value: Any) -> bool:
    if value is None or value.__class__ is bool or (value.__class__ is int and value in (0, 1)):
        return bool(value)
    raise BadRequest(f"{type(value).__name__} for a bool")


def _texts(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    if value.__class__ is dict:  # Go takes a map for a list: a key, its value, the next key
        value = [part for pair in value.items() for part in pair]
    if value.__class__ is not list:
        raise BadRequest(f"{type(value).__name__} for a list")
    return tuple(map(_text, value))


def _text_map(value: Any) -> dict[str, str]:
    if value is None:
        return {}
    if value.__class__ is not dict:
        raise BadRequest(f"{type(value).__name__} for a map")
    return {_text(key): _text(item) for key, item in value.items()}


_DECODE: dict[Kind, Callable[[Any], Any]] = {
    arguments.TEXT: _text,
    arguments.FILLED_TEXT: _text,
    arguments.PAYLOAD: _payload,
    arguments.EVENT_PAYLOAD: _payload,
    arguments.FLAG: _flag,
    arguments.VERSION: _integer(-(2**31), 2**31 - 1),
    arguments.UINT8: _integer(0, 255),
    arguments.UINT64: _integer(0, 2**64 - 1),
    arguments.NANOSECONDS: _nanoseconds,
    arguments.PATTERN: _text,
    arguments.PATTERN_MAP: _text_map,
    arguments.TEXTS: _texts,
    arguments.TEXT_MAP: _text_map,
}

# Go takes an array for a struct, in the order of its fields. Here that is not the table's.
_QUERY_FIELDS = ("FilterNodes", "FilterTags", "RequestAck", "RelayFactor", "Timeout", "Name", "Payload")

_decode_seq = _DECODE[arguments.UINT64]


def decode_header(value: Any, command: str, seq: int) -> tuple[str, int]:
    """
    Return a header's command and Seq.

    :param command: the last header's, for one that has none.
    :param seq: likewise.
    :raises BadRequest: the connection is to be closed, without a reply.
    """
    if value is None:
        return "", 0
    if value.__class__ is list:
        value = dict(zip(("Command", "Seq"), value, strict=False))
    if value.__class__ is not dict:
        raise BadRequest(f"{type(value).__name__} for a header")
    _check_keys(value)
    return (
        _text(value["Command"]) if "Command" in value else command,
        _decode_seq(value["Seq"]) if "Seq" in value else seq,
    )


def decode_body(row: Command, value: Any) -> dict[str, Any]:
    """
    Return the arguments in a body, zero where they are left out.

    A nil payload is the same as an empty one here. For ``query``, the one command that tells
    them apart, ``PayloadIsNil`` says which it was.

    :raises BadRequest: the connection is to be closed, without a reply.
    """
    fields = [arg for arg in row.args if arg.sent]
    if value is None:
        value = {}
    elif value.__class__ is list:
        names = _QUERY_FIELDS if row is commands.QUERY else [arg.name for arg in fields]
        value = dict(zip(names, value, strict=False))
    if value.__class__ is not dict:
        raise BadRequest(f"{type(value).__name__} for a body")
    _check_keys(value)
    values = {arg.name: _DECODE[arg.kind](value.get(arg.name)) for arg in fields}
    if row is commands.QUERY:
        values["PayloadIsNil"] = value.get("Payload") is None
    return values


def _check_keys(value: dict[Any, Any]) -> None:
    for key in value:
        if key.__class__ is not str:
            raise BadRequest(f"{type(key).__name__} for a name of a field")
