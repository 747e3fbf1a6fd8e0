"""The contract tests cover every row of the command table, and every error that a test can cause."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.contract.harness import UNUSED, Nodes, in_reactor
from txserf import commands

#: By wire name, the objects after the header of a request that succeeds on an encrypted cluster.
BODIES: dict[str, list[Any]] = {
    "handshake": [{"Version": 1}],
    "auth": [{"AuthKey": ""}],
    "event": [{"Name": "deploy", "Payload": b"v2", "Coalesce": True}],
    "force-leave": [{"Node": "nobody", "Prune": False}],
    "join": [{"Existing": [], "Replay": False}],
    "members": [],
    "members-filtered": [{"Tags": {}, "Status": "", "Name": ""}],
    "tags": [{"Tags": {"role": "web"}, "DeleteTags": []}],
    "stream": [{"Type": "*"}],
    "monitor": [{"LogLevel": "INFO"}],
    "stop": [{"Stop": UNUSED}],
    "leave": [],
    "query": [{"Name": "load", "Timeout": 5_000_000_000}],
    "respond": [{"ID": 1, "Payload": b"x"}],
    "install-key": [{"Key": "a2tra2tra2tra2tra2traw=="}],
    "use-key": [{"Key": "a2tra2tra2tra2tra2traw=="}],
    "remove-key": [{"Key": "bGxsbGxsbGxsbGxsbGxsbA=="}],
    "list-keys": [],
    "stats": [],
    "get-coordinate": [{"Node": "n1"}],
}

#: The errors of an agent, without those that depend on timing or on failing gossip.
ERRORS = [
    "Handshake required",
    "Unsupported IPC version",
    "Handshake already performed",
    "Authentication required",
    "Invalid authentication token",
    "Unsupported command",
    "Invalid event filter",
    "Stream with given sequence exists",
    "Monitor already exists",
    "Unknown log level: ",
    "No pending queries matching ID",
    "failed to respond to key query: response already sent",
    "failed to respond to key query: response exceeds limit of 1024 bytes",
    "user event exceeds configured limit of 512 bytes before encoding",
    "encoded user event exceeds configured limit of 512 bytes after encoding",
    "query exceeds limit of 1024 bytes",
    "Queries cannot contain the '_serf_' prefix",
    "Encoded length of tags exceeds limit of 512 bytes",
    " occurred:",
    "Failed to join 127.0.0.1: dial tcp 127.0.0.1:1: connect: connection refused",
    "Failed to resolve a:b:c: lookup a:b:c: no such host",
    "i/o timeout",
    "Serf can't Join after Leave or Shutdown",
    "Leave already in progress",
    "2/2 nodes reported failure",
    "1/2 nodes reported success",
    "illegal base64 data at input byte ",
    "Keyring is empty (encryption not enabled)",
    "No keyring to modify (encryption not enabled)",
    "key size must be 16, 24 or 32 bytes",
    "Requested key is not in the keyring",
    "Removing the primary key is not allowed",
]


@in_reactor
async def test_each_command_is_answered_as_its_row_says(encrypted: Nodes) -> None:
    """One test for all rows: `Raw.reply` reads a body where the table says that one follows."""
    raw, far = await encrypted.connect(shaken=False), await encrypted.connect(1)
    stream = await far.opened("stream", {"Type": "query:load"})
    for row in [each for each in commands.TABLE if each.wire not in ("leave", "respond")]:
        seq = raw.request(row.wire, *BODIES[row.wire])
        error, body = await raw.reply(row.wire, seq)
        assert error == "", f"{row.wire}: {error}"
        assert (body is not None) == row.body_on_success
    await raw.ok("stop", {"Stop": UNUSED})
    event = await far.record(stream)
    assert await far.call("respond", {"ID": event["ID"]}) == ("", None)
    assert await raw.call("leave") == ("", None)


@pytest.mark.parametrize("text", ERRORS)
def test_each_error_is_in_a_test(text: str) -> None:
    here = Path(__file__)
    sources = [path.read_text() for path in here.parent.glob("test_*.py") if path != here]
    assert any(text in source.replace("{'s' if len(reasons) > 1 else ''}", "") for source in sources)


def test_each_command_is_in_the_suite() -> None:
    assert sorted(BODIES) == sorted(commands.BY_WIRE)
