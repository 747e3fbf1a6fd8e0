"""The commands of one ``request()``: what is awaited of them, and what their Deferred fires with."""

from __future__ import annotations

import functools
import math
from collections import deque
from collections.abc import Mapping
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

    :param requests: the commands, in order.
    :param timeout: seconds for it all; None: as long as it takes.
    :param patient: whether a query may take longer than *timeout*.
    :param watch: whether streams run until they are stopped.
    :param under_way: is told once all is over and the Deferred has fired.
    :ivar result: a Deferred of `Responses`.
    """

    due_at = math.inf  # it is watched by the session's deadlines itself
    _finished = False

    def __init__(
        self,
        requests: list[QueuedCommand],
        timeout: float | None,
        patient: bool,
        watch: bool,
        under_way: UnderWay,
    ) -> None:
        self.result: Deferred[Responses] = Deferred(self._cancelled)
        self._session = session = under_way.session
        self._requests = requests
        self._timeout = timeout
        self._patient = patient
        self._watch = watch
        self._under_way = under_way
        under_way.count += 1
        self._open = set(requests)  # those that are not complete, callbacks included
        self._part: set[QueuedCommand] = set()  # those that were sent and are not answered, if parts follow
        self._later: deque[list[QueuedCommand]] = deque()
        for request in requests:
            request.batch = self
            request.responses = []
            if request.callbacks is not None:
                request.chain = Chain(
                    request.callbacks,
                    functools.partial(self._callback_failed, request),
                    functools.partial(self._idle, request),
                    constant.STREAM_BUFFER if request.command.subscribes else None,
                    functools.partial(self._dropping, request),
                )
        if timeout is not None:
            session.deadlines.watch(timeout, self)

    def send(self) -> None:
        """Send them, in one write; what must not go out before an answer is there goes out behind it."""
        first, *later = _parts(self._requests)
        self._later.extend(later)
        self._send(first)

    # What the requests tell

    def replied(self, request: QueuedCommand, error: str, body: Mapping[str, Any] | None) -> None:
        """Take a command's reply."""
        self._take_reply(request, error, body)
        if self._later and not self._finished:
            self._part.discard(request)
            if not self._part:
                self._send(self._later.popleft())

    def _take_reply(self, request: QueuedCommand, error: str, body: Mapping[str, Any] | None) -> None:
        command = request.command
        response = request.answer(RESPONSES[command.wire], error, body)
        if command.streams and not error:
            request.opened = True
            # A stream that was opened again replies again: that is for its callbacks only.
            if self._watch and request.command.subscribes and not request.responses:
                request.responses.append(response)
            if request.chain is not None:
                request.chain.put(response)
            return
        if command is commands.AUTH:
            if error:
                host = request.connection.host if request.connection is not None else ""
                self.fail(AuthenticationError(f"{host} refused the key: {error}", host=host))
                return
            self._session.authenticated(request.values["AuthKey"])
        request.responses.append(response)
        request.done = True
        if request.chain is not None:
            request.chain.put(response)
        else:
            self._one_less(request)

    def record(self, request: QueuedCommand, body: Mapping[str, Any]) -> None:
        """Take a record of a streaming command."""
        response = request.answer(ResponseStreamResult, "", body)
        if not (self._watch and request.command.subscribes):
            request.responses.append(response)
        if request.last:
            request.done = True
        if request.chain is not None:
            request.chain.put(response)
        elif request.done:
            self._one_less(request)

    def complete(self, request: QueuedCommand) -> None:
        """A stream has come to its end."""
        request.done = True
        if request.chain is None or not request.chain.busy:
            self._one_less(request)

    def fail(self, reason: SerfError | Failure) -> None:
        """End it all with *reason*."""
        if not self._finished:
            self._end().errback(reason)
            self._under_way.lowered()

    # How it works

    def _send(self, part: list[QueuedCommand]) -> None:
        if self._later:
            self._part = set(part)
        self._session.submit(part)

    def _idle(self, request: QueuedCommand) -> None:
        if request.done:
            self._one_less(request)

    def _one_less(self, request: QueuedCommand) -> None:
        self._open.discard(request)
        if not self._open and not self._finished:
            self._succeed()

    def _succeed(self) -> None:
        responses = self._responses()
        self._end().callback(responses)
        self._under_way.lowered()

    def _responses(self) -> Responses:
        requests = self._requests
        if len(requests) == 1:
            return Responses(requests[0].responses)
        responses = Responses(response for request in requests for response in request.responses)
        if any(request.road is commands.Road.GREETING for request in requests):
            responses.sort(
                key=attrgetter("seq")
            )  # a greeting's is the connection's own, wherever it was queued
        return responses

    def _end(self) -> Deferred[Responses]:
        self._finished = True
        self._session.deadlines.forget(self)
        for request in self._requests:
            if not request.done:
                self._session.abandon(request)
            if request.chain is not None:
                request.chain.close()
                if request.chain.dropped:
                    _log.warn(
                        "{dropped} records of {command} were dropped: its callbacks are too slow",
                        dropped=request.chain.dropped,
                        command=request.command.wire,
                    )
        self._under_way.count -= 1
        # It is let go of, as are the requests: a cycle for the garbage collector costs 2 us a call.
        result = self.result
        self._open.clear()
        self._part.clear()
        self._later.clear()
        del self.result, self._requests
        return result

    def _dropping(self, request: QueuedCommand) -> None:
        # A watch may go on for months; how many they are is told at its end.
        _log.warn(
            "records of {command} are being dropped: its callbacks are too slow", command=request.command.wire
        )

    def _callback_failed(self, request: QueuedCommand, failure: Failure) -> None:
        if self._finished:
            _log.failure(
                "a callback of {command} failed after its request was over",
                failure,
                command=request.command.wire,
            )
        elif isinstance(failure.value, StopReceiveData):
            self._succeed()
        else:
            self.fail(failure)

    def _cancelled(self, _: Deferred[Responses]) -> None:
        if not self._finished:
            self._end()
            self._under_way.lowered()

    def expired(self) -> None:
        """Take the end of the time: streams were collected till now, all else is late."""
        requests = self._requests
        late = [request for request in requests if request in self._open and self._is_late(request)]
        if late:
            self.fail(too_late(late, self._timeout, self._session, self._responses()))
            return
        for request in requests:
            if request.command.subscribes:
                if not request.done:
                    self._session.abandon(request)
                # Its callbacks are not waited for: one that never ends would make it all wait for ever.
                self._one_less(request)

    def _is_late(self, request: QueuedCommand) -> bool:
        if request.command.subscribes:
            return not request.opened  # else its time to collect records is over
        return not (self._patient and request.command.ends)


def _parts(requests: list[QueuedCommand]) -> list[list[QueuedCommand]]:
    """
    Cut requests where the next must not go out before the answers of those in front of it.

    What is sent behind a key that is refused is misread by the agent, and takes the connection
    along. And a connection of its own would carry a request past the changes in front of it, or behind.
    """
    parts: list[list[QueuedCommand]] = [[]]
    changes = alone = False
    for request in requests:
        goes_alone = request.road is commands.Road.ALONE
        part = parts[-1]
        if part and (
            part[-1].command is commands.AUTH
            or (goes_alone and changes)
            or (alone and request.command.changes)
        ):
            part = []
            parts.append(part)
            changes = alone = False
        part.append(request)
        changes = changes or request.command.changes
        alone = alone or goes_alone
    return parts
