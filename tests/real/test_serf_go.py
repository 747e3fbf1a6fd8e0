"""
`Serf` on real agents: counterparts of the tests of Serf's own Go client.

Each test's docstring names its counterparts in ``cmd/serf/command/agent/rpc_client_test.go``.
"""

from __future__ import annotations

import contextlib
import ipaddress
from collections.abc import Iterator
from pathlib import Path

import pytest

import txserf
from tests.agents import Agent, cluster, new_encrypt_key
from tests.real.helpers import fails, in_reactor
from txserf import Member, MemberEvent, MemberStatus, QueryEvent, UserEvent


@pytest.fixture
def strangers(tmp_path: Path) -> Iterator[list[Agent]]:
    """Two agents, ``n1`` and ``n2``, that do not know each other."""
    with cluster(1) as (near,), contextlib.ExitStack() as stack:
        far = Agent("n2", tmp_path)
        stack.callback(far.kill)
        far.start()
        yield [near, far]


@in_reactor
async def test_force_leave_marks_a_failed_member_as_left_and_prune_removes_it(
    two_agents: list[Agent],
) -> None:
    """TestRPCClientForceLeave, TestRPCClientForceLeave_prune"""
    near, far = two_agents
    async with txserf.Serf(near.rpc) as serf:
        events = serf.stream("member-failed,member-leave,member-reap")
        await events.when_active()
        far.kill()
        for kind, status in (("failed", MemberStatus.FAILED), ("leave", MemberStatus.LEFT)):
            event = await anext(events)
            assert isinstance(event, MemberEvent)
            assert (event.kind, [member.name for member in event.members]) == (kind, ["n2"])
            (member,) = await serf.members(name="n2")
            assert member.status is status
            assert len(await serf.members()) == 2
            await serf.force_leave("n2", prune=status is MemberStatus.LEFT)
        event = await anext(events)
        assert isinstance(event, MemberEvent)
        assert event.kind == "reap"
        assert [member.name for member in await serf.members()] == ["n1"]


@in_reactor
async def test_join_says_how_many_were_joined_and_members_has_them(strangers: list[Agent]) -> None:
    """TestRPCClientJoin, TestRPCClientMembers"""
    near, far = strangers
    async with txserf.Serf(near.rpc) as serf:
        (alone,) = await serf.members()
        assert alone.name == "n1"
        assert await serf.join([f"n2/{far.bind}"]) == 1
        both = {member.name: member for member in await serf.members()}
        assert sorted(both) == ["n1", "n2"]
        assert both["n2"].status is MemberStatus.ALIVE
        assert f"{both['n2'].address}:{both['n2'].port}" == far.bind


@in_reactor
async def test_members_can_be_filtered_by_name_and_status_and_tags(strangers: list[Agent]) -> None:
    """TestRPCClientMembersFiltered"""
    near, far = strangers
    async with txserf.Serf(near.rpc) as serf:
        await serf.join([far.bind])
        await serf.set_tags({"tag1": "val1", "tag2": "val2"})

        async def found(**filters: object) -> list[str]:
            return sorted(member.name for member in await serf.members(**filters))  # type: ignore[arg-type]

        assert await found(name=".*") == ["n1", "n2"]
        assert await found(name="bad") == []
        assert await found(tags={"tag1": "val.*"}) == ["n1"]
        assert await found(tags={"tag1": "val.*", "tag2": "val2"}) == ["n1"]
        assert await found(tags={"tag1": "val.*", "tag2": "bad"}) == []
        await serf.force_leave("n2")
        assert await found(status="alive") == ["n1"]
        assert await found(status="leaving") == ["n2"]


@in_reactor
async def test_a_user_event_reaches_a_stream_with_its_name_its_payload_and_its_time(
    shared_cluster: list[Agent],
) -> None:
    """TestRPCClientUserEvent, TestRPCClientStream_User"""
    near, far = shared_cluster
    async with txserf.Serf(near.rpc) as serf, txserf.Serf(far.rpc) as other:
        own, others = serf.stream("user:go-deploy"), other.stream("user")
        await own.when_active()
        await others.when_active()
        await serf.event("go-deploy", b"foo", coalesce=False)
        event = await anext(own)
        assert isinstance(event, UserEvent)
        assert event == UserEvent("go-deploy", b"foo", event.ltime, False)
        assert event.ltime > 0
        while (seen := await anext(others)) != event:  # events of other tests may come first
            assert isinstance(seen, UserEvent)


@in_reactor
async def test_leave_fires_although_the_agent_goes_away(agent: Agent) -> None:
    """TestRPCClientLeave"""
    async with txserf.Serf(agent.rpc) as serf:
        await serf.leave()
    assert agent.process is not None
    assert agent.process.wait(20) == 0


@in_reactor
async def test_a_monitor_has_the_past_lines_and_then_the_new_ones(agent: Agent) -> None:
    """TestRPCClientMonitor"""
    async with txserf.Serf(agent.rpc) as serf:
        lines = serf.monitor("debug")
        first = await anext(lines)
        assert (first.level, first.subsystem, first.text) == ("INFO", "agent", "Serf agent starting")
        assert first.time is not None
        await lines.when_active()
        await serf.event("go-test", b"foo")
        async for line in lines:
            if "Requesting user event send: go-test" in line.text:
                assert (line.level, line.subsystem) == ("DEBUG", "agent")
                break


@in_reactor
async def test_a_stream_has_the_members_that_join_in_full(strangers: list[Agent]) -> None:
    """TestRPCClientStream_Member"""
    near, far = strangers
    async with txserf.Serf(near.rpc) as serf:
        events = serf.stream("*")
        await events.when_active()
        await serf.join([far.bind])
        joined: list[Member] = []
        while not joined:  # n1's own join may come before n2's, or in the same record
            event = await anext(events)
            assert isinstance(event, MemberEvent)
            assert event.kind == "join"
            joined = [each for each in event.members if each.name == "n2"]
        (member,) = joined
        assert member.address == ipaddress.ip_address("127.0.0.1")
        assert member.port == int(far.bind.rpartition(":")[2])
        assert member.tags == {}
        assert member.status is MemberStatus.ALIVE
        assert member.protocol == (1, 5, 2)
        assert member.delegate == (2, 5, 5)
        assert [member] == await serf.members(name="n2")


@in_reactor
async def test_tags_can_be_set_and_deleted(agent: Agent) -> None:
    """TestRPCClientUpdateTags"""
    async with txserf.Serf(agent.rpc) as serf:
        (before,) = await serf.members()
        assert "testing" not in before.tags
        await serf.set_tags({"testing": "1", "more": "ü"})
        (after,) = await serf.members()
        assert after.tags == {"testing": "1", "more": "ü"}
        await serf.set_tags(delete=["testing"])
        (after,) = await serf.members()
        assert after.tags == {"more": "ü"}


@in_reactor
async def test_a_query_brings_acks_and_answers_and_says_that_it_is_complete(
    shared_cluster: list[Agent],
) -> None:
    """TestRPCClientQuery, TestRPCClientStream_Query, TestRPCClientStream_Query_Respond"""
    near, far = shared_cluster
    asked: list[QueryEvent] = []

    async def answer(event: object) -> None:
        assert isinstance(event, QueryEvent)
        asked.append(event)
        await event.respond(b"pong")

    async with txserf.Serf(near.rpc) as serf, txserf.Serf(far.rpc) as other:
        await other.stream("query:go-ping").add_callback(answer).when_active()
        result = await serf.query("go-ping", b"ping", timeout=0.5)
        assert sorted(result.acks) == ["n1", "n2"]
        assert result.responses == {"n2": b"pong"}
        assert result.complete
    (event,) = asked
    assert (event.name, event.payload) == ("go-ping", b"ping")
    assert event.ltime > 0


@in_reactor
async def test_a_key_that_the_agent_needs_is_sent(auth_agent: Agent) -> None:
    """TestRPCClientAuth"""
    key = auth_agent.rpc_auth
    assert key is not None
    host, _, port = auth_agent.rpc.partition(":")
    async with txserf.Serf([txserf.Host(host, int(port), key)]) as serf:
        await serf.event("deploy")
    async with txserf.Serf(auth_agent.rpc) as serf:
        error = await fails(serf.event("deploy"), txserf.AuthenticationError)
        assert key not in str(error)


@in_reactor
async def test_without_encryption_the_errors_of_key_commands_have_each_nodes_message(
    shared_cluster: list[Agent],
) -> None:
    """TestRPCClient_Keys_EncryptionDisabledError"""
    key = new_encrypt_key()
    async with txserf.Serf(shared_cluster[0].rpc) as serf:
        for command in (serf.install_key, serf.use_key, serf.remove_key):
            error = await fails(command(key), txserf.KeyringError)
            assert error.reply.messages.keys() == {"n1", "n2"}
            assert "encryption not enabled" in error.reply.messages["n1"]
        error = await fails(serf.list_keys(), txserf.KeyringError)
        assert (error.reply.nodes, error.reply.errors, error.reply.responses) == (2, 2, 2)
        assert error.command == "list-keys"
        assert error.message == "2/2 nodes reported failure"


@in_reactor
async def test_keys_are_listed_installed_used_and_removed(encrypted_agents: list[Agent]) -> None:
    """TestRPCClient_Keys"""
    new = new_encrypt_key()
    async with txserf.Serf(encrypted_agents[0].rpc) as serf:
        (old,) = (await serf.list_keys()).keys
        error = await fails(serf.use_key(new), txserf.KeyringError)
        assert error.reply.messages["n2"] == "Requested key is not in the keyring"
        error = await fails(serf.install_key("badkey"), txserf.KeyringError)
        assert "illegal base64" in error.message
        for _ in range(2):  # to install a key again succeeds too
            assert (await serf.install_key(new)).responses == 2
        assert (await serf.list_keys()).keys == {old: 2, new: 2}
        await fails(serf.remove_key(old), txserf.KeyringError)
        for _ in range(2):
            await serf.use_key(new)
        await fails(serf.remove_key(new), txserf.KeyringError)
        reply = await serf.remove_key(old)
        assert (reply.nodes, reply.errors, reply.keys) == (2, 0, {})
        reply = await serf.list_keys()
        assert reply.keys == {new: 2}
        assert new not in repr(reply)


@in_reactor
async def test_stats_are_text_by_name_by_section(shared_cluster: list[Agent]) -> None:
    """TestRPCClientStats"""
    async with txserf.Serf(shared_cluster[0].rpc) as serf:
        stats = await serf.stats()
        assert stats["agent"]["name"] == "n1"
        assert stats["tags"] == {"role": "web"}
        assert stats["serf"]["encrypted"] == "false"


@in_reactor
async def test_a_node_has_a_coordinate_and_an_unknown_one_has_none(shared_cluster: list[Agent]) -> None:
    """TestRPCClientGetCoordinate"""
    async with txserf.Serf(shared_cluster[0].rpc) as serf:
        coordinate = await serf.coordinate("n1")
        assert coordinate is not None
        assert len(coordinate.vec) == 8
        assert await serf.coordinate("nope") is None
        error = await fails(serf.rtt("n1", "nope"), txserf.RpcError)
        assert "'nope'" in str(error)
