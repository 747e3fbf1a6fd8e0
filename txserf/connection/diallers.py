"""
Attempts to connect, and the two ways of making them.

`HostDialler` dials hosts by their endpoints: the factory's own way. `ConnectorDialler`
has a connector of the reactor dial its one address: the classic way.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, NoReturn, Protocol

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.error import NotConnectingError
from twisted.internet.interfaces import IConnector, IReactorTime
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure

from txserf.connection.exchange import Exchange
from txserf.connection.hosts import Host
from txserf.connection.protocol import SerfProtocol, State
from txserf.errors import SerfError


class Sockets:
    """The transports that are open: those of cancelled attempts, and of lanes, too."""

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

        :returns: a Deferred of None, once each of them is closed. To cancel it ends the waiting, nothing else.
        """
        closing: list[Deferred[None]] = []
        for protocol, askers in self._askers.items():
            if protocol.state is not State.NEW:  # else its endpoint has never connected it
                closing.append(Deferred())
                askers.append(closing[-1])
        for protocol in list(self._askers):
            protocol.close()
        closed: Deferred[None] = Deferred()
        DeferredList(closing).addCallback(lambda _: closed.callback(None))
        return closed


class Listener(NamedTuple):
    """
    The functions that are called for an attempt.

    Either *failed* is called in the end or *closed*. Nothing is called for an attempt that was cancelled before it had a
    transport.
    """

    opened: Callable[[Attempt], None]  # handshake and auth are through
    closed: Callable[
        [Attempt, SerfError, list[Exchange]], None
    ]  # the transport is; the exchanges are unanswered
    failed: Callable[[Attempt, BaseException], None]  # the dialling has failed


class Attempt:
    """
    One attempt to connect, and the connection that comes of it.

    :param host: the host that is dialled, or the one whose key is used.
    :param place: the place of that host in the list.
    :param label: the agent, as errors and log lines show it.
    :param listener: hears what becomes of it.
    :param sockets: hears of its transport.
    :ivar protocol: the connection; a connector makes it late, None until then.
    :ivar key: used before that of the host and that of the program, if given.
    :ivar stop_dialling: set by the dialler.
    """

    def __init__(self, host: Host, place: int, label: str, listener: Listener, sockets: Sockets) -> None:
        self.host = host
        self.place = place
        self.label = label
        self.protocol: SerfProtocol | None = None
        self.key: str | None = None
        self.stop_dialling: Callable[[], object] = lambda: None
        self._listener: Listener | None = listener  # None: nobody hears of it any more
        self._sockets = sockets

    @property
    def has_transport(self) -> bool:
        """Whether there is a transport, which has to be closed."""
        return self.protocol is not None and self.protocol.state not in (State.NEW, State.CLOSED)

    @property
    def is_cancelled(self) -> bool:
        """Whether nobody hears of it any more."""
        return self._listener is None

    def cancel(self) -> None:
        """Close its transport; without one stop the dialling, and let nobody hear of it any more."""
        if self.has_transport:
            assert self.protocol is not None
            self.protocol.close()
        else:
            self._listener = None
            self.stop_dialling()

    def made(self) -> SerfProtocol:
        """Return the connection, which is about to get its transport."""
        assert self.protocol is not None
        return self._sockets.opened(self.protocol)

    def not_connected(self, reason: BaseException) -> None:
        """
        Take the failure of the dialling.

        An endpoint may connect the transport and fail afterwards, or never fire. Until handshake and auth are through
        that is a failure all the same; after that, or after its end, the connection speaks for itself.
        """
        state = State.NEW if self.protocol is None else self.protocol.state
        if self._listener is None or state not in (State.NEW, State.OPENING):
            return
        listener, self._listener = self._listener, None  # the endpoint may connect it all the same, later
        if self.protocol is not None:
            self.protocol.close()
        listener.failed(self, reason)

    # Owner: the connection's callbacks

    def connection_ready(self, protocol: SerfProtocol) -> None:
        if self._listener is None:
            protocol.close()  # cancelled, but its endpoint has connected all the same
        else:
            self._listener.opened(self)

    def connection_closed(
        self, protocol: SerfProtocol, reason: SerfError, unanswered: list[Exchange]
    ) -> None:
        if self._listener is not None:
            self._listener.closed(self, reason, unanswered)
        self._sockets.closed(protocol)


#: Makes the connection of an attempt, which is its owner.
Make = Callable[[Attempt], SerfProtocol]


class Dialler(Protocol):
    """A way of making attempts."""

    def dial(self, attempt: Attempt) -> BaseException | None:
        """
        Begin an attempt.

        :returns: the reason, where it has failed at once (the listener is not told of that); else None.
        """


class HostDialler:
    """
    Dials hosts by their endpoints.

    :param make: makes the connection.
    :param reactor: returns the reactor that dials.
    :param time: returns the source of time.
    :param timeout: returns the seconds that it may take, enforced for every kind of endpoint.
    """

    def __init__(
        self,
        make: Make,
        reactor: Callable[[], Any],
        time: Callable[[], IReactorTime],
        timeout: Callable[[], float],
    ) -> None:
        self._make = make
        self._reactor = reactor
        self._time = time
        self._timeout = timeout

    def dial(self, attempt: Attempt) -> BaseException | None:
        attempt.protocol = self._make(attempt)
        factory = Factory.forProtocol(attempt.made)
        factory.noisy = False
        timeout = self._timeout()
        try:
            connecting = attempt.host.dialled_by(self._reactor(), timeout).connect(factory)
            attempt.stop_dialling = connecting.cancel
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # an endpoint of the user's may do anything
            return error

        def timed_out(result: object, _: float) -> NoReturn:
            raise TimeoutError(f"not connected within {timeout} s")

        at_once: list[BaseException] = []
        tell: Callable[[BaseException], None] = at_once.append

        def failed(failure: Failure) -> None:
            tell(exception_of(failure))

        if attempt.is_cancelled:  # by the endpoint itself
            connecting.cancel()
        connecting.addTimeout(timeout, self._time(), timed_out).addErrback(failed)
        tell = attempt.not_connected
        return at_once[0] if at_once else None


class ConnectorDialler:
    """
    Has a connector dial its address, one attempt at a time.

    A connector cannot dial again before it has reported the end of its last transport, and it does so
    after the protocol. A new attempt waits for that.

    :param connector: the result of ``reactor.connectTCP(host, port, factory)``.
    :param make: makes the connection.
    :ivar label: that address, as errors and log lines show it.
    """

    label: str = ""

    def __init__(self, connector: IConnector, make: Make) -> None:
        self._connector = connector
        self._make = make
        self._current: Attempt | None = None  # by which the connector is taken
        self._next: Attempt | None = None  # waits until the connector is free

    def dial(self, attempt: Attempt) -> BaseException | None:
        attempt.stop_dialling = partial(self._stop, attempt)
        if self._current is None:
            self._current = attempt
            self._connector.connect()
        else:
            self._next = attempt
        return None

    def _stop(self, attempt: Attempt) -> None:
        if attempt is self._next:
            self._next = None
        elif attempt is self._current:
            self._current = None
            try:
                self._connector.stopConnecting()
            except NotConnectingError:
                pass  # the program has stopped it already

    # The connector's callbacks, handed on by the factory

    def started(self, label: str, begin: Callable[[], Attempt | None]) -> None:
        """
        Note that the connector dials.

        :param begin: begins an attempt, where the program has made it dial.
        """
        self.label = label
        if self._current is not None and self._current.protocol is not None:
            self._take_turn()  # a subclass of the factory did not hand on the end of the last transport
        if self._current is None:
            self._current = begin()
            if self._current is not None:
                self._current.stop_dialling = partial(self._stop, self._current)
        else:
            self._current.label = label

    def connected(self) -> SerfProtocol | None:
        """Return the connection for a new transport; None where there was no attempt."""
        if self._next is not None:
            self._take_turn()  # as in started(); not every connector calls that for each attempt
        attempt = self._current
        if attempt is None or attempt.protocol is not None:
            return None
        attempt.protocol = self._make(attempt)
        return attempt.made()

    def ended(self, reason: BaseException) -> None:
        """
        Take that the connector is free, and begin the attempt that waits for that.

        :param reason: the failure of its attempt, or the end of its transport.
        """
        attempt, waiting = self._current, self._next
        self._current = self._next = None
        if waiting is not None:
            self.dial(waiting)
        if attempt is not None:
            attempt.not_connected(reason)  # which ignores it where there was a connection

    def _take_turn(self) -> None:
        self._current, self._next = self._next, None


def exception_of(failure: Failure) -> BaseException:
    """Return the exception of a failure, which always has one here."""
    assert failure.value is not None
    return failure.value
