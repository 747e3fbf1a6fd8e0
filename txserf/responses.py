"""What the fluent API shows of a command: `Request`, `Response`, `Responses`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from txserf import commands
from txserf.chain import Callback, Chain
from txserf.commands import Command
from txserf.errors import RpcError, SerfError
from txserf.operations import Operation


class Collector(Protocol):
    """Who collects what comes for the requests of one ``request()``."""

    def replied(self, request: Request, error: str, body: Mapping[str, Any] | None) -> None:
        """Take a command's reply."""

    def record(self, request: Request, body: Mapping[str, Any]) -> None:
        """Take a record of a streaming command."""

    def complete(self, request: Request) -> None:
        """A stream has come to its end."""

    def fail(self, reason: SerfError) -> None:
        """End it all with *reason*."""


class Request(Operation):
    """
    A command that was queued: its name, its Seq once it was sent, its arguments.

    :ivar command: its row of the table; ``request.command.wire`` is its name.
    :ivar seq: its Seq, None until it was sent.
    :ivar values: its arguments by Serf's own names, the defaults filled in.
    """

    batch: Collector  # set when it is requested
    callbacks: list[Callback[Response]] | None = None
    chain: Chain[Response] | None = None
    responses: list[Response]  # set with `batch`, where there may be more than one

    def __repr__(self) -> str:
        shown = self.command.shown(self.values)
        return f"<{type(self).__name__}: {self.command.wire}, {self.seq}, {shown}>"

    def replied(self, error: str, body: Mapping[str, Any] | None) -> None:
        self.batch.replied(self, error, body)

    def record(self, body: Mapping[str, Any]) -> None:
        if not self.done:
            self.batch.record(self, body)

    def stopped(self) -> None:
        if not self.done:
            self.batch.complete(self)

    def lost(self, reason: SerfError) -> None:
        self.batch.fail(reason)

    def refused(self, error: RpcError) -> None:
        # One command of several: the others get their answers, and this one an error of its own.
        self.replied(error.message, None)


class Response:
    """
    A reply, or a record of a stream.

    :ivar request: the `Request` that it answers.
    :ivar header: ``{"Seq": int, "Error": str}``.
    :ivar body: what the agent sent behind the header: a dict with str keys, or
        None. Text that is not UTF-8 is decoded by surrogateescape, binary is bytes.
    """

    __slots__ = ("body", "header", "request")

    def __init__(self, request: Request, header: dict[str, Any], body: Mapping[str, Any] | None) -> None:
        self.request = request
        self.header = header
        self.body: Any = body

    @property
    def seq(self) -> int:
        """The Seq of the request."""
        seq: int = self.header["Seq"]
        return seq

    @property
    def error(self) -> str:
        """The agent's error; empty for none."""
        error: str = self.header["Error"]
        return error

    @property
    def is_success(self) -> bool:
        """Whether it worked: no error, and for ``join`` at least one address joined."""
        if self.header["Error"]:
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

    @property
    def is_success(self) -> bool:
        """Whether all of them are a success."""
        return all(response.is_success for response in self)


def _camel(wire: str) -> str:
    return "".join(part.capitalize() for part in wire.split("-"))


def _class(base: type, row: Command) -> Any:
    name = f"{base.__name__}{_camel(row.wire)}"
    doc = f"The {base.__name__.lower()} of ``{row.wire}``."
    return type(name, (base,), {"__slots__": (), "__doc__": doc, "__module__": __name__})


#: A class for each row of the table, called after its wire name: what a repr shows.
REQUESTS: dict[str, type[Request]] = {row.wire: _class(Request, row) for row in commands.TABLE}
RESPONSES: dict[str, type[Response]] = {row.wire: _class(Response, row) for row in commands.TABLE}
