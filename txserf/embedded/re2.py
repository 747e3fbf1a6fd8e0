"""
Go's regular expressions in Python's `re`.

Serf's filters are in Go's syntax (RE2). What Go takes is translated piece by
piece; what Go refuses is refused, be it valid in Python. Groups don't capture,
for a filter only asks whether something matches.

Not translated: ``\\p{...}`` other than the general categories' ASCII part, and
``\\C``. Time is not bounded as it is in Go: this is for tests.
"""

from __future__ import annotations

import functools
import re
import warnings

_MOST_REPEATS = 1000

_PERL = {
    "d": "0-9",
    "D": "\\x00-/:-\\U0010ffff",
    "s": "\\t\\n\\f\\r ",
    "S": "\\x00-\\x08\\x0b\\x0e-\\x1f!-\\U0010ffff",
    "w": "0-9A-Za-z_",
    "W": "\\x00-/:-@\\[-\\^`\\{-\\U0010ffff",
}
_POSIX = {
    "alnum": "0-9A-Za-z",
    "alpha": "A-Za-z",
    "ascii": "\\x00-\\x7f",
    "blank": "\\t ",
    "cntrl": "\\x00-\\x1f\\x7f",
    "digit": "0-9",
    "graph": "!-~",
    "lower": "a-z",
    "print": " -~",
    "punct": "!-/:-@\\[-`\\{-~",
    "space": "\\t-\\r ",
    "upper": "A-Z",
    "word": "0-9A-Za-z_",
    "xdigit": "0-9A-Fa-f",
}
_NOT_POSIX = {
    "alnum": "\\x00-/:-@\\[-`\\{-\\U0010ffff",
    "alpha": "\\x00-@\\[-`\\{-\\U0010ffff",
    "ascii": "\\x80-\\U0010ffff",
    "blank": "\\x00-\\x08\\n-\\x1f!-\\U0010ffff",
    "cntrl": " -~\\x80-\\U0010ffff",
    "digit": _PERL["D"],
    "graph": "\\x00- \\x7f-\\U0010ffff",
    "lower": "\\x00-`\\{-\\U0010ffff",
    "print": "\\x00-\\x1f\\x7f-\\U0010ffff",
    "punct": "\\x00- 0-9A-Za-z\\x7f-\\U0010ffff",
    "space": "\\x00-\\x08\\x0e-\\x1f!-\\U0010ffff",
    "upper": "\\x00-@\\[-\\U0010ffff",
    "word": _PERL["W"],
    "xdigit": "\\x00-/:-@G-`g-\\U0010ffff",
}
_CATEGORIES = {
    "L": "[^\\W\\d_]",
    "N": "\\d",
    "Lu": "[A-ZÀ-ÖØ-Þ]",
    "Ll": "[a-zß-öø-ÿ]",
    "Nd": "\\d",
}
_CONTROL = {"a": "\a", "f": "\f", "t": "\t", "n": "\n", "r": "\r", "v": "\v"}
_REPEAT = re.compile(r"\{(\d+)(?:(,)(\d*))?\}", re.ASCII)
_FLAGS = re.compile(r"\(\?([imsU]*)(?:(-)([imsU]+))?([:)])")
_NAME = re.compile(r"\(\?P<(\w+)>", re.ASCII)


class BadPattern(ValueError):
    """Go would not compile this pattern; the text is what Go says, or near to it."""


@functools.lru_cache(maxsize=256)
def compile_pattern(pattern: str) -> re.Pattern[str]:
    """
    Compile a pattern of Go's, for `re.Pattern.search`.

    :raises BadPattern: where Go would refuse it.
    """
    if any("\ud800" <= char <= "\udfff" for char in pattern):
        raise BadPattern(f"error parsing regexp: invalid UTF-8: `{pattern!a}`")
    translated = _Translator(pattern).translate()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return re.compile(translated)
    except (re.error, OverflowError, RecursionError) as error:
        raise BadPattern(f"error parsing regexp: {error}: `{pattern}`") from None


def _escaped(char: str) -> str:
    return re.escape(char) if char.isascii() else char


class _Translator:
    """
    Reads a pattern once from left to right.

    :ivar flags: those in force; of each enclosing group its own are kept on `_groups`.
    """

    def __init__(self, pattern: str) -> None:
        self._pattern = pattern
        self._at = 0
        self._out: list[str] = []
        self._flags = frozenset[str]()
        self._groups: list[frozenset[str]] = []
        self._can_repeat = False
        self._repeated = False

    def translate(self) -> str:
        pattern = self._pattern
        while self._at < len(pattern):
            char = pattern[self._at]
            if char == "\\" and pattern.startswith("\\Q", self._at):
                self._quoted()
            elif char in "*+?" or (char == "{" and _REPEAT.match(pattern, self._at)):
                self._repeat()
            elif char == "(":
                self._open()
            elif char in ")|":
                self._close(char)
            else:
                self._emit(self._atom(char))
        if self._groups:
            raise self._refusal("missing closing )", pattern)
        return "".join(self._out)

    def _refusal(self, reason: str, part: str) -> BadPattern:
        return BadPattern(f"error parsing regexp: {reason}: `{part}`")

    def _emit(self, atom: str) -> None:
        self._out.append(atom)
        self._can_repeat, self._repeated = True, False

    def _atom(self, char: str) -> str:
        self._at += 1
        if char == "[":
            return self._folded(self._char_class())
        if char == "\\":
            return self._escape()
        if char == "^":
            return "(?:(?m:^))" if "m" in self._flags else "(?:\\A)"
        if char == "$":
            return "(?:(?m:$))" if "m" in self._flags else "(?:\\Z)"
        if char == ".":
            return "(?s:.)" if "s" in self._flags else "[^\\n]"
        return self._folded(_escaped(char))

    def _folded(self, piece: str) -> str:
        return f"(?i:{piece})" if "i" in self._flags else piece

    def _quoted(self) -> None:
        end = self._pattern.find("\\E", self._at)
        stop = len(self._pattern) if end < 0 else end
        for char in self._pattern[self._at + 2 : stop]:
            self._emit(self._folded(_escaped(char)))
        self._at = stop if end < 0 else end + 2

    def _repeat(self) -> None:
        start, match = self._at, _REPEAT.match(self._pattern, self._at)
        operator = self._pattern[start] if match is None else match.group()
        self._at += len(operator)
        lazy = self._pattern.startswith("?", self._at)
        self._at += lazy
        if self._repeated:
            raise self._refusal("invalid nested repetition operator", self._pattern[start : self._at])
        if not self._can_repeat:
            raise self._refusal("missing argument to repetition operator", operator)
        if match is not None:
            least, most = int(match[1]), int(match[3] or match[1])
            if max(least, most) > _MOST_REPEATS or most < least:
                raise self._refusal("invalid repeat count", operator)
        self._out.append(operator + ("?" if lazy != ("U" in self._flags) else ""))
        self._repeated = True

    def _open(self) -> None:
        pattern = self._pattern
        self._groups.append(self._flags)
        if len(self._groups) > 200:
            raise self._refusal("expression nests too deeply", pattern)
        if not pattern.startswith("(?", self._at):
            self._at += 1
        elif (name := _NAME.match(pattern, self._at)) is not None:
            self._at = name.end()
        elif (flags := _FLAGS.match(pattern, self._at)) is not None:
            self._at = flags.end()
            self._flags = self._flags | set(flags[1]) - set(flags[3] or "")
            if flags[4] == ")":  # they hold to the end of the group that is open already
                self._groups.pop()
                self._can_repeat = False
                return
        else:
            raise self._refusal("invalid or unsupported Perl syntax", pattern[self._at : self._at + 3])
        self._out.append("(?:")
        self._can_repeat = False

    def _close(self, char: str) -> None:
        self._at += 1
        if char == ")":
            if not self._groups:
                raise self._refusal("unexpected )", self._pattern)
            self._flags = self._groups.pop()
        self._out.append(char)
        self._can_repeat, self._repeated = char == ")", False

    def _escape(self) -> str:
        pattern = self._pattern
        if self._at >= len(pattern):
            raise self._refusal("trailing backslash at end of expression", "")
        char = pattern[self._at]
        if char in "AbBz":
            self._at += 1
            return {"A": "(?:\\A)", "z": "(?:\\Z)"}.get(char, f"(?a:\\{char})")
        if char in _PERL:
            self._at += 1
            return f"[{_PERL[char]}]"
        if char in "pP":
            return self._category()
        return self._folded(_escaped(self._literal_escape()))

    def _category(self) -> str:
        match = re.compile(r"([pP])(?:\{(\^?)(\w+)\}|(\w))").match(self._pattern, self._at)
        name = (match[3] or match[4]) if match else ""
        if match is None or name not in _CATEGORIES:
            raise self._refusal("invalid character class range", f"\\{self._pattern[self._at :]}")
        self._at = match.end()
        negated = (match[1] == "P") != bool(match[2])
        return f"(?:(?!{_CATEGORIES[name]})(?s:.))" if negated else _CATEGORIES[name]

    def _literal_escape(self) -> str:
        """Return the character that an escape stands for, the backslash having been read."""
        pattern, start = self._pattern, self._at
        if start >= len(pattern):
            raise self._refusal("trailing backslash at end of expression", "")
        char = pattern[start]
        self._at += 1
        if char in _CONTROL:
            return _CONTROL[char]
        if char == "x":
            match = re.compile(r"x(?:\{([0-9A-Fa-f]+)\}|([0-9A-Fa-f]{2}))").match(pattern, start)
            if match is not None and (code := int(match[1] or match[2], 16)) <= 0x10FFFF:
                self._at = match.end()
                return chr(code)
        elif char in "01234567":
            match = re.compile(r"0[0-7]{0,2}|[1-7][0-7]{1,2}").match(pattern, start)
            if match is not None:
                self._at = match.end()
                return chr(int(match.group(), 8))
        elif char.isascii() and not char.isalnum():
            return char
        raise self._refusal("invalid escape sequence", "\\" + char)

    def _char_class(self) -> str:
        """Translate a class, its opening bracket having been read."""
        pattern, start = self._pattern, self._at - 1
        negated = pattern.startswith("^", self._at)
        self._at += negated
        pieces: list[str] = []
        while True:
            if self._at >= len(pattern):
                raise self._refusal("missing closing ]", pattern[start:])
            if pattern[self._at] == "]" and pieces:
                self._at += 1
                break
            pieces.append(self._class_item(start))
        # Go's negated classes take a newline, as Python's do.
        return f"[{'^' if negated else ''}{''.join(pieces)}]"

    def _class_item(self, start: int) -> str:
        pattern = self._pattern
        if pattern.startswith("[:", self._at) and (end := pattern.find(":]", self._at)) >= 0:
            name = pattern[self._at + 2 : end]
            table = _NOT_POSIX if name.startswith("^") else _POSIX
            if name.lstrip("^") not in table:
                raise self._refusal("invalid character class range", f"[:{name}:]")
            self._at = end + 2
            return table[name.lstrip("^")]
        if pattern[self._at] == "\\" and pattern[self._at + 1 : self._at + 2] in _PERL:
            self._at += 2
            return _PERL[pattern[self._at - 1]]
        low = self._class_char()
        if pattern.startswith("-", self._at) and pattern[self._at + 1 : self._at + 2] not in ("]", ""):
            self._at += 1
            high = self._class_char()
            if high < low:
                raise self._refusal("invalid character class range", pattern[start : self._at])
            return f"{_escaped(low)}-{_escaped(high)}"
        return _escaped(low)

    def _class_char(self) -> str:
        char = self._pattern[self._at]
        self._at += 1
        return self._literal_escape() if char == "\\" else char
