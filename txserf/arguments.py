"""
Checks of what callers give: arguments of commands, seconds, counts, a reactor.

A check raises `InvalidRequest`. The converters of arguments raise TypeError or ValueError,
of which a row of `txserf.commands` makes an `InvalidRequest`. Nothing here knows a command.
"""

from __future__ import annotations

import math
import re
import stat
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import attrs
from twisted.internet.interfaces import IReactorTime

from txserf import constant, wire
from txserf.errors import InvalidRequest

_INT64 = 2**63 - 1
_UINT64 = 2**64 - 1

#: In nanoseconds, the unit of Serf's own timeouts.
SECOND = 1_000_000_000
_LEAST_TIMEOUT = 1_000_000  # of a query, in nanoseconds: under a millisecond none can work


@attrs.frozen
class Kind:
    """
    The values that an argument may have.

    :ivar name: their description in the docs.
    :ivar convert: checks a value, and returns the one that a request shows. Raises TypeError or ValueError
        with the rest of a sentence that begins with the argument's name.
    :ivar on_wire: makes of that the value to be packed; None: it is the same.
    """

    name: str
    convert: Callable[[Any], Any]
    on_wire: Callable[[Any], Any] | None = None


def _type(value: object) -> str:
    return "None" if value is None else type(value).__name__


# str() of a subclass's instance, such as an enum's member, may be another text.
_plain: Callable[[str], str] = str.__str__


def _text(value: Any) -> str:
    if value.__class__ is str:
        return value
    if isinstance(value, str):
        return _plain(value)
    raise TypeError(f"must be str, not {_type(value)}")


def _filled_text(value: Any) -> str:
    text = _text(value)
    if not text:
        raise ValueError("must not be empty")
    return text


def _payload(value: Any) -> bytes:
    if isinstance(value, str):
        return wire.as_bytes(value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    raise TypeError(f"must be bytes or str, not {_type(value)}")


def _event_payload(value: Any) -> bytes:
    payload = _payload(value)
    limit = constant.PAYLOAD_SIZE_LIMIT
    if limit is not None and len(payload) > limit:
        raise ValueError(f"has {len(payload)} bytes, over the limit of {limit} (constant.PAYLOAD_SIZE_LIMIT)")
    return payload


def _flag(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    raise TypeError(f"must be bool, not {_type(value)}")


def _integer(most: int) -> Callable[[Any], int]:
    def convert(value: Any) -> int:
        if value.__class__ is int and 0 <= value <= most:
            return value
        if not isinstance(value, int) or isinstance(value, bool):
            raise TypeError(f"must be int, not {_type(value)}")
        if not 0 <= value <= most:
            raise ValueError(f"must be from 0 to {most}, not {value}")
        return int(value)

    return convert


def _version(value: Any) -> int:
    if _integer(2**31 - 1)(value) != 1:
        raise ValueError(f"must be 1, the only version of Serf's RPC, not {value}")
    return 1


def _nanoseconds(value: Any) -> int:
    if isinstance(value, timedelta):
        value = (value.days * 86_400 + value.seconds) * SECOND + value.microseconds * 1_000
    nanoseconds = _integer(_INT64)(value)
    if 0 < nanoseconds < _LEAST_TIMEOUT:
        raise ValueError(
            f"is in nanoseconds: {nanoseconds} is under a millisecond (use a timedelta for seconds)"
        )
    return nanoseconds


def _duration(value: Any) -> object:
    if isinstance(value, (int, float, timedelta)) and not isinstance(value, bool):
        return value
    raise TypeError(f"must be a number or a timedelta, not {_type(value)}")


def _texts(value: Any) -> tuple[str, ...]:
    if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Iterable):
        raise TypeError(f"must be a list of str, not {_type(value)}")
    items = tuple(value)
    for item in items:
        if not isinstance(item, str):
            raise TypeError(f"must be a list of str, but holds {_type(item)}")
    return tuple(map(_plain, items))


def _text_map(value: Any) -> dict[str, str]:
    if not isinstance(value, Mapping):
        raise TypeError(f"must be a dict of str to str, not {_type(value)}")
    for key, item in value.items():
        if not isinstance(key, str) or not isinstance(item, str):
            raise TypeError(f"must be a dict of str to str, but holds {_type(key)} to {_type(item)}")
    return {_plain(key): _plain(item) for key, item in value.items()}


def _payload_on_wire(payload: bytes) -> bytes | None:
    # An empty payload goes as nil: a 0.10 agent refuses a ``_serf_ping`` with an empty bin.
    return payload or None


# The parts of a pattern of Go's in which an alternation or a group may begin or end. Quoted text, escapes and
# classes are parts of their own; the last of them may have no end.
_PATTERN_PART = r"""(?xs)
    (?P<quote> \\Q (?: (?!\\E). )* (?P<end> \\E )? )
    | \\.
    | \[ \^? \]? (?: \[:\^?\w+:\] | \\. | [^\]\\] )* \]?
    | [(|)]
"""


def whole(pattern: str) -> str:
    """
    Return a pattern that matches whole texts where an agent puts it between ``^`` and ``$``.

    The agent does so without a group, so that ``a|b`` would match all that begins with a or ends in b. One that
    has such an alternation gets a group. All others are returned as they are, also one with a ``)`` too many:
    a group could make it valid.
    """
    if "|" not in pattern:
        return pattern
    outline = _outline(pattern)
    return f"(?:{pattern}{outline.end})" if outline.closed and outline.alternation else pattern


def anywhere(pattern: str) -> str:
    """
    Return a pattern that matches whole texts, between ``^`` and ``$``, if *pattern* matches anywhere in them.

    So it selects by ``members-filtered`` the members that *pattern* selects in a query. It compiles if, and only
    if, *pattern* does.
    """
    outline = _outline(pattern)
    return f"(?s:.*)(?:{pattern}{outline.end})(?s:.*)" if outline.closed else pattern


class _Outline(NamedTuple):
    """
    The groups of a pattern.

    :ivar closed: whether no ``)`` is without its ``(``.
    :ivar alternation: whether there is a ``|`` outside of all groups.
    :ivar end: the text that ends a quotation that is still open.
    """

    closed: bool
    alternation: bool
    end: str


def _outline(pattern: str) -> _Outline:
    depth, alternation, end = 0, False, ""
    for part in re.finditer(_PATTERN_PART, pattern):
        end = ""
        match part.group():
            case "(":
                depth += 1
            case ")":
                depth -= 1
                if depth < 0:
                    return _Outline(False, alternation, end)
            case "|":
                alternation = alternation or depth == 0
            case _ if part["quote"] and not part["end"]:
                end = "\\E"  # else the end of the group would be quoted, too
    return _Outline(True, alternation, end)


def _whole_texts(patterns: dict[str, str]) -> dict[str, str]:
    return {tag: whole(pattern) for tag, pattern in patterns.items()}


TEXT = Kind("str", _text)
FILLED_TEXT = Kind("str, not empty", _filled_text)
PATTERN = Kind("str", _text, whole)
PAYLOAD = Kind("bytes or str", _payload, _payload_on_wire)
EVENT_PAYLOAD = Kind("bytes or str, up to constant.PAYLOAD_SIZE_LIMIT", _event_payload, _payload_on_wire)
FLAG = Kind("bool", _flag)
VERSION = Kind("1", _version)
UINT8 = Kind("int, 0 to 255", _integer(255))
UINT64 = Kind("int, 0 to 2^64-1", _integer(_UINT64))
NANOSECONDS = Kind("int of nanoseconds (0: the agent's default) or timedelta", _nanoseconds)
DURATION = Kind("number or timedelta", _duration)
TEXTS = Kind("list of str", _texts)
TEXT_MAP = Kind("dict of str to str", _text_map)
PATTERN_MAP = Kind("dict of str to str", _text_map, _whole_texts)

#: The default of an argument that has to be given.
REQUIRED: Any = object()


@attrs.frozen
class Arg:
    """
    An argument of a command.

    :ivar name: Serf's own name for it.
    :ivar python: its name in the typed API.
    :ivar default: the value where the caller gives none; without a default, it is `required`.
    :ivar secret: whether it is shown as ``'***'``.
    :ivar sent: False for one that is checked and not sent, for no agent knows it.
    """

    name: str
    kind: Kind
    python: str
    default: Any = REQUIRED
    secret: bool = False
    sent: bool = True

    @property
    def required(self) -> bool:
        return self.default is REQUIRED


def reactor_or_global(reactor: Any = None) -> Any:
    """Return *reactor*, or the global one where it is None. Call it at the time of use: importing txserf installs none."""
    if reactor is None:
        from twisted.internet import reactor
    return reactor


def time_source(reactor: object | None) -> IReactorTime:
    """Return *reactor*, or the global one where it is None; TypeError for an object without a clock."""
    return IReactorTime(reactor_or_global(reactor))


def seconds(value: object, what: str) -> float:
    """Return a number of seconds that a caller gave; raise `InvalidRequest` for anything else."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        try:
            number = float(value)
        except OverflowError:
            raise InvalidRequest(f"{what} is no number of seconds that a float can hold") from None
        if number >= 0:  # NaN is not
            return number
    raise InvalidRequest(f"{what} must be a number of seconds, not {value!r}")


def limit(value: object, what: str) -> float:
    """Return a time limit in seconds, above 0 and finite; raise `InvalidRequest` for anything else."""
    number = seconds(value, what)
    if 0 < number < math.inf:
        return number
    raise InvalidRequest(f"{what} must be a number of seconds above 0, not {value!r}")


def count(value: Any, what: str) -> int:
    """Return a number of things, at least 1; raise `InvalidRequest` for anything else."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 1:
        return value
    raise InvalidRequest(f"{what} must be an int of at least 1, not {value!r}")


_FILE_KINDS = {stat.S_IFDIR: "a directory", stat.S_IFIFO: "a FIFO", stat.S_IFSOCK: "a socket"}


def what_it_is(path: Path) -> str | None:
    """
    Return the kind of what is at a path, for a refusal: "a FIFO", to read which would wait for its writer.

    :returns: None for a regular file, and for a link to one.
    :raises OSError: `FileNotFoundError` if nothing is there, for instance.
    """
    mode = path.stat().st_mode
    return None if stat.S_ISREG(mode) else _FILE_KINDS.get(stat.S_IFMT(mode), "a device")


def nanoseconds(timeout: float | None) -> int:
    """
    Return a query's timeout as it is sent.

    :param timeout: seconds, at least 0.001; None: the agent's own timeout, which is 0 on the wire.
    :raises InvalidRequest: for anything else.
    """
    if timeout is None:
        return 0
    least, most = _LEAST_TIMEOUT / SECOND, _INT64 // 2 // SECOND
    if not least <= seconds(timeout, "query: timeout") <= most:
        raise InvalidRequest(f"query: timeout must be from {least} s to {most} s, not {timeout}")
    return round(timeout * SECOND)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """
    Name the known word that is nearest to *word*, for the end of a refusal.

    :returns: such as ``" (did you mean Status?)"``; empty where no known word is near. The case of
        letters does not count.
    """
    from difflib import get_close_matches  # here, for few programs ever need it

    by_folded = {name.casefold(): name for name in known}
    near = get_close_matches(word.casefold(), by_folded, n=1)
    return f" (did you mean {by_folded[near[0]]}?)" if near else ""
