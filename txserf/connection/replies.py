"""The requests of one connection that were sent and are not answered yet, by Seq."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from twisted.logger import Logger

from txserf import commands
from txserf.connection.exchange import Exchange, Unwanted
from txserf.wire import Items

# Stopped streams whose Seqs are remembered. Records of a stopped stream may come behind the stop's reply: the
# agent's goroutine for that stream works off what is queued, 512 records at the most and the one at hand, and no
# answer to another request proves that it is done. But all objects of a connection go out under one lock, which Go
# hands on in turn to whoever waited for a millisecond. So by the time that as many more streams were opened and
# stopped, with two round trips each, the last record is out. This is an estimate, and nothing but the log rests on
# it: the decoder tells a header from a body without us, so the records of a forgotten Seq are skipped as well.
_MOST_STOPPED = 1024

_log = Logger(namespace="txserf.connection")


class Replies:
    """
    Hands each reply and each record to its exchange. It is a `txserf.wire.Receiver`.

    :param host: the agent's name in log lines.
    :param key_wanted: called when the agent wants a key and was given none.
    :ivar calls: the exchanges without a reply, by Seq. The connection adds each exchange that it sends.
    """

    def __init__(self, host: str, key_wanted: Callable[[], None]) -> None:
        self.calls: dict[int, Exchange] = {}
        self._streams: dict[int, Exchange] = {}  # replied to, more records may come
        self._stopped: dict[
            int, None
        ] = {}  # Seqs of stopped streams, the oldest first; records may still come
        # Those that are being given records, and iterate over them. There are several if a callback runs the reactor.
        self._runs: list[tuple[Exchange, list[dict[str, Any]]]] = []
        self._strays = 0  # replies for Seqs that were never sent
        self._host = host
        self._key_wanted = key_wanted

    # Called by the decoder

    def header(self, seq: int, error: str) -> bool | Literal["record", "known"] | None:
        """Take a header; see `txserf.wire.Receiver`."""
        exchange = self.calls.get(seq)
        if exchange is None:
            exchange = self._streams.get(seq)
            if exchange is not None:
                return "record" if exchange.command.subscribes else True
            if seq not in self._stopped:
                self._stray(seq)
            return None
        command = exchange.command
        if not error:
            if command.body_on_success:
                return True if command.known is None or not exchange.takes_value else "known"
            if command.streams:
                self._streams[seq] = exchange
        elif error == commands.AUTHENTICATION_REQUIRED:
            # The agent is reading the bodies of what was sent behind it as headers by now. The exchange
            # stays unanswered: nothing was done, so it may go to another host.
            self._key_wanted()
            return False
        elif command.body_on_error:
            return True
        del self.calls[seq]
        exchange.replied(error, None)
        if self._streams and command is commands.STOP:
            self._confirm_stop(exchange.values["Stop"])
        return False

    def body(self, seq: int, error: str, body: dict[str, Any]) -> None:
        """Take a reply's body, or a record."""
        exchange = self.calls.pop(seq, None)
        if exchange is not None:
            exchange.replied(error, body)
            return
        exchange = self._streams[seq]
        command = exchange.command
        if command.ends:
            if body.get("Type") == command.ends:
                del self._streams[seq]
                exchange.last = True
            elif not body.get(command.sender):
                return
        exchange.record(body)

    def known(self, seq: int, body: bytes) -> Any:
        """Return the value of a reply's body, if it is known; see `txserf.wire.Receiver`."""
        exchange = self.calls.get(seq)
        if exchange is None or not exchange.takes_value or exchange.command.known is None:
            return None
        return exchange.command.known.find(body)

    def answered(self, seq: int, value: Any) -> None:
        """Take a reply as its value; see `txserf.wire.Receiver`."""
        exchange = self.calls.pop(seq, None)
        if exchange is None:
            self._stray(seq)  # it was answered by the reply before this one
        elif exchange.takes_value:  # else it was given up meanwhile
            exchange.answered(value)

    def items(self, seq: int, number: int) -> Items | None:
        """Return what takes the items of a reply; see `txserf.wire.Receiver`."""
        exchange = self.calls.get(seq)
        return None if exchange is None else exchange.items(number)

    def records(self, seq: int, bodies: list[dict[str, Any]]) -> None:
        """Take records of a stream that goes on until it is stopped, or that was stopped."""
        exchange = self._streams.get(seq)
        if exchange is None:
            if seq not in self._stopped:
                for _ in bodies:
                    self._stray(seq)
            return
        if len(bodies) == 1:
            exchange.record(bodies[0])
            return
        runs = self._runs
        runs.append((exchange, bodies))
        try:
            exchange.records(bodies)
        finally:
            runs.pop()

    # Called by the connection

    def cut(self) -> None:
        """Let no exchange have more of the records that it is being given."""
        for _, bodies in self._runs:
            bodies.clear()

    def disown(self, exchange: Exchange, at_work_until: float) -> bool:
        """
        Drop all that still comes for *exchange*.

        :param at_work_until: the time, in seconds of the clock, until which the agent may be busy with a slow command.
        :returns: whether it is a subscription that the agent has to be told to stop.
        """
        seq = exchange.seq
        assert seq is not None
        for reader, bodies in self._runs:
            if reader is exchange:
                bodies.clear()
        for table in (self.calls, self._streams):
            if table.get(seq) is exchange:
                table[seq] = Unwanted(exchange, at_work_until)
                return exchange.command.subscribes
        return False

    def broke_off(self, seq: int | None) -> None:
        """Take that the bytes at which the decoder has stopped belong to the reply of *seq*; None: to no reply."""
        exchange = None if seq is None else self.calls.get(seq)
        if exchange is not None:
            exchange.broken = True

    def at_work(self, now: float) -> bool:
        """Whether the agent may be busy with a slow command, and so answers nothing else, at the time *now*."""
        # The command's own timeout limits that for its caller; the agent goes on all the same.
        return any(
            call.command.slow and (not isinstance(call, Unwanted) or now < call.at_work_until)
            for call in self.calls.values()
        )

    def unopened(self) -> dict[int, Exchange]:
        """Return the subscriptions that somebody waits for and that have no reply, by Seq."""
        return {
            seq: call
            for seq, call in self.calls.items()
            if call.command.subscribes and not isinstance(call, Unwanted)
        }

    def close(self) -> list[Exchange]:
        """Return all exchanges that wait for a reply or a record, in order of Seq, and forget them."""
        if self._strays > 1:
            _log.error(
                "{host} replied {count} times for Seqs that were never sent: ignored",
                host=self._host,
                count=self._strays,
            )
        under_way = {**self.calls, **self._streams}
        self.calls.clear()
        self._streams.clear()
        return [under_way[seq] for seq in sorted(under_way) if not isinstance(under_way[seq], Unwanted)]

    # How it works

    def _stray(self, seq: int) -> None:
        self._strays += 1
        if self._strays == 1:  # the others are counted, and logged as a number in the end
            _log.error(
                "{host} replied for Seq {seq}, which was never sent: ignored", host=self._host, seq=seq
            )

    def _confirm_stop(self, seq: int) -> None:
        stopped = self._streams.get(seq)
        if stopped is not None and stopped.command.subscribes:
            del self._streams[seq]
            self._stopped[seq] = None
            if len(self._stopped) > _MOST_STOPPED:
                del self._stopped[next(iter(self._stopped))]
            stopped.stopped()
