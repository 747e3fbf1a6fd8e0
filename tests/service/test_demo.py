"""The events that ``--embedded`` makes by itself."""

from __future__ import annotations

from typing import Any, cast

from twisted.internet.defer import Deferred, fail
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.fakes import Log
from txserf.embedded import EmbeddedCluster
from txserf.errors import Disconnected
from txserf.service.demo import Demo
from txserf.service.follow import Follower
from txserf.service.lines import as_text


class EndTests(SynchronousTestCase):
    """The demo ends before it has made any event."""

    def failures(self, waiting: Deferred[None]) -> list[BaseException]:
        """Return the errors that the demo reports if its wait for the follower ends with *waiting*."""

        class Waiting:
            def when_following(self) -> Deferred[None]:
                return waiting

        told: list[BaseException] = []
        clock = Clock()
        cluster: Any = EmbeddedCluster(clock, nodes=1, seed=1)
        follower = cast(Follower, Waiting())
        demo = Demo(cluster, follower=follower, write=print, format=as_text, failed=told.append)
        demo.startService()
        demo.stopService()
        clock.advance(20.0)
        return told

    def test_what_it_fails_by_is_told(self) -> None:
        reason = RuntimeError()
        self.assertEqual(self.failures(fail(reason)), [reason])
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_an_output_that_is_gone_is_told_without_a_traceback(self) -> None:
        log, reason = Log(self), BrokenPipeError("gone")
        self.assertEqual(self.failures(fail(reason)), [reason])
        self.assertIn("stopped showing: gone", log.texts)

    def test_a_stop_is_no_failure(self) -> None:
        self.assertEqual(self.failures(fail(Disconnected())), [])
        self.assertEqual(self.failures(Deferred()), [])
