"""An operation's choice of connection."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from txserf import commands
from txserf.commands import Command, Road
from txserf.connection.operation import Operation


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
