"""Two programs on one state file."""

from __future__ import annotations

import fcntl
import os
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from tests.fakes import Log, new_folder
from txserf.service.locking import StateLock


class StateLockTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.state = new_folder(self) / "state"
        self.failures: list[str] = []

    def lock(self) -> StateLock:
        lock = StateLock(self.state, lambda reason: self.failures.append(str(reason)))
        self.addCleanup(lock.stopService)
        lock.startService()
        return lock

    def test_the_second_one_fails_and_says_why(self) -> None:
        log = Log(self)
        self.lock()
        self.lock()
        told = f"--state {self.state} is in use by another program: give each a file of its own"
        self.assertEqual(self.failures, [told])
        self.assertEqual(log.texts, [told])

    def test_once_the_first_one_has_stopped_another_one_may_take_it(self) -> None:
        self.lock().stopService()
        self.lock()
        self.assertEqual(self.failures, [])

    def test_it_does_not_touch_the_state(self) -> None:
        self.lock()
        self.assertEqual(os.listdir(self.state.parent), ["state.lock"])

    def test_a_file_that_can_not_be_locked_is_a_warning(self) -> None:
        log = Log(self)
        with mock.patch.object(fcntl, "flock", side_effect=OSError(95, "Operation not supported")):
            self.lock()
        self.assertEqual(self.failures, [])
        self.assertIn("is not locked: [Errno 95] Operation not supported", log.texts[0])
