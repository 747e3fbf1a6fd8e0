"""
Go's regular expressions in Python's `re`.

Serf's filters are in the syntax of Go's ``regexp`` package (RE2). `_Parser` reads a pattern as Go's
``regexp/syntax/parse.go`` does, piece by piece on a stack, and refuses what that refuses. It writes the same language
in Python's syntax: each set of characters as explicit ranges, no flags. A filter only asks whether something matches,
so groups don't capture, and greedy and lazy repeats are the same.

Scripts such as ``\\p{Greek}`` are refused, for Python has no table of them. The time of a match is not bounded as it
is in Go: this is for tests.
"""

from __future__ import annotations

import functools
import re
import unicodedata
import warnings
from collections.abc import Iterable

import attrs

#: Ranges of code points: first and last of each, in any order.
Ranges = tuple[tuple[int, int], ...]

_LAST = 0x10FFFF
_ANY: Ranges = ((0, _LAST),)
_NO_NEWLINE: Ranges = ((0, 9), (11, _LAST))

# No cased character is beyond these planes.
_CASED = 0x20000

_MOST_REPEATS = 1000
_MOST_DEEP = 1000


def _ascii(*pairs: str) -> Ranges:
    """Return the ranges that texts such as ``"az"`` and ``"__"`` name."""
    return tuple((ord(pair[0]), ord(pair[1])) for pair in pairs)


_PERL = {"d": _ascii("09"), "s": _ascii("\t\n", "\f\r", "  "), "w": _ascii("09", "AZ", "__", "az")}
_POSIX = {
    "alnum": _ascii("09", "AZ", "az"),
    "alpha": _ascii("AZ", "az"),
    "ascii": _ascii("\x00\x7f"),
    "blank": _ascii("\t\t", "  "),
    "cntrl": _ascii("\x00\x1f", "\x7f\x7f"),
    "digit": _ascii("09"),
    "graph": _ascii("!~"),
    "lower": _ascii("az"),
    "print": _ascii(" ~"),
    "punct": _ascii("!/", ":@", "[`", "{~"),
    "space": _ascii("\t\r", "  "),
    "upper": _ascii("AZ"),
    "word": _PERL["w"],
    "xdigit": _ascii("09", "AF", "af"),
}
_CATEGORIES = frozenset(
    "C Cc Cf Co Cs L Ll Lm Lo Lt Lu M Mc Me Mn N Nd Nl No P Pc Pd Pe Pf Pi Po Ps S Sc Sk Sm So Z Zl Zp Zs".split()
)

_CONTROL = {"a": "\a", "f": "\f", "t": "\t", "n": "\n", "r": "\r", "v": "\v"}
_REPEAT = re.compile(r"\{(0|[1-9][0-9]*)(?:(,)(0|[1-9][0-9]*)?)?\}")
_FLAGS = re.compile(r"\(\?([imsU]*)(?:(-)([imsU]+))?([:)])")
_NAME = re.compile(r"\(\?P<([0-9A-Za-z_]+)>")
_CATEGORY = re.compile(r"\\([pP])(?:\{(\^?)([^}]*)\}|(.?))", re.DOTALL)
_POSIX_CLASS = re.compile(r"\[:(\^?)(.*?):\]", re.DOTALL)
_HEX = re.compile(r"x(?:\{([0-9A-Fa-f]+)\}|([0-9A-Fa-f]{2}))")
_OCTAL = re.compile(r"0[0-7]{0,2}|[1-7][0-7]{1,2}")

# Python says of no text that \B matches it when it is empty, up to 3.13.
_ANCHORS = {"A": "\\A", "z": "\\Z", "b": "(?a:\\b)", "B": "(?:(?a:\\B)|\\A\\Z)"}

_NOT_UTF8 = re.compile("[\ud800-\udfff]")


class BadPattern(ValueError):
    """Go would not compile this pattern; the text is what Go says, or near to it."""


@attrs.frozen
class Pattern:
    """A pattern that compiled."""

    _compiled: re.Pattern[str]

    def matches(self, text: str) -> bool:
        """Say whether it matches anywhere in *text*, where each byte that is not UTF-8 is one U+FFFD, as in Go."""
        return self._compiled.search(text if text.isascii() else _NOT_UTF8.sub("\ufffd", text)) is not None


@functools.lru_cache(maxsize=256)
def compile_pattern(pattern: str) -> Pattern:
    """
    Compile a pattern of Go's.

    :raises BadPattern: where Go would refuse it.
    """
    if _NOT_UTF8.search(pattern):
        raise BadPattern(f"error parsing regexp: invalid UTF-8: `{pattern!a}`")
    try:
        source = _Parser(pattern).parse()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return Pattern(re.compile(source))
    except (OverflowError, RecursionError):
        raise BadPattern(f"error parsing regexp: expression nests too deeply: `{pattern}`") from None


# -- sets of characters


def _negated(ranges: Iterable[tuple[int, int]]) -> Ranges:
    """Return all that is not in *ranges*."""
    rest, start = [], 0
    for first, last in sorted(ranges):
        if start < first:
            rest.append((start, first - 1))
        start = max(start, last + 1)
    return (*rest, (start, _LAST)) if start <= _LAST else tuple(rest)


def _class(ranges: Ranges) -> str:
    """Return Python's syntax for one character out of *ranges*."""
    if not ranges:
        return "(?!)"
    parts = (
        f"\\U{first:08x}" if first == last else f"\\U{first:08x}-\\U{last:08x}" for first, last in ranges
    )
    return f"[{''.join(parts)}]"


@functools.cache
def _category(name: str) -> Ranges:
    """Return the characters of a general category, or of all that begin with a letter."""
    found: list[tuple[int, int]] = []
    for code in range(_LAST + 1):
        # Go counts the code points that have no meaning yet, Cn, to no category.
        category = unicodedata.category(chr(code))
        if category.startswith(name) and category != "Cn":
            if found and found[-1][1] == code - 1:
                found[-1] = (found[-1][0], code)
            else:
                found.append((code, code))
    return tuple(found)


@functools.cache
def _same_but_for_case() -> dict[int, tuple[int, ...]]:
    """Return, for each character that has a case, all that it is equal to under ``(?i)``, itself too."""
    groups: dict[str, list[int]] = {}
    for code in range(_CASED):
        char = chr(code)
        # Unicode's simple folding: one character to one. Where Python has only the full one, that is lower case.
        forms = (char.casefold(), char.lower(), char)
        groups.setdefault(next(form for form in forms if len(form) == 1), []).append(code)
    return {code: tuple(group) for group in groups.values() if len(group) > 1 for code in group}


@functools.lru_cache(maxsize=256)
def _folded(ranges: Ranges) -> Ranges:
    """Return *ranges*, and all that is equal to something in them but for its case."""
    same = _same_but_for_case()
    more = {
        other
        for first, last in ranges
        for code in range(first, min(last + 1, _CASED))
        if code in same
        for other in same[code]
    }
    return ranges + tuple((code, code) for code in sorted(more))


# -- the parser


@attrs.frozen
class _Piece:
    """
    Something that can be repeated, in Python's syntax.

    :ivar repeats: how many copies of a part of it Go would make: counts of repeats inside each other, multiplied.
    """

    source: str
    repeats: int = 1


@attrs.define
class _Group:
    """
    A group that is open.

    :ivar flags: those in force before it.
    :ivar done: its alternatives but for the last, each with the counts of its repeats.
    :ivar pieces: the last alternative, so far.
    """

    flags: frozenset[str]
    done: list[_Piece] = attrs.field(factory=list)
    pieces: list[_Piece] = attrs.field(factory=list)

    def alternative(self) -> None:
        """End an alternative."""
        repeats = max((piece.repeats for piece in self.pieces), default=1)
        self.done.append(_Piece("".join(piece.source for piece in self.pieces), repeats))
        self.pieces = []

    def close(self) -> _Piece:
        """End the group; returns it as one piece."""
        if not self.done and len(self.pieces) == 1:
            return self.pieces[0]
        self.alternative()
        source = "|".join(piece.source for piece in self.done)
        return _Piece(f"(?:{source})", max(piece.repeats for piece in self.done))


class _Parser:
    """Reads a pattern once from left to right."""

    def __init__(self, pattern: str) -> None:
        self._pattern = pattern
        self._at = 0
        self._flags = frozenset[str]()
        self._groups = [_Group(self._flags)]

    def parse(self) -> str:
        """Return the pattern in Python's syntax."""
        pattern, repeated = self._pattern, False
        while self._at < len(pattern):
            char = pattern[self._at]
            if char in "*+?" or (char == "{" and _REPEAT.match(pattern, self._at)):
                self._repeat(repeated)
                repeated = True
                continue
            repeated = False
            if char == "\\" and pattern.startswith("\\Q", self._at):
                self._quoted()
            elif char == "(":
                self._open()
            elif char == "|":
                self._at += 1
                self._groups[-1].alternative()
            elif char == ")":
                self._close()
            else:
                self._emit(self._atom(char))
        if len(self._groups) > 1:
            raise self._refusal("missing closing )", pattern)
        return self._groups[0].close().source

    def _refusal(self, reason: str, part: str) -> BadPattern:
        return BadPattern(f"error parsing regexp: {reason}: `{part}`")

    def _emit(self, source: str) -> None:
        self._groups[-1].pieces.append(_Piece(source))

    # -- what has parts

    def _repeat(self, repeated: bool) -> None:
        """Repeat the last piece; flags and empty quotes between it and the operator don't count."""
        start, match = self._at, _REPEAT.match(self._pattern, self._at)
        operator = self._pattern[start] if match is None else match.group()
        self._at += len(operator)
        least = most = 0
        if match is not None:
            least = int(match[1])
            most = least if match[2] is None else int(match[3]) if match[3] else -1
            if least > _MOST_REPEATS or most > _MOST_REPEATS or 0 <= most < least:
                raise self._refusal("invalid repeat count", operator)
        self._at += self._pattern.startswith("?", self._at)
        if repeated:
            raise self._refusal("invalid nested repetition operator", self._pattern[start : self._at])
        pieces = self._groups[-1].pieces
        if not pieces:
            raise self._refusal("missing argument to repetition operator", operator)
        piece = pieces[-1]
        count = least if most < 0 else most
        repeats = 1 if most == 0 and match is not None else (count or 1) * piece.repeats
        if count >= 2 and repeats > _MOST_REPEATS:
            raise self._refusal("invalid repeat count", operator)
        pieces[-1] = _Piece(f"(?:{piece.source}){operator}", repeats)

    def _open(self) -> None:
        pattern = self._pattern
        group = _Group(self._flags)
        if not pattern.startswith("(?", self._at):
            self._at += 1
        elif (name := _NAME.match(pattern, self._at)) is not None:
            self._at = name.end()
        elif (flags := _FLAGS.match(pattern, self._at)) is not None:
            self._at = flags.end()
            self._flags = (self._flags | set(flags[1])) - set(flags[3] or "")
            if flags[4] == ")":  # they hold to the end of the group that is open already
                return
        else:
            raise self._refusal("invalid or unsupported Perl syntax", pattern[self._at : self._at + 3])
        self._groups.append(group)
        if len(self._groups) > _MOST_DEEP:
            raise self._refusal("expression nests too deeply", pattern)

    def _close(self) -> None:
        self._at += 1
        if len(self._groups) == 1:
            raise self._refusal("unexpected )", self._pattern)
        group = self._groups.pop()
        self._flags = group.flags
        self._groups[-1].pieces.append(group.close())

    def _quoted(self) -> None:
        text, end, _ = self._pattern[self._at + 2 :].partition("\\E")
        for char in text:
            self._emit(self._literal(char))
        self._at += 2 + len(text) + len(end)

    # -- one character

    def _set(self, ranges: Ranges) -> Ranges:
        return _folded(ranges) if "i" in self._flags else ranges

    def _literal(self, char: str) -> str:
        return _class(self._set(((ord(char), ord(char)),)))

    def _atom(self, char: str) -> str:
        if char == "\\":
            return self._escape()
        self._at += 1
        if char == "[":
            return _class(self._char_class())
        if char == "^":
            return "(?m:^)" if "m" in self._flags else "\\A"
        if char == "$":
            return "(?m:$)" if "m" in self._flags else "\\Z"
        if char == ".":
            return _class(_ANY if "s" in self._flags else _NO_NEWLINE)
        return self._literal(char)

    def _escape(self) -> str:
        char = self._pattern[self._at + 1 : self._at + 2]
        if char in _ANCHORS:
            self._at += 2
            return _ANCHORS[char]
        ranges = self._named_set()
        return self._literal(self._literal_escape()) if ranges is None else _class(ranges)

    def _named_set(self) -> Ranges | None:
        """Read a set such as ``\\d`` or ``\\pL``, inside or outside brackets; None where there is no such thing."""
        char = self._pattern[self._at + 1 : self._at + 2]
        if not self._pattern.startswith("\\", self._at) or not char:
            return None
        if char in "pP":
            return self._unicode_set()
        if char.lower() not in _PERL:
            return None
        self._at += 2
        ranges = self._set(_PERL[char.lower()])
        return _negated(ranges) if char.isupper() else ranges

    def _unicode_set(self) -> Ranges:
        match = _CATEGORY.match(self._pattern, self._at)
        assert match is not None, "it matches any \\p"
        name = match[3] or match[4] or ""
        if name != "Any" and name not in _CATEGORIES:
            raise self._refusal("invalid character class range", match.group())
        self._at = match.end()
        ranges = self._set(_ANY if name == "Any" else _category(name))
        return _negated(ranges) if (match[1] == "P") != bool(match[2]) else ranges

    def _literal_escape(self) -> str:
        """Return the character that an escape stands for."""
        pattern, start = self._pattern, self._at + 1
        if start >= len(pattern):
            raise self._refusal("trailing backslash at end of expression", "")
        char = pattern[start]
        self._at += 2
        if char in _CONTROL:
            return _CONTROL[char]
        if (match := _HEX.match(pattern, start)) is not None:
            if (code := int(match[1] or match[2], 16)) <= _LAST:
                self._at = match.end()
                return chr(code)
        elif (match := _OCTAL.match(pattern, start)) is not None:
            self._at = match.end()
            return chr(int(match.group(), 8))
        elif char.isascii() and not char.isalnum():
            return char
        raise self._refusal("invalid escape sequence", "\\" + char)

    def _char_class(self) -> Ranges:
        """Read a class, its opening bracket having been read."""
        pattern, start = self._pattern, self._at - 1
        negated = pattern.startswith("^", self._at)
        self._at += negated
        ranges: list[tuple[int, int]] = []
        first = self._at
        while self._at == first or not pattern.startswith("]", self._at):
            if self._at >= len(pattern):
                raise self._refusal("missing closing ]", pattern[start:])
            ranges += self._class_item(start)
        self._at += 1
        # Go's negated classes take a newline, as Python's do.
        return _negated(ranges) if negated else tuple(ranges)

    def _class_item(self, start: int) -> Ranges:
        pattern = self._pattern
        if (posix := _POSIX_CLASS.match(pattern, self._at)) is not None:
            if posix[2] not in _POSIX:
                raise self._refusal("invalid character class range", posix.group())
            self._at = posix.end()
            ranges = self._set(_POSIX[posix[2]])
            return _negated(ranges) if posix[1] else ranges
        named = self._named_set()
        if named is not None:
            return named
        item = self._at
        low = high = self._class_char(start)
        if pattern.startswith("-", self._at) and pattern[self._at + 1 : self._at + 2] not in ("]", ""):
            self._at += 1
            high = self._class_char(start)
            if high < low:
                raise self._refusal("invalid character class range", pattern[item : self._at])
        return self._set(((ord(low), ord(high)),))

    def _class_char(self, start: int) -> str:
        char = self._pattern[self._at : self._at + 1]
        if not char:
            raise self._refusal("missing closing ]", self._pattern[start:])
        if char == "\\":
            return self._literal_escape()
        self._at += 1
        return char
