"""Serf's event filters: their grammar, and the events that pass them."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from txserf.errors import InvalidRequest
from txserf.filters import TYPES, EventFilter, parse_filter


class ParsingTests(SynchronousTestCase):
    def test_a_filter_is_a_list_of_types_and_names(self) -> None:
        for text, expected in {
            "*": [EventFilter("*")],
            "user": [EventFilter("user")],
            "user:": [EventFilter("user")],
            "user:a:b": [EventFilter("user", "a:b")],
            "query:load,member-join,user: a": [
                EventFilter("query", "load"),
                EventFilter("member-join"),
                EventFilter("user", " a"),
            ],
        }.items():
            self.assertEqual(list(parse_filter(text)), expected, text)

    def test_each_event_type_of_serf_and_the_star_is_an_element(self) -> None:
        self.assertEqual(
            TYPES,
            (
                "user",
                "query",
                "member-join",
                "member-leave",
                "member-failed",
                "member-update",
                "member-reap",
                "*",
            ),
        )
        self.assertEqual([each.type for each in parse_filter(",".join(TYPES))], list(TYPES))

    def test_an_element_that_is_no_event_type_is_refused_by_name(self) -> None:
        for text, element in {
            "": "",
            "user,": "",
            "user, query": " query",
            "usr": "usr",
            "User": "User",
            "member-join:n1": "member-join:n1",
            "*:a": "*:a",
            "member-": "member-",
        }.items():
            error = self.assertRaises(InvalidRequest, parse_filter, text)
            self.assertIn(f"{element!r} is no event type; there are user, query, member-join", str(error))


class MatchingTests(SynchronousTestCase):
    def test_an_event_passes_by_its_type_and_its_name_if_the_filter_has_one(self) -> None:
        events = [("user", "deploy"), ("user", ""), ("query", "deploy"), ("member-join", None)]
        for element, passing in {
            EventFilter("*"): events,
            EventFilter("user"): events[:2],
            EventFilter("user", "deploy"): events[:1],
            EventFilter("user", "Deploy"): [],
            EventFilter("user", ""): events[1:2],
            EventFilter("query"): events[2:3],
            EventFilter("member-join"): events[3:],
            EventFilter("member-leave"): [],
        }.items():
            self.assertEqual([event for event in events if element.matches(*event)], passing, element)
