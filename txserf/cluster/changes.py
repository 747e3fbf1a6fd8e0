"""Changes of a view, and those who are told of them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import attrs
from twisted.logger import Logger
from twisted.python.failure import Failure

from txserf import constant
from txserf.callbacks import Chain
from txserf.model import Member
from txserf.serf.feed import Feed

_log = Logger(namespace="txserf.cluster")


@attrs.frozen
class Change:
    """
    A change of one member.

    :ivar old: the member as it was; None for one that was not there.
    :ivar new: the member as it is now; None for one that is gone.
    """

    old: Member | None
    new: Member | None

    @property
    def name(self) -> str:
        """The member's name."""
        member = self.new or self.old
        assert member is not None
        return member.name


class ChangeListener:
    """
    Is told of changes.

    :param since: the number of the first change that it is told of.
    :param tell: called with each change.
    :ivar feed: the `Changes` that it feeds, if it does.
    """

    __slots__ = ("feed", "since", "tell")

    def __init__(self, since: int, tell: Callable[[Change], None]) -> None:
        self.since: int = since
        self.tell: Callable[[Change], None] = tell
        self.feed: Changes | None = None


class Changes(Feed[Change]):
    """
    The changes of a view, in order; see `ClusterView.changes`.

    :param most: changes that may wait for a reader; None takes `constant.STREAM_BUFFER`, and twice as many as
        there are members where that is more: else the first snapshot of a large cluster would not fit.
    """

    def __init__(self, most: int | None, stopped: Callable[[Changes], None]) -> None:
        super().__init__(constant.STREAM_BUFFER if most is None else most)
        self._grows = most is None
        self._stopped = stopped

    def __repr__(self) -> str:
        return "<Changes of a ClusterView>"

    def stop(self) -> None:
        """End it: changes that wait for a reader are dropped."""
        self._stopped(self)
        self._end(None, discard=True)

    def _stop_asked(self) -> None:
        self.stop()

    def _put(self, change: Change, members: int) -> None:
        """Deliver a change of a view that has that many members."""
        if self._grows and self._limit is not None and self._limit < 2 * members:
            self._let_wait(2 * members)
        self._deliver(change)


class Teller:
    """
    Tells the changes, in a turn of the reactor of their own.

    :param clock: returns the source of time.
    :param may_tell: whether anybody is to be told now; the changes wait until then.
    :param told: called at the end of each turn.
    :ivar listeners: those that are told, in order.
    """

    def __init__(
        self, clock: Callable[[], Any], may_tell: Callable[[], bool], told: Callable[[], None]
    ) -> None:
        self.listeners: dict[ChangeListener, None] = {}
        self._clock = clock
        self._may_tell = may_tell
        self._told = told
        self._number = 0  # of the next change
        self._pending: deque[tuple[int, Change]] = deque()
        self._turn: Any = None  # the call that tells

    def listen(self, tell: Callable[[Change], None]) -> ChangeListener:
        """Have *tell* called with each change from now on."""
        listener = ChangeListener(self._number, tell)
        self.listeners[listener] = None
        return listener

    def note(self, old: Member | None, new: Member | None) -> None:
        """Take a change, to be told."""
        if self.listeners:
            self._pending.append((self._number, Change(old, new)))
            self.tell_soon()
        self._number += 1

    def tell_soon(self) -> None:
        """Have a turn, in which the changes are told that there are."""
        if self._turn is None:
            self._turn = self._clock().callLater(0, self._tell)

    def go_on(self) -> None:
        """Tell what waits since `halt`."""
        if self._pending:
            self.tell_soon()

    def halt(self) -> None:
        """Tell nothing until `go_on`."""
        if self._turn is not None:
            self._turn.cancel()
            self._turn = None

    def tell_changes(self) -> None:
        """Tell the changes that wait."""
        for _ in range(len(self._pending)):
            if not self._may_tell():
                break
            number, change = self._pending.popleft()
            for listener in list(self.listeners):
                if listener.since <= number and listener in self.listeners:
                    listener.tell(change)

    def _tell(self) -> None:
        self._turn = None
        try:
            self.tell_changes()
        finally:  # a KeyboardInterrupt leaves some
            if self._pending and self._may_tell():
                self.tell_soon()
        self._told()


class ChangeCaller:
    """
    Calls a user's function with one change after the other, and logs what it raises.

    Changes wait while an awaitable that it has returned has not ended. Where more than `constant.STREAM_BUFFER` wait, those of
    one member become one, from its first old value to its last new one: so no more wait than there are members.
    """

    def __init__(self, function: Callable[[Member | None, Member | None], object]) -> None:
        self._function = function
        self._chain: Chain[Change] = Chain(
            [lambda change: function(change.old, change.new)], self._failed, self._go_on
        )
        self._waiting: deque[Change] = deque()
        self._most: int | None = None  # may wait until they are merged; None: it is not behind
        self._busy = False

    def put(self, change: Change) -> None:
        """Tell of a change, once those before it are told."""
        self._waiting.append(change)
        self._go_on()
        if len(self._waiting) > (constant.STREAM_BUFFER if self._most is None else self._most):
            self._merge()

    def close(self) -> None:
        """Tell no more."""
        self._waiting.clear()
        self._chain.close()

    def _go_on(self) -> None:
        if self._busy:
            return
        self._busy = True
        try:
            while self._waiting and not self._chain.busy:
                self._chain.put(self._waiting.popleft())
        finally:  # a KeyboardInterrupt leaves some
            self._busy = False
        if not self._waiting:
            self._most = None

    def _merge(self) -> None:
        if self._most is None:
            _log.warn(
                "on_change: {function!r} is {count} changes behind: those of one member become one",
                function=self._function,
                count=len(self._waiting),
            )
        merged: dict[str, Change] = {}
        for change in self._waiting:
            first = merged.get(change.name)
            merged[change.name] = change if first is None else Change(first.old, change.new)
        self._waiting = deque(change for change in merged.values() if change.old != change.new)
        # With few to merge, it is not done for each of those that come.
        self._most = max(constant.STREAM_BUFFER, 2 * len(self._waiting))

    def _failed(self, failure: Failure) -> None:
        _log.failure("on_change: {function!r} failed", failure, function=self._function)
