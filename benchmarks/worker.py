"""
The process of one subject: it measures once for each line that it reads, and prints the turn as JSON.

`turns` starts it: ``python -m benchmarks.worker TABLE SUBJECT SETTING``.
"""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator, Iterator
from typing import Any

import attrs

from benchmarks.harness import Setting, Turn
from benchmarks.tables import TABLES


def install(reactor: str) -> None:
    """Install a reactor by its name."""
    from twisted.application.reactors import installReactor

    if reactor == "uvloop":
        import uvloop
        from twisted.internet import asyncioreactor

        asyncioreactor.install(uvloop.new_event_loop())
    elif reactor:
        installReactor(reactor)


def tell(turn: Turn) -> None:
    print(json.dumps([attrs.asdict(sample) for sample in turn]), flush=True)


async def follow(reactor: Any, turns: AsyncIterator[Turn]) -> None:
    # Reading blocks the reactor. Nothing is under way then.
    while sys.stdin.readline():
        tell(await anext(turns))
    await turns.aclose()  # type: ignore[attr-defined]  # it is a generator


def main(table: str, subject: str, setting: str) -> None:
    (found,) = (each for each in TABLES[table].subjects if each.name == subject)
    assert found.measure is not None, f"{subject} is a program of its own"
    turns = found.measure(Setting.from_json(setting))
    if isinstance(turns, Iterator):
        while sys.stdin.readline():
            tell(next(turns))
        return
    install(found.reactor)
    from twisted.internet import reactor
    from twisted.internet.task import react

    react(follow, [turns], _reactor=reactor)


if __name__ == "__main__":
    main(*sys.argv[1:])
