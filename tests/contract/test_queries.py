"""Queries, their filters and records, and responses."""

from __future__ import annotations

from typing import Any

import pytest

from tests.contract.harness import CLOSED, UNUSED, Nodes, Raw, in_reactor, reactor, takes, turns

QUICK = 300_000_000  # nanoseconds


async def asked(raw: Raw, name: str = "load", timeout: int = QUICK, **more: Any) -> int:
    """Start a query, and return its Seq."""
    seq = raw.request("query", {"Name": name, "Timeout": timeout, **more})
    error, _ = await raw.reply("query", seq)
    assert error == "", error
    return seq


async def acks(raw: Raw, **filters: Any) -> list[str]:
    """Start a query, and return the names of the nodes that acknowledge it."""
    records = await raw.all_of_query(await asked(raw, RequestAck=True, **filters))
    return sorted(record["From"] for record in records[:-1])


async def received(raw: Raw, stream: int, name: str) -> Any:
    """Return the next record of a query with that name on a stream."""
    return await raw.record_where(
        stream, lambda record: record["Event"] == "query" and record["Name"] == name
    )


DONE = {"From": "", "Payload": None, "Type": "done"}


# -- records


@in_reactor
async def test_a_query_brings_acks_and_responses_and_done_at_the_deadline(shared: Nodes) -> None:
    raw, far = await shared.connect(0), await shared.connect(1)
    stream = await far.opened("stream", {"Type": "query:load"})
    started = reactor.seconds()
    seq = await asked(raw, Payload=b"1m", RequestAck=True)
    event = await received(far, stream, "load")
    assert list(event) == ["Event", "ID", "LTime", "Name", "Payload"]
    assert event["Payload"] == b"1m"
    assert event["ID"] == 1
    assert event["LTime"] > 0
    assert await far.call("respond", {"ID": event["ID"], "Payload": b"0.31"}) == ("", None)
    records = await raw.all_of_query(seq)
    assert reactor.seconds() - started > 0.25
    assert all(list(record) == ["From", "Payload", "Type"] for record in records)
    assert sorted((record["Type"], record["From"], record["Payload"]) for record in records[:-1]) == [
        ("ack", "n1", None),
        ("ack", "n2", None),
        ("response", "n2", b"0.31"),
    ]
    assert records[-1] == DONE
    assert await raw.quiet(0.2, seq) == []


@in_reactor
async def test_acks_come_only_if_they_are_requested(shared: Nodes) -> None:
    raw = await shared.connect()
    assert await raw.all_of_query(await asked(raw)) == [DONE]


@in_reactor
async def test_the_default_timeout_is_sixteen_rounds_of_gossip(shared: Nodes) -> None:
    raw = await shared.connect()

    async def one() -> float:
        started = reactor.seconds()
        await raw.all_of_query(await asked(raw, timeout=0))
        return float(reactor.seconds() - started)

    await takes(1.5, 2.5, one)


@pytest.mark.parametrize("timeout", [1, -1, -(2**63)])
@in_reactor
async def test_a_tiny_or_negative_timeout_is_over_at_once(timeout: int, shared: Nodes) -> None:
    raw = await shared.connect()

    async def one() -> float:
        started = reactor.seconds()
        assert (await raw.all_of_query(await asked(raw, timeout=timeout)))[-1] == DONE
        return float(reactor.seconds() - started)

    await takes(0.0, 1.0, one)


@in_reactor
async def test_a_stop_does_not_end_a_query(shared: Nodes) -> None:
    raw = await shared.connect()
    seq = await asked(raw)
    await raw.ok("stop", {"Stop": seq})
    assert (await raw.all_of_query(seq))[-1] == DONE


@in_reactor
async def test_other_requests_are_answered_while_a_query_runs(shared: Nodes) -> None:
    raw = await shared.connect()
    seq = await asked(raw)
    await raw.ok("members")
    assert not raw.records[seq]
    assert (await raw.all_of_query(seq))[-1] == DONE


@in_reactor
async def test_two_queries_with_one_seq_are_separate(shared: Nodes) -> None:
    raw = await shared.connect()
    await raw.ok("query", {"Name": "load", "Timeout": QUICK}, seq=40)
    raw.send({"Command": "query", "Seq": 40}, {"Name": "load", "Timeout": QUICK})
    assert await raw.read() == {"Error": "", "Seq": 40}
    assert (await raw.all_of_query(40), await raw.all_of_query(40)) == ([DONE], [DONE])


@in_reactor
async def test_a_client_that_disconnects_ends_nothing_for_others(shared: Nodes) -> None:
    gone, far = await shared.connect(0), await shared.connect(1)
    stream = await far.opened("stream", {"Type": "query:orphan"})
    await asked(gone, "orphan")
    assert gone.transport is not None
    gone.transport.abortConnection()  # type: ignore[attr-defined]  # every transport of a stream has it
    event = await received(far, stream, "orphan")
    assert await far.call("respond", {"ID": event["ID"]}) == ("", None)


@in_reactor
async def test_after_a_half_close_a_query_is_dropped(shared: Nodes) -> None:
    async def one() -> float:
        raw = await shared.connect()
        started = reactor.seconds()
        raw.send({"Command": "query", "Seq": 7}, {"Name": "load", "Timeout": QUICK})
        assert raw.transport is not None
        raw.transport.loseWriteConnection()  # type: ignore[attr-defined]  # every transport of a stream has it
        assert (await raw.rest())[0] == {"Error": "", "Seq": 7}
        return float(reactor.seconds() - started)

    await takes(0.0, QUICK / 1e9, one)


# -- filters


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({}, ["n1", "n2"]),
        ({"FilterNodes": ["n1"]}, ["n1"]),
        ({"FilterNodes": ["n2", "n1", "n9"]}, ["n1", "n2"]),
        ({"FilterNodes": ["n"]}, []),
        ({"FilterNodes": ["n9"]}, []),
        ({"FilterNodes": []}, ["n1", "n2"]),
        ({"FilterNodes": None}, ["n1", "n2"]),
        ({"FilterTags": {"role": "web"}}, ["n1"]),
        ({"FilterTags": {"role": "b"}}, ["n1", "n2"]),  # tags are not anchored
        ({"FilterTags": {"role": "^b"}}, []),
        ({"FilterTags": {"role": "web|db"}}, ["n1", "n2"]),
        ({"FilterTags": {"role": ""}}, ["n1", "n2"]),
        ({"FilterTags": {"none": ""}}, ["n1", "n2"]),
        ({"FilterTags": {"dc": "^$"}}, ["n2"]),
        ({"FilterTags": {"dc": r"\B"}}, ["n1", "n2"]),
        ({"FilterTags": {"dc": r"\b"}}, ["n1"]),
        ({"FilterTags": {"role": "w(?i)?E"}}, ["n1"]),
        ({"FilterTags": {"role": "web", "dc": "west"}}, []),
        ({"FilterTags": {"role": "web", "dc": "east"}}, ["n1"]),
        ({"FilterTags": {"role": "web"}, "FilterNodes": ["n2"]}, []),
        ({"FilterTags": {"role": "("}}, []),
        ({"FilterTags": {"role": "*"}}, []),
        ({"FilterTags": {"role": "(?=w)"}}, []),
    ],
)
@in_reactor
async def test_nodes_that_pass_all_filters_acknowledge(
    filters: dict[str, Any], expected: list[str], shared: Nodes
) -> None:
    assert await acks(await shared.connect(), **filters) == expected


@in_reactor
async def test_a_node_that_does_not_pass_a_filter_sees_no_query(shared: Nodes) -> None:
    raw, far = await shared.connect(0), await shared.connect(1)
    streams = [await each.opened("stream", {"Type": "query:filtered"}) for each in (raw, far)]
    seq = await asked(raw, "filtered", FilterNodes=["n2"])
    await received(far, streams[1], "filtered")
    await raw.all_of_query(seq)
    assert not raw.records[streams[0]]


# -- names and sizes


@pytest.mark.parametrize(
    "name", ["_serf_", "_serf_x", "_serf_list-keys", "_serf_install-key", "_serf_conflict"]
)
@in_reactor
async def test_serfs_own_names_are_refused(name: str, shared: Nodes) -> None:
    raw = await shared.connect()
    refused = await raw.call("query", {"Name": name, "Timeout": QUICK})
    assert refused.error == "Queries cannot contain the '_serf_' prefix"
    await raw.ok("members")


@in_reactor
async def test_a_ping_is_allowed_without_a_payload_and_no_stream_shows_it(shared: Nodes) -> None:
    raw = await shared.connect()
    stream = await raw.opened("stream", {"Type": "query"})
    records = await raw.all_of_query(await asked(raw, "_serf_ping", RequestAck=True, Payload=None))
    assert sorted(record["Type"] + record["From"] for record in records) == ["ackn1", "ackn2", "done"]
    assert not [record for record in raw.records[stream] if record["Name"] == "_serf_ping"]
    refused = await raw.call("query", {"Name": "_serf_ping", "Payload": b"x"})
    assert refused.error == "Queries cannot contain the '_serf_' prefix"


@pytest.mark.parametrize(
    ("fits", "body"),
    [
        (915, {"Name": "x"}),
        (886, {"Name": "x" * 30}),
        (882, {"Name": "x" * 32}),
        (915 - 9, {"Name": "x", "FilterNodes": ["n1", "n2"]}),
        (915 - 21, {"Name": "x", "FilterTags": {"role": "web"}}),
        (915 - 4, {"Name": "x", "Timeout": 2**33}),
        (915, {"Name": "x", "FilterNodes": []}),
    ],
    ids=repr,
)
@in_reactor
async def test_a_query_may_have_1024_bytes_encoded(fits: int, body: dict[str, Any], single: Nodes) -> None:
    raw = await single.connect()
    body = {"Timeout": QUICK, **body}
    assert (await raw.call("query", {**body, "Payload": bytes(fits)})).error == ""
    refused = await raw.call("query", {**body, "Payload": bytes(fits + 1)})
    assert refused.error == "query exceeds limit of 1024 bytes"
    await raw.ok("stop", {"Stop": UNUSED})


# -- responses


@in_reactor
async def test_an_unknown_query_can_not_be_answered(shared: Nodes) -> None:
    raw = await shared.connect()
    for number in (0, 1, 2**64 - 1):
        assert await raw.call("respond", {"ID": number}) == ("No pending queries matching ID", None)


@in_reactor
async def test_only_the_first_answer_of_an_agent_counts(shared: Nodes) -> None:
    raw, one, other = await shared.connect(0), await shared.connect(1), await shared.connect(1)
    streams = [await each.opened("stream", {"Type": "query:first"}) for each in (one, other)]
    seq = await asked(raw, "first")
    events = [
        await received(each, stream, "first") for each, stream in zip((one, other), streams, strict=True)
    ]
    assert await one.call("respond", {"ID": events[0]["ID"], "Payload": b"first"}) == ("", None)
    late = await other.call("respond", {"ID": events[1]["ID"], "Payload": b"second"})
    assert late.error == "failed to respond to key query: response already sent"
    again = await one.call("respond", {"ID": events[0]["ID"], "Payload": b"third"})
    assert again.error == "failed to respond to key query: response already sent"
    assert [record["Payload"] for record in await raw.all_of_query(seq)] == [b"first", None]


@in_reactor
async def test_each_stream_of_a_connection_gives_a_query_an_id_of_its_own(shared: Nodes) -> None:
    raw = await shared.connect()
    streams = [await raw.opened("stream", {"Type": "query:twice"}) for _ in range(2)]
    for expected in ([1, 2], [3, 4]):
        await asked(raw, "twice")
        events = [await received(raw, stream, "twice") for stream in streams]
        assert sorted(event["ID"] for event in events) == expected
        assert len({event["LTime"] for event in events}) == 1


@in_reactor
async def test_an_id_means_nothing_on_another_connection(shared: Nodes) -> None:
    raw, other = await shared.connect(), await shared.connect()
    stream = await raw.opened("stream", {"Type": "query:mine"})
    await asked(raw, "mine")
    event = await received(raw, stream, "mine")
    assert (await other.call("respond", {"ID": event["ID"]})).error == "No pending queries matching ID"


@pytest.mark.parametrize("payload", [{}, {"Payload": None}, {"Payload": b""}, {"Payload": ""}])
@in_reactor
async def test_an_empty_answer_is_an_answer(payload: dict[str, Any], shared: Nodes) -> None:
    raw = await shared.connect()
    stream = await raw.opened("stream", {"Type": "query:empty"})
    seq = await asked(raw, "empty")
    event = await received(raw, stream, "empty")
    await raw.ok("respond", {"ID": event["ID"], **payload})
    kept = await shared.takes_bin() and payload.get("Payload") is not None
    answer = {"From": "n1", "Payload": b"" if kept else None, "Type": "response"}
    assert (await raw.all_of_query(seq))[0] == answer


@in_reactor
async def test_a_response_has_1024_bytes_encoded_and_may_be_tried_again(single: Nodes) -> None:
    raw = await single.connect()
    stream = await raw.opened("stream", {"Type": "query:large"})
    seq = await asked(raw, "large")
    event = await received(raw, stream, "large")
    for size in (982, 5000):
        refused = await raw.call("respond", {"ID": event["ID"], "Payload": bytes(size)})
        expected = "failed to respond to key query: response exceeds limit of 1024 bytes"
        assert refused == (expected, None)
    await raw.ok("respond", {"ID": event["ID"], "Payload": bytes(981)})
    assert len((await raw.all_of_query(seq))[0]["Payload"]) == 981


@in_reactor
async def test_past_the_deadline_there_is_nothing_to_answer(shared: Nodes) -> None:
    raw = await shared.connect()
    stream = await raw.opened("stream", {"Type": "query:late"})
    seq = await asked(raw, "late")
    event = await received(raw, stream, "late")
    await raw.all_of_query(seq)
    await turns(0.1)
    assert (await raw.call("respond", {"ID": event["ID"]})).error == "No pending queries matching ID"


@in_reactor
async def test_queries_have_an_ltime_of_their_own(single: Nodes) -> None:
    raw = await single.connect()
    stream = await raw.opened("stream", {"Type": "query"})
    for expected in (1, 2):
        await raw.ok("event", {"Name": "x"})
        await asked(raw, "x")
        assert (await received(raw, stream, "x"))["LTime"] == expected


@in_reactor
async def test_a_node_that_hangs_does_not_acknowledge(pair: Nodes) -> None:
    raw = await pair.connect()
    pair.cluster.pause(1)
    try:
        assert await acks(raw) == ["n1"]
    finally:
        pair.cluster.resume(1)


@in_reactor
async def test_an_agent_that_hangs_accepts_connections_and_answers_when_it_goes_on(pair: Nodes) -> None:
    raw = await pair.connect()
    pair.cluster.pause(0)
    try:
        late = await pair.connect(shaken=False)
        raw.request("members", seq=7)
        late.send({"Command": "handshake", "Seq": 1}, {"Version": 1})
        await turns(0.3)
        assert not raw._objects and not late._objects and raw.lost is None and late.lost is None
    finally:
        pair.cluster.resume(0)
    assert await raw.read() == {"Error": "", "Seq": 7}
    assert await late.read() == {"Error": "", "Seq": 1}
    assert await late.call("stop", {"Stop": UNUSED}, seq=2) == ("", None)
    assert CLOSED not in raw._objects
