"""Faults: how one direction of one connection goes wrong, and the course that bytes take through it."""

from __future__ import annotations

import enum
import random
from collections import deque
from collections.abc import Callable
from typing import Protocol

import attrs
from twisted.internet.interfaces import IDelayedCall, IReactorTime


class Way(enum.Enum):
    """A direction."""

    UP = "up"  # from the client to the agent
    DOWN = "down"


class Kind(enum.Enum):
    """A way in which a connection goes wrong."""

    CUT = "cut"  # both ends see an orderly end
    RESET = "reset"  # both ends see a reset
    HALF_CLOSE = "half-close"  # the receiver sees an orderly end, and the other way works on
    SILENCE = "silence"  # nothing passes any more
    THROTTLE = "throttle"  # a few bytes at a time
    DELAY = "delay"  # all comes late
    GARBLE = "garble"  # one byte is another one
    DUPLICATE = "duplicate"  # some bytes come twice
    WITHHOLD = "withhold"  # some bytes never come


#: Those after which the bytes are not what was sent: a TCP connection never does that, a broken peer may.
CORRUPTING = frozenset({Kind.GARBLE, Kind.DUPLICATE, Kind.WITHHOLD})

#: Seconds between two pieces of a connection that is throttled.
TICK = 0.01


@attrs.frozen
class Fault:
    """
    One fault.

    :ivar after: the number of bytes that pass this way before.
    :ivar amount: ``GARBLE``: what the byte is changed by, 1 to 255. ``DUPLICATE``, ``WITHHOLD``: how many bytes.
        ``THROTTLE``: bytes in each `TICK`. ``DELAY``: milliseconds.
    """

    kind: Kind
    way: Way
    after: int
    amount: int = 1

    def __str__(self) -> str:
        return f"{self.kind.value} {self.way.value} after {self.after} ({self.amount})"


def random_fault(rng: random.Random, kind: Kind, most: int) -> Fault:
    """Make a fault that comes within the first *most* bytes of its way."""
    amount = {
        Kind.GARBLE: rng.randrange(1, 256),
        Kind.DUPLICATE: rng.randrange(1, 40),
        Kind.WITHHOLD: rng.randrange(1, 40),
        Kind.THROTTLE: rng.randrange(1, 200),
        Kind.DELAY: rng.randrange(1, 400),
    }
    return Fault(kind, rng.choice(list(Way)), rng.randrange(most), amount.get(kind, 1))


class End(Protocol):
    """One end of a connection, as a transport has it."""

    def write(self, data: bytes) -> object: ...

    def loseConnection(self) -> object: ...

    def loseWriteConnection(self) -> object: ...

    def abortConnection(self) -> object: ...


class Course:
    """
    One direction of one connection.

    :param clock: the time of what is slow.
    :param faults: those of this direction, in the order in which they come.
    :param receiver: where the bytes go.
    :param end: called when a fault ends the connection; with True for a reset.
    :ivar passed: the number of bytes that came so far.
    """

    def __init__(
        self, clock: IReactorTime, faults: list[Fault], receiver: End, end: Callable[[bool], None]
    ) -> None:
        self._clock = clock
        self._faults = deque(sorted(faults, key=lambda fault: fault.after))
        self._receiver = receiver
        self._end = end
        self._slowness: Fault | None = None
        self._garble: list[int] = []
        self._again = self._drop = 0  # how many of the next bytes come twice, or never
        self._mute = self._over = False
        self._late: deque[tuple[float, bytes]] = deque()  # an empty one is the end
        self._timer: IDelayedCall | None = None
        self.passed = 0

    @property
    def slow(self) -> bool:
        """Whether a fault has made it slow."""
        return self._slowness is not None

    def start(self) -> None:
        """Let those faults happen that are due before the first byte."""
        self._strike()

    def take(self, data: bytes) -> None:
        """Pass bytes on, in the way that the faults let them."""
        while data and not self._over:
            room = self._faults[0].after - self.passed if self._faults else len(data)
            piece, data = data[:room], data[room:]
            self.passed += len(piece)
            self._pass(piece)
            self._strike()

    def finish(self) -> None:
        """Pass on that the sender has ended, behind what is still under way."""
        if self._over:
            self._receiver.loseConnection()
        else:
            self._send(b"")

    def stop(self) -> None:
        """Pass nothing any more, and leave no timer."""
        self._over = True
        self._late.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _strike(self) -> None:
        """Do what is due now."""
        while self._faults and self._faults[0].after <= self.passed and not self._over:
            fault = self._faults.popleft()
            if fault.kind in (Kind.CUT, Kind.RESET):
                self.stop()
                self._end(fault.kind is Kind.RESET)
            elif fault.kind is Kind.HALF_CLOSE:
                self.stop()
                self._receiver.loseWriteConnection()
            elif fault.kind is Kind.SILENCE:
                self._mute = True
            elif fault.kind is Kind.GARBLE:
                self._garble.append(fault.amount)
            elif fault.kind is Kind.DUPLICATE:
                self._again += fault.amount
            elif fault.kind is Kind.WITHHOLD:
                self._drop += fault.amount
            else:
                self._slowness = fault

    def _pass(self, data: bytes) -> None:
        if self._mute or not data:
            return
        if self._drop:
            dropped = min(self._drop, len(data))
            self._drop -= dropped
            data = data[dropped:]
        if self._garble and data:
            data = bytes([data[0] ^ self._garble.pop()]) + data[1:]
        if self._again:
            twice = data[: self._again]
            self._again -= len(twice)
            data = twice + data
        if data:
            self._send(data)

    def _send(self, data: bytes) -> None:
        now = self._clock.seconds()
        if self._slowness is None:
            if self._late:
                self._late.append((self._late[-1][0], data))
            else:
                self._hand_over(data)
            return
        if self._slowness.kind is Kind.DELAY:
            self._late.append((now + self._slowness.amount / 1000, data))
        else:
            step, due = self._slowness.amount, max(now, self._late[-1][0] if self._late else now)
            for start in range(0, len(data), step) if data else (0,):
                due += TICK
                self._late.append((due, data[start : start + step]))
        self._wake()

    def _wake(self) -> None:
        if self._late and self._timer is None:
            due = max(0.0, self._late[0][0] - self._clock.seconds())
            self._timer = self._clock.callLater(due, self._hand_over_late)

    def _hand_over_late(self) -> None:
        self._timer = None
        now = self._clock.seconds()
        while self._late and self._late[0][0] <= now + 1e-9:
            self._hand_over(self._late.popleft()[1])
        self._wake()

    def _hand_over(self, data: bytes) -> None:
        if data:
            self._receiver.write(data)
        else:
            self.stop()
            self._receiver.loseConnection()
