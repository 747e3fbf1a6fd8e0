"""Which handlers an event has, and which events a stream has to bring for them."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterable
from inspect import isasyncgen, isawaitable, isgenerator
from typing import Any, Protocol

import attrs
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from txserf.errors import encodable
from txserf.filters import EventFilter
from txserf.handlers.scripts import Myself, run
from txserf.model import Event, MemberEvent, QueryEvent

_log = Logger(namespace="txserf.handlers")

#: What can be the response to a query.
RESPONSES = (bytes, str)

# Names come from the network: how many of them are remembered with their handlers.
_REMEMBERED = 1024


class Context(Protocol):
    """What a handler may need beside its event."""

    @property
    def clock(self) -> Any:
        """The reactor."""

    def myself(self) -> Deferred[Myself]:
        """Ask who the agent is."""


class Handler(Protocol):
    """
    What is called with an event.

    :ivar label: what it is called in logs and metrics.
    """

    @property
    def label(self) -> str: ...

    def start(self, event: Event, context: Context) -> object:
        """Handle *event*; what it returns is waited for if it can be awaited."""


@attrs.define(eq=False)
class FunctionHandler:
    """
    A Python function.

    :ivar answers: whether it may return a response, being a handler of queries too.
    """

    function: Callable[..., object]
    answers: bool = True

    label: str = attrs.field(init=False)
    _warned: bool = attrs.field(default=False, init=False, repr=False)

    @label.default
    def _label(self) -> str:
        function = self.function
        name = getattr(function, "__qualname__", None) or type(function).__qualname__
        return f"{getattr(function, '__module__', None) or '?'}.{name}"

    def start(self, event: Event, context: Context) -> object:
        result = self.function(event)
        if result is not None and not isinstance(event, QueryEvent) and not self._warned:
            self._check(result)
        return result

    def _check(self, result: object) -> None:
        """Warn, once, of what was returned for an event that has no answer."""
        if isawaitable(result) or never_ran(result) or (self.answers and isinstance(result, RESPONSES)):
            return
        self._warned = True
        _log.warn(
            "{handler} returned {type}, which is dropped: only a query is answered",
            handler=encodable(self.label),
            type=type(result).__name__,
        )


def never_ran(result: object) -> bool:
    """Whether a function returned a generator, of whose body nothing has run."""
    return isgenerator(result) or isasyncgen(result)


@attrs.frozen
class ScriptHandler:
    """
    A script.

    :ivar command: its shell command line.
    """

    command: str

    @property
    def label(self) -> str:
        return encodable(self.command)

    def start(self, event: Event, context: Context) -> Deferred[bytes | None]:
        def ended(output: bytes) -> bytes | None:
            # No output is no answer, rather than an empty one.
            return output or None if isinstance(event, QueryEvent) else None

        running = context.myself().addCallback(lambda myself: run(context.clock, self.command, event, myself))
        return running.addCallback(ended)


@attrs.frozen
class Route:
    """
    A handler and its events.

    :ivar filter: lets its events through.
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
        """Whether it handles events of that type and name (None where they have none)."""
        if self._regex is None:
            return self.filter.matches(type, name)
        return self.filter.type == type and name is not None and self._regex.match(name) is not None

    @property
    def stream_type(self) -> str:
        """The narrowest filter of a stream that brings its events."""
        # An agent's filter knows no wildcards and cuts at commas, and an empty name is any name there.
        type, name = self.filter.type, self.filter.name
        return type if not name or self.pattern or "," in name else f"{type}:{name}"


class Routes:
    """
    Routes in their order, looked up by event.

    :ivar stream_type: the filter of a stream that brings what they need; None where there are none.
    """

    def __init__(self, routes: Iterable[Route]) -> None:
        self._routes = tuple(routes)
        self._found: dict[tuple[str, str | None], tuple[Handler, ...]] = {}
        self.stream_type = self._stream_type()

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
            found = tuple(route.handler for route in self._routes if route.matches(*key))
            self._found[key] = found
        return found
