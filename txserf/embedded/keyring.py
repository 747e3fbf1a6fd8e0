"""A node's keyring: the keys that its gossip may be encrypted with."""

from __future__ import annotations

import base64
import re

from txserf.embedded import sizes
from txserf.wire import as_bytes

#: What Serf answers for a key command where gossip is not encrypted.
NOT_ENCRYPTED = "No keyring to modify (encryption not enabled)"
NOTHING_TO_LIST = "Keyring is empty (encryption not enabled)"


class KeyFailure(Exception):
    """A node can't do what a key command asks for; its text is what the node reports."""


class Keyring:
    """
    Keys, the first of them the primary one: what is sent is encrypted with it.

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


def listed(ring: Keyring, ltime: int, node: str) -> tuple[str, list[str]]:
    """
    Return what a node answers to ``list-keys``: a message, and as many keys as a response has room for.

    An agent of release 0.9.4 crashes where they don't fit; this is what 0.10.2 does.
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
