"""Tags of the agent's own node that are kept while a program runs: `Serf.advertise`."""

from __future__ import annotations

import copy
import enum
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, ClassVar

import attrs
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from txserf import commands, constant
from txserf.commands import Command
from txserf.connection.session import Session
from txserf.errors import (
    AuthenticationError,
    Disconnected,
    ProtocolError,
    RequestTimeout,
    RpcError,
    SerfError,
    encodable,
    reason_text,
)
from txserf.model import Tags
from txserf.serf.call import Call

_log = Logger(namespace="txserf.serf")


class Standing(enum.Enum):
    """The state of an `Advertisement`."""

    PENDING = "its tags are not set, or the connection was lost since"
    SET = "its tags are set"
    WITHDRAWN = "it is over"


_STANDINGS: Mapping[Standing, frozenset[Standing]] = MappingProxyType(
    {
        Standing.PENDING: frozenset({Standing.SET, Standing.WITHDRAWN}),
        Standing.SET: frozenset({Standing.PENDING, Standing.WITHDRAWN}),
        Standing.WITHDRAWN: frozenset(),
    }
)


class Advertisement:
    """
    Tags that the agent's own node has until they are withdrawn; see `Serf.advertise`.

    :ivar tags: the values by tag; they can't be changed.
    """

    def __init__(self, advertiser: Advertiser, tags: Mapping[str, str]) -> None:
        self.tags: Tags = Tags(tags)
        self._advertiser = advertiser
        self._standing = Standing.PENDING
        self._askers: list[Deferred[None]] = []

    def __repr__(self) -> str:
        return f"<Advertisement of {_names(self.tags)}: {self._standing.value}>"

    @property
    def is_set(self) -> bool:
        """Whether the agent has these tags, as far as this side knows."""
        return self._standing is Standing.SET

    def when_set(self) -> Deferred[None]:
        """
        Wait until the agent has these tags.

        :returns: a Deferred of None. It fails with `RpcError` where the agent refuses them, since the tags of a node have
            512 bytes at the most (they are tried again with the next connection all the same); with
            `AuthenticationError` where every host refused the key; with `Disconnected` once it is withdrawn, or
            the `Serf` is closed. It can be cancelled, which ends this wait only.
        """
        if self._standing is Standing.WITHDRAWN:
            return fail(_over())
        if self._standing is Standing.SET:
            return succeed(None)
        asker: Deferred[None] = Deferred(self._forget)
        self._askers.append(asker)
        return asker

    def withdraw(self) -> Deferred[None]:
        """
        Put the tags back to what they were: a tag that the node did not have is deleted.

        A tag that another advertisement has too gets the value of that one. One that somebody else has changed
        meanwhile stays as it is. It may be called more than once.

        :returns: a Deferred of None, once the agent has done it. Past the timeout of the `Serf` it fails with
            `RequestTimeout`, and the tags are put back with the next connection. It fails with `RpcError` where the agent
            refuses it, and with `Disconnected` where the `Serf` is closed and it could not be done before. It can be
            cancelled, which ends this wait only.
        """
        return self._advertiser.withdraw(self)

    def _forget(self, asker: Deferred[None]) -> None:
        if asker in self._askers:
            self._askers.remove(asker)

    def _take_askers(self) -> list[Deferred[None]]:
        askers, self._askers = self._askers, []
        return askers

    # Told by the advertiser

    def _move(self, standing: Standing) -> None:
        assert standing in _STANDINGS[self._standing], f"from {self._standing} to {standing}"
        self._standing = standing

    def _now_set(self) -> None:
        if self._standing is Standing.PENDING:
            self._move(Standing.SET)
            _fire(self._take_askers(), None)

    def _interrupted(self) -> None:
        if self._standing is Standing.SET:
            self._move(Standing.PENDING)

    def _failed(self, error: SerfError) -> None:
        _fire(self._take_askers(), error)

    def _end(self) -> list[Deferred[None]]:
        """End it; return those that wait for it to be set, who are to be told."""
        self._move(Standing.WITHDRAWN)
        return self._take_askers()


def _fire(askers: Iterable[Deferred[None]], error: SerfError | None) -> None:
    for asker in askers:
        if not asker.called:  # else it was cancelled meanwhile
            if error is None:
                asker.callback(None)
            else:
                asker.errback(copy.copy(error))


def _over() -> Disconnected:
    return Disconnected("the advertisement was withdrawn")


def _names(tags: Iterable[str]) -> str:
    return encodable(", ".join(sorted(tags))) or "no tags"


@attrs.define
class _Held:
    """
    A tag of a node that has a value of ours.

    :ivar before: its value without us; None where it was not there.
    :ivar ours: the value that it has by us; several while it is not known which of them has got through.
    """

    before: str | None
    ours: set[str] = attrs.field(factory=set)


class NodeTags:
    """
    The tags of one node that have values of ours.

    :ivar held: what is known of each, by tag.
    """

    def __init__(self) -> None:
        self.held: dict[str, _Held] = {}

    def change(
        self, current: Mapping[str, str], wanted: Mapping[str, str], leave: Iterable[str]
    ) -> dict[str, str | None]:
        """
        Return what has to be changed, and take it that the node may have it from now on.

        :param current: all tags that the node has.
        :param wanted: the values that it should have by us.
        :param leave: further tags that are not put back.
        :returns: values by tag; None to delete it.
        """
        for tag, held in list(self.held.items()):
            if current.get(tag) not in held.ours:
                del self.held[tag]  # the agent was started again, or somebody else has changed it
        change: dict[str, str | None] = {}
        for tag, value in wanted.items():
            self.held.setdefault(tag, _Held(current.get(tag))).ours.add(value)
            if current.get(tag) != value:
                change[tag] = value
        for tag in self.held.keys() - wanted.keys() - set(leave):
            before = self.held[tag].before
            if current.get(tag) != before:
                change[tag] = before
            else:
                del self.held[tag]
        return change

    def changed(self, change: Mapping[str, str | None], wanted: Mapping[str, str]) -> None:
        """Take it that the node has had that change."""
        for tag in change:
            if tag in wanted:
                self.held[tag].ours = {wanted[tag]}
            else:
                del self.held[tag]


class Comparison(enum.Enum):
    """The state of an `Advertiser`."""

    RESTING = "the tags are as they should be, or wait for a connection"
    COMPARING = "the tags are being compared and set"
    OUTDATED = "the same, and it has to be done once more"


class Advertiser:
    """
    Keeps the tags of all advertisements of one `Serf` on the node of its agent.

    It compares them with those that the agent has each time that there is a connection, and after each advertisement
    or withdrawal, and sets what differs.

    :param timeout: seconds that a withdrawal, and the end, may take.
    """

    _MOVES: ClassVar[Mapping[Comparison, frozenset[Comparison]]] = MappingProxyType(
        {
            Comparison.RESTING: frozenset({Comparison.COMPARING}),
            Comparison.COMPARING: frozenset({Comparison.OUTDATED, Comparison.RESTING}),
            Comparison.OUTDATED: frozenset({Comparison.COMPARING, Comparison.RESTING}),
        }
    )

    def __init__(self, session: Session, timeout: float) -> None:
        self._session = session
        self._timeout = timeout
        self._comparison = Comparison.RESTING
        self._call: Call | None = None  # the request that the work waits for
        self._advertisements: list[Advertisement] = []  # of two values of a tag the later one counts
        self._nodes: dict[str, NodeTags] = {}  # those that have tags of ours, by name
        self._withdrawals: list[Deferred[None]] = []
        self._closers: list[Deferred[None]] = []
        session.observers.append(self)

    def add(self, tags: Mapping[str, str]) -> Advertisement:
        """Begin to keep *tags*."""
        advertisement = Advertisement(self, tags)
        self._advertisements.append(advertisement)
        self._session.connect()
        self._compare()
        return advertisement

    def withdraw(self, advertisement: Advertisement) -> Deferred[None]:
        """End an advertisement; see `Advertisement.withdraw`."""
        if advertisement in self._advertisements:
            self._advertisements.remove(advertisement)
            self._tell_soon(advertisement._end(), _over())
        if not any(tag in node.held for node in self._nodes.values() for tag in advertisement.tags):
            return succeed(None)
        if not self._session.factory.phase.goes_on:
            return fail(
                Disconnected(f"{_names(advertisement.tags)} could not be put back: there is no connection")
            )
        waiting: Deferred[None] = Deferred(self._forget_withdrawal)
        self._withdrawals.append(waiting)
        due = self._session.deadlines.add(self._timeout, lambda: self._withdrawal_expired(waiting))

        def done(result: Any) -> Any:
            self._session.deadlines.forget(due)
            return result

        waiting.addBoth(done)
        self._compare()
        return waiting

    def _forget_withdrawal(self, waiting: Deferred[None]) -> None:
        if waiting in self._withdrawals:
            self._withdrawals.remove(waiting)

    def _withdrawal_expired(self, waiting: Deferred[None]) -> None:
        self._forget_withdrawal(waiting)
        told = f"the tags were not put back within {self._timeout} s{self._session.why_waiting()}"
        waiting.errback(RequestTimeout(told))

    # The end

    def close(self) -> Deferred[None] | None:
        """
        Withdraw all advertisements.

        :returns: a Deferred of None, once the tags are put back, the connection is lost, or the time is up; None where
            there is nothing to wait for.
        """
        ended, self._advertisements = self._advertisements, []
        for advertisement in ended:
            self._tell_soon(advertisement._end(), Disconnected("this Serf is closed"))
        if self._session.open_connection is None or not self._nodes:
            self._stop()
            self._finish()
            return None
        closer: Deferred[None] = Deferred(lambda _: self.hurry())
        if not self._closers:
            limit = min(self._timeout, constant.SERF_TIMEOUT)
            due = self._session.deadlines.add(limit, self.hurry)
            closer.addBoth(lambda _: self._session.deadlines.forget(due))
        self._closers.append(closer)
        self._compare()
        return closer

    def hurry(self) -> None:
        """Wait no longer for the end that `close` began, if it did."""
        if self._closers:
            self._stop()
            self._finish()

    def _stop(self) -> None:
        if self._call is not None:
            self._call.result.cancel()

    def _finish(self) -> None:
        for name, node in self._nodes.items():
            _log.warn(
                "the tags {tags} of {node} are not put back",
                tags=_names(node.held),
                node=encodable(name),
            )
        withdrawals, self._withdrawals = self._withdrawals, []
        self._tell_soon(withdrawals, Disconnected("this Serf is closed"))
        closers, self._closers = self._closers, []
        _fire(closers, None)

    def _tell_soon(self, askers: list[Deferred[None]], error: SerfError) -> None:
        # In a turn of its own: nobody's errback is called inside the caller's stack.
        if askers:
            self._session.clock.callLater(0, _fire, askers, error)

    # SessionObserver

    def connected(self) -> None:
        if self._advertisements or self._nodes:
            self._compare()

    def lost(self) -> None:
        for advertisement in self._advertisements:
            advertisement._interrupted()
        self._stop()
        if self._closers:
            self._finish()

    def gave_up(self, reason: SerfError) -> None:
        for advertisement in list(self._advertisements):
            advertisement._failed(reason)

    # How it works

    def _move(self, comparison: Comparison) -> None:
        assert comparison in self._MOVES[self._comparison], f"from {self._comparison} to {comparison}"
        self._comparison = comparison

    def _compare(self) -> None:
        """Compare the tags with those of the agent: now, after the comparison under way, or with the next connection."""
        if self._comparison is Comparison.COMPARING:
            self._move(Comparison.OUTDATED)
        elif self._comparison is Comparison.RESTING and self._session.open_connection is not None:
            self._move(Comparison.COMPARING)
            Deferred.fromCoroutine(self._compare_all()).addErrback(_unexpected)

    async def _compare_all(self) -> None:
        try:
            await self._compare_once()
            while self._comparison is Comparison.OUTDATED and self._session.open_connection is not None:
                self._move(Comparison.COMPARING)
                await self._compare_once()
        finally:
            self._move(Comparison.RESTING)
        if self._closers:
            self._finish()

    async def _compare_once(self) -> None:
        advertisements, withdrawals = list(self._advertisements), list(self._withdrawals)
        try:
            await self._set_all(advertisements)
        except (Disconnected, AuthenticationError):
            return  # with the next connection they are compared again
        except SerfError as error:
            _log.warn(
                "the tags of the agent's node could not be put right: {reason}; tried again with the next connection",
                reason=reason_text(error),
            )
            if isinstance(error, RpcError):
                self._tell_withdrawals(withdrawals, error)
            return
        self._tell_withdrawals(withdrawals, None)

    def _tell_withdrawals(self, withdrawals: list[Deferred[None]], error: SerfError | None) -> None:
        told = [waiting for waiting in withdrawals if waiting in self._withdrawals]
        self._withdrawals = [waiting for waiting in self._withdrawals if waiting not in told]
        _fire(told, error)

    async def _set_all(self, advertisements: list[Advertisement]) -> None:
        """Set the tags of all; where the agent refuses that, of each that it does not refuse."""
        try:
            await self._set(advertisements, advertisements)
        except RpcError:
            if not advertisements:
                raise
        else:
            for advertisement in advertisements:
                advertisement._now_set()
            return
        await self._set([], advertisements)  # puts back those of advertisements that are over
        good = [advertisement for advertisement in advertisements if advertisement.is_set]
        for advertisement in advertisements:
            if advertisement not in good:
                chosen = [other for other in advertisements if other in good or other is advertisement]
                try:
                    await self._set(chosen, advertisements)
                except RpcError as error:
                    self._refused(advertisement, error)
                else:
                    good.append(advertisement)
                    advertisement._now_set()

    def _refused(self, advertisement: Advertisement, error: RpcError) -> None:
        _log.warn(
            "the agent refuses the advertised tags {tags}: {reason}; tried again with the next connection",
            tags=_names(advertisement.tags),
            reason=reason_text(error),
        )
        advertisement._failed(error)

    async def _set(self, chosen: list[Advertisement], all_of_them: list[Advertisement]) -> None:
        """
        Give the agent's node the tags of *chosen*, and put back those that are of no advertisement any more.

        :raises RpcError: where the agent refuses that; then nothing is changed.
        """
        name, current = await self._own_tags()
        wanted, leave = _merged(chosen), _merged(all_of_them)
        if self._nodes and name not in self._nodes:
            _log.warn(
                "the agent's node is {node} now; the advertised tags stay on {others} as long as their agents run",
                node=encodable(name),
                others=_names(self._nodes),
            )
        node = self._nodes.setdefault(name, NodeTags())
        try:
            change = node.change(current, wanted, leave)
            if change:
                await self._send(name, change)
                node.changed(change, wanted)
        finally:
            if not node.held:
                del self._nodes[name]

    async def _send(self, name: str, change: Mapping[str, str | None]) -> None:
        tags = {tag: value for tag, value in change.items() if value is not None}
        try:
            await self._ask(commands.TAGS, tags=tags, delete=[tag for tag in change if tag not in tags])
        except RpcError:
            # An agent says so too where it has set them, and could not broadcast that in time.
            again, current = await self._own_tags()
            if again != name or any(current.get(tag) != value for tag, value in change.items()):
                raise

    async def _own_tags(self) -> tuple[str, dict[str, str]]:
        """Return the name and the tags of the agent's node."""
        stats = await self._ask(commands.STATS)
        name = stats.get("agent", {}).get("name")
        if name is None:
            raise ProtocolError("stats: the agent did not say its node's name")
        return name, stats.get("tags", {})

    async def _ask(self, command: Command, **given: Any) -> Any:
        # A loss cancels it (`lost`), so that none is sent again to an agent of another node.
        values = command.typed_arguments(given)
        call = self._call = Call(self._session, command, values, constant.SERF_TIMEOUT)
        self._session.submit_one(call)
        try:
            return await call.result
        finally:
            self._call = None


def _merged(advertisements: Iterable[Advertisement]) -> dict[str, str]:
    tags: dict[str, str] = {}
    for advertisement in advertisements:
        if advertisement._standing is not Standing.WITHDRAWN:
            tags.update(advertisement.tags)
    return tags


def _unexpected(failure: Failure) -> None:
    if not failure.check(CancelledError):  # the work was stopped
        _log.failure("advertised tags can't be kept", failure=failure)
