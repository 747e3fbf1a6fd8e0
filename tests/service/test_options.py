"""The command line of `twistd txserf`: the options, and the refusals."""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path
from typing import Any

from twisted.python import usage

import txserf
from tests.options_case import OptionsCase
from txserf.model import UserEvent
from txserf.service import settings
from txserf.service.options import Options
from txserf.service.settings import ConfigError

PACKAGE = Path(txserf.__file__).parent


class OptionsTests(OptionsCase):
    def test_the_help_has_every_option_of_the_table_and_its_default(self) -> None:
        told = " ".join(str(Options()).split())
        for row in settings.SETTINGS:
            self.assertIn(f"--{row.name}", told)
            self.assertIn(row.help.split(",")[0].split(" or ")[0].split(" '")[0][:30], told)
            if row.default is not None:
                self.assertIn(f"[default: {row.shown_default}]", told)

    def test_without_any_there_are_no_handlers(self) -> None:
        self.assertIsNone(self.options().router)

    def test_handlers_add_up_in_their_order(self) -> None:
        router = self.options("--handler", "user:a=one", "--handler", "two").router
        assert router is not None
        self.assertEqual(router.scripts, ["one", "two"])

    def test_the_scripts_of_the_command_line_get_the_agents_key_where_that_is_asked_for(self) -> None:
        def given(*more: str) -> list[bool]:
            router = self.options("--handler", "one", *more).router
            assert router is not None
            return [handler.rpc_auth for handler in router.routes().handlers(UserEvent("x"))]  # type: ignore[attr-defined]

        self.assertEqual(given(), [False])
        self.assertEqual(given("--script-rpc-auth"), [True])
        self.assertEqual(given("--config", self.file("script-rpc-auth = true")), [True])

    def test_an_unknown_option_is_refused_with_the_nearest_known_one(self) -> None:
        for given, known in {
            "--agents": "agent",
            "--handlers=x": "handler",
            "--log_format": "log-format",
        }.items():
            self.assertTrue(self.refusal(given).endswith(f" (did you mean --{known}?)"), self.refusal(given))
        for given in ("--xyz", "-x", "--agent", "--embedded-quiet=1"):
            self.assertNotIn("did you mean", self.refusal(given))

    def test_a_refusal_is_a_sentence_without_words_of_twisteds_own(self) -> None:
        self.assertEqual(
            self.refusal("--concurrency", "0"), "--concurrency is a whole number from 1 on, not '0'"
        )

    def test_a_word_that_is_no_option_is_refused(self) -> None:
        self.assertEqual(self.refusal("members"), "there is no 'members': each option begins with --")

    def test_below_twistd_a_refusal_ends_the_process_with_two_lines(self) -> None:
        options: Any = Options()
        options.parent = usage.Options()
        ended = self.assertRaises(SystemExit, options.parseOptions, ["--concurrency", "0"])
        self.assertEqual(
            str(ended).splitlines(),
            [
                "txserf: --concurrency is a whole number from 1 on, not '0'",
                "'twistd txserf --help' lists the options",
            ],
        )

    def test_each_option_of_the_command_line_wins_over_the_file(self) -> None:
        name = self.file(
            'handler = ["a", "b"]\nconcurrency = 3\nhandler-timeout = 4\nembedded-quiet = true\nembedded = 2'
        )
        options = self.options("--config", name, "--handler", "c", "--concurrency", "5")
        self.assertEqual(options.chosen["handler"], ["c"])
        self.assertEqual([options.chosen[n] for n in ("concurrency", "handler-timeout")], [5, 4])
        self.assertIs(options.chosen["embedded-quiet"], True)

    def test_zero_on_the_command_line_wins_too(self) -> None:
        options = self.options("--config", self.file("handler-timeout = 4"), "--handler-timeout", "0")
        self.assertEqual(options.chosen["handler-timeout"], 0)

    def test_a_file_alone_makes_a_router_which_a_reload_may_fill(self) -> None:
        router = self.options("--config", self.file("")).router
        assert router is not None
        self.assertIsNone(router.routes().stream_type)

    def test_an_application_is_found_where_twistd_is_started(self) -> None:
        self.file("import txserf\nrouter = txserf.Router()\nrouter.any(print)", "txserf_test_local.py")
        self.addCleanup(sys.modules.pop, "txserf_test_local")
        router = self.options("--app", "txserf_test_local:router").router
        assert router is not None
        self.assertEqual(len(router.routes().handlers(UserEvent("x"))), 1)

    def test_without_an_application_nothing_is_imported_from_there(self) -> None:
        self.options("--handler", "true")
        self.assertNotIn(str(self.folder), sys.path)

    def test_files_are_meant_where_twistd_is_started_and_scripts_where_it_works(self) -> None:
        (self.folder / "work").mkdir()
        (self.folder / "work" / "run.sh").touch(mode=0o755)
        options = self.options("--config", self.file('state = "s"\nhandler = ["./run.sh"]'), rundir="work")
        self.assertEqual(options.chosen["state"], str(self.folder / "s"))
        os.chdir("work")
        values, _ = options.read(again=True)
        self.assertEqual(values, options.chosen)
        self.assertIn("./run.sh does not exist", self.refusal("--handler", "./run.sh", rundir="/"))

    def test_what_can_not_work_is_refused_by_name(self) -> None:
        for arguments, told in {
            ("--handler", "nonsense=true"): "--handler 'nonsense=true'",
            ("--app", "txserf_nowhere:x"): "--app txserf_nowhere:x: there is no module",
            ("--agent", "a:0"): "--agent: ",
            ("--auth-key-file", "nowhere"): "nowhere can't be read: No such file or directory",
            ("--auth-key-file", "k", "--embedded", "1"): "--auth-key-file and --embedded exclude each other",
            ("--agent", "tcp:a:x"): "--agent: 'tcp:a***' is no client endpoint: ValueError",
            ("--stream", "user,member_join"): "--stream 'user,member_join': 'member_join' is no event type",
            ("--monitor", "LOUD"): "--monitor 'LOUD': there are TRACE, ",
            ("--http", "nonsense"): "--http: 'nonsense'",
            ("--http-token-file", "t"): "--http-token-file goes with --http",
            ("--http", "9100", "--http-token-file", "nowhere"): "--http-token-file ",
            ("--state", "nowhere/s", "--handler", "x"): "--state ",
            ("--state", "s"): "--state goes with",
            ("--config", "nowhere.toml"): "nowhere.toml can't be read",
            ("--concurrency", "0"): "--concurrency is a whole number from 1 on, not '0'",
            ("--handler-timeout", "soon"): "--handler-timeout is seconds, 0 or more, not 'soon'",
            ("--handler-timeout", "nan"): "--handler-timeout is seconds",
            ("--log-format", "xml"): "--log-format is text or json",
            ("--format", "xml"): "--format is text or json",
        }.items():
            self.assertIn(told, self.refusal(*arguments))

    def test_the_token_of_the_site_is_read_from_a_file_of_its_owner_alone(self) -> None:
        path = self.folder / "token"
        path.write_text("t0ken\n")
        path.chmod(0o600)
        options = self.options("--http", "9100", "--http-token-file", "token")
        self.assertEqual(options.http_token, b"t0ken")
        self.assertNotIn("t0ken", repr(options) + repr(options.chosen))
        self.assertIsNone(self.options("--http", "9100").http_token)
        for unsendable in ("t0ken \n", "\tt0ken\n", " \n"):
            path.write_text(unsendable)
            told = self.refusal("--http", "9100", "--http-token-file", "token")
            self.assertIn("begins or ends with a blank", told)
            self.assertNotIn("t0ken", told)
        path.chmod(0o644)
        told = self.refusal("--http", "9100", "--http-token-file", "token")
        self.assertIn(f"--http-token-file {path} is open to others", told)

    def test_a_reload_takes_the_token_that_the_file_has_then_and_keeps_the_old_one_if_it_can_not_be_read(
        self,
    ) -> None:
        path = self.folder / "token"
        path.write_text("old")
        path.chmod(0o600)
        options = self.options("--http", "9100", "--http-token-file", "token")
        path.write_text("new")
        options.read(again=True)
        self.assertEqual(options.http_token, b"new")
        path.write_text("")
        self.assertRaises(ConfigError, options.read, again=True)
        self.assertEqual(options.http_token, b"new")

    def test_what_the_file_asks_to_be_shown_is_refused_by_name_too(self) -> None:
        self.assertIn("--stream 'foo'", self.refusal("--config", self.file('stream = "foo"')))
        self.assertIn("--monitor 'LOUD'", self.refusal("--config", self.file('monitor = "LOUD"')))

    def test_nothing_that_is_shown_of_it_has_a_key(self) -> None:
        options = self.options("--agent", "serf://h?AuthKey=s3cret")
        self.assertNotIn("s3cret", repr(options))
        error = self.assertRaises(
            usage.UsageError,
            self.options,
            "--agent",
            "serf://h?AuthKey=s3cret",
            "--concurrency",
            "1",
            "--state",
            "s",
        )
        told = traceback.TracebackException.from_exception(error, capture_locals=True).format()
        ours = "".join(line for line in told if "s3cret" in line and str(PACKAGE) in line)
        self.assertEqual(ours, "")

    def test_at_a_reload_it_is_refused_as_well(self) -> None:
        for text, told in (
            ('stream = "foo"', "--stream 'foo'"),
            ('monitor = "LOUD"', "--monitor 'LOUD'"),
            ("app = " + "[" * 5000, "nested too deep"),
        ):
            options = self.options("--config", self.file('handler = ["true"]'))
            self.file(f'handler = ["false"]\n{text}')
            self.assertIn(told, str(self.assertRaises(ConfigError, options.read, again=True)))

    def test_a_json_log_goes_where_twistd_writes_its_own(self) -> None:
        for name in ("syslog", "logger"):
            self.assertIn(f"--{name} exclude", self.refusal("--log-format", "json", **{name: "x"}))
        self.options("--log-format", "text", syslog=True)
