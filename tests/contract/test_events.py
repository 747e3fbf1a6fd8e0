"""User events and streams."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from tests.contract.harness import PATIENCE, UNUSED, Nodes, Raw, in_reactor, reactor, takes, turns


async def send(raw: Raw, name: str, payload: bytes = b"", *, coalesce: bool = False) -> None:
    await raw.ok("event", {"Name": name, "Payload": payload, "Coalesce": coalesce})


async def named(raw: Raw, seq: int, name: str) -> Any:
    """Return the next record of a user event with that name."""
    return await raw.record_where(seq, lambda record: record.get("Name") == name)


# -- user events


@in_reactor
async def test_a_user_event_reaches_the_streams_of_all_agents(shared: Nodes) -> None:
    near, far = await shared.connect(0), await shared.connect(1)
    seqs = [await raw.opened("stream", {"Type": "user:deploy"}) for raw in (near, far)]
    await send(near, "deploy", b"v2\x00\xff")
    for raw, seq in zip((near, far), seqs, strict=True):
        record = await raw.record(seq)
        assert list(record) == ["Coalesce", "Event", "LTime", "Name", "Payload"]
        assert (record["Event"], record["Name"], record["Payload"]) == ("user", "deploy", b"v2\x00\xff")
        assert record["Coalesce"] is False
        assert record["LTime"] > 0


@in_reactor
async def test_equal_events_stay_separate_and_in_order(single: Nodes) -> None:
    raw = await single.connect()
    seq = await raw.opened("stream", {"Type": "user"})
    for payload in (b"1", b"1", b"2"):
        await send(raw, "x", payload)
    records = [await raw.record(seq) for _ in range(3)]
    assert [(record["LTime"], record["Payload"]) for record in records] == [(1, b"1"), (2, b"1"), (3, b"2")]


@pytest.mark.parametrize("payload", [{}, {"Payload": None}, {"Payload": b""}])
@in_reactor
async def test_an_empty_payload_comes_as_nil_or_with_a_newer_codec_as_it_was_sent(
    payload: dict[str, Any], shared: Nodes
) -> None:
    raw = await shared.connect()
    seq = await raw.opened("stream", {"Type": "user:empty"})
    await raw.ok("event", {"Name": "empty", **payload})
    kept = await shared.takes_bin() and payload.get("Payload") is not None
    assert (await raw.record(seq))["Payload"] == (b"" if kept else None)


@pytest.mark.parametrize("name", ["", "é", "\udcff", "a,b", "user:x", "x" * 40])
@in_reactor
async def test_a_name_may_be_any_text(name: str, shared: Nodes) -> None:
    raw = await shared.connect()
    seq = await raw.opened("stream", {"Type": "user"})
    await send(raw, name, b"any")
    assert (await raw.record_where(seq, lambda record: record["Payload"] == b"any"))["Name"] == name


@in_reactor
async def test_the_last_of_coalesced_events_comes_a_second_later(single: Nodes) -> None:
    raw = await single.connect()
    seq = await raw.opened("stream", {"Type": "user"})

    async def hold() -> float:
        started = reactor.seconds()
        # In one write, so that no second passes between two of them.
        requests = [
            raw.request("event", {"Name": name, "Payload": b"%d" % number, "Coalesce": name != "direct"})
            for name, number in [*itertools.product(("held", "other"), range(3)), ("direct", 0)]
        ]
        for each in requests:
            await raw.reply("event", each)
        assert (await raw.record(seq))["Name"] == "direct"
        records = [await raw.record(seq) for _ in range(2)]
        told = sorted((record["Name"], record["Payload"], record["Coalesce"]) for record in records)
        assert told == [("held", b"2", True), ("other", b"2", True)]
        return float(reactor.seconds() - started)

    await takes(0.9, 2.5, hold)


@in_reactor
async def test_events_that_go_on_coalescing_are_told_after_three_seconds(single: Nodes) -> None:
    raw = await single.connect()
    seq = await raw.opened("stream", {"Type": "user"})
    number, conclusive = 0, False
    while not conclusive:
        started = before = reactor.seconds()
        await send(raw, "held", b"%d" % number, coalesce=True)
        conclusive = True
        while not raw.records[seq]:
            assert reactor.seconds() - started < PATIENCE, "held for ever"
            sent = reactor.seconds()
            number += 1
            await send(raw, "held", b"%d" % number, coalesce=True)
            # On a machine so busy that a second passed between two events they may have been told for that.
            conclusive = conclusive and reactor.seconds() - before < 0.95
            before = sent
            await turns(0.1)
        held_for = reactor.seconds() - started
        told = int((await raw.record(seq))["Payload"])
        if told < number:
            assert int((await raw.record(seq))["Payload"]) == number
        number += 1
    assert held_for > 2.9


SIZES = [
    # the name, the size of the payload, and the check that refuses them: before or after encoding
    ("x", 481, ""),
    ("x", 482, "after"),
    ("x", 511, "after"),
    ("x", 512, "before"),
    ("x" * 31, 451, ""),
    ("x" * 31, 452, "after"),
    ("x" * 32, 448, ""),
    ("x" * 32, 449, "after"),
    ("é", 480, ""),
    ("é", 481, "after"),
]


@pytest.mark.parametrize(("name", "size", "limit"), SIZES)
@in_reactor
async def test_an_event_may_have_482_bytes(name: str, size: int, limit: str, single: Nodes) -> None:
    raw = await single.connect()
    expected = {
        "": "",
        "before": "user event exceeds configured limit of 512 bytes before encoding",
        "after": "encoded user event exceeds configured limit of 512 bytes after encoding",
    }
    assert (await raw.call("event", {"Name": name, "Payload": bytes(size)})).error == expected[limit]


@in_reactor
async def test_an_event_has_a_byte_less_from_ltime_128_on(single: Nodes) -> None:
    raw = await single.connect()
    body = {"Name": "x", "Payload": bytes(481)}
    for _ in range(127):
        raw.request("event", body)
    for seq in range(2, 129):
        assert await raw.reply("event", seq) == ("", None)
    assert "after encoding" in (await raw.call("event", body)).error
    assert (await raw.call("event", {"Name": "x", "Payload": bytes(480)})).error == ""


# -- streams


@pytest.mark.parametrize(
    ("kind", "seen"),
    [
        ("", ["user a", "user b", "query a", "query b"]),
        ("*", ["user a", "user b", "query a", "query b"]),
        ("user", ["user a", "user b"]),
        ("user:", ["user a", "user b"]),
        ("user:a", ["user a"]),
        ("user:A", []),
        ("query", ["query a", "query b"]),
        ("query:", ["query a", "query b"]),
        ("query:b", ["query b"]),
        ("user:b,query:a", ["user b", "query a"]),
        ("user,user:a,*", ["user a", "user b", "query a", "query b"]),
        ("member-join,member-leave,member-failed,member-update,member-reap", []),
    ],
)
@in_reactor
async def test_a_stream_has_the_events_that_its_type_names(kind: str, seen: list[str], shared: Nodes) -> None:
    raw = await shared.connect()
    seq = await raw.opened("stream", {"Type": kind})
    end = await raw.opened("stream", {"Type": "user:end"})
    for name in ("a", "b"):
        await send(raw, name)
    for name in ("a", "b"):
        query = raw.request("query", {"Name": name, "Timeout": 50_000_000})
        await raw.reply("query", query)
    await send(raw, "end")
    await raw.record(end)
    await raw.ok("stop", {"Stop": UNUSED})
    await raw.ok("stop", {"Stop": seq})
    told = [f"{record['Event']} {record['Name']}" for record in raw.records[seq] if "Name" in record]
    assert [each for each in told if not each.endswith(" end")] == seen


@pytest.mark.parametrize(
    "kind",
    ["unheard", "user,", ",", "user, query", "member-join:n1", "USER", "member", " user", "query,unheard:x"],
)
@in_reactor
async def test_an_unknown_type_is_refused(kind: str, shared: Nodes) -> None:
    raw = await shared.connect()
    assert await raw.call("stream", {"Type": kind}) == ("Invalid event filter", None)
    await raw.opened("stream", {"Type": "*"})


@in_reactor
async def test_a_stream_with_the_seq_of_another_is_refused_and_the_other_goes_on(shared: Nodes) -> None:
    raw = await shared.connect()
    seq = await raw.opened("stream", {"Type": "user:again"})
    raw.send({"Command": "stream", "Seq": seq}, {"Type": "*"})
    assert await raw.read() == {"Error": "Stream with given sequence exists", "Seq": seq}
    raw.send({"Command": "stream", "Seq": seq}, {"Type": "unheard"})
    assert await raw.read() == {"Error": "Invalid event filter", "Seq": seq}
    await send(raw, "again")
    assert (await raw.record(seq))["Name"] == "again"


@in_reactor
async def test_each_stream_that_matches_gets_the_event_once(shared: Nodes) -> None:
    raw = await shared.connect()
    seqs = [await raw.opened("stream", {"Type": kind}) for kind in ("user:each", "user,user:each", "*")]
    await send(raw, "each")
    for seq in seqs:
        assert (await named(raw, seq, "each"))["Event"] == "user"
    await send(raw, "last")
    assert (await raw.record(seqs[1]))["Name"] == "last"


@in_reactor
async def test_a_stream_shows_nothing_from_before(shared: Nodes) -> None:
    raw = await shared.connect()
    await send(raw, "before")
    await turns(0.2)
    seq = await raw.opened("stream", {"Type": "user"})
    await send(raw, "after")
    assert (await raw.record(seq))["Name"] == "after"


@in_reactor
async def test_after_a_stop_and_a_round_trip_nothing_more_comes(shared: Nodes) -> None:
    raw = await shared.connect()
    seq = await raw.opened("stream", {"Type": "user"})
    other = await raw.opened("stream", {"Type": "user:end"})
    await raw.ok("stop", {"Stop": seq})
    await send(raw, "stopped")
    await send(raw, "end")
    await raw.record(other)
    assert not raw.records[seq]


@pytest.mark.parametrize("stop", [0, 1, UNUSED, 2**64 - 1])
@in_reactor
async def test_a_stop_of_nothing_succeeds(stop: int, shared: Nodes) -> None:
    raw = await shared.connect()
    assert await raw.call("stop", {"Stop": stop}) == ("", None)


@in_reactor
async def test_a_stop_ends_the_stream_and_the_monitor_of_that_seq(shared: Nodes) -> None:
    raw = await shared.connect()
    raw.send({"Command": "stream", "Seq": 50}, {"Type": "user"})
    assert await raw.read() == {"Error": "", "Seq": 50}
    await raw.ok("stop", {"Stop": 50})
    # After the stop both can be opened again.
    await raw.ok("stream", {"Type": "user"}, seq=50)
    await raw.ok("stop", {"Stop": 50})
    await raw.ok("monitor", {"LogLevel": "ERR"}, seq=51)
    await raw.ok("stop", {"Stop": 51})
    await raw.ok("monitor", {"LogLevel": "ERR"}, seq=52)


# -- clients that do not read


@in_reactor
async def test_a_client_that_does_not_read_loses_the_newest_events_and_nothing_else(single: Nodes) -> None:
    slow, raw = await single.connect(), await single.connect()
    seq = await slow.opened("stream", {"Type": "user"})
    log = await raw.opened("monitor", {"LogLevel": "WARN"})
    assert slow.transport is not None
    slow.transport.pauseProducing()  # type: ignore[attr-defined]  # every transport of a stream has it
    count, payload = 0, bytes(420)
    while not any("Dropping event to" in record["Log"] for record in raw.records[log]):
        assert count < 100_000, "nothing is dropped"
        seqs = [
            raw.request("event", {"Name": str(number), "Payload": payload})
            for number in range(count, count + 100)
        ]
        count += 100
        for each in seqs:
            await raw.reply("event", each)
    line = await raw.record_where(log, lambda record: "Dropping event to" in record["Log"])
    assert "[WARN] agent.ipc: Dropping event to ipc.client: 127.0.0.1:" in line["Log"]
    await raw.ok("members")
    slow.transport.resumeProducing()  # type: ignore[attr-defined]  # likewise
    await slow.ok("stop", {"Stop": UNUSED})
    told = [int(record["Name"]) for record in slow.records[seq]]
    assert 512 <= len(told) < count
    assert told[:512] == list(range(512))
    assert told == sorted(told)
    await send(raw, "-1")
    await slow.record_where(seq, lambda record: record["Name"] == "-1")
