"""``/events``: the live feed, as server-sent events for any number of readers."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IPushProducer
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web import http
from twisted.web.server import Request
from zope.interface import implementer

from txserf.errors import InvalidRequest
from txserf.filters import parse_filter
from txserf.model import Ack, Answer, Event, Gap, QueryEvent, UserEvent
from txserf.service.answers import EVENT_STREAM, Refusal, WebReply, parameters, peer_of
from txserf.service.lines import Record, record_fields
from txserf.service.live import Live

_log = Logger(namespace="txserf.service")

#: Bytes that may wait for a reader of server-sent events; past it, the reader is cut off. One record more may wait.
WAITING_LIMIT = 1 << 20

#: Readers of ``/events`` that there may be; a further one is refused.
READERS_LIMIT = 800

#: Seconds between two comments, by which a reader sees that the connection lives.
COMMENT_EVERY = 15.0

_COMMENT = b":\n\n"


def sent_event(fields: object, kind: str | None = None) -> bytes:
    """
    Return a server-sent event.

    :param fields: its data, which become JSON in ASCII, on one line.
    :param kind: the event's type; None for a plain message.
    """
    head = "" if kind is None else f"event: {kind}\n"
    return f"{head}data: {json.dumps(fields)}\n\n".encode("ascii")


def sent_record(record: Record, at: float, **more: object) -> bytes:
    """
    Return a record as a server-sent event.

    :param at: when it came, in seconds since 1970.
    :param more: further fields.
    """
    return sent_event({**record_fields(record, at), **more}, "gap" if isinstance(record, Gap) else None)


@implementer(IPushProducer)
class EventWriter:
    """
    Writes server-sent events to one reader. A reader that is too slow is cut off.

    :param request: the request that it answers.
    :param over: called once, when the reader is gone, was cut off, or `finish` was called.
    :ivar is_cut_off: whether it was too slow.
    """

    def __init__(self, request: Request, over: Callable[[], object]) -> None:
        self.is_cut_off = False
        self._request: Request | None = request
        self._over = over
        self._waiting: deque[bytes] = deque()
        self._size = 0
        self._paused = False
        request.setHeader("content-type", EVENT_STREAM)
        request.setHeader("cache-control", "no-store")
        request.setHeader("x-accel-buffering", "no")  # else nginx keeps events back
        request.notifyFinish().addBoth(self._gone)
        request.registerProducer(self, True)
        request.write(_COMMENT)  # the reader knows by it that no event is missed from now on

    def write(self, data: bytes) -> None:
        """Write a server-sent event, now or when the reader has read those before it."""
        if self._request is None:
            return
        if not self._paused:
            self._request.write(data)
        elif self._size > WAITING_LIMIT:
            self._cut_off(self._request)
        else:
            self._waiting.append(data)
            self._size += len(data)

    def finish(self) -> None:
        """End the answer."""
        if self._request is not None:
            request, self._request = self._request, None
            for data in self._waiting:
                request.write(data)
            request.unregisterProducer()
            request.finish()  # which calls `_gone`

    def pauseProducing(self) -> None:
        """Write no more for now: the reader is slow."""
        self._paused = True

    def resumeProducing(self) -> None:
        """Go on to write."""
        self._paused = False
        while self._waiting and not self._paused and self._request is not None:
            data = self._waiting.popleft()
            self._size -= len(data)
            self._request.write(data)

    def stopProducing(self) -> None:
        """The connection is lost; `Request.notifyFinish` says so too."""

    def _cut_off(self, request: Request) -> None:
        self.is_cut_off = True
        _log.warn("a reader of events is too slow: {address} was cut off", address=peer_of(request))
        transport: Any = request.channel.transport
        transport.abortConnection()  # what waits for it would never be written
        self._gone(None)

    def _gone(self, reason: Failure | None) -> None:
        self._request = None
        self._waiting.clear()
        self._size = 0
        over, self._over = self._over, _nothing
        over()


def _nothing() -> None:
    """Replaces a function that is called once."""


class EventReaders:
    """
    The readers of ``/events``.

    :param live: the events.
    :ivar cut_off: how many readers were too slow.
    """

    def __init__(self, live: Live) -> None:
        self.cut_off = 0
        self._live = live
        self._readers: dict[EventWriter, Callable[[str, str | None], bool]] = {}
        self._comments = LoopingCall(self._comment)
        self._comments.clock = live.serf.clock

    def __len__(self) -> int:
        return len(self._readers)

    def answer(self, request: Request) -> WebReply | None:
        """Answer with the events that match ``type``, from now on."""
        wanted = parameters(request, ("type",)).get("type", ("*",))
        try:
            filters = parse_filter(",".join(wanted))
        except InvalidRequest as error:
            raise Refusal(http.BAD_REQUEST, f"type: {error}") from None
        if len(self._readers) >= READERS_LIMIT:
            raise Refusal(http.SERVICE_UNAVAILABLE, f"there are {READERS_LIMIT} readers already")
        if request.method == b"HEAD":
            return WebReply(b"", EVENT_STREAM)

        def matches(type: str, name: str | None) -> bool:
            return any(each.matches(type, name) for each in filters)

        def over() -> None:
            self._readers.pop(writer, None)
            self.cut_off += writer.is_cut_off
            if not self._readers:
                self._live.listeners.pop(self.tell, None)
                if self._comments.running:
                    self._comments.stop()

        writer = EventWriter(request, over)
        self._readers[writer] = matches
        self._live.listeners[self.tell] = None
        if not self._comments.running:
            self._comments.start(COMMENT_EVERY, now=False)
        return None

    def tell(self, item: Event | Gap) -> None:
        """Write a record to all readers that want it."""
        if isinstance(item, Gap):
            self._write(sent_record(item, self._live.serf.clock.seconds()))
        else:
            name = item.name if isinstance(item, (UserEvent, QueryEvent)) else None
            self._write(sent_record(item, self._live.serf.clock.seconds()), item.type, name)

    def tell_of_query(self, name: str, record: Ack | Answer) -> None:
        """Write the answer to a query that was asked here to all readers that want such queries."""
        self._write(sent_record(record, self._live.serf.clock.seconds(), query=name), QueryEvent.type, name)

    def close(self) -> None:
        """End all answers."""
        for writer in list(self._readers):
            writer.finish()

    def _write(self, data: bytes, type: str | None = None, name: str | None = None) -> None:
        for writer, matches in list(self._readers.items()):
            if type is None or matches(type, name):
                writer.write(data)

    def _comment(self) -> None:
        for writer in list(self._readers):
            writer.write(_COMMENT)


def state_of(readers: EventReaders) -> dict[str, Any]:
    """Return the readers' numbers for ``/state``."""
    return {"readers": len(readers), "cut_off": readers.cut_off}
