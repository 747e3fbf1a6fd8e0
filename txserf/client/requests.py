"""`Request`, `Response` and `Responses`: the values of the fluent API, and the command behind them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol, TypeAlias

from twisted.internet.defer import Deferred

from txserf import commands
from txserf.callbacks import Callback, Chain
from txserf.commands import Command
from txserf.connection.operation import Operation
from txserf.connection.session import Session
from txserf.errors import RequestTimeout, RpcError, SerfError


class Collector(Protocol):
    """Collects the replies and records of the commands of one ``request()``."""

    def replied(self, queued: QueuedCommand, error: str, body: Mapping[str, Any] | None) -> None:
        """Take a command's reply."""

    def record(self, queued: QueuedCommand, body: Mapping[str, Any]) -> None:
        """Take a record of a streaming command."""

    def records(self, queued: QueuedCommand, bodies: Iterable[Mapping[str, Any]]) -> None:
        """Take records of a stream that came one behind the other."""

    def complete(self, queued: QueuedCommand) -> None:
        """Take the end of a stream."""

    def fail(self, reason: SerfError) -> None:
        """Fail the ``request()`` with *reason*."""


class UnderWay:
    """
    Counts the ``request()`` of a client that are under way.

    :ivar session: sends their commands.
    :ivar count: their number. Code that lowers it calls `lowered` once the Deferred has fired.
    :ivar askers: the Deferreds that `drained` returned and that have not fired.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self.count = 0
        self.askers: list[Deferred[None]] = []

    def lowered(self) -> None:
        """Take note that one of them is over, and its Deferred has fired."""
        if not self.count:
            askers, self.askers = self.askers, []
            for asker in askers:
                asker.callback(None)

    def drained(self) -> Deferred[None]:
        """Return a Deferred that fires once none is under way."""
        drained: Deferred[None] = Deferred()
        if self.count:
            self.askers.append(drained)
        else:
            drained.callback(None)
        return drained


# The arguments of _request(): the wire name of a command, its arguments as they may be shown, its Seq.
_Sent: TypeAlias = "tuple[str, Mapping[str, Any], int | None]"


class Request:
    """
    A command as it was sent: its name, its Seq and its arguments.

    :ivar command: its row of the table; ``request.command.wire`` is its name.
    :ivar seq: its Seq.
    :ivar values: its arguments by Serf's own names, the defaults filled in; a key is ``'***'``.
    """

    def __init__(self, command: Command, values: Mapping[str, Any], seq: int | None = None) -> None:
        self.command = command
        self.seq = seq
        self.values: Mapping[str, Any] = command.shown(values) if command.has_secret else values

    def __reduce__(self) -> tuple[Any, ...]:
        # A row of the table holds functions: it is pickled by its name.
        return _request, (self.command.wire, self.values, self.seq)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.command.wire}, {self.seq}, {dict(self.values)}>"


class Response:
    """
    A reply, or a record of a stream.

    :ivar error: the agent's error; empty for none.
    :ivar body: the body behind the header, as the agent sent it: a dict with str keys, or
        None. Text that is not UTF-8 is decoded by surrogateescape, binary is bytes.
    """

    __slots__ = ("_header", "_request", "body", "error")

    def __init__(self, request: Request | _Sent, error: str, body: Mapping[str, Any] | None) -> None:
        self._request = request
        self.error: str = error
        self.body: Any = body
        self._header: dict[str, Any] | None = None

    @property
    def request(self) -> Request:
        """The `Request` that it answers."""
        request = self._request
        if isinstance(
            request, tuple
        ):  # few ask for it, and making one costs 0.3 us of the 9 that a command takes
            request = self._request = _request(*request)
        return request

    @property
    def header(self) -> dict[str, Any]:
        """The header of the reply: ``{"Seq": int, "Error": str}``."""
        if self._header is None:  # few ask for it
            self._header = {"Seq": self.request.seq, "Error": self.error}
        return self._header

    @property
    def seq(self) -> int:
        """The Seq of the request."""
        seq = self.request.seq
        assert seq is not None
        return seq

    @property
    def is_success(self) -> bool:
        """Whether it worked: no error, and for ``join`` at least one address joined."""
        if self.error:
            return False
        succeeded = self.request.command.succeeded
        return succeeded is None or (self.body is not None and succeeded(self.body))

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.request!r}, {self.header}>"


class ResponseStreamResult(Response):
    """A record of a stream, a monitor or a query."""

    __slots__ = ()

    @property
    def is_success(self) -> bool:
        return True


class Responses(list[Response]):
    """The responses of a ``request()``, in order of Seq."""

    __slots__ = ()

    @property
    def is_success(self) -> bool:
        """Whether all of them are a success."""
        return all(response.is_success for response in self)


class QueuedCommand(Operation):
    """
    A command of a `Client`, from the call that queued it to its last answer.

    Users get a `Request` in its place, which holds values only: a reply that is kept keeps no connection.
    """

    callbacks: list[Callback[Response]] | None = None

    # Set if others are requested with it, or it has callbacks or records: collects its replies and records.
    batch: Collector | None = None
    chain: Chain[Response] | None = None
    responses: list[Response]
    opened = False  # a streaming command's reply has come
    _request: Request | None = None

    # Set if it is alone, as most commands are: it then does the work of a batch itself, which saves 2 us of 9.
    _result: Deferred[Responses] | None = None

    def answer(self, kind: type[Response], error: str, body: Mapping[str, Any] | None) -> Response:
        """Return a reply, or a record, as users get it; all of one command have the same request."""
        return kind(self.request(), error, body)

    def request(self) -> Request:
        """Return the `Request` of its replies and records."""
        request = self._request
        if request is None:
            command = self.command
            request = self._request = REQUESTS[command.wire](command, self.values, self.seq)
        return request

    def alone(self, timeout: float | None, under_way: UnderWay) -> Deferred[Responses]:
        """
        Send it, as the only command of a ``request()``, one without callbacks and records.

        :returns: the Deferred of that ``request()``.
        """
        result: Deferred[Responses] = Deferred(self)
        self._result = result
        self._timeout = timeout
        self._under_way = under_way
        under_way.count += 1
        session = under_way.session
        if timeout is not None:
            session.deadlines.watch(timeout, self)
        session.submit_one(self)
        return result

    def replied(self, error: str, body: Mapping[str, Any] | None) -> None:
        result = self._result
        if result is None:
            assert self.batch is not None
            self.batch.replied(self, error, body)
            return
        # The lines of _end(), without the call.
        self._result = None
        self.done: bool = True
        under_way = self._under_way
        under_way.count -= 1
        under_way.session.deadlines.forget(self)
        responses = Responses()
        command = self.command
        values = command.shown(self.values) if command.has_secret else self.values
        wire = command.wire
        responses.append(RESPONSES[wire]((wire, values, self.seq), error, body))
        result.callback(responses)
        if under_way.askers:
            under_way.lowered()

    def record(self, body: Mapping[str, Any]) -> None:
        if self.batch is not None and not self.done:
            self.batch.record(self, body)

    def records(self, bodies: Iterable[Mapping[str, Any]]) -> None:
        if self.batch is not None and not self.done:
            self.batch.records(self, bodies)

    def stopped(self) -> None:
        if self.batch is not None and not self.done:
            self.batch.complete(self)

    def lost(self, reason: SerfError) -> None:
        if self.batch is not None:
            self.batch.fail(reason)
        else:
            self._fail(reason)

    def expired(self) -> None:
        session = self._under_way.session
        reason = too_late([self], self._timeout, session, Responses())
        session.abandon(self)
        self._fail(reason)

    def refused(self, error: RpcError) -> None:
        # It may be one command of several: this one gets an error, and the others get their answers.
        self.replied(error.message, None)

    def _end(self) -> Deferred[Responses]:
        result = self._result
        assert result is not None
        self._result = None  # a cycle for the garbage collector costs 2 us a call
        self.done = True
        self._under_way.count -= 1
        self._under_way.session.deadlines.forget(self)
        return result

    def _fail(self, reason: SerfError) -> None:
        self._end().errback(reason)
        self._under_way.lowered()

    def __call__(self, _: Deferred[Responses]) -> None:
        """Take that *result* is cancelled. A bound method would be one more object for each call to the garbage collector."""
        if self._result is not None:  # else a callback of the Deferred has cancelled it
            self._under_way.session.abandon(self)
            self._end()
            self._under_way.lowered()


def too_late(
    late: list[QueuedCommand], timeout: float | None, session: Session, responses: Responses
) -> RequestTimeout:
    """Return the error for commands that were not answered in time."""
    names = ", ".join(request.command.wire for request in late if not request.done)
    what = f"no answer to {names}"
    if not names:
        what = "not done with the callbacks of " + ", ".join(request.command.wire for request in late)
    return RequestTimeout(f"{what} within {timeout} s{session.why_waiting()}", responses=tuple(responses))


def _camel(wire: str) -> str:
    return "".join(part.capitalize() for part in wire.split("-"))


def _class(base: type, row: Command) -> Any:
    name = f"{base.__name__}{_camel(row.wire)}"
    doc = f"The {base.__name__.lower()} of ``{row.wire}``."
    return type(name, (base,), {"__slots__": (), "__doc__": doc, "__module__": __name__})


#: A class for each row of the table, called after its wire name; a repr shows it.
RESPONSES: dict[str, type[Response]] = {row.wire: _class(Response, row) for row in commands.TABLE}
REQUESTS: dict[str, type[Request]] = {row.wire: _class(Request, row) for row in commands.TABLE}
for _row in commands.TABLE:
    for _kind in (REQUESTS[_row.wire], RESPONSES[_row.wire]):
        globals()[_kind.__name__] = _kind  # pickle looks here


def _request(wire: str, values: Mapping[str, Any], seq: int | None) -> Request:
    return REQUESTS[wire](commands.BY_WIRE[wire], values, seq)
