"""Changes of a view, and those who are told of them."""

from __future__ import annotations

from collections.abc import Callable

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


class Listener:
    """
    Is told of changes.

    :param since: the number of the first change that it is told of.
    :param tell: called with each change.
    :ivar feed: the `Changes` that it feeds, if it does.
    """

    __slots__ = ("feed", "since", "tell")

    def __init__(self, since: int, tell: Callable[[Change], None]) -> None:
        self.since = since
        self.tell = tell
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
            self._limit = 2 * members
        self._deliver(change)


def function_chain(function: Callable[[Member | None, Member | None], object]) -> Chain[Change]:
    """Return a chain that calls a user's function with one change after the other, and logs what it raises."""

    def failed(failure: Failure) -> None:
        _log.failure("on_change: {function!r} failed", failure, function=function)

    return Chain([lambda change: function(change.old, change.new)], failed)
