"""Checks of arguments: seconds, nanoseconds, counts, and suggestions for unknown words."""

from __future__ import annotations

import math
from decimal import Decimal

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from txserf.arguments import anywhere, count, did_you_mean, nanoseconds, seconds, whole
from txserf.embedded.re2 import BadPattern, compile_pattern
from txserf.errors import InvalidRequest

#: Parts of patterns of Go's.
PARTS = st.lists(
    st.sampled_from(
        [
            "a",
            "b",
            "|",
            "|",
            "(",
            ")",
            "[",
            "]",
            "^",
            "$",
            "-",
            "\\",
            "\\Q",
            "\\E",
            "*",
            "(?i)",
            "(?:",
            "[:alpha:]",
        ]
    ),
    max_size=9,
)


class WholePatternTests(SynchronousTestCase):
    def test_an_alternation_gets_a_group(self) -> None:
        for pattern in (
            "a|b",
            "|",
            "a|",
            "(?i)x|y",
            "(a)|b",
            "(a|b)|c",
            "[|]|b",
            "[]|]|b",
            "[^]]|b",
            "[[:alpha:]]|b",
            "\\||b",
            "\\(|b",
            "\\Q|)\\E|b",
            "[\\]]|b",
            "a|b\\Q)\\E",
        ):
            self.assertEqual(whole(pattern), f"(?:{pattern})")

    def test_a_quote_without_an_end_gets_one(self) -> None:
        for pattern in ("a|\\Qb", "a|\\Q", "a|\\Qb\\", "\\Qa\\E|\\Q|"):
            self.assertEqual(whole(pattern), f"(?:{pattern}\\E)")

    def test_what_has_no_alternation_outside_of_groups_stays_as_it_is(self) -> None:
        for pattern in (
            "",
            "a",
            "(?i)a",
            "\\Qa",
            "(a|b)",
            "((a)|b)c",
            "[a|b]",
            "[]|]",
            "\\|",
            "a\\Q|",
            "\\Q\\|\\E",
        ):
            self.assertEqual(whole(pattern), pattern)

    def test_a_pattern_that_a_group_could_make_valid_stays_as_it_is(self) -> None:
        for pattern in ("a)|(b", "a|b)", "a|b)(", ")|("):
            self.assertEqual(whole(pattern), pattern)

    @given(parts=PARTS, text=st.text("abAB|()", max_size=4))
    @settings(deadline=None, max_examples=500)
    def test_a_group_changes_neither_what_is_valid_nor_what_matches_whole_texts(
        self, parts: list[str], text: str
    ) -> None:
        pattern = "".join(parts)
        grouped = whole(pattern)
        if grouped == pattern:
            return
        try:
            alone = compile_pattern(pattern)
        except BadPattern:
            self.assertRaises(BadPattern, compile_pattern, f"^{grouped}$")
            return
        matches = compile_pattern(f"^{grouped}$").matches(text)
        self.assertEqual(matches, alone._compiled.fullmatch(text) is not None)


class AnywherePatternTests(SynchronousTestCase):
    @given(parts=PARTS, text=st.text("abAB|()\n", max_size=4))
    @settings(deadline=None, max_examples=500)
    def test_it_is_valid_and_matches_as_the_pattern_does_in_any_part_of_a_text(
        self, parts: list[str], text: str
    ) -> None:
        pattern = "".join(parts)
        sent = f"^{whole(anywhere(pattern))}$"  # as the agent of members-filtered compiles it
        try:
            alone = compile_pattern(pattern)
        except BadPattern:
            self.assertRaises(BadPattern, compile_pattern, sent)
            return
        self.assertEqual(compile_pattern(sent).matches(text), alone.matches(text))


class SecondsTests(SynchronousTestCase):
    def test_whole_numbers_and_floats_are_seconds(self) -> None:
        for value in (0, 0.0, 1, 2.5, 1e9, math.inf):
            self.assertEqual(seconds(value, "timeout"), value)
            self.assertIs(type(seconds(value, "timeout")), float)

    def test_other_values_are_refused_with_the_arguments_name(self) -> None:
        for value in (-1, -0.001, math.nan, -math.inf, True, False, None, "5", b"5", [5], Decimal(5), 5j):
            error = self.assertRaises(InvalidRequest, seconds, value, "connect_timeout")
            self.assertEqual(
                str(error), f"connect_timeout must be a number of seconds, not {value!r}", repr(value)
            )

    def test_a_number_that_no_float_can_hold_is_refused(self) -> None:
        for value in (10**400, 10**5000, -(10**5000)):
            self.assertIn("timeout", str(self.assertRaises(InvalidRequest, seconds, value, "timeout")))

    @given(value=st.integers() | st.floats() | st.booleans() | st.text() | st.none() | st.decimals())
    @settings(deadline=None)
    def test_any_value_gives_seconds_from_zero_on_or_an_invalid_request(self, value: object) -> None:
        try:
            result = seconds(value, "timeout")
        except InvalidRequest:
            return
        self.assertGreaterEqual(result, 0.0)


class CountTests(SynchronousTestCase):
    def test_an_int_from_one_on_is_a_count(self) -> None:
        self.assertEqual([count(value, "buffer") for value in (1, 2**70)], [1, 2**70])

    def test_other_values_are_refused_with_the_arguments_name(self) -> None:
        for value in (0, -1, True, 1.0, "1", None):
            error = self.assertRaises(InvalidRequest, count, value, "buffer")
            self.assertEqual(str(error), f"buffer must be an int of at least 1, not {value!r}")


class NanosecondsTests(SynchronousTestCase):
    def test_seconds_are_rounded_to_nanoseconds(self) -> None:
        self.assertEqual([nanoseconds(value) for value in (0.001, 0.1, 3)], [10**6, 10**8, 3 * 10**9])

    def test_none_is_the_agents_own_timeout(self) -> None:
        self.assertEqual(nanoseconds(None), 0)

    def test_values_that_mean_something_else_on_the_wire_are_refused(self) -> None:
        for value in (0, 0.0009, 1e10, math.inf):
            error = self.assertRaises(InvalidRequest, nanoseconds, value)
            self.assertEqual(str(error), f"query: timeout must be from 0.001 s to 4611686018 s, not {value}")


class DidYouMeanTests(SynchronousTestCase):
    KNOWN = ("Tags", "Status", "Name")

    def test_the_nearest_known_word_is_named(self) -> None:
        for word in ("Statis", "Stats", "Sttus"):
            self.assertEqual(did_you_mean(word, self.KNOWN), " (did you mean Status?)", word)

    def test_the_case_of_letters_does_not_count(self) -> None:
        self.assertEqual(did_you_mean("status", self.KNOWN), " (did you mean Status?)")
        self.assertEqual(did_you_mean("NAME", self.KNOWN), " (did you mean Name?)")

    def test_a_word_unlike_all_known_ones_gets_no_suggestion(self) -> None:
        self.assertEqual(did_you_mean("Payload", self.KNOWN), "")
        self.assertEqual(did_you_mean("", self.KNOWN), "")
        self.assertEqual(did_you_mean("x", ()), "")
