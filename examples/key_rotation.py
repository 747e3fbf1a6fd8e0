"""
Replace the key that encrypts the cluster's gossip.

    python key_rotation.py              a new random key
    python key_rotation.py KEY          this key, in the form that ``serf keygen`` prints

Each step has to succeed on every node before the next one begins. So any two nodes always have
a key in common. If a step fails, run it again with the key that it printed.
"""

from __future__ import annotations

import base64
import os
import sys
from typing import Any

from twisted.internet.task import react

import txserf


async def main(reactor: Any, key: str) -> None:
    async with txserf.Serf() as serf:
        try:
            old = set((await serf.list_keys()).keys) - {key}
            print(f"the new key is {key}")
            await serf.install_key(key)
            await serf.use_key(key)
            for unwanted in old:
                await serf.remove_key(unwanted)
            reply = await serf.list_keys()
        except txserf.KeyringError as error:
            for node, message in error.reply.messages.items():
                print(f"{node}: {message}")
            raise SystemExit(f"{error.command} failed: {error.message}") from None
        assert reply.keys == {key: reply.nodes}, "a node has joined meanwhile, or somebody else rotates too"
        print(f"{reply.nodes} nodes have it, and no other")


if __name__ == "__main__":
    react(main, sys.argv[1:] or [base64.b64encode(os.urandom(32)).decode()])
