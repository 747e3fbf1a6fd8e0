"""Which members a caller asks for: a status, and tags by value or by predicate."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from inspect import iscoroutinefunction

from txserf.errors import InvalidRequest
from txserf.model import Member

#: A tag's value, compared exactly, or a predicate of the value, which gets None where the tag is absent.
TagMatch = str | Callable[[str | None], object]


class Match:
    """
    A status and tags that a member may have or not.

    :param what: the name of the call, for the text of a refusal.
    :param status: compared exactly; None for any.
    :param tags: by tag, a value or a predicate.
    :param more_tags: further ones, as a call's keyword arguments.
    :raises InvalidRequest: for anything else.
    :ivar criteria: what is wanted by tag; the key None has the status.
    """

    __slots__ = ("criteria",)

    def __init__(
        self,
        what: str,
        status: str | None,
        tags: Mapping[str, TagMatch] | None,
        more_tags: Mapping[str, TagMatch] | None = None,
    ) -> None:
        if status is not None and not isinstance(status, str):
            raise InvalidRequest(f"{what}: status must be str or None, not {status!r}")
        if tags is not None and not isinstance(tags, Mapping):
            raise InvalidRequest(f"{what}: tags must be a mapping, not {tags!r}")
        self.criteria: dict[str | None, TagMatch] = {} if status is None else {None: str.__str__(status)}
        for tag, wanted in (*(tags or {}).items(), *(more_tags or {}).items()):
            if not isinstance(tag, str):
                raise InvalidRequest(f"{what}: a tag must be str, not {tag!r}")
            if not isinstance(wanted, str) and not callable(wanted):
                raise InvalidRequest(f"{what}: tag {tag!r} must be str or a predicate, not {wanted!r}")
            if iscoroutinefunction(wanted):  # a coroutine is never false
                raise InvalidRequest(
                    f"{what}: tag {tag!r} must be a predicate that returns at once, not a coroutine function"
                )
            self.criteria[tag] = wanted

    def matches(self, member: Member) -> bool:
        """Whether a member has that status, and these tags."""
        for key, wanted in self.criteria.items():
            value = value_of(member, key)
            if not (value == wanted if isinstance(wanted, str) else wanted(value)):
                return False
        return True


def value_of(member: Member, key: str | None) -> str | None:
    """Return the value of a member's tag, None if it has no such tag; for the key None, its status."""
    return member.status if key is None else member.tags.get(key)
