"""The site of ``--http``: which paths there are, and which requests are let in."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

import attrs
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.protocols.basic import LineReceiver
from twisted.python.failure import Failure
from twisted.web import http, resource, server

from txserf.service.answers import EVENT_STREAM, Handler, Refusal, WebReply
from txserf.service.live import Live
from txserf.service.webactions import Actions
from txserf.service.webevents import EventReaders, state_of
from txserf.service.webfiles import page_files
from txserf.service.webmembers import MemberPages
from txserf.service.webstate import Exposed, StatePages

_log = Logger(namespace="txserf.service")

#: Seconds in which a request has to be complete, from its first byte on, and those between two requests of a connection.
REQUEST_TIMEOUT = 30.0

#: Connections that there may be; a further one is closed. A process has 1,024 open files as a rule, and needs some of them
#: for the agent and for handlers.
CONNECTIONS_LIMIT = 900

#: Bytes that the body of a request may have.
BODY_LIMIT = 1 << 16

_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'",  # so that no text of the cluster can become markup
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-cache",
}


@attrs.frozen
class Path:
    """A path of the site: its methods, and what answers it."""

    methods: tuple[bytes, ...]
    handler: Handler


_READS = (b"GET", b"HEAD")
_ACTS = (b"POST",)


class _WebRequest(server.Request):
    """A request whose body is bounded."""

    _length = 0

    def gotLength(self, length: int | None) -> None:
        super().gotLength(length)  # type: ignore[no-untyped-call]  # Twisted's own
        self._check(length or 0)

    def handleContentChunk(self, data: bytes) -> None:
        self._length += len(data)
        if self._check(self._length):
            super().handleContentChunk(data)  # type: ignore[no-untyped-call]  # Twisted's own

    def _check(self, length: int) -> bool:
        if length <= BODY_LIMIT:
            return True
        if isinstance(self.channel, _WebChannel):
            self.channel.refuse(b"413 Content Too Large")
        return False


class _WebChannel(http.HTTPChannel):
    """
    A connection, on which a request has to be complete in its time.

    :ivar site: the site that it belongs to.
    """

    site: Site
    _is_refused = False  # a request, before all of it had come
    _is_closing = False
    _unfinished = False  # whether a part of a request has come

    def connectionMade(self) -> None:
        super().connectionMade()  # type: ignore[no-untyped-call]  # Twisted's own
        self.site.channels.add(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.site.channels.discard(self)
        super().connectionLost(reason)  # type: ignore[no-untyped-call]  # Twisted's own

    def dataReceived(self, data: bytes) -> None:
        # Not as in Twisted, where each byte gives the sender as much time again.
        if self._is_refused:
            return
        if not self._unfinished:
            self._unfinished = True
            self.resetTimeout()  # type: ignore[no-untyped-call]  # Twisted's own
        LineReceiver.dataReceived(self, data)

    def refuse(self, status: bytes) -> None:
        """Refuse a request whose rest is not wanted."""
        if not self._is_refused:
            self._is_refused = True
            assert self.transport is not None
            self.transport.write(b"HTTP/1.1 " + status + b"\r\nConnection: close\r\n\r\n")
            self.loseConnection()

    def requestDone(self, request: server.Request) -> None:
        self._unfinished = bool(self._dataBuffer)
        if self._waitingForTransport:
            # Answers wait to be read. Twisted would go on to answer the requests that have come behind.
            self.paused = True
            self._networkProducer.pauseProducing()
        super().requestDone(request)  # type: ignore[no-untyped-call]  # Twisted's own

    def resumeProducing(self) -> None:
        super().resumeProducing()  # type: ignore[no-untyped-call]  # Twisted's own
        if self.paused:
            self.paused = False
            LineReceiver.dataReceived(self, b"")

    def loseConnection(self) -> None:
        if self._is_closing:
            return
        self._is_closing = True
        # Bytes that a reader does not read would keep the connection for ever.
        self._abortingCall = self.callLater(self.abortTimeout, self.forceAbortClient)  # type: ignore[no-untyped-call]  # Twisted's own
        super().loseConnection()  # type: ignore[no-untyped-call]  # Twisted's own

    def timeoutConnection(self) -> None:
        self.loseConnection()


class _Pages(resource.Resource):
    """
    Serves all paths. It is one resource, for Twisted's own page for an unknown path is HTML.

    :param paths: what there is, by path.
    """

    isLeaf = True

    def __init__(self, paths: Mapping[bytes, Path]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Twisted's own
        self._paths = paths

    def render(self, request: server.Request) -> int:
        """Answer a request."""
        for name, value in _HEADERS.items():
            request.setHeader(name, value)
        try:
            answer = self._answer(request)
        except Refusal as refusal:
            answer = refusal.reply
        except Exception:
            answer = _broken(request, Failure())
        if isinstance(answer, Coroutine):
            working = Deferred.fromCoroutine(answer)
            gone = request.notifyFinish()
            gone.addErrback(lambda _: working.cancel())
            working.addErrback(_refused, request).addCallback(_send, request)
        else:
            _send(answer, request)
        return server.NOT_DONE_YET

    def _answer(self, request: server.Request) -> WebReply | Coroutine[Any, Any, WebReply | None] | None:
        check_host(request)
        path = self._paths.get(request.path)
        if path is None:
            there_are = b", ".join(sorted(self._paths)).decode()
            raise Refusal(http.NOT_FOUND, f"there are {there_are}")
        if request.method not in path.methods:
            allowed = b", ".join(path.methods).decode()
            raise Refusal(
                http.NOT_ALLOWED, f"only {allowed.replace(', ', ' and ')} are allowed", allow=allowed
            )
        return path.handler(request)


def _refused(failure: Failure, request: server.Request) -> WebReply | None:
    if failure.check(CancelledError):  # the reader is gone
        return None
    error = failure.value
    return error.reply if isinstance(error, Refusal) else _broken(request, failure)


def _broken(request: server.Request, failure: Failure) -> WebReply:
    _log.failure("{path} failed", failure, path=request.path)
    return WebReply.of({"error": "txserf has failed; its log has more"}, http.INTERNAL_SERVER_ERROR)


def _send(reply: WebReply | None, request: server.Request) -> None:
    """Send a whole answer; None: it is sent otherwise."""
    if reply is None:
        return
    body = reply.body
    if reply.etag is not None:
        request.setHeader("etag", reply.etag)
    if reply.is_known_to(request):
        request.setResponseCode(http.NOT_MODIFIED)
        request.finish()
        return
    request.setResponseCode(reply.status)
    request.setHeader("content-type", reply.type)
    for name, value in reply.headers.items():
        request.setHeader(name, value)
    if reply.type != EVENT_STREAM:
        request.setHeader("content-length", str(len(body)))
    if request.method != b"HEAD":
        request.write(body)
    request.finish()


def check_host(request: server.Request) -> None:
    """
    Check the ``Host`` of a request that came by the loopback interface.

    A page of a stranger can have its own name resolve to 127.0.0.1 (DNS rebinding). The browser then takes this site for
    that page's own, but names it by the stranger's name.

    :raises Refusal: for another one than ``localhost`` or a loopback address.
    """
    if not _is_loopback(getattr(request.getHost(), "host", "")):
        return
    for named in request.requestHeaders.getRawHeaders(b"host", ()):
        host = re.sub(r":\d*$", "", named.decode("latin-1")).casefold()
        if host != "localhost" and not _is_loopback(host.removeprefix("[").removesuffix("]")):
            raise Refusal(http.FORBIDDEN, f"Host is to be localhost or a loopback address, not {host!r}")


def _is_loopback(address: str) -> bool:
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    # A socket of IPv6 that takes IPv4 too has addresses such as ::ffff:127.0.0.1.
    return (getattr(found, "ipv4_mapped", None) or found).is_loopback


class Site(server.Site):
    """
    The site of a cluster.

    :param live: the members and events.
    :param unready: returns the reason why handlers or the lines that are shown may miss events now; None if there is none.
    :param metrics: the metrics; None for none.
    :param token: returns the token that opens the actions; None for no actions.
    :param reactor: the source of time for closing idle connections; None takes the global reactor.
    :ivar channels: the open connections.
    """

    noisy = False
    protocol = _WebChannel  # type: ignore[assignment]  # and no HTTP/2, whose channel has other limits
    requestFactory = _WebRequest

    def __init__(
        self,
        live: Live,
        unready: Callable[[], str | None] = lambda: None,
        metrics: Exposed | None = None,
        token: Callable[[], bytes | None] = lambda: None,
        reactor: object = None,
    ) -> None:
        self.channels: set[_WebChannel] = set()
        self._events = EventReaders(live)
        self._actions = Actions(live, token, self._events)
        members = MemberPages(live)
        state = StatePages(live, unready, metrics, self._more_state)
        handlers: dict[bytes, Handler] = {
            b"/members": members.members,
            b"/events": self._events.answer,
            b"/sd": members.service_discovery,
            b"/coordinates": members.coordinates,
            b"/metrics": state.metrics,
            b"/health": state.health,
            b"/state": state.state,
        }
        paths = {path: Path(_READS, _file(reply)) for path, reply in page_files().items()}
        paths |= {path: Path(_READS, handler) for path, handler in handlers.items()}
        acts: dict[bytes, Handler] = {
            b"/event": self._actions.event,
            b"/query": self._actions.query,
            b"/force-leave": self._actions.force_leave,
        }
        paths |= {path: Path(_ACTS, handler) for path, handler in acts.items()}
        super().__init__(_Pages(paths), timeout=REQUEST_TIMEOUT, reactor=reactor)  # type: ignore[no-untyped-call]  # Twisted's own

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """Return the protocol of a connection; None, which closes it, if there are too many."""
        if len(self.channels) >= CONNECTIONS_LIMIT:
            return None
        return super().buildProtocol(addr)  # type: ignore[no-untyped-call]  # Twisted's own

    def log(self, request: http.Request) -> None:
        """Log nothing: a scrape every few seconds is no news."""

    def acceptableProtocols(self) -> list[bytes]:
        """Return the protocols that this speaks over TLS."""
        return [b"http/1.1"]

    def close(self) -> None:
        """End the answers, and close the connections."""
        self._actions.close()
        self._events.close()
        for channel in list(self.channels):
            channel.loseConnection()

    def _more_state(self) -> dict[str, Any]:
        return {**state_of(self._events), "actions": self._actions.are_on}


def _file(reply: WebReply) -> Handler:
    return lambda request: reply
