"""The fluent API's classes for requests, responses and records."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from txserf import commands
from txserf.client import requests
from txserf.client.requests import REQUESTS, RESPONSES, Request, Response, Responses, ResponseStreamResult
from txserf.commands import BY_WIRE, TABLE, Command


def request(wire: str, seq: int | None = 7, **given: Any) -> Request:
    """Make the request of a command. With a Seq of None it was not sent."""
    row = BY_WIRE[wire]
    made = REQUESTS[wire](row, row.arguments(given))
    made.seq = seq
    return made


def response(wire: str, error: str = "", body: Any = None, **given: Any) -> Response:
    return RESPONSES[wire](request(wire, **given), error, body)


class ClassTests(SynchronousTestCase):
    def test_each_command_has_classes_of_its_own_called_after_its_wire_name(self) -> None:
        for row in TABLE:
            name = row.wire.replace("-", " ").title().replace(" ", "")
            self.assertEqual(REQUESTS[row.wire].__name__, f"Request{name}")
            self.assertEqual(RESPONSES[row.wire].__name__, f"Response{name}")
        self.assertEqual(len(set(REQUESTS.values())), len(TABLE))
        self.assertEqual(len(set(RESPONSES.values())), len(TABLE))

    def test_each_is_a_request_or_a_response_with_a_docstring(self) -> None:
        for row in TABLE:
            self.assertTrue(issubclass(REQUESTS[row.wire], Request))
            self.assertTrue(issubclass(RESPONSES[row.wire], Response))
            for kind in (REQUESTS[row.wire], RESPONSES[row.wire]):
                self.assertIn(row.wire, kind.__doc__ or "")
                self.assertEqual(kind.__module__, requests.__name__)

    def test_a_record_is_a_response_too(self) -> None:
        self.assertTrue(issubclass(ResponseStreamResult, Response))


class ResponseTests(SynchronousTestCase):
    def test_it_has_the_seq_of_its_request(self) -> None:
        members = response("members")
        self.assertEqual((members.seq, members.header), (7, {"Seq": 7, "Error": ""}))

    def test_the_header_is_the_same_each_time_and_has_the_error(self) -> None:
        event = response("event", "too large", Name="e")
        self.assertEqual(event.header, {"Seq": 7, "Error": "too large"})
        self.assertIs(event.header, event.header)

    def test_each_has_a_header_of_its_own(self) -> None:
        one = request("stream")
        first, second = (ResponseStreamResult(one, "", {}) for _ in range(2))
        first.header["mine"] = True
        self.assertEqual(second.header, {"Seq": 7, "Error": ""})

    def test_without_an_error_it_is_a_success(self) -> None:
        for row in TABLE:
            if row is not commands.JOIN:
                made = RESPONSES[row.wire](Request(row, _some_arguments(row)), "", {})
                self.assertTrue(made.is_success, row.wire)

    def test_with_an_error_it_is_none(self) -> None:
        for row in TABLE:
            made = RESPONSES[row.wire](Request(row, _some_arguments(row)), "no", {"Num": 1})
            self.assertFalse(made.is_success, row.wire)

    def test_a_join_is_one_from_one_address_on(self) -> None:
        for number, success in ((0, False), (1, True), (2, True), (-1, False)):
            join = response("join", body={"Num": number}, Existing=["a"])
            self.assertIs(join.is_success, success)

    def test_a_join_whose_body_has_no_number_is_none_and_nothing_is_raised(self) -> None:
        for body in ({}, {"Num": None}, {"Num": "1"}, {"Num": True}, None):
            self.assertIs(response("join", body=body, Existing=["a"]).is_success, False)

    def test_a_record_is_a_success(self) -> None:
        self.assertTrue(ResponseStreamResult(request("query", Name="q"), "", {"Type": "ack"}).is_success)

    def test_several_are_a_success_where_all_of_them_are(self) -> None:
        good, bad = response("members"), response("event", "no", Name="e")
        self.assertTrue(Responses([good, good]).is_success)
        self.assertFalse(Responses([good, bad, good]).is_success)
        self.assertTrue(Responses().is_success)


def _some_arguments(row: Command) -> dict[str, Any]:
    given: dict[str, Any] = {"Existing": ["a"], "LogLevel": "INFO", "Stop": 1, "ID": 1}
    names = [arg.name for arg in row.args if arg.required]
    return row.arguments({name: given.get(name, "s3cret") for name in names})


class ReprTests(SynchronousTestCase):
    def test_that_of_a_request_has_its_name_its_seq_and_its_arguments(self) -> None:
        self.assertEqual(
            repr(request("force-leave", Node="n1")),
            "<RequestForceLeave: force-leave, 7, {'Node': 'n1', 'Prune': False}>",
        )

    def test_one_that_was_not_sent_has_no_seq(self) -> None:
        self.assertEqual(repr(request("members", seq=None)), "<RequestMembers: members, None, {}>")

    def test_that_of_a_response_has_its_request_and_its_header(self) -> None:
        self.assertEqual(
            repr(response("members", body={"Members": []})),
            "<ResponseMembers: <RequestMembers: members, 7, {}>, {'Seq': 7, 'Error': ''}>",
        )

    def test_that_of_a_record_is_called_so_whatever_its_stream(self) -> None:
        shown = repr(ResponseStreamResult(request("stream"), "", {"Event": "user"}))
        self.assertEqual(
            shown,
            "<ResponseStreamResult: <RequestStream: stream, 7, {'Type': '*'}>, {'Seq': 7, 'Error': ''}>",
        )

    def test_no_key_is_in_any_of_them(self) -> None:
        for wire, name in (
            ("auth", "AuthKey"),
            ("install-key", "Key"),
            ("use-key", "Key"),
            ("remove-key", "Key"),
        ):
            made = response(wire, "no", {"Keys": {"s3cret": 1}}, **{name: "s3cret"})
            for shown in (repr(made), repr(made.request), repr(Responses([made]))):
                self.assertNotIn("s3cret", shown)
                self.assertIn(f"{{'{name}': '***'}}", shown)

    @given(text=st.text())
    @settings(deadline=None)
    def test_any_text_can_be_shown_on_one_line(self, text: str) -> None:
        shown = repr(response("event", text, Name=text.encode("utf-8", "replace").decode()))
        self.assertEqual(len(shown.splitlines()), 1)
