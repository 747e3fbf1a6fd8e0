"""
A node's keyring, the keys that its gossip may be encrypted with, and the commands that change the keyrings of all.

A key command is a query of Serf's own (``serf/keymanager.go``), to which each node answers with a `KeyAnswer`.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from typing import Protocol

from twisted.internet.defer import Deferred, DeferredLock

from txserf.embedded import sizes
from txserf.embedded.queries import INTERNAL, Content, KeyAnswer, QueryNode, Question, Refused, RunningQuery
from txserf.model import KeyReply
from txserf.wire import as_bytes

# Serf's answers to key commands where gossip is not encrypted.
_NOT_ENCRYPTED = "No keyring to modify (encryption not enabled)"
_NOTHING_TO_LIST = "Keyring is empty (encryption not enabled)"

_LIST = "list-keys"

# The commands, and the log's words for them.
_INITIATED = {
    "install-key": "key installation",
    "use-key": "primary key change",
    "remove-key": "key removal",
    _LIST: "key listing",
}


class KeyFailure(Exception):
    """A node can't carry out a key command; the text is the node's answer."""


class Keyring:
    """
    Keys. The first of them is the primary one, with which a node encrypts.

    :param keys: base64 of 16, 24 or 32 bytes each.
    """

    def __init__(self, *keys: str) -> None:
        self._keys: list[bytes] = []
        for key in keys:
            self.install(base64.b64decode(key, validate=True))

    @property
    def keys(self) -> list[str]:
        """The keys in base64, the primary one first."""
        return [base64.b64encode(key).decode() for key in self._keys]

    def install(self, key: bytes) -> None:
        """Add a key; one that is there stays where it is."""
        if len(key) not in (16, 24, 32):
            raise KeyFailure("key size must be 16, 24 or 32 bytes")
        if key not in self._keys:
            self._keys.append(key)

    def use(self, key: bytes) -> None:
        """Make a key the primary one."""
        if key not in self._keys:
            raise KeyFailure("Requested key is not in the keyring")
        self._keys.remove(key)
        self._keys.insert(0, key)

    def remove(self, key: bytes) -> None:
        """Remove a key; one that is not there is no failure."""
        if self._keys and key == self._keys[0]:
            raise KeyFailure("Removing the primary key is not allowed")
        if key in self._keys:
            self._keys.remove(key)


class KeyOwner(Protocol):
    """An agent, whose keyring may be replaced while it runs; None where gossip is not encrypted."""

    keyring: Keyring | None


class KeyCommands:
    """
    The key commands at one node: those that it is asked to carry out, and its answers to those of others.

    :param node: the node.
    :param owner: has the keys of that node.
    """

    def __init__(self, node: QueryNode, owner: KeyOwner) -> None:
        self._node = node
        self._owner = owner
        self._lock = DeferredLock()  # changes exclude each other; listings don't

    # -- commands that this node is asked for

    async def run(self, command: str, key: str) -> tuple[str, KeyReply]:
        """
        Have each node do something to its keyring, or list it.

        :param command: the wire name.
        :param key: in base64; empty for a listing.
        :returns: an error, empty for none, and the answers of the nodes.
        """
        self._node.log.write("INFO", f"agent: Initiating {_INITIATED[command]}")
        await self._lock.acquire()
        if command == _LIST:
            self._lock.release()
        try:
            return await self._ask(command, decode_key(key))
        except (KeyFailure, Refused) as failure:
            return str(failure), KeyReply()
        finally:
            if command != _LIST:
                self._lock.release()

    async def _ask(self, command: str, key: bytes) -> tuple[str, KeyReply]:
        nodes = len(self._node.knowledge.present)
        answers: dict[str, KeyAnswer] = {}
        over: Deferred[None] = Deferred()

        def end() -> None:
            if not over.called:
                over.callback(None)

        def answered(node: str, content: Content) -> None:
            if isinstance(content, KeyAnswer) and not over.called:
                answers[node] = content
                if len(answers) == nodes:
                    end()

        running = RunningQuery(lambda _: None, answered, end)
        self._node.queries.ask(f"{INTERNAL}{command}", bytes(6 + sizes.raw(key)), running, key=key)
        await over
        return _result(answers, nodes)

    # -- commands of other nodes

    def answer(self, question: Question) -> KeyAnswer | None:
        """Carry out another node's key command here; None for a query that is none."""
        ring, command = self._owner.keyring, question.name.removeprefix(INTERNAL)
        if command not in _INITIATED:
            return None
        if ring is None:
            return KeyAnswer(False, _NOTHING_TO_LIST if command == _LIST else _NOT_ENCRYPTED)
        if command == _LIST:
            message, keys = listed(ring, question.ltime, self._node.name)
            return KeyAnswer(True, message, tuple(keys))
        change = {"install-key": ring.install, "use-key": ring.use, "remove-key": ring.remove}[command]
        try:
            change(question.key)
        except KeyFailure as failure:
            return KeyAnswer(False, str(failure))
        return KeyAnswer(True)


def _result(answers: Mapping[str, KeyAnswer], nodes: int) -> tuple[str, KeyReply]:
    keys: dict[str, int] = {}
    for answer in answers.values():
        for key in answer.keys:
            keys[key] = keys.get(key, 0) + 1
    messages = {node: answer.message for node, answer in answers.items() if answer.message or not answer.done}
    errors = sum(not answer.done for answer in answers.values())
    error = ""
    if errors:
        error = f"{errors}/{nodes} nodes reported failure"
    elif len(answers) != nodes:
        error = f"{len(answers)}/{nodes} nodes reported success"
    return error, KeyReply(keys, messages, nodes, errors, len(answers))


def listed(ring: Keyring, ltime: int, node: str) -> tuple[str, list[str]]:
    """
    Return a node's answer to ``list-keys``: a message, and as many keys as a response has room for.

    An agent of release 0.9.4 crashes where they don't fit; this follows 0.10.2.
    """
    keys = ring.keys
    primary = keys[0] if keys else ""
    message, shown = "", keys
    count = min(len(keys), sizes.RESPONSE_LIMIT // 25) + 1
    while count and sizes.response(ltime, node, bytes(sizes.key_response(message, shown, primary))) > (
        sizes.RESPONSE_LIMIT
    ):
        count -= 1
        shown = keys[:count]
        message = f"truncated key list response, showing first {count} of {len(keys)} keys"
    return message, shown


_BASE64 = re.compile(r"[A-Za-z0-9+/]")


def decode_key(text: str) -> bytes:
    """
    Decode base64 as Go does.

    :raises KeyFailure: with Go's words, which name the first byte that is wrong.
    """
    raw = as_bytes(text)
    data = raw.replace(b"\r", b"").replace(b"\n", b"")
    # Line ends are skipped, but counted where something is wrong behind them.
    places = [at for at, byte in enumerate(raw) if byte not in b"\r\n"]
    total = len(raw)

    def wrong(index: int) -> KeyFailure:
        return KeyFailure(
            f"illegal base64 data at input byte {places[index] if index < len(places) else total}"
        )

    digits = 0
    while digits < len(data) and _BASE64.match(chr(data[digits])):
        digits += 1
    rest = data[digits:]
    left = digits % 4
    if not rest:
        if left:
            raise KeyFailure(f"illegal base64 data at input byte {total - left}")
    elif rest[:1] != b"=" or left < 2:
        raise wrong(digits)
    elif left == 2 and rest[1:2] != b"=":
        raise wrong(digits if len(rest) > 1 else digits + 1)
    elif len(rest) > 4 - left:
        raise wrong(digits + 4 - left)
    return base64.b64decode(data)
