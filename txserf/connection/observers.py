"""Those that hear of a factory's connection, and the order in which they do."""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Protocol, TypeAlias

from twisted.internet.defer import Deferred

from txserf.connection.diallers import Attempt, Listener
from txserf.connection.exchange import Exchange
from txserf.connection.protocol import SerfProtocol, State
from txserf.errors import SerfError

#: Dials one more connection, to the agent that is connected and with its key.
DialBeside: TypeAlias = Callable[[Listener], Attempt]


class ConnectionObserver(Protocol):
    """Is told what becomes of a factory's connection, in order."""

    def connected(self, protocol: SerfProtocol, dial_beside: DialBeside) -> None:
        """Take a connection that is open: handshake and auth are through."""

    def lost(self, reason: SerfError, unanswered: list[Exchange]) -> None:
        """Take the end of that connection; the exchanges under way are the observer's now."""

    def gave_up(self, reason: SerfError) -> None:
        """Take that there will be no connection until the factory is started again."""


class Audience:
    """
    An observer, and those that wait for a connection.

    Nothing is told at once. It waits for `tell_next`, so that each of them finds the factory after a
    complete move, and is not told inside another one's stack.

    :param observer: is told before those that wait.
    """

    def __init__(self, observer: ConnectionObserver | None) -> None:
        self._observer = observer
        self._waiting: list[Deferred[SerfProtocol]] = []
        self._untold: deque[Callable[[], None]] = deque()

    def wait(self) -> Deferred[SerfProtocol]:
        """Return a Deferred of the next connection, which may be cancelled."""
        asker: Deferred[SerfProtocol] = Deferred(self._forget)
        self._waiting.append(asker)
        return asker

    def tell_next(self) -> bool:
        """Tell the oldest of the news; return whether there was any."""
        if not self._untold:
            return False
        self._untold.popleft()()
        return True

    # The news

    def connected(self, protocol: SerfProtocol, dial_beside: DialBeside) -> None:
        """Tell all of a connection, unless it has ended by then."""
        self._untold.append(partial(self._tell_connected, protocol, dial_beside))

    def lost(self, reason: SerfError, unanswered: list[Exchange]) -> None:
        """Tell the observer of a loss; without one, the exchanges."""
        self._untold.append(partial(self._tell_lost, reason, unanswered))

    def gave_up(self, reason: SerfError) -> None:
        """Tell all that there will be no connection."""
        if self._observer is not None:
            self._untold.append(partial(self._observer.gave_up, reason))
        self.fail_waiting(reason)

    def fail_waiting(self, reason: SerfError) -> None:
        """Tell those that wait now that there will be no connection."""
        waiting, self._waiting = self._waiting, []
        for asker in waiting:
            self._untold.append(partial(_fail, asker, reason))

    def _tell_connected(self, protocol: SerfProtocol, dial_beside: DialBeside) -> None:
        if protocol.state is State.READY and self._observer is not None:
            self._observer.connected(protocol, dial_beside)
        while self._waiting and protocol.state is State.READY:  # each may close it
            self._waiting.pop(0).callback(protocol)

    def _tell_lost(self, reason: SerfError, unanswered: list[Exchange]) -> None:
        if self._observer is not None:
            self._observer.lost(reason, unanswered)
        else:
            for exchange in unanswered:
                exchange.lost(copy.copy(reason))

    def _forget(self, asker: Deferred[SerfProtocol]) -> None:
        if asker in self._waiting:
            self._waiting.remove(asker)


def _fail(asker: Deferred[SerfProtocol], reason: SerfError) -> None:
    if not asker.called:  # else it was cancelled meanwhile
        asker.errback(copy.copy(reason))
