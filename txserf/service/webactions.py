"""``POST /event``, ``/query`` and ``/force-leave``: what changes the cluster, for those who have the token."""

from __future__ import annotations

import hmac
import json
from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import urlsplit

import attrs
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.web import http
from twisted.web.server import Request

from txserf import wire
from txserf.arguments import did_you_mean
from txserf.errors import InvalidRequest, RequestTimeout, RpcError, SerfError, hides_arguments, reason_text
from txserf.serf.query import Query
from txserf.service.answers import JSON, Refusal, WebReply, parameters, peer_of
from txserf.service.live import Live
from txserf.service.webevents import EventReaders, EventWriter, sent_event, sent_record

_log = Logger(namespace="txserf.service")

_OFF = "actions are off: --http-token-file names a file with a token, which turns them on"

_GONE = "the reader left before the end"

T = TypeVar("T")


class Actions:
    """
    Carries out what a request asks for, if it has the token.

    :param live: the cluster.
    :param token: returns the token; None: nobody may act.
    :param readers: they see the answers to queries too.
    """

    def __init__(self, live: Live, token: Callable[[], bytes | None], readers: EventReaders) -> None:
        self._live = live
        self._token = token
        self._readers = readers
        self._asked: set[Query] = set()  # those whose answers are being read
        self._is_closed = False

    @property
    def are_on(self) -> bool:
        """Whether there is a token."""
        return self._token() is not None

    def close(self) -> None:
        """End the answers to queries; their last event says so."""
        self._is_closed = True
        for query in list(self._asked):
            query.cancel()

    async def event(self, request: Request) -> WebReply:
        """Send a user event."""
        values = self._admitted(request, ("name", "payload", "coalesce"))
        name, payload = values.pop("name"), values.pop("payload", b"")
        return await _done(request, name, lambda: self._live.serf.event(name, payload, **values))

    async def force_leave(self, request: Request) -> WebReply:
        """Let a failed member leave."""
        values = self._admitted(request, ("node", "prune"))
        node = values.pop("node")
        return await _done(request, node, lambda: self._live.serf.force_leave(node, **values))

    def query(self, request: Request) -> None:
        """Ask a query, and answer with its acks and answers as they come, then with its result."""
        known = ("name", "payload", "nodes", "tags", "acks", "timeout", "relay_factor", "expect")
        values = self._admitted(request, known)
        name, payload = values.pop("name"), values.pop("payload", b"")
        query = _begun(request, name, lambda: self._live.serf.query(name, payload, **values))
        writer = EventWriter(request, query.cancel)
        Deferred.fromCoroutine(self._write(request, query, writer)).addErrback(
            lambda failure: _log.failure("the answers to {query!r}", failure, query=query)
        )

    async def _write(self, request: Request, query: Query, writer: EventWriter) -> None:
        self._asked.add(query)
        try:
            async for record in query:
                writer.write(sent_record(record, self._live.serf.clock.seconds()))
                self._readers.tell_of_query(query.name, record)
            result = attrs.asdict(await query)
        except (CancelledError, SerfError) as error:
            why = reason_text(error)
            if isinstance(error, CancelledError):
                why = "txserf stops" if self._is_closed else _GONE
            _note(request, query.name, why)
            writer.write(sent_event({"error": why}, "error"))
        else:
            _note(request, query.name, f"{len(result['acks'])} acks, {len(result['responses'])} answers")
            responses = {node: wire.as_text(payload) for node, payload in result["responses"].items()}
            writer.write(sent_event({**result, "responses": responses}, "result"))
        finally:
            self._asked.discard(query)
        writer.finish()

    def _admitted(self, request: Request, known: tuple[str, ...]) -> dict[str, Any]:
        """
        Return the fields of a request's body. The first of them has to be there.

        :raises Refusal: for a request without the token, of another site's page, or of another shape.
        """
        parameters(request, ())
        self._check_sender(request)
        found = _body(request)
        for name in found:
            if name not in known:
                hint = did_you_mean(name, known) or f"; there are {', '.join(known)}"
                raise Refusal(http.BAD_REQUEST, f"there is no field {name!r}{hint}")
        if known[0] not in found:
            raise Refusal(http.BAD_REQUEST, f"there has to be a field {known[0]!r}")
        if "payload" in found:
            found["payload"] = _payload(found["payload"])
        return found

    @hides_arguments
    def _check_sender(self, request: Request) -> None:
        wanted = self._token()
        if wanted is None:
            raise Refusal(http.FORBIDDEN, _OFF)
        origin: bytes | None = request.getHeader(b"origin")
        if origin is not None and _netloc(origin) != (request.getHeader(b"host") or b"").lower():
            raise Refusal(http.FORBIDDEN, "a page of another site may not act here")
        scheme, _, token = (request.getHeader(b"authorization") or b"").partition(b" ")
        if scheme.lower() != b"bearer" or not hmac.compare_digest(token.strip(), wanted):
            why = "'Authorization: Bearer TOKEN' is needed, with the token of --http-token-file"
            raise Refusal(http.UNAUTHORIZED, why, www_authenticate="Bearer")


def _netloc(origin: bytes) -> bytes:
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return b""


def _body(request: Request) -> dict[str, Any]:
    # A page of another site can send a form or plain text unasked, but no JSON.
    content_type: bytes = request.getHeader(b"content-type") or b""
    if content_type.partition(b";")[0].strip().lower() != JSON.encode():
        raise Refusal(http.UNSUPPORTED_MEDIA_TYPE, f"Content-Type is to be {JSON}")
    try:
        found = json.loads(request.content.read())  # type: ignore[union-attr]  # it has been received
    except (ValueError, RecursionError):
        raise Refusal(http.BAD_REQUEST, "the body is not JSON") from None
    if not isinstance(found, dict):
        raise Refusal(http.BAD_REQUEST, "the body is not a JSON object")
    return found


def _payload(value: object) -> bytes:
    if not isinstance(value, str):
        raise Refusal(http.BAD_REQUEST, "payload is to be text")
    try:
        return wire.as_bytes(value)
    except UnicodeEncodeError:
        raise Refusal(http.BAD_REQUEST, "payload has a surrogate that stands for no byte") from None


def _note(request: Request, target: object, outcome: str) -> None:
    """Log an action that was admitted."""
    action = request.path.decode("ascii").removeprefix("/")
    _log.info(
        "{peer} asked for {action} {target!r}: {outcome}",
        peer=peer_of(request),
        action=action,
        target=target,
        outcome=outcome,
    )


def _begun(request: Request, target: object, act: Callable[[], T]) -> T:
    """Call a method of `Serf`; what it raises at the call becomes a refusal."""
    try:
        return act()
    except (SerfError, UnicodeEncodeError) as error:
        raise _refusal(request, target, error) from None


async def _done(request: Request, target: object, act: Callable[[], Deferred[None]]) -> WebReply:
    try:
        await _begun(request, target, act)
    except CancelledError:
        _note(request, target, _GONE)
        raise
    except SerfError as error:
        raise _refusal(request, target, error) from None
    _note(request, target, "done")
    return WebReply.of({})


def _refusal(request: Request, target: object, error: SerfError | UnicodeEncodeError) -> Refusal:
    _note(request, target, reason_text(error))
    status = http.SERVICE_UNAVAILABLE
    if isinstance(error, (InvalidRequest, UnicodeEncodeError)):
        status = http.BAD_REQUEST
    elif isinstance(error, RpcError):
        status = http.BAD_GATEWAY
    elif isinstance(error, RequestTimeout):
        status = http.GATEWAY_TIMEOUT
    return Refusal(status, reason_text(error))
