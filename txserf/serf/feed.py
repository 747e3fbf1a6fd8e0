"""Items that come one by one: for callbacks, for ``async for``, or for both."""

from __future__ import annotations

import copy
import sys
from collections import deque
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Generic, TypeVar

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from txserf.callbacks import Callback, Chain, check_callables
from txserf.errors import Disconnected, ProtocolError, StopReceiveData

if TYPE_CHECKING:
    from typing_extensions import Self

_log = Logger(namespace="txserf.serf")

T = TypeVar("T")


class Feed(Generic[T]):
    """
    Items in order, for callbacks and for ``async for``.

    :param buffer: items that may wait for a slow callback, and for a slow reader;
        past it the oldest goes, and is counted.
    """

    def __init__(self, buffer: int | None) -> None:
        self._limit = buffer
        self._items: deque[T] = deque()
        self._dropped = 0
        self._unreadable = 0
        self._iterated = False
        self._functions: list[Callback[T]] = []
        self._chain: Chain[T] | None = None
        self._readers: deque[Deferred[None]] = deque()
        self._ended = False
        self._error: BaseException | None = None

    def add_callback(self, *functions: Callback[T]) -> Self:
        """
        Add functions that get each item, in order.

        :param functions: one may return an awaitable, or be a coroutine function; the next
            function and the next item wait for it. An exception is logged, and the functions
            behind it do not get that item; `StopReceiveData` ends it all, as ``stop()`` does.
        :raises InvalidRequest: for a function that can't be called.
        """
        check_callables(functions)
        self._functions.extend(functions)
        if self._chain is None and functions:
            self._chain = Chain(
                self._functions, self._callback_failed, limit=self._limit, dropping=self._dropping
            )
            if not self._iterated:  # the items that came before the first callback or reader
                waiting, self._items = self._items, deque()
                for item in waiting:
                    self._chain.put(item)
        return self

    @property
    def dropped(self) -> int:
        """How many items were lost to a full buffer."""
        return self._dropped + (self._chain.dropped if self._chain is not None else 0)

    @property
    def unreadable(self) -> int:
        """How many records came that could not be read, and were left out; the log has a line for each."""
        return self._unreadable

    @property
    def error(self) -> BaseException | None:
        """The error that ended it; None where it goes on, or was stopped."""
        return self._error

    def __aiter__(self) -> Self:
        self._begin_to_read()
        return self

    async def __anext__(self) -> T:
        if not self._iterated:
            self._begin_to_read()
        while not self._items:
            if self._ended:
                if self._error is not None:
                    raise copy.copy(self._error)
                raise StopAsyncIteration
            reader: Deferred[None] = Deferred(self._readers.remove)
            self._readers.append(reader)
            await reader
        return self._items.popleft()

    def _begin_to_read(self) -> None:
        self._iterated = True
        if self._chain is not None:
            self._chain.leave()  # if a callback begins: what is behind its item is for both

    # For its source

    def _let_wait(self, limit: int) -> None:
        """Let so many items wait from now on."""
        self._limit = limit
        if self._chain is not None:
            self._chain.limit = limit

    def _deliver(self, item: T) -> None:
        if self._ended:
            return
        chain = self._chain
        if chain is None or self._iterated:
            self._items.append(item)
            if self._limit is not None and len(self._items) > self._limit:
                self._items.popleft()
                self._dropped += 1
                if self._dropped == 1:
                    self._dropping()
        if chain is not None:
            chain.put(item)  # behind the line for readers: a function may end the feed, and with it that line
            if not self._iterated:
                return
        if self._readers:
            self._readers.popleft().callback(None)

    def _deliver_all(self, items: Iterator[T]) -> None:
        """Deliver items, as if each was given to `_deliver` behind the other, in a third of the time."""
        chain = self._chain
        if chain is not None and not self._iterated and not self._ended:
            chain.put_all(items)
            if not self._iterated:
                return
        # With two that wait, one could take a single item of those that one call puts there, and the other none.
        while len(self._readers) <= 1 and self._chain is None and not self._ended and self._fill(items):
            pass
        for item in items:
            self._deliver(item)

    def _fill(self, items: Iterator[T]) -> bool:
        """Take items until the buffer is full, and wake the reader; return whether there may be more, and room for them."""
        waiting, limit = self._items, self._limit
        before = len(waiting)
        room = None if limit is None else min(max(limit - before, 0), sys.maxsize)  # which islice() wants
        waiting.extend(items if room is None else islice(items, room))
        came = len(waiting) - before
        if came and self._readers:
            self._readers.popleft().callback(None)
        return came == room and len(waiting) < before + came

    def _dropping(self) -> None:
        _log.warn(
            "{feed}: {limit} items wait for who reads it, and the oldest are dropped from now on",
            feed=repr(self),
            limit=self._limit,
        )

    def _leave_out(self, why: ProtocolError) -> None:
        """Count and log a record that could not be read; *why* must not have its payload."""
        if not self._ended:
            self._unreadable += 1
            _log.error("{feed}: a record can't be read and is left out: {why}", feed=repr(self), why=str(why))

    def _end(self, error: BaseException | None, discard: bool = False) -> None:
        """Take no more; a reader gets *error* behind the last item."""
        if self._ended:
            return
        self._ended = True
        self._error = error
        if discard:
            self._items.clear()
            if self._chain is not None:
                self._chain.close()
        while self._readers:  # one by one: each may cancel those behind it
            self._readers.popleft().callback(None)

    def _stop_asked(self) -> None:
        """A callback has raised `StopReceiveData`."""
        raise NotImplementedError

    def _callback_failed(self, failure: Failure) -> None:
        if isinstance(failure.value, StopReceiveData):
            self._stop_asked()
        elif not (self._ended and failure.type is Disconnected):  # it was waiting as we closed
            _log.failure("a callback of {feed!r} failed", failure, feed=self)
