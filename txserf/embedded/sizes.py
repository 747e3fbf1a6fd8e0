"""
The sizes of Serf's gossip messages, to which Serf's limits apply. The RPC itself has none.

Gossip is encoded in the old MessagePack, where text and bytes are one family without an 8-bit length. A message is one
byte for its type, then a map from the names of a Go struct's fields (Serf's ``serf/messages.go``) to their values.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from txserf.wire import as_bytes

EVENT_LIMIT = 512
QUERY_LIMIT = 1024
RESPONSE_LIMIT = 1024
TAGS_LIMIT = 512


def raw(value: str | bytes) -> int:
    """Size of text or bytes."""
    length = len(as_bytes(value))
    if length < 32:
        return 1 + length
    return 3 + length if length < 65536 else 5 + length


def number(value: int) -> int:
    """Size of an integer; a negative one is encoded as signed."""
    if value < 0:
        return 1 if value >= -32 else 9
    for most, size in ((127, 1), (255, 2), (65535, 3), (2**32 - 1, 5)):
        if value <= most:
            return size
    return 9


def container(length: int) -> int:
    """Size of the head of a map or an array."""
    return 1 if length < 16 else 3


def _message(fields: Mapping[str, int]) -> int:
    return 1 + container(len(fields)) + sum(raw(name) + size for name, size in fields.items())


def _payload(payload: bytes) -> int:
    return raw(payload)


def user_event(ltime: int, name: str, payload: bytes) -> int:
    """Size of ``messageUserEvent``."""
    return _message({"LTime": number(ltime), "Name": raw(name), "Payload": _payload(payload), "CC": 1})


def query(
    ltime: int,
    node: str,
    name: str,
    payload: bytes,
    timeout: int,
    filter_nodes: Iterable[str],
    filter_tags: Mapping[str, str],
) -> int:
    """
    Size of ``messageQuery``.

    :param timeout: nanoseconds.
    """
    filters = []
    nodes = tuple(filter_nodes)
    if nodes:
        filters.append(1 + container(len(nodes)) + sum(map(raw, nodes)))
    for tag, pattern in filter_tags.items():
        filters.append(_message({"Tag": raw(tag), "Expr": raw(pattern)}))
    return _message(
        {
            "LTime": number(ltime),
            "ID": 5,  # a random 31 bits: hardly ever shorter
            "Addr": 5,
            "Port": 3,
            "SourceNode": raw(node),
            "Filters": container(len(filters)) + sum(size + (1 if size < 32 else 3) for size in filters),
            "Flags": 1,
            "RelayFactor": 1,
            "Timeout": number(timeout),
            "Name": raw(name),
            "Payload": _payload(payload),
        }
    )


def response(ltime: int, node: str, payload: bytes) -> int:
    """Size of ``messageQueryResponse``."""
    fields = {"LTime": number(ltime), "ID": 5, "From": raw(node), "Flags": 1, "Payload": _payload(payload)}
    return _message(fields)


def key_response(message: str, keys: Iterable[str], primary: str) -> int:
    """Size of ``nodeKeyResponse``, the payload of a response."""
    listed = tuple(keys)
    size = container(len(listed)) + sum(map(raw, listed))
    return _message({"Result": 1, "Message": raw(message), "Keys": size, "PrimaryKey": raw(primary)})


def tags(values: Mapping[str, str]) -> int:
    """Size of a node's tags in memberlist's messages."""
    return 1 + container(len(values)) + sum(raw(name) + raw(value) for name, value in values.items())
