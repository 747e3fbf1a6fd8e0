"""The option --template and the tables [[template]]: what is read, what is refused, and what a reload changes."""

from __future__ import annotations

import os
from typing import Any

from tests.cluster.view_case import ViewCase
from tests.fakes import Log, new_folder
from tests.options_case import OptionsCase
from txserf.service.templates import Templates, Wanted


class OptionTests(OptionsCase):
    def setUp(self) -> None:
        super().setUp()
        self.file("{{ agent.name }}", "t.j2")

    def chosen(self, *arguments: str) -> list[Wanted]:
        wanted: list[Wanted] = self.options(*arguments).chosen["template"]
        return wanted

    def path(self, name: str) -> str:
        return os.path.join(os.getcwd(), name)

    def test_an_option_has_source_destination_and_perhaps_a_reload(self) -> None:
        self.assertEqual(
            self.chosen("--template", "t.j2:out", "--template", "t.j2:/x/other:echo a:b"),
            [
                Wanted(self.path("t.j2"), self.path("out"), {}),
                Wanted(self.path("t.j2"), "/x/other", {"reload": "echo a:b"}),
            ],
        )

    def test_a_table_of_the_file_has_all_arguments(self) -> None:
        name = self.file(
            '[[template]]\nsource = "t.j2"\ndestination = "out"\ncheck = "c %s"\nreload = "r"\nsettle = 2\n'
            'at-most = 20.5\nmode = "0640"\n[[template]]\nsource = "t.j2"\ndestination = "other"\n'
        )
        options = {"check": "c %s", "reload": "r", "settle": 2, "at_most": 20.5, "mode": 0o640}
        self.assertEqual(
            self.chosen("--config", name),
            [
                Wanted(self.path("t.j2"), self.path("out"), options),
                Wanted(self.path("t.j2"), self.path("other"), {}),
            ],
        )

    def test_the_command_line_wins_over_the_file(self) -> None:
        name = self.file('[[template]]\nsource = "t.j2"\ndestination = "out"')
        (wanted,) = self.chosen("--config", name, "--template", "t.j2:here")
        self.assertEqual(wanted.destination, self.path("here"))

    def test_without_any_there_are_none(self) -> None:
        self.assertEqual(self.chosen(), [])

    def test_what_can_not_work_is_refused_by_name(self) -> None:
        self.file("a\n{% endif %}", "wrong.j2")
        for spec, told in {
            "t.j2": "--template is SRC:DEST or SRC:DEST:RELOAD, not 't.j2'",
            ":out": "--template is SRC:DEST",
            "t.j2:": "--template is SRC:DEST",
            "none.j2:out": "none.j2 can't be read: No such file",
            "wrong.j2:out": "wrong.j2, line 2: ",
        }.items():
            self.assertIn(told, self.refusal("--template", spec))
        both = 'source = "t.j2"\ndestination = "out"\n'
        for table, told in {
            'source = "t.j2"': "template: it has no destination",
            'destination = "t.j2"': "template: it has no source",
            both + 'relaod = "x"': "there is no key 'relaod' (did you mean reload?)",
            both + "check = 1": "template: check is text, not int",
            both + "mode = 640": "template: mode is text, not int",
            both + 'mode = "9"': "template: mode is octal digits in quotes",
            both + 'settle = "1"': "settle must be a number of seconds",
            both + "at-most = 0.5": "settle must be at most at_most",
            both + "[[template]]\n" + both: "two of them have the destination",
        }.items():
            self.assertIn(told, self.refusal("--config", self.file(f"[[template]]\n{table}")), table)
        self.assertIn(
            "template is an array of tables, not", self.refusal("--config", self.file("template = 1"))
        )

    def test_a_reload_reads_the_templates_again(self) -> None:
        options = self.options("--config", self.file('[[template]]\nsource = "t.j2"\ndestination = "out"'))
        self.file('[[template]]\nsource = "t.j2"\ndestination = "more"')
        values, _ = options.read(again=True)
        self.assertEqual([each.destination for each in values["template"]], [self.path("more")])


class TemplatesTests(ViewCase):
    def setUp(self) -> None:
        super().setUp()
        self.folder = new_folder(self)
        (self.folder / "t.j2").write_text("{% for member in select() %}{{ member.name }} {% endfor %}")

    def wanted(self, name: str, **options: Any) -> Wanted:
        return Wanted(str(self.folder / "t.j2"), str(self.folder / name), options)

    def started(self, *wanted: Wanted) -> Templates:
        self.templates = Templates(self.serf, wanted)
        self.templates.startService()
        self.run_for(0.5)
        return self.templates

    def stop(self) -> None:
        stopped = self.templates.stopService()
        self.run_for(0.5)
        self.successResultOf(stopped)

    def files(self) -> dict[str, str]:
        return {path.name: path.read_text() for path in self.folder.iterdir() if path.name != "t.j2"}

    def test_each_file_is_kept_until_the_stop(self) -> None:
        self.started(self.wanted("a"), self.wanted("b"))
        self.assertEqual(self.files(), {"a": "n1 n2 n3 ", "b": "n1 n2 n3 "})
        self.nodes.fail("n3")
        self.run_for(8.0)
        self.assertEqual(self.files(), {"a": "n1 n2 ", "b": "n1 n2 "})
        self.stop()
        self.nodes.fail("n2")
        self.run_for(8.0)
        self.assertEqual(self.files(), {"a": "n1 n2 ", "b": "n1 n2 "})

    def test_a_reload_keeps_other_files_by_the_sources_as_they_are_now(self) -> None:
        templates = self.started(self.wanted("a"), self.wanted("b"))
        (self.folder / "t.j2").write_text("{{ members | length }}")
        templates.replace([self.wanted("b"), self.wanted("c")])
        self.run_for(0.5)
        self.assertEqual(self.files(), {"a": "n1 n2 n3 ", "b": "3", "c": "3"})
        self.stop()

    def test_without_any_there_is_no_view_until_a_reload_brings_some(self) -> None:
        templates = self.started()
        self.assertEqual(templates._view.running, 0)
        templates.replace([self.wanted("a")])
        self.run_for(0.5)
        self.assertEqual(self.files(), {"a": "n1 n2 n3 "})
        templates.replace([])
        self.run_for(0.5)
        self.assertEqual(templates._view.running, 0)
        templates.replace([self.wanted("b")])
        self.run_for(0.5)
        self.assertEqual(sorted(self.files()), ["a", "b"])
        self.stop()

    def test_a_source_that_went_bad_since_it_was_read_is_logged_and_harms_no_other(self) -> None:
        log = Log(self)
        (self.folder / "bad.j2").write_text("{{")
        bad = Wanted(str(self.folder / "bad.j2"), str(self.folder / "x"), {})
        self.started(bad, self.wanted("a"))
        self.assertEqual(self.files()["a"], "n1 n2 n3 ")
        self.assertEqual(sum("not kept: Template: " in text for text in log.texts), 1)
        self.stop()
