"""`Ring`: for each key the same owner on every node, by rendezvous hashing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from hashlib import blake2b
from heapq import nlargest
from typing import Any, Generic, TypeVar

from txserf import wire
from txserf.arguments import count as at_least_one
from txserf.errors import InvalidRequest
from txserf.model import Member

M = TypeVar("M", Member, str)

# Bytes of a score, and of the length of a name.
_SCORE = 8
_LENGTH = 8


class Ring(Generic[M]):
    """
    Says for each key which members own it, by rendezvous hashing.

    All that have the same members agree: on every node, in every process, with every release of Python and txserf. Only
    the names count, in any order. A ring does not change. When a member leaves, the next ring gives away the keys of that
    member and no others. When one is added, it takes its share, and no other key moves.

    It is a hint about who should do something. It is no lock: two nodes that see different members, as they do for seconds
    after each change, may both take themselves for the owner of a key.

    :param members: `Member` objects, or names of members. An owner is one of the objects that were given.
    :raises InvalidRequest: for anything else, and for two members of one name.

    The owner is the member with the highest score: the 8 bytes of BLAKE2b over the length of the name (8 bytes, the highest
    first), the name, and the key.
    """

    def __init__(self, members: Iterable[M]) -> None:
        if isinstance(members, (str, bytes)) or not isinstance(members, Iterable):
            raise InvalidRequest(f"ring: members must be a sequence, not {type(members).__name__}")
        by_name: dict[str, M] = {}
        for member in members:
            name = member.name if isinstance(member, Member) else member
            if not isinstance(name, str):
                raise InvalidRequest(f"ring: members must be Member or str, but hold {type(name).__name__}")
            if name in by_name:
                raise InvalidRequest(f"ring: there are two members {name!r}")
            by_name[name] = member
        self._members: dict[str, M] = dict(sorted(by_name.items()))
        # A copy of a hash that has the name already takes 0.6 of the time of a new one over name and key.
        self._hashes: list[tuple[Any, M]] = [
            (_hash_of(name), member) for name, member in self._members.items()
        ]

    def __repr__(self) -> str:
        return f"<Ring of {len(self)}>"

    def __len__(self) -> int:
        return len(self._members)

    def __iter__(self) -> Iterator[M]:
        """Iterate over the members, in the order of their names."""
        return iter(self._members.values())

    def owner(self, key: str | bytes) -> M | None:
        """
        Return the member that owns *key*; None where the ring has no member.

        It takes one hash for each member.

        :param key: bytes, or text, which stands for its bytes in UTF-8.
        :raises InvalidRequest: for anything else.
        """
        owners = self.owners(key, 1)
        return owners[0] if owners else None

    def owners(self, key: str | bytes, count: int) -> list[M]:
        """
        Return the first *count* members for *key*: its owner, then the one that owns it without that one, and so on.

        :param key: as of `owner`.
        :param count: at least 1.
        :returns: a list of different members; all of them, where the ring has fewer than *count*.
        :raises InvalidRequest: for a bad argument.
        """
        encoded = _bytes_of(key)
        at_least_one(count, "ring: count")
        scores: list[tuple[bytes, int]] = []
        for place, (named, _) in enumerate(self._hashes):
            score = named.copy()
            score.update(encoded)
            scores.append((score.digest(), place))
        best = [max(scores)] if count == 1 and scores else nlargest(count, scores)
        return [self._hashes[place][1] for _, place in best]


def _hash_of(name: str) -> Any:
    try:
        encoded = wire.as_bytes(name)
    except UnicodeEncodeError:
        raise InvalidRequest(f"ring: {name!r} is no name of a member") from None
    return blake2b(len(encoded).to_bytes(_LENGTH, "big") + encoded, digest_size=_SCORE)


def _bytes_of(key: object) -> bytes:
    if not isinstance(key, (str, bytes)):
        raise InvalidRequest(f"ring: a key must be str or bytes, not {type(key).__name__}")
    try:
        return wire.as_bytes(key)
    except UnicodeEncodeError:
        raise InvalidRequest("ring: a key has a surrogate that stands for no byte") from None
