"""`ClusterView`: the members of a cluster, kept up to date."""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Callable, Mapping
from inspect import iscoroutinefunction
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList, fail, succeed
from twisted.logger import Logger

from txserf import commands
from txserf.arguments import count as counted
from txserf.arguments import limit, seconds
from txserf.callbacks import check_callables
from txserf.cluster.changes import ChangeCaller, Changes, Teller
from txserf.cluster.coordinates import Coordinates
from txserf.cluster.following import Following, ViewCallbacks, ViewPhase
from txserf.cluster.matching import Match, TagMatch
from txserf.cluster.ring import Ring
from txserf.cluster.table import Members, Table
from txserf.cluster.waits import Enough, Waits
from txserf.errors import Disconnected, InvalidRequest, SerfError
from txserf.model import Member, MemberEvent, MemberStatus
from txserf.serf.serf import Serf

_log = Logger(namespace="txserf.cluster")


class ClusterView(Service):
    """
    The members of a cluster, kept up to date by the agent's events.

    ::

        view = txserf.ClusterView(serf)
        await view.when_ready()
        for member in view.select(role="web"):
            print(member.name, member.address)

    It is a service (``setServiceParent``). `when_ready`, `wait_for`, `changes` and `nearest` start it too. Its start
    starts the `Serf` if that does not run, and its stop does not close that.

    It subscribes to the events before it reads the members, so that nothing falls between. After a loss of the agent it
    reads them again and reports the difference, as it does every *resync* seconds: an agent reports changes one to
    three seconds late, and some not at all. While the agent is away the last known members stay (`stale`).

    :param serf: the connection.
    :param status: the view has members of this status only; None for any.
    :param tags: the view has members with these tags only: values by tag, or predicates of the value. A member on which a
        predicate fails is left out; the first such failure is logged.
    :param resync: seconds between two readings of the members; None to read them after a loss only.
    :raises InvalidRequest: for a bad argument.
    :ivar serf: the connection.
    """

    def __init__(
        self,
        serf: Serf,
        *,
        status: str | None = None,
        tags: Mapping[str, TagMatch] | None = None,
        resync: float | None = 300.0,
    ) -> None:
        if not isinstance(serf, Serf):
            raise InvalidRequest(f"ClusterView: serf must be a Serf, not {type(serf).__name__}")
        self.serf = serf
        self._match = Match("ClusterView", status, tags)
        self._predicate_failed = False  # so that it has been logged
        period = None if resync is None else limit(resync, "ClusterView: resync")
        follower = ViewCallbacks(self._compare, self._apply, self._was_read, self._failed)
        self._following = Following(serf, period, follower)
        self._table = Table()
        self._members = Members(self._table)
        self._teller = Teller(lambda: serf.clock, lambda: not self._is_closed, self._told)
        self._askers: deque[Deferred[ClusterView]] = deque()  # of `when_ready`
        self._waits = Waits(self._table.select)
        self._coordinates = Coordinates(serf)

    def __repr__(self) -> str:
        return f"<ClusterView: {len(self._table.by_name)} members, {self._following.phase.name.lower()}>"

    # A service

    def startService(self) -> None:
        """Begin to follow the cluster."""
        if self._following.phase in (ViewPhase.IDLE, ViewPhase.FAILED, ViewPhase.CLOSED):
            if not self.serf.running:
                self.serf.startService()
            self._open()
        super().startService()  # type: ignore[no-untyped-call]  # Twisted's own

    def stopService(self) -> Deferred[None]:
        """
        End it: those who wait get `Disconnected`, and ``changes()`` end.

        The functions of `on_change` stay, for another start, which tells them the difference.

        :returns: a Deferred of None, once all have been told and the agent has stopped the stream.
        """
        super().stopService()  # type: ignore[no-untyped-call]  # Twisted's own
        if self._is_closed:
            return succeed(None)
        stopping = self._following.close()
        self.serf._rosters.remove(self._roster)
        self._teller.halt()
        over: list[Deferred[Any]] = [self._end_all(Disconnected("this ClusterView was stopped"))]
        if stopping is not None:
            over.append(stopping)
        return DeferredList(over, consumeErrors=True).addCallback(lambda _: None)

    # The members

    @property
    def members(self) -> Mapping[str, Member]:
        """
        The members by name, in the order of names: a mapping that can't be changed and follows the view.

        It is empty before the first snapshot (`when_ready`).

        :raises Disconnected: once the view is stopped.
        """
        self._check_open()
        return self._members

    def select(
        self, *, status: str | None = "alive", tags: Mapping[str, TagMatch] = {}, **more_tags: TagMatch
    ) -> list[Member]:
        """
        Return the members that match.

        :param status: compared exactly; None for any.
        :param tags: a value by tag, compared exactly, or a predicate of the value, which gets None where the tag
            is absent. *more_tags* are the same.
        :returns: a list, sorted by name. It is found by an index, which is made for a tag when it is first asked for.
        :raises InvalidRequest: for a bad argument; `Disconnected` once the view is stopped.
        """
        self._check_open()
        return self._table.select(Match("select", status, tags, more_tags))

    def ring(
        self, *, status: str | None = "alive", tags: Mapping[str, TagMatch] = {}, **more_tags: TagMatch
    ) -> Ring[Member]:
        """
        Return the ring of the members that match now; it does not change with the view.

        :param status: as of `select`, and so the tags.
        :returns: a `Ring`, which says for each key which members own it. It is a hint, and no lock.
        :raises InvalidRequest: for a bad argument; `Disconnected` once the view is stopped.
        """
        self._check_open()
        return Ring(self._table.select(Match("ring", status, tags, more_tags)))

    @property
    def stale(self) -> bool:
        """Whether the members may be out of date: the agent is away, or they have not been read since."""
        return self._following.stale

    @property
    def repairs(self) -> int:
        """
        How many changes were found by reading the members again every *resync* seconds.

        One that its event would have told of a moment later counts too.
        """
        return self._following.repairs

    # Changes

    def on_change(self, function: Callable[[Member | None, Member | None], object]) -> Callable[[], None]:
        """
        Have a function called for each change from now on, in order.

        :param function: called with the old and the new `Member`; None stands for no member. It is called in a turn of
            the reactor of its own. If it returns an awaitable, the next change waits for that; where more than
            ``constant.STREAM_BUFFER`` wait, those of one member become one. What it raises is logged, and nobody else
            misses anything.
        :returns: a function that ends it.
        :raises InvalidRequest: for a function that can't be called; `Disconnected` once the view is stopped.
        """
        check_callables((function,))
        self._check_open()
        caller = ChangeCaller(function)
        listener = self._teller.listen(caller.put)

        def end() -> None:
            self._teller.listeners.pop(listener, None)
            caller.close()

        return end

    def changes(self, *, buffer: int | None = None) -> Changes:
        """
        Follow the changes from now on.

        :param buffer: changes that may wait for a slow reader; past it the oldest goes (``dropped``). None takes
            ``constant.STREAM_BUFFER``, or room for each member twice where that is more.
        :returns: an async iterator of `Change`, with ``stop()``. It ends when the view is stopped, and with an error where
            the agent refuses the view.
        :raises InvalidRequest: for a bad argument; `Disconnected` once the view or its `Serf` is stopped.
        """
        most = None if buffer is None else counted(buffer, "changes: buffer")
        self._begin()

        def stopped(_: object) -> None:
            self._teller.listeners.pop(listener, None)

        changes = Changes(most, stopped)
        listener = self._teller.listen(lambda change: changes._put(change, len(self._table.by_name)))
        listener.feed = changes
        return changes

    # Waiting

    def when_ready(self) -> Deferred[ClusterView]:
        """
        Wait for the first snapshot.

        :returns: a Deferred of this view. It fails with `Disconnected` where the view or its `Serf` is stopped, or with
            the error that ended the stream, such as `AuthenticationError`. It can be cancelled.
        """
        try:
            self._begin()
        except SerfError as error:
            return fail(error)
        if self._following.read_at is not None:
            return succeed(self)
        asker: Deferred[ClusterView] = Deferred(self._askers.remove)
        self._askers.append(asker)
        return asker

    def wait_for(
        self,
        count: Enough,
        *,
        status: str | None = "alive",
        timeout: float | None = None,
        tags: Mapping[str, TagMatch] = {},
        **more_tags: TagMatch,
    ) -> Deferred[list[Member]]:
        """
        Wait until enough members match.

        While the view is `stale`, the last known members count.

        :param count: how many, or a predicate of the list of those that match.
        :param status: as of `select`, and so the tags.
        :param timeout: seconds; None for no limit.
        :returns: a Deferred of the list, as of `select`. It fails with `RequestTimeout` past *timeout*, as `when_ready`
            does, or with what a predicate raises. It can be cancelled.
        :raises InvalidRequest: at the call, for a bad argument.
        """
        match = Match("wait_for", status, tags, more_tags)
        if iscoroutinefunction(count):  # a coroutine is never false
            raise InvalidRequest(
                "wait_for: count must be a predicate that returns at once, no coroutine function"
            )
        enough = count if callable(count) else counted(count, "wait_for: count")
        patience = None if timeout is None else seconds(timeout, "wait_for: timeout")
        try:
            self._begin()
        except SerfError as error:
            return fail(error)
        wait = self._waits.add(match, enough)
        if patience is not None:
            self._waits.limit(wait, self.serf.clock, patience, self._why_stale)
        if self._following.read_at is not None:
            self._waits.check_one(wait)
        return wait.result

    def nearest(
        self,
        node: str | None = None,
        *,
        count: int | None = None,
        within: float | None = None,
        status: str | None = "alive",
        tags: Mapping[str, TagMatch] = {},
        **more_tags: TagMatch,
    ) -> Deferred[list[tuple[Member, float]]]:
        """
        Find the members that are nearest to a node, by the estimated round trip.

        :param node: the node's name; None for the agent's own.
        :param count: how many at the most; None for all.
        :param within: seconds; None for any distance.
        :param status: as of `select`, and so the tags.
        :returns: a Deferred of pairs of a `Member` and seconds, the nearest first. The seconds are those of `Serf.rtt`; the
            coordinates are kept for 30 s. The node itself is one of them if it matches. Members without a coordinate
            are left out. It fails with `RpcError` where the agent has no coordinate of *node*, as a
            call of `Serf` does, or as `when_ready` does. It can be cancelled.
        :raises InvalidRequest: at the call, for a bad argument.
        """
        match = Match("nearest", status, tags, more_tags)
        if node is not None:
            commands.GET_COORDINATE.typed_arguments({"node": node})
        most = None if count is None else counted(count, "nearest: count")
        furthest = None if within is None else seconds(within, "nearest: within")

        async def find() -> list[tuple[Member, float]]:
            await self.when_ready()
            return (await self._coordinates.nearest(node, self._table.select(match), furthest))[:most]

        return Deferred.fromCoroutine(find())

    # How it works

    @property
    def _is_closed(self) -> bool:
        return self._following.phase is ViewPhase.CLOSED

    def _check_open(self) -> None:
        if self._is_closed:
            raise Disconnected("this ClusterView is stopped")

    def _begin(self) -> None:
        """Start it, if it does not run."""
        self._check_open()
        if self._following.phase in (ViewPhase.IDLE, ViewPhase.FAILED):
            self._open()
            super().startService()  # type: ignore[no-untyped-call]  # Twisted's own

    def _open(self) -> None:
        self._following.open()
        if self._match.criteria in ({}, {None: MemberStatus.ALIVE}):  # else it lacks some that are alive
            self.serf._rosters.add(self._roster)
        self._teller.go_on()

    def _why_stale(self) -> str:
        reason = self.serf.why_disconnected
        return f" ({reason})" if reason else ""

    def _roster(self) -> Mapping[str, Member] | None:
        return None if self.stale else self._table.by_name

    # ViewCallbacks

    def _compare(self, members: list[Member]) -> int:
        """Make the table what the agent says; the changes are told in the order of names."""
        matches = self._matches
        by_name = self._table.by_name
        now = {member.name: member for member in members if matches(member)}
        changed: list[tuple[str, Member | None]] = [(name, None) for name in by_name if name not in now]
        changed += [(name, member) for name, member in now.items() if by_name.get(name) != member]
        for name, member in sorted(changed, key=_name):
            self._set(name, member)
        return len(changed)

    def _apply(self, event: MemberEvent) -> None:
        gone = event.kind == "reap"
        for member in event.members:
            self._set(member.name, None if gone or not self._matches(member) else member)

    def _was_read(self) -> None:
        if self._askers or self._waits:
            self._teller.tell_soon()

    def _failed(self, reason: SerfError) -> None:
        self._end_all(reason)

    def _matches(self, member: Member) -> bool:
        """Whether the view is to have a member. One on which a predicate of the user's fails is left out."""
        try:
            return self._match.matches(member)
        except Exception:
            if not self._predicate_failed:  # else there might be a line for each member, at each reading
                self._predicate_failed = True
                _log.failure("a predicate of {view!r} failed on {name}", view=self, name=member.name)
            return False

    def _set(self, name: str, member: Member | None) -> None:
        table = self._table
        if member == table.by_name.get(name):
            return
        old = table.remove(name) if member is None else table.put(member)
        self._teller.note(old, member)
        if self._waits:
            self._teller.tell_soon()

    # Telling

    def _told(self) -> None:
        """Fire those who need wait no longer, behind those who were told of the changes."""
        if self._following.read_at is not None:
            while self._askers:  # one by one: each may cancel those behind it
                self._askers.popleft().callback(self)
            self._waits.check()

    def _end_all(self, reason: SerfError) -> Deferred[None]:
        """Tell those who wait, and readers of changes, that it is over; the Deferred fires then."""
        askers, self._askers = self._askers, deque()
        waits, self._waits = self._waits, Waits(self._table.select)
        feeds = [listener for listener in self._teller.listeners if listener.feed is not None]
        error = None if type(reason) is Disconnected else reason
        told: Deferred[None] = Deferred()

        def tell() -> None:
            self._teller.tell_changes()  # those that came before
            for listener in feeds:
                self._teller.listeners.pop(listener, None)
                assert listener.feed is not None
                listener.feed._end(error)
            while askers:
                askers.popleft().errback(copy.copy(reason))
            waits.fail(lambda: copy.copy(reason))
            told.callback(None)

        self.serf.clock.callLater(0, tell)  # whatever becomes of the Deferred: its caller may cancel it
        return told


def _name(changed: tuple[str, Member | None]) -> str:
    return changed[0]
