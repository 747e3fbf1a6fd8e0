"""The service of a `Router`: it follows the events, and runs their handlers once each."""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from twisted.application.service import Service
from twisted.internet.base import DelayedCall
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from txserf.arguments import count, limit
from txserf.errors import Disconnected, reason_text
from txserf.handlers.agent import Identity
from txserf.handlers.backlog import Backlog
from txserf.handlers.handled import Key, LTimes, StateFile, key_of
from txserf.handlers.intake import Intake
from txserf.handlers.routes import Routes
from txserf.handlers.scripts import Myself
from txserf.handlers.work import Observer, Outcome, Work, describe, tell
from txserf.model import Event, Gap, UserEvent
from txserf.processes import kill_all
from txserf.serf.serf import Serf

# A module's logger, for a class makes its logger anew at each access, and there is a line for each event.
_log = Logger(namespace="txserf.handlers")


class ServiceState(enum.Enum):
    """The state of a `RouterService`; each value says what the service does in it."""

    IDLE = "nothing"
    RUNNING = "takes events and handles them"
    DRAINING = "takes no more events, and handles those that came"
    CLOSING = "closes the Serf that it has started"


_MOVES = {
    ServiceState.IDLE: {ServiceState.RUNNING},
    ServiceState.RUNNING: {ServiceState.DRAINING},
    ServiceState.DRAINING: {ServiceState.CLOSING},
    ServiceState.CLOSING: {ServiceState.IDLE, ServiceState.RUNNING},
}


class _Stop:
    """
    One stop of a service, and those who wait for its end.

    :param limit: the call that ends it past its time.
    """

    def __init__(self, limit: DelayedCall) -> None:
        self._limit = limit
        self._waiting: deque[Deferred[None]] = deque()

    def wait(self) -> Deferred[None]:
        """Return a Deferred of the end; cancelling it ends that waiting only."""
        waiting: Deferred[None] = Deferred(self._waiting.remove)
        self._waiting.append(waiting)
        return waiting

    def end_limit(self) -> None:
        """Let it end in its own time from now on."""
        if self._limit.active():
            self._limit.cancel()

    def tell(self) -> None:
        """It is over: fire all Deferreds."""
        while self._waiting:  # one by one: each may cancel those behind it
            self._waiting.popleft().callback(None)


class Kept(enum.Enum):
    """The default of an argument for which None has a meaning of its own."""

    AS_IT_IS = "as it is"


class RouterService(Service):
    """
    Runs the handlers of a router for the events of a cluster; `Router.bind` makes it.

    :ivar serf: the connection that the events come by.
    :ivar clock: its source of time, once the service was started.
    :ivar concurrency: how many events may be in work at once.
    :ivar handler_timeout: seconds that a handler may take; None for no limit.
    :ivar observers: each is told what happens.
    """

    clock: Any

    def __init__(
        self,
        serf: Serf,
        routes: Routes,
        *,
        concurrency: int,
        timeout: float | None,
        drain: float,
        buffer: int,
        state: Path | None,
        observers: Iterable[Observer],
    ) -> None:
        self.serf = serf
        self.concurrency: int = concurrency
        self.handler_timeout = timeout
        self.observers: list[Observer] = list(observers)
        self._routes = routes
        self._drain = drain
        self._state = ServiceState.IDLE
        self._stop: _Stop | None = None
        self._started_serf = False
        self._backlog = Backlog(buffer)
        self._works: set[Work] = set()
        self._pumping = False
        self._holding: Deferred[None] | None = None  # no event is begun before it has fired
        self._subscribing: Deferred[None] = Deferred()  # the first of these: the stream is there
        self._ltimes = LTimes()
        self._file = StateFile(state, self._ltimes)
        self._identity = Identity(serf, self._ltimes)
        self._intake = Intake(serf, self._take, self._active)

    def __repr__(self) -> str:
        return f"<RouterService: {self._routes.stream_type}>"

    # -- how it stands

    @property
    def queued(self) -> int:
        """How many events wait for their handlers."""
        return len(self._backlog)

    @property
    def working(self) -> int:
        """How many events are in work."""
        return len(self._works)

    @property
    def dropped(self) -> int:
        """How many events were dropped: from a full queue, or at the end of a stop."""
        return self._backlog.dropped

    @property
    def unreadable(self) -> int:
        """How many records of the stream could not be read and were left out; the log has a line for each."""
        return self._intake.unreadable

    @property
    def unready(self) -> str | None:
        """The reason why events may be missed now; None if there is none."""
        if self._state is not ServiceState.RUNNING:
            return "not running"
        if self._intake.failure is not None:
            return reason_text(self._intake.failure)
        return self.serf.why_disconnected or (None if self._intake.is_active else "not subscribed")

    def myself(self) -> Deferred[Myself]:
        """Ask the agent for its name and tags; see `Identity.myself`."""
        return self._identity.myself()

    def when_active(self) -> Deferred[None]:
        """
        Return a Deferred that fires when no event that is sent from then on is missed.

        :returns: a Deferred of None, which can be cancelled. It fails with `RpcError` if the
            agent refuses the stream, and with `Disconnected` if the service does not run.
        """
        if self._state is not ServiceState.RUNNING:
            return fail(Disconnected("the router's service does not run"))
        return self._intake.when_active()

    # -- start and stop

    def _move(self, state: ServiceState) -> None:
        assert state in _MOVES[self._state], f"{self._state} -> {state}"
        self._state = state

    def startService(self) -> None:
        """Begin to follow the events that have handlers."""
        super().startService()  # type: ignore[no-untyped-call]  # Twisted's own
        if self._state is ServiceState.RUNNING:
            return
        if self._state is ServiceState.DRAINING:
            self._drained()  # the stop is over; events in work go on
        self._move(ServiceState.RUNNING)
        self._stop = None
        self.clock = self.serf.clock
        self._started_serf = not self.serf.running
        if self._started_serf:
            self.serf.startService()
        self._file.load()
        self._subscribing = Deferred()
        self._hold(self._subscribing)
        self._intake.follow(self._routes.stream_type)

    def stopService(self) -> Deferred[None]:
        """
        Take no more events, and handle those that came.

        Handlers that still run after *drain* seconds (see `Router.bind`) are cancelled, and events that still wait
        are dropped. Then a `Serf` that the service has started is closed.

        :returns: a Deferred of None that fires at the end of that. Cancelling it stops nothing but this wait.
        """
        super().stopService()  # type: ignore[no-untyped-call]  # Twisted's own
        if self._state is not ServiceState.RUNNING:
            return succeed(None) if self._stop is None else self._stop.wait()
        self._move(ServiceState.DRAINING)
        self._stop = _Stop(self.clock.callLater(self._drain, self._give_up))
        stopped = self._stop.wait()
        self._intake.stop()
        self._subscribing.cancel()  # it will not fire any more, and would hold up the events that wait
        self._pump()
        return stopped

    def abandon(self) -> None:
        """
        Kill the scripts and keep the events that were handled, for a program that ends now. It may be called in a signal handler.

        An event in work does not count as handled.
        """
        kill_all()
        self._file.save()

    def _give_up(self) -> None:
        self._backlog.drop_all()
        for work in list(self._works):
            work.abort()
        self._pump()  # for a stop in which no event was in work, but some were in doubt

    def _drained(self) -> None:
        stop = self._stop
        assert stop is not None
        self._move(ServiceState.CLOSING)
        stop.end_limit()
        if self._holding is not None and not self._backlog:
            self._holding.cancel()  # no event waits for it
        self._file.save()
        closing = self.serf.stopService() if self._started_serf else succeed(None)
        closing.addCallback(lambda _: self._closed(stop))

    def _closed(self, stop: _Stop) -> None:
        if self._stop is stop:  # else the service was started again meanwhile
            self._move(ServiceState.IDLE)
            self._stop = None
        stop.tell()

    def replace(
        self,
        routes: Routes,
        *,
        concurrency: int | None = None,
        timeout: float | Kept | None = Kept.AS_IT_IS,
    ) -> None:
        """
        Use other handlers from now on, also for the events that wait. An event in work goes on with those that it has.

        :param routes: the handlers, from ``router.routes()``.
        :param concurrency: how many events may be in work at once; None leaves it as it is.
        :param timeout: seconds for each handler, None for no limit; left out, the limit stays as it is.
        :raises InvalidRequest: for a bad argument; nothing is changed then.
        """
        if concurrency is not None:
            count(concurrency, "concurrency")
        if not isinstance(timeout, Kept):
            self.handler_timeout = None if timeout is None else limit(timeout, "timeout")
        self.concurrency = concurrency or self.concurrency
        self._routes = routes
        if self._state is ServiceState.RUNNING:
            self._intake.follow(routes.stream_type)
        self._pump()  # more may be at work now

    # -- events

    def _take(self, event: Event) -> None:
        self._backlog.put(event)
        self._pump()

    def _pump(self) -> None:
        if self._pumping:
            return  # a handler ended inside the loop below, which takes the next event by itself
        self._pumping = True
        try:
            while self._holding is None and len(self._works) < self.concurrency:
                event = self._backlog.next()
                if event is None:
                    break
                self._begin(event)
        finally:
            self._pumping = False
        if self._state is ServiceState.DRAINING and not self._backlog and not self._works:
            self._drained()

    def _begin(self, event: Event) -> None:
        handlers = self._routes.handlers(event)
        if not handlers:
            return
        key: Key | None = None
        if isinstance(event, UserEvent):
            key = key_of(event)
            if key in self._ltimes:
                self._seen_before(event)
                return
            self._ltimes.begun(key)
        work = Work(self, event, handlers, key)
        tell(self.observers, Observer.arrived, work.type)
        self._works.add(work)
        work.run()

    def finished(self, work: Work) -> None:
        """Note that all handlers of an event have ended."""
        self._works.discard(work)
        if work.key is not None:
            if work.outcome is Outcome.CANCELLED:
                self._ltimes.discard(work.key)
            else:
                self._ltimes.handled(work.key)
                self._file.save_soon(self.clock)
        _log.info(
            "{event} handled in {duration:.6f} s: {result}",
            event=describe(work.event),
            type=work.type,
            duration=work.duration,
            result=work.outcome.value,
        )
        self._pump()

    # -- what has to be known before the next event is begun

    def _active(self, gap: Gap | None) -> None:
        if gap is not None:
            tell(self.observers, Observer.resumed)
            seconds = gap.resumed_at - gap.lost_at
            _log.warn("events may have been missed in {seconds:.3f} s", seconds=seconds)
        self._hold(Deferred.fromCoroutine(self._identity.compare()))

    def _seen_before(self, event: UserEvent) -> None:
        if self._identity.doubtful:
            self._backlog.put_back(event)
            self._hold(Deferred.fromCoroutine(self._identity.find_out()))
            return
        tell(self.observers, Observer.duplicate, event.type)
        _log.debug("{event} came again", event=describe(event))

    def _hold(self, until: Deferred[None]) -> None:
        """Begin no event until that Deferred has fired or is cancelled; it replaces the one before it."""
        before, self._holding = self._holding, until
        if before is not None:
            before.cancel()

        def known(result: Failure | None) -> None:
            if self._holding is until:
                self._holding = None
                self._pump()
            if isinstance(result, Failure) and not result.check(CancelledError):
                _log.failure("asking the agent failed", result)

        until.addBoth(known)
