"""Where the nodes lie in a network that does not exist, so that distances fit together."""

from __future__ import annotations

import math
import random

from txserf.model import Coordinate

_DIMENSIONS = 8
_SPREAD = 0.0002  # seconds: as between machines of one rack
_LEAST_HEIGHT = 1e-05  # Serf's own


class Place:
    """
    A node's place; messages between two nodes take half of the round trip between their places.

    :ivar latency: seconds that this node adds to each round trip.
    """

    def __init__(self, rng: random.Random) -> None:
        self._vec = tuple(rng.uniform(-_SPREAD, _SPREAD) for _ in range(_DIMENSIONS))
        self._error = rng.uniform(0.05, 0.3)
        self.latency = 0.0

    @property
    def coordinate(self) -> Coordinate:
        """What an agent says of it once it has been measured."""
        return Coordinate(self._vec, error=self._error, height=_LEAST_HEIGHT + self.latency)

    def delay_to(self, other: Place) -> float:
        """Return the seconds that a message to *other* takes."""
        if other is self:
            return 0.0
        heights = 2 * _LEAST_HEIGHT + self.latency + other.latency
        return (math.dist(self._vec, other._vec) + heights) / 2


#: What an agent says of a node whose place nobody has measured yet.
UNMEASURED = Coordinate((0.0,) * _DIMENSIONS)
