"""A query of the typed API: the members are asked, and their answers collected."""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Callable, Generator, Mapping
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.logger import Logger

from txserf import commands
from txserf.connection.operation import Operation
from txserf.connection.session import Session
from txserf.errors import ConnectionLost, ProtocolError, RequestTimeout, SerfError
from txserf.model import Ack, Answer, QueryResult
from txserf.serf.feed import Feed

_log = Logger(namespace="txserf.serf")


class Asking(Operation):
    """
    A query on the wire, with the acks and answers that have come.

    :param expect: it ends with that many answers; None: with the agent's ``done``.
    :param patience: seconds for the agent's reply, and then for ``done`` behind *timeout*.
    :param timeout: seconds that the agents wait for answers; None: their own, and
        ``done`` may come however late.
    :param deliver: called with each `Ack` and `Answer`, of each node the first one.
    :param unreadable: called with the reason for each record that can't be decoded.
    :param over: called once, with the `QueryResult` or with the error that ended it.
    :ivar acks: the nodes that have acknowledged it, in order.
    :ivar responses: the answers by node, in order.
    """

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

    def abandon(self) -> None:
        """Forget it: records that still come are dropped, and *over* is not called."""
        self._session.abandon(self)

    def result(self, complete: bool) -> QueryResult:
        """Return the acks and answers so far."""
        return QueryResult(list(self.acks), dict(self.responses), complete)

    def replied(self, error: str, body: Mapping[str, Any] | None) -> None:
        if self.done:
            return
        if error:
            self._session.settle(self)
            self._over(self.command.refusal(error))
            return
        self._session.deadlines.forget(self)
        if self._timeout is not None:  # ``done`` is due then
            self._session.deadlines.watch(self._timeout + self._patience, self)

    def record(self, body: Mapping[str, Any]) -> None:
        if self.done:
            return
        if self.last:
            self._session.settle(self)
            self._over(self.result(complete=True))
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
            self._deliver(record)
            if self._expect is not None and len(self.responses) >= self._expect and not self.done:
                self.abandon()
                self._over(self.result(complete=True))

    def lost(self, reason: SerfError) -> None:
        if isinstance(reason, ConnectionLost):
            reason.result = self.result(complete=False)
        self._over(reason)

    def expired(self) -> None:
        self.abandon()
        name, why = self.values["Name"], self._session.why_waiting()
        self._over(RequestTimeout(f"query {name!r}: no answer from the agent in time{why}"))


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
    ) -> None:
        super().__init__(None)
        self.name: str = values["Name"]
        self._result: QueryResult | None = None
        self._askers: deque[Deferred[QueryResult]] = deque()
        self._asking = Asking(
            session, values, expect, patience, timeout, self._deliver, self._leave_out, self._over
        )
        session.submit_one(self._asking)

    def __repr__(self) -> str:
        asking = self._asking
        return f"<Query: {self.name!r}, {len(asking.acks)} acks, {len(asking.responses)} responses>"

    def when_done(self) -> Deferred[QueryResult]:
        """
        Wait for its end; awaiting the query is the same.

        :returns: a Deferred of the `QueryResult`. It fails with `QueryError` where the agent refused
            the query, with `ConnectionLost` (its ``result`` has the answers so far), `Disconnected`,
            `RequestTimeout`, or ``CancelledError`` after `cancel`. Cancelling this Deferred
            only stops the waiting.
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
