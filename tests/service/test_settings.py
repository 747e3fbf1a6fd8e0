"""The table of options, and the configuration file."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from tests.fakes import new_folder
from txserf import commands, filters
from txserf.service import settings
from txserf.service.settings import SETTINGS, ConfigError, Takes


class FileCase(SynchronousTestCase):
    def file(self, text: str | bytes, name: str = "txserf.toml") -> Path:
        """Write a file."""
        path = new_folder(self) / name
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    def refusal(self, text: str | bytes) -> str:
        """Return the error for a file with this text, with FILE in place of its path."""
        path = self.file(text)
        told = str(self.assertRaises(ConfigError, settings.load, path))
        self.assertIn(str(path), told)
        return told.replace(str(path), "FILE")


class LoadTests(FileCase):
    def test_the_keys_are_the_names_of_the_options(self) -> None:
        path = self.file('agent = "db1,db2"\nhandler = ["user:deploy=./deploy.sh"]\nhandler-timeout = 2.5\n')
        self.assertEqual(
            settings.load(path),
            {"agent": "db1,db2", "handler": ["user:deploy=./deploy.sh"], "handler-timeout": 2.5},
        )

    def test_every_option_may_be_in_it_but_the_files_own_name(self) -> None:
        examples = {
            Takes.TEXT: '"x"',
            Takes.LIST: '["x"]',
            Takes.NUMBER: "1",
            Takes.SECONDS: "1",
            Takes.FLAG: "true",
            Takes.TABLES: '[{source = "x", destination = "y"}]',
        }
        for row in SETTINGS:
            value = f'"{row.choices[0]}"' if row.choices else examples[row.kind]
            if row.name == "config":
                self.assertIn("there is no option 'config'", self.refusal(f"{row.name} = {value}"))
            else:
                self.assertEqual(list(settings.load(self.file(f"{row.name} = {value}"))), [row.name])

    def test_an_unknown_key_is_refused_by_name(self) -> None:
        self.assertIn("FILE: there is no option 'xyz'; there are agent, ", self.refusal('xyz = "x"'))

    def test_an_unknown_key_that_is_near_to_a_known_one_is_refused_with_that(self) -> None:
        for key, known in {
            "agents": "agent",
            "agnet": "agent",
            "Handler": "handler",
            "log_format": "log-format",
        }.items():
            told = self.refusal(f'{key} = "x"')
            self.assertIn(f"FILE: there is no option {key!r} (did you mean {known}?)", told)

    def test_a_table_is_refused_by_name(self) -> None:
        told = "there is no option 'txserf'; options stand at the top of the file, in no table"
        self.assertIn(told, self.refusal('[txserf]\nagent = "x"'))

    def test_a_port_may_be_a_number(self) -> None:
        self.assertEqual(settings.load(self.file("http = 9100")), {"http": "9100"})
        self.assertEqual(settings.load(self.file('http = "tcp:9100"')), {"http": "tcp:9100"})
        for wrong in ("0", "65536", "true"):
            self.assertIn("http is text, or the number of a port, not ", self.refusal(f"http = {wrong}"))

    def test_a_wrong_type_is_refused_with_both_types(self) -> None:
        for text, told in {
            "agent = 7373": "agent is text, not a number",
            'agent = ["a", "b"]': "agent is text, not an array",
            'handler = "true"': "handler is a list of text, not text",
            "handler = [1]": "handler is a list of text, not an array",
            "concurrency = 0": "concurrency is a whole number from 1 on, not 0",
            "concurrency = true": "concurrency is a whole number from 1 on, not True",
            "concurrency = 1.5": "concurrency is a whole number from 1 on, not 1.5",
            'concurrency = "4"': "concurrency is a whole number from 1 on, not '4'",
            "handler-timeout = -1": "handler-timeout is seconds, 0 or more, not -1",
            "handler-timeout = nan": "handler-timeout is seconds, 0 or more, not nan",
            "handler-timeout = inf": "handler-timeout is seconds, 0 or more, not inf",
            "drain-timeout = 0": "drain-timeout is seconds, above 0, not 0",
            "embedded-port = 65536": "embedded-port is a whole number from 1 to 65535, not 65536",
            "embedded-quiet = 1": "embedded-quiet is true or false, not a number",
            'format = "xml"': "format is text or json, not 'xml'",
            "state = 2026-11-24": "state is text, not a date or time",
        }.items():
            self.assertEqual(self.refusal(text), f"FILE: {told}")

    def test_a_refusal_shows_no_value_that_may_hold_a_key(self) -> None:
        for text in (
            'agent = ["serf://a?AuthKey=s3cret"]',
            'agent = "serf://a?AuthKey=s3cret',
            "s3cret = 1\x00",
        ):
            self.assertNotIn("s3cret", self.refusal(text).replace("'s3cret'", "NAME"))

    def test_what_is_not_toml_is_refused_with_its_place(self) -> None:
        self.assertIn("FILE is not TOML: ", self.refusal("agent = = 1"))
        self.assertIn("line 1", self.refusal("agent = = 1"))

    def test_what_is_nested_too_deep_is_refused(self) -> None:
        for text in ("[" * 5000, "[" * 5000 + "]" * 5000, "{a = " * 5000):
            self.assertEqual(self.refusal(f"handler = {text}"), "FILE is not TOML: it is nested too deep")

    def test_a_number_of_any_length_is_taken_or_refused_in_a_sentence(self) -> None:
        long = "0x" + "f" * 10_000
        for name in ("handler-timeout", "embedded", "embedded-port", "format"):
            told = self.refusal(f"{name} = {long}")
            self.assertEqual(
                told, f"FILE: {name} is {settings.BY_NAME[name].rule}, not a number of 21 digits or more"
            )
        self.assertIn("is not TOML", self.refusal("concurrency = " + "9" * 10_000))

    def test_an_embedded_cluster_has_at_most_1000_agents(self) -> None:
        self.assertEqual(
            self.refusal("embedded = 1001"), "FILE: embedded is a whole number from 1 to 1000, not 1001"
        )
        self.refusal("embedded = 1" + "0" * 26)

    def test_what_is_no_regular_file_is_refused_and_not_waited_for(self) -> None:
        path = new_folder(self) / "fifo"
        os.mkfifo(path)
        for name, kind in ((path, "a FIFO"), (path.parent, "a directory"), (Path("/dev/zero"), "a device")):
            told = str(self.assertRaises(ConfigError, settings.load, name))
            self.assertEqual(told, f"{name} can't be read: it is {kind}")

    def test_what_is_not_utf8_is_refused(self) -> None:
        self.assertIn("FILE is not TOML: ", self.refusal(b'agent = "\xff"'))

    def test_a_file_that_is_not_there_is_refused(self) -> None:
        told = str(self.assertRaises(ConfigError, settings.load, Path("/nowhere/txserf.toml")))
        self.assertEqual(told, "/nowhere/txserf.toml can't be read: No such file or directory")

    def test_where_nothing_reads_toml_the_extra_is_named(self) -> None:
        path = self.file("")
        with mock.patch.dict(sys.modules, {"tomllib": None, "tomli": None}):
            told = str(self.assertRaises(ConfigError, settings.load, path))
        self.assertRegex(told, r"^--config needs (tomllib|tomli), which the extra txserf\[toml\] brings$")


class MergedTests(SynchronousTestCase):
    def test_the_command_line_wins_over_the_file_and_the_file_over_the_default(self) -> None:
        values = settings.merged({"concurrency": 2}, {"concurrency": 3, "handler-timeout": 5})
        self.assertEqual((values["concurrency"], values["handler-timeout"], values["format"]), (2, 5, "text"))

    def test_every_option_has_a_value(self) -> None:
        self.assertEqual(list(settings.merged({}, {})), [row.name for row in SETTINGS])


class CheckTests(SynchronousTestCase):
    def refusal(self, **given: object) -> str:
        values = settings.merged({name.replace("_", "-"): value for name, value in given.items()}, {})
        return str(self.assertRaises(ConfigError, settings.check, values))

    def test_the_defaults_are_fine(self) -> None:
        settings.check(settings.merged({}, {}))

    def test_options_of_the_embedded_cluster_need_it(self) -> None:
        for name in ("embedded_port", "embedded_quiet"):
            self.assertIn("go with --embedded", self.refusal(**{name: 1}))

    def test_agents_are_real_or_embedded(self) -> None:
        self.assertIn("exclude each other", self.refusal(agent="a", embedded=1))

    def test_an_event_type_that_serf_does_not_have_is_refused_by_name(self) -> None:
        for stream, part in {
            "foo": "foo",
            "user,,query": "",
            "user, query": " query",
            "member_join": "member_join",
            "member-join:n1": "member-join:n1",
        }.items():
            told = self.refusal(stream=stream)
            self.assertIn(f"--stream {stream!r}: {part!r} is no event type; there are user, query, ", told)

    def test_every_event_type_of_serf_may_be_shown(self) -> None:
        for stream in ("", "*", *filters.TYPES, "user:deploy", "query:", "user:a=b,member-reap"):
            settings.check(settings.merged({"stream": stream}, {}))

    def test_a_level_that_serf_does_not_have_is_refused_by_name(self) -> None:
        for level in ("LOUD", "ERROR", "WARNING", "INFO "):
            self.assertEqual(
                self.refusal(monitor=level), f"--monitor {level!r}: there are TRACE, DEBUG, INFO, WARN, ERR"
            )

    def test_a_level_may_be_written_in_any_case(self) -> None:
        for level in ("TRACE", "debug", "Info", "WARN", "err"):
            settings.check(settings.merged({"monitor": level}, {}))

    def test_the_help_of_the_monitor_has_every_level(self) -> None:
        for level in commands.LOG_LEVELS:
            self.assertIn(level, settings.BY_NAME["monitor"].help)

    def test_a_state_needs_handlers(self) -> None:
        self.assertIn("--state goes with", self.refusal(state="/tmp/x"))

    def test_the_folder_of_a_state_has_to_be_there(self) -> None:
        self.assertIn("no directory /nowhere", self.refusal(state="/nowhere/x", handler=["true"]))
        link = new_folder(self) / "link"
        link.symlink_to("/nowhere/x")
        self.assertIn("no directory /nowhere", self.refusal(state=str(link), handler=["true"]))

    def test_a_state_is_a_regular_file(self) -> None:
        folder = new_folder(self)
        os.mkfifo(folder / "fifo")
        (folder / "link").symlink_to("fifo")
        for path, kind in {
            "/": "a directory",
            "/dev/null": "a device",
            str(folder / "fifo"): "a FIFO",
            str(folder / "link"): "a FIFO",
        }.items():
            self.assertEqual(self.refusal(state=path, handler=["true"]), f"--state {path} is {kind}")

    def test_a_state_that_the_system_refuses_is_refused_by_name(self) -> None:
        folder = new_folder(self)
        (folder / "file").touch()
        (folder / "loop").symlink_to("loop")
        for path, told in {
            f"/{'a' * 5000}": "File name too long",
            str(folder / "file" / "x"): "Not a directory",
            str(folder / "loop"): "Too many levels of symbolic links",
            "/tmp/a\0b": "null",
        }.items():
            self.assertIn(told, self.refusal(state=path, handler=["true"]))

    def test_a_state_may_be_there_already_or_not_and_may_be_a_link(self) -> None:
        folder = new_folder(self)
        (folder / "file").touch()
        (folder / "link").symlink_to("file")
        (folder / "later").symlink_to("not-yet")
        for name in ("file", "link", "later", "new"):
            settings.check(settings.merged({"state": str(folder / name), "handler": ["true"]}, {}))
