"""
Run the handlers of a node: deploy by a script, answer queries for its load, print failed members.

    python node_handlers.py ./deploy.sh

The event's payload is the script's standard input. Try ``serf event deploy v2`` and ``serf query load``.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import react

import txserf

router = txserf.Router()


@router.query("load")
def load(event: txserf.QueryEvent) -> str:
    return f"{os.getloadavg()[0]:.2f}"


@router.user_event("deploy")
def deployed(event: txserf.UserEvent) -> None:
    print(f"deploy {event.ltime} is done", flush=True)


@router.member_event("failed", "join")
def changed(event: txserf.MemberEvent) -> None:
    print(event.kind, *(member.name for member in event.members), flush=True)


async def main(reactor: Any, script: str) -> None:
    handlers = txserf.Router()
    handlers.add_script(f"user:deploy={script}")
    handlers.include(router)
    service = handlers.bind(txserf.Serf(), timeout=300)
    service.startService()

    def finish() -> Deferred[None]:
        print("finishing what has come", flush=True)
        return service.stopService()

    reactor.addSystemEventTrigger("before", "shutdown", finish)
    await service.when_active()
    print("waiting for events", flush=True)
    await Deferred()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    react(main, sys.argv[1:])
