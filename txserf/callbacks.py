"""
Callback chains: functions that get one item after the other, in order.

The next function and the next item wait for an awaitable that a function
returns. One loop calls the functions, so that none ever runs inside another
one's stack, or inside its own.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from inspect import isawaitable, iscoroutine
from typing import Any, Generic, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from txserf.errors import InvalidRequest

T = TypeVar("T")

#: A function of one item. Its result is waited for where `waited_for` says so.
Callback = Callable[[T], object]


def check_callables(functions: tuple[object, ...]) -> None:
    """Raise `InvalidRequest` for a function that can't be called."""
    for function in functions:
        if not callable(function):
            raise InvalidRequest(f"a callback must be callable, not {type(function).__name__}")


def waited_for(result: object) -> Deferred[Any] | None:
    """
    Tell whether the result of a user's function is to be waited for.

    :returns: a Deferred of the outcome of any awaitable: of a Deferred itself, of a coroutine, of a Future
        of asyncio, of an object with ``__await__`` such as a `Query`. None for anything else.
    """
    if isinstance(result, Deferred):
        return result
    if iscoroutine(result):
        return Deferred.fromCoroutine(result)
    if hasattr(result.__class__, "_asyncio_future_blocking"):  # as asyncio.isfuture() looks
        future: Any = result
        return Deferred.fromFuture(future)
    if isawaitable(result):
        return Deferred.fromCoroutine(_awaited(result))
    return None


async def _awaited(awaitable: Awaitable[Any]) -> Any:
    return await awaitable


class Chain(Generic[T]):
    """
    Feeds items to functions.

    :param functions: called with each item, in order; it may grow meanwhile.
    :param failed: called with the Failure where a function raised or its awaitable failed. The
        functions behind it do not get that item. A KeyboardInterrupt goes on up.
    :param idle: called each time that no item is left.
    :param limit: items that may wait; past it the oldest is dropped. None: no limit.
    :param dropping: called when the first item is dropped.
    :ivar limit: the same, from the next item that waits on.
    :ivar dropped: how many items were dropped.
    """

    __slots__ = (
        "_busy",
        "_closed",
        "_dropping",
        "_failed",
        "_functions",
        "_idle",
        "_items",
        "_leaving",
        "dropped",
        "limit",
    )

    def __init__(
        self,
        functions: list[Callback[T]],
        failed: Callable[[Failure], None],
        idle: Callable[[], None] | None = None,
        limit: int | None = None,
        dropping: Callable[[], None] | None = None,
    ) -> None:
        self.limit: int | None = limit
        self.dropped: int = 0
        self._functions = functions
        self._failed = failed
        self._idle = idle
        self._dropping = dropping
        self._items: deque[T] = deque()
        self._busy = False
        self._closed = False
        self._leaving = False  # put_all() is to take no more items

    @property
    def busy(self) -> bool:
        """Whether a function is at work, or an item waits."""
        return self._busy

    def put(self, item: T) -> None:
        """Feed an item: now, or once those before it are done."""
        if self._closed:
            return
        if self._busy:
            self._items.append(item)
            if self.limit is not None and len(self._items) > self.limit:
                self._items.popleft()
                self.dropped += 1
                if self.dropped == 1 and self._dropping is not None:
                    self._dropping()
            return
        if self._items:  # a KeyboardInterrupt has left them behind
            self._items.append(item)
            item = self._items.popleft()
        self._busy = True
        self._work(item, 0)

    def put_all(self, items: Iterable[T]) -> None:
        """
        Feed items, as if each was `put` behind the other.

        :param items: the next one is taken when the functions are done with the one before. They may end in the middle. If a
            function calls `leave`, those behind its item are not taken.
        """
        if self._busy or self._items or self._closed:
            for item in items:
                self.put(item)
            return
        self._busy, self._leaving = True, False
        functions = self._functions
        # One call for many items, and no look at the line of those that wait: a third of what put() costs.
        for item in items:
            try:
                count = 0
                for function in functions[:]:  # one that is added meanwhile gets the next item
                    count += 1
                    result = function(item)
                    if result is not None:
                        waiting = waited_for(result)
                        if waiting is not None and self._wait(waiting, item, count):
                            if not self._leaving:
                                for late in items:
                                    self.put(late)
                            return
                    if self._closed:
                        break
            except KeyboardInterrupt:
                self._busy = False
                raise
            except BaseException:  # as in _work()
                self._failed(Failure())
            if self._leaving:
                break
        self._next()

    def leave(self) -> None:
        """Have `put_all` take no more items."""
        self._leaving = True

    def close(self) -> None:
        """Drop the items that wait. The function that is at work runs to its end, and none is called behind it."""
        self._closed = self._leaving = True
        self._items.clear()

    def _work(self, item: T, first: int) -> None:
        while True:
            try:
                for index in range(first, len(self._functions)):
                    if self._closed:
                        break
                    result = self._functions[index](item)
                    if result is not None:
                        waiting = waited_for(result)
                        if waiting is not None and self._wait(waiting, item, index + 1):
                            return
            except KeyboardInterrupt:
                self._busy = False
                raise
            except BaseException:  # sys.exit() in a function, too, must not take the connection down
                self._failed(Failure())
            if not self._items:
                break
            item, first = self._items.popleft(), 0
        self._busy = False
        if self._idle is not None:
            self._idle()

    def _wait(self, waiting: Deferred[Any], item: T, rest: int) -> bool:
        """Wait for a result; False where it is there already, its failure raised."""
        outcome: list[Any] = []
        later = False

        def done(value: Any) -> None:
            if not later:
                outcome.append(value)
                return
            if isinstance(value, Failure):
                self._failed(value)
                self._next()
            else:
                self._work(item, rest)

        waiting.addBoth(done)
        if not outcome:
            later = True
            return True
        if isinstance(outcome[0], Failure):
            outcome[0].raiseException()
        return False

    def _next(self) -> None:
        if self._items:
            self._work(self._items.popleft(), 0)
        else:
            self._busy = False
            if self._idle is not None:
                self._idle()
