"""Whether the agent of a connection still lives, and still understands us as we understand it."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime

# How often a check whose answer stands behind a large body may be put off while bytes of that body come. Without a
# limit, a garbled length could hold a connection up until events have filled it.
_MOST_WAITS = 12

#: A mark of what the agent has answered: the oldest Seq without an answer, and how far its body has come.
Progress = tuple[int | None, int]


class Heartbeat:
    """
    Checks a connection by a round trip in each period.

    Only the answer counts. Records of streams show neither that requests still reach the agent nor that its answers are
    still understood: bytes out of step are taken for the rest of a long text.

    :param clock: the source of time.
    :param period: seconds from one answer to the next check; None for no checks.
    :param patience: seconds that the agent has to answer a check. They begin anew while it answers earlier requests.
    :param progress: returns how far it has got with them.
    :param at_work: says whether the agent is busy with a slow command, so that it could not answer.
    :param ask: sends a request that the agent answers at once. Its argument is called with the answer.
    :param failed: called when a check was not answered in time.
    :ivar good_at: the time of the last answer, or of the start.
    """

    def __init__(
        self,
        clock: IReactorTime,
        period: float | None,
        patience: float,
        *,
        progress: Callable[[], Progress],
        at_work: Callable[[], bool],
        ask: Callable[[Callable[[], None]], None],
        failed: Callable[[], None],
    ) -> None:
        self.good_at: float = 0.0
        self._clock = clock
        self._period = period
        self._patience = patience
        self._progress = progress
        self._at_work = at_work
        self._ask = ask
        self._failed = failed
        self._timer: IDelayedCall | None = None  # None: it is not started, or was stopped

    def start(self) -> None:
        """Begin a period."""
        self.good_at = self._clock.seconds()
        self._wait()

    def stop(self) -> None:
        """Check no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _wait(self) -> None:
        if self._period is not None:
            self._timer = self._clock.callLater(self._period, self._check)

    def _check(self) -> None:
        if self._at_work():
            self._wait()
            return
        before: list[Progress] = []
        self._timer = self._clock.callLater(self._patience, self._due, before, 0)
        self._ask(self._answered)
        before.append(self._progress())  # now that the check itself is one of the requests without an answer

    def _answered(self) -> None:
        if self._timer is not None:
            self.stop()
            self.start()

    def _due(self, before: list[Progress], waits: int) -> None:
        # A reactor that was held up runs this before it reads what has come meanwhile.
        self._timer = self._clock.callLater(0, self._judge, before, waits)

    def _judge(self, before: list[Progress], waits: int) -> None:
        [(oldest, size)] = before
        now = self._progress()
        if now[0] != oldest:
            waits = 0
        elif now[1] <= size or waits == _MOST_WAITS:
            self._timer = None
            self._failed()
            return
        self._timer = self._clock.callLater(self._patience, self._due, [now], waits + 1)
