"""Logs that events are handled, and ends the process if they never can be."""

from __future__ import annotations

from collections.abc import Callable

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from txserf.errors import Disconnected, SerfError, reason_text
from txserf.handlers.running import RouterService
from txserf.handlers.work import Observer

_log = Logger(namespace="txserf.service")


class Guard(Observer, Service):
    """
    Waits until a router's service is subscribed, at first and after each gap.

    :param failed: called with the reason if that can't be, for instance because every host refuses the key.
    :ivar handling: the router's service; set it before the start.
    """

    def __init__(self, failed: Callable[[BaseException], object]) -> None:
        self.handling: RouterService | None = None
        self._failed = failed
        self._waiting: Deferred[None] | None = None

    def startService(self) -> None:
        """Begin to wait."""
        super().startService()  # type: ignore[no-untyped-call]  # Twisted's own
        assert self.handling is not None
        self._wait(Deferred.fromCoroutine(self._begun(self.handling)))

    def stopService(self) -> None:
        """Wait no more."""
        super().stopService()  # type: ignore[no-untyped-call]  # Twisted's own
        if self._waiting is not None:
            self._waiting.cancel()

    def resumed(self) -> None:
        # Called before the stream is back, and before it ends for good.
        if self.running and self.handling is not None:
            self._wait(self.handling.when_active())

    async def _begun(self, handling: RouterService) -> None:
        await handling.serf.when_connected()
        await handling.when_active()
        _log.info("ready: events are handled from now on")

    def _wait(self, waiting: Deferred[None]) -> None:
        self._waiting = waiting.addErrback(self._over)

    def _over(self, failure: Failure) -> None:
        failure.trap(SerfError, CancelledError)
        if not failure.check(Disconnected, CancelledError):
            _log.error("no events can be handled: {reason}", reason=reason_text(failure))
            self._failed(failure.value or AssertionError())
