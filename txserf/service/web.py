"""``--http``: ``/health`` and ``/metrics``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, fail, maybeDeferred, succeed
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IListeningPort, IStreamServerEndpoint
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web import http, resource, server

from txserf.service.settings import ConfigError

_log = Logger(namespace="txserf.service")

_NO_METRICS = "there are no metrics without prometheus_client, which the extra txserf[metrics] brings"


class Exposed(Protocol):
    """Has metrics to show."""

    def exposition(self, accept: str) -> tuple[bytes, str]:
        """Return the metrics and their content type, for an ``Accept`` header."""


def parse_endpoint(reactor: object, text: str) -> IStreamServerEndpoint:
    """
    Read the value of ``--http``.

    :param text: the number of a port of 127.0.0.1, or a server endpoint such as ``unix:/run/txserf.http``.
    :raises ConfigError: for anything else.
    """
    if text.isdecimal():
        if not 1 <= int(text) <= 65535:
            raise ConfigError(f"--http: a port is from 1 to 65535, not {text}")
        text = f"tcp:{text}:interface=127.0.0.1"
    try:
        endpoint: IStreamServerEndpoint = serverFromString(reactor, text)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # an endpoint's parser may be a plugin's
        raise ConfigError(f"--http: {text!r} is no server endpoint: {error}") from None
    return endpoint


class _Pages(resource.Resource):
    """
    Serves all pages. It is one resource, for Twisted's own page for an unknown path is HTML.

    :param pages: makes the body of each page, by path.
    """

    isLeaf = True

    def __init__(self, pages: Mapping[bytes, Callable[[server.Request], bytes]]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Twisted's own
        self._pages = pages

    def render(self, request: server.Request) -> bytes:
        """Answer a request."""
        body = self._body(request)
        request.setHeader("content-length", str(len(body)))
        return b"" if request.method == b"HEAD" else body

    def _body(self, request: server.Request) -> bytes:
        page = self._pages.get(request.path)
        if page is None:
            return _text(request, http.NOT_FOUND, "there are /health and /metrics")
        if request.method not in (b"GET", b"HEAD"):
            request.setHeader("allow", "GET, HEAD")
            return _text(request, http.NOT_ALLOWED, "only GET and HEAD are allowed")
        return page(request)


class Site(server.Site):
    """
    The site with ``/health`` and ``/metrics``.

    :param unready: returns the reason why events may be missed now; None if there is none.
    :param metrics: the metrics; None for none.
    :param reactor: the source of time for closing idle connections; None takes the global reactor.
    """

    noisy = False

    def __init__(
        self, unready: Callable[[], str | None], metrics: Exposed | None, reactor: object = None
    ) -> None:
        pages = _Pages({b"/health": self._health, b"/metrics": self._scrape})
        super().__init__(pages, reactor=reactor)  # type: ignore[no-untyped-call]  # Twisted's own
        self._unready = unready
        self._metrics = metrics

    def log(self, request: http.Request) -> None:
        """Log nothing: a scrape every few seconds is no news."""

    def _health(self, request: server.Request) -> bytes:
        reason = self._unready()
        return _text(request, http.OK if reason is None else http.SERVICE_UNAVAILABLE, reason or "ok")

    def _scrape(self, request: server.Request) -> bytes:
        if self._metrics is None:
            return _text(request, http.NOT_IMPLEMENTED, _NO_METRICS)
        # A header may have any bytes. Twisted decodes it as UTF-8, and fails, only if it is asked for by a str.
        accept: bytes = request.getHeader(b"accept") or b""
        body, content_type = self._metrics.exposition(accept.decode("latin-1"))
        request.setHeader("content-type", content_type)
        return body


def _text(request: server.Request, code: int, text: str) -> bytes:
    request.setResponseCode(code)
    request.setHeader("content-type", "text/plain; charset=utf-8")
    return f"{text}\n".encode()


class WebService(Service):
    """
    Serves a site. It begins to listen before ``twistd`` gives up its privileges.

    :param failed: called with the reason if it can't listen.
    """

    def __init__(
        self, endpoint: IStreamServerEndpoint, site: Site, failed: Callable[[BaseException], object]
    ) -> None:
        self._endpoint = endpoint
        self._site = site
        self._failed = failed
        self._listening: Deferred[IListeningPort | None] | None = None

    def privilegedStartService(self) -> None:
        """Listen."""
        super().privilegedStartService()  # type: ignore[no-untyped-call]  # Twisted's own
        try:
            listening: Deferred[IListeningPort] = self._endpoint.listen(self._site)
        except KeyboardInterrupt:
            raise
        except BaseException:  # an endpoint may be a plugin's
            listening = fail()
        self._listening = listening.addCallbacks(self._opened, self._not_opened)

    def startService(self) -> None:
        """Listen, if it does not yet."""
        super().startService()  # type: ignore[no-untyped-call]  # Twisted's own
        if self._listening is None:
            self.privilegedStartService()

    def stopService(self) -> Deferred[None]:
        """Stop listening. The Deferred fires when the port is closed."""
        super().stopService()  # type: ignore[no-untyped-call]  # Twisted's own
        listening, self._listening = self._listening, None
        assert listening is not None
        listening.cancel()

        def close(port: IListeningPort | None) -> Deferred[Any]:
            return maybeDeferred(port.stopListening) if port is not None else succeed(None)

        return listening.addCallback(close)

    def _opened(self, port: IListeningPort) -> IListeningPort:
        host: Any = port.getHost()
        where = f"{host.host}:{host.port}" if hasattr(host, "port") else str(host)
        _log.info("/health and /metrics are on {address}", address=where)
        return port

    def _not_opened(self, failure: Failure) -> None:
        if not failure.check(CancelledError):
            _log.error("--http: {reason}", reason=failure.getErrorMessage())
            self._failed(failure.value or AssertionError())
