"""The key commands."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from tests.contract.harness import Nodes, Reply, in_reactor, reactor, takes

KEY = base64.b64encode(b"k" * 32).decode()
SHORT = base64.b64encode(b"k" * 16).decode()
CHANGES = ["install-key", "use-key", "remove-key"]


def body(
    nodes: int = 2, messages: str = "", errors: int = 0, keys: Any = None, responses: int | None = None
) -> dict[str, Any]:
    """Return the body of a key command's reply."""
    return {
        "Keys": keys,
        "Messages": {f"n{number}": messages for number in range(1, errors + 1)},
        "NumErr": errors,
        "NumNodes": nodes,
        "NumResp": nodes if responses is None else responses,
    }


async def keys_of(raw: Any) -> dict[str, int]:
    listed = await raw.ok("list-keys")
    assert list(listed) == ["Keys", "Messages", "NumErr", "NumNodes", "NumResp"]
    keys: dict[str, int] = listed["Keys"]
    return keys


# -- without encryption


@pytest.mark.parametrize("command", CHANGES)
@in_reactor
async def test_without_encryption_there_is_nothing_to_change(command: str, shared: Nodes) -> None:
    raw = await shared.connect()
    expected = body(messages="No keyring to modify (encryption not enabled)", errors=2)
    assert await raw.call(command, {"Key": KEY}) == ("2/2 nodes reported failure", expected)


@in_reactor
async def test_without_encryption_there_is_nothing_to_list(shared: Nodes) -> None:
    raw = await shared.connect()
    expected = body(messages="Keyring is empty (encryption not enabled)", errors=2, keys={})
    assert await raw.call("list-keys") == ("2/2 nodes reported failure", expected)


@pytest.mark.parametrize("command", CHANGES)
@pytest.mark.parametrize(
    ("key", "byte"),
    [
        ("!", 0),
        ("=", 0),
        ("abc", 0),
        ("abcd=", 4),
        ("abcda", 4),
        ("abcdab", 4),
        ("ab=", 3),
        ("ab=c", 2),
        ("abc=x", 4),
        ("ab==x", 4),
        ("ab-d", 2),
        ("ab_d", 2),
        ("abcd\n!", 5),
        ("ab\ncd-", 5),
        ("a", 0),
        ("é", 0),
        ("a\n", 1),
        ("ab\n=\n", 5),
        ("ab \n", 2),
    ],
)
@in_reactor
async def test_bad_base64_is_refused_before_anybody_is_asked(
    command: str, key: str, byte: int, shared: Nodes
) -> None:
    raw = await shared.connect()
    refused = await raw.call(command, {"Key": key})
    assert refused == Reply(f"illegal base64 data at input byte {byte}", body(nodes=0))


# -- with encryption


@in_reactor
async def test_keys_are_installed_used_and_removed_on_all_nodes(encrypted: Nodes) -> None:
    raw, far = await encrypted.connect(0), await encrypted.connect(1)
    (first,) = await keys_of(raw)
    assert await keys_of(raw) == {first: 2}
    assert await raw.call("install-key", {"Key": KEY}) == ("", body())
    assert await raw.call("install-key", {"Key": KEY}) == ("", body())
    assert await keys_of(far) == {first: 2, KEY: 2}
    assert await far.call("use-key", {"Key": KEY}) == ("", body())
    assert await raw.call("remove-key", {"Key": first}) == ("", body())
    assert await raw.call("remove-key", {"Key": first}) == ("", body())
    assert await keys_of(raw) == {KEY: 2}


@in_reactor
async def test_a_key_of_16_bytes_will_do(encrypted: Nodes) -> None:
    raw = await encrypted.connect()
    assert await raw.call("install-key", {"Key": SHORT}) == ("", body())
    assert (await keys_of(raw))[SHORT] == 2


@pytest.mark.parametrize("key", ["", base64.b64encode(b"x" * 17).decode(), "AAAA"])
@in_reactor
async def test_a_key_has_16_24_or_32_bytes(key: str, encrypted: Nodes) -> None:
    raw = await encrypted.connect()
    refused = await raw.call("install-key", {"Key": key})
    expected = body(messages="key size must be 16, 24 or 32 bytes", errors=2)
    assert refused == ("2/2 nodes reported failure", expected)


@in_reactor
async def test_a_key_that_is_not_there_can_not_be_used(encrypted: Nodes) -> None:
    raw = await encrypted.connect()
    refused = await raw.call("use-key", {"Key": KEY})
    expected = body(messages="Requested key is not in the keyring", errors=2)
    assert refused == ("2/2 nodes reported failure", expected)
    assert await raw.call("remove-key", {"Key": KEY}) == ("", body())


@in_reactor
async def test_the_primary_key_can_not_be_removed(encrypted: Nodes) -> None:
    raw = await encrypted.connect()
    (first,) = await keys_of(raw)
    refused = await raw.call("remove-key", {"Key": first})
    expected = body(messages="Removing the primary key is not allowed", errors=2)
    assert refused == ("2/2 nodes reported failure", expected)


@in_reactor
async def test_a_node_that_hangs_is_waited_for_and_counted(encrypted: Nodes) -> None:
    raw, other = await encrypted.connect(), await encrypted.connect()

    async def others_go_on() -> float:
        started = reactor.seconds()
        listing = raw.request("list-keys")
        await other.ok("members")
        answered_in: float = reactor.seconds() - started
        error, reply = await raw.reply("list-keys", listing)
        assert reactor.seconds() - started > 1.4
        (first,) = reply["Keys"]
        assert (error, reply) == ("1/2 nodes reported success", body(keys={first: 1}, responses=1))
        return answered_in

    encrypted.cluster.pause(1)
    try:
        await takes(0.0, 1.0, others_go_on)
    finally:
        encrypted.cluster.resume(1)
