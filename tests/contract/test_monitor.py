"""The log stream of ``monitor``."""

from __future__ import annotations

import re

import pytest

from tests.contract.harness import UNUSED, Nodes, in_reactor

LINE = re.compile(r"\d{4}/\d\d/\d\d \d\d:\d\d:\d\d \[(TRACE|DEBUG|INFO|WARN|ERR)\] .+", re.DOTALL)


@in_reactor
async def test_a_monitor_replays_the_log_and_follows_it(single: Nodes) -> None:
    raw = await single.connect()
    seq = await raw.opened("monitor", {"LogLevel": "DEBUG"})
    records = [await raw.record(seq)]
    await raw.ok("event", {"Name": "deploy", "Payload": b'v"2'})
    while "Requesting user event" not in records[-1]["Log"]:
        records.append(await raw.record(seq))
    assert all(list(record) == ["Log"] and LINE.fullmatch(record["Log"]) for record in records)
    lines = [record["Log"].partition(" [")[2] for record in records]
    assert lines[0] == "INFO] agent: Serf agent starting"
    assert lines[1] == "INFO] serf: EventMemberJoin: n1 127.0.0.1"
    assert any(line.startswith("INFO] agent.ipc: Accepted client: 127.0.0.1:") for line in lines)
    expected = 'DEBUG] agent: Requesting user event send: deploy. Coalesced: false. Payload: "v\\"2"'
    assert lines[-1] == expected
    await raw.record_where(
        seq, lambda record: "INFO] agent: Received event: user-event: deploy" in record["Log"]
    )


@in_reactor
async def test_at_most_512_lines_are_replayed(single: Nodes) -> None:
    raw = await single.connect()
    stream = await raw.opened("stream", {"Type": "user"})
    # Wait for all events in the stream. Then all their lines are in the log, and the monitor replays them.
    for _ in range(6):  # an agent drops events of which more than 512 wait
        for seq in [raw.request("event", {"Name": "x"}) for _ in range(100)]:
            await raw.reply("event", seq)
        for _ in range(100):
            await raw.record(stream)
    seq = await raw.opened("monitor", {"LogLevel": "TRACE"})
    first = await raw.record(seq)
    assert "Serf agent starting" not in first["Log"]
    # An agent drops lines, too, of which more than 512 wait. So this event, whose line ends the wait, is sent
    # when only the last of the replayed lines are to come.
    for _ in range(499):
        await raw.record(seq)
    await raw.call("event", {"Name": "last", "Payload": bytes(600)})
    lines = 500
    while "failed to send user event" not in (await raw.record(seq))["Log"]:
        lines += 1
    assert 500 < lines <= 514


@pytest.mark.parametrize("level", ["TRACE", "debug", "Info", "WARN", "eRR"])
@in_reactor
async def test_a_level_may_be_in_any_case(level: str, shared: Nodes) -> None:
    raw = await shared.connect()
    assert await raw.call("monitor", {"LogLevel": level}) == ("", None)


@pytest.mark.parametrize("level", ["ERROR", "WARNING", "", "info ", "x"])
@in_reactor
async def test_an_unknown_level_is_refused(level: str, shared: Nodes) -> None:
    raw = await shared.connect()
    assert await raw.call("monitor", {"LogLevel": level}) == (f"Unknown log level: {level.upper()}", None)
    await raw.ok("monitor", {"LogLevel": "ERR"})


@in_reactor
async def test_a_level_shows_its_own_lines_and_those_of_higher_levels(single: Nodes) -> None:
    raw = await single.connect()
    seq = await raw.opened("monitor", {"LogLevel": "WARN"})
    await raw.ok("event", {"Name": "x"})
    await raw.call("event", {"Name": "x", "Payload": bytes(600)})
    expected = "failed to send user event: user event exceeds configured limit of 512 bytes before encoding"
    await raw.record_where(seq, lambda record: f"[WARN] agent: {expected}" in record["Log"])
    await raw.ok("stop", {"Stop": UNUSED})
    assert not [
        record for record in raw.records[seq] if "[INFO]" in record["Log"] or "[DEBUG]" in record["Log"]
    ]


@in_reactor
async def test_a_second_monitor_of_a_connection_is_refused_and_of_another_is_not(shared: Nodes) -> None:
    raw, other = await shared.connect(), await shared.connect()
    await raw.ok("monitor", {"LogLevel": "ERR"})
    assert await raw.call("monitor", {"LogLevel": "ERR"}) == ("Monitor already exists", None)
    assert await raw.call("monitor", {"LogLevel": "x"}) == ("Unknown log level: X", None)
    await other.ok("monitor", {"LogLevel": "ERR"})


@in_reactor
async def test_after_a_stop_another_monitor_may_be_opened(shared: Nodes) -> None:
    raw = await shared.connect()
    seq = await raw.opened("monitor", {"LogLevel": "ERR"})
    await raw.ok("stop", {"Stop": seq})
    await raw.ok("monitor", {"LogLevel": "ERR"})


@in_reactor
async def test_a_monitor_and_a_stream_may_have_one_seq_and_one_stop_ends_both(single: Nodes) -> None:
    raw = await single.connect()
    for _ in range(2):
        for command, body in (("stream", {"Type": "user:none"}), ("monitor", {"LogLevel": "ERR"})):
            raw.send({"Command": command, "Seq": 9}, body)
            assert await raw.read() == {"Error": "", "Seq": 9}
        await raw.ok("stop", {"Stop": 9})


@in_reactor
async def test_the_reason_for_closing_a_connection_is_in_the_log(single: Nodes) -> None:
    raw, bad = await single.connect(), await single.connect()
    seq = await raw.opened("monitor", {"LogLevel": "ERR"})
    bad.request("unheard-of")
    line = await raw.record_where(seq, lambda record: "not recognized" in record["Log"])
    assert line["Log"].endswith(
        "[ERR] agent.ipc: Failed to evaluate request: command 'unheard-of' not recognized"
    )
