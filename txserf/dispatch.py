"""The service behind a `Router`: events in, handlers at work, and none lost or done twice."""

from __future__ import annotations

from collections import deque
from pathlib import Path
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, fail, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from txserf.errors import Disconnected, SerfError, reason_text
from txserf.intake import Intake
from txserf.ltimes import Key, LTimes, StateError, key_of
from txserf.model import Event, Gap, UserEvent
from txserf.routes import Routes
from txserf.scripts import Myself, ScriptFailed, event_type
from txserf.serf import Serf
from txserf.work import Observer, Outcome, Work, describe

# Seconds for the agent to say who it is.
_STATS_TIMEOUT = 2.0

# Seconds in which an agent should have heard from others how late it is in the cluster, and between two looks.
_CATCH_UP = 2.0
_LOOK_AGAIN = 0.2

# Seconds between two writes of the state file.
_SAVE_EVERY = 1.0


class RouterService(Service):
    """
    Runs the handlers of a router for the events of a cluster; see `Router.bind`.

    :ivar serf: whose events they are.
    :ivar concurrency: how many events may be in work at once.
    :ivar handler_timeout: seconds that a handler may take; None for no limit.
    :ivar observer: is told what happens.
    """

    _log = Logger()

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
        observer: Observer,
    ) -> None:
        self.serf = serf
        self.concurrency = concurrency
        self.handler_timeout = timeout
        self.observer = observer
        self._routes = routes
        self._started_serf = False
        self._drain = drain
        self._buffer = buffer
        self._state = state
        self._dropped = 0
        self._queue: deque[Event] = deque()
        self._works: set[Work] = set()
        self._held = True  # until it is known who the agent is, and where its clock stands
        self._pumping = False
        self._idle: Deferred[None] | None = None
        self._myself: Myself | None = None
        self._agent_is_away = False
        self._ltimes = LTimes()
        self._may_have_begun_anew = False
        self._timers: set[Any] = set()
        self._save_timer: Any = None
        self._intake: Intake | None = None

    def __repr__(self) -> str:
        return f"<RouterService: {self._routes.stream_type}>"

    # What others ask

    @property
    def clock(self) -> Any:
        """The source of time."""
        return self.serf._session.clock

    @property
    def queued(self) -> int:
        """How many events wait for their handlers."""
        return len(self._queue)

    @property
    def working(self) -> int:
        """How many events are in work."""
        return len(self._works)

    @property
    def dropped(self) -> int:
        """How many events were lost to a full queue."""
        return self._dropped + (self._intake.dropped if self._intake is not None else 0)

    @property
    def unready(self) -> str | None:
        """Say why events may be missed now; None while all is well."""
        if not self.running or self._intake is None:
            return "not running"
        if self._intake.failure is not None:
            return reason_text(self._intake.failure)
        if self.serf._session.factory.open_connection is None:
            return "not connected" + self.serf._session.why_waiting()
        return None if self._intake.is_active else "not subscribed"

    def when_active(self) -> Deferred[None]:
        """
        Wait until no event that is sent from then on is missed.

        :returns: a Deferred of None, which can be cancelled. It fails with `RpcError` where the
            agent refuses the stream, and with `Disconnected` where the service does not run.
        """
        if self._intake is None:
            return fail(Disconnected("the router's service does not run"))
        return self._intake.when_active()

    # A service

    def startService(self) -> None:
        """Begin to follow the events that have handlers."""
        super().startService()  # type: ignore[no-untyped-call]  # Twisted's own
        self._started_serf = not self.serf.running
        if self._started_serf:
            self.serf.startService()
        if self._state is not None:
            try:
                self._ltimes.load(self._state)
            except StateError as error:
                self._log.error("the last LTime is not known: {reason}", reason=str(error))
        self._held = True
        self._intake = Intake(self.serf, self.clock, self._take, self._active)
        self._intake.follow(self._routes.stream_type)

    def stopService(self) -> Deferred[None]:
        """
        Take no more events, and work off those that came.

        :returns: a Deferred of None; past the limit what still runs is cancelled before it fires.
            A `Serf` that the service has started is closed then.
        """
        super().stopService()  # type: ignore[no-untyped-call]  # Twisted's own
        intake, self._intake = self._intake, None
        if intake is None:
            return succeed(None)
        intake.stop()
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
        self._held = False
        drained: Deferred[None] = Deferred()
        self._idle = drained
        limit = self._later(self._drain, self._give_up)
        self._pump()

        def stopped(_: None) -> Deferred[None] | None:
            self._cancel_timer(limit)
            self._save()
            return self.serf.stopService() if self._started_serf else None

        return drained.addCallback(stopped)

    def replace(self, routes: Routes) -> None:
        """Use other handlers from now on, also for the events that wait; what is in work goes on as it is."""
        self._routes = routes
        if self._intake is not None:
            self._intake.follow(routes.stream_type)

    # Events

    def _take(self, event: Event) -> None:
        self._queue.append(event)
        if len(self._queue) > self._buffer:
            self._drop(self._queue.popleft())
        self._pump()

    def _drop(self, event: Event) -> None:
        self._dropped += 1
        self.observer.dropped(1)
        self._log.error("{event} is dropped: {count} others wait", event=describe(event), count=self._buffer)

    def _pump(self) -> None:
        if self._pumping:
            return  # a handler ended inside the loop below, which goes on by itself
        self._pumping = True
        try:
            queue, works = self._queue, self._works
            while queue and not self._held and len(works) < self.concurrency:
                self._begin(queue.popleft())
        finally:
            self._pumping = False
        if self._idle is not None and not self._queue and not self._works:
            idle, self._idle = self._idle, None
            idle.callback(None)

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
        self.observer.arrived(event_type(event))
        work = Work(self, event, handlers, key)
        self._works.add(work)
        work.run()

    def finished(self, work: Work) -> None:
        """All handlers of an event are through."""
        self._works.discard(work)
        if work.key is not None and work.outcome is not Outcome.CANCELLED:
            self._ltimes.handled(work.key)
            if self._state is not None:
                self._save_soon()
        event = work.event
        self._log.info(
            "{event} handled in {duration:.6f} s: {result}",
            event=describe(event),
            type=event_type(event),
            duration=self.clock.seconds() - work.started_at,
            result=work.outcome.value,
        )
        self._pump()

    def _give_up(self) -> None:
        dropped = len(self._queue)
        self._queue.clear()
        if dropped:
            self._dropped += dropped
            self.observer.dropped(dropped)
            self._log.error("stopping: {count} events that waited are dropped", count=dropped)
        for work in list(self._works):
            work.abort()

    # The agent: who it is, and whether its cluster is the one that we know

    def myself(self) -> Deferred[Myself]:
        """
        Ask the agent for its own name and tags, which may change at any time.

        :returns: a Deferred of them, of the last known ones while the agent is away.
        """
        if self._agent_is_away and self._myself is not None:
            return succeed(self._myself)
        return self._ask().addCallbacks(lambda _: self._known(), self._unknown)

    def _known(self) -> Myself:
        assert self._myself is not None
        return self._myself

    def _unknown(self, failure: Failure) -> Myself:
        failure.trap(SerfError)
        self._agent_is_away = True
        if self._myself is None:
            raise ScriptFailed(f"not started: the agent has not told its name: {reason_text(failure)}")
        return self._myself

    def _ask(self) -> Deferred[int]:
        """Ask the agent for its ``stats``; the Deferred is of the LTime that its next user event will have."""

        def learned(stats: dict[str, dict[str, str]]) -> int:
            self._myself = Myself.from_stats(stats)
            self._agent_is_away = False
            return int(stats.get("serf", {}).get("event_time", 0))

        return self.serf.stats(timeout=_STATS_TIMEOUT).addCallback(learned)

    def _active(self, gap: Gap | None) -> None:
        if gap is not None:
            self.observer.resumed()
            seconds = gap.resumed_at - gap.lost_at
            self._log.warn("events may have been missed in {seconds:.3f} s", seconds=seconds)
        self._held = True

        def known(event_time: int) -> None:
            # An agent that rejoined, or lags, hears of later events soon. A new cluster starts from 1.
            self._may_have_begun_anew = 0 < event_time <= self._ltimes.last

        asked = self._ask().addCallbacks(known, lambda failure: failure.trap(SerfError))
        asked.addBoth(lambda _: self._go_on())

    def _go_on(self) -> None:
        self._held = False
        self._pump()

    def _seen_before(self, event: UserEvent) -> None:
        """Decide what an event is that was seen: a duplicate, or the same again in a cluster that began anew."""
        if not self._may_have_begun_anew or self._intake is None:
            self.observer.duplicate(event_type(event))
            self._log.debug("{event} came again", event=describe(event))
            return
        self._held = True
        self._queue.appendleft(event)
        self._look(self.clock.seconds() + _CATCH_UP)

    def _look(self, until: float) -> None:
        def told(event_time: int) -> None:
            if event_time > self._ltimes.last:
                self._may_have_begun_anew = (
                    False  # it knows later events than that one, so it is the old cluster
                )
            elif self.clock.seconds() < until:
                self._later(_LOOK_AGAIN, self._look, until)
                return
            else:
                self._log.warn("the cluster's event clock has begun anew")
                self._may_have_begun_anew = False
                self._ltimes.forget()
            self._go_on()

        def away(failure: Failure) -> None:
            failure.trap(SerfError)
            self._may_have_begun_anew = False  # the next connection tells
            self._go_on()

        self._ask().addCallbacks(told, away)

    # The state file

    def _save_soon(self) -> None:
        if self._save_timer is None and self._intake is not None:
            self._save_timer = self._later(_SAVE_EVERY, self._save)

    def _save(self) -> None:
        self._save_timer = None
        if self._state is not None and self._ltimes.changed:
            try:
                self._ltimes.save(self._state)
            except StateError as error:
                self._log.error("the last LTime is not kept: {reason}", reason=str(error))

    def _later(self, delay: float, function: Any, *arguments: Any) -> Any:
        def fire() -> None:
            self._timers.discard(timer)
            function(*arguments)

        timer = self.clock.callLater(delay, fire)
        self._timers.add(timer)
        return timer

    def _cancel_timer(self, timer: Any) -> None:
        if timer in self._timers:
            self._timers.discard(timer)
            timer.cancel()
