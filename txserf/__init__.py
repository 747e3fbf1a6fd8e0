"""
txserf: the client of Serf's agent RPC for Twisted.

`Client` is the fluent face, `Serf` the typed one. The public names are those
of ``__all__``, of `txserf.constant` and of `txserf.embedded`; anything else may
change.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from txserf import constant
from txserf.errors import (
    AuthenticationError,
    ConnectError,
    ConnectionLost,
    Disconnected,
    InvalidHostURL,
    InvalidRequest,
    JoinError,
    KeyringError,
    ProtocolError,
    QueryError,
    RequestTimeout,
    RpcError,
    SerfError,
    StopReceiveData,
)

if TYPE_CHECKING:
    from txserf import embedded as embedded
    from txserf.client import Client
    from txserf.factory import SerfClientFactory
    from txserf.handlers import Router
    from txserf.hosts import Host
    from txserf.logs import LogStream
    from txserf.model import (
        Ack,
        Answer,
        Coordinate,
        Gap,
        KeyReply,
        LogLine,
        Member,
        MemberEvent,
        MemberStatus,
        QueryEvent,
        QueryResult,
        UserEvent,
    )
    from txserf.protocol import SerfProtocol
    from txserf.queries import Query
    from txserf.responses import Response, Responses
    from txserf.serf import Serf
    from txserf.streams import EventStream

# What is loaded at its first use: the upper layers import a good part of
# Twisted, which a program that wants an error or a constant need not pay for.
_LAZY = {
    "Ack": "txserf.model",
    "Answer": "txserf.model",
    "Client": "txserf.client",
    "Coordinate": "txserf.model",
    "EventStream": "txserf.streams",
    "Gap": "txserf.model",
    "Host": "txserf.hosts",
    "KeyReply": "txserf.model",
    "LogLine": "txserf.model",
    "LogStream": "txserf.logs",
    "Member": "txserf.model",
    "MemberEvent": "txserf.model",
    "MemberStatus": "txserf.model",
    "Query": "txserf.queries",
    "QueryEvent": "txserf.model",
    "QueryResult": "txserf.model",
    "Response": "txserf.responses",
    "Responses": "txserf.responses",
    "Router": "txserf.handlers",
    "Serf": "txserf.serf",
    "SerfClientFactory": "txserf.factory",
    "SerfProtocol": "txserf.protocol",
    "UserEvent": "txserf.model",
    "embedded": "txserf.embedded",
}

if not TYPE_CHECKING:  # where mypy saw this, it would let every typo pass

    def __getattr__(name: str) -> object:
        module = _LAZY.get(name)
        if module is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        loaded = import_module(module)
        value = globals()[name] = loaded if module == f"{__name__}.{name}" else getattr(loaded, name)
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *_LAZY})


__all__ = [
    "Ack",
    "Answer",
    "AuthenticationError",
    "Client",
    "ConnectError",
    "ConnectionLost",
    "Coordinate",
    "Disconnected",
    "EventStream",
    "Gap",
    "Host",
    "InvalidHostURL",
    "InvalidRequest",
    "JoinError",
    "KeyReply",
    "KeyringError",
    "LogLine",
    "LogStream",
    "Member",
    "MemberEvent",
    "MemberStatus",
    "ProtocolError",
    "Query",
    "QueryError",
    "QueryEvent",
    "QueryResult",
    "RequestTimeout",
    "Response",
    "Responses",
    "Router",
    "RpcError",
    "Serf",
    "SerfClientFactory",
    "SerfError",
    "SerfProtocol",
    "StopReceiveData",
    "UserEvent",
    "constant",
]
