"""The command line: what is taken, and what is refused with which words."""

from __future__ import annotations

import contextlib
import io

from twisted.trial.unittest import SynchronousTestCase

from txserf.cli import table
from txserf.cli.main import main
from txserf.cli.parsing import UsageError, parse


class ParsingTests(SynchronousTestCase):
    def refusal(self, *argv: str) -> str:
        return str(self.assertRaises(UsageError, parse, argv))

    def test_common_options_may_stand_before_the_command_or_behind_it(self) -> None:
        for argv in (["-a", "h", "-o", "json", "members"], ["members", "-a", "h", "-o", "json"]):
            row, values = parse(argv)
            self.assertEqual((row.name, values["agent"], values["output"]), ("members", "h", "json"))

    def test_an_option_behind_the_command_counts_more(self) -> None:
        self.assertEqual(parse(["-a", "x", "members", "-a", "y"])[1]["agent"], "y")

    def test_options_may_stand_between_arguments(self) -> None:
        values = parse(["rtt", "n1", "--timeout", "3", "n2"])[1]
        self.assertEqual((values["node"], values["other"], values["timeout"]), ("n1", "n2", 3.0))

    def test_words_behind_two_dashes_are_arguments_however_they_begin(self) -> None:
        for argv, key, expected in (
            (["force-leave", "--prune", "--", "-x"], "node", "-x"),
            (["join", "a", "--", "--replay", "-b"], "address", ["a", "--replay", "-b"]),
            (["query", "--", "--no-ack"], "name", "--no-ack"),
            (["event", "--", "--", "x"], "name", "--"),
            (["tags", "--", "delete", "-x"], "item", ["-x"]),
            (["wait", "--", "3"], "number", 3),
        ):
            values = parse(argv)[1]
            self.assertEqual(values[key], expected, argv)
            self.assertFalse(values.get("replay") or values.get("no_ack"), argv)

    def test_what_is_wrong_behind_two_dashes_is_named_as_it_was_given(self) -> None:
        self.assertIn("there is no argument '-y'", self.refusal("force-leave", "--", "-x", "-y"))
        self.assertIn("'-many'", self.refusal("wait", "--", "-many"))
        self.assertIn("'-set'", self.refusal("tags", "--", "-set"))
        self.assertIn("NODE", self.refusal("force-leave", "--"))

    def test_each_command_has_a_value_for_each_of_its_parameters(self) -> None:
        given = {
            "event": ["x"],
            "query": ["x"],
            "wait": ["1"],
            "rtt": ["x"],
            "join": ["x"],
            "force-leave": ["x"],
        }
        given["template"] = ["x", "y"]
        for row in table.COMMANDS:
            if row.handed_on is None:
                values = parse([row.name, *given.get(row.name, [])])[1]
                keys = {each.key for each in (*row.parameters, *table.COMMON)}
                self.assertEqual(set(values), keys, row.name)

    def test_run_and_demo_hand_on_all_they_are_given(self) -> None:
        argv = parse(["-a", "h", "run", "--app", "a:b", "--help"])[1]["argv"]
        self.assertEqual(argv, ["-a", "h", "--app", "a:b", "--help"])
        self.assertEqual(parse(["demo", "--http", "9100"])[1]["argv"], ["--embedded", "3", "--http", "9100"])

    def test_an_unknown_command_names_the_nearest(self) -> None:
        expected = "there is no command 'memebers' (did you mean members?); see txserf --help"
        self.assertEqual(self.refusal("memebers"), expected)

    def test_an_unknown_option_names_the_nearest(self) -> None:
        expected = "there is no option '--staus' (did you mean --status?); see txserf members --help"
        self.assertEqual(self.refusal("members", "--staus", "alive"), expected)

    def test_an_argument_too_many_is_named(self) -> None:
        self.assertIn("there is no argument 'n3'", self.refusal("rtt", "n1", "n2", "n3"))

    def test_a_missing_argument_is_named(self) -> None:
        self.assertIn("NAME", self.refusal("event"))
        self.assertIn("a command is due", self.refusal())

    def test_an_output_that_the_command_does_not_have(self) -> None:
        self.assertIn("ansible", self.refusal("events", "-o", "ansible"))
        self.assertIn("events has no output ansible", self.refusal("-o", "ansible", "events"))
        self.assertIn("yaml", self.refusal("members", "-o", "yaml"))

    def test_numbers_that_make_no_sense(self) -> None:
        for argv in (["wait", "0"], ["wait", "many"], ["events", "-n", "0"], ["members", "--timeout", "0"],
                     ["members", "--timeout", "inf"], ["members", "--timeout", "nan"], ["members", "--port", "0"],
                     ["members", "--port", "65536"], ["nearest", "--within", "-1"]):  # fmt: skip
            self.refusal(*argv)


class HelpTests(SynchronousTestCase):
    def help(self, *argv: str) -> str:
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            code = self.assertRaises(SystemExit, parse, [*argv, "--help"]).code
        self.assertEqual(code, 0)
        return " ".join(out.getvalue().split())

    def test_it_lists_each_command_with_its_summary(self) -> None:
        text = self.help()
        for row in table.COMMANDS:
            self.assertIn(f" {row.name} {row.summary}", text)

    def test_that_of_a_command_has_each_of_its_parameters(self) -> None:
        for row in table.COMMANDS:
            if row.handed_on is None:
                text = self.help(row.name)
                for each in (*row.parameters, *table.COMMON):
                    self.assertIn(each.help, text, row.name)

    def test_each_command_has_a_function(self) -> None:
        from importlib import import_module

        for row in table.COMMANDS:
            module, _, name = row.function.partition(":")
            self.assertEqual(bool(module), row.handed_on is None)
            if module:
                self.assertTrue(callable(getattr(import_module(f"txserf.cli.{module}"), name)))


class MainTests(SynchronousTestCase):
    def main(self, *argv: str) -> tuple[int, str]:
        err = io.StringIO()
        with contextlib.redirect_stderr(err):
            return main(argv), err.getvalue()

    def test_a_wrong_command_line_is_2_and_one_line(self) -> None:
        code, errors = self.main("members", "--staus")
        self.assertEqual((code, errors.count("\n")), (2, 1))
        self.assertTrue(errors.startswith("txserf: there is no option"))

    def test_a_host_list_that_is_not_understood_is_2_without_its_key(self) -> None:
        code, errors = self.main("members", "-a", "serf://h:99999?AuthKey=s3cret")
        self.assertEqual((code, errors.count("\n")), (2, 1))
        self.assertIn("--agent", errors)
        self.assertNotIn("s3cret", errors)

    def test_a_key_file_that_is_not_there_is_2(self) -> None:
        code, errors = self.main("members", "--auth-key-file", "/nowhere/key")
        self.assertEqual((code, errors.count("\n")), (2, 1))
        self.assertIn("--auth-key-file", errors)
