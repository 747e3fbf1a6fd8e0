"""Whether a quiet agent still lives."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime

# The heartbeat looks this many times in a period whether something was heard. The connection only counts its chunks
# of bytes: reading the clock would cost 40 ns a chunk. So a check may be late by one look.
_LOOKS = 8


class Heartbeat:
    """
    Checks a connection by a round trip after each period without a sign of life.

    :param clock: the source of time.
    :param period: seconds without a sign of life; None for no checks.
    :param patience: seconds that the agent has to answer a check.
    :param heard: returns how many chunks of bytes have come so far.
    :param at_work: says whether the agent is busy with a slow command, so that it could not answer.
    :param ask: sends a request that the agent answers at once. Its argument is called with the answer.
    :param failed: called when a check was not answered in time.
    """

    def __init__(
        self,
        clock: IReactorTime,
        period: float | None,
        patience: float,
        *,
        heard: Callable[[], int],
        at_work: Callable[[], bool],
        ask: Callable[[Callable[[], None]], None],
        failed: Callable[[], None],
    ) -> None:
        self._clock = clock
        self._period = period
        self._patience = patience
        self._heard = heard
        self._at_work = at_work
        self._ask = ask
        self._failed = failed
        self._timer: IDelayedCall | None = None  # None: it is not started, or was stopped

    def start(self) -> None:
        """Begin a period."""
        if self._period is not None:
            self._watch(self._period, self._clock.seconds())

    def stop(self) -> None:
        """Check no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _watch(self, period: float, quiet_since: float) -> None:
        """Check the connection once nothing was heard for the *period* that began at *quiet_since*."""
        left = quiet_since + period - self._clock.seconds()
        pause = period / _LOOKS
        if left > pause:
            self._timer = self._clock.callLater(pause, self._look, period, self._heard(), quiet_since)
        else:
            self._timer = self._clock.callLater(max(0.0, left), self._check, self._heard())

    def _look(self, period: float, heard: int, quiet_since: float) -> None:
        self._watch(period, quiet_since if heard == self._heard() else self._clock.seconds())

    def _check(self, heard: int) -> None:
        if heard != self._heard() or self._at_work():
            self.start()
        else:
            self._timer = self._clock.callLater(self._patience, self._judge, self._heard())
            self._ask(self._answered)

    def _answered(self) -> None:
        if self._timer is not None:
            self.stop()
            self.start()

    def _judge(self, heard: int) -> None:
        if heard == self._heard():
            self._timer = None
            self._failed()
        else:
            self.start()
