"""What callers give that is no command's argument: numbers of seconds, and of things."""

from __future__ import annotations

from typing import Any

from txserf.errors import InvalidRequest


def seconds(value: object, what: str) -> float:
    """Return a time in seconds that a caller gave; `InvalidRequest` for what is none."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        try:
            number = float(value)
        except OverflowError:
            raise InvalidRequest(f"{what} is no number of seconds that a float can hold") from None
        if number >= 0:  # NaN is not
            return number
    raise InvalidRequest(f"{what} must be a number of seconds, not {value!r}")


def count(value: Any, what: str) -> int:
    """Return a number of things, at least 1, that a caller gave; `InvalidRequest` for what is none."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 1:
        return value
    raise InvalidRequest(f"{what} must be an int of at least 1, not {value!r}")
