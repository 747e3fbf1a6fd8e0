"""Joining, leaving and failing, and the member events about it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.contract.harness import CLOSED, Nodes, Raw, in_reactor, reactor, takes, turns

REFUSED = "Failed to join 127.0.0.1: dial tcp 127.0.0.1:1: connect: connection refused"
REFUSED_BY_NEWER = REFUSED.replace("join 127.0.0.1:", "join 127.0.0.1:1:")


def failures(*reasons: str) -> str:
    count = f"{len(reasons)} error{'s' if len(reasons) > 1 else ''} occurred:\n"
    return count + "".join(f"\t* {reason}\n" for reason in reasons) + "\n"


async def member_event(raw: Raw, seq: int, kind: str, name: str) -> dict[str, str]:
    """Wait for the next record of this kind that has the member *name*. Return the status of each member in it."""
    record = await raw.record_where(
        seq,
        lambda record: (
            record["Event"] == f"member-{kind}" and name in [each["Name"] for each in record["Members"]]
        ),
    )
    assert list(record) == ["Event", "Members"]
    return {member["Name"]: member["Status"] for member in record["Members"]}


# -- join


@pytest.mark.parametrize("existing", [[], None])
@in_reactor
async def test_a_join_of_nothing_succeeds_with_nothing(existing: Any, shared: Nodes) -> None:
    raw = await shared.connect()
    assert await raw.call("join", {"Existing": existing}) == ("", {"Num": 0})


@in_reactor
async def test_an_agent_joins_itself(single: Nodes) -> None:
    raw = await single.connect()
    assert await raw.call("join", {"Existing": [single.cluster.bind(0)]}) == ("", {"Num": 1})


@pytest.mark.parametrize(
    ("existing", "error"),
    [
        (["127.0.0.1:1"], failures(REFUSED)),
        (["n9/127.0.0.1:1"], failures(REFUSED)),
        (["127.0.0.1:1", "127.0.0.1:1"], failures(REFUSED, REFUSED)),
        (["a:b:c"], failures("Failed to resolve a:b:c: lookup a:b:c: no such host")),
        ([""], failures("Failed to resolve : lookup : no such host")),
        ([None], failures("Failed to resolve : lookup : no such host")),
        (["/127.0.0.1"], failures("Failed to resolve /127.0.0.1: empty node name provided")),
        (
            ["127.0.0.1:x"],
            failures('Failed to resolve 127.0.0.1:x: strconv.ParseUint: parsing "x": invalid syntax'),
        ),
        (
            ["127.0.0.1:65536"],
            failures(
                'Failed to resolve 127.0.0.1:65536: strconv.ParseUint: parsing "65536": value out of range'
            ),
        ),
        (
            ["a:b:c", "127.0.0.1:1"],
            failures("Failed to resolve a:b:c: lookup a:b:c: no such host", REFUSED),
        ),
    ],
    ids=repr,
)
@in_reactor
async def test_a_join_that_fails_names_each_address(existing: list[Any], error: str, shared: Nodes) -> None:
    raw = await shared.connect()
    if await shared.newer():
        error = error.replace(REFUSED, REFUSED_BY_NEWER)
    assert await raw.call("join", {"Existing": existing}) == (error, {"Num": 0})


@in_reactor
async def test_a_join_succeeds_with_one_address_that_works(shared: Nodes) -> None:
    raw = await shared.connect()
    addresses = ["127.0.0.1:1", shared.cluster.bind(1), "a:b:c", f"n2/{shared.cluster.bind(1)}"]
    assert await raw.call("join", {"Existing": addresses}) == ("", {"Num": 2})


@in_reactor
async def test_two_agents_that_join_know_each_other_and_tell_their_streams(single: Nodes) -> None:
    index = single.cluster.add("n9")
    raw, other = await single.connect(0), await single.connect(index)
    streams = [await each.opened("stream", {"Type": "member-join"}) for each in (raw, other)]
    await turns(1.2)  # until both streams have had the join of their own agent
    started = reactor.seconds()
    assert await raw.call("join", {"Existing": [single.cluster.bind(index)]}) == ("", {"Num": 1})
    assert (await member_event(raw, streams[0], "join", "n9"))["n9"] == "alive"
    assert reactor.seconds() - started > 0.7
    assert (await member_event(other, streams[1], "join", "n1"))["n1"] == "alive"
    assert [await single.status(each, name) for each in (raw, other) for name in ("n1", "n9")] == [
        "alive"
    ] * 4


@pytest.mark.parametrize("replay", [True, False])
@in_reactor
async def test_a_join_replays_events_when_it_is_told_to(replay: bool, single: Nodes) -> None:
    index = single.cluster.add("n9")
    raw, other = await single.connect(0), await single.connect(index)
    await other.ok("event", {"Name": "old", "Payload": b"1", "Coalesce": True})
    await other.ok("event", {"Name": "old", "Payload": b"2"})
    stream = await raw.opened("stream", {"Type": "user"})
    await raw.ok("join", {"Existing": [single.cluster.bind(index)], "Replay": replay})
    await raw.ok("event", {"Name": "new"})
    seen = []
    while True:
        record = await raw.record(stream)
        seen.append((record["Name"], record["Payload"], record["Coalesce"]))
        if record["Name"] == "new":
            assert record["LTime"] == 3
            break
    old = [("old", b"1", False), ("old", b"2", False)] if replay else []
    assert seen == [*old, ("new", None, False)]


@in_reactor
async def test_a_join_of_an_agent_that_hangs_times_out_and_others_go_on(pair: Nodes) -> None:
    index = pair.cluster.add("n9")
    raw, other = await pair.connect(), await pair.connect()
    pair.cluster.pause(index)

    async def others_go_on() -> float:
        started = reactor.seconds()
        join = raw.request("join", {"Existing": [pair.cluster.bind(index)]})
        behind = raw.request("stop", {"Stop": 1})
        await other.ok("members")
        answered_in: float = reactor.seconds() - started
        error, body = await raw.reply("join", join)
        assert reactor.seconds() - started > 0.8
        assert error.startswith("1 error occurred:\n\t* Failed to join 127.0.0.1:")
        assert error.endswith("i/o timeout\n\n")
        assert body == {"Num": 0}
        await raw.reply("stop", behind)
        return answered_in

    try:
        await takes(0.0, 0.8, others_go_on)
    finally:
        pair.cluster.resume(index)


# -- leave


@in_reactor
async def test_an_agent_that_is_alone_answers_a_leave_after_a_second_and_ends(single: Nodes) -> None:
    raw, other = await single.connect(), await single.connect()
    stream = await other.opened("stream", {"Type": "member-leave"})
    started = reactor.seconds()
    leave = raw.request("leave")

    async def leaves() -> bool:
        return await single.status(other, "n1") in ("leaving", "left")

    await single.until(leaves)
    refused = await other.call("join", {"Existing": []})
    assert refused == ("Serf can't Join after Leave or Shutdown", {"Num": 0})
    assert (await raw.reply("leave", leave)) == ("", None)
    assert reactor.seconds() - started > 0.9
    assert await raw.read() == CLOSED
    while (record := await other.record(stream)) != CLOSED:
        assert record["Event"] == "member-leave"
    with pytest.raises(Exception, match="refused"):
        await single.connect()


@in_reactor
async def test_the_other_agents_see_a_node_leave(pair: Nodes) -> None:
    raw, far = await pair.connect(0), await pair.connect(1)
    stream = await raw.opened("stream", {"Type": "member-leave,member-failed"})
    await far.ok("leave")
    assert await member_event(raw, stream, "leave", "n2") == {"n2": "left"}
    assert await pair.status(raw, "n2") == "left"
    serf = (await raw.ok("stats"))["serf"]
    assert (serf["members"], serf["failed"], serf["left"]) == ("2", "0", "1")
    body = await raw.ok("members-filtered", {"Status": "left"})
    assert [member["Name"] for member in body["Members"]] == ["n2"]


@in_reactor
async def test_a_second_leave_ends_the_agent_at_once(pair: Nodes) -> None:
    raw, other = await pair.connect(), await pair.connect()
    raw.request("leave")
    await turns(0.1)
    assert await other.call("leave") == ("Leave already in progress", None)
    assert await other.read() == CLOSED
    assert await raw.read() == CLOSED


@in_reactor
async def test_an_agent_that_leaves_never_answers_tags(pair: Nodes) -> None:
    raw, other = await pair.connect(), await pair.connect()
    raw.request("leave")
    await turns(0.7)
    other.request("tags", {"Tags": {"a": "1"}})
    assert await other.read() == CLOSED


# -- failures


@in_reactor
async def test_an_agent_that_crashes_is_failed_for_the_others_and_may_come_back(pair: Nodes) -> None:
    raw, far = await pair.connect(0), await pair.connect(1)
    stream = await raw.opened("stream", {"Type": "member-failed,member-join"})
    pair.cluster.fail(1)
    assert await far.read() == CLOSED
    with pytest.raises(Exception, match="refused"):
        await pair.connect(1)
    assert await member_event(raw, stream, "failed", "n2") == {"n2": "failed"}
    assert await pair.status(raw, "n2") == "failed"
    assert (await raw.ok("stats"))["serf"]["failed"] == "1"
    pair.cluster.recover(1)
    assert await member_event(raw, stream, "join", "n2") == {"n2": "alive"}
    assert await pair.status(raw, "n2") == "alive"
    await (await pair.connect(1)).ok("members")


@in_reactor
async def test_a_quick_restart_is_no_event(pair: Nodes) -> None:
    raw = await pair.connect()
    stream = await raw.opened("stream", {"Type": "member-failed,member-join,member-leave"})
    await turns(1.2)  # until the stream has had the joins of the start
    await raw.ok("stop", {"Stop": 2**63})
    raw.records[stream].clear()
    pair.cluster.fail(1)
    pair.cluster.recover(1)
    await pair.until_status(await pair.connect(1), "n1", "alive")
    assert await raw.quiet(1.5, stream) == []


# -- updates


@in_reactor
async def test_updates_in_a_second_are_one_event_of_the_latest(pair: Nodes) -> None:
    raw, far = await pair.connect(0), await pair.connect(1)
    streams = [await each.opened("stream", {"Type": "member-update"}) for each in (raw, far)]
    for number in ("1", "2"):
        await raw.ok("tags", {"Tags": {"a": number}})
    for each, stream in zip((raw, far), streams, strict=True):
        record = await each.record(stream)
        assert [(member["Name"], member["Tags"]) for member in record["Members"]] == [("n1", {"a": "2"})]
    assert await raw.quiet(1.3, streams[0]) == []


@in_reactor
async def test_tags_that_stay_the_same_are_no_event(pair: Nodes) -> None:
    raw = await pair.connect()
    await raw.ok("tags", {"Tags": {"a": "1"}})
    await turns(1.2)
    stream = await raw.opened("stream", {"Type": "member-update"})
    await raw.ok("tags", {"Tags": {"a": "1"}})
    assert await raw.quiet(1.3, stream) == []


# -- force-leave


@pytest.mark.parametrize("body", [{"Node": "nobody"}, {"Node": "nobody", "Prune": True}, {"Node": ""}, {}])
@in_reactor
async def test_a_force_leave_of_an_unknown_node_succeeds(body: Any, pair: Nodes) -> None:
    raw = await pair.connect()
    assert await raw.call("force-leave", body) == ("", None)
    assert [await pair.status(raw, name) for name in ("n1", "n2")] == ["alive", "alive"]


@pytest.mark.parametrize("prune", [False, True])
@in_reactor
async def test_a_force_leave_of_oneself_does_nothing(prune: bool, pair: Nodes) -> None:
    raw = await pair.connect()
    assert await raw.call("force-leave", {"Node": "n1", "Prune": prune}) == ("", None)
    await turns(0.3)
    assert [await pair.status(raw, name) for name in ("n1", "n2")] == ["alive", "alive"]


@pytest.mark.parametrize("prune", [False, True])
@in_reactor
async def test_a_failed_node_is_forced_to_have_left(prune: bool, pair: Nodes) -> None:
    raw = await pair.connect()
    pair.cluster.fail(1)
    await pair.until_status(raw, "n2", "failed")
    stream = await raw.opened("stream", {"Type": "member-leave,member-reap"})
    assert await raw.call("force-leave", {"Node": "n2", "Prune": prune}) == ("", None)
    assert await pair.status(raw, "n2") == ("" if prune else "left")
    kind = "reap" if prune else "leave"
    assert await member_event(raw, stream, kind, "n2") == {"n2": "left"}


@in_reactor
async def test_a_node_that_left_is_pruned(pair: Nodes) -> None:
    raw, far = await pair.connect(0), await pair.connect(1)
    await far.ok("leave")
    await pair.until_status(raw, "n2", "left")
    stream = await raw.opened("stream", {"Type": "member-reap"})
    await raw.ok("force-leave", {"Node": "n2", "Prune": True})
    assert await member_event(raw, stream, "reap", "n2") == {"n2": "left"}
    assert await pair.status(raw, "n2") == ""


@in_reactor
async def test_with_two_nodes_only_the_forcing_agent_sees_an_alive_node_leaving(pair: Nodes) -> None:
    raw, far = await pair.connect(0), await pair.connect(1)
    await raw.ok("force-leave", {"Node": "n2"})
    assert await pair.status(raw, "n2") == "leaving"
    await turns(1.0)
    assert await pair.status(raw, "n2") == "leaving"
    assert await pair.status(far, "n2") == "alive"


@in_reactor
async def test_with_three_nodes_an_alive_node_refutes_a_force_leave(trio: Nodes) -> None:
    raw = await trio.connect(0)

    async def settled() -> bool:
        # Until it knows of n3's join its LTime is too low, and n2 would ignore its leave message.
        return int((await raw.ok("stats"))["serf"]["member_time"]) >= 3

    await trio.until(settled)
    await raw.ok("force-leave", {"Node": "n2"})
    await trio.until_status(raw, "n2", "alive")


@in_reactor
async def test_a_prune_of_an_alive_node_freezes_the_agent_for_six_seconds(pair: Nodes) -> None:
    raw, other = await pair.connect(), await pair.connect()
    started = reactor.seconds()
    prune = raw.request("force-leave", {"Node": "n2", "Prune": True})
    await turns(0.1)
    await other.ok("event", {"Name": "x"})
    assert reactor.seconds() - started < 5.5
    assert await pair.status(other, "n2") == ""
    assert reactor.seconds() - started > 5.5
    await raw.reply("force-leave", prune)
