"""The members of a view: by name, in the order of names, and by tag and status."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from txserf.cluster.matching import Match, value_of
from txserf.model import Member, MemberStatus

# Indexes that are kept. A tag that is asked for is indexed then; one more drops the index that was not used for longest.
# Each takes some 30 bytes a member that has the tag, and 0.3 us of each change.
_MOST_INDEXES = 32

# Of all members, the part from which on it is faster to go through all in order than to sort those that were found.
_MANY = 1 / 8

# Most members are alive. An index of these would leave out few, and take more than all others.
_ALIVE = str(MemberStatus.ALIVE)

# Names by value: a dict takes half the memory of a set.
_Index = dict[str, dict[str, None]]


class Members(Mapping[str, Member]):
    """The members of a `ClusterView` now, by name, in the order of names. It can't be changed, and follows the view."""

    __slots__ = ("_table",)

    def __init__(self, table: Table) -> None:
        self._table = table

    def __getitem__(self, name: str) -> Member:
        return self._table.by_name[name]

    def __len__(self) -> int:
        return len(self._table.by_name)

    def __contains__(self, name: object) -> bool:
        return name in self._table.by_name

    def __iter__(self) -> Iterator[str]:
        return iter(self._table.order())

    def __repr__(self) -> str:
        return f"<Members: {', '.join(self)}>" if len(self) <= 10 else f"<Members: {len(self)}>"


class Table:
    """
    The members that a view has.

    A change costs the same however many they are: the order of names is made when it is asked for, and an index is
    made for the tags that are asked for.

    :ivar by_name: the members, in no order.
    """

    def __init__(self) -> None:
        self.by_name: dict[str, Member] = {}
        self._order: list[str] | None = []  # None: it has to be made anew
        self._indexes: dict[str | None, _Index] = {}  # by tag, the one used last at the end; None: by status

    def put(self, member: Member) -> Member | None:
        """Add or replace a member; return the one that had its name."""
        name = member.name
        old = self.by_name.get(name)
        self.by_name[name] = member
        if old is None:
            self._order = None
        for key, index in self._indexes.items():
            value = _place(member, key)
            before = None if old is None else _place(old, key)
            if value != before:
                _drop(index, before, name)
                _add(index, value, name)
        return old

    def remove(self, name: str) -> Member | None:
        """Remove a member; return it, None if there is none of that name."""
        old = self.by_name.pop(name, None)
        if old is not None:
            self._order = None
            for key, index in self._indexes.items():
                _drop(index, _place(old, key), name)
        return old

    def order(self) -> list[str]:
        """Return all names in order. The list must not be changed."""
        if self._order is None:
            self._order = sorted(self.by_name)
        return self._order

    def select(self, match: Match) -> list[Member]:
        """Return the members that match, in the order of names."""
        accepted: dict[str | None, set[str | None]] = {
            key: {wanted} if isinstance(wanted, str) else self._accepted(key, wanted)
            for key, wanted in match.criteria.items()
        }
        found = self._fewest(accepted)
        by_name = self.by_name
        if found is None:
            names = self.order()
        elif len(found) > len(by_name) * _MANY:
            names = [name for name in self.order() if name in found]
        else:
            names = sorted(found)
        members = [by_name[name] for name in names]
        for key, values in accepted.items():
            members = [member for member in members if value_of(member, key) in values]
        return members

    def _accepted(self, key: str | None, predicate: object) -> set[str | None]:
        """Return the values, of those that there are, for which a predicate is true."""
        assert callable(predicate)
        values: set[str | None] = {value for value in self._index(key) if predicate(value)}
        if predicate(None):
            values.add(None)
        return values

    def _fewest(self, accepted: Mapping[str | None, set[str | None]]) -> Collection[str] | None:
        """Return the names that the narrowest criterion leaves, by its index; None where none is narrow."""
        fewest: list[dict[str, None]] | None = None
        least = len(self.by_name)
        for key, values in accepted.items():
            if None in values or (key is None and _ALIVE in values):  # these members are in no index
                continue
            index = self._index(key)
            found = [index[value] for value in values if value is not None and value in index]
            size = sum(map(len, found))
            if size < least:
                fewest, least = found, size
        if fewest is None:
            return None
        return fewest[0] if len(fewest) == 1 else set().union(*fewest)

    def _index(self, key: str | None) -> _Index:
        index = self._indexes.pop(key, None)
        if index is None:
            index = {}
            for name, member in self.by_name.items():
                _add(index, _place(member, key), name)
            if len(self._indexes) >= _MOST_INDEXES:
                del self._indexes[next(iter(self._indexes))]
        self._indexes[key] = index
        return index


def _place(member: Member, key: str | None) -> str | None:
    """Return the value under which a member is in an index; None: it is not there."""
    value = value_of(member, key)
    return None if key is None and value == _ALIVE else value


def _add(index: _Index, value: str | None, name: str) -> None:
    if value is not None:
        names = index.get(value)
        if names is None:
            index[value] = {name: None}
        else:
            names[name] = None


def _drop(index: _Index, value: str | None, name: str) -> None:
    if value is not None:
        names = index[value]
        names.pop(name, None)
        if not names:
            del index[value]
