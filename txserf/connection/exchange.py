"""A request, and all that comes back for it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from txserf.commands import STOP, Command
from txserf.errors import SerfError
from txserf.wire import Items

_log = Logger(namespace="txserf.connection")


class Exchange:
    """
    One request and all that comes back for it.

    :ivar command: its row of the table.
    :ivar values: its arguments, checked.
    :ivar seq: its Seq, once it was sent; the same one for all its life.
    :ivar last: whether the record that it is given is its last one.
    :ivar broken: whether its reply broke the rules of the wire; asked again, the agent would send the same.
    :ivar takes_value: whether it may be given the value of its reply's body, by `answered`.
    :ivar left: False, where its connection has ended and it was never written to the transport.
    """

    last = False
    broken = False
    left = True
    takes_value = False

    # Making one is on the hot path. Rare attributes default on the class; an attribute that is read for each
    # request is set on the instance, which saves 40 ns a look. No __slots__: deallocating slot by slot is slower.

    def __init__(self, command: Command, values: Mapping[str, Any]) -> None:
        self.seq: int | None = None
        self.command = command
        self.values = values
        self.packed_body: bytes = command.body(values)

    def replied(self, error: str, body: Mapping[str, Any] | None) -> None:
        """Take the one reply. *error* is the agent's error, empty for none."""
        raise NotImplementedError

    def answered(self, value: Any) -> None:
        """Take the one reply, which has no error, as the value of its body."""
        raise NotImplementedError

    def items(self, number: int) -> Items | None:
        """
        Return what takes the items of the reply's list as they come.

        :param number: of items, which are many.
        :returns: None if `replied` is to have the list itself.
        """
        return None

    def record(self, body: Mapping[str, Any]) -> None:
        """Take a record of a stream. The records of one stream come in order."""
        raise NotImplementedError

    def records(self, bodies: Iterable[Mapping[str, Any]]) -> None:
        """
        Take records of a stream that came one behind the other.

        :param bodies: end in the middle where the exchange is disowned or the connection ends meanwhile.
        """
        for body in bodies:
            self.record(body)

    def stopped(self) -> None:
        """Take note that the agent has confirmed a ``stop`` of this stream: no record will follow."""

    def lost(self, reason: SerfError) -> None:
        """Take the loss of the connection, and of the reply with it. *reason* belongs to this exchange alone."""
        raise NotImplementedError


class Unwanted(Exchange):
    """
    An exchange that nobody waits for any more: its reply and its records are decoded and dropped.

    It was sent, and there may be many, so it holds no arguments but those of a ``stop``.

    :ivar at_work_until: for a slow command: the time until which the agent may still be busy with it.
    """

    def __init__(self, exchange: Exchange, at_work_until: float = -math.inf) -> None:
        self.seq: int | None = exchange.seq
        self.command: Command = exchange.command
        self.values: Mapping[str, Any] = exchange.values if exchange.command is STOP else {}
        self.packed_body = b""
        self.at_work_until = at_work_until

    def replied(self, error: str, body: Mapping[str, Any] | None) -> None:
        pass

    def record(self, body: Mapping[str, Any]) -> None:
        pass

    def lost(self, reason: SerfError) -> None:
        pass


class Stop(Unwanted):
    """A ``stop`` of a stream that nobody wants any more."""

    def __init__(self, seq: int | None) -> None:
        super().__init__(Exchange(STOP, {"Stop": seq}))
        self.packed_body: bytes = STOP.body(self.values)


class Beat(Stop):
    """The ``stop`` of a heartbeat: it calls a function when it is answered, and ignores a loss."""

    def __init__(self, seq: int, answered: Callable[[], None]) -> None:
        super().__init__(seq)
        self.seq: int | None = seq  # it stops its own Seq, which no stream has
        self._answered = answered

    def replied(self, error: str, body: Mapping[str, Any] | None) -> None:
        self._answered()


class Reply(NamedTuple):
    """A reply, as `SerfProtocol.call` returns it: the header's two fields, and the body or None."""

    seq: int
    error: str
    body: Mapping[str, Any] | None

    def __repr__(self) -> str:
        # The body is shown by the names of its fields only: that of list-keys has all keys of the keyring.
        fields = None if self.body is None else f"{{{', '.join(f'{name!r}: ...' for name in self.body)}}}"
        return f"Reply(seq={self.seq}, error={self.error!r}, body={fields})"


class Awaited(Exchange):
    """An exchange whose reply goes to a Deferred."""

    def __init__(
        self,
        command: Command,
        values: Mapping[str, Any],
        on_record: Callable[[Mapping[str, Any]], object] | None = None,
        canceller: Callable[[Awaited], None] | None = None,
    ) -> None:
        super().__init__(command, values)
        self._on_record = on_record
        self._canceller = canceller
        self.result: Deferred[Reply] = Deferred(self)

    def replied(self, error: str, body: Mapping[str, Any] | None) -> None:
        assert self.seq is not None
        self.result.callback(Reply(self.seq, error, body))

    def record(self, body: Mapping[str, Any]) -> None:
        if self._on_record is not None:
            try:
                self._on_record(body)
            except KeyboardInterrupt:
                raise
            except BaseException:  # sys.exit() there, too, must not take the connection down
                _log.failure("on_record raised for a record of {command}", command=self.command.wire)

    def lost(self, reason: SerfError) -> None:
        if not self.result.called:
            self.result.errback(reason)

    def __call__(self, _: Deferred[Reply]) -> None:
        """Take that *result* is cancelled. A bound method would be one more object for each call to the garbage collector."""
        if self._canceller is not None:
            self._canceller(self)
