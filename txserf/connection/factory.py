"""
Failing over among hosts, and backing off.

A *round* tries each host once, in order and without any delay; between rounds
the wait grows. The connection that gets through handshake and auth is the
factory's one `connection`.
"""

from __future__ import annotations

import copy
import enum
import itertools
import os
import random
from collections.abc import Callable
from typing import Any, NoReturn, Protocol

from twisted.internet.defer import Deferred, DeferredList, fail, succeed
from twisted.internet.interfaces import IAddress, IConnector
from twisted.internet.protocol import Factory, ReconnectingClientFactory
from twisted.logger import Logger
from twisted.python.failure import Failure

from txserf import constant
from txserf.arguments import reactor_or_global, seconds, time_source
from txserf.connection.exchange import Exchange
from txserf.connection.hosts import Host, Hosts, address_label, parse_hosts
from txserf.connection.protocol import Owner, SerfProtocol, State
from txserf.errors import (
    AuthenticationError,
    ConnectError,
    Disconnected,
    InvalidRequest,
    SerfError,
    failures_text,
    reason_text,
)


class ConnectionObserver(Protocol):
    """Who is told what becomes of a factory's connection."""

    def connected(self, protocol: SerfProtocol) -> None:
        """A connection is open: handshake and auth are through."""

    def lost(self, reason: SerfError, unanswered: list[Exchange]) -> None:
        """That connection is gone; the exchanges under way are the observer's now."""

    def gave_up(self, reason: SerfError) -> None:
        """There will be no connection until the factory is started again."""


class Phase(enum.Enum):
    """What a factory is about."""

    IDLE = "not trying"
    DIALLING = "trying the hosts of a round"
    CONNECTED = "a connection is open"
    WAITING = "between two rounds"


class Sockets:
    """The transports that a factory has open, those of lanes and of cancelled attempts too."""

    def __init__(self) -> None:
        self._askers: dict[SerfProtocol, list[Deferred[None]]] = {}

    def opened(self, protocol: SerfProtocol) -> SerfProtocol:
        """Return *protocol*, which is about to get its transport."""
        self._askers[protocol] = []
        return protocol

    def closed(self, protocol: SerfProtocol) -> None:
        """Tell those who wait for its end that the transport of *protocol* is closed."""
        for asker in self._askers.pop(protocol, ()):
            asker.callback(None)

    def close(self) -> Deferred[None]:
        """
        Close all that are open now.

        :returns: a Deferred of None, once each of them is closed.
        """
        closing: list[Deferred[None]] = []
        for askers in self._askers.values():
            closing.append(Deferred())
            askers.append(closing[-1])
        for protocol in list(self._askers):
            protocol.close()
        return DeferredList(closing).addCallback(lambda _: None)


def dial(host: Host, protocol: SerfProtocol, reactor: Any, timeout: float, sockets: Sockets) -> Deferred[Any]:
    """
    Connect *protocol* to *host*.

    :param timeout: seconds, enforced for every kind of endpoint.
    :param sockets: is told of the transport.
    :returns: a Deferred that fires once the transport is connected; handshake and
        auth are the protocol's to report. Cancelling it gives up.
    """
    factory = Factory.forProtocol(lambda: sockets.opened(protocol))
    factory.noisy = False
    try:
        connecting = host.dialled_by(reactor, timeout).connect(factory)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # an endpoint of the user's may do anything
        return fail(error)

    def timed_out(result: object, _: float) -> NoReturn:
        raise TimeoutError(f"not connected within {timeout} s")

    return connecting.addTimeout(timeout, time_source(reactor), timed_out)


# A connection that is lost within this many seconds counts as one that flaps.
_FLAPPING = 1.0


class SerfClientFactory(ReconnectingClientFactory):
    """
    Keeps a connection to one of several hosts.

    Either call `start`, and it dials its hosts itself, or use it the classic
    way, ``reactor.connectTCP(host, port, SerfClientFactory())``, and it
    reconnects to that address (with the key of the first of its hosts).

    The attributes of ``ReconnectingClientFactory`` are there to be set: ``initialDelay``,
    ``maxDelay``, ``factor``, ``jitter`` are about the wait between rounds, and
    ``maxRetries`` is the number of rounds that may follow the first one, or a
    loss (None: no limit; 0: one round for a connection, none after a loss).

    :param hosts: a host list, see :doc:`hosts`.
    :param reactor: dials and keeps the time; None takes the global reactor.
    :param connect_timeout: seconds to connect, then again for handshake and auth.
    :param heartbeat: seconds between checks of an idle connection; None for none.
    :ivar connection: the open connection, or None.
    :ivar connections: how many have been open so far.
    :ivar failovers: how many of them were to another host than the one before.
    :ivar auth_key: a key that goes before those of the hosts; None for theirs.
    :raises InvalidHostURL: at once, for a host list that is not understood.
    """

    protocol = SerfProtocol
    initialDelay = 0.1
    delay = initialDelay
    maxDelay = 30
    noisy = False

    _log = Logger(namespace="txserf.connection")

    def __init__(
        self,
        hosts: Hosts = None,
        *,
        reactor: Any = None,
        connect_timeout: float | None = None,
        heartbeat: float | None = constant.HEARTBEAT,
        observer: ConnectionObserver | None = None,
    ) -> None:
        if connect_timeout is not None:
            connect_timeout = seconds(connect_timeout, "connect_timeout")
        if heartbeat is not None and seconds(heartbeat, "heartbeat") == 0:
            raise InvalidRequest("heartbeat must be more than 0 seconds, or None for none")
        self.hosts = parse_hosts(hosts)
        self.phase = Phase.IDLE
        self.connection: SerfProtocol | None = None
        self.connections = self.failovers = 0
        self.auth_key: str | None = None
        self.connect_timeout = constant.CONNECT_TIMEOUT if connect_timeout is None else connect_timeout
        self.heartbeat = heartbeat
        self.next_seq = itertools.count().__next__
        self.last_failures: tuple[tuple[str, BaseException], ...] = ()
        self._reactor = reactor
        self._observer = observer
        self._next = 0  # the index of the host to begin a round with
        self._left: list[int] = []  # those that the round has still to try
        self._failures: list[tuple[str, BaseException]] = []
        self._refused: dict[int, AuthenticationError] = {}
        self._trying = 0  # the index of the host that is being tried, or is connected
        self._label = ""  # what that one is called
        self._opening: SerfProtocol | None = None
        self._dialling: Deferred[Any] | None = None
        self._connected_to: int | None = None  # the index of the host of the last connection
        self._connected_at = 0.0
        self._flaps = 0
        self._starts = 0  # how often it was started
        # Why nothing is tried any more; None where it is, or never was.
        self._gave_up: SerfError | None = None
        self._looping = False
        self._afterwards: Callable[[], None] | None = None  # for when a connector is ready to dial again
        self._outdated = False  # the connection that is opening has another key than the next one will have
        self._again = False  # start as soon as the connection that is closing is gone
        self._waiting: list[Deferred[SerfProtocol]] = []
        self.sockets = Sockets()

    # What is called from above

    def start(self) -> None:
        """Begin to connect, unless it is connected or trying already."""
        if self.connection is not None and self.open_connection is None:
            self._again = True
        elif self.phase is Phase.IDLE:
            self._refused.clear()
            self._gave_up = None
            self.resetDelay()  # type: ignore[no-untyped-call]  # Twisted's own
            self.phase = Phase.DIALLING
            self._starts += 1
            self._once_disconnected(self._begin_round)

    @property
    def goes_on(self) -> bool:
        """Whether there is a connection, or there will be another attempt, without a `start`."""
        return self.phase is not Phase.IDLE or self._again

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
        waiting: Deferred[SerfProtocol] = Deferred(self._waiting.remove)
        self._waiting.append(waiting)
        return waiting

    def disconnect(self) -> Deferred[None]:
        """
        Close the connection, or stop trying for one.

        :returns: a Deferred of None, once all transports are closed that are open now: those of
            further connections, and of attempts that were cancelled, too.
        """
        self.stopTrying()
        return self.sockets.close()

    def use_key(self, key: str | None) -> None:
        """
        Use another key for the connections to come; the one that is open stays.

        :param key: goes before those of the hosts; None for theirs.
        """
        if key != self.auth_key:
            self.auth_key = key
            self._outdated = self._opening is not None
            self._left += self._refused
            self._refused.clear()  # that was another key: a host may like this one

    def stopTrying(self) -> None:
        """Stop trying to connect; an open connection stays. Who waits for one gets `Disconnected`."""
        self.continueTrying = 0
        self._again = False
        self._afterwards = self._gave_up = None
        if self._callID is not None:
            self._callID.cancel()
            self._callID = None
        dialling, self._dialling = self._dialling, None
        if self.phase is not Phase.CONNECTED:
            self.phase = Phase.IDLE
        if dialling is not None:
            dialling.cancel()
        if self._opening is not None:
            self._opening.close()
        if self.connector is not None and getattr(self.connector, "state", "") == "connecting":
            self.connector.stopConnecting()
        self._fail_waiting(Disconnected("closed before a connection was made"))

    # What a connection tells

    def connection_ready(self, protocol: SerfProtocol) -> None:
        if protocol is not self._opening:
            protocol.close()  # it was cancelled, but its endpoint has connected all the same
            return
        self._opening = self._dialling = None
        self.connection = protocol
        self.phase = Phase.CONNECTED
        self._failures.clear()
        self.last_failures = ()
        self.connections += 1
        self.failovers += self._connected_to not in (None, self._trying)
        self._connected_to = self._trying
        self._connected_at = self.time().seconds()
        if not self._flaps:
            self.resetDelay()  # type: ignore[no-untyped-call]  # Twisted's own
        self._log.info("connected to {host}", host=protocol.host)
        if self._observer is not None:
            self._observer.connected(protocol)
        while self._waiting and self.open_connection is protocol:
            self._waiting.pop(0).callback(protocol)

    def connection_closed(
        self, protocol: SerfProtocol, reason: SerfError, unanswered: list[Exchange]
    ) -> None:
        if protocol is self.connection:
            self.connection = None
            self._lost(reason, unanswered)
        elif protocol is self._opening:
            self._opening = None
            if self.phase is Phase.DIALLING:
                self._failed(reason)
        self.sockets.closed(protocol)
        if self._again and self.connection is None:
            self._again = False
            if self.phase is Phase.IDLE:
                self._once_disconnected(self.start)

    # What Twisted calls, where a connector dials

    def startedConnecting(self, connector: IConnector) -> None:
        address = connector.getDestination()
        self._label = _label(address)
        if self.connector is None:
            self.connector = connector
            self.continueTrying = 1
            self.phase = Phase.DIALLING

    def buildProtocol(self, addr: IAddress | None) -> SerfProtocol:
        self._opening = self._new_protocol(self._label, self.hosts[0])
        self._outdated = False
        return self.sockets.opened(self._opening)

    def clientConnectionFailed(self, connector: IConnector, reason: Failure) -> None:
        if self.phase is Phase.DIALLING:
            self._failed(_exception(reason))

    def clientConnectionLost(self, connector: IConnector, reason: Failure) -> None:
        afterwards, self._afterwards = self._afterwards, None
        if afterwards is not None:
            afterwards()

    # How it works

    def new_lane(self, owner: Owner) -> tuple[SerfProtocol, Deferred[Any]]:
        """
        Dial one more connection to the host that is connected.

        :returns: the connection, which tells *owner* what becomes of it, and the Deferred of `dial`.
        """
        host = self.hosts[self._trying]
        protocol = self._new_protocol(host.label, host, owner)
        if self.connection is not None and self.connection._auth_key is not None:
            protocol._auth_key = self.connection._auth_key  # the agent has accepted it
        return protocol, dial(host, protocol, self._real_reactor(), self.connect_timeout, self.sockets)

    def _new_protocol(self, label: str, host: Host, owner: Owner | None = None) -> SerfProtocol:
        protocol: SerfProtocol = self.protocol(
            host=label,
            auth_key=host.auth_key if self.auth_key is None else self.auth_key,
            reactor=self.time(),
            connect_timeout=self.connect_timeout,
            heartbeat=self.heartbeat,
            next_seq=self.next_seq,
            owner=owner or self,
        )
        protocol.factory = self
        return protocol

    def _real_reactor(self) -> Any:
        self._reactor = reactor_or_global(self._reactor)
        return self._reactor

    def time(self) -> Any:
        """Return what keeps the time: the reactor, unless ``clock`` was set."""
        if self.clock is None:
            self.clock = self._real_reactor()
        return self.clock

    def _begin_round(self) -> None:
        count = len(self.hosts)
        order = [(self._next + step) % count for step in range(count)]
        # A host that refused the key is not asked again while another one may do.
        self._left = [index for index in order if index not in self._refused]
        if self.connector is not None:
            self._left = []  # the connector has the one address
        self._failures = [(self.hosts[i].label, self._refused[i]) for i in order if i in self._refused]
        self.phase = Phase.DIALLING
        self._try_hosts()

    def _try_hosts(self) -> None:
        # A loop, for an endpoint may fail at once, and a list of hosts may be long.
        if self._looping:
            return
        self._looping = True
        try:
            while self.phase is Phase.DIALLING and self._dialling is None and self._opening is None:
                if self.connector is not None and not self._refused:
                    self.connector.connect()
                    return
                if self._left:
                    self._try_host(self._left.pop(0))
                else:
                    self._round_over()  # whoever is told that it gave up may start it again
        finally:
            self._looping = False

    def _try_host(self, index: int) -> None:
        host = self.hosts[index]
        self._trying = index
        self._label = host.label
        self._next = (index + 1) % len(self.hosts)
        self._opening = protocol = self._new_protocol(host.label, host)
        self._outdated = False
        dialling = dial(host, protocol, self._real_reactor(), self.connect_timeout, self.sockets)
        if self._opening is protocol:  # else all of it is over already
            self._dialling = dialling

        def failed(reason: Failure) -> None:
            if self._dialling is dialling:
                self._dialling = None
            if self._opening is protocol:
                self._opening = None
                if self.phase is Phase.DIALLING:
                    self._failed(_exception(reason))

        dialling.addErrback(failed)

    def _failed(self, reason: BaseException) -> None:
        self._dialling = None
        self._failures.append((self._label, reason))
        if isinstance(reason, AuthenticationError):
            if self._outdated:
                self._left.append(self._trying)
            else:
                self._refused[self._trying] = reason
        self._log.info("no connection to {host}: {reason}", host=self._label, reason=reason_text(reason))
        self._once_disconnected(self._round_over if self.connector is not None else self._try_hosts)

    def _once_disconnected(self, step: Callable[[], None]) -> None:
        # A connector can't dial again before it was told of the loss, which comes after the protocol.
        # Nor has every connector a state: a MemoryReactor's has none.
        if getattr(self.connector, "state", "disconnected") != "disconnected":
            self._afterwards = step
        else:
            step()

    def _round_over(self) -> None:
        self.last_failures = tuple(self._failures)
        if len(self._refused) == (1 if self.connector is not None else len(self.hosts)):
            self._give_up(next(iter(self._refused.values())))
        elif self.maxRetries is not None and self.retries >= self.maxRetries:
            told = failures_text(self.last_failures)
            self._give_up(ConnectError(f"no host could be reached: {told}", failures=self.last_failures))
        else:
            self.retry()

    def retry(self, connector: IConnector | None = None) -> None:
        """Have another round, after the wait that is due."""
        if not self.continueTrying:
            return
        self.retries += 1
        self.phase = Phase.WAITING
        wait = random.normalvariate(self.delay, self.delay * self.jitter) if self.jitter else self.delay
        self._callID = self.time().callLater(min(max(0.0, wait), self.maxDelay), self._wait_over)
        self.delay = min(self.delay * self.factor, self.maxDelay)

    def _wait_over(self) -> None:
        self._callID = None
        self._begin_round()

    def _lost(self, reason: SerfError, unanswered: list[Exchange]) -> None:
        quick = self.time().seconds() - self._connected_at < _FLAPPING
        self._flaps = self._flaps + 1 if quick else 0
        if not quick and self.continueTrying:
            self.resetDelay()  # type: ignore[no-untyped-call]  # it was not when this one opened, if the last flapped
        if isinstance(reason, AuthenticationError):
            self._refused[self._trying] = reason
        else:
            self._refused.clear()
        again = bool(self.continueTrying) and not (
            self.maxRetries is not None and self.retries >= self.maxRetries
        )
        # A host that wanted a key is one that failed in this round, which goes on.
        again = again or (isinstance(reason, AuthenticationError) and bool(self.continueTrying))
        self.phase = Phase.DIALLING if again else Phase.IDLE
        starts = self._starts
        self._log.info("{reason}", reason=reason_text(reason))
        if self._observer is not None:
            self._observer.lost(reason, unanswered)
        else:
            for exchange in unanswered:
                exchange.lost(copy.copy(reason))
        if starts != self._starts:
            return  # whoever was told has closed it, and started it again
        if not again and not self._again:
            self._gave_up = reason if self.continueTrying else None
            self._fail_waiting(reason)
        elif self.phase is Phase.DIALLING:
            # Where each connection is lost at once, trying at once would never end.
            flapping = self._flaps > len(self.hosts)
            self._once_disconnected(self.retry if flapping else self._begin_round)

    def _give_up(self, reason: SerfError) -> None:
        self.phase = Phase.IDLE
        self._log.warn("gave up: {reason}", reason=reason_text(reason))
        waiting, self._waiting = self._waiting, []
        self._gave_up = reason
        if self._observer is not None:
            self._observer.gave_up(reason)
        self._tell(waiting, reason)

    def _fail_waiting(self, reason: SerfError) -> None:
        waiting, self._waiting = self._waiting, []
        self._tell(waiting, reason)

    def _tell(self, waiting: list[Deferred[SerfProtocol]], reason: SerfError) -> None:
        for asker in waiting:
            asker.errback(copy.copy(reason))


def _label(address: Any) -> str:
    """What errors and log lines call the address of a connector."""
    if hasattr(address, "port"):
        return address_label(address.host, address.port)
    return os.fsdecode(getattr(address, "name", None) or str(address))


def _exception(reason: Failure) -> BaseException:
    assert reason.value is not None
    return reason.value
