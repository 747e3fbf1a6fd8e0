"""Patterns of Go's, compared with RE2 itself: which ones are refused, and what the others match."""

from __future__ import annotations

import importlib
import unittest
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from txserf.embedded.re2 import BadPattern, compile_pattern

try:
    # google-re2 is C++'s RE2, from which Go's regexp package was made.
    _re2: Any = importlib.import_module("re2")
except ImportError:  # the extra `test` has it where there are wheels
    _re2 = None

#: A pattern with more repeats than this may cost Python's `re`, which tries one way after the other, for ever.
MOST_REPEATS = 3

#: How Serf compiles a pattern: for `members-filtered`, and for a query's `FilterTags`.
WRAPPED = (lambda pattern: f"^{pattern}$", lambda pattern: pattern)

ATOMS = [
    *"n1aAkKsSzé_- \n.^$0",
    "\u017f",
    "\u212a",
    "\u0130",
    "\u0131",
    "\u00b5",
    "\u03bc",
    "\u01c5",
    "\u1e9e",
    *(rf"\{char}" for char in "dDsSwWbBAzaftnrvpQE.*\\x0178ZyCe-/é\n"),
    r"\pL",
    r"\PL",
    r"\pN",
    r"\p{Ll}",
    r"\P{Lu}",
    r"\p{^Lt}",
    r"\p{Nd}",
    r"\pZ",
    r"\p{Cc}",
    r"\pM",
    r"\p{Any}",
    r"\p{}",
    r"\p{Unheard}",
    r"\p{",
    r"\Q",
    r"\E",
    r"\Q\E",
    r"\Qn1\E",
    r"\Q.*",
    r"\x6e",
    r"\x{e9}",
    r"\x{110000}",
    r"\x{}",
    r"\07",
    r"\101",
    r"\777",
]
CLASS_ITEMS = [
    *"n1azAkKsSé^-]: .\\[",
    "a-z",
    "0-9",
    "A-k",
    "z-a",
    "-a",
    "\u00e0-\u00ff",
    "[:alpha:]",
    "[:^alpha:]",
    "[:word:]",
    "[:^space:]",
    "[:unheard:]",
    "[:]",
    "[:",
    *(atom for atom in ATOMS if atom.startswith("\\")),
]
OPERATORS = [
    "*",
    "+",
    "?",
    "{1}",
    "{0}",
    "{2}",
    "{0,}",
    "{1,2}",
    "{,2}",
    "{2,1}",
    "{02}",
    "{1001}",
    "{40}",
    "{",
]
FLAGS = ["i", "m", "s", "U", "im", "-i", "i-s", "-", "", "x", "-mU", "i-", "--i"]
GROUPS = ["(", "(?:", "(?P<x>", "(?P<>", "(?P<1-2>", "(?i:", "(?-s:", "(?P=x)", "(?=", "(?!", "(?"]

classes = st.builds(
    lambda negated, items, end: f"[{negated}{''.join(items)}{end}",
    st.sampled_from(["", "^"]),
    st.lists(st.sampled_from(CLASS_ITEMS), max_size=4),
    st.sampled_from(["]", "]", "]", ""]),
)
pieces = st.one_of(
    st.sampled_from(ATOMS),
    st.sampled_from(ATOMS),
    classes,
    st.sampled_from(OPERATORS),
    st.sampled_from(FLAGS).map("(?{})".format),
    st.sampled_from([*GROUPS, ")", "|"]),
)


def grouped(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Return longer patterns from shorter ones."""
    return st.one_of(
        st.lists(inner, max_size=3).map("".join),
        st.lists(inner, min_size=2, max_size=3).map("|".join),
        st.builds("{}{})".format, st.sampled_from(GROUPS[:8]), inner),
        st.builds("{}{}{}".format, inner, st.sampled_from(OPERATORS), st.sampled_from(["", "", "?", "+"])),
    )


patterns = st.recursive(pieces, grouped, max_leaves=10)
texts = st.text(
    alphabet="n1aAkKsSz\u00e9\u00c9_- \n.\u017f\u212a\u0130\u0131iI\u00b5\u03bc\u039c\u01c5\u00df\u1e9e\u0345\u0663",
    max_size=5,
)


def oracle(pattern: str) -> Any:
    """Return RE2's own compiled pattern; None where it refuses."""
    options = _re2.Options()
    options.log_errors = False
    try:
        return _re2.compile(pattern, options)
    except _re2.error as error:
        # Here Go has a larger limit, which no pattern of these tests reaches.
        assume(b"too large" not in error.args[0])
        return None


def ours(pattern: str) -> Any:
    """Return the embedded agent's compiled pattern; None where it refuses."""
    try:
        return compile_pattern(pattern)
    except BadPattern:
        return None


@unittest.skipIf(_re2 is None, "google-re2 is not installed")
class OracleTests(SynchronousTestCase):
    @settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
    @given(patterns, st.sampled_from(WRAPPED), st.lists(texts, min_size=1, max_size=6))
    def test_a_pattern_is_taken_and_matches_as_in_re2(
        self, pattern: str, wrapped: Callable[[str], str], tried: list[str]
    ) -> None:
        # C++'s RE2 differs from Go's there: it has \C.
        assume("\\C" not in pattern)
        assume(sum(map(pattern.count, "*+?{")) - pattern.count("(?") <= MOST_REPEATS)
        pattern = wrapped(pattern)
        expected, actual = oracle(pattern), ours(pattern)
        self.assertEqual(actual is not None, expected is not None, ascii(pattern))
        if expected is not None:
            for text in ("", *tried):
                matched = expected.search(text) is not None
                self.assertEqual(actual.matches(text), matched, (ascii(pattern), ascii(text)))
