"""
How text looks on a terminal: a style for each kind of thing, aligned columns, and nothing that steers it.

All that txserf shows to people goes through here. Colours need rich_, which the extra ``txserf[cli]`` brings; without it,
and on a stream that is no terminal or wants no colours, text is plain.

.. _rich: https://rich.readthedocs.io
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.util import find_spec
from types import MappingProxyType
from typing import IO, TypeAlias

#: A cell of a row: text, or text and the kind of thing that it is.
Cell: TypeAlias = "str | tuple[str, str]"

#: The style of each kind of thing, in rich's words. They name the sixteen colours that a terminal's own theme has.
STYLES: Mapping[str, str] = MappingProxyType(
    {
        # records
        "member": "bold",
        "member-join": "green",
        "member-leave": "yellow",
        "member-failed": "bold red",
        "member-update": "yellow",
        "member-reap": "yellow",
        "user": "magenta",
        "query": "cyan",
        "ack": "dim",
        "answer": "cyan",
        "gap": "bold yellow",
        "log": "dim",
        # the status of a member
        "alive": "green",
        "leaving": "yellow",
        "left": "dim",
        "failed": "bold red",
        # the rest
        "time": "dim",
        "heading": "bold",
        "hint": "dim",
        "error": "bold red",
    }
)

# ``TERM`` of a terminal without control sequences; empty is as good as not set.
_DUMB = ("", "dumb", "unknown")

# Control sequences: wrap no lines, go to the first line; erase to the end of the line; erase all below, wrap again.
_BEGIN, _LINE, _END = "\x1b[?7l\x1b[H", "\x1b[K\r\n", "\x1b[J\x1b[?7h"


def printable(text: str) -> str:
    """Return *text* with escapes in the place of all that could steer a terminal: ESC is ``\\x1b``, a new line ``\\n``."""
    return text if text.isprintable() else repr(text)[1:-1]


def is_terminal(stream: IO[str] | None) -> bool:
    """Whether *stream* is a terminal."""
    try:
        return stream is not None and stream.isatty()
    except ValueError:  # it is closed
        return False


class Look:
    """
    How text looks on a stream.

    :param stream: a text stream; None for none.
    :param environ: variables; None takes those of the process.
    :ivar is_terminal: whether it is a terminal.
    :ivar can_redraw: whether it is one that knows control sequences, as `redrawn` has them: ``TERM`` names one that does, so it is
        neither ``dumb`` nor unset.
    :ivar has_colours: whether it is such a one, and wants colours: ``NO_COLOR`` is not set, and rich is there.
    """

    def __init__(self, stream: IO[str] | None, environ: Mapping[str, str] | None = None) -> None:
        environ = os.environ if environ is None else environ
        self._stream = stream
        self.is_terminal = is_terminal(stream)
        self.can_redraw = self.is_terminal and environ.get("TERM", "") not in _DUMB
        wanted = self.can_redraw and not environ.get("NO_COLOR")
        self.has_colours = wanted and find_spec("rich") is not None
        self._render = _renderer() if self.has_colours else _plain

    @property
    def size(self) -> os.terminal_size:
        """Its columns and lines, as they are now; 80 and 24 if it is no terminal."""
        try:
            assert self._stream is not None
            size = os.get_terminal_size(self._stream.fileno())
        except (OSError, ValueError, AssertionError):
            size = os.terminal_size((0, 0))
        return size if size.columns and size.lines else os.terminal_size((80, 24))

    def styled(self, text: str, kind: str) -> str:
        """
        Return *text* in the style of its kind; characters that could steer a terminal are escaped.

        :param kind: a key of `STYLES`; text of any other kind is plain.
        """
        return self._render(printable(text), kind)

    def cell(self, cell: Cell, width: int = 0) -> str:
        """Return a cell as `styled` text, filled up with spaces to *width* places of a terminal."""
        text, kind = (cell, "") if isinstance(cell, str) else cell
        text = printable(text)
        return self._render(text, kind) + " " * (width - places(text))

    def columns(self, rows: Iterable[Sequence[Cell]], header: Sequence[str] = ()) -> list[str]:
        """
        Return a line for each row, the cells below each other.

        :param rows: may differ in length.
        :param header: the names of the columns; empty for none.
        """
        table: list[Sequence[Cell]] = [[(name, "heading") for name in header]] if header else []
        table += rows
        widths: list[int] = []
        for row in table:
            needed = [places(printable(cell if isinstance(cell, str) else cell[0])) for cell in row]
            widths += [0] * (len(needed) - len(widths))
            widths[: len(needed)] = map(max, needed, widths)
        return ["  ".join(map(self.cell, row, widths)).rstrip() for row in table]

    def redrawn(self, lines: Iterable[str]) -> str:
        """
        Return the characters that show *lines* in the place of all that a terminal shows.

        :param lines: as `columns` makes them. Those below the last line of the terminal are left out, and so is the end
            of one that is too long.
        """
        shown = list(lines)
        room = self.size.lines - 1
        if len(shown) > room:
            shown[room - 1 :] = [self.styled(f"and {len(shown) - room + 1} more", "hint")]
        return _BEGIN + "".join(line + _LINE for line in shown) + _END


def places(text: str) -> int:
    """Return how many places of a terminal *text* takes: two for a wide letter, none for one that is put on another."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(letter) else 2 if unicodedata.east_asian_width(letter) in "WF" else 1
        for letter in text
    )


def _plain(text: str, kind: str) -> str:
    return text


def _renderer() -> Callable[[str, str], str]:
    from rich.color import ColorSystem
    from rich.style import Style

    styles = {kind: Style.parse(words) for kind, words in STYLES.items()}

    def render(text: str, kind: str) -> str:
        style = styles.get(kind)
        return text if style is None else style.render(text, color_system=ColorSystem.STANDARD)

    return render
