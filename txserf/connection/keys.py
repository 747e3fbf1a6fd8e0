"""
The key that opens connections, and the handshakes and auths that a program has queued.

A host may have a key of its own (`Host.auth_key`); one that a program has submitted goes before it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from txserf import commands
from txserf.connection.hosts import Host
from txserf.connection.operation import Operation
from txserf.connection.protocol import SerfProtocol


class Keys:
    """
    The one holder of the key that goes before those of the hosts.

    A key is used as soon as it is submitted, before an agent has accepted it: lanes that are dialled
    meanwhile need it too. A key that is withdrawn, for any reason, is not used again.

    :ivar changed: called when another key is due for the connections to come.
    """

    def __init__(self) -> None:
        self.changed: Callable[[], object] = lambda: None
        self._accepted: str | None = None  # the last of those that were submitted and accepted
        self._submitted: dict[Operation, str] = {}  # those that are not answered yet, in order

    @property
    def current(self) -> str | None:
        """The key for the connections to come; None for those of the hosts."""
        return next(reversed(self._submitted.values()), self._accepted)

    def of(self, host: Host) -> str | None:
        """Return the key for *host*; None where none is due."""
        current = self.current
        return host.auth_key if current is None else current

    def submit(self, operations: Sequence[Operation]) -> None:
        """Use the keys of those *operations* that are an ``auth``, the last of them first."""
        keys = {o: o.values["AuthKey"] for o in operations if o.command is commands.AUTH}
        if keys:
            self._change(self._accepted, {**self._submitted, **keys})

    def withdraw(self, operation: Operation) -> None:
        """Use the key of *operation* no more, unless it was accepted."""
        if operation in self._submitted:
            left = {other: key for other, key in self._submitted.items() if other is not operation}
            self._change(self._accepted, left)

    def accept(self, key: str | None) -> None:
        """Keep a key that an agent has accepted; None for those of the hosts."""
        self._change(key, {o: other for o, other in self._submitted.items() if other != key})

    def refuse(self) -> None:
        """Use the keys of the hosts again: all hosts have refused the submitted one."""
        self._change(None, {})

    def _change(self, accepted: str | None, submitted: dict[Operation, str]) -> None:
        before = self.current
        self._accepted, self._submitted = accepted, submitted
        if self.current != before:
            self.changed()


class Greetings:
    """
    Handshakes and auths that were queued, and are answered with the connection's own.

    :param clock: returns the source of time.
    """

    def __init__(self, clock: Callable[[], IReactorTime]) -> None:
        self._clock = clock
        self._held: dict[Operation, None] = {}
        self._turn: IDelayedCall | None = None  # in which they are answered

    def hold(self, connection: SerfProtocol, operation: Operation) -> bool:
        """
        Hold a handshake or an auth until `answer`.

        :returns: whether *connection* was opened with the same; else the operation is to be sent.
        """
        for greeting in connection._greeting:
            if greeting.command is operation.command and greeting.values == operation.values:
                operation.seq = greeting.seq
                self._held[operation] = None
                return True
        return False

    def answer(self) -> None:
        """Answer all that are held."""
        self._cancel_turn()
        while self._held:  # one that is answered may drop others
            operation = next(iter(self._held))
            del self._held[operation]
            operation.replied("", None)

    def answer_soon(self) -> None:
        """Answer them in a turn of its own, where the caller may be a callback."""
        if self._held and self._turn is None:
            self._turn = self._clock().callLater(0, self._turn_has_come)

    def drop(self, operation: Operation) -> None:
        """Forget *operation*."""
        self._held.pop(operation, None)
        if not self._held:
            self._cancel_turn()

    def take(self) -> list[Operation]:
        """Return those that are not answered yet, and forget them."""
        self._cancel_turn()
        held, self._held = list(self._held), {}
        return held

    def _turn_has_come(self) -> None:
        self._turn = None
        self.answer()

    def _cancel_turn(self) -> None:
        if self._turn is not None:
            self._turn.cancel()
            self._turn = None
