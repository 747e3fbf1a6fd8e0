"""`Operation`: an exchange that outlives a connection."""

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
    An exchange that a session sends, and sends again on another connection.

    :ivar road: the connection that it takes.
    :ivar connection: the connection that it was sent by; None while it waits.
    :ivar done: whether it is over, so that nothing more is handed to it.
    :ivar main_when_refused: the shared connection that was open when this one's own was closed.
    :ivar asked_again: whether it is sent again, or told, where its connection was lost.
    """

    connection: SerfProtocol | None = None
    done = False
    asked_again = True
    due_at: float = math.inf  # set by `Deadlines.watch`
    main_when_refused: SerfProtocol | None = None

    def __init__(self, command: Command, values: Mapping[str, Any], lanes: bool = False) -> None:
        super().__init__(command, values)
        self.road: Road = _MAIN if command.takes_main_road else command.road_of(values, lanes)

    def expired(self) -> None:
        """Take the end of its time: it is not done."""
        raise NotImplementedError

    def interrupted(self, heard_at: float) -> None:
        """
        Take the loss of a subscription's connection. It is opened again, which is another `replied`.

        :param heard_at: the time, in seconds of the clock, at which the agent was last heard.
        """

    def refused(self, error: RpcError) -> None:
        """Take a refusal: the agent closed the connection instead of an answer."""
        raise NotImplementedError
