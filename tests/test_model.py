"""The values of the typed API: they are read from whatever an agent sends, and can't be changed."""

from __future__ import annotations

import copy
import functools
import ipaddress
import math
import pickle
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

import attrs
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase

from tests.fakes import DONE, MEMBER, MEMBERS, NO_MEMBERS, answer, user_event
from txserf import wire
from txserf.errors import ProtocolError
from txserf.model import (
    Ack,
    Answer,
    Coordinate,
    Event,
    Gap,
    KeyReply,
    LogLine,
    Member,
    MemberEvent,
    MemberItems,
    MemberStatus,
    QueryEvent,
    QueryResult,
    Tags,
    UserEvent,
    event_from_wire,
    joined_from_wire,
    members_from_wire,
    query_record_from_wire,
    stats_from_wire,
)

Read = Callable[[Any], object]

#: Text with a byte that is not UTF-8, as the codec decodes it.
ODD = "n\udcff"

QUERY = {"Event": "query", "ID": 7, "LTime": 3, "Name": "load", "Payload": b"now"}
MEMBER_EVENT = {"Event": "member-failed", "Members": [MEMBER]}
KEYS = {"Keys": {"s3cret==": 2}, "Messages": {"n1": "hm"}, "NumErr": 1, "NumNodes": 3, "NumResp": 2}
COORD = {"Adjustment": -0.5, "Error": 0.25, "Height": 0.125, "Vec": [1.0, 2, -3.5]}
COORDINATE = {"Coord": COORD, "Ok": True}
NO_COORDINATE = {"Coord": {"Adjustment": 0.0, "Error": 0.0, "Height": 0.0, "Vec": None}, "Ok": False}
LINE = "2026/11/24 00:47:08 [WARN] agent.ipc: Dropping event to 127.0.0.1:4"

#: Each reader, and a record that it can read.
READERS: list[tuple[Read, dict[str, Any]]] = [
    (Member.from_wire, MEMBER),
    (members_from_wire, MEMBERS),
    (joined_from_wire, {"Num": 2}),
    (stats_from_wire, {"agent": {"name": "n1"}, "tags": {}}),
    (event_from_wire, user_event()),
    (event_from_wire, QUERY),
    (event_from_wire, MEMBER_EVENT),
    (LogLine.from_wire, {"Log": LINE}),
    (query_record_from_wire, answer("n1", b"x")),
    (KeyReply.from_wire, KEYS),
    (Coordinate.from_wire, COORDINATE),
]


class ModelCase(SynchronousTestCase):
    def refused(self, read: Read, record: object) -> str:
        """Return the text of the error that reading *record* raises."""
        return str(self.assertRaises(ProtocolError, read, record))


class MemberTests(ModelCase):
    def test_a_member_is_read(self) -> None:
        self.assertEqual(
            Member.from_wire(MEMBER),
            Member(
                name="n1",
                address=ipaddress.IPv4Address("127.0.0.1"),
                port=7946,
                tags=Tags(role="web"),
                status=MemberStatus.ALIVE,
                protocol=(1, 5, 2),
                delegate=(2, 5, 5),
            ),
        )

    def test_least_highest_and_spoken_version_are_in_this_order(self) -> None:
        record = {"ProtocolMin": 1, "ProtocolMax": 2, "ProtocolCur": 3}
        record |= {"DelegateMin": 4, "DelegateMax": 5, "DelegateCur": 6}
        member = Member.from_wire({**MEMBER, **record})
        self.assertEqual((member.protocol, member.delegate), ((1, 2, 3), (4, 5, 6)))

    def test_sixteen_bytes_are_an_ipv6_address(self) -> None:
        member = Member.from_wire({**MEMBER, "Addr": bytes(15) + b"\x01"})
        self.assertEqual(member.address, ipaddress.IPv6Address("::1"))

    def test_an_ipv4_address_in_sixteen_bytes_is_an_ipv4_address(self) -> None:
        member = Member.from_wire({**MEMBER, "Addr": bytes(10) + b"\xff\xff\x0a\x09\x08\x07"})
        self.assertEqual(member.address, ipaddress.IPv4Address("10.9.8.7"))
        self.assertEqual(member, Member.from_wire({**MEMBER, "Addr": b"\x0a\x09\x08\x07"}))
        self.assertEqual(member, attrs.evolve(member, address=ipaddress.IPv6Address("::ffff:10.9.8.7")))

    def test_an_address_with_a_zone_keeps_it(self) -> None:
        address = ipaddress.IPv6Address("fe80::1%eth0")
        member = attrs.evolve(Member.from_wire(MEMBER), address=address)
        self.assertEqual(member.address, address)
        kept = pickle.loads(pickle.dumps(address))  # without the zone on Python 3.10
        self.assertEqual(pickle.loads(pickle.dumps(member)).address, kept)
        self.assertNotEqual(member, attrs.evolve(member, address=ipaddress.IPv6Address("fe80::1")))

    def test_a_member_shows_and_gives_its_address_as_any_other_field(self) -> None:
        (member,) = members_from_wire(MEMBERS)
        address = ipaddress.IPv4Address("127.0.0.1")
        self.assertEqual((member.address, attrs.asdict(member)["address"]), (address, address))
        self.assertIn("Member(name='n1', address=IPv4Address('127.0.0.1'), port=7946,", repr(member))
        self.assertEqual([field.name for field in attrs.fields(Member)][:3], ["name", "address", "port"])
        self.assertRaises(AttributeError, delattr, member, "address")

    def test_members_that_differ_in_one_field_are_not_equal(self) -> None:
        (member,) = members_from_wire(MEMBERS)
        other: dict[str, Any] = {"name": "n2", "address": None, "port": 1, "tags": {}, "status": "left"}
        other |= {"protocol": (1, 1, 1), "delegate": (1, 1, 1)}
        for name, value in other.items():
            self.assertNotEqual(attrs.evolve(member, **{name: value}), member)
        self.assertEqual((attrs.evolve(member), hash(attrs.evolve(member))), (member, hash(member)))
        self.assertFalse(member == MEMBER)

    def test_an_address_of_another_type_is_refused_and_its_type_named(self) -> None:
        member = Member.from_wire(MEMBER)
        values: list[Any] = [
            b"abcd",
            b"",
            "127.0.0.1",
            0x7F000001,
            ipaddress.ip_interface("10.0.0.1/8").network,
        ]
        for value in values:
            for make in (Member, functools.partial(attrs.evolve, member)):
                error = self.assertRaises(TypeError, make, name="n1", address=value)
                self.assertIn("the address of a member is", str(error))
                self.assertIn(type(value).__name__, str(error))

    def test_a_member_without_an_address_has_none(self) -> None:
        for absent in (None, b""):
            self.assertIsNone(Member.from_wire({**MEMBER, "Addr": absent}).address)

    def test_an_address_of_another_length_is_refused(self) -> None:
        for wrong in (b"\x7f", bytes(5), bytes(17)):
            self.assertIn("Addr", self.refused(Member.from_wire, {**MEMBER, "Addr": wrong}))

    def test_an_address_as_text_is_refused(self) -> None:
        self.assertEqual(
            self.refused(Member.from_wire, {**MEMBER, "Addr": "127.0.0.1"}), "Addr is str, not bytes"
        )

    def test_each_of_serfs_words_is_a_status_and_equal_to_it(self) -> None:
        for word in ("none", "alive", "leaving", "left", "failed"):
            status = Member.from_wire({**MEMBER, "Status": word}).status
            self.assertIsInstance(status, MemberStatus)
            self.assertEqual(status, word)
            self.assertEqual((str(status), f"{status}"), (word, word))

    def test_a_status_that_nobody_knows_is_text_and_goes_back_as_it_came(self) -> None:
        record = {**MEMBER, "Status": "suspect"}
        member = Member.from_wire(record)
        self.assertEqual((member.status, type(member.status)), ("suspect", str))
        self.assertEqual((str(member.status), member.to_wire()), ("suspect", record))

    def test_a_status_that_is_not_text_is_refused(self) -> None:
        self.assertEqual(self.refused(Member.from_wire, {**MEMBER, "Status": 1}), "Status is int, not str")

    def test_tags_may_be_absent(self) -> None:
        self.assertEqual(Member.from_wire({**MEMBER, "Tags": None}).tags, {})

    def test_tags_that_are_not_text_are_refused(self) -> None:
        for wrong in ({"role": 1}, {b"role": "web"}, {"role": None}, ["role"], "role"):
            self.assertEqual(
                self.refused(Member.from_wire, {**MEMBER, "Tags": wrong}), "Tags is not a map of str to str"
            )

    def test_text_that_is_not_utf_8_is_kept_and_goes_back_as_it_came(self) -> None:
        record = {**MEMBER, "Name": ODD, "Tags": {ODD: ODD}}
        member = Member.from_wire(record)
        self.assertEqual((member.name, member.tags), (ODD, {ODD: ODD}))
        self.assertEqual(wire.Unpacker().feed(wire.pack(member.to_wire())), [record])

    def test_a_value_that_is_not_a_map_is_refused(self) -> None:
        for wrong in (None, "n1", 7, ["n1"]):
            self.assertIn("a member is", self.refused(Member.from_wire, wrong))

    def test_a_list_of_members_is_read_in_its_order(self) -> None:
        members = members_from_wire({"Members": [MEMBER, {**MEMBER, "Name": "n0"}]})
        self.assertEqual([member.name for member in members], ["n1", "n0"])

    def test_members_of_one_list_share_equal_tags_and_all_share_their_versions(self) -> None:
        def record(name: str, **tags: str) -> dict[str, Any]:
            return {**MEMBER, "Name": name, "Tags": tags}

        first, second, third = members_from_wire(
            {
                "Members": [
                    record("n1", role="web", dc="x"),
                    record("n2", dc="x", role="web"),
                    record("n3", dc="x"),
                ]
            }
        )
        self.assertIs(first.tags, second.tags)
        self.assertEqual(third.tags, {"dc": "x"})
        (later,) = members_from_wire({"Members": [record("n1")]})
        self.assertIs(later.protocol, third.protocol)
        self.assertIs(later.delegate, third.delegate)

    def test_the_members_of_a_large_list_share_equal_tags_in_any_order(self) -> None:
        tags = [{"role": "web", "dc": "x"}, {"dc": "x", "role": "web"}, {"role": "x", "dc": "web"}]
        records = [{**MEMBER, "Name": f"n{n}", "Tags": tags[n % 3]} for n in range(300)]
        members = members_from_wire({"Members": records})
        self.assertEqual([member.tags for member in members], [tags[n % 3] for n in range(300)])
        self.assertEqual(len({id(member.tags) for member in members}), 2)

    def test_small_lists_share_equal_tags_one_after_the_other(self) -> None:
        record = {**MEMBER, "Tags": {"role": "shared", "dc": "x"}}
        (first,), (later,) = (members_from_wire({"Members": [{**record}]}) for _ in range(2))
        self.assertIs(first.tags, later.tags)

    def test_tags_longer_than_those_of_serf_are_not_kept(self) -> None:
        record = {**MEMBER, "Tags": {"role": "w" * 513}}
        first, second = (members_from_wire({"Members": [record]})[0] for _ in range(2))
        self.assertEqual(first, second)
        self.assertIsNot(first.tags, second.tags)

    def test_tags_of_many_small_lists_are_forgotten(self) -> None:
        def read(value: object) -> Tags:
            (member,) = members_from_wire({"Members": [{**MEMBER, "Tags": {"id": f"{value}"}}]})
            return member.tags

        first = read("first")
        for number in range(1000):
            read(number)
        self.assertIsNot(read("first"), first)

    def test_members_of_a_large_list_may_all_have_tags_of_their_own(self) -> None:
        records = [{**MEMBER, "Name": f"n{n}", "Tags": {"id": f"{n}"}} for n in range(1000)]
        self.assertEqual(
            [dict(m.tags) for m in members_from_wire({"Members": records})], [r["Tags"] for r in records]
        )
        for wrong in ({"id": 1}, {1: "id"}, ["id"], None):
            last = {**MEMBER, "Tags": wrong}
            if wrong is None:
                self.assertEqual(members_from_wire({"Members": [*records, last]})[-1].tags, {})
            else:
                self.refused(members_from_wire, {"Members": [*records, last]})

    def test_values_that_are_equal_to_ints_are_no_ints(self) -> None:
        for field in ("Port", "ProtocolMin", "ProtocolCur", "DelegateMax"):
            for wrong in (True, float(MEMBER[field])):
                record = {**MEMBER, "ProtocolMin": 1, field: wrong}
                text = self.refused(members_from_wire, {"Members": [MEMBER, record]})
                self.assertEqual(text, f"{field} is {type(wrong).__name__}, not int")

    def test_members_of_one_list_may_have_different_ports_versions_and_statuses(self) -> None:
        records = [
            {
                **MEMBER,
                "Name": f"n{n}",
                "Port": 7946 + n % 3,
                "ProtocolCur": n % 2,
                "DelegateMax": 255 + n,
                "Status": word,
            }
            for n, word in enumerate(("alive", "left", "suspect", "left", "alive", "failed"))
        ]
        members = members_from_wire({"Members": records})
        self.assertEqual([member.to_wire() for member in members], records)
        self.assertEqual(members, [Member.from_wire(record) for record in records])

    def test_no_members_are_an_empty_list(self) -> None:
        for nobody in (NO_MEMBERS, {"Members": None}, {}):
            self.assertEqual(members_from_wire(nobody), [])

    def test_members_that_are_no_list_are_refused(self) -> None:
        self.assertEqual(
            self.refused(members_from_wire, {"Members": {"n1": MEMBER}}), "Members is dict, not a list"
        )

    def test_one_wrong_member_refuses_them_all(self) -> None:
        self.refused(members_from_wire, {"Members": [MEMBER, {**MEMBER, "Port": "7946"}]})

    def test_few_members_share_tags_with_lists_before_them_though_they_come_in_pieces(self) -> None:
        read = []
        for _ in range(2):
            items = MemberItems(20)
            for _ in range(2):
                items.read([{**MEMBER, "Tags": {"role": "in pieces"}} for _ in range(10)])
            read += items.members()

        self.assertEqual(len({id(member.tags) for member in read}), 1)

    def test_members_that_come_piece_by_piece_are_read_as_a_list(self) -> None:
        records = [{**MEMBER, "Name": f"n{n}", "Tags": {"n": str(n % 200)}} for n in range(2_000)]
        for size in (1, 15, 700, 2_000):
            items = MemberItems(len(records))
            for start in range(0, len(records), size):
                items.read(records[start : start + size])
            members = members_from_wire({"Members": items})
            self.assertEqual(members, members_from_wire({"Members": records}))
            self.assertEqual(len({id(member.tags) for member in members}), 200)

    def test_one_wrong_member_refuses_all_that_come_piece_by_piece_once_all_have_come(self) -> None:
        items = MemberItems(3)
        for record in (MEMBER, {**MEMBER, "Port": "7946"}, MEMBER):
            items.read([record])
        for _ in range(2):
            self.assertEqual(self.refused(members_from_wire, {"Members": items}), "Port is str, not int")

    def test_a_member_made_by_hand_takes_serfs_words_and_plain_dicts(self) -> None:
        member = Member(name="n1", status="left", tags={"role": "web"})
        self.assertIs(member.status, MemberStatus.LEFT)
        self.assertIsInstance(member.tags, Tags)
        self.assertEqual(Member(name="n1", status="suspect").status, "suspect")
        self.assertRaises(TypeError, Member, name="n1", status=None)


class TagsTests(SynchronousTestCase):
    def test_tags_are_equal_to_a_dict(self) -> None:
        self.assertEqual(Tags(role="web"), {"role": "web"})

    def test_tags_can_not_be_changed_in_any_way_of_a_dict(self) -> None:
        tags = Tags(role="web")
        changes: list[Callable[[], object]] = [
            lambda: tags.__setitem__("role", "db"),
            lambda: tags.__delitem__("role"),
            lambda: tags.__ior__({"role": "db"}),
            lambda: tags.update(role="db"),
            lambda: tags.setdefault("new", ""),
            lambda: tags.pop("role"),
            lambda: tags.popitem(),
            lambda: tags.clear(),
        ]
        for change in changes:
            self.assertIn("set_tags", str(self.assertRaises(TypeError, change)))
        self.assertEqual(tags, {"role": "web"})

    def test_equal_tags_have_equal_hashes_whatever_their_order(self) -> None:
        self.assertEqual(hash(Tags({"a": "1", "b": "2"})), hash(Tags({"b": "2", "a": "1"})))

    def test_a_changed_dict_does_not_change_the_tags_made_of_it(self) -> None:
        mine = {"role": "web"}
        tags = Member(name="n1", tags=mine).tags
        mine["role"] = "db"
        self.assertEqual(tags, {"role": "web"})


class EventTests(ModelCase):
    def test_a_user_event_is_read(self) -> None:
        record = {"Coalesce": True, "Event": "user", "LTime": 9, "Name": "deploy", "Payload": b"v2"}
        self.assertEqual(event_from_wire(record), UserEvent("deploy", b"v2", 9, True))

    def test_a_query_is_read(self) -> None:
        self.assertEqual(event_from_wire(QUERY), QueryEvent(7, "load", b"now", 3))

    def test_a_query_has_an_id_that_a_response_can_have(self) -> None:
        for good in (0, 2**64 - 1):
            self.assertEqual(QueryEvent.from_wire({**QUERY, "ID": good}).id, good)
        for bad in (-1, -(2**63), 2**64):
            self.assertEqual(self.refused(event_from_wire, {**QUERY, "ID": bad}), "ID is not of 0 to 2^64-1")

    def test_an_event_knows_its_type_in_serfs_words(self) -> None:
        for record in ({"Event": "user", **user_event()}, QUERY, MEMBER_EVENT):
            self.assertEqual(event_from_wire(record).type, record["Event"])
        self.assertEqual(event_from_wire(MEMBER_EVENT).type, "member-failed")

    def test_each_kind_of_member_event_is_read(self) -> None:
        for kind in ("join", "leave", "failed", "update", "reap"):
            record = {"Event": f"member-{kind}", "Members": [MEMBER]}
            self.assertEqual(event_from_wire(record), MemberEvent(kind, (Member.from_wire(MEMBER),)))

    def test_nil_empty_and_left_out_are_the_same_empty_payload(self) -> None:
        for read, record in ((UserEvent.from_wire, user_event()), (QueryEvent.from_wire, QUERY)):
            rest = {name: value for name, value in record.items() if name != "Payload"}
            for payload in ({"Payload": None}, {"Payload": b""}, {}):
                self.assertEqual(read({**rest, **payload}).payload, b"")

    def test_a_payload_that_came_as_text_is_its_bytes(self) -> None:
        event = UserEvent.from_wire({**user_event(), "Payload": "ü\udcff"})
        self.assertEqual(event.payload, b"\xc3\xbc\xff")

    def test_names_need_not_be_utf_8(self) -> None:
        self.assertEqual(UserEvent.from_wire(user_event(ODD)).name, ODD)

    def test_an_unknown_event_is_refused_and_named(self) -> None:
        for unknown in ("", "member-", "member-promoted", "User"):
            self.assertIn(repr(unknown), self.refused(event_from_wire, {"Event": unknown}))

    def test_a_number_is_no_flag_and_a_flag_no_number(self) -> None:
        self.assertEqual(
            self.refused(event_from_wire, {**user_event(), "Coalesce": 1}), "Coalesce is int, not bool"
        )
        self.assertEqual(
            self.refused(event_from_wire, {**user_event(), "LTime": True}), "LTime is bool, not int"
        )

    def test_a_received_query_is_answered_by_its_responder(self) -> None:
        answers: list[tuple[int, bytes]] = []

        def respond(id: int, payload: bytes) -> Deferred[None]:
            answers.append((id, payload))
            return succeed(None)

        query = QueryEvent(7, "load").bound(respond)
        self.successResultOf(query.respond(b"0.31"))
        self.assertEqual(answers, [(7, b"0.31")])

    def test_a_query_that_was_not_received_can_not_be_answered(self) -> None:
        self.assertRaises(AssertionError, QueryEvent(7, "load").respond, b"")

    def test_the_connection_of_a_query_is_not_part_of_its_value(self) -> None:
        query = QueryEvent(7, "load")
        bound = query.bound(lambda id, payload: succeed(None))
        self.assertEqual(bound, query)
        self.assertEqual((hash(bound), repr(bound)), (hash(query), repr(query)))


class QueryRecordTests(ModelCase):
    def test_acks_and_answers_are_read(self) -> None:
        self.assertEqual(query_record_from_wire(answer("n1", None, "ack")), Ack("n1"))
        self.assertEqual(query_record_from_wire(answer("n1", b"x")), Answer("n1", b"x"))

    def test_an_empty_answer_is_an_answer(self) -> None:
        self.assertEqual(query_record_from_wire(answer("n1", None)), Answer("n1", b""))

    def test_done_is_no_record(self) -> None:
        self.assertIsNone(query_record_from_wire(DONE))
        self.assertIsNone(query_record_from_wire(answer("n1", None, "done")))

    def test_a_record_without_a_sender_is_none(self) -> None:
        for kind in ("ack", "response"):
            self.assertIsNone(query_record_from_wire(answer("", b"x", kind)))

    def test_an_unknown_kind_is_refused_and_named(self) -> None:
        self.assertIn("'nack'", self.refused(query_record_from_wire, answer("n1", b"", "nack")))


class LogLineTests(ModelCase):
    def test_a_line_is_parsed(self) -> None:
        self.assertEqual(
            LogLine.from_wire({"Log": LINE}),
            LogLine(
                LINE, datetime(2026, 11, 24, 0, 47, 8), "WARN", "agent.ipc", "Dropping event to 127.0.0.1:4"
            ),
        )

    def test_a_line_may_have_no_subsystem(self) -> None:
        line = LogLine.parse("2026/11/24 00:47:08 [INFO] two words: and more")
        self.assertEqual((line.level, line.subsystem, line.text), ("INFO", "", "two words: and more"))

    def test_a_level_may_be_followed_by_more_than_one_blank(self) -> None:
        line = LogLine.parse("2026/11/24 00:47:08 [ERR]  agent: no")
        self.assertEqual((line.level, line.subsystem, line.text), ("ERR", "agent", "no"))

    def test_lines_within_a_line_are_part_of_its_text(self) -> None:
        line = LogLine.parse("2026/11/24 00:47:08 [ERR] agent: 1 error:\n\t* no\n")
        self.assertEqual(line.text, "1 error:\n\t* no\n")

    def test_a_line_that_can_not_be_parsed_stays_whole(self) -> None:
        for text in (
            "",
            "panic: runtime error",
            "2026/13/40 00:47:08 [INFO] agent: x",
            "[INFO] agent: x",
            ODD,
        ):
            self.assertEqual(LogLine.parse(text), LogLine(text, None, "", "", text))

    def test_a_line_that_is_not_text_is_refused(self) -> None:
        self.assertEqual(self.refused(LogLine.from_wire, {"Log": b"x"}), "Log is bytes, not str")

    def test_its_repr_has_the_text_once(self) -> None:
        self.assertEqual(repr(LogLine.parse(LINE)).count("Dropping"), 1)


class ReplyTests(ModelCase):
    def test_a_join_is_a_number(self) -> None:
        self.assertEqual(joined_from_wire({"Num": 2}), 2)

    def test_stats_are_text_by_name_by_section(self) -> None:
        stats = {"agent": {"name": "n1"}, "tags": {ODD: ODD}}
        self.assertEqual(stats_from_wire({**stats, "event_handlers": None}), {**stats, "event_handlers": {}})

    def test_a_section_of_stats_that_is_not_text_is_refused_by_its_name(self) -> None:
        self.assertIn("agent", self.refused(stats_from_wire, {"agent": {"members": 3}}))

    def test_a_section_whose_name_is_not_text_is_refused(self) -> None:
        self.refused(stats_from_wire, {b"agent": {"name": "n1"}})

    def test_a_key_reply_is_read(self) -> None:
        self.assertEqual(KeyReply.from_wire(KEYS), KeyReply({"s3cret==": 2}, {"n1": "hm"}, 3, 1, 2))

    def test_a_key_command_that_lists_none_has_no_keys(self) -> None:
        self.assertEqual(
            KeyReply.from_wire({**KEYS, "Keys": None, "Messages": None}), KeyReply({}, {}, 3, 1, 2)
        )

    def test_keys_without_a_count_are_refused_and_no_key_is_in_the_text(self) -> None:
        text = self.refused(KeyReply.from_wire, {**KEYS, "Keys": {"s3cret==": "two"}})
        self.assertEqual(text, "Keys is not a map of str to int")

    def test_the_repr_of_a_key_reply_shows_how_many_keys_but_none_of_them(self) -> None:
        shown = repr(KeyReply.from_wire(KEYS))
        self.assertNotIn("s3cret", shown)
        self.assertIn("<1>", shown)

    def test_only_a_listing_is_written_with_keys(self) -> None:
        reply = KeyReply.from_wire(KEYS)
        self.assertEqual(reply.to_wire(listing=True), KEYS)
        self.assertEqual(reply.to_wire(), {**KEYS, "Keys": None})


class CoordinateTests(ModelCase):
    def test_a_coordinate_is_read_and_whole_numbers_are_floats(self) -> None:
        coordinate = Coordinate.from_wire(COORDINATE)
        self.assertEqual(coordinate, Coordinate((1.0, 2.0, -3.5), 0.25, -0.5, 0.125))
        whole = Coordinate.from_wire({"Coord": {name: 1 for name in COORD} | {"Vec": [1]}, "Ok": True})
        assert coordinate is not None and whole is not None
        self.assertEqual(whole, Coordinate((1.0,), 1.0, 1.0, 1.0))
        for value in (*coordinate.vec, *whole.vec, whole.error, whole.adjustment, whole.height):
            self.assertIs(type(value), float)

    def test_it_is_none_if_the_agent_has_none(self) -> None:
        self.assertIsNone(Coordinate.from_wire(NO_COORDINATE))
        self.assertEqual(Coordinate.to_wire(None), NO_COORDINATE)

    def test_a_vector_that_is_not_a_list_of_numbers_is_refused(self) -> None:
        wrongs: list[object] = [None, {}, "12", [1.0, "2"], [True], 3]
        for wrong in wrongs:
            record = {"Coord": {**COORD, "Vec": wrong}, "Ok": True}
            self.assertEqual(self.refused(Coordinate.from_wire, record), "Vec is not a list of numbers")

    def test_fields_that_are_no_numbers_are_refused_by_name(self) -> None:
        for name in ("Error", "Adjustment", "Height"):
            for wrong in (None, "1", True):
                record = {"Coord": {**COORD, name: wrong}, "Ok": True}
                self.assertIn(f"{name} is", self.refused(Coordinate.from_wire, record))

    def test_a_distance_is_that_of_the_vectors_and_both_heights(self) -> None:
        near = Coordinate((0.0, 0.0), height=0.25)
        far = Coordinate((0.375, 0.5), height=0.125)
        self.assertEqual(near.distance_to(far), 0.625 + 0.25 + 0.125)

    def test_both_adjustments_count_if_the_sum_stays_above_zero(self) -> None:
        near = Coordinate((0.0,), adjustment=-0.25, height=0.0)
        far = Coordinate((1.0,), adjustment=0.125, height=0.0)
        self.assertEqual(near.distance_to(far), 0.875)

    def test_no_adjustment_counts_if_the_sum_would_not_stay_above_zero(self) -> None:
        near = Coordinate((0.0,), adjustment=-0.75, height=0.0)
        far = Coordinate((1.0,), adjustment=-0.25, height=0.0)
        self.assertEqual(near.distance_to(far), 1.0)

    def test_coordinates_of_different_dimensions_have_no_distance(self) -> None:
        error = self.assertRaises(ValueError, Coordinate((0.0,)).distance_to, Coordinate((0.0, 0.0)))
        self.assertIn("1 and 2", str(error))


class ShapeTests(ModelCase):
    """Rules that hold for all kinds of records."""

    def test_each_missing_key_is_refused_or_has_a_meaning(self) -> None:
        meaningful = {"Payload", "Tags", "Addr", "Keys", "Messages", "Members", "agent", "tags"}
        for read, record in READERS:
            for name in record.keys() - meaningful:
                rest = {key: value for key, value in record.items() if key != name}
                self.assertIn(name, self.refused(read, rest), f"{read} without {name}")

    def test_each_value_of_a_wrong_type_is_refused_by_its_name(self) -> None:
        for read, record in READERS:
            for name in record:
                self.assertIn(
                    name, self.refused(read, {**record, name: 1.5}), f"{read} with a float as {name}"
                )

    def test_a_field_that_is_not_known_is_skipped(self) -> None:
        """A newer agent may send fields that txserf does not know."""
        for read, record in READERS:
            if read is not stats_from_wire:
                self.assertEqual(read({**record, "New": object()}), read(record))

    def test_values_that_were_read_can_not_be_changed(self) -> None:
        for value in VALUES:
            for field in attrs.fields(type(value)):
                self.assertRaises(AttributeError, setattr, value, field.name, None)

    def test_equal_values_are_equal_and_survive_copy_and_pickle(self) -> None:
        for value in VALUES:
            for same in (copy.copy(value), copy.deepcopy(value), pickle.loads(pickle.dumps(value))):
                self.assertEqual(same, value)
                self.assertIs(type(same), type(value))

    def test_a_copied_members_tags_still_can_not_be_changed(self) -> None:
        for member in (copy.deepcopy(VALUES[0]), pickle.loads(pickle.dumps(VALUES[0]))):
            self.assertRaises(TypeError, member.tags.update, role="db")

    def test_records_of_streams_can_be_in_sets(self) -> None:
        records = [user_event(), QUERY, MEMBER_EVENT]
        self.assertEqual(len({event_from_wire(record) for record in [*records, *records]}), 3)


VALUES: list[Any] = [
    Member.from_wire(MEMBER),
    event_from_wire(user_event()),
    event_from_wire(QUERY),
    event_from_wire(MEMBER_EVENT),
    LogLine.parse(LINE),
    Gap(1.0, 2.0),
    Ack("n1"),
    Answer("n1", b"x"),
    QueryResult(["n1"], {"n1": b"x"}, True),
    KeyReply.from_wire(KEYS),
    Coordinate.from_wire(COORDINATE),
]

#: Text as the codec decodes it, from any bytes.
_TEXT = st.binary(max_size=8).map(lambda data: data.decode("utf-8", "surrogateescape"))
_INT = st.integers(-(1 << 63), (1 << 64) - 1)
_UINT = st.integers(0, (1 << 64) - 1)
_ANYTHING = st.recursive(
    st.none() | st.booleans() | _INT | st.floats() | _TEXT | st.binary(max_size=18),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(_TEXT | st.binary(max_size=3), inner, max_size=3)
    ),
    max_leaves=6,
)
_TAGS = st.dictionaries(_TEXT, _TEXT, max_size=3)
_VERSIONS = st.tuples(*[st.integers(0, 255)] * 3)
_MEMBERS = st.builds(
    Member,
    name=_TEXT,
    address=st.none() | st.ip_addresses(),
    port=st.integers(0, 65535),
    tags=_TAGS,
    status=st.sampled_from(MemberStatus),
    protocol=_VERSIONS,
    delegate=_VERSIONS,
)
_EVENTS: st.SearchStrategy[Event] = st.one_of(
    st.builds(UserEvent, _TEXT, st.binary(max_size=9), _UINT, st.booleans()),
    st.builds(QueryEvent, _UINT, _TEXT, st.binary(max_size=9), _UINT),
    st.builds(
        MemberEvent,
        st.sampled_from(("join", "leave", "failed", "update", "reap")),
        st.lists(_MEMBERS, max_size=3).map(tuple),
    ),
)
_SECONDS = st.floats(-1e6, 1e6)
_HEIGHTS = st.floats(0.0, 1e6)


def _coordinates(dimensions: int) -> st.SearchStrategy[Coordinate]:
    return st.builds(
        Coordinate, st.tuples(*[_SECONDS] * dimensions), error=_HEIGHTS, adjustment=_SECONDS, height=_HEIGHTS
    )


_PAIRS = st.integers(1, 9).flatmap(lambda dimensions: st.tuples(*[_coordinates(dimensions)] * 2))


def by_wire(record: Mapping[str, Any]) -> dict[str, Any]:
    """Pack a record and unpack it."""
    (received,) = wire.Unpacker().feed(wire.pack(record))
    assert isinstance(received, dict)
    return received


_ABSENT = object()
_BY_RULES: list[tuple[Read, dict[str, Any]]] = [
    (Member.from_wire, MEMBER),
    (Member.from_wire, {**MEMBER, "Addr": bytes(10) + b"\xff\xff\x0a\x00\x00\x01", "Status": "suspect"}),
    (UserEvent.from_wire, {**user_event(), "Payload": b"v2"}),
    (QueryEvent.from_wire, QUERY),
    (MemberEvent.from_wire, MEMBER_EVENT),
]


def _one_member(record: dict[str, Any]) -> Member:
    (member,) = members_from_wire({"Members": [record]})
    return member


def _outcome(read: Read, record: object) -> object:
    try:
        return read(record)
    except ProtocolError as error:
        return str(error)


class PropertyTests(SynchronousTestCase):
    @given(data=st.data())
    @settings(deadline=None, max_examples=300)
    def test_any_value_in_a_field_raises_nothing_but_protocol_error(self, data: st.DataObject) -> None:
        read, record = data.draw(st.sampled_from(READERS))
        inner = record.get("Coord", record)
        name = data.draw(st.sampled_from([*record, *inner]))
        value = data.draw(_ANYTHING)
        wrong = {**record, name: value} if name in record else {**record, "Coord": {**inner, name: value}}
        try:
            read(wrong)
        except ProtocolError:
            pass

    @given(record=st.dictionaries(_TEXT | st.binary(max_size=3), _ANYTHING, max_size=4))
    @settings(deadline=None)
    def test_any_map_raises_nothing_but_protocol_error(self, record: Mapping[Any, Any]) -> None:
        for read, _ in READERS:
            try:
                read(record)
            except ProtocolError:
                pass

    @given(data=st.data())
    @settings(deadline=None, max_examples=300)
    def test_members_and_events_are_read_by_the_rules_of_their_classes(self, data: st.DataObject) -> None:
        """The fast readers refuse the same records as ``from_wire``, with the same words."""
        rules, record = data.draw(st.sampled_from(_BY_RULES))
        name, value = data.draw(st.sampled_from(sorted(record))), data.draw(_ANYTHING | st.just(_ABSENT))
        changed = {**record, name: value}
        if value is _ABSENT:
            del changed[name]
        if name == "Event" and value not in ("user", "query"):
            return
        read: Read = event_from_wire if "Event" in changed else _one_member
        self.assertEqual(_outcome(read, changed), _outcome(rules, changed))

    @given(member=_MEMBERS)
    @settings(deadline=None)
    def test_any_member_comes_back_over_the_wire(self, member: Member) -> None:
        self.assertEqual(Member.from_wire(by_wire(member.to_wire())), member)

    @given(event=_EVENTS)
    @settings(deadline=None)
    def test_any_event_comes_back_over_the_wire(self, event: Event) -> None:
        self.assertEqual(event_from_wire(by_wire(event.to_wire())), event)

    @given(event=_EVENTS)
    @settings(deadline=None)
    def test_an_event_is_written_with_its_keys_in_serfs_order(self, event: Event) -> None:
        record = event.to_wire()
        for written in (record, *record.get("Members", ())):
            self.assertEqual(list(written), sorted(written))

    @given(pair=_PAIRS)
    @settings(deadline=None)
    def test_any_coordinate_comes_back_over_the_wire(self, pair: tuple[Coordinate, Coordinate]) -> None:
        self.assertEqual(Coordinate.from_wire(by_wire(Coordinate.to_wire(pair[0]))), pair[0])

    @given(pair=_PAIRS)
    @settings(deadline=None)
    def test_a_distance_is_the_same_both_ways_and_never_below_zero(
        self, pair: tuple[Coordinate, Coordinate]
    ) -> None:
        there, back = pair[0].distance_to(pair[1]), pair[1].distance_to(pair[0])
        self.assertEqual(there, back)
        self.assertGreaterEqual(there, 0.0)

    @given(pair=_PAIRS)
    @settings(deadline=None)
    def test_a_distance_follows_serfs_formula(self, pair: tuple[Coordinate, Coordinate]) -> None:
        a, b = pair
        squares = sum((mine - its) ** 2 for mine, its in zip(a.vec, b.vec, strict=True))
        raw = math.sqrt(squares) + a.height + b.height
        adjusted = raw + a.adjustment + b.adjustment
        if abs(adjusted) > 1e-6:  # near zero, rounding decides which of the two is returned
            expected = adjusted if adjusted > 0.0 else raw
            self.assertTrue(math.isclose(a.distance_to(b), expected, rel_tol=1e-9, abs_tol=1e-6))

    @given(line=_TEXT | st.text())
    @settings(deadline=None)
    def test_any_line_is_kept_as_it_came(self, line: str) -> None:
        self.assertEqual(LogLine.parse(line).line, line)

    @given(
        time=st.datetimes(min_value=datetime(1000, 1, 1)),
        level=st.sampled_from(("TRACE", "DEBUG", "INFO", "WARN", "ERR")),
        subsystem=st.from_regex(r"[a-z][a-z.-]{0,8}", fullmatch=True),
        text=_TEXT,
    )
    @settings(deadline=None)
    def test_the_parts_of_a_line_make_the_line(
        self, time: datetime, level: str, subsystem: str, text: str
    ) -> None:
        time = time.replace(microsecond=0)
        line = f"{time:%Y/%m/%d %H:%M:%S} [{level}] {subsystem}: {text}"
        self.assertEqual(LogLine.parse(line), LogLine(line, time, level, subsystem, text))
