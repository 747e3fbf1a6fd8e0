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
    NoMember,
    Overloaded,
    ProtocolError,
    QueryError,
    RequestTimeout,
    RpcError,
    SerfError,
    StopReceiveData,
)

__version__ = "0.1.0"

if TYPE_CHECKING:
    from txserf import embedded as embedded
    from txserf.client.client import Client
    from txserf.client.requests import Response, Responses
    from txserf.cluster.changes import Change
    from txserf.cluster.endpoint import ServiceEndpoint
    from txserf.cluster.ring import Ring
    from txserf.cluster.template import Template
    from txserf.cluster.view import ClusterView
    from txserf.connection.factory import SerfClientFactory
    from txserf.connection.hosts import Host
    from txserf.connection.protocol import SerfProtocol
    from txserf.handlers.router import Router
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
    from txserf.serf.advertise import Advertisement
    from txserf.serf.logs import LogStream
    from txserf.serf.query import Query
    from txserf.serf.serf import Serf
    from txserf.serf.streams import EventStream

# Modules that are loaded when one of their names is used first, and these names: the upper layers
# import a good part of Twisted, which a program that wants an error or a constant need not pay for.
_LAZY = {
    "txserf.client.client": ["Client"],
    "txserf.client.requests": ["Response", "Responses"],
    "txserf.cluster.changes": ["Change"],
    "txserf.cluster.endpoint": ["ServiceEndpoint"],
    "txserf.cluster.ring": ["Ring"],
    "txserf.cluster.template": ["Template"],
    "txserf.cluster.view": ["ClusterView"],
    "txserf.connection.factory": ["SerfClientFactory"],
    "txserf.connection.hosts": ["Host"],
    "txserf.connection.protocol": ["SerfProtocol"],
    "txserf.embedded": ["embedded"],
    "txserf.handlers.router": ["Router"],
    "txserf.model": [
        "Ack", "Answer", "Coordinate", "Gap", "KeyReply", "LogLine", "Member", "MemberEvent", "MemberStatus",
        "QueryEvent", "QueryResult", "UserEvent",
    ],
    "txserf.serf.advertise": ["Advertisement"],
    "txserf.serf.logs": ["LogStream"],
    "txserf.serf.query": ["Query"],
    "txserf.serf.serf": ["Serf"],
    "txserf.serf.streams": ["EventStream"],
}  # fmt: skip
_MODULES = {name: module for module, names in _LAZY.items() for name in names}

if not TYPE_CHECKING:  # where mypy saw this, it would let every typo pass

    def __getattr__(name: str) -> object:
        module = _MODULES.get(name)
        if module is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        loaded = import_module(module)
        value = globals()[name] = loaded if module == f"{__name__}.{name}" else getattr(loaded, name)
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *_MODULES})


__all__ = [
    "Ack",
    "Advertisement",
    "Answer",
    "AuthenticationError",
    "Change",
    "Client",
    "ClusterView",
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
    "NoMember",
    "Overloaded",
    "ProtocolError",
    "Query",
    "QueryError",
    "QueryEvent",
    "QueryResult",
    "RequestTimeout",
    "Response",
    "Responses",
    "Ring",
    "Router",
    "RpcError",
    "Serf",
    "SerfClientFactory",
    "SerfError",
    "SerfProtocol",
    "ServiceEndpoint",
    "StopReceiveData",
    "Template",
    "UserEvent",
    "constant",
]
