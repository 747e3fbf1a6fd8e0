"""
Keep a hosts file of the members that are alive, until it is ended.

    SERF_RPC_ADDR=10.0.0.1,10.0.0.2 python hosts_file.py /etc/hosts.serf [COMMAND]

It writes the file again when members come and go, and runs the command then. It needs ``txserf[templates]``.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import react
from twisted.logger import globalLogBeginner, textFileLogObserver

import txserf

SOURCE = Path(__file__).parent / "hosts.j2"


async def main(reactor: Any, destination: str, command: str | None = None) -> None:
    globalLogBeginner.beginLoggingTo([textFileLogObserver(sys.stdout)], redirectStandardIO=False)
    async with txserf.Serf() as serf:
        template = txserf.Template(txserf.ClusterView(serf), SOURCE, destination, reload=command)
        template.startService()
        reactor.addSystemEventTrigger("before", "shutdown", template.stopService)
        await Deferred()  # until it is ended


if __name__ == "__main__":
    react(main, sys.argv[1:])
