"""The nodes that a query is for, for ``expect="all"``: a view has them, or the agent is asked for them just before the query."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs

from txserf import commands
from txserf.arguments import anywhere
from txserf.model import Member, MemberStatus


@attrs.frozen
class Recipients:
    """
    The nodes that a query is for, at the time when it is asked.

    :ivar alive: the names of the members that can answer: those that are alive and that its filters select.
    :ivar absent: the nodes that it names, and that are no members or not alive.
    """

    alive: frozenset[str]
    absent: frozenset[str]


def member_filters(query: Mapping[str, Any]) -> list[dict[str, Any]]:
    """
    Return the arguments of the ``members-filtered`` that find a query's recipients.

    :param query: the checked arguments of ``query``.
    :returns: one; two for a query that has both nodes and tags: a node that it names may be alive, and not be asked
        because of its tags.
    """
    names = "|".join(map(re.escape, query["FilterNodes"]))
    tags = {tag: anywhere(pattern) for tag, pattern in query["FilterTags"].items()}
    named = {"Tags": {}, "Status": str(MemberStatus.ALIVE), "Name": names}
    may_close = commands.MEMBERS_FILTERED.may_close
    if may_close is not None and may_close(named):
        named["Name"] = ""  # for RE2 may read these names in another way; the reply has further members then
    return [{**named, "Tags": tags}, named] if names and tags else [{**named, "Tags": tags}]


def recipients(query: Mapping[str, Any], found: Sequence[Sequence[Member]]) -> Recipients:
    """
    Return a query's recipients.

    :param found: the replies to its `member_filters`, in order.
    """
    nodes = frozenset(query["FilterNodes"])
    selected, *_ = sets = [frozenset(member.name for member in members) for members in found]
    return Recipients(selected & nodes if nodes else selected, nodes - sets[-1])


#: Returns the members by name, all of them or all that are alive; None while they are not known.
Roster = Callable[[], Mapping[str, Member] | None]


class Rosters:
    """The members that the views of a `Serf` know."""

    def __init__(self) -> None:
        self._rosters: dict[Roster, None] = {}

    def add(self, roster: Roster) -> None:
        """Have a roster asked, until it is removed."""
        self._rosters[roster] = None

    def remove(self, roster: Roster) -> None:
        """Ask a roster no more."""
        self._rosters.pop(roster, None)

    def recipients(self, query: Mapping[str, Any]) -> Recipients | None:
        """
        Return a query's recipients as a roster has them now.

        :param query: the checked arguments of ``query``.
        :returns: None where no roster knows them, and where only the agent can tell which tags a pattern selects.
        """
        patterns = [(tag, commands.read_alike(pattern)) for tag, pattern in query["FilterTags"].items()]
        if any(pattern is None for _, pattern in patterns):
            return None
        members = next((found for roster in self._rosters if (found := roster()) is not None), None)
        if members is None:
            return None
        nodes = frozenset(query["FilterNodes"])
        asked = [members[name] for name in nodes if name in members] if nodes else members.values()
        is_alive = str(MemberStatus.ALIVE)
        alive = selected = [member for member in asked if member.status == is_alive]
        for tag, pattern in patterns:
            assert pattern is not None
            matches = pattern.search
            selected = [member for member in selected if matches(member.tags.get(tag, ""))]
        return Recipients(
            frozenset([member.name for member in selected]),
            nodes.difference([member.name for member in alive]),
        )
