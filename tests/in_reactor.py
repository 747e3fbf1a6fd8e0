"""Tests that run in the global reactor, under pytest-twisted."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import pytest_twisted  # type: ignore[import-untyped]  # it ships no types
from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred

T = TypeVar("T")

reactor: Any = _reactor

#: Seconds that a test may take, cancelled then: its traceback tells what it waited for.
LIMIT = 40.0

#: A Seq that nothing has: a ``stop`` of it is a round trip without any effect.
UNUSED = 2**63


def in_reactor(test: Callable[..., Awaitable[None]]) -> Callable[..., Deferred[None]]:
    """Run an async test, with a limit on all of it."""

    @functools.wraps(test)
    def limited(*args: Any, **kwargs: Any) -> Deferred[None]:
        async def run() -> None:
            await test(*args, **kwargs)

        return Deferred.fromCoroutine(run()).addTimeout(LIMIT, reactor)

    marked: Callable[..., Deferred[None]] = pytest_twisted.ensureDeferred(limited)
    return marked


def wait_for(result: Deferred[T]) -> T:
    """Wait for a Deferred outside of the reactor, as a fixture has to."""
    value: T = pytest_twisted.blockon(result)
    return value
