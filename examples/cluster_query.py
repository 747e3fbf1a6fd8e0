"""
Ask all members a question, and print those that did not answer.

    python cluster_query.py uptime

On each node a handler of its agent answers (``serf agent -event-handler query:uptime=uptime``),
or a program that follows ``query:uptime`` and calls ``event.respond(...)``.
"""

from __future__ import annotations

import argparse
from typing import Any

from twisted.internet.task import react

import txserf


async def main(reactor: Any, options: argparse.Namespace) -> None:
    async with txserf.Serf() as serf:
        alive = {member.name for member in await serf.members(status="alive")}
        # Without `expect` the query would last until the timeout, even after all have answered.
        query = serf.query(options.name, options.payload, expect=len(alive), timeout=options.timeout)
        async for item in query:
            if isinstance(item, txserf.Answer):
                print(f"{item.node}: {item.payload.decode(errors='replace').strip()}")
        result = await query
        silent = alive - result.responses.keys()
        for node in sorted(silent):
            print(f"{node}: no answer" + ("" if node in result.acks else ", the query never reached it"))
        if silent:
            raise SystemExit(1)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Ask all members a question.")
    parser.add_argument("name")
    parser.add_argument("payload", nargs="?", default="")
    parser.add_argument("--timeout", type=float, default=5.0, metavar="SECONDS")
    react(main, [parser.parse_args()])
