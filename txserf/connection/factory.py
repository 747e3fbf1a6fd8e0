"""
`SerfClientFactory` keeps a connection to one of several hosts.

It is a state machine: its phases are `Phase`, the moves between them are in one table. A move is
complete before anybody is told of it. News are told in the order of the moves, never inside each
other's stack, and the next round begins after that.
"""

from __future__ import annotations

import copy
import enum
import itertools
import os
from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, ClassVar

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import NotConnectingError
from twisted.internet.interfaces import IAddress, IConnector, IDelayedCall
from twisted.internet.protocol import ReconnectingClientFactory
from twisted.logger import Logger
from twisted.python.failure import Failure

from txserf import commands, constant
from txserf.arguments import reactor_or_global, seconds
from txserf.connection.diallers import (
    Attempt,
    ConnectorDialler,
    Dialler,
    HostDialler,
    Listener,
    Sockets,
    exception_of,
)
from txserf.connection.exchange import Exchange
from txserf.connection.failover import Rounds, Unreached, jittered, spread
from txserf.connection.hosts import Host, Hosts, address_label, parse_hosts
from txserf.connection.keys import Keys
from txserf.connection.observers import Audience, ConnectionObserver
from txserf.connection.protocol import SerfProtocol, State
from txserf.errors import (
    AuthenticationError,
    ConnectError,
    Disconnected,
    InvalidRequest,
    SerfError,
    failures_text,
    hides_arguments,
    reason_text,
)

_log = Logger(namespace="txserf.connection")


class Phase(enum.Enum):
    """
    The state of a factory.

    :ivar goes_on: whether there is a connection, or there will be another attempt, without a `start`.
    """

    IDLE = "not trying"
    DIALLING = "trying the hosts of a round"
    CONNECTED = "a connection is open"
    CLOSING = "closing the connection"
    REOPENING = "closing the connection, to make another one"
    WAITING = "between two rounds"

    @property
    def goes_on(self) -> bool:
        return self is not Phase.IDLE and self is not Phase.CLOSING


class SerfClientFactory(ReconnectingClientFactory):
    """
    Keeps a connection to one of several hosts.

    Either call `start`, and it dials its hosts itself, or use it the classic
    way, ``reactor.connectTCP(host, port, SerfClientFactory())``, and it
    reconnects to that address (with the key of the first of its hosts).

    The attributes of ``ReconnectingClientFactory`` are there to be set: ``initialDelay``,
    ``maxDelay``, ``factor``, ``jitter`` are about the wait between rounds (with a ``jitter`` of 0 the first attempt
    after the loss of an only host comes at once, too), and
    ``maxRetries`` is the number of rounds that may follow the first one, or a
    loss (None: no limit; 0: one round for a connection, none after a loss).
    Where ``continueTrying`` is set to 0, no further attempt is made.

    :param hosts: a host list, see :doc:`/hosts`.
    :param reactor: dials and keeps the time; None takes the global reactor.
    :param connect_timeout: seconds to connect, then again for handshake and auth.
    :param heartbeat: seconds between checks of the connection; None for none.
    :ivar phase: its state, a ``Phase``; read only.
    :ivar connection: the connection, or None; it may be closing, see `open_connection`.
    :ivar connections: how many have been open so far.
    :ivar failovers: how many of them were to another host than the one before.
    :ivar last_failures: a pair (host, reason) for each host that the last round has tried; none once connected.
    :ivar auth_key: a key that goes before those of the hosts; None for theirs.
    :raises InvalidHostURL: at once, for a host list that is not understood.
    """

    protocol: Callable[..., SerfProtocol] = SerfProtocol
    initialDelay: float = 0.1
    delay: float = initialDelay
    maxDelay: float = 30.0  # type: ignore[assignment]  # of Twisted it is an int
    noisy = False

    _MOVES: ClassVar[Mapping[Phase, frozenset[Phase]]] = MappingProxyType(
        {
            Phase.IDLE: frozenset({Phase.DIALLING, Phase.WAITING}),
            Phase.DIALLING: frozenset({Phase.CONNECTED, Phase.WAITING, Phase.CLOSING, Phase.IDLE}),
            Phase.CONNECTED: frozenset({Phase.DIALLING, Phase.CLOSING, Phase.REOPENING, Phase.IDLE}),
            Phase.CLOSING: frozenset({Phase.REOPENING, Phase.IDLE}),
            Phase.REOPENING: frozenset({Phase.DIALLING, Phase.CLOSING}),
            Phase.WAITING: frozenset({Phase.DIALLING, Phase.IDLE}),
        }
    )

    @hides_arguments
    def __init__(
        self,
        hosts: Hosts = None,
        *,
        reactor: Any = None,
        connect_timeout: float | None = None,
        heartbeat: float | None = constant.HEARTBEAT,
        observer: ConnectionObserver | None = None,
        keys: Keys | None = None,
        next_seq: Callable[[], int] | None = None,
    ) -> None:
        if connect_timeout is not None:
            connect_timeout = seconds(connect_timeout, "connect_timeout")
        if heartbeat is not None and seconds(heartbeat, "heartbeat") == 0:
            raise InvalidRequest("heartbeat must be more than 0 seconds, or None for none")
        self.hosts: tuple[Host, ...] = parse_hosts(hosts)
        self.phase: Phase = Phase.IDLE
        self.connection: SerfProtocol | None = None
        self.connections: int = 0
        self.failovers: int = 0
        self.connect_timeout: float = constant.CONNECT_TIMEOUT if connect_timeout is None else connect_timeout
        self.heartbeat = heartbeat
        self.last_failures: tuple[tuple[str, BaseException], ...] = ()
        self._reactor = reactor
        self._rounds = Rounds()
        self._unreached = Unreached()
        self._audience = Audience(observer)
        self._keys = Keys() if keys is None else keys
        self._keys.changed = self._rounds.forget_refusals  # a host may like the other key
        self._next_seq = itertools.count().__next__ if next_seq is None else next_seq
        self._sockets = Sockets()
        self._host_dialler = HostDialler(
            self._new_protocol, self._real_reactor, self.time, lambda: self.connect_timeout
        )
        self._connector_dialler: ConnectorDialler | None = None  # where it is used the classic way
        self._listener = Listener(self._opened, self._closed, self._not_connected)
        self._current: Attempt | None = None  # the attempt under way, or the one that led to the connection
        self._connected_at = 0.0
        self._wait: IDelayedCall | None = None  # the end of the wait between two rounds
        self._gave_up: SerfError | None = None  # the reason, where it is idle but was not stopped
        self._going_on = False

    def __repr__(self) -> str:
        return f"<SerfClientFactory: {self.summary}>"

    @property
    def summary(self) -> str:
        """The hosts and the phase, for a repr. It never fails: tracebacks show objects that are half made."""
        if "phase" not in vars(self):
            return "not made"
        return f"{','.join(host.label for host in self.hosts)}, {self.phase.value}"

    # For users

    def start(self) -> None:
        """Begin to connect, unless it is connected or trying already."""
        if self.phase is Phase.IDLE:
            self._start()
        elif self.phase is Phase.CLOSING or (self.phase is Phase.CONNECTED and self.open_connection is None):
            self._move(Phase.REOPENING)
        self._go_on()

    @property
    def auth_key(self) -> str | None:
        """A key for the connections to come, which goes before those of the hosts; None for theirs."""
        return self._keys.current

    @auth_key.setter
    @hides_arguments
    def auth_key(self, key: str | None) -> None:
        if key is not None:
            commands.AUTH.body(commands.AUTH.arguments({"AuthKey": key}))
        self._keys.accept(key)

    @property
    def open_connection(self) -> SerfProtocol | None:
        """The connection, or None where requests would have to wait for one: it may be closing."""
        connection = self.connection
        return connection if connection is not None and connection.state is State.READY else None

    def when_connected(self) -> Deferred[SerfProtocol]:
        """
        Wait for an open connection; it does not start anything.

        :returns: a Deferred of the connection, which may be cancelled. It fails with
            `ConnectError`, `AuthenticationError` or `Disconnected` once the factory gives up, or where
            it has and was not started again.
        """
        if self.open_connection is not None:
            return succeed(self.open_connection)
        if self._gave_up is not None:
            return fail(copy.copy(self._gave_up))
        return self._audience.wait()

    def disconnect(self) -> Deferred[None]:
        """
        Close the connection, or stop trying for one.

        :returns: a Deferred of None, once all transports are closed that are open now: those of
            further connections, and of attempts that were cancelled, too.
        """
        self.stopTrying()
        if self.phase is Phase.CONNECTED:
            self._move(Phase.CLOSING)
        return self._sockets.close()

    def stopTrying(self) -> None:
        """Stop trying to connect; an open connection stays. Those who wait for one get `Disconnected`."""
        self.continueTrying: int = 0
        self._gave_up = None
        went_on = self.phase.goes_on
        if self.phase is Phase.WAITING:
            self._end_wait()
            self._move(Phase.IDLE)
        elif self.phase is Phase.REOPENING:
            self._move(Phase.CLOSING)
        elif self.phase is Phase.DIALLING:
            attempt = self._current
            if attempt is not None and attempt.has_transport:
                self._move(Phase.CLOSING)
            else:
                self._current = None
                self._move(Phase.IDLE)
            if attempt is not None:
                attempt.cancel()
        reason = Disconnected("closed before a connection was made")
        if went_on and not self.phase.goes_on:
            self._audience.gave_up(reason)
        else:
            self._audience.fail_waiting(reason)
        self._go_on()

    def retry(self, connector: IConnector | None = None) -> None:
        """Have another round, after the wait that is due; nothing where something is under way."""
        if getattr(connector, "state", "") == "disconnected":
            # A subclass may call this where it takes the connector's report itself, as Twisted's own class does.
            self._connector_ended(connector, NotConnectingError())
        trying = self._current is not None or self.phase is Phase.WAITING
        if trying or not self.continueTrying:
            return
        self.retries += 1
        self._wait_for(jittered(self.delay, self.jitter, self.maxDelay))

    def resetDelay(self) -> None:
        """Begin with the shortest wait again, and count no retry so far. A wait that has begun goes on."""
        self._reset_delay()
        self.continueTrying = 1

    def time(self) -> Any:
        """Return the source of time: the reactor, unless ``clock`` was set."""
        if self.clock is None:
            self.clock: Any = self._real_reactor()
        return self.clock

    # Twisted's callbacks, where a connector dials

    def startedConnecting(self, connector: IConnector) -> None:
        is_free = self._current is None and self.phase is not Phase.DIALLING
        if connector is not self.connector and is_free:
            self.connector = connector
            self._connector_dialler = ConnectorDialler(connector, self._new_protocol)
        if self._connector_dialler is not None and connector is self.connector:
            self._connector_dialler.started(_label(connector.getDestination()), self._begin_from_outside)

    def buildProtocol(self, addr: IAddress | None) -> SerfProtocol | None:
        if self._connector_dialler is not None:
            return self._connector_dialler.connected()
        # An endpoint of the program's has connected; it tells of that only.
        attempt = self._begin_from_outside(None if addr is None else _label(addr))
        if attempt is None:
            return None
        attempt.protocol = self._new_protocol(attempt)
        return attempt.made()

    def clientConnectionFailed(self, connector: IConnector, reason: Failure) -> None:
        self._connector_ended(connector, exception_of(reason))

    def clientConnectionLost(self, connector: IConnector, reason: Failure) -> None:
        self._connector_ended(connector, exception_of(reason))

    def _connector_ended(self, connector: IConnector | None, reason: BaseException) -> None:
        if self._connector_dialler is not None and connector is self.connector:
            self._connector_dialler.ended(reason)

    # The rounds

    def _move(self, phase: Phase) -> None:
        assert phase in self._MOVES[self.phase], f"from {self.phase} to {phase}"
        if self.phase is Phase.IDLE:
            self._gave_up = None
        self.phase = phase

    def _start(self) -> None:
        self._move(Phase.DIALLING)
        self.continueTrying = 1
        self._reset_delay()
        self._rounds.start_afresh()
        self._unreached = Unreached()

    def _begins_round(self) -> bool:
        """Begin the round that is due; return whether there was one."""
        if self.phase is not Phase.DIALLING or self._current is not None:
            return False
        flapped, self._rounds.flapped = self._rounds.flapped, None
        herd, self._rounds.herd = self._rounds.herd, False
        if flapped is not None:
            self._pause(flapped)
        elif herd and self.jitter:
            self._wait_for(spread(self.initialDelay, self.maxDelay))
        else:
            self._rounds.begin(self._count)
            self._try_hosts()
        return True

    @property
    def _count(self) -> int:
        return len(self.hosts) if self._connector_dialler is None else 1  # a connector has the one address

    def _try_hosts(self) -> None:
        # Always the last step, since an endpoint may answer at once. A loop, since thousands may fail at once.
        while self.continueTrying and (place := self._rounds.next()) is not None:
            attempt = self._current = self._new_attempt(place)
            dialler: Dialler = self._connector_dialler or self._host_dialler
            reason = dialler.dial(attempt)
            if reason is None or self._current is not attempt:
                return
            self._current = None
            attempt.cancel()  # its endpoint may connect it all the same, later
            self._failed(attempt, reason)
        self._round_over()

    def _new_attempt(self, place: int, label: str | None = None) -> Attempt:
        host = self.hosts[place]
        return Attempt(host, place, label or self._label(place), self._listener, self._sockets)

    def _label(self, place: int) -> str:
        dialler = self._connector_dialler
        return self.hosts[place].label if dialler is None else dialler.label

    def _begin_from_outside(self, label: str | None = None) -> Attempt | None:
        """Begin an attempt that the program dials; None where another one is under way, or a connection."""
        if self._current is not None or self.phase is Phase.DIALLING:
            return None
        if self.phase is Phase.WAITING:
            self._end_wait()
        self.continueTrying = 1
        self._move(Phase.DIALLING)
        self._rounds.begin(self._count)
        attempt = self._current = self._new_attempt(self._rounds.next() or 0, label)
        return attempt

    def _failed(self, attempt: Attempt, reason: BaseException) -> None:
        protocol = attempt.protocol
        key_is_old = protocol is not None and protocol._auth_key != self._keys.of(attempt.host)
        self._rounds.failed(attempt.place, reason, key_is_old)
        self._unreached.failed(attempt.label, reason_text(reason))

    def _round_over(self) -> None:
        self.last_failures = tuple((self._label(place), why) for place, why in self._rounds.failures)
        if self._rounds.refusal is not None:
            self._give_up(self._rounds.refusal)
        elif self._is_exhausted():
            self._give_up(self._unreachable())
        else:
            self._pause()

    def _pause(self, why: SerfError | None = None) -> None:
        """Wait for the next round, or give up, for the reason *why*, where there is to be none."""
        self.retry()
        # The retry() of a subclass may begin nothing, or something of its own.
        if self.phase is Phase.DIALLING and self._current is None:
            self._give_up(why or self._unreachable())

    def _wait_for(self, wait: float) -> None:
        self._move(Phase.WAITING)
        self._wait = self.time().callLater(wait, self._wait_over)
        self.delay = min(self.delay * self.factor, self.maxDelay)
        news = self._unreached.take()
        if news:
            again = "{news}; tries again in {wait:.1f} s, then at intervals that grow to {most:g} s"
            _log.warn(again, news=news, wait=wait, most=self.maxDelay)

    def _is_exhausted(self) -> bool:
        return self.maxRetries is not None and self.retries >= self.maxRetries

    def _unreachable(self) -> ConnectError:
        failures = self.last_failures
        told = f": {failures_text(failures)}" if failures else ""
        return ConnectError(f"no host could be reached{told}", failures=failures)

    def _wait_over(self) -> None:
        self._wait = None
        if self.continueTrying:
            self._move(Phase.DIALLING)
        else:
            self._give_up(self._unreachable())
        self._go_on()

    def _end_wait(self) -> None:
        if self._wait is not None:
            self._wait.cancel()
            self._wait = None

    def _reset_delay(self) -> None:
        self.delay = self.initialDelay
        self.retries: int = 0

    # The outcome of an attempt

    def _not_connected(self, attempt: Attempt, reason: BaseException) -> None:
        if attempt is self._current:
            self._current = None
            self._failed(attempt, reason)
            self._try_hosts()
            self._go_on()

    def _opened(self, attempt: Attempt) -> None:
        assert attempt is self._current
        self._move(Phase.CONNECTED)
        self.connection = attempt.protocol
        self.last_failures = ()
        self.connections += 1
        self.failovers += self._rounds.connected(attempt.place)
        self._connected_at = self.time().seconds()
        if not self._rounds.flaps:
            self._reset_delay()
        self._unreached.connected(attempt.label)
        news = self._unreached.take()
        if news:
            _log.warn("{news}", news=news)
        _log.info("connected to {host}", host=attempt.label)
        assert attempt.protocol is not None
        self._audience.connected(attempt.protocol, partial(self._dial_beside, attempt))
        self._go_on()

    def _closed(self, attempt: Attempt, reason: SerfError, unanswered: list[Exchange]) -> None:
        if attempt is not self._current:
            return
        self._current = None
        connection, self.connection = self.connection, None
        if connection is not None:
            self._lost(attempt, reason, unanswered)
        elif self.phase is Phase.DIALLING:
            self._failed(attempt, reason)
            self._try_hosts()
        elif self.phase is Phase.REOPENING:
            self._start()
        else:
            self._move(Phase.IDLE)
        self._go_on()

    def _lost(self, attempt: Attempt, reason: SerfError, unanswered: list[Exchange]) -> None:
        held = self._rounds.lost(attempt.place, reason, self.time().seconds() - self._connected_at)
        if held and self.continueTrying:
            self._reset_delay()  # not done as it opened, if the connection before had flapped
        # A host that wanted a key counts as one that failed in this round, which goes on.
        unfinished = isinstance(reason, AuthenticationError) or not self._is_exhausted()
        again = bool(self.continueTrying) and self.phase is not Phase.CLOSING and unfinished
        _log.info("{reason}", reason=reason_text(reason))
        self._audience.lost(reason, unanswered)
        if again:
            self._move(Phase.DIALLING)
        elif self.phase is Phase.REOPENING:
            self._start()
        else:
            self._gave_up = reason if self.continueTrying and self.phase is Phase.CONNECTED else None
            self._move(Phase.IDLE)
            self._audience.fail_waiting(reason)

    def _give_up(self, reason: SerfError) -> None:
        self._move(Phase.IDLE)
        self._unreached.take()  # the reason names them
        _log.warn("gave up: {reason}", reason=reason_text(reason))
        self._gave_up = reason
        self._audience.gave_up(reason)

    def _go_on(self) -> None:
        """Tell others what has happened, in order and never inside another's stack; begin the round that is due."""
        if self._going_on:
            return
        self._going_on = True
        try:
            while self._audience.tell_next() or self._begins_round():
                pass
        finally:
            self._going_on = False

    # Connections

    def _dial_beside(self, attempt: Attempt, listener: Listener) -> Attempt:
        beside = Attempt(attempt.host, attempt.place, attempt.label, listener, self._sockets)
        assert attempt.protocol is not None
        beside.key = attempt.protocol._auth_key  # the agent has accepted it
        reason = self._host_dialler.dial(beside)
        if reason is not None:
            beside.not_connected(reason)
        return beside

    def _new_protocol(self, attempt: Attempt) -> SerfProtocol:
        protocol: SerfProtocol = self.protocol(
            host=attempt.label,
            auth_key=self._keys.of(attempt.host) if attempt.key is None else attempt.key,
            reactor=self.time(),
            connect_timeout=self.connect_timeout,
            heartbeat=self.heartbeat,
            next_seq=self._next_seq,
            owner=attempt,
        )
        protocol.factory = self
        return protocol

    def _real_reactor(self) -> Any:
        self._reactor = reactor_or_global(self._reactor)
        return self._reactor


def _label(address: Any) -> str:
    """Return the address of a connector as errors and log lines show it."""
    if hasattr(address, "port"):
        return address_label(address.host, address.port)
    return os.fsdecode(getattr(address, "name", None) or str(address))
