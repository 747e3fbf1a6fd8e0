"""What a session looks after: `Operation`, an exchange that outlives a connection."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from txserf.commands import Command, Road
from txserf.connection.exchange import Exchange
from txserf.connection.protocol import SerfProtocol
from txserf.errors import RpcError

_MAIN = Road.MAIN  # read for every operation: an Enum's member takes 40 ns to look up


class Operation(Exchange):
    """
    An exchange that a session looks after.

    :ivar road: by which connection it goes.
    :ivar connection: the one that it was sent by; None while it waits.
    :ivar done: nothing more is handed to it.
    :ivar asked_again: whether it is sent again, or told, where its connection was lost.
    """

    connection: SerfProtocol | None = None
    done = False
    asked_again = True
    due_at = math.inf  # where it is watched by deadlines itself
    closed_beside: SerfProtocol | None = None  # what stayed open as a connection of its own was closed on it

    def __init__(self, command: Command, values: Mapping[str, Any], lanes: bool = False) -> None:
        super().__init__(command, values)
        self.road = _MAIN
        if not command.takes_main_road:
            if command.road is not Road.MAIN and (lanes or command.road is Road.GREETING):
                self.road = command.road
            if command.may_close is not None and command.may_close(values):
                self.road = Road.ALONE

    def expired(self) -> None:
        """Its time is over, and it is not done."""
        raise NotImplementedError

    def interrupted(self) -> None:
        """The connection of a subscription is lost; it will be opened again, by another `replied`."""

    def refused(self, error: RpcError) -> None:
        """The agent's answer to it was to close the connection."""
        raise NotImplementedError
