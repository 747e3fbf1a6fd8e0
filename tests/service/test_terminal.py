"""Text on a terminal: who gets colours, aligned columns, and what is escaped."""

from __future__ import annotations

import io
import os
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from txserf.service import terminal
from txserf.service.terminal import STYLES, Cell, Look, places, printable

GREEN, RESET = "\x1b[32m", "\x1b[0m"


class Screen(io.StringIO):
    """A stream that says that it is a terminal."""

    def isatty(self) -> bool:
        return True


class PrintableTests(SynchronousTestCase):
    def test_all_that_could_steer_a_terminal_is_escaped(self) -> None:
        self.assertEqual(printable("a\x1b[2Jb\n\x9b\u202e"), r"a\x1b[2Jb\n\x9b\u202e")

    def test_other_text_is_left_alone(self) -> None:
        self.assertEqual(printable("it's [bold]配 \\ é"), "it's [bold]配 \\ é")


class WhoGetsColoursTests(SynchronousTestCase):
    def test_a_terminal(self) -> None:
        look = Look(Screen(), {"TERM": "xterm"})
        self.assertTrue(look.is_terminal)
        self.assertEqual(look.styled("n1", "alive"), f"{GREEN}n1{RESET}")

    def test_not_a_file_or_a_pipe(self) -> None:
        look = Look(io.StringIO(), {"TERM": "xterm"})
        self.assertFalse(look.is_terminal)
        self.assertEqual(look.styled("n1", "alive"), "n1")

    def test_not_a_stream_that_is_closed_or_missing(self) -> None:
        closed = io.StringIO()
        closed.close()
        self.assertFalse(Look(closed, {}).is_terminal)
        self.assertFalse(Look(None, {}).is_terminal)

    def test_not_where_the_environment_wants_none(self) -> None:
        for environ in ({"TERM": "xterm", "NO_COLOR": "1"}, {"TERM": "dumb"}, {"TERM": ""}, {}):
            look = Look(Screen(), environ)
            self.assertTrue(look.is_terminal)
            self.assertEqual(look.styled("n1", "alive"), "n1", environ)

    def test_an_empty_no_color_counts_as_none(self) -> None:
        self.assertTrue(Look(Screen(), {"TERM": "xterm", "NO_COLOR": ""}).has_colours)

    def test_not_without_rich(self) -> None:
        with mock.patch.object(terminal, "find_spec", return_value=None):
            look = Look(Screen(), {"TERM": "xterm"})
        self.assertEqual(look.styled("n1", "alive"), "n1")


class LookTests(SynchronousTestCase):
    look = Look(Screen(), {"TERM": "xterm"})
    plain = Look(io.StringIO(), {})

    def test_each_kind_has_a_style_that_rich_knows(self) -> None:
        plain = [kind for kind in STYLES if self.look.styled("x", kind) == "x"]
        self.assertEqual(plain, [])

    def test_text_of_another_kind_is_plain(self) -> None:
        self.assertEqual(self.look.styled("x", "something"), "x")

    def test_text_is_escaped_and_is_no_markup(self) -> None:
        self.assertEqual(self.look.styled("[red]\x1b[2J", "alive"), f"{GREEN}[red]\\x1b[2J{RESET}")

    def test_columns_stand_below_each_other(self) -> None:
        rows = [["n1", "alive", "role=web"], ["database-1", "left"]]
        self.assertEqual(
            self.plain.columns(rows, ["NAME", "STATUS", "TAGS"]),
            [
                "NAME        STATUS  TAGS",
                "n1          alive   role=web",
                "database-1  left",
            ],
        )

    def test_colours_and_wide_letters_do_not_shift_a_column(self) -> None:
        rows: list[list[Cell]] = [[("配置", "alive"), "1"], ["abcdé\u0301", "2"]]
        self.assertEqual(self.look.columns(rows), [f"{GREEN}配置{RESET}   1", "abcdé\u0301  2"])

    def test_a_cell_is_escaped_before_it_is_measured(self) -> None:
        self.assertEqual(self.plain.columns([["\n", "1"], ["ab", "2"]]), [r"\n  1", "ab  2"])

    def test_no_rows_are_no_lines(self) -> None:
        self.assertEqual(self.plain.columns([]), [])

    def test_what_is_redrawn_ends_above_the_last_line(self) -> None:
        with mock.patch.object(Look, "size", os.terminal_size((80, 4))):
            drawn = self.plain.redrawn(["1", "2", "3", "4"])
            fits = self.plain.redrawn(["1", "2", "3"])
        shown = drawn.removeprefix("\x1b[?7l\x1b[H").removesuffix("\x1b[J\x1b[?7h")
        self.assertEqual(shown.split("\x1b[K\r\n"), ["1", "2", "and 2 more", ""])
        self.assertNotIn("more", fits)

    def test_the_size_of_what_is_no_terminal(self) -> None:
        self.assertEqual(self.plain.size, (80, 24))

    def test_places(self) -> None:
        self.assertEqual([places(text) for text in ("abc", "配置", "e\u0301")], [3, 4, 1])
