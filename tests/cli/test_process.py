"""The lines that are logged while a command runs."""

from __future__ import annotations

import io

from twisted.internet.task import Clock
from twisted.logger import Logger, LogLevel
from twisted.trial.unittest import SynchronousTestCase

from txserf.cli.process import StderrLog


class StderrLogTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.stream = io.StringIO()
        self.log = StderrLog(self.clock, self.stream)
        self.logger = Logger(namespace="txserf.test", observer=self.log)

    def test_a_line_comes_a_moment_later(self) -> None:
        self.logger.error("lost {host}", host="h\x1b")
        self.assertEqual(self.stream.getvalue(), "")
        self.clock.advance(1)
        self.assertEqual(self.stream.getvalue(), "txserf: lost h\\x1b\n")
        self.logger.error("again")
        self.clock.advance(1)
        self.assertEqual(self.stream.getvalue().count("\n"), 2)

    def test_warnings_come_only_if_that_is_the_level(self) -> None:
        self.logger.warn("a")
        self.log.level = LogLevel.warn
        self.logger.warn("b")
        self.log.flush()
        self.assertEqual(self.stream.getvalue(), "txserf: b\n")

    def test_a_command_that_fails_drops_what_waits(self) -> None:
        self.logger.error("gave up")
        self.log.drop()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.log.flush()
        self.assertEqual(self.stream.getvalue(), "")

    def test_a_failure_has_its_reason(self) -> None:
        try:
            raise ValueError("no such thing")
        except ValueError:
            self.logger.failure("it broke")
        self.log.flush()
        self.assertEqual(self.stream.getvalue(), "txserf: it broke: no such thing\n")
