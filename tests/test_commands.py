"""The command table: the arguments of each command, the bytes that are sent, and the meaning of its reply."""

from __future__ import annotations

import enum
import inspect
from datetime import timedelta
from typing import Any

import hypothesis
import msgpack
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.fakes import DONE, answer
from txserf import commands, constant, wire
from txserf.client.client import Client
from txserf.commands import Command
from txserf.embedded.re2 import compile_pattern
from txserf.errors import InvalidRequest, JoinError, KeyringError, ProtocolError, QueryError, RpcError
from txserf.model import KeyReply

#: The required arguments of each command that has some.
REQUIRED: dict[str, dict[str, Any]] = {
    "auth": {"AuthKey": "k"},
    "event": {"Name": "e"},
    "force-leave": {"Node": "n"},
    "join": {"Existing": ["a:1"]},
    "monitor": {"LogLevel": "INFO"},
    "stop": {"Stop": 1},
    "query": {"Name": "q"},
    "respond": {"ID": 1},
    "install-key": {"Key": "k"},
    "use-key": {"Key": "k"},
    "remove-key": {"Key": "k"},
    "get-coordinate": {"Node": "n"},
}

#: Wrong values of each argument, and the error's text after ``command: argument``.
WRONG: dict[str, dict[str, list[tuple[Any, str]]]] = {
    "handshake": {
        "Version": [
            (0, "must be 1, the only version of Serf's RPC, not 0"),
            (2, "must be 1, the only version of Serf's RPC, not 2"),
            (-1, "must be from 0 to 2147483647, not -1"),
            ("1", "must be int, not str"),
            (True, "must be int, not bool"),
            (None, "must be int, not None"),
        ]
    },
    "auth": {"AuthKey": [(b"k", "must be str, not bytes"), (None, "must be str, not None")]},
    "event": {
        "Name": [
            (b"e", "must be str, not bytes"),
            (7, "must be str, not int"),
            (None, "must be str, not None"),
        ],
        "Payload": [
            (7, "must be bytes or str, not int"),
            (None, "must be bytes or str, not None"),
            ([1], "must be bytes or str, not list"),
        ],
        "Coalesce": [(1, "must be bool, not int"), ("yes", "must be bool, not str")],
    },
    "force-leave": {
        "Node": [("", "must not be empty"), (b"n", "must be str, not bytes")],
        "Prune": [(0, "must be bool, not int")],
    },
    "join": {
        "Existing": [
            ("a:1", "must be a list of str, not str"),
            (b"a:1", "must be a list of str, not bytes"),
            ({"a:1": 1}, "must be a list of str, not dict"),
            (7, "must be a list of str, not int"),
            ([b"a:1"], "must be a list of str, but holds bytes"),
            (["a:1", None], "must be a list of str, but holds None"),
        ],
        "Replay": [(None, "must be bool, not None")],
    },
    "members-filtered": {
        "Tags": [
            ("role=web", "must be a dict of str to str, not str"),
            ([("role", "web")], "must be a dict of str to str, not list"),
            ({"role": 1}, "must be a dict of str to str, but holds str to int"),
            ({b"role": "web"}, "must be a dict of str to str, but holds bytes to str"),
        ],
        "Status": [(None, "must be str, not None"), (1, "must be str, not int")],
        "Name": [(b"n", "must be str, not bytes")],
    },
    "tags": {
        "Tags": [({"role": None}, "must be a dict of str to str, but holds str to None")],
        "DeleteTags": [("role", "must be a list of str, not str")],
    },
    "stream": {"Type": [(None, "must be str, not None"), (["user"], "must be str, not list")]},
    "monitor": {"LogLevel": [(20, "must be str, not int")]},
    "stop": {
        "Stop": [
            (-1, "must be from 0 to 18446744073709551615, not -1"),
            (2**64, "must be from 0 to 18446744073709551615, not 18446744073709551616"),
            ("1", "must be int, not str"),
        ]
    },
    "query": {
        "Name": [(b"q", "must be str, not bytes")],
        "Payload": [(1.5, "must be bytes or str, not float")],
        "FilterNodes": [("n1", "must be a list of str, not str")],
        "FilterTags": [(["role"], "must be a dict of str to str, not list")],
        "RequestAck": [(1, "must be bool, not int")],
        "Timeout": [
            (2.5, "must be int, not float"),
            (-1, "must be from 0 to 9223372036854775807, not -1"),
            (2**63, "must be from 0 to 9223372036854775807, not 9223372036854775808"),
            (timedelta(seconds=-1), "must be from 0 to 9223372036854775807, not -1000000000"),
        ],
        "RelayFactor": [(256, "must be from 0 to 255, not 256"), (-1, "must be from 0 to 255, not -1")],
    },
    "respond": {
        "ID": [(-1, "must be from 0 to 18446744073709551615, not -1"), ("1", "must be int, not str")],
        "Payload": [(1, "must be bytes or str, not int")],
        "Timeout": [("1", "must be a number or a timedelta, not str")],
    },
    "install-key": {"Key": [(b"k", "must be str, not bytes")]},
    "use-key": {"Key": [(None, "must be str, not None")]},
    "remove-key": {"Key": [(1, "must be str, not int")]},
    "get-coordinate": {"Node": [("", "must not be empty"), (1, "must be str, not int")]},
}


class Colour(str, enum.Enum):
    """A str whose ``str()`` is not its value."""

    RED = "red"


class Number(enum.IntEnum):
    """An int that is not a plain int."""

    ONE = 1


def checked(row: Command, **given: Any) -> dict[str, Any]:
    """Return the checked arguments of a call, with the required ones added."""
    return dict(row.arguments({**REQUIRED.get(row.wire, {}), **given}))


def sent(row: Command, **given: Any) -> Any:
    """Return the body as an agent reads it: bin as bytes, str as str; None for no body."""
    packed = row.body(checked(row, **given))
    return msgpack.unpackb(packed, raw=False, unicode_errors="surrogateescape") if packed else None


def fluent(row: Command) -> dict[str, inspect.Parameter]:
    """Return the parameters of the method of `Client` that queues this command."""
    name = "members" if row is commands.MEMBERS_FILTERED else row.wire.replace("-", "_")
    method = getattr(Client, name)
    return {name: p for name, p in inspect.signature(method).parameters.items() if name != "self"}


class TableTests(SynchronousTestCase):
    def test_it_has_each_command_of_serf_once(self) -> None:
        names = (
            "handshake auth event force-leave join members members-filtered tags stream monitor stop leave "
            "query respond install-key use-key remove-key list-keys stats get-coordinate"
        )
        self.assertEqual([row.wire for row in commands.TABLE], names.split())
        self.assertEqual(list(commands.BY_WIRE), names.split())

    def test_the_methods_of_the_client_have_its_names_and_defaults(self) -> None:
        for row in commands.TABLE:
            if row is commands.MEMBERS:
                continue  # `Client.members` without a filter; members-filtered covers the method
            parameters = fluent(row)
            self.assertEqual(set(parameters), {arg.name for arg in row.args}, row.wire)
            for arg in row.args:
                default = parameters[arg.name].default
                if arg.required:
                    self.assertIs(default, inspect.Parameter.empty, (row.wire, arg.name))
                else:
                    self.assertEqual(default, arg.default, (row.wire, arg.name))

    def test_the_methods_of_the_client_take_keywords_only(self) -> None:
        for row in commands.TABLE:
            kinds = {parameter.kind for parameter in fluent(row).values()}
            self.assertLessEqual(kinds, {inspect.Parameter.KEYWORD_ONLY})

    def test_only_these_are_answered_with_a_body(self) -> None:
        with_body = [row.wire for row in commands.TABLE if row.body_on_success]
        self.assertEqual(
            with_body,
            "join members members-filtered install-key use-key remove-key list-keys stats get-coordinate".split(),
        )

    def test_only_join_and_the_key_commands_have_a_body_on_error(self) -> None:
        with_body = [row.wire for row in commands.TABLE if row.body_on_error]
        self.assertEqual(with_body, "join install-key use-key remove-key list-keys".split())

    def test_only_stream_monitor_and_query_have_records(self) -> None:
        self.assertEqual([row.wire for row in commands.TABLE if row.streams], ["stream", "monitor", "query"])

    def test_streams_and_monitors_are_subscriptions_and_nothing_else(self) -> None:
        self.assertEqual([row.wire for row in commands.TABLE if row.subscribes], ["stream", "monitor"])

    def test_commands_that_change_something_are_never_sent_twice(self) -> None:
        reads = [row.wire for row in commands.TABLE if not row.changes]
        self.assertEqual(
            reads,
            "handshake auth members members-filtered stream monitor stop list-keys stats get-coordinate".split(),
        )

    def test_only_a_command_without_arguments_has_no_body(self) -> None:
        without = [row.wire for row in commands.TABLE if not row.body(checked(row))]
        self.assertEqual(without, ["members", "leave", "list-keys", "stats"])

    def test_a_prefix_and_a_seq_are_the_header(self) -> None:
        for row in commands.TABLE:
            self.assertEqual(row.prefix + wire.pack(300), wire.pack({"Command": row.wire, "Seq": 300}))


class ArgumentTests(SynchronousTestCase):
    def refused(self, row: Command, given: dict[str, Any]) -> str:
        return str(self.assertRaises(InvalidRequest, row.arguments, given))

    def test_every_argument_has_wrong_values_here(self) -> None:
        tested = {(wire_name, name) for wire_name, names in WRONG.items() for name in names}
        self.assertEqual(tested, {(row.wire, arg.name) for row in commands.TABLE for arg in row.args})

    def test_a_wrong_value_is_refused_by_command_and_argument(self) -> None:
        for wire_name, names in WRONG.items():
            for name, values in names.items():
                for value, told in values:
                    given = {**REQUIRED.get(wire_name, {}), name: value}
                    text = self.refused(commands.BY_WIRE[wire_name], given)
                    self.assertEqual(text, f"{wire_name}: {name} {told}")

    def test_a_missing_argument_is_refused_by_command_and_argument(self) -> None:
        for row in commands.TABLE:
            required = REQUIRED.get(row.wire, {})
            self.assertEqual({arg.name for arg in row.args if arg.required}, set(required))
            for name in required:
                given = {other: value for other, value in required.items() if other != name}
                self.assertEqual(self.refused(row, given), f"{row.wire}: {name} is missing")

    def test_an_unknown_argument_is_refused_and_the_nearest_known_one_told(self) -> None:
        for name in ("payload", "Pyload", "PAYLOAD"):
            text = self.refused(commands.EVENT, {"Name": "e", name: b""})
            self.assertEqual(text, f"event: unknown argument {name!r} (did you mean Payload?)")

    def test_without_a_near_one_the_error_has_all_known_arguments(self) -> None:
        text = self.refused(commands.EVENT, {"Name": "e", "Body": b""})
        self.assertEqual(text, "event: unknown argument 'Body' (it takes: Name, Payload, Coalesce)")

    def test_an_argument_to_a_command_without_any_is_refused(self) -> None:
        self.assertEqual(
            self.refused(commands.STATS, {"Node": "n"}), "stats: unknown argument 'Node' (it takes: none)"
        )

    def test_no_error_shows_a_key(self) -> None:
        for value in (b"s3cret", ["s3cret"], {"s3cret": 1}):
            self.assertNotIn("s3cret", self.refused(commands.AUTH, {"AuthKey": value}))
            self.assertNotIn("s3cret", self.refused(commands.USE_KEY, {"Key": value}))

    def test_a_key_that_can_not_be_sent_is_not_shown(self) -> None:
        values = commands.AUTH.arguments({"AuthKey": "s3cret\ud800"})
        error = self.assertRaises(InvalidRequest, commands.AUTH.body, values)
        self.assertNotIn("s3cret", str(error))

    def test_a_lone_surrogate_is_refused_by_command_and_argument(self) -> None:
        for row, given, name in (
            (commands.EVENT, {"Name": "\ud800"}, "Name"),
            (commands.TAGS, {"DeleteTags": ["fine"], "Tags": {"role": "\ud800"}}, "Tags"),
            (commands.JOIN, {"Existing": ["\ud800"]}, "Existing"),
            (commands.EVENT, {"Name": "e", "Payload": "\ud800"}, "Payload"),
        ):
            error = self.assertRaises(InvalidRequest, lambda: row.body(checked(row, **given)))  # noqa: B023
            self.assertTrue(str(error).startswith(f"{row.wire}: {name} "), str(error))

    def test_text_of_a_subclass_is_sent_and_kept_as_plain_text(self) -> None:
        for row, name, given, plain in (
            (commands.MEMBERS_FILTERED, "Status", Colour.RED, "red"),
            (commands.FORCE_LEAVE, "Node", Colour.RED, "red"),
            (commands.AUTH, "AuthKey", Colour.RED, "red"),
            (commands.JOIN, "Existing", [Colour.RED, "b"], ("red", "b")),
            (commands.TAGS, "Tags", {Colour.RED: Colour.RED, "b": "c"}, {"red": "red", "b": "c"}),
        ):
            values = checked(row, **{name: given})
            self.assertEqual(repr(values[name]), repr(plain), name)
            self.assertEqual(
                sent(row, **{name: given})[name], list(plain) if isinstance(plain, tuple) else plain
            )

    def test_a_payload_of_a_subclass_is_sent_as_its_text(self) -> None:
        self.assertEqual(sent(commands.EVENT, Payload=Colour.RED)["Payload"], b"red")

    def test_an_int_of_a_subclass_is_sent_and_kept_as_a_plain_int(self) -> None:
        for row, name in (
            (commands.STOP, "Stop"),
            (commands.QUERY, "RelayFactor"),
            (commands.HANDSHAKE, "Version"),
        ):
            self.assertEqual(repr(checked(row, **{name: Number.ONE})[name]), "1")
            self.assertEqual(sent(row, **{name: Number.ONE})[name], 1)

    def test_a_payload_over_the_limit_is_refused(self) -> None:
        self.assertIn("Payload", self.refused(commands.EVENT, {"Name": "e", "Payload": b"x" * 1025}))
        checked(commands.EVENT, Payload=b"x" * 1024)

    def test_the_limit_of_payloads_counts_bytes_and_not_characters(self) -> None:
        self.refused(commands.EVENT, {"Name": "e", "Payload": "é" * 513})

    def test_the_limit_of_payloads_is_read_at_the_call(self) -> None:
        self.patch(constant, "PAYLOAD_SIZE_LIMIT", 2)
        self.refused(commands.EVENT, {"Name": "e", "Payload": b"xxx"})
        self.patch(constant, "PAYLOAD_SIZE_LIMIT", None)
        checked(commands.EVENT, Payload=b"x" * 100_000)

    def test_the_limit_of_payloads_is_for_events_only(self) -> None:
        self.patch(constant, "PAYLOAD_SIZE_LIMIT", 2)
        checked(commands.QUERY, Payload=b"xxx")
        checked(commands.RESPOND, Payload=b"xxx")

    def test_nanoseconds_under_a_millisecond_are_refused_with_a_word_about_the_unit(self) -> None:
        for value in (1, 5, 999_999):
            text = self.refused(commands.QUERY, {"Name": "q", "Timeout": value})
            self.assertIn("nanoseconds", text)
            self.assertIn("timedelta", text)

    def test_nanoseconds_from_a_millisecond_up_are_sent_as_they_are(self) -> None:
        for value in (0, 1_000_000, 2**63 - 1):
            self.assertEqual(sent(commands.QUERY, Timeout=value)["Timeout"], value)

    def test_a_timedelta_is_sent_as_nanoseconds_without_any_rounding(self) -> None:
        for value, nanoseconds in (
            (timedelta(seconds=2), 2_000_000_000),
            (timedelta(days=100, microseconds=1), 8_640_000_000_001_000),
            (timedelta(0), 0),
        ):
            self.assertEqual(sent(commands.QUERY, Timeout=value)["Timeout"], nanoseconds)

    def test_any_iterable_of_str_is_accepted_as_a_list_and_read_once(self) -> None:
        for existing in (["a", "b"], ("a", "b"), iter(["a", "b"]), {"a": 1, "b": 2}.keys()):
            self.assertEqual(checked(commands.JOIN, Existing=existing)["Existing"], ("a", "b"))

    def test_a_value_that_the_caller_changes_later_changes_nothing(self) -> None:
        tags, nodes = {"role": "web"}, ["n1"]
        values = checked(commands.QUERY, FilterTags=tags, FilterNodes=nodes)
        tags["role"] = nodes[0] = "changed"
        self.assertEqual((values["FilterTags"], values["FilterNodes"]), ({"role": "web"}, ("n1",)))

    def test_the_payload_that_the_caller_changes_later_stays_as_it_was(self) -> None:
        buffer = bytearray(b"v1")
        values = checked(commands.EVENT, Payload=buffer)
        buffer[1:] = b"2"
        self.assertEqual(values["Payload"], b"v1")

    def test_arguments_come_in_the_order_of_the_table(self) -> None:
        values = commands.EVENT.arguments({"Coalesce": False, "Name": "e"})
        self.assertEqual(list(values.items()), [("Name", "e"), ("Payload", b""), ("Coalesce", False)])


class BodyTests(SynchronousTestCase):
    def test_all_fields_are_sent_the_defaults_too(self) -> None:
        self.assertEqual(
            sent(commands.QUERY),
            {
                "Name": "q",
                "Payload": None,
                "FilterNodes": [],
                "FilterTags": {},
                "RequestAck": True,
                "Timeout": 0,
                "RelayFactor": 0,
            },
        )

    def test_an_empty_payload_is_nil(self) -> None:
        for row in (commands.EVENT, commands.QUERY, commands.RESPOND):
            for empty in (b"", "", bytearray()):
                self.assertIsNone(sent(row, Payload=empty)["Payload"], row.wire)

    def test_a_payload_is_bin_and_its_text_utf_8(self) -> None:
        for row in (commands.EVENT, commands.QUERY, commands.RESPOND):
            for payload, data in (
                ("é", b"\xc3\xa9"),
                (b"\xff", b"\xff"),
                (bytearray(b"x"), b"x"),
                (memoryview(b"y"), b"y"),
                ("\udcff", b"\xff"),
            ):
                self.assertEqual(sent(row, Payload=payload)["Payload"], data, row.wire)

    def test_text_is_never_sent_as_bin(self) -> None:
        def texts(value: object) -> bool:
            if isinstance(value, dict):
                return all(texts(item) for pair in value.items() for item in pair)
            if isinstance(value, list):
                return all(map(texts, value))
            return not isinstance(value, bytes)

        for row in commands.TABLE:
            self.assertTrue(texts(sent(row)), row.wire)

    def test_text_that_is_not_utf_8_goes_out_as_its_own_bytes(self) -> None:
        packed = commands.FORCE_LEAVE.body(checked(commands.FORCE_LEAVE, Node="n\udcff"))
        self.assertIn(b"\xa2n\xff", packed)

    def test_the_timeout_of_respond_is_not_sent(self) -> None:
        for timeout in (0, 5, 2.5, timedelta(seconds=1)):
            self.assertEqual(sent(commands.RESPOND, ID=3, Timeout=timeout), {"ID": 3, "Payload": None})

    def test_a_key_is_sent_as_it_is(self) -> None:
        self.assertEqual(sent(commands.AUTH, AuthKey="s3cret é"), {"AuthKey": "s3cret é"})


class ShownTests(SynchronousTestCase):
    def test_keys_are_blotted_out(self) -> None:
        for row in commands.TABLE:
            for arg in row.args:
                if arg.name in ("AuthKey", "Key"):
                    self.assertEqual(row.shown(checked(row, **{arg.name: "s3cret"})), {arg.name: "***"})

    def test_other_arguments_are_shown(self) -> None:
        values = checked(commands.EVENT, Payload="v2")
        self.assertEqual(commands.EVENT.shown(values), {"Name": "e", "Payload": b"v2", "Coalesce": True})


class CanMatchTests(SynchronousTestCase):
    TEXTS = ("alive", "failed")

    def test_a_pattern_that_matches_a_whole_text_can_match(self) -> None:
        for pattern in ("alive", "al.*", "alive|x", "(alive|x)", "^alive$", "ali?ve", ".*ed", "x|.*ed", ".+"):
            self.assertTrue(commands.can_match(pattern, self.TEXTS), pattern)

    def test_a_pattern_that_matches_no_text_can_not_match(self) -> None:
        for pattern in (
            "live",
            "Alive",
            "alive ",
            "aliv",
            "(x|y)",
            "^x$",
            "x|y",
            "ali?",
            "ed|x",
            "x|ed",
            "al|ed",
            "a.e",
            "",
        ):
            self.assertFalse(commands.can_match(pattern, self.TEXTS), pattern)

    def test_a_pattern_on_which_go_and_python_may_differ_is_taken_to_match(self) -> None:
        for pattern in (
            "(?i)X",
            "[[:alpha:]]",
            "\\pL",
            "\\Qx\\E",
            "x{,1}",
            "(",
            "x**",
            "(x*)*",
            "é",
            ".*" * 99,
        ):
            self.assertTrue(commands.can_match(pattern, self.TEXTS), pattern)


class ReadAlikeTests(SynchronousTestCase):
    def test_it_is_searched_for_as_re2_does(self) -> None:
        for pattern, text, found in (
            ("web", "a web.1", True),
            ("web|db", "db", True),
            ("^web$", "web", True),
            ("^web$", "web\n", False),  # the end is the end
            ("^$", "", True),
            (r"\$", "$", True),
            (r"\\$", "\\", True),
            ("w.b", "w\nb", False),
            ("(?s:w.b)", "w\nb", True),
        ):
            read = commands.read_alike(pattern)
            assert read is not None, pattern
            self.assertEqual(read.search(text) is not None, found, pattern)

    def test_one_that_go_and_python_may_read_in_another_way_is_not_read(self) -> None:
        for pattern in ("(?i)web", "[a-z]", r"\d", "é", "(", "a)(b", "*", "(a*)*", "a++", "$*", "a*a*a*a*a*"):
            self.assertIs(commands.read_alike(pattern), None, pattern)


class MayCloseTests(SynchronousTestCase):
    def may_close(self, **filters: Any) -> bool:
        assert commands.MEMBERS_FILTERED.may_close is not None
        return commands.MEMBERS_FILTERED.may_close(checked(commands.MEMBERS_FILTERED, **filters))

    def test_plain_filters_share_a_connection(self) -> None:
        for name in ("", "n1", "node-1.example", "alive|failed", ".*", "web.*", "a_b:c/d@e"):
            self.assertFalse(self.may_close(Name=name), name)
            self.assertFalse(self.may_close(Status=name), name)
            self.assertFalse(self.may_close(Tags={"role": name}), name)

    def test_anchors_groups_and_escaped_punctuation_share_a_connection_too(self) -> None:
        for name in (
            "^web$",
            "(n1|n2)",
            "^(?:web|db)$",
            "(?s:.*)(?:^web)(?s:.*)",
            "node\\.example",
            "a+?b*",
            "\\(x\\)",
        ):
            self.assertFalse(self.may_close(Name=name), name)

    @hypothesis.given(
        st.lists(
            st.sampled_from([*"ab.^$*+?|(),- ", "(?:", "(?s:", "\\.", "\\-", "\\ ", "\\(", "\\\\"]),
            max_size=12,
        )
    )
    @hypothesis.settings(deadline=None, max_examples=500)
    def test_all_filters_that_share_a_connection_compile(self, parts: list[str]) -> None:
        pattern = "".join(parts)
        if not self.may_close(Name=pattern):
            compile_pattern(f"^{pattern}$")  # else it raises

    def test_a_filter_of_very_many_groups_does_not_share_a_connection(self) -> None:
        self.assertTrue(self.may_close(Name="(" * 900 + "a" + ")" * 900))

    def test_filters_that_may_not_compile_do_not_share_a_connection(self) -> None:
        for name in (
            "(",
            "[",
            "a{2",
            "*",
            "+",
            "?",
            "a**",
            "\\",
            "(?=x)",
            "a|*",
            "\\1",
            ".*+",
            "a++",
            "a?+",
            "a)",
            "()*",
            "\\a",
            "(?i:a)",
            "(?P<a>a)",
            "..**",
            "é",
            "\udcff",
        ):
            self.assertTrue(self.may_close(Name=name), name)
            self.assertTrue(self.may_close(Status=name), name)
            self.assertTrue(self.may_close(Tags={"fine": "x", "role": name}), name)

    def test_no_other_command_closes_a_connection_instead_of_an_answer(self) -> None:
        self.assertEqual([row.wire for row in commands.TABLE if row.may_close], ["members-filtered"])


class AnswerTests(SynchronousTestCase):
    def test_a_query_ends_by_a_record_and_streams_do_not(self) -> None:
        ending = {row.wire: (row.ends, row.sender) for row in commands.TABLE if row.streams}
        self.assertEqual(ending, {"query": ("done", "From"), "stream": ("", ""), "monitor": ("", "")})
        self.assertEqual((DONE["Type"], answer("n1")["From"]), ("done", "n1"))

    def test_an_agents_error_has_its_command_and_its_words(self) -> None:
        error = commands.EVENT.refusal("no")
        self.assertEqual((type(error), error.command, error.message), (RpcError, "event", "no"))
        self.assertEqual(str(error), "event: no")

    def test_the_error_of_a_query_and_of_a_response_is_a_query_error(self) -> None:
        self.assertIsInstance(commands.QUERY.refusal("no"), QueryError)
        self.assertIsInstance(commands.RESPOND.refusal("no"), QueryError)

    def test_the_error_of_a_join_says_how_many_joined(self) -> None:
        error = commands.JOIN.refusal("1 error occurred", {"Num": 3})
        assert isinstance(error, JoinError)
        self.assertEqual(error.joined, 3)

    def test_the_error_of_a_join_without_a_body_has_none_joined(self) -> None:
        error = commands.JOIN.refusal("no")
        assert isinstance(error, JoinError)
        self.assertEqual(error.joined, 0)

    def test_the_error_of_a_key_command_has_the_nodes_answers(self) -> None:
        body = {"Messages": {"n1": "bad"}, "Keys": None, "NumNodes": 2, "NumErr": 1, "NumResp": 2}
        for row in (commands.INSTALL_KEY, commands.USE_KEY, commands.REMOVE_KEY, commands.LIST_KEYS):
            error = row.refusal("1/2 nodes reported failure", body)
            assert isinstance(error, KeyringError)
            self.assertEqual(error.reply, KeyReply({}, {"n1": "bad"}, 2, 1, 2))

    def test_its_text_has_the_answer_of_one_node(self) -> None:
        for messages, told in (
            ({}, "list-keys: failed"),
            ({"n1": "bad"}, "list-keys: failed (n1: bad)"),
            ({"n2": "worse", "n1": "bad", "n3": ""}, "list-keys: failed (n1: bad, and 2 more)"),
        ):
            body = {"Messages": messages, "Keys": None, "NumNodes": 3, "NumErr": 1, "NumResp": 3}
            error = commands.LIST_KEYS.refusal("failed", body)
            self.assertEqual((str(error), error.message), (told, "failed"))

    def test_a_body_of_the_wrong_shape_is_a_protocol_error(self) -> None:
        for row, body in (
            (commands.JOIN, {}),
            (commands.MEMBERS, {"Members": 1}),
            (commands.STATS, {"agent": "n1"}),
            (commands.LIST_KEYS, {"Keys": 1}),
            (commands.GET_COORDINATE, {}),
        ):
            self.assertRaises(ProtocolError, row.decode, body)
