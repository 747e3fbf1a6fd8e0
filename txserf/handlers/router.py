"""`Router`: the functions and scripts that handle events."""

from __future__ import annotations

import inspect
import os
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TypeVar, overload

from txserf import constant
from txserf.arguments import count, limit
from txserf.cluster.matching import Match, TagMatch
from txserf.errors import InvalidRequest
from txserf.filters import EventFilter
from txserf.handlers.routes import FunctionHandler, Route, Routes, ScriptHandler
from txserf.handlers.running import RouterService
from txserf.handlers.scripts import parse_spec
from txserf.handlers.work import Observer
from txserf.model import MEMBER_KINDS, Event, MemberEvent, QueryEvent, UserEvent
from txserf.serf.serf import Serf

# The functions that may handle each kind of event. Only a query has an answer, so that the value of an awaitable
# is of no interest for the other events.
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

    A function gets the `UserEvent`, `QueryEvent` or `MemberEvent`. It may be a coroutine function, or return
    an awaitable such as a Deferred. All handlers of an event are called in the order in which they were
    added, and each waits for the one before it. A handler that fails is logged, and the next one is called.
    """

    def __init__(self) -> None:
        self._routes: list[Route] = []

    def __repr__(self) -> str:
        return f"<Router of {len(self._routes)} handlers>"

    def user_event(self, *names: str) -> Callable[[UserHandler], UserHandler]:
        """
        Decorate a function that handles user events.

        It returns None or an awaitable. Another value is dropped, with a warning in the log.

        :param names: names of events; ``*``, ``?`` and ``[...]`` are wildcards (``[*]`` is a star). Without any: all.
        :raises InvalidRequest: for a name that is not text. The decorator raises it for an object that can't be
            called, and for a generator function.
        """
        return self._decorator("user_event", "user", names)

    def query(self, *names: str) -> Callable[[QueryHandler], QueryHandler]:
        """
        Decorate a function that answers queries.

        It returns the response, or an awaitable of it: bytes, or str (sent as UTF-8); None for no response.
        An agent takes one response to a query, the first, of at most some 980 bytes.

        :param names: names of queries, as for `user_event`.
        :raises InvalidRequest: as `user_event`.
        """
        return self._decorator("query", "query", names)

    def member_event(
        self, *kinds: str, tags: Mapping[str, TagMatch] | None = None
    ) -> Callable[[MemberHandler], MemberHandler]:
        """
        Decorate a function that handles member events.

        It returns None or an awaitable, as a handler of `user_event`.

        :param kinds: ``join``, ``leave``, ``failed``, ``update``, ``reap``. Without any: all.
        :param tags: handle the members with these tags only: by tag, a value that is compared exactly, or a predicate of the
            value, which gets None where a member does not have the tag. The event has the matching members
            only, and one without any is not handled.
        :raises InvalidRequest: for another kind, or other *tags*; the decorator as that of `user_event`.
        """
        match = None if tags is None else Match("member_event", None, tags)
        for kind in kinds:
            if kind not in MEMBER_KINDS:
                raise InvalidRequest(
                    f"member_event: {kind!r} is no kind of member event; there are {', '.join(MEMBER_KINDS)}"
                )

        def decorate(function: MemberHandler) -> MemberHandler:
            handler = _function("member_event", function, answers=False, match=match)
            for kind in dict.fromkeys(kinds or MEMBER_KINDS):
                self._routes.append(Route(EventFilter(f"member-{kind}"), handler))
            return function

        return decorate

    @overload
    def any(self) -> Callable[[AnyHandler], AnyHandler]: ...
    @overload
    def any(self, function: AnyHandler) -> AnyHandler: ...
    def any(self, function: AnyHandler | None = None) -> AnyHandler | Callable[[AnyHandler], AnyHandler]:
        """
        Decorate a function that handles all events and queries; with or without parentheses.

        It may return what a handler of `query` may.
        """
        if function is None:
            return self.any
        self._routes.append(Route(EventFilter("*"), _function("any", function, answers=True)))
        return function

    def add_script(self, spec: str, *, rpc_auth: bool = False) -> None:
        """
        Add a script, as ``serf agent -event-handler`` takes it.

        :param spec: ``SCRIPT``, or ``FILTER=SCRIPT`` such as ``user:deploy,member-failed=./deploy.sh``. The script
            is a command line for a shell. It runs once for each element of the filter that matches.
        :param rpc_auth: whether its environment has the key of the agents, where that of the program has it:
            ``$SERF_RPC_AUTH``, and a ``$SERF_RPC_ADDR`` with a key.
        :raises InvalidRequest: for an element that is no event type of Serf's, or a spec without a script.
        """
        try:
            filters, command = parse_spec(spec)
        except InvalidRequest as error:
            raise InvalidRequest(f"handler {spec!r}: {error}") from None
        self._routes += [Route(filter, ScriptHandler(command, rpc_auth)) for filter in filters]

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

        It subscribes to the events that have handlers and to no others, again after each loss of an agent.
        It begins to handle events in the order in which they come.

        :param serf: the connection. If it does not run yet, the service starts it, and closes it at the end of
            its stop: handlers at work can use it until then.
        :param concurrency: how many events may be in work at once. 1 is one after the other, as in Serf's agent.
        :param timeout: seconds for each handler. Past them it is cancelled, and a script is killed. None: no limit.
        :param drain: seconds in which a stop may handle the events that came before it.
        :param buffer: how many events may wait. Past that the oldest one is dropped, logged and counted (``dropped``).
        :param state: a file that keeps the events that were handled, over restarts.
        :param observer: is told what happens, for metrics.
        :returns: an `IService`. For handlers that are added later, call its ``replace(router.routes())``.
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


def _function(
    what: str, function: Callable[..., object], *, answers: bool, match: Match | None = None
) -> FunctionHandler:
    if not callable(function):
        raise InvalidRequest(f"{what}: a handler must be callable, not {function!r}")
    handler = FunctionHandler(function, answers, match)
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise InvalidRequest(f"{what}: {handler.label} is a generator function: its body would never run")
    return handler
