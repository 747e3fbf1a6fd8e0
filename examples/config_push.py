"""
Send a small file to all nodes by an event, and check that they have it.

    python config_push.py follow /etc/app.conf      on each node
    python config_push.py push app.conf             anywhere

A user event has room for some 480 bytes.
"""

from __future__ import annotations

import argparse
import hashlib
import os
from pathlib import Path
from typing import Any

from twisted.internet.task import react

import txserf


def digest(content: bytes) -> bytes:
    return hashlib.sha256(content).hexdigest().encode()


async def follow(serf: txserf.Serf, path: Path) -> None:
    newest = 0
    events = serf.stream("user:config,query:config")
    await events.when_active()
    print("following", flush=True)
    async for event in events:
        if isinstance(event, txserf.QueryEvent):
            await event.respond(digest(path.read_bytes()) if path.exists() else b"nothing")
        elif isinstance(event, txserf.UserEvent) and event.ltime > newest:
            newest = event.ltime
            new = path.with_name(path.name + ".new")
            new.write_bytes(event.payload)
            os.replace(new, path)  # so that nobody reads half a file
            print(f"{path.name}: {len(event.payload)} bytes", flush=True)


async def push(serf: txserf.Serf, path: Path) -> None:
    content = path.read_bytes()
    try:
        await serf.event("config", content, coalesce=False)
    except txserf.RpcError as error:
        raise SystemExit(f"the agent says: {error.message}") from None
    alive = await serf.members(status="alive")
    missing = {member.name for member in alive}
    for _ in range(5):  # a query can overtake an event: ask again the nodes that had the old file
        query = serf.query("config", nodes=sorted(missing), expect=len(missing), timeout=1)
        answers = (await query).responses
        missing -= {node for node, answer in answers.items() if answer == digest(content)}
        if not missing:
            print(f"{len(alive)} nodes have {path.name}")
            return
    raise SystemExit(f"no {path.name} on {', '.join(sorted(missing))}")


async def main(reactor: Any, options: argparse.Namespace) -> None:
    async with txserf.Serf() as serf:
        await (push if options.what == "push" else follow)(serf, options.path)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Send a small file to all nodes.")
    parser.add_argument("what", choices=("push", "follow"))
    parser.add_argument("path", type=Path)
    react(main, [parser.parse_args()])
