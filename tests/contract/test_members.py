"""Members, their filters, tags, coordinates and figures."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest

from tests.contract.harness import CLOSED, Nodes, in_reactor
from txserf import commands
from txserf.model import Member

FIELDS = [
    "Addr",
    "DelegateCur",
    "DelegateMax",
    "DelegateMin",
    "Name",
    "Port",
    "ProtocolCur",
    "ProtocolMax",
    "ProtocolMin",
    "Status",
    "Tags",
]


async def names(nodes: Nodes, **filters: Any) -> list[str]:
    """Return the names of the members that match, by filters that are sent as they are."""
    raw = await nodes.connect()
    body = await raw.ok("members-filtered", filters)
    return sorted(member["Name"] for member in body["Members"])


async def names_of_whole(nodes: Nodes, **filters: Any) -> list[str]:
    """Return the names of the members that match, by filters that are sent as both APIs do."""
    row = commands.MEMBERS_FILTERED
    raw = await nodes.connect()
    body = await raw.ok(row.wire, row.body(row.arguments(filters)))
    return sorted(member["Name"] for member in body["Members"])


# -- members


@in_reactor
async def test_members_lists_all_with_all_fields(shared: Nodes) -> None:
    raw = await shared.connect()
    body = await raw.ok("members")
    assert list(body) == ["Members"]
    members = {member["Name"]: member for member in body["Members"]}
    assert sorted(members) == ["n1", "n2"]
    for index, name in enumerate(sorted(members)):
        member = members[name]
        assert list(member) == FIELDS
        assert member["Addr"] == b"\x7f\x00\x00\x01"
        assert f"127.0.0.1:{member['Port']}" == shared.cluster.bind(index)
        assert [member[field] for field in FIELDS[1:4]] == [5, 5, 2]
        assert [member[field] for field in FIELDS[6:9]] == [2, 5, 1]
        assert member["Status"] == "alive"
    assert members["n1"]["Tags"] == {"role": "web", "dc": "east"}
    assert members["n2"]["Tags"] == {"role": "db"}


@in_reactor
async def test_an_agent_with_the_default_bind_sends_its_ipv4_address_in_16_bytes(default_bind: Nodes) -> None:
    raw = await default_bind.connect()
    events = await raw.opened("stream", {"Type": "member-failed"})
    members = (await raw.ok("members"))["Members"]
    default_bind.cluster.fail(1)
    members += (await raw.record_where(events, lambda record: True))["Members"]
    assert [member["Name"] for member in members].count("n2") == 2
    for member in members:
        assert (len(member["Addr"]), member["Addr"][:12]) == (16, bytes(10) + b"\xff\xff")
        address = Member.from_wire(member).address
        assert address == ipaddress.IPv4Address(member["Addr"][12:])
        assert address.is_private and not address.is_loopback


@in_reactor
async def test_a_member_without_tags_has_an_empty_map(single: Nodes) -> None:
    raw = await single.connect()
    body = await raw.ok("members")
    assert [member["Tags"] for member in body["Members"]] == [{}]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("", ["n1", "n2"]),
        ("n1", ["n1"]),
        ("n", []),
        ("1", []),
        ("N1", []),
        ("(?i)N1", ["n1"]),
        ("(?i:N)1", ["n1"]),
        ("n(1|2)", ["n1", "n2"]),
        ("n1|zz", ["n1"]),
        ("n|zz", ["n1", "n2"]),  # the agent makes ^n|zz$ of it, without a group
        ("zz|2", ["n2"]),
        (".*", ["n1", "n2"]),
        ("n.", ["n1", "n2"]),
        (r"n\d", ["n1", "n2"]),
        (r"n\D", []),
        (r"\w+", ["n1", "n2"]),
        (r"\pL\pN", ["n1", "n2"]),
        (r"\p{Lu}1", []),
        ("n[[:digit:]]", ["n1", "n2"]),
        ("n[^[:^digit:]]", ["n1", "n2"]),
        ("n[2-9]", ["n2"]),
        ("n[^1]", ["n2"]),
        ("[]n]1", ["n1"]),
        (r"\x6e1", ["n1"]),
        (r"\x{6e}1", ["n1"]),
        (r"\Qn1\E", ["n1"]),
        (r"\Qn.\E", []),
        ("*", ["n1", "n2"]),  # ^*$ repeats the ^
        ("+", []),
        ("n1?", ["n1"]),
        ("n{1}1{1,}", ["n1"]),
        ("n{,2}", []),
        ("(?P<x>n)1", ["n1"]),
        ("(?P<x>n)(?P<x>1)", ["n1"]),
        (r"\bn1\b", ["n1"]),
        (r"\An1\z", ["n1"]),
        ("(?U)n1+", ["n1"]),
        ("(?s).1", ["n1"]),
        ("(?m)n1$", ["n1"]),
        ("a(?i)b|N1", ["n1"]),
        ("n1$|^zz", ["n1"]),
        ("()n1", ["n1"]),
        ("(|n)1", ["n1"]),
        ("n1(?i)?", ["n1"]),  # flags are nothing that can be repeated: it is the 1
        ("n(?i)*1", ["n1"]),
        ("n(?-i)+1", ["n1"]),
        ("n1(?U){1}", ["n1"]),
        ("n*(?i)*1", ["n1"]),
        (r"n1\Q\E{1}", ["n1"]),
        (r"\QN\E*n1", ["n1"]),
        (r"[\pL]1", ["n1"]),
        (r"[\p{Ll}]\d", ["n1", "n2"]),
        (r"[^\PL]1", ["n1"]),
        (r"\p{^Lu}1", ["n1"]),
        (r"(?i)\p{Lu}1", ["n1"]),
        (r"\p{Any}{2}", ["n1", "n2"]),
        ("n1{02}", []),  # no count begins with 0: it is text
        ("n[[:]?1", ["n1"]),
        (r"n1\B|\Bzz", []),
        (r"n1(?:\B)?", ["n1"]),
        ("(?:n{0,10}1{0,10}){100}", ["n1"]),
        ("(" * 900 + "n1" + ")" * 900, ["n1"]),
        ("(?i)N1|\u212a", ["n1"]),
    ],
)
@in_reactor
async def test_a_name_is_filtered_by_a_pattern_of_go(
    pattern: str, expected: list[str], shared: Nodes
) -> None:
    assert await names(shared, Name=pattern) == expected


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({}, ["n1", "n2"]),
        ({"Status": "alive"}, ["n1", "n2"]),
        ({"Status": "ali"}, []),
        ({"Status": "ali.*"}, ["n1", "n2"]),
        ({"Status": "failed|left"}, []),
        ({"Status": "alive", "Name": "n2"}, ["n2"]),
        ({"Tags": {"role": "web"}}, ["n1"]),
        ({"Tags": {"role": "we"}}, []),
        ({"Tags": {"role": "web|db"}}, ["n1", "n2"]),
        ({"Tags": {"role": "web", "dc": "west"}}, []),
        ({"Tags": {"role": "web", "dc": "e.*"}}, ["n1"]),
        ({"Tags": {"dc": ""}}, ["n2"]),
        ({"Tags": {"dc": ".+"}}, ["n1"]),
        ({"Tags": {"dc": ".*"}}, ["n1", "n2"]),
        ({"Tags": {"role": None}}, []),
        ({"Tags": {"none": ""}}, ["n1", "n2"]),
        ({"Tags": {"dc": r"\B"}}, ["n2"]),  # an empty value is not at a word's edge
        ({"Tags": {"dc": r"\b"}}, []),
        ({"Tags": None, "Name": None, "Status": None}, ["n1", "n2"]),
        ({"Tags": {"role": "db"}, "Status": "alive", "Name": "n.*"}, ["n2"]),
    ],
)
@in_reactor
async def test_filters_have_all_to_match(filters: dict[str, Any], expected: list[str], shared: Nodes) -> None:
    assert await names(shared, **filters) == expected


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({"Tags": {"role": "web|dbx"}}, ["n1"]),
        ({"Tags": {"role": "we|db"}}, ["n2"]),
        ({"Tags": {"role": "web|b"}}, ["n1"]),
        ({"Tags": {"role": "w.*|d.*"}}, ["n1", "n2"]),
        ({"Tags": {"dc": "east|"}}, ["n1", "n2"]),
        ({"Status": "x|ive"}, []),
        ({"Status": "alive|x"}, ["n1", "n2"]),
        ({"Name": "n|2"}, []),
        ({"Name": "n1|zz"}, ["n1"]),
        ({"Name": "(?i)zz|N1"}, ["n1"]),
        ({"Name": "[|]|n2"}, ["n2"]),
        ({"Name": r"zz|\Qn2"}, ["n2"]),
        ({"Name": r"\Qn|2\E"}, []),
        ({"Name": "n(1|2)"}, ["n1", "n2"]),
        ({"Name": "n1$|^zz"}, ["n1"]),
    ],
)
@in_reactor
async def test_filters_of_the_apis_match_the_whole_text(
    filters: dict[str, Any], expected: list[str], shared: Nodes
) -> None:
    assert await names_of_whole(shared, **filters) == expected


@pytest.mark.parametrize("pattern", ["n1)|(n2", "n1|(n2", "n1|n2)", "n1|[n2", "n1|n2\\", "n1|*"])
@in_reactor
async def test_an_invalid_pattern_is_not_made_valid(pattern: str, shared: Nodes) -> None:
    row = commands.MEMBERS_FILTERED
    raw = await shared.connect()
    raw.request(row.wire, row.body(row.arguments({"Name": pattern})))
    assert await raw.read() == CLOSED


@pytest.mark.parametrize(
    "pattern",
    [
        "(",
        ")",
        "[",
        "[z-a]",
        "a**",
        "a{2}{3}",
        "a++",
        "a{1001}",
        "a{2,1}",
        "|*",
        "(*)",
        "n(?=1)",
        "n(?!1)",
        "(?<=n)1",
        "(?<!n)1",
        "(?>n)1",
        "(?#x)n1",
        "(?(1)a|b)",
        "(?P=x)",
        "(?P<>n)1",
        "(?P<é>n)1",
        "(?P<1-2>n)",
        "(?x)n 1",
        "(?i",
        r"(n)\1",
        r"\Z",
        r"\y",
        r"\p{Unheard}",
        r"\x{110000}",
        "[[:unheard:]]",
        r"\p{",
        r"\p^L",
        r"\p",
        r"\C1",
        "(?-)n1",
        "(?i-)n1",
        "(?:a{40}){40}",
        "n1(?i){2}{2}",
        "(" * 1001 + "n1" + ")" * 1001,
        "[a",
        "[]",
        r"[a-\d]",
    ],
)
@pytest.mark.parametrize("place", ["Name", "Status", "Tags"])
@in_reactor
async def test_an_invalid_pattern_closes_the_connection(pattern: str, place: str, shared: Nodes) -> None:
    raw = await shared.connect()
    raw.request("members-filtered", {place: {"role": pattern} if place == "Tags" else pattern})
    assert await raw.read() == CLOSED


@in_reactor
async def test_a_group_name_without_a_p_is_refused_but_by_newer_agents(shared: Nodes) -> None:
    if await shared.newer():
        pytest.skip("Go 1.22 and later take (?<x>...), and a release may be built with either")
    raw = await shared.connect()
    raw.request("members-filtered", {"Name": "(?<x>n)1"})
    assert await raw.read() == CLOSED


@in_reactor
async def test_a_byte_that_is_not_utf8_matches_as_a_replacement_character(pair: Nodes) -> None:
    raw = await pair.connect()
    await raw.ok("tags", {"Tags": {"odd": "\udcff\udcfe"}})

    async def told() -> bool:
        return bool((await raw.ok("stats"))["tags"])

    await pair.until(told)
    for pattern in ("..", r"\x{fffd}{2}", r"[^\x00-\x{fffc}]+", r"\PL\PL"):
        body = await raw.ok("members-filtered", {"Tags": {"odd": pattern}})
        assert [member["Name"] for member in body["Members"]] == ["n1"], pattern


# -- tags


@in_reactor
async def test_tags_deletes_first_and_then_sets(pair: Nodes) -> None:
    raw, far = await pair.connect(0), await pair.connect(1)
    await raw.ok("tags", {"Tags": {"a": "1", "b": "2", "c": "3"}})
    await raw.ok("tags", {"Tags": {"b": "5", "d": "é\udcff"}, "DeleteTags": ["a", "b", "none"]})
    expected = {"b": "5", "c": "3", "d": "é\udcff"}
    for connection in (raw, far):

        async def told(connection: Any = connection) -> bool:
            body = await connection.ok("members-filtered", {"Name": "n1"})
            return bool(body["Members"][0]["Tags"] == expected)

        await pair.until(told)
    assert (await raw.ok("stats"))["tags"] == expected


@in_reactor
async def test_tags_with_nothing_to_do_succeeds(single: Nodes) -> None:
    raw = await single.connect()
    await raw.ok("tags", {"Tags": {"a": "1"}})
    await raw.ok("tags", {})
    await raw.ok("tags", {"Tags": None, "DeleteTags": None})
    assert (await raw.ok("stats"))["tags"] == {"a": "1"}


@pytest.mark.parametrize(
    ("fits", "too_much"),
    [
        ({"a": "x" * 505}, {"a": "x" * 506}),
        ({"a" * 31: "x" * 31, "b" * 32: "y" * 408}, {"a" * 31: "x" * 31, "b" * 32: "y" * 409}),
        (
            {f"{n:02}": "x" * 28 for n in range(15)} | {"00": "x" * 31},
            {f"{n:02}": "x" * 30 for n in range(16)},
        ),
    ],
    ids=["one", "two", "many"],
)
@in_reactor
async def test_all_tags_have_512_bytes_encoded(
    fits: dict[str, str], too_much: dict[str, str], single: Nodes
) -> None:
    raw = await single.connect()
    await raw.ok("tags", {"Tags": fits})
    refused = await raw.call("tags", {"Tags": too_much, "DeleteTags": list(fits)})
    assert refused.error == "Encoded length of tags exceeds limit of 512 bytes"
    assert (await raw.ok("stats"))["tags"] == fits


@in_reactor
async def test_the_next_request_waits_for_the_tags_and_another_connection_does_not(pair: Nodes) -> None:
    raw, other = await pair.connect(), await pair.connect()
    tags = raw.request("tags", {"Tags": {"a": "1"}})
    behind = raw.request("members")
    await other.ok("members")
    assert raw.lost is None and not raw._objects
    assert (await raw.reply("tags", tags)).error == ""
    members = (await raw.reply("members", behind)).body["Members"]
    assert {member["Name"]: member["Tags"] for member in members} == {"n1": {"a": "1"}, "n2": {}}


# -- coordinates


@in_reactor
async def test_a_coordinate_has_its_parts(pair: Nodes) -> None:
    raw = await pair.connect()

    async def known() -> bool:
        body = await raw.ok("get-coordinate", {"Node": "n2"})
        return bool(body["Ok"])

    await pair.until(known)
    for node in ("n1", "n2"):
        body = await raw.ok("get-coordinate", {"Node": node})
        assert list(body) == ["Coord", "Ok"]
        assert body["Ok"] is True
        coord = body["Coord"]
        assert list(coord) == ["Adjustment", "Error", "Height", "Vec"]
        assert len(coord["Vec"]) == 8
        assert all(isinstance(value, float) for value in [*coord["Vec"], *list(coord.values())[:3]])
        assert 0 < coord["Error"] <= 1.5
        assert 1e-5 <= coord["Height"] < 1.0


@in_reactor
async def test_a_new_node_has_its_own_coordinate_at_once(single: Nodes) -> None:
    raw = await single.connect()
    body = await raw.ok("get-coordinate", {"Node": "n1"})
    expected = {"Adjustment": 0.0, "Error": 1.5, "Height": 1e-05, "Vec": [0.0] * 8}
    assert body == {"Coord": expected, "Ok": True}


@pytest.mark.parametrize("body", [{"Node": "nobody"}, {"Node": ""}, {}, {"Node": "N1"}])
@in_reactor
async def test_an_unknown_node_has_no_coordinate(body: Any, shared: Nodes) -> None:
    raw = await shared.connect()
    nothing = {"Adjustment": 0.0, "Error": 0.0, "Height": 0.0, "Vec": None}
    assert await raw.ok("get-coordinate", body) == {"Coord": nothing, "Ok": False}


# -- stats


@in_reactor
async def test_stats_has_its_keys_and_all_values_are_text(shared: Nodes) -> None:
    raw = await shared.connect()
    stats = await raw.ok("stats")
    assert {
        section: set(values) for section, values in stats.items() if section not in ("tags", "event_handlers")
    } == {
        "agent": {"name"},
        "runtime": {"arch", "os", "version", "max_procs", "goroutines", "cpu_count"},
        "serf": {
            "members",
            "failed",
            "left",
            "health_score",
            "member_time",
            "event_time",
            "query_time",
            "intent_queue",
            "event_queue",
            "query_queue",
            "encrypted",
            "coordinate_resets",
        },
    }
    assert all(isinstance(value, str) for values in stats.values() for value in values.values())
    assert stats["agent"] == {"name": "n1"}
    assert stats["tags"] == {"role": "web", "dc": "east"}
    assert stats["event_handlers"] == {}
    serf = stats["serf"]
    assert (serf["members"], serf["failed"], serf["left"], serf["encrypted"]) == ("2", "0", "0", "false")


@in_reactor
async def test_stats_counts_events_and_queries_by_their_clocks(single: Nodes) -> None:
    raw = await single.connect()
    assert (await raw.ok("stats"))["serf"]["event_time"] == "1"
    await raw.ok("event", {"Name": "x"})
    await raw.ok("query", {"Name": "x", "Timeout": 10_000_000})
    serf = (await raw.ok("stats"))["serf"]
    assert (serf["event_time"], serf["query_time"]) == ("2", "2")


@in_reactor
async def test_stats_says_whether_gossip_is_encrypted(encrypted: Nodes) -> None:
    raw = await encrypted.connect()
    assert (await raw.ok("stats"))["serf"]["encrypted"] == "true"


@in_reactor
async def test_a_status_filter_matches_what_the_table_says_that_it_can(single: Nodes) -> None:
    for pattern in (
        "alive",
        "live",
        "al.*",
        "alive|x",
        "x|live",
        "x|e",
        "x|alive",
        "alive|",
        "(x|alive)",
        "(x|y)",
        "^alive$",
        "ali?",
        "a.?l.?i.?v.?e",
    ):
        assert bool(await names_of_whole(single, Status=pattern)) == commands.can_match(pattern, ["alive"]), (
            pattern
        )
