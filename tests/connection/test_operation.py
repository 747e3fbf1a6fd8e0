"""What a session looks after: by which connection it goes, and what is a time in seconds."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from txserf import commands
from txserf.arguments import seconds
from txserf.commands import Command, Road
from txserf.connection.operation import Operation
from txserf.errors import InvalidRequest


class SecondsTests(SynchronousTestCase):
    def test_whole_numbers_and_floats_are_seconds(self) -> None:
        for value in (0, 0.0, 1, 2.5, 1e9, math.inf):
            self.assertEqual(seconds(value, "timeout"), value)
            self.assertIs(type(seconds(value, "timeout")), float)

    def test_all_else_is_refused_by_its_name(self) -> None:
        for value in (-1, -0.001, math.nan, -math.inf, True, False, None, "5", b"5", [5], Decimal(5), 5j):
            error = self.assertRaises(InvalidRequest, seconds, value, "connect_timeout")
            self.assertEqual(
                str(error), f"connect_timeout must be a number of seconds, not {value!r}", repr(value)
            )

    def test_a_number_that_no_float_can_hold_is_refused(self) -> None:
        for value in (10**400, 10**5000, -(10**5000)):
            self.assertIn("timeout", str(self.assertRaises(InvalidRequest, seconds, value, "timeout")))

    @given(value=st.integers() | st.floats() | st.booleans() | st.text() | st.none() | st.decimals())
    @settings(deadline=None)
    def test_whatever_it_is_given_it_is_seconds_from_zero_on_or_an_invalid_request(
        self, value: object
    ) -> None:
        try:
            result = seconds(value, "timeout")
        except InvalidRequest:
            return
        self.assertGreaterEqual(result, 0.0)


def operation(row: Command, lanes: bool = False, **given: Any) -> Operation:
    return Operation(row, row.arguments(given), lanes=lanes)


class RouteTests(SynchronousTestCase):
    def test_what_holds_up_others_has_a_lane_where_lanes_are_wanted(self) -> None:
        self.assertIs(operation(commands.JOIN, lanes=True, Existing=["a"]).road, Road.JOIN)
        for row in (commands.INSTALL_KEY, commands.USE_KEY, commands.REMOVE_KEY):
            self.assertIs(operation(row, lanes=True, Key="k").road, Road.KEYS)
        self.assertIs(operation(commands.LIST_KEYS, lanes=True).road, Road.KEYS)

    def test_it_goes_with_all_the_others_where_none_are(self) -> None:
        self.assertIs(operation(commands.JOIN, Existing=["a"]).road, Road.MAIN)
        self.assertIs(operation(commands.LIST_KEYS).road, Road.MAIN)

    def test_a_filter_that_may_not_compile_goes_alone_in_any_case(self) -> None:
        for lanes in (False, True):
            filters: list[dict[str, Any]] = [{"Name": "("}, {"Status": "a{1"}, {"Tags": {"role": "[ab]"}}]
            for risky in filters:
                self.assertIs(operation(commands.MEMBERS_FILTERED, lanes, **risky).road, Road.ALONE, risky)
            self.assertIs(operation(commands.MEMBERS_FILTERED, lanes, Name="n1|n2.*").road, Road.MAIN)

    def test_what_was_answered_as_the_connection_was_made_is_a_greeting_in_any_case(self) -> None:
        for lanes in (False, True):
            self.assertIs(operation(commands.HANDSHAKE, lanes).road, Road.GREETING)
            self.assertIs(operation(commands.AUTH, lanes, AuthKey="k").road, Road.GREETING)

    def test_all_else_goes_by_the_one_connection(self) -> None:
        given: dict[str, Any] = {"Name": "n", "Node": "n", "LogLevel": "INFO", "Stop": 1, "ID": 1}
        special = {"join", "install-key", "use-key", "remove-key", "list-keys", "handshake", "auth"}
        for row in commands.TABLE:
            if row.wire not in special:
                values = {arg.name: given[arg.name] for arg in row.args if arg.required}
                self.assertIs(operation(row, lanes=True, **values).road, Road.MAIN, row.wire)


class ReopenTests(SynchronousTestCase):
    def test_streams_and_monitors_are_opened_again_and_nothing_else(self) -> None:
        given: dict[str, Any] = {
            "Name": "n",
            "Node": "n",
            "LogLevel": "INFO",
            "Stop": 1,
            "ID": 1,
            "Existing": ["a"],
        }
        reopened = set()
        for row in commands.TABLE:
            values = {arg.name: given.get(arg.name, "k") for arg in row.args if arg.required}
            if operation(row, **values).reopens:
                reopened.add(row.wire)
        self.assertEqual(reopened, {"stream", "monitor"})
