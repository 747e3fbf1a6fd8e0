"""
Which host replaces a lost one: the order in which hosts are tried, and the wait between two rounds.

A *round* tries each host once, in order; one that has refused the key is left out while another may do. This
module uses no reactor and no Deferred: `SerfClientFactory`, in ``factory.py``, acts on its answers.
"""

from __future__ import annotations

import random
from collections import deque

from txserf.errors import AuthenticationError, SerfError

# The first attempt after the loss of the only host comes within this many times the shortest wait: all clients of one
# agent lose it at the same moment.
_SPREAD = 10

# A connection that is lost within this many seconds counts as one that flaps.
_FLAPPING = 1.0

# Hosts that one line of a log names.
_TOLD = 10


class Rounds:
    """
    The order in which hosts are tried. A host is its place in the list, from 0.

    :ivar failures: a pair (place, reason) for each host that the round has tried, in order. Those that
        are left out of it, since they have refused the key, stand first.
    :ivar flapped: why the last connection was lost, where each host has lost its own at once: to try at
        once again would never end. Else None.
    :ivar herd: whether the only host has lost a connection that had held: all its clients would come back at one
        moment.
    """

    def __init__(self) -> None:
        self.failures: list[tuple[int, BaseException]] = []
        self._count = 0
        self._first = 0  # the place that the next round begins with
        self._left: deque[int] = deque()  # those that the round has still to try
        self._refused: dict[int, AuthenticationError] = {}
        self._connected: int | None = None  # the place of the last connection
        self._flaps = 0  # connections that were lost at once, one after the other
        self.flapped: SerfError | None = None
        self.herd: bool = False

    def start_afresh(self) -> None:
        """Ask those that have refused the key too, and do not wait for those that flap."""
        self._refused.clear()
        self.flapped = None
        self.herd = False

    def begin(self, count: int) -> None:
        """Begin a round over *count* hosts. One that has refused the key is not asked while another may do."""
        order = [(self._first + step) % count for step in range(count)]
        self._count = count
        self._left = deque(place for place in order if place not in self._refused)
        self.failures = [(place, self._refused[place]) for place in order if place in self._refused]

    def next(self) -> int | None:
        """Return the next host of this round; None where there is none left."""
        if not self._left:
            return None
        place = self._left.popleft()
        self._first = (place + 1) % self._count
        return place

    def failed(self, place: int, reason: BaseException, key_is_old: bool) -> None:
        """
        Note that an attempt has failed.

        :param key_is_old: whether another key is due since; a host that has refused the old one is tried again.
        """
        self.failures.append((place, reason))
        if isinstance(reason, AuthenticationError):
            if key_is_old:
                self._left.append(place)
            else:
                self._refused[place] = reason

    def connected(self, place: int) -> bool:
        """Note that a host is connected; return whether the last connection was to another one."""
        self.failures = []
        last, self._connected = self._connected, place
        return last is not None and last != place

    def lost(self, place: int, reason: SerfError, lasted: float) -> bool:
        """
        Note that a connection is lost.

        :param lasted: seconds that it was open.
        :returns: whether it held long enough to count as a good one.
        """
        held = lasted >= _FLAPPING
        self._flaps = 0 if held else self._flaps + 1
        self.flapped = reason if self._flaps > self._count else None
        if isinstance(reason, AuthenticationError):
            self._refused[place] = reason
        else:
            self._refused.clear()
            self.herd = held and self._count == 1
        return held

    @property
    def flaps(self) -> bool:
        """Whether the last connection was lost at once."""
        return self._flaps > 0

    @property
    def refusal(self) -> AuthenticationError | None:
        """The refusal of one host, where all have refused the key; else None."""
        return next(iter(self._refused.values())) if len(self._refused) == self._count else None

    def forget_refusals(self) -> None:
        """Let those that have refused be tried again, in this round too: another key is due."""
        self._left += self._refused
        self._refused.clear()


class Unreached:
    """
    The failures of hosts that are news, so that a log says each once, and again only when something has changed.
    """

    def __init__(self) -> None:
        self._known: dict[str, str] = {}
        self._news: list[str] = []

    def failed(self, host: str, reason: str) -> None:
        """Note that an attempt has failed."""
        reason = reason.rstrip(".")
        if self._known.get(host) != reason:
            self._known[host] = reason
            self._news.append(f"no connection to {host}: {reason}")

    def connected(self, host: str) -> None:
        """Note that a host is connected: its next failure is news."""
        self._known.pop(host, None)

    def take(self) -> str:
        """Return the news since the last call, for a line of a log; empty if there are none."""
        news, self._news = self._news, []
        more = f"; and {len(news) - _TOLD} more" if len(news) > _TOLD else ""
        return "; ".join(news[:_TOLD]) + more


def jittered(delay: float, jitter: float, most: float) -> float:
    """
    Return the seconds to wait before the next round.

    :param delay: seconds that are due on average.
    :param jitter: the standard deviation, as a part of *delay*; 0 for none.
    :param most: seconds that are never exceeded.
    """
    wait = random.normalvariate(delay, delay * jitter) if jitter else delay
    return min(max(0.0, wait), most)


def spread(delay: float, most: float) -> float:
    """
    Return the seconds to wait after the loss of the only host, before the first attempt.

    :param delay: the shortest wait between rounds, in seconds. This one is from 0 to ten times as long, each as likely.
    :param most: seconds that are never exceeded.
    """
    return random.uniform(0, min(_SPREAD * delay, most))
