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
    from txserf.client import Client
    from txserf.factory import SerfClientFactory
    from txserf.hosts import Host
    from txserf.model import Member
    from txserf.protocol import SerfProtocol

# What is loaded at its first use: the upper layers import a good part of
# Twisted, which a program that wants an error or a constant need not pay for.
_LAZY = {
    "Client": "txserf.client",
    "Host": "txserf.hosts",
    "Member": "txserf.model",
    "SerfClientFactory": "txserf.factory",
    "SerfProtocol": "txserf.protocol",
}

if not TYPE_CHECKING:  # where mypy saw this, it would let every typo pass

    def __getattr__(name: str) -> object:
        module = _LAZY.get(name)
        if module is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(module), name)
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *_LAZY})


__all__ = [
    "AuthenticationError",
    "Client",
    "ConnectError",
    "ConnectionLost",
    "Disconnected",
    "Host",
    "InvalidHostURL",
    "InvalidRequest",
    "JoinError",
    "KeyringError",
    "Member",
    "ProtocolError",
    "QueryError",
    "RequestTimeout",
    "RpcError",
    "SerfClientFactory",
    "SerfError",
    "SerfProtocol",
    "StopReceiveData",
    "constant",
]
