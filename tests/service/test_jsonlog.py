"""The log as JSON: a flat object on each line, whatever is logged."""

from __future__ import annotations

import io
import json
import signal
import sys
from typing import Any
from unittest import mock

from twisted.logger import FileLogObserver, Logger, LogPublisher
from twisted.python import log
from twisted.python.failure import Failure
from twisted.python.logfile import LogFile
from twisted.trial.unittest import SynchronousTestCase

from tests.fakes import Log, new_folder
from txserf.handlers.work import describe
from txserf.model import UserEvent
from txserf.service import jsonlog


class LineTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.output = io.StringIO()
        self.publisher = LogPublisher(FileLogObserver(self.output, jsonlog.line))
        self.logger = Logger("txserf.test", observer=self.publisher)

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.output.getvalue().splitlines()]

    def test_an_event_is_an_object_with_its_own_fields_behind_the_four_that_all_have(self) -> None:
        self.logger.info(
            "{event} handled", event="user 'a'", type="user", duration=0.25, result="ok", none=None
        )
        (line,) = self.lines()
        self.assertEqual(list(line)[:4], ["time", "level", "namespace", "text"])
        self.assertRegex(line.pop("time"), r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}\+00:00$")
        self.assertEqual(
            line,
            {
                "level": "info",
                "namespace": "txserf.test",
                "text": "user 'a' handled",
                "event": "user 'a'",
                "type": "user",
                "duration": 0.25,
                "result": "ok",
                "none": None,
            },
        )

    def test_the_time_is_of_one_width(self) -> None:
        times = [jsonlog.flat({"log_time": seconds})["time"] for seconds in (0.0, 0.5)]
        self.assertEqual(times, ["1970-01-01T00:00:00.000000+00:00", "1970-01-01T00:00:00.500000+00:00"])

    def test_fields_that_are_no_scalars_are_left_out(self) -> None:
        self.logger.info("x", event=UserEvent("a", b"payload"), list=[1], bytes=b"1", nan=float("nan"))
        (line,) = self.lines()
        self.assertEqual(sorted(line), ["level", "namespace", "text", "time"])

    def test_a_field_takes_no_place_of_those_that_all_have(self) -> None:
        self.logger.info("x", text="other", time="other")
        (line,) = self.lines()
        self.assertEqual(line["text"], "x")
        self.assertNotEqual(line["time"], "other")

    def test_it_is_a_line_of_ascii_whatever_an_event_is_called(self) -> None:
        self.logger.info("{event}", event=describe(UserEvent("a\nb\u2028\udcff\x1b", b"")))
        text = self.output.getvalue()
        self.assertTrue(text.isascii())
        self.assertEqual((text.count("\n"), text[-1]), (1, "\n"))

    def test_a_failure_has_its_traceback(self) -> None:
        try:
            raise ValueError("oh")
        except ValueError:
            self.logger.failure("it failed")
        (line,) = self.lines()
        self.assertEqual((line["level"], line["text"]), ("critical", "it failed"))
        self.assertIn("ValueError: oh", line["traceback"])

    def test_a_format_that_can_not_be_filled_is_still_a_line(self) -> None:
        self.logger.info("{missing}")
        self.assertIn("Unable to format event", self.lines()[0]["text"])

    def test_what_the_old_log_says_is_an_object_of_four(self) -> None:
        seen = Log(self)
        log.msg("Starting", system="x", number=1)
        log.err(Failure(OSError("old")), "why")
        self.flushLoggedErrors(OSError)
        for event in seen.events:
            self.publisher(event)
        message, error = self.lines()
        self.assertEqual(
            (message["text"], sorted(message)), ("Starting", ["level", "namespace", "text", "time"])
        )
        self.assertIn("OSError: old", error["text"])


class ObserverTests(SynchronousTestCase):
    def written(self, **twistd: Any) -> str:
        """Log a line as ``twistd`` would, and return the standard output."""
        output = io.StringIO()
        with mock.patch.object(sys, "stdout", output):
            Logger("x", observer=LogPublisher(jsonlog.observer(twistd))).info("said")
        return output.getvalue()

    def test_in_the_foreground_it_goes_to_standard_output_as_that_of_twistd(self) -> None:
        self.assertEqual(json.loads(self.written(nodaemon=1, logfile=None))["text"], "said")
        self.assertEqual(json.loads(self.written(nodaemon=1, logfile="-"))["text"], "said")

    def test_a_log_file_is_written_and_is_rotated_by_the_signal_that_rotates_that_of_twistd(self) -> None:
        before = signal.signal(signal.SIGUSR1, signal.SIG_DFL)
        self.addCleanup(signal.signal, signal.SIGUSR1, before)
        path = new_folder(self) / "log"
        self.assertEqual(self.written(nodaemon=1, logfile=str(path)), "")
        self.assertEqual(json.loads(path.read_text())["text"], "said")
        self.assertTrue(callable(signal.getsignal(signal.SIGUSR1)))

    def test_a_daemon_without_a_log_file_has_the_one_that_twistd_has(self) -> None:
        self.patch(LogFile, "fromFullPath", classmethod(lambda cls, name: io.StringIO(name)))
        self.addCleanup(signal.signal, signal.SIGUSR1, signal.getsignal(signal.SIGUSR1))
        observer: Any = jsonlog.observer({"nodaemon": 0, "logfile": None})
        self.assertEqual(observer._outFile.getvalue(), "twistd.log")
