"""A second signal ends the process; the first one, and all others, are left to whom they belong."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

from twisted.application.service import MultiService
from twisted.trial.unittest import SynchronousTestCase

from txserf.service.ending import Interrupts


class FakeReactor:
    """A reactor that calls at once what waits for its start."""

    def callWhenRunning(self, function: Callable[[], object]) -> None:
        function()


class InterruptsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.told: list[object] = []
        self.reactors: Callable[[int, object], None] = lambda number, frame: self.told.append(number)
        for number in (signal.SIGINT, signal.SIGTERM):
            self.addCleanup(signal.signal, number, signal.signal(number, self.reactors))
        self.interrupts = Interrupts(FakeReactor(), end=lambda number: self.told.append(("ends", number)))
        self.interrupts.abandon = lambda: self.told.append("abandons")
        self.parent = MultiService()
        self.interrupts.setServiceParent(self.parent)

    def send(self, *numbers: int) -> None:
        for number in numbers:
            os.kill(os.getpid(), number)

    def test_the_first_one_is_the_reactor_s_and_the_second_one_ends_the_process(self) -> None:
        self.parent.startService()
        self.send(signal.SIGTERM)
        self.assertEqual(self.told, [signal.SIGTERM])
        self.send(signal.SIGINT)
        self.assertEqual(self.told, [signal.SIGTERM, "abandons", ("ends", signal.SIGINT)])

    def test_during_a_stop_of_another_cause_the_first_one_ends_it(self) -> None:
        self.parent.startService()
        self.parent.running = False
        self.send(signal.SIGTERM)
        self.assertEqual(self.told, ["abandons", ("ends", signal.SIGTERM)])

    def test_the_process_ends_though_what_is_abandoned_fails(self) -> None:
        self.interrupts.abandon = lambda: 1 / 0
        self.parent.startService()
        self.send(signal.SIGTERM)
        self.assertRaises(ZeroDivisionError, self.send, signal.SIGTERM)
        self.assertEqual(self.told, [signal.SIGTERM, ("ends", signal.SIGTERM)])

    def test_a_third_one_is_the_system_s(self) -> None:
        at_the_end: list[object] = []
        self.interrupts.abandon = lambda: at_the_end.extend(
            map(signal.getsignal, (signal.SIGINT, signal.SIGTERM))
        )
        self.parent.startService()
        self.send(signal.SIGTERM, signal.SIGTERM)
        self.assertEqual(at_the_end, [signal.SIG_DFL] * 2)

    def test_a_stop_gives_the_signals_back(self) -> None:
        self.parent.startService()
        self.assertNotEqual(signal.getsignal(signal.SIGINT), self.reactors)
        self.parent.stopService()
        self.assertEqual(signal.getsignal(signal.SIGINT), self.reactors)
        self.assertEqual(signal.getsignal(signal.SIGTERM), self.reactors)

    def test_a_signal_that_is_ignored_stays_so(self) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        self.parent.startService()
        self.assertEqual(signal.getsignal(signal.SIGINT), signal.SIG_IGN)
