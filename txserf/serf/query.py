"""A query of the typed API: the members are asked, and their answers collected."""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, FirstError, fail, gatherResults, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from txserf import commands
from txserf.connection.operation import Operation
from txserf.connection.session import Session
from txserf.errors import ConnectionLost, ProtocolError, RequestTimeout, SerfError
from txserf.model import Ack, Answer, Member, QueryResult
from txserf.serf.call import Call
from txserf.serf.feed import Feed
from txserf.serf.recipients import Recipients, recipients

_log = Logger(namespace="txserf.serf")


class Asking(Operation):
    """
    A query on the wire, with the acks and answers that have come.

    :param expect: it ends with that many answers; None: with the agent's ``done``, or as `wait_for_all` says.
    :param patience: seconds for the agent's reply, and then for ``done`` behind *timeout*.
    :param timeout: seconds that the agents wait for answers; None: their own, and
        ``done`` may come however late.
    :param deliver: called with each `Ack` and `Answer`, of each node the first one.
    :param unreadable: called with the reason for each record that can't be decoded.
    :param over: called once, with the `QueryResult` or with the error that ended it.
    :ivar acks: the nodes that have acknowledged it, in order.
    :ivar responses: the answers by node, in order.
    """

    # Most queries need none of these: a Deferred that has fired already would cost each of them 8 us of 38.
    _known: Deferred[Any] | None = None  # fires once the two below are known
    _awaited: set[str] | None = None  # the members that have still to answer; None: anybody may
    _absent: frozenset[str] = frozenset()  # the nodes that it names and does not wait for

    def __init__(
        self,
        session: Session,
        values: Mapping[str, Any],
        expect: int | None,
        patience: float,
        timeout: float | None,
        deliver: Callable[[Ack | Answer], None],
        unreadable: Callable[[ProtocolError], None],
        over: Callable[[QueryResult | BaseException], None],
    ) -> None:
        super().__init__(commands.QUERY, values)
        self.acks: dict[str, None] = {}
        self.responses: dict[str, bytes] = {}
        self._session = session
        self._expect = expect
        self._patience = patience
        self._timeout = timeout
        self._deliver = deliver
        self._unreadable = unreadable
        self._over = over
        session.deadlines.watch(patience, self)

    def wait_for_all(self, asked: Deferred[Recipients]) -> None:
        """
        End with the last answer of its recipients that are alive.

        :param asked: fires with the recipients. If it fails, the query ends with that error. It is cancelled where
            the query ends before.
        """
        self._known = asked.addCallbacks(self._wait_for, self._not_known)

    def abandon(self) -> None:
        """Forget it: records that still come are dropped, and *over* is not called."""
        self._session.abandon(self)
        self._stop_reading()

    def result(self, complete: bool) -> QueryResult:
        """
        Return the acks and answers so far.

        :param complete: whether no more will come; if nodes are missing, the result is not complete all the same.
        """
        if self._awaited is None:
            return QueryResult(list(self.acks), dict(self.responses), complete)
        missing = sorted(self._awaited | (self._absent - self.responses.keys()))
        return QueryResult(list(self.acks), dict(self.responses), complete and not missing, missing)

    def replied(self, error: str, body: Mapping[str, Any] | None) -> None:
        if self.done:
            return
        if error:
            self.abandon()
            self._over(self.command.refusal(error))
            return
        self._session.deadlines.forget(self)
        if self._timeout is not None:  # ``done`` is due then
            self._session.deadlines.watch(self._timeout + self._patience, self)
        if self._known is not None:
            self._known.addCallback(self._end_if_enough)  # maybe there is nobody to wait for

    def record(self, body: Mapping[str, Any]) -> None:
        if self.done:
            return
        if self.last:
            if self._known is None:
                self._end()
            else:
                self._session.deadlines.forget(self)
                self._known.addCallback(self._end)
            return
        try:
            record: Ack | Answer = self.command.decode_record(body)
        except ProtocolError as broken:
            self._unreadable(broken)
            return
        if isinstance(record, Ack):
            if record.node not in self.acks:
                self.acks[record.node] = None
                self._deliver(record)
        elif record.node not in self.responses:
            self.responses[record.node] = record.payload
            if self._awaited is not None:
                self._awaited.discard(record.node)
            self._deliver(record)
            self._end_if_enough()

    def lost(self, reason: SerfError) -> None:
        self._stop_reading()
        if isinstance(reason, ConnectionLost):
            reason.result = self.result(complete=False)
        self._over(reason)

    def expired(self) -> None:
        self.abandon()
        name, why = self.values["Name"], self._session.why_waiting()
        self._over(RequestTimeout(f"query {name!r}: no answer from the agent in time{why}"))

    # The end of it

    def _end_if_enough(self, _: object = None) -> None:
        if self._expect is not None:
            enough = len(self.responses) >= self._expect
        else:
            enough = self._awaited is not None and not self._awaited
        if enough:
            self._end()

    def _end(self, _: object = None) -> None:
        if self.done:
            return
        if self.last:  # nothing comes any more that would have to be dropped
            self._session.settle(self)
        else:
            self.abandon()
        self._over(self.result(complete=True))

    def _stop_reading(self) -> None:
        if self._known is not None:
            self._known.cancel()

    def _wait_for(self, asked: Recipients) -> None:
        self._absent = asked.absent
        self._awaited = set(asked.alive) - self.responses.keys()

    def _not_known(self, failure: Failure) -> None:
        if not self.done:
            self.abandon()
            assert failure.value is not None
            self._over(failure.value)


def _first(failure: Failure) -> Failure:
    """Return the failure of one of several calls."""
    error = failure.value
    return error.subFailure if isinstance(error, FirstError) else failure


class Query(Feed["Ack | Answer"]):
    """
    A query that was sent; see `Serf.query`.

    Await it for its `QueryResult`, iterate it with ``async for``, give it callbacks.
    """

    def __init__(
        self,
        session: Session,
        values: Mapping[str, Any],
        expect: int | None,
        patience: float,
        timeout: float | None,
        reads: Sequence[Mapping[str, Any]] = (),
        known: Recipients | None = None,
    ) -> None:
        super().__init__(None)
        self.name: str = values["Name"]
        self._result: QueryResult | None = None
        self._askers: deque[Deferred[QueryResult]] = deque()
        self._asking = Asking(
            session, values, expect, patience, timeout, self._deliver, self._leave_out, self._over
        )
        # With `member_filters` to read, or the recipients that a view knows, it ends with the last answer of all.
        if not reads:
            if known is not None:
                self._asking.wait_for_all(succeed(known))
            session.submit_one(self._asking)
            return
        # In one write, the query behind them: they are the members at the time when the agent sends it.
        calls = [Call(session, commands.MEMBERS_FILTERED, read, patience) for read in reads]

        def listed(found: list[list[Member]]) -> Recipients:
            return recipients(values, found)

        found = gatherResults([call.result for call in calls], consumeErrors=True)
        self._asking.wait_for_all(found.addCallbacks(listed, _first))
        session.submit([*calls, self._asking])

    def __repr__(self) -> str:
        asking = self._asking
        return f"<Query: {self.name!r}, {len(asking.acks)} acks, {len(asking.responses)} responses>"

    def when_done(self) -> Deferred[QueryResult]:
        """
        Wait for its end; awaiting the query is the same.

        :returns: a Deferred of the `QueryResult`. It fails with `QueryError` where the agent refused
            the query, with `ConnectionLost` (its ``result`` has the answers so far), `Disconnected`,
            `RequestTimeout`, or ``CancelledError`` after `cancel`; with ``expect="all"`` also with the `RpcError` of an
            agent that does not list the members. Cancelling this Deferred only stops the waiting.
        """
        if self._result is not None:
            return succeed(self._result)
        if self._error is not None:
            return fail(copy.copy(self._error))
        asker: Deferred[QueryResult] = Deferred(self._askers.remove)
        self._askers.append(asker)
        return asker

    def __await__(self) -> Generator[Any, None, QueryResult]:
        return self.when_done().__await__()

    def cancel(self) -> None:
        """Wait for no more answers; the members were asked all the same, for a query can't be called back."""
        if not self._asking.done:
            self._asking.abandon()
            self._over(CancelledError("the query was cancelled"))

    # The end of it

    def _over(self, outcome: QueryResult | BaseException) -> None:
        if isinstance(outcome, QueryResult):
            self._result = outcome
            self._end(None)
            while self._askers:  # one by one: each may cancel those behind it
                self._askers.popleft().callback(outcome)
            return
        if not self._askers and not self._readers and not isinstance(outcome, CancelledError):
            _log.warn("{query!r} failed: {reason}", query=self, reason=str(outcome))
        self._end(outcome)
        while self._askers:
            self._askers.popleft().errback(copy.copy(outcome))

    def _stop_asked(self) -> None:
        if not self._asking.done:
            self._asking.abandon()
            self._end(None, discard=True)
            self._over(self._asking.result(complete=False))
