"""Values that are found by the bytes of what they were read from, for replies that come again and again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from txserf import wire

# A list of so many items has its number in one byte. Longer ones come in several pieces mostly.
_FEW_ITEMS = 15

# How many items are kept, and how many bytes one may have. A member has some 150 bytes, and 512 more of tags at the most. An
# agent lists the tags in an order that changes, so that a member with three tags is kept up to three times. All bytes that
# are kept have half a megabyte at the most.
_MOST_ITEMS = 256
_MOST_BYTES = 1024


class KnownItems:
    """
    The values of short lists of maps, by the bytes of each map, once it has come twice.

    A value depends on nothing but these bytes. So one `KnownItems` serves all connections, and lives as long as the process.

    :param field: the name of a body's only field, whose value is the list.
    :param fields: the names of an item's fields, which an agent packs in alphabetical order. No item with others is known.
    :param read: makes the values of a body's items, or raises `ProtocolError`. It must refuse an item with a field that holds
        more than a flat map.
    :param order: gives what the values of a body are sorted by.
    """

    def __init__(
        self,
        field: str,
        fields: Sequence[str],
        read: Callable[[Mapping[str, Any]], list[Any]],
        order: Callable[[Any], Any],
    ) -> None:
        head = b"\x81" + wire.pack(field)
        self._numbers = {head + wire.pack_list([b""] * number): number for number in range(_FEW_ITEMS + 1)}
        self._head = wire.pack(dict.fromkeys(fields))[:1] + wire.pack(min(fields))
        self._field = field
        self._fields = frozenset(fields)
        self._read = read
        self._order = order
        # Items that came once. To make values of them here takes half as long again as to unpack a body, which pays from
        # the third time on.
        self._seen: set[bytes] = set()
        self._known: dict[bytes, Any] = {}
        # The last body. An agent lists a few members mostly in one order, and this saves half of the time to find them.
        self._body: bytes | None = None
        self._values: tuple[Any, ...] = ()

    def clear(self) -> None:
        """Forget all."""
        self._seen.clear()
        self._known.clear()
        self._body, self._values = None, ()

    def find(self, body: bytes) -> list[Any] | None:
        """
        Return the values of a body's items, sorted.

        :param body: the bytes of a reply's body; they may be cut, or have more behind them.
        :returns: None where *body* has to be unpacked.
        """
        if body == self._body:
            return [*self._values]
        # The end of an object follows from its bytes, and the bytes of a known item are one object. So if they fill the
        # body, and are as many as its list has, they are its items.
        items = body.split(self._head)
        if self._numbers.get(items[0]) != len(items) - 1:
            return None
        del items[0]
        try:
            values = [*map(self._known.__getitem__, items)]
        except KeyError:
            if not self._learn(items):
                return None
            values = [*map(self._known.__getitem__, items)]
        values.sort(key=self._order)
        self._body, self._values = body, (*values,)
        return values

    def _learn(self, items: list[bytes]) -> bool:
        for kept in (self._seen, self._known):
            if len(kept) > _MOST_ITEMS - _FEW_ITEMS:
                kept.clear()
        new = [item for item in items if item not in self._known]
        if max(map(len, new)) > _MOST_BYTES:
            return False
        if not self._seen.issuperset(new):
            self._seen.update(new)
            return False
        try:
            records = [wire.unpackb(self._head + item) for item in new]
            if any(record.keys() != self._fields for record in records):
                return False
            values = self._read({self._field: records})
        except Exception:  # not one object each, or not as agents send them: who unpacks the body finds out
            return False
        self._known.update(zip(new, values, strict=True))
        return True
