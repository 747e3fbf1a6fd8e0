"""The members that a command is about: the same filters for the agent and for a view."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from txserf.arguments import whole
from txserf.cli.parsing import UsageError, tags
from txserf.model import Member

if TYPE_CHECKING:
    from txserf.embedded.re2 import Pattern


class Selection:
    """
    The filters ``--name``, ``--status`` and ``--tag``.

    :param values: those of a command.
    :raises UsageError: for a tag without a value.
    :ivar arguments: the same, as `Serf.members` takes them.
    """

    def __init__(self, values: Mapping[str, Any]) -> None:
        given = {"name": values.get("name"), "status": values["status"], "tags": tags(values["tag"])}
        self.arguments: dict[str, Any] = {key: value for key, value in given.items() if value}
        self._patterns: list[tuple[str, Pattern]] | None = None

    def compiled(self) -> Selection:
        """
        Return this selection, able to tell itself which members it has.

        :raises UsageError: for a pattern that is no regular expression.
        """
        from txserf.embedded.re2 import BadPattern, compile_pattern  # here, for it loads the embedded cluster

        patterns = {f"tag {key}": value for key, value in self.arguments.get("tags", {}).items()}
        for key in ("name", "status"):
            if key in self.arguments:
                patterns[key] = self.arguments[key]
        self._patterns = []
        for key, pattern in patterns.items():
            try:
                self._patterns.append((key, compile_pattern(f"^{whole(pattern)}$")))
            except BadPattern as error:
                option = "--tag" if key.startswith("tag ") else f"--{key}"
                raise UsageError(f"{option} {pattern!r} is no regular expression: {error}") from None
        return self

    def has(self, member: Member) -> bool:
        """Whether it has a member; see `compiled`."""
        assert self._patterns is not None
        return all(pattern.matches(_value(member, key)) for key, pattern in self._patterns)

    def of(self, members: Iterable[Member]) -> list[Member]:
        """Return those of *members* that it has."""
        return [member for member in members if self.has(member)]


def _value(member: Member, key: str) -> str:
    if key == "name":
        return member.name
    return str(member.status) if key == "status" else member.tags.get(key.removeprefix("tag "), "")
