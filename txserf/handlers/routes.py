"""Routes: the handlers of each event, and the filter of a stream that brings all their events."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterable
from functools import partial
from inspect import isasyncgen, isawaitable, isgenerator
from typing import Any, Protocol

import attrs
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from txserf.cluster.matching import Match
from txserf.errors import encodable
from txserf.filters import EventFilter
from txserf.handlers.scripts import Myself, run
from txserf.model import Event, Member, MemberEvent, QueryEvent

_log = Logger(namespace="txserf.handlers")

#: The types of a response to a query.
RESPONSES = (bytes, str)

# How many names of events are remembered with their handlers. Names come from the network, so there may be any number.
_REMEMBERED = 1024


class Context(Protocol):
    """Gives a handler the things that it may need besides its event."""

    @property
    def clock(self) -> Any:
        """The reactor, or a test's clock."""

    def myself(self) -> Deferred[Myself]:
        """Ask the agent for its name and tags."""


class Handler(Protocol):
    """
    Handles events.

    :ivar label: its name in logs and metrics.
    """

    @property
    def label(self) -> str: ...

    def start(self, event: Event, context: Context) -> object:
        """Handle *event*. An awaitable that this returns is waited for."""


@attrs.define(eq=False)
class FunctionHandler:
    """
    A Python function.

    :ivar answers: whether it handles queries (too), and so may return a response.
    :ivar match: the members of a member event that it gets; None: all.
    """

    function: Callable[..., object]
    answers: bool = True
    match: Match | None = None

    label: str = attrs.field(init=False)
    _warned: bool = attrs.field(default=False, init=False, repr=False)

    @label.default
    def _label(self) -> str:
        function = self.function
        while isinstance(function, partial):
            function = function.func
        name = getattr(function, "__qualname__", None) or type(function).__qualname__
        return f"{getattr(function, '__module__', None) or '?'}.{name}"

    def start(self, event: Event, context: Context) -> object:
        result = self.function(event)
        if result is not None and not isinstance(event, QueryEvent) and not self._warned:
            self._check(result)
        return result

    def _check(self, result: object) -> None:
        """Warn, once, of a value that was returned for an event that has no answer."""
        if isawaitable(result) or never_ran(result) or (self.answers and isinstance(result, RESPONSES)):
            return
        self._warned = True
        _log.warn(
            "{handler} returned {type}, which is dropped: only a query is answered",
            handler=encodable(self.label),
            type=type(result).__name__,
        )


def never_ran(result: object) -> bool:
    """Whether a function returned a generator, whose body has not run."""
    return isgenerator(result) or isasyncgen(result)


@attrs.frozen(eq=False)
class _OfSomeMembers:
    """
    A function as the handler of one member event, of which it gets some members only.

    :ivar members: these members, at least one; or the failure of a predicate, which is taken for the function's own.
    """

    handler: FunctionHandler
    members: tuple[Member, ...] | Failure

    @property
    def label(self) -> str:
        return self.handler.label

    def start(self, event: Event, context: Context) -> object:
        if isinstance(self.members, Failure):
            self.members.raiseException()
        assert isinstance(event, MemberEvent)
        return self.handler.start(attrs.evolve(event, members=self.members), context)


def _for_members(handler: Handler, event: MemberEvent) -> Handler | None:
    """Return the handler of those members of *event* that it is for; None if it is for none of them."""
    if not isinstance(handler, FunctionHandler) or handler.match is None:
        return handler
    try:
        members = tuple(filter(handler.match.matches, event.members))
    except KeyboardInterrupt:
        raise
    except BaseException:  # a predicate raised; sys.exit() there, too, must not take the connection down
        return _OfSomeMembers(handler, Failure())
    if not members:
        return None
    return handler if len(members) == len(event.members) else _OfSomeMembers(handler, members)


@attrs.frozen
class ScriptHandler:
    """
    A script.

    :ivar command: its command line, for a shell.
    :ivar rpc_auth: whether its environment has the key of the agents, if the program's has.
    """

    command: str
    rpc_auth: bool = False

    @property
    def label(self) -> str:
        return encodable(self.command)

    def start(self, event: Event, context: Context) -> Deferred[bytes | None]:
        def ended(output: bytes) -> bytes | None:
            # A script without output does not answer, rather than with an empty response.
            return output or None if isinstance(event, QueryEvent) else None

        def start(myself: Myself) -> Deferred[bytes]:
            return run(context.clock, self.command, event, myself, rpc_auth=self.rpc_auth)

        return context.myself().addCallback(start).addCallback(ended)


@attrs.frozen
class Route:
    """
    A handler, and the events that it handles.

    :ivar filter: selects these events.
    :ivar pattern: whether the name in *filter* has wildcards.
    """

    filter: EventFilter
    handler: Handler
    pattern: bool = False
    _regex: re.Pattern[str] | None = attrs.field(init=False, eq=False, repr=False)

    @_regex.default
    def _compiled(self) -> re.Pattern[str] | None:
        if self.filter.name is None or not self.pattern:
            return None
        return re.compile(fnmatch.translate(self.filter.name))

    def matches(self, type: str, name: str | None) -> bool:
        """Whether it handles events of that type and name (None for a member event)."""
        if self._regex is None:
            return self.filter.matches(type, name)
        return self.filter.type == type and name is not None and self._regex.match(name) is not None

    @property
    def stream_type(self) -> str:
        """The narrowest filter of a stream that brings these events."""
        # An agent's filter has no wildcards, is cut at commas, and takes an empty name for any name.
        type, name = self.filter.type, self.filter.name
        return type if not name or self.pattern or "," in name else f"{type}:{name}"


class Routes:
    """
    Routes in their order, looked up by event.

    :ivar stream_type: the filter of a stream that brings the events of all of them; None without routes.
    """

    def __init__(self, routes: Iterable[Route]) -> None:
        self._routes = tuple(routes)
        self._found: dict[tuple[str, str | None], tuple[Handler, ...]] = {}
        self.stream_type: str | None = self._stream_type()

    def _stream_type(self) -> str | None:
        types = {route.stream_type for route in self._routes}
        if "*" in types:
            return "*"
        return (
            ",".join(sorted(type for type in types if type.partition(":")[0] not in types - {type})) or None
        )

    def handlers(self, event: Event) -> tuple[Handler, ...]:
        """Return the handlers of *event*, in the order of their routes."""
        key = (event.type, None if isinstance(event, MemberEvent) else event.name)
        found = self._found.get(key)
        if found is None:
            if len(self._found) >= _REMEMBERED:
                self._found.clear()
            matching = [route.handler for route in self._routes if route.matches(*key)]
            # Several names of one handler may match. A script is another handler for each element of its filter.
            found = tuple({id(handler): handler for handler in matching}.values())
            self._found[key] = found
        if not isinstance(event, MemberEvent):
            return found
        return tuple(handler for each in found if (handler := _for_members(each, event)) is not None)
