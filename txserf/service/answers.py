"""Answers to requests over HTTP, and their parameters."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import Any

import attrs
from twisted.web import http
from twisted.web.server import Request

from txserf import wire
from txserf.arguments import did_you_mean

#: The content type of an answer in JSON. Prometheus wants it without a charset.
JSON = "application/json"

#: The content type of server-sent events.
EVENT_STREAM = "text/event-stream; charset=utf-8"


def _tag_of(body: bytes) -> bytes:
    return b'"' + hashlib.sha256(body).hexdigest()[:32].encode() + b'"'


@attrs.frozen
class WebReply:
    """
    A whole answer.

    :ivar etag: names the content, for a reader that has it already; None for content that nobody should keep.
    :ivar headers: further headers.
    """

    body: bytes
    type: str = JSON
    status: int = http.OK
    etag: bytes | None = None
    headers: Mapping[str, str] = attrs.field(factory=dict)

    @classmethod
    def of(cls, value: object, status: int = http.OK, headers: Mapping[str, str] | None = None) -> WebReply:
        """Return a value in JSON. It is ASCII, so that any text of the cluster makes valid JSON."""
        return cls(_encoded(value), status=status, headers=headers or {})

    @classmethod
    def kept(cls, body: bytes, type: str) -> WebReply:
        """Return content that a reader may keep, and has to ask for again."""
        return cls(body, type, etag=_tag_of(body))

    @classmethod
    def kept_json(cls, value: object) -> WebReply:
        """Return a value in JSON that a reader may keep, and has to ask for again."""
        return cls.kept(_encoded(value), JSON)

    def is_known_to(self, request: Request) -> bool:
        """Whether the reader has this content already."""
        known: bytes | None = request.getHeader(b"if-none-match")
        if self.etag is None or known is None or self.status != http.OK:
            return False
        tags = [tag.strip().removeprefix(b"W/") for tag in known.split(b",")]
        return self.etag in tags or b"*" in tags


def _encoded(value: object) -> bytes:
    return json.dumps(value).encode("ascii") + b"\n"


class Refusal(Exception):
    """
    A request can't be answered. The text says why, to the one who asks.

    :ivar status: the status of HTTP.
    :ivar headers: further headers.
    """

    def __init__(self, status: int, text: str, **headers: str) -> None:
        super().__init__(text)
        self.status = status
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}

    @property
    def reply(self) -> WebReply:
        """The answer that says so."""
        return WebReply.of({"error": str(self)}, self.status, self.headers)


#: Answers a request: at once, later, or bit by bit (None).
Handler = Callable[[Request], "WebReply | Coroutine[Any, Any, WebReply | None] | None"]


def parameters(
    request: Request, known: Iterable[str], prefix: str | None = None
) -> Mapping[str, tuple[str, ...]]:
    """
    Return the parameters of a request: the values of each, in order. Bytes that are not UTF-8 are as in a `Member`.

    :param known: the names that there may be.
    :param prefix: further names begin so.
    :raises Refusal: for another one, and for one without a value.
    """
    for part in request.uri.partition(b"?")[2].split(b"&"):
        if part and b"=" not in part:  # Twisted would leave it out
            raise Refusal(http.BAD_REQUEST, f"a parameter is NAME=VALUE, not {wire.as_text(part)!r}")
    found = {wire.as_text(name): tuple(map(wire.as_text, values)) for name, values in request.args.items()}
    known = tuple(known)
    for name in found:
        if name not in known and not (prefix and name.startswith(prefix) and name != prefix):
            shown = [*known, f"{prefix}NAME"] if prefix else known
            there_are = f"there are {', '.join(shown)}" if shown else "there are none here"
            hint = did_you_mean(name, known) or f"; {there_are}"
            raise Refusal(http.BAD_REQUEST, f"there is no parameter {name!r}{hint}")
    return found


def peer_of(request: Request) -> str:
    """Return the address that a request came from, for a log."""
    peer = request.getClientAddress()
    return str(getattr(peer, "host", peer))  # that of a UNIX socket has none


def only(values: Mapping[str, tuple[str, ...]], name: str) -> str | None:
    """
    Return the value of a parameter that may be there once; None without it.

    :raises Refusal: if it is there several times.
    """
    found = values.get(name, ())
    if len(found) > 1:
        raise Refusal(http.BAD_REQUEST, f"{name} may be given once")
    return found[0] if found else None
