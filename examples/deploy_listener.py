"""
Run a command for each ``deploy`` event, one after the other.

    python deploy_listener.py ./deploy.sh --now

The event's payload is the command's standard input. Send one with ``serf event deploy v2``.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from twisted.internet.task import react
from twisted.internet.utils import getProcessOutputAndValue

import txserf


async def main(reactor: Any, program: str, *arguments: str) -> None:
    async with txserf.Serf() as serf:
        events = serf.stream("user:deploy", gaps=True)
        await events.when_active()
        print("waiting for events", flush=True)
        async for event in events:
            if isinstance(event, txserf.Gap):
                print("the agent was away: an event may have been missed", flush=True)
            elif isinstance(event, txserf.UserEvent):
                out, err, code = await getProcessOutputAndValue(
                    program, arguments, env=os.environ, reactor=reactor, stdinBytes=event.payload
                )
                print(f"deploy {event.ltime}: exit code {code}: {(out + err).decode()!r}", flush=True)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    react(main, sys.argv[1:])
