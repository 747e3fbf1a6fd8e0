"""
The events of an agent's streams, and their coalescing.

Serf's agent holds back member events, and user events that may coalesce, until none
came for a second, but no longer than three seconds (``serf/coalesce.go``).
"""

from __future__ import annotations

from collections.abc import Callable

from txserf.embedded.agenda import Agenda, Entry
from txserf.embedded.queries import ReceivedQuery
from txserf.model import Member, MemberEvent, UserEvent

QUIET = 1.0
AT_MOST = 3.0

#: The items of a stream.
AgentEvent = UserEvent | MemberEvent | ReceivedQuery


def describe(event: AgentEvent) -> str:
    """Return the name of an event in the agent's log."""
    if isinstance(event, MemberEvent):
        return event.type
    return f"{'user-event' if event.type == UserEvent.type else event.type}: {event.name}"


class _Holder:
    """Calls *flush* once nothing was held for a second, or three seconds after the first."""

    def __init__(self, agenda: Agenda, flush: Callable[[], None]) -> None:
        self._agenda = agenda
        self._flush = flush
        self._quiet: Entry | None = None
        self._latest: Entry | None = None

    def held(self) -> None:
        """Something is held now."""
        if self._latest is None:
            self._latest = self._agenda.later(AT_MOST, self._over)
        if self._quiet is not None:
            self._quiet.cancel()
        self._quiet = self._agenda.later(QUIET, self._over)

    def _over(self) -> None:
        for entry in (self._quiet, self._latest):
            if entry is not None:
                entry.cancel()
        self._quiet = self._latest = None
        self._flush()


class MemberCoalescer:
    """
    Groups member events by kind; of each node only the latest counts.

    A change of the kind that was last told of that node is left out, except an update.

    :param emit: called with each event.
    :param told: by node, the kind that was told of it last.
    """

    def __init__(self, agenda: Agenda, emit: Callable[[MemberEvent], None], told: dict[str, str]) -> None:
        self._holder = _Holder(agenda, self._flush)
        self._emit = emit
        self._told = told
        self._changes: dict[str, tuple[str, Member]] = {}

    def hold(self, kind: str, member: Member) -> None:
        """Take a change of one member."""
        self._changes[member.name] = (kind, member)
        self._holder.held()

    def _flush(self) -> None:
        changes, self._changes = self._changes, {}
        groups: dict[str, list[Member]] = {}
        for name, (kind, member) in changes.items():
            if kind == self._told.get(name) and kind != "update":
                continue
            self._told[name] = kind
            groups.setdefault(kind, []).append(member)
        for kind, members in groups.items():
            self._emit(MemberEvent(kind, tuple(members)))


class UserCoalescer:
    """
    Of each name only the user events of the highest LTime are told.

    :param emit: called with each event.
    """

    def __init__(self, agenda: Agenda, emit: Callable[[UserEvent], None]) -> None:
        self._holder = _Holder(agenda, self._flush)
        self._emit = emit
        self._latest: dict[str, list[UserEvent]] = {}

    def hold(self, event: UserEvent) -> None:
        """Take an event that may coalesce."""
        same = self._latest.get(event.name)
        if same is None or same[0].ltime < event.ltime:
            self._latest[event.name] = [event]
        elif same[0].ltime == event.ltime:
            same.append(event)
        self._holder.held()

    def _flush(self) -> None:
        latest, self._latest = self._latest, {}
        for events in latest.values():
            for event in events:
                self._emit(event)
