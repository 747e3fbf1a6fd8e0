"""The commands of one ``request()``: they are sent together, and answered by one Deferred."""

from __future__ import annotations

import functools
import math
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from operator import attrgetter
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from txserf import commands, constant
from txserf.callbacks import Chain
from txserf.client.requests import (
    RESPONSES,
    QueuedCommand,
    Responses,
    ResponseStreamResult,
    UnderWay,
    too_late,
)
from txserf.errors import AuthenticationError, SerfError, StopReceiveData

_log = Logger(namespace="txserf.client")


class Batch:
    """
    The commands of one ``request()``.

    :param queue: the commands, in order.
    :param timeout: seconds for all of it; None: no limit.
    :param patient: whether a query may take longer than *timeout*, once the agent has taken it.
    :param watch: whether streams run until they are stopped.
    :param under_way: counts this one until it is over and its Deferred has fired.
    :ivar result: a Deferred of `Responses`.
    """

    due_at: float = math.inf  # set by `Deadlines.watch`
    _finished = False

    def __init__(
        self,
        queue: list[QueuedCommand],
        timeout: float | None,
        patient: bool,
        watch: bool,
        under_way: UnderWay,
    ) -> None:
        self.result: Deferred[Responses] = Deferred(self._cancelled)
        self._session = session = under_way.session
        self._queue = queue
        self._timeout = timeout
        self._patient = patient
        self._watch = watch
        self._under_way = under_way
        under_way.count += 1
        self._open = set(queue)  # those that are not complete; their callbacks count
        self._part: set[QueuedCommand] = set()  # sent and not answered; kept only while parts follow
        self._later: deque[list[QueuedCommand]] = deque()
        for queued in queue:
            queued.batch = self
            queued.responses = []
            if queued.callbacks is not None:
                queued.chain = Chain(
                    queued.callbacks,
                    functools.partial(self._callback_failed, queued),
                    functools.partial(self._idle, queued),
                    constant.STREAM_BUFFER if queued.command.subscribes else None,
                    functools.partial(self._dropping, queued),
                )
        if timeout is not None:
            session.deadlines.watch(timeout, self)

    def send(self) -> None:
        """Send the commands in one write, but for those that have to wait for an answer: these follow it."""
        first, *later = _parts(self._queue)
        self._later.extend(later)
        self._send(first)

    # Called by the commands

    def replied(self, queued: QueuedCommand, error: str, body: Mapping[str, Any] | None) -> None:
        """Take a command's reply."""
        self._take_reply(queued, error, body)
        if self._later and not self._finished:
            self._part.discard(queued)
            if not self._part:
                self._send(self._later.popleft())

    def _take_reply(self, queued: QueuedCommand, error: str, body: Mapping[str, Any] | None) -> None:
        command = queued.command
        response = queued.answer(RESPONSES[command.wire], error, body)
        if command.streams and not error:
            queued.opened = True
            # A stream that was opened again replies again. Only its callbacks get that reply.
            if self._watch and queued.command.subscribes and not queued.responses:
                queued.responses.append(response)
            if queued.chain is not None:
                queued.chain.put(response)
            return
        if command is commands.AUTH:
            if error:
                host = queued.connection.host if queued.connection is not None else ""
                told = command.without_keys(error, queued.values)
                self.fail(AuthenticationError(f"{host} refused the key: {told}", host=host))
                return
            self._session.authenticated(queued.values["AuthKey"])
        queued.responses.append(response)
        queued.done = True
        if queued.chain is not None:
            queued.chain.put(response)
        else:
            self._one_less(queued)

    def record(self, queued: QueuedCommand, body: Mapping[str, Any]) -> None:
        """Take a record of a streaming command."""
        response = queued.answer(ResponseStreamResult, "", body)
        if not (self._watch and queued.command.subscribes):
            queued.responses.append(response)
        if queued.last:
            queued.done = True
        if queued.chain is not None:
            queued.chain.put(response)
        elif queued.done:
            self._one_less(queued)

    def records(self, queued: QueuedCommand, bodies: Iterable[Mapping[str, Any]]) -> None:
        """Take records of a stream that goes on until it is stopped."""
        if queued.chain is None:
            for body in bodies:
                self.record(queued, body)
        else:
            queued.chain.put_all(self._responses_of(queued, bodies))

    def complete(self, queued: QueuedCommand) -> None:
        """Take the end of a stream."""
        queued.done = True
        if queued.chain is None or not queued.chain.busy:
            self._one_less(queued)

    def fail(self, reason: SerfError | Failure) -> None:
        """Fail the Deferred with *reason*."""
        if not self._finished:
            self._end().errback(reason)
            self._under_way.lowered()

    # Called by the deadlines

    def expired(self) -> None:
        """Take the end of the time. Streams have been collected until now; everything else is late."""
        queue = self._queue
        late = [queued for queued in queue if queued in self._open and self._is_late(queued)]
        if late:
            self.fail(too_late(late, self._timeout, self._session, self._responses()))
            return
        for queued in queue:
            if queued.command.subscribes:
                if not queued.done:
                    self._session.abandon(queued)
                # Its callbacks are not waited for: one that never ends would keep the request open for ever.
                self._one_less(queued)

    # How it works

    def _responses_of(
        self, queued: QueuedCommand, bodies: Iterable[Mapping[str, Any]]
    ) -> Iterator[ResponseStreamResult]:
        """Make the response of each record at its turn: a callback may have ended it by then."""
        request, keeps = queued.request(), not self._watch
        for body in bodies:
            if queued.done:
                return
            response = ResponseStreamResult(request, "", body)
            if keeps:
                queued.responses.append(response)
            yield response

    def _send(self, part: list[QueuedCommand]) -> None:
        if self._later:
            self._part = set(part)
        self._session.submit(part)

    def _idle(self, queued: QueuedCommand) -> None:
        if queued.done:
            self._one_less(queued)

    def _one_less(self, queued: QueuedCommand) -> None:
        self._open.discard(queued)
        if not self._open and not self._finished:
            self._succeed()

    def _succeed(self) -> None:
        responses = self._responses()
        self._end().callback(responses)
        self._under_way.lowered()

    def _responses(self) -> Responses:
        queue = self._queue
        if len(queue) == 1:
            return Responses(queue[0].responses)
        responses = Responses(response for queued in queue for response in queued.responses)
        if any(queued.road is commands.Road.GREETING for queued in queue):
            # A greeting has the Seq of the connection's own, wherever it was queued.
            responses.sort(key=attrgetter("seq"))
        return responses

    def _end(self) -> Deferred[Responses]:
        self._finished = True
        self._session.deadlines.forget(self)
        for queued in self._queue:
            if not queued.done:
                self._session.abandon(queued)
            if queued.chain is not None:
                queued.chain.close()
                if queued.chain.dropped:
                    _log.warn(
                        "{dropped} records of {command} were dropped: its callbacks are too slow",
                        dropped=queued.chain.dropped,
                        command=queued.command.wire,
                    )
        self._under_way.count -= 1
        # All of it is released here: a cycle for the garbage collector costs 2 us a call.
        result = self.result
        self._open.clear()
        self._part.clear()
        self._later.clear()
        del self.result, self._queue
        return result

    def _dropping(self, queued: QueuedCommand) -> None:
        # A watch may go on for months, so this does not wait for its end, where the number is logged.
        _log.warn(
            "records of {command} are being dropped: its callbacks are too slow", command=queued.command.wire
        )

    def _callback_failed(self, queued: QueuedCommand, failure: Failure) -> None:
        if self._finished:
            _log.failure(
                "a callback of {command} failed after its request was over",
                failure,
                command=queued.command.wire,
            )
        elif isinstance(failure.value, StopReceiveData):
            self._succeed()
        else:
            self.fail(failure)

    def _cancelled(self, _: Deferred[Responses]) -> None:
        if not self._finished:
            self._end()
            self._under_way.lowered()

    def _is_late(self, queued: QueuedCommand) -> bool:
        if queued.command.subscribes:
            return not queued.opened  # else its time to collect records is over
        return not (self._patient and queued.command.ends and queued.opened)


def _parts(queue: list[QueuedCommand]) -> list[list[QueuedCommand]]:
    """
    Cut the commands into parts, each of which must not go out before the part in front of it is answered.

    The agent misreads all that is sent behind a key that it refuses, and the connection is given up. And a command
    on a connection of its own would overtake the changes in front of it, or be overtaken by those behind.
    """
    parts: list[list[QueuedCommand]] = [[]]
    changes = alone = False
    for queued in queue:
        goes_alone = queued.road is commands.Road.ALONE
        part = parts[-1]
        if part and (
            part[-1].command is commands.AUTH
            or (goes_alone and changes)
            or (alone and queued.command.changes)
        ):
            part = []
            parts.append(part)
            changes = alone = False
        part.append(queued)
        changes = changes or queued.command.changes
        alone = alone or goes_alone
    return parts
