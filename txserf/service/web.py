"""``--http``: its endpoint, and the service that listens there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, fail, maybeDeferred, succeed
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IListeningPort, IStreamServerEndpoint
from twisted.logger import Logger
from twisted.python.failure import Failure

from txserf.connection.hosts import address_label
from txserf.service.settings import ConfigError
from txserf.service.website import Site

_log = Logger(namespace="txserf.service")


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
        """Stop listening, and close the connections. The Deferred fires when the port is closed."""
        super().stopService()  # type: ignore[no-untyped-call]  # Twisted's own
        listening, self._listening = self._listening, None
        assert listening is not None
        listening.cancel()
        self._site.close()

        def close(port: IListeningPort | None) -> Deferred[Any]:
            return maybeDeferred(port.stopListening) if port is not None else succeed(None)

        return listening.addCallback(close)

    def _opened(self, port: IListeningPort) -> IListeningPort:
        host: Any = port.getHost()
        where = f"http://{address_label(host.host, host.port)}/" if hasattr(host, "port") else str(host)
        _log.info("the cluster is shown on {address}", address=where)
        return port

    def _not_opened(self, failure: Failure) -> None:
        if not failure.check(CancelledError):
            _log.error("--http: {reason}", reason=failure.getErrorMessage())
            self._failed(failure.value or AssertionError())
