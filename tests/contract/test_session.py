"""Handshake, auth, and the decoding of requests."""

from __future__ import annotations

from typing import Any

import pytest

from tests.contract.conftest import AUTH_KEY
from tests.contract.harness import CLOSED, UNUSED, Nodes, in_reactor, turns
from txserf import commands

STOP = {"Stop": UNUSED}


def header(seq: int, error: str = "") -> dict[str, Any]:
    return {"Error": error, "Seq": seq}


# -- handshake


@pytest.mark.parametrize("command", [*sorted(set(commands.BY_WIRE) - {"handshake"}), "unheard-of"])
@in_reactor
async def test_before_the_handshake_a_command_is_refused_and_the_connection_closed(
    command: str, shared: Nodes
) -> None:
    raw = await shared.connect(shaken=False)
    raw.send({"Command": command, "Seq": 7})
    assert await raw.rest() == [header(7, "Handshake required")]


@pytest.mark.parametrize(
    "body", [{"Version": 0}, {"Version": 2}, {"Version": -1}, {"Version": None}, {}, None]
)
@in_reactor
async def test_an_unknown_version_is_refused_and_a_right_one_may_follow(body: Any, shared: Nodes) -> None:
    raw = await shared.connect(shaken=False)
    assert (await raw.call("handshake", body)).error == "Unsupported IPC version"
    assert await raw.call("handshake", {"Version": 1}) == ("", None)
    await raw.ok("members")


@in_reactor
async def test_a_second_handshake_is_refused_and_the_connection_stays_good(shared: Nodes) -> None:
    raw = await shared.connect()
    assert (await raw.call("handshake", {"Version": 1})).error == "Handshake already performed"
    assert (await raw.call("handshake", {"Version": 3})).error == "Unsupported IPC version"
    await raw.ok("members")


@in_reactor
async def test_requests_may_come_in_one_write_from_the_first_byte_on(shared: Nodes) -> None:
    raw = await shared.connect(shaken=False)
    raw.send(
        {"Command": "handshake", "Seq": 1},
        {"Version": 1},
        {"Command": "auth", "Seq": 2},
        {"AuthKey": ""},
        {"Command": "stop", "Seq": 3},
        STOP,
    )
    assert [await raw.read() for _ in range(3)] == [header(1), header(2), header(3)]


@in_reactor
async def test_an_unknown_command_is_refused_and_the_connection_closed(shared: Nodes) -> None:
    raw = await shared.connect()
    raw.send({"Command": "unheard-of", "Seq": 7}, {"Name": "x"})
    assert await raw.rest() == [header(7, "Unsupported command")]


# -- auth


@in_reactor
async def test_without_a_key_only_an_empty_one_is_right(shared: Nodes) -> None:
    raw = await shared.connect()
    assert await raw.call("auth", {"AuthKey": ""}) == ("", None)
    assert await raw.call("auth", {"AuthKey": "x"}) == ("Invalid authentication token", None)
    assert await raw.call("auth", {}) == ("", None)
    await raw.ok("members")


@pytest.mark.parametrize("command", [*[row.wire for row in commands.TABLE if not row.args], "unheard-of"])
@in_reactor
async def test_a_command_without_a_body_before_auth_is_refused_by_a_header(
    command: str, locked: Nodes
) -> None:
    raw = await locked.connect()
    raw.send({"Command": command, "Seq": 7}, {"Command": "auth", "Seq": 8}, {"AuthKey": AUTH_KEY})
    assert await raw.read() == header(7, "Authentication required")
    assert await raw.read() == header(8)
    await raw.ok("members")


@pytest.mark.parametrize("row", [row for row in commands.TABLE if row.args][2:], ids=lambda row: row.wire)
@in_reactor
async def test_a_body_before_auth_is_read_as_a_header_and_refused_again(row: Any, locked: Nodes) -> None:
    raw = await locked.connect()
    raw.send({"Command": row.wire, "Seq": 7}, {row.args[0].name: None})
    raw.send({"Command": "auth", "Seq": 8}, {"AuthKey": AUTH_KEY})
    for expected in (header(7, "Authentication required"), header(7, "Authentication required"), header(8)):
        assert await raw.read() == expected


@in_reactor
async def test_a_wrong_key_is_refused_as_often_as_it_comes_and_a_right_one_may_follow(locked: Nodes) -> None:
    raw = await locked.connect()
    for key in ("wrong", "", AUTH_KEY + " "):
        assert await raw.call("auth", {"AuthKey": key}) == ("Invalid authentication token", None)
    assert await raw.call("members") == ("Authentication required", None)
    await raw.ok("auth", {"AuthKey": AUTH_KEY})
    await raw.ok("members")


@in_reactor
async def test_a_wrong_key_after_the_right_one_changes_nothing(locked: Nodes) -> None:
    raw = await locked.connect()
    await raw.ok("auth", {"AuthKey": AUTH_KEY})
    assert (await raw.call("auth", {"AuthKey": "wrong"})).error == "Invalid authentication token"
    await raw.ok("members")


@in_reactor
async def test_auth_is_refused_before_the_handshake(locked: Nodes) -> None:
    raw = await locked.connect(shaken=False)
    raw.send({"Command": "auth", "Seq": 7})
    assert await raw.rest() == [header(7, "Handshake required")]


# -- headers


@pytest.mark.parametrize("seq", [0, 1, 127, 128, 2**32, 2**64 - 1])
@in_reactor
async def test_any_seq_is_echoed(seq: int, shared: Nodes) -> None:
    raw = await shared.connect()
    raw.send({"Command": "stop", "Seq": seq}, STOP)
    assert await raw.read() == header(seq)


@pytest.mark.parametrize(
    ("second", "replies"),
    [
        ({"Seq": 8}, [header(8)]),
        ({"Command": "stop"}, [header(7)]),
        ({}, [header(7)]),
        ({"seq": 8, "SEQ": 9, "command": "members"}, [header(7)]),
        ({"Command": "stop", "Seq": None}, [header(0)]),
        (["stop", 9], [header(9)]),
        (["stop"], [header(7)]),
        (["stop", 9, "more"], [header(9)]),
        (None, [header(0, "Unsupported command"), CLOSED]),
        ({"Command": None}, [header(7, "Unsupported command"), CLOSED]),
    ],
)
@in_reactor
async def test_a_field_left_out_of_a_header_keeps_its_last_value(
    second: Any, replies: list[Any], shared: Nodes
) -> None:
    raw = await shared.connect()
    raw.send({"Command": "stop", "Seq": 7}, STOP, second, STOP)
    assert await raw.read() == header(7)
    assert [await raw.read() for _ in replies] == replies


@in_reactor
async def test_an_unexpected_body_runs_the_command_again(shared: Nodes) -> None:
    raw = await shared.connect()
    raw.send({"Command": "stats", "Seq": 7}, {})
    for _ in range(2):
        assert await raw.read() == header(7)
        assert (await raw.read())["agent"] == {"name": "n1"}


@in_reactor
async def test_a_missing_body_swallows_the_next_header(shared: Nodes) -> None:
    raw = await shared.connect()
    raw.send(
        {"Command": "stop", "Seq": 7}, {"Command": "members", "Seq": 8}, {"Command": "stop", "Seq": 9}, STOP
    )
    assert [await raw.read(), await raw.read()] == [header(7), header(9)]


# -- unusual requests, accepted or refused

EVENT = {"Command": "event", "Seq": 7}
QUERY = {"Command": "query", "Seq": 7}


@pytest.mark.parametrize(
    "objects",
    [
        [
            {"Command": "stop", "Seq": 7, "More": [1, {"a": None}], "Other": 1.5},
            {"Stop": 1, "More": {"x": []}},
        ],
        [{"Command": "stop", "Seq": 7}, {}],
        [{"Command": "stop", "Seq": 7}, None],
        [{"Command": "stop", "Seq": 7}, [1]],
        [{"Command": "stop", "Seq": 7}, []],
        [{"Command": "stop", "Seq": 7}, {"Stop": None}],
        [EVENT, {"Name": "x", "Payload": "text"}],
        [EVENT, {"Name": "x", "Payload": b"bin"}],
        [EVENT, {"Name": "x", "Payload": [1, 2, 255]}],
        [EVENT, {"Name": "x", "Payload": None}],
        [EVENT, {"Name": "x", "Payload": b""}],
        [EVENT, {"Name": "x"}],
        [EVENT, {"Name": "x", "Coalesce": 1}],
        [EVENT, {"Name": "x", "Coalesce": None}],
        [EVENT, {"Name": ""}],
        [EVENT, {"Name": None}],
        [EVENT, {}],
        [EVENT, None],
        [EVENT, ["x", b"payload", False]],
        [EVENT, {"Name": "\udcff\udcfe"}],
        [QUERY, [[], {}, False, 0, 10_000_000, "x", b"payload"]],
        [QUERY, {"Name": "x", "FilterNodes": {"n1": "n2"}, "Timeout": 10_000_000}],
        [QUERY, {"Name": "x", "RelayFactor": 255, "Timeout": 10_000_000}],
        [QUERY, {"Name": "x", "Timeout": 2**63}],
    ],
    ids=repr,
)
@in_reactor
async def test_unusual_requests_are_accepted(objects: list[Any], shared: Nodes) -> None:
    raw = await shared.connect()
    raw.send(*objects)
    assert await raw.read() == header(7)


@pytest.mark.parametrize(
    "objects",
    [
        [b"\xc1"],
        [b"GET / HTTP/1.1\r\n\r\n"],
        [7],
        ["stop"],
        [1.5],
        [True],
        [b"\xc4\x04stop"],
        [{"Command": 7, "Seq": 7}],
        [{"Command": "stop", "Seq": -1}],
        [{"Command": "stop", "Seq": 7.0}],
        [{"Command": "stop", "Seq": "7"}],
        [b"\x81\x07\x07"],
        [{"Command": "stop", "Seq": 7}, 7],
        [{"Command": "stop", "Seq": 7}, "x"],
        [{"Command": "stop", "Seq": 7}, {"Stop": -1}],
        [{"Command": "stop", "Seq": 7}, {"Stop": 1.0}],
        [{"Command": "stop", "Seq": 7}, {"Stop": "1"}],
        [{"Command": "stop", "Seq": 7}, {"Stop": True}],
        [{"Command": "handshake", "Seq": 7}, {"Version": 2**31}],
        [{"Command": "handshake", "Seq": 7}, {"Version": "1"}],
        [EVENT, {"Name": 7}],
        [EVENT, {"Name": ["x"]}],
        [EVENT, {"Name": "x", "Payload": 7}],
        [EVENT, {"Name": "x", "Payload": 1.5}],
        [EVENT, {"Name": "x", "Payload": [256]}],
        [EVENT, {"Name": "x", "Payload": [-1]}],
        [EVENT, {"Name": "x", "Coalesce": "true"}],
        [EVENT, {"Name": "x", "Coalesce": 2}],
        [{"Command": "join", "Seq": 7}, {"Existing": "127.0.0.1"}],
        [{"Command": "join", "Seq": 7}, {"Existing": [7]}],
        [{"Command": "tags", "Seq": 7}, {"Tags": "role"}],
        [{"Command": "tags", "Seq": 7}, {"Tags": {"role": 7}}],
        [{"Command": "tags", "Seq": 7}, {"DeleteTags": "role"}],
        [QUERY, {"Name": "x", "RelayFactor": 256}],
        [QUERY, {"Name": "x", "RelayFactor": -1}],
        [QUERY, {"Name": "x", "Timeout": 1.5}],
        [QUERY, {"Name": "x", "FilterNodes": 7}],
        [QUERY, ["x", b"payload"]],
    ],
    ids=repr,
)
@in_reactor
async def test_an_invalid_request_closes_the_connection_without_a_reply(
    objects: list[Any], shared: Nodes
) -> None:
    raw = await shared.connect()
    raw.send(*objects)
    assert await raw.read() == CLOSED


@pytest.mark.parametrize(
    "objects",
    [
        [b"\x81\xc4\x07Command\xa4stop", {"Stop": 1}],
        [EVENT, {"Name": b"x"}],
        [{"Command": "join", "Seq": 7}, {"Existing": [b"127.0.0.1"]}],
        [{"Command": "tags", "Seq": 7}, {"Tags": {"role": b"web"}}],
    ],
    ids=repr,
)
@in_reactor
async def test_text_sent_as_bin_closes_the_connection_except_with_a_newer_codec(
    objects: list[Any], shared: Nodes
) -> None:
    raw = await shared.connect()
    raw.send(*objects)
    assert (await raw.read() != CLOSED) == await shared.takes_bin()


@in_reactor
async def test_requests_before_a_bad_byte_are_answered(shared: Nodes) -> None:
    raw = await shared.connect()
    raw.send({"Command": "stop", "Seq": 7}, STOP, b"\xc1")
    assert await raw.rest() == [header(7)]


@in_reactor
async def test_half_a_request_is_waited_for(shared: Nodes) -> None:
    raw = await shared.connect()
    packed = b"\x82\xa7Command\xa4stop\xa3Seq\x07\x81\xa4Stop\x01"
    for byte in packed[:-1]:
        raw.send(bytes([byte]))
    await turns(0.2)
    assert raw.lost is None
    raw.send(packed[-1:])
    assert await raw.read() == header(7)


@in_reactor
async def test_a_large_request_is_read_and_answered(shared: Nodes) -> None:
    raw = await shared.connect()
    reply = await raw.call("event", {"Name": "x", "Payload": bytes(200_000)})
    assert reply.error == "user event exceeds configured limit of 512 bytes before encoding"
    await raw.ok("stop", STOP)


@in_reactor
async def test_after_a_half_close_the_requests_are_answered_and_the_connection_closed(shared: Nodes) -> None:
    raw = await shared.connect()
    raw.send(*[value for seq in (7, 8, 9) for value in ({"Command": "stop", "Seq": seq}, STOP)])
    assert raw.transport is not None
    raw.transport.loseWriteConnection()  # type: ignore[attr-defined]  # every transport of a stream has it
    assert await raw.rest() == [header(7), header(8), header(9)]
