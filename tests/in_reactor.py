"""Helpers for tests that run in the global reactor, under pytest-twisted."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import pytest_twisted  # type: ignore[import-untyped]  # it ships no types
from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred

T = TypeVar("T")

reactor: Any = _reactor

#: Seconds that a test may take. Then it is cancelled, so that its traceback shows where it waited.
LIMIT = 40.0

#: A Seq that is never used. To ``stop`` it has no effect, and is a round trip to the agent.
UNUSED = 2**63


def in_reactor(test: Callable[..., Awaitable[None]]) -> Callable[..., Deferred[None]]:
    """Run an async test in the reactor, for at most `LIMIT` seconds."""

    @functools.wraps(test)
    def limited(*args: Any, **kwargs: Any) -> Deferred[None]:
        async def run() -> None:
            await test(*args, **kwargs)

        return Deferred.fromCoroutine(run()).addTimeout(LIMIT, reactor)

    marked: Callable[..., Deferred[None]] = pytest_twisted.ensureDeferred(limited)
    return marked


def wait_for(result: Deferred[T]) -> T:
    """Run the reactor until a Deferred has fired, and return its result. For fixtures, which can't await."""
    value: T = pytest_twisted.blockon(result)
    return value
