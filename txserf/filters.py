"""
Serf's filter of events: the ``Type`` of ``stream``, and the part before ``=`` of ``-event-handler``.

A filter is a list with commas: ``*``, an event's type such as ``member-join``, or ``user:NAME`` and ``query:NAME``. Names
match exactly, case included, and hold no comma. A name that is left out (``user:``) is any name.

Serf's source: ``ParseEventFilter`` in ``cmd/serf/command/agent/event_handler.go``.
"""

from __future__ import annotations

import attrs

from txserf.errors import InvalidRequest
from txserf.model import EVENT_TYPES

#: All that an element of a filter may be, ``user:NAME`` and ``query:NAME`` apart.
TYPES = (*EVENT_TYPES, "*")

_NAMED = ("user", "query")


@attrs.frozen
class EventFilter:
    """
    One element of a filter.

    :ivar type: an event's type, or ``*`` for all.
    :ivar name: the name of a user event or a query; None for any.
    """

    type: str
    name: str | None = None

    def matches(self, type: str, name: str | None) -> bool:
        """Whether it lets events of that type and name (None for a member event) through."""
        return self.type == "*" or (self.type == type and (self.name is None or self.name == name))


def parse_filter(text: str) -> tuple[EventFilter, ...]:
    """
    Read a filter, such as ``user:deploy,member-join``.

    The empty text is no filter here. An agent takes it for ``*`` as the ``Type`` of ``stream``.

    :returns: its elements, in order; an event passes that matches any of them.
    :raises InvalidRequest: for an element that is no event type.
    """
    return tuple(_parse_element(element) for element in text.split(","))


def _parse_element(element: str) -> EventFilter:
    type, colon, name = element.partition(":")
    if colon and type in _NAMED:
        return EventFilter(type, name or None)
    if element in TYPES:
        return EventFilter(element)
    raise InvalidRequest(
        f"{element!r} is no event type; there are {', '.join(TYPES)}, user:NAME and query:NAME"
    )
