"""`Router`: which functions and scripts an event is handled by."""

from __future__ import annotations

import inspect
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar, overload

from txserf import constant
from txserf.arguments import count, limit
from txserf.errors import InvalidRequest
from txserf.filters import EventFilter
from txserf.handlers.routes import FunctionHandler, Route, Routes, ScriptHandler
from txserf.handlers.running import RouterService
from txserf.handlers.scripts import parse_spec
from txserf.handlers.work import Observer
from txserf.model import MEMBER_KINDS, Event, MemberEvent, QueryEvent, UserEvent
from txserf.serf.serf import Serf

# What may handle each kind of event. Only a query has an answer: what is awaited for another event may be anything.
_Done = Awaitable[object] | None
_Response = bytes | str | None
_Answer = _Response | Awaitable[_Response]

UserHandler = TypeVar("UserHandler", bound=Callable[[UserEvent], _Done])
QueryHandler = TypeVar("QueryHandler", bound=Callable[[QueryEvent], _Answer])
MemberHandler = TypeVar("MemberHandler", bound=Callable[[MemberEvent], _Done])
AnyHandler = TypeVar("AnyHandler", bound=Callable[[Event], _Answer])
_F = TypeVar("_F", bound=Callable[..., object])

_WILDCARDS = frozenset("*?[")


class Router:
    """
    Handlers of events and queries: functions and scripts.

    ::

        router = txserf.Router()

        @router.user_event("deploy")
        async def deploy(event): ...

        service = router.bind(serf)

    A function gets the `UserEvent`, `QueryEvent` or `MemberEvent`, and may be a coroutine function or
    return what can be awaited, such as a Deferred. All handlers of an event are called, in the order in which
    they were added; each waits for the one before it. One that fails is logged, and the next one is called.
    """

    def __init__(self) -> None:
        self._routes: list[Route] = []

    def __repr__(self) -> str:
        return f"<Router of {len(self._routes)} handlers>"

    def user_event(self, *names: str) -> Callable[[UserHandler], UserHandler]:
        """
        Decorate a function that handles user events.

        :param names: of the events; ``*``, ``?`` and ``[...]`` are wildcards (``[*]`` is a star). None: all.
        :raises InvalidRequest: for a name that is not text, and by the decorator for what can't be called.
        """
        return self._decorator("user_event", "user", names)

    def query(self, *names: str) -> Callable[[QueryHandler], QueryHandler]:
        """
        Decorate a function that answers queries.

        What it returns, or its Deferred fires with, is the response: bytes, or str (as UTF-8); None for
        none. An agent takes one response for a query, the first, and some 980 bytes of it.

        :param names: as of `user_event`.
        """
        return self._decorator("query", "query", names)

    def member_event(self, *kinds: str) -> Callable[[MemberHandler], MemberHandler]:
        """
        Decorate a function that handles member events.

        :param kinds: ``join``, ``leave``, ``failed``, ``update``, ``reap``. None: all.
        :raises InvalidRequest: for another kind.
        """
        for kind in kinds:
            if kind not in MEMBER_KINDS:
                raise InvalidRequest(
                    f"member_event: {kind!r} is no kind of member event; there are {', '.join(MEMBER_KINDS)}"
                )

        def decorate(function: MemberHandler) -> MemberHandler:
            handler = _function("member_event", function, answers=False)
            for kind in dict.fromkeys(kinds or MEMBER_KINDS):
                self._routes.append(Route(EventFilter(f"member-{kind}"), handler))
            return function

        return decorate

    @overload
    def any(self) -> Callable[[AnyHandler], AnyHandler]: ...
    @overload
    def any(self, function: AnyHandler) -> AnyHandler: ...
    def any(self, function: AnyHandler | None = None) -> AnyHandler | Callable[[AnyHandler], AnyHandler]:
        """Decorate a function that handles everything, with or without parentheses."""
        if function is None:
            return self.any
        self._routes.append(Route(EventFilter("*"), _function("any", function, answers=True)))
        return function

    def add_script(self, spec: str) -> None:
        """
        Add a script, as ``serf agent -event-handler`` takes it.

        :param spec: ``SCRIPT``, or ``FILTER=SCRIPT`` as ``user:deploy,member-failed=./deploy.sh``. The script
            is a shell's command line; under two filters that both match it runs twice.
        :raises InvalidRequest: for a filter that is none of Serf's.
        """
        try:
            filters, command = parse_spec(spec)
        except InvalidRequest as error:
            raise InvalidRequest(f"handler {spec!r}: {error}") from None
        self._routes += [Route(filter, ScriptHandler(command)) for filter in filters]

    def include(self, other: Router) -> None:
        """Add all handlers of another router, in their order."""
        self._routes += other._routes

    @property
    def scripts(self) -> list[str]:
        """The command lines of all scripts."""
        handlers = [route.handler for route in self._routes]
        return list(dict.fromkeys(each.command for each in handlers if isinstance(each, ScriptHandler)))

    def routes(self) -> Routes:
        """Return the handlers as they are now."""
        return Routes(self._routes)

    def bind(
        self,
        serf: Serf,
        *,
        concurrency: int = 1,
        timeout: float | None = constant.HANDLER_TIMEOUT,
        drain: float = constant.DRAIN_TIMEOUT,
        buffer: int = constant.STREAM_BUFFER,
        state: str | os.PathLike[str] | None = None,
        observer: Observer | None = None,
    ) -> RouterService:
        """
        Make the service that handles the events of a cluster.

        It subscribes to what has handlers and to nothing else, and again after each loss of an agent.
        Events are begun in the order in which they come.

        :param serf: whose connection is used. One that does not run yet is started with the service, and
            closed when that has stopped: handlers at work can ask and answer until then.
        :param concurrency: how many events may be in work at once; 1, as in Serf's agent: one after the other.
        :param timeout: seconds for each handler; it is cancelled past that, a script killed. None: no limit.
        :param drain: seconds that a stop waits for what has come to be worked off.
        :param buffer: events that may wait; past it the oldest goes, logged and counted (``dropped``).
        :param state: a file that keeps which events were handled, over restarts.
        :param observer: is told what happens, for metrics.
        :returns: an `IService`; handlers that are added later count from its ``replace(router.routes())`` on.
        :raises InvalidRequest: for a bad argument.
        """
        return RouterService(
            serf,
            self.routes(),
            concurrency=count(concurrency, "concurrency"),
            timeout=None if timeout is None else limit(timeout, "timeout"),
            drain=limit(drain, "drain"),
            buffer=count(buffer, "buffer"),
            state=None if state is None else Path(state),
            observers=() if observer is None else (observer,),
        )

    def _decorator(self, what: str, type: str, names: tuple[str, ...]) -> Callable[[_F], _F]:
        for name in names:
            if not isinstance(name, str):
                raise InvalidRequest(
                    f"{what}: a name must be str, not {name!r}; use it as @router.{what}('name')"
                )

        def decorate(function: _F) -> _F:
            handler = _function(what, function, answers=type == "query")
            for name in names or (None,):
                pattern = name is not None and bool(_WILDCARDS & set(name))
                self._routes.append(Route(EventFilter(type, name), handler, pattern))
            return function

        return decorate


def _function(what: str, function: Callable[..., object], *, answers: bool) -> FunctionHandler:
    if not callable(function):
        raise InvalidRequest(f"{what}: a handler must be callable, not {function!r}")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise InvalidRequest(
            f"{what}: {function.__qualname__} is a generator function: its body would never run"
        )
    return FunctionHandler(function, answers)
