"""`Query`: asking the members, and collecting what they answer."""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Generator, Mapping
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, fail, succeed

from txserf import commands
from txserf.connection.operation import Operation
from txserf.connection.session import Session
from txserf.errors import ConnectionLost, ProtocolError, RequestTimeout, SerfError
from txserf.model import Ack, Answer, QueryResult
from txserf.serf.feed import Feed


class _Asking(Operation):
    """The ``query`` on the wire."""

    def __init__(self, session: Session, values: Mapping[str, Any], query: Query) -> None:
        super().__init__(commands.QUERY, values)
        self.session = session
        self._query = query

    def replied(self, error: str, body: Mapping[str, Any] | None) -> None:
        if self.done:
            return
        if error:
            self.session.settle(self)
            self._query._failed(self.command.refusal(error))
        else:
            self._query._asked()

    def record(self, body: Mapping[str, Any]) -> None:
        if self.done:
            return
        if self.last:
            self.session.settle(self)
            self._query._succeeded()
        else:
            try:
                record = self.command.decode_record(body)
            except ProtocolError as broken:
                # As with a reply that has not its shape: it ends this one, and not the connection.
                self.session.abandon(self)
                self._query._failed(ProtocolError(f"{self.command.wire}: {broken}"))
                return
            if record is not None:
                self._query._received(record)

    def lost(self, reason: SerfError) -> None:
        self._query._failed(reason)

    def expired(self) -> None:
        self._query._expired()


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
        self._expect = expect
        self._patience = patience
        self._timeout = timeout
        self._acks: dict[str, None] = {}
        self._responses: dict[str, bytes] = {}
        self._result: QueryResult | None = None
        self._askers: deque[Deferred[QueryResult]] = deque()
        self._asking = _Asking(session, values, self)
        session.deadlines.watch(patience, self._asking)
        session.submit_one(self._asking)

    def __repr__(self) -> str:
        return f"<Query: {self.name!r}, {len(self._acks)} acks, {len(self._responses)} responses>"

    def when_done(self) -> Deferred[QueryResult]:
        """
        Wait for the end of it; awaiting the query is the same.

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
            self._asking.session.abandon(self._asking)
            self._failed(CancelledError("the query was cancelled"))

    # What the operation tells

    def _asked(self) -> None:
        session, asking = self._asking.session, self._asking
        session.deadlines.forget(asking)
        if self._timeout is not None:  # ``done`` is due then
            session.deadlines.watch(self._timeout + self._patience, asking)

    def _received(self, record: Ack | Answer) -> None:
        if isinstance(record, Ack):
            if record.node in self._acks:
                return
            self._acks[record.node] = None
        else:
            if record.node in self._responses:
                return
            self._responses[record.node] = record.payload
        self._deliver(record)
        enough = self._expect is not None and len(self._responses) >= self._expect
        if enough and not self._asking.done:
            self._asking.session.abandon(self._asking)
            self._succeeded()

    def _succeeded(self) -> None:
        self._result = self._so_far(complete=True)
        self._end(None)
        self._tell()

    def _failed(self, reason: BaseException) -> None:
        if isinstance(reason, ConnectionLost):
            reason.result = self._so_far(complete=False)
        if not self._askers and not self._readers and not isinstance(reason, CancelledError):
            self._log.warn("{query!r} failed: {reason}", query=self, reason=str(reason))
        self._end(reason)
        while self._askers:
            self._askers.popleft().errback(copy.copy(reason))

    def _tell(self) -> None:
        assert self._result is not None
        while self._askers:  # one by one: each may cancel those behind it
            self._askers.popleft().callback(self._result)

    def _so_far(self, complete: bool) -> QueryResult:
        return QueryResult(list(self._acks), dict(self._responses), complete)

    def _expired(self) -> None:
        session = self._asking.session
        session.abandon(self._asking)
        self._failed(
            RequestTimeout(f"query {self.name!r}: no answer from the agent in time{session.why_waiting()}")
        )

    def _stop_asked(self) -> None:
        if not self._asking.done:
            self._asking.session.abandon(self._asking)
            self._result = self._so_far(complete=False)
            self._end(None, discard=True)
            self._tell()
