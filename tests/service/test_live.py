"""The live view and stream that the paths of ``--http`` share."""

from __future__ import annotations

from tests.service.web_case import WebCase
from txserf.model import Event, Gap


class ListenerTests(WebCase):
    def test_one_that_raises_is_logged_and_nobody_else_misses_anything(self) -> None:
        told: list[Event | Gap] = []

        def broken(item: Event | Gap) -> None:
            raise KeyError("x")

        self.live.listeners[broken] = None
        self.live.listeners[told.append] = None
        for name in ("one", "two"):
            done = self.serf.event(name)
            self.run_for(0.5)
            self.successResultOf(done)
        self.nodes.fail("n3")
        self.run_for(10.0)
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 3)
        self.assertEqual(
            [item.type for item in told if not isinstance(item, Gap)], ["user", "user", "member-failed"]
        )
        self.assertEqual(str(self.live.view.members["n3"].status), "failed")
