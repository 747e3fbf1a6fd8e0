"""An agent's log: its last lines, and its followers."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

from txserf.commands import LOG_LEVELS
from txserf.wire import as_text

#: Lines that are kept, and replayed to a new follower.
KEPT = 512

Follower = Callable[[str], None]


def shows(minimum: str, line: str) -> bool:
    """Say whether a follower of level *minimum* gets a line; one without a level goes to all."""
    start = line.find("[")
    end = line.find("]", start)
    level = line[start + 1 : end] if 0 <= start < end else ""
    return level not in LOG_LEVELS or LOG_LEVELS.index(level) >= LOG_LEVELS.index(minimum)


_ESCAPES = {'"': '\\"', "\\": "\\\\", "\a": "\\a", "\b": "\\b", "\f": "\\f"}
_ESCAPES |= {"\n": "\\n", "\r": "\\r", "\t": "\\t", "\v": "\\v"}


def quoted(data: bytes) -> str:
    """Return bytes as Go prints them, in double quotes."""

    def shown(char: str) -> str:
        code = ord(char)
        if char in _ESCAPES:
            return _ESCAPES[char]
        if 0xDC80 <= code <= 0xDCFF:  # a byte that is not UTF-8
            return f"\\x{code - 0xDC00:02x}"
        if char.isprintable():
            return char
        if code < 0x80:
            return f"\\x{code:02x}"
        return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"

    return '"' + "".join(map(shown, as_text(data))) + '"'


class AgentLog:
    """
    The lines that an agent writes, once it keeps them.

    :param date: gives the time as a line has it: ``2026/11/24 00:47:08``.
    """

    def __init__(self, date: Callable[[], str]) -> None:
        self._date = date
        self._lines: deque[str] | None = None
        self._followers: dict[Follower, None] = {}

    def __iter__(self) -> Iterator[str]:
        return iter(tuple(self._lines or ()))

    def keep(self) -> None:
        """Keep what is written from now on. Before, nobody is there to read it."""
        self._lines = deque(maxlen=KEPT)

    def write(self, level: str, text: str) -> None:
        """Write a line, such as ``agent: Serf agent starting``; *level* is one of `LOG_LEVELS`."""
        if self._lines is None:
            return
        line = f"{self._date()} [{level}] {text}"
        self._lines.append(line)
        for follower in tuple(self._followers):
            follower(line)

    def follow(self, follower: Follower) -> None:
        """Call *follower* with each line, those that are kept first."""
        self._followers[follower] = None
        for line in self:
            follower(line)

    def unfollow(self, follower: Follower) -> None:
        """Call *follower* no more."""
        self._followers.pop(follower, None)
