"""A file follows the members of a view: when it is rendered, what is written, and what the commands do."""

from __future__ import annotations

import itertools
import os
import shlex
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest import mock

from twisted.application.service import MultiService
from twisted.internet.defer import CancelledError, Deferred, succeed

from tests.agents import holds_in_time
from tests.cluster.view_case import ViewCase
from tests.fakes import Log, new_folder
from tests.in_reactor import in_reactor, reactor
from txserf import constant
from txserf.cluster import template as module
from txserf.cluster.template import Template
from txserf.cluster.view import ClusterView
from txserf.embedded import EmbeddedCluster
from txserf.errors import InvalidRequest, SerfError
from txserf.processes import ScriptFailed
from txserf.serf.serf import Serf

LATE = 4.0  # seconds in which an embedded agent reports what has happened

NAMES = "{% for member in select() %}\n{{ member.name }}\n{% endfor %}\n"


class TemplateCase(ViewCase):
    """
    A test with a template file, a view, and commands that are only noted.

    :ivar commands: what was run: the time, and the command line.
    :ivar answer: makes the Deferred of a command.
    """

    def setUp(self) -> None:
        super().setUp()
        self.folder = new_folder(self)
        self.source, self.file = self.folder / "t.j2", self.folder / "out"
        self.source.write_text(NAMES)
        self.log = Log(self)
        self.commands: list[tuple[float, str]] = []
        self.answer: Any = lambda command: succeed(b"")

        def run(reactor: Any, command: str, given: bytes, environment: Any) -> Deferred[bytes]:
            self.commands.append((self.clock.seconds(), command))
            answer: Deferred[bytes] = self.answer(command)
            return answer

        self.patch(module, "run", run)

    def template(self, **options: Any) -> Template:
        """Start a template, and let its first rendering happen."""
        options.setdefault("reload", "reload")
        made = Template(options.pop("view", None) or self.view(), self.source, self.file, **options)
        self.addCleanup(made.stopService)
        made.startService()
        self.run_for(0.5)
        return made

    def ran(self) -> list[str]:
        """Return the commands since the last call."""
        commands, self.commands = self.commands, []
        return [command for _, command in commands]

    def refuse(self, command: str) -> Deferred[bytes]:
        raise ScriptFailed("exit code 1", output=b"line 3: no such thing\n")

    def logged(self, text: str) -> int:
        return sum(text in line for line in self.log.texts)


class OnceTests(TemplateCase):
    """`Template.write_once`."""

    def once(self, **options: Any) -> Template:
        return Template(self.ready(), self.source, self.file, **options)

    def writing(self, made: Template) -> Deferred[None]:
        """Let it write, for the moment that the agent needs."""
        written = made.write_once()
        self.run_for(0.1)
        return written

    def test_the_file_is_written_and_does_not_follow(self) -> None:
        self.successResultOf(self.writing(self.once(reload="reload")))
        self.assertEqual((self.file.read_text(), self.ran()), ("n1\nn2\nn3\n", ["reload"]))
        self.nodes.fail("n3")
        self.run_for(LATE + 1.0)
        self.assertEqual((self.file.read_text(), self.ran()), ("n1\nn2\nn3\n", []))

    def test_a_failure_is_that_of_the_deferred_and_not_logged(self) -> None:
        self.answer = self.refuse
        error = self.failureResultOf(self.writing(self.once(check="check")), SerfError).value
        self.assertIn("its check failed, exit code 1: line 3: no such thing", str(error))
        self.assertFalse(self.file.exists())
        self.assertEqual(self.logged("its check failed"), 0)

    def test_a_failure_of_before_is_forgotten(self) -> None:
        made = self.once(check="check")
        self.answer = self.refuse
        self.failureResultOf(self.writing(made), SerfError)
        self.answer = lambda command: succeed(b"")
        self.successResultOf(self.writing(made))
        self.assertTrue(self.file.exists())

    def test_a_cancel_ends_the_check(self) -> None:
        self.answer = lambda command: Deferred()
        writing = self.writing(self.once(check="check"))
        writing.cancel()
        self.failureResultOf(writing, CancelledError)
        self.assertFalse(self.file.exists())

    def test_one_that_runs_as_a_service_refuses(self) -> None:
        self.assertRaises(InvalidRequest, self.template().write_once)


class RenderTests(TemplateCase):
    def test_the_file_is_written_when_the_view_is_ready_and_after_a_change(self) -> None:
        self.template()
        self.assertEqual((self.file.read_text(), self.ran()), ("n1\nn2\nn3\n", ["reload"]))
        self.nodes.fail("n3")
        self.run_for(LATE + 1.0)
        self.assertEqual((self.file.read_text(), self.ran()), ("n1\nn2\n", ["reload"]))

    def test_a_template_has_the_members_a_selection_and_the_agents_own_node(self) -> None:
        self.source.write_text(
            "{{ members.n2.address }} {{ members | list }} {{ select(role='web') }} {{ agent.name }}"
        )
        self.template()
        address = self.agent_says()["n2"].address
        self.assertEqual(self.file.read_text(), f"{address} ['n1', 'n2', 'n3'] [] n1")

    def test_a_tag_with_the_name_of_a_method_is_got_and_all_tags_are_gone_through(self) -> None:
        self.nodes.add("items", {"items": "x", "get": "y"})
        self.source.write_text(
            '{{ members.get("items").tags.get("items") }} {{ members.n1.tags.get("items", "none") }}\n'
            '{{ members["items"].tags.items() | sort }} {{ members.n1.tags.items() | list }}\n'
        )
        self.template()
        self.assertEqual(self.file.read_text(), "x none\n[('get', 'y'), ('items', 'x')] []\n")

    def test_the_agents_own_node_need_not_be_in_the_view(self) -> None:
        self.source.write_text("{{ members | list }} {{ agent.name }}")
        self.template(view=self.view(tags={"role": "web"}))
        self.assertEqual(self.file.read_text(), "[] n1")

    def test_a_template_includes_files_of_its_folder_only(self) -> None:
        (self.folder / "part").write_text("a part")
        self.source.write_text("{% include 'part' %}")
        self.template()
        self.assertEqual(self.file.read_text(), "a part")
        self.source.write_text("{% include '../../etc/passwd' %}")
        self.template()
        self.assertEqual(self.file.read_text(), "a part")
        self.assertEqual(self.logged("t.j2 can't be rendered, line 1: "), 1)

    def test_what_can_not_be_rendered_is_logged_with_its_line_and_the_next_change_tries_again(self) -> None:
        for wrong in (
            "{{ nobody }}",
            "{{ agent.tags.nobody.x }}",
            "{{ 1 / 0 }}",
            "{{ range(10 ** 9) | list }}",
            "{{ select.__self__ }}",
            "{{ members.n1.tags.update(a='b') }}",
        ):
            self.source.write_text(f"one\n{{% if members.n3.status == 'alive' %}}\n{wrong}\n{{% endif %}}\n")
            self.template().stopService()
            self.assertEqual(self.logged("t.j2 can't be rendered, line 3: "), 1, wrong)
            self.assertFalse(self.file.exists())
            self.log.events.clear()
        self.template()
        self.nodes.fail("n3")
        self.run_for(LATE + 1.0)
        self.assertEqual((self.file.read_text(), self.ran()), ("one\n", ["reload"]))


class TimeTests(TemplateCase):
    def test_a_burst_is_rendered_once_after_it_is_quiet(self) -> None:
        for number in range(20):
            self.nodes.add(f"w{number:02}")
        self.run_for(LATE)
        view = self.ready()
        self.template(
            view=view, settle=4.0
        )  # the agent tells of changes each three seconds while there are more
        self.commands.clear()
        told: list[float] = []
        view.on_change(lambda old, new: told.append(self.clock.seconds()))
        for number in range(20):
            self.nodes.fail(f"w{number:02}")
            self.run_for(0.3)
        self.run_for(20.0)
        self.assertEqual(len(told), 20)
        self.assertGreater(told[-1], told[0] + 2.0)
        ((at, _),) = self.commands
        self.assertTrue(4.0 <= at - told[-1] < 4.2, (at, told))
        self.assertEqual(self.file.read_text(), "n1\nn2\nn3\n")

    def flap(self, **options: Any) -> tuple[list[float], list[float]]:
        """
        Have a member go down and up ten times a second for a minute, with a file that is another one each time.

        Returns the times of the changes that the view told of, and those of the reloads.
        """
        self.nodes.failure_detection = 0.02
        self.source.write_text("{{ range(100000) | random }} {{ members.n3.status }}")
        view = self.ready()
        self.template(view=view, **options)
        self.commands.clear()
        told: list[float] = []
        view.on_change(lambda old, new: told.append(self.clock.seconds()))
        for _ in range(600):
            self.nodes.fail("n3")
            self.run_for(0.05)
            self.nodes.recover("n3")
            self.run_for(0.05)
        self.run_for(20.0)
        self.assertEqual(self.file.read_text().split()[1], "alive")
        self.assertGreater(len(told), 10)
        return told, [at for at, _ in self.commands]

    def test_a_member_that_flaps_ten_times_a_second_makes_one_reload_for_each_time_that_the_agent_tells_of_it(
        self,
    ) -> None:
        told, reloads = self.flap()
        self.assertEqual(len(reloads), len(set(told)))
        for change, reload in zip(sorted(set(told)), reloads, strict=True):
            self.assertTrue(1.0 <= reload - change < 1.2, (told, reloads))
        self.assertLessEqual(len(reloads), 60 / 3 + 1)

    def test_while_it_never_settles_there_is_one_each_at_most_seconds(self) -> None:
        told, reloads = self.flap(settle=9.0, at_most=12.0)
        gaps = [later - earlier for earlier, later in itertools.pairwise([told[0], *reloads])]
        self.assertTrue(all(gap >= 12.0 for gap in gaps[:-1]), (told, reloads))
        self.assertLessEqual(len(reloads), 60 / 12 + 1)
        self.assertGreaterEqual(len(reloads), 2)

    def test_changes_during_a_reload_are_rendered_after_it(self) -> None:
        waiting: list[Deferred[bytes]] = []

        def wait(command: str) -> Deferred[bytes]:
            waiting.append(Deferred())
            return waiting[-1]

        self.answer = wait
        self.template()
        self.nodes.fail("n3")
        self.run_for(2 * LATE)
        self.assertEqual((len(waiting), self.file.read_text()), (1, "n1\nn2\nn3\n"))
        waiting[0].callback(b"")
        self.run_for(1.5)
        self.assertEqual((len(waiting), self.file.read_text()), (2, "n1\nn2\n"))
        waiting[1].callback(b"")

    def test_while_the_view_is_stale_nothing_is_written(self) -> None:
        view = self.ready()
        made = self.template(view=view)
        self.ran()
        self.nodes.fail("n3")
        self.run_for(LATE - 1.0)
        for name in ("n1", "n2"):
            self.nodes.fail(name)
        self.run_for(0.2)
        self.assertTrue(view.stale)
        made._changed()
        self.file.write_text("old")
        self.run_for(30.0)
        self.assertEqual((self.file.read_text(), self.ran()), ("old", []))
        for name in ("n1", "n2"):
            self.nodes.recover(name)
        self.run_for(60.0)
        self.assertFalse(view.stale)
        self.assertEqual((self.file.read_text()[:2], self.ran()[:1]), ("n1", ["reload"]))

    def test_a_view_that_turns_stale_during_the_check_keeps_the_file(self) -> None:
        checking: Deferred[bytes] = Deferred()
        self.answer = lambda command: checking
        view = self.ready()
        self.template(view=view, check="check %s")
        for name in ("n1", "n2"):
            self.nodes.fail(name)
        self.run_for(0.2)
        checking.callback(b"")
        self.assertFalse(self.file.exists())
        self.assertEqual(os.listdir(self.folder), ["t.j2"])

    def test_after_a_stop_nothing_is_rendered_and_after_another_start_it_goes_on(self) -> None:
        made = self.template()
        self.successResultOf(made.stopService())
        self.nodes.fail("n3")
        self.run_for(3 * LATE)
        self.assertEqual(self.file.read_text(), "n1\nn2\nn3\n")
        made.startService()
        self.run_for(0.5)
        self.assertEqual(self.file.read_text(), "n1\nn2\n")

    def test_a_stop_before_the_view_is_ready_leaves_no_timer(self) -> None:
        made = Template(self.view(), self.source, self.file)
        made.startService()
        self.successResultOf(made.stopService())
        self.run_for(2.0)
        self.assertFalse(self.file.exists())

    def test_it_runs_and_stops_as_a_part_of_an_application(self) -> None:
        application = MultiService()
        view = self.view()
        view.setServiceParent(application)
        Template(view, self.source, self.file).setServiceParent(application)
        application.startService()
        self.run_for(0.5)
        self.assertTrue(self.file.exists())
        stopped = application.stopService()
        self.run_for(0.5)
        self.successResultOf(stopped)


class WriteTests(TemplateCase):
    def test_a_file_with_the_same_bytes_is_not_written(self) -> None:
        self.file.write_text("n1\nn2\nn3\n")
        before = self.file.stat()
        self.template(check="check %s")
        after = self.file.stat()
        self.assertEqual((before.st_ino, before.st_mtime_ns), (after.st_ino, after.st_mtime_ns))
        self.assertEqual(self.ran(), [])

    def test_mode_and_owner_are_kept(self) -> None:
        self.file.write_text("old")
        self.file.chmod(0o640)
        owned: list[tuple[int, int]] = []
        before = self.file.stat()
        with mock.patch("os.fchown", lambda fd, user, group: owned.append((user, group))):
            with mock.patch("os.fstat", return_value=mock.Mock(st_uid=12345, st_gid=12345)):
                self.template()
        self.assertEqual(owned, [(before.st_uid, before.st_gid)])
        self.assertEqual(stat.S_IMODE(self.file.stat().st_mode), 0o640)
        self.assertEqual(self.file.read_text(), "n1\nn2\nn3\n")

    def test_a_new_file_has_the_mode_that_was_asked_for_or_0644(self) -> None:
        for options, mode in (({}, 0o644), ({"mode": 0o600}, 0o600)):
            self.template(**options).stopService()
            self.assertEqual(stat.S_IMODE(self.file.stat().st_mode), mode)
            self.file.unlink()
        self.file.write_text("old")
        self.template(mode=0o604)
        self.assertEqual(stat.S_IMODE(self.file.stat().st_mode), 0o604)

    def test_a_link_stays_and_its_file_is_written(self) -> None:
        (self.folder / "to").mkdir()
        target = self.folder / "to" / "file"
        target.write_text("old")
        self.file.symlink_to(target)
        self.template()
        self.assertTrue(self.file.is_symlink())
        self.assertEqual(target.read_text(), "n1\nn2\nn3\n")

    def test_a_file_that_can_not_be_written_is_logged_and_tried_again(self) -> None:
        self.file = self.folder / "later" / "out"
        self.template()
        self.assertEqual((self.logged("out can't be written: "), self.ran()), (1, []))
        self.file.parent.mkdir()
        self.run_for(61.0)
        self.assertEqual((self.file.read_text(), self.ran()), ("n1\nn2\nn3\n", ["reload"]))

    def test_what_is_no_file_is_left_alone(self) -> None:
        os.mkfifo(self.file)
        self.template()
        self.assertEqual(self.logged("out can't be written: it is a FIFO"), 1)
        self.assertTrue(stat.S_ISFIFO(self.file.stat().st_mode))

    def test_where_the_disk_is_full_nothing_is_left_beside_the_old_file(self) -> None:
        self.file.write_text("old")
        with mock.patch("os.fsync", side_effect=OSError(28, "No space left on device")):
            self.template()
        self.assertEqual(self.logged("No space left on device"), 1)
        self.assertEqual((sorted(os.listdir(self.folder)), self.file.read_text()), (["out", "t.j2"], "old"))


class CommandTests(TemplateCase):
    def test_the_check_gets_the_new_file_before_it_replaces_the_old_one(self) -> None:
        self.file.write_text("old")
        seen: list[tuple[str, str, str]] = []

        def check(command: str) -> Deferred[bytes]:
            if command.startswith("check"):
                _, name, last = shlex.split(command)
                seen.append((Path(name).read_text(), self.file.read_text(), last))
            return succeed(b"")

        self.answer = check
        self.template(check="check %s x")
        self.assertEqual(seen, [("n1\nn2\nn3\n", "old", "x")])
        self.assertEqual([command.split()[0] for command in self.ran()], ["check", "reload"])

    def test_a_failing_check_leaves_the_old_file_and_is_tried_again_at_the_next_change(self) -> None:
        self.file.write_text("old")
        self.answer = self.refuse
        self.template(check="check %s")
        self.assertEqual(len(self.ran()), 1)
        self.assertEqual(self.logged("out: its check failed, exit code 1: line 3: no such thing"), 1)
        self.assertEqual((self.file.read_text(), sorted(os.listdir(self.folder))), ("old", ["out", "t.j2"]))
        self.run_for(100.0)
        self.assertEqual(self.ran(), [])
        self.answer = lambda command: succeed(b"")
        self.nodes.fail("n3")
        self.run_for(2 * LATE)
        self.assertEqual((self.file.read_text(), len(self.ran())), ("n1\nn2\n", 2))

    def test_a_check_that_hangs_is_cancelled_and_logged(self) -> None:
        cancelled: list[object] = []
        self.answer = lambda command: Deferred(cancelled.append)
        self.template(check="check %s")
        self.run_for(constant.HANDLER_TIMEOUT + 1.0)
        self.assertEqual(len(cancelled), 1)
        self.assertEqual(self.logged("out: its check failed, not over after 60 s, and killed"), 1)
        self.assertFalse(self.file.exists())

    def test_a_reload_that_fails_is_logged_and_run_again_at_the_next_change(self) -> None:
        self.source.write_text("always the same")
        self.answer = self.refuse
        self.template()
        self.assertEqual((self.file.read_text(), self.ran()), ("always the same", ["reload"]))
        self.assertEqual(self.logged("out: its reload failed, exit code 1"), 1)
        self.answer = lambda command: succeed(b"")
        for name, expected in (("n3", ["reload"]), ("n2", [])):
            self.nodes.fail(name)
            self.run_for(2 * LATE)
            self.assertEqual(self.ran(), expected)

    def test_a_stop_kills_a_check_and_waits_for_a_reload(self) -> None:
        waiting: list[Deferred[bytes]] = []

        def wait(command: str) -> Deferred[bytes]:
            waiting.append(Deferred())
            return waiting[-1]

        self.answer = wait
        made = self.template(check="check %s")
        stopped = made.stopService()
        self.successResultOf(stopped)
        self.assertEqual(os.listdir(self.folder), ["t.j2"])
        made = self.template()
        stopped = made.stopService()
        self.assertNoResult(stopped)
        waiting[1].callback(b"")
        self.successResultOf(stopped)

    def test_a_start_during_a_reload_renders_after_it(self) -> None:
        waiting: Deferred[bytes] = Deferred()
        self.answer = lambda command: waiting
        made = self.template()
        stopped = made.stopService()
        made.startService()
        self.file.write_text("other")
        self.answer = lambda command: succeed(b"")
        waiting.callback(b"")
        self.successResultOf(stopped)
        self.run_for(2.0)
        self.assertEqual(self.file.read_text(), "n1\nn2\nn3\n")


class RefusalTests(TemplateCase):
    def test_a_wrong_template_is_refused_with_its_line(self) -> None:
        for text, line in (
            ("a\n{% for %}", 2),
            ("{{ a", 1),
            ("a\n\n{% endif %}", 3),
            ("{{ x | nosuch }}", 1),
        ):
            self.source.write_text(text)
            error = self.assertRaises(InvalidRequest, Template, self.view(), self.source, self.file)
            self.assertIn(f"{self.source}, line {line}: ", str(error))

    def test_a_template_that_can_not_be_read_is_refused(self) -> None:
        fifo = self.folder / "fifo"
        os.mkfifo(fifo)
        binary = self.folder / "binary"
        binary.write_bytes(b"\xff")
        for source, reason in (
            (self.folder / "none", "No such file"),
            (self.folder, "it is a directory"),
            (fifo, "it is a FIFO"),
            (binary, "codec can't decode"),
        ):
            error = self.assertRaises(InvalidRequest, Template, self.view(), source, self.file)
            self.assertIn(f"{source} can't be read: ", str(error))
            self.assertIn(reason, str(error))

    def test_a_bad_argument_is_refused_by_its_name(self) -> None:
        for options, what in (
            ({"check": " "}, "check"),
            ({"reload": ["x"]}, "reload"),
            ({"reload": "a\0"}, "reload"),
            ({"settle": -1}, "settle"),
            ({"settle": 11.0}, "settle must be at most at_most"),
            ({"at_most": 0}, "at_most"),
            ({"mode": "640"}, "mode"),
            ({"mode": 0o10000}, "mode"),
            ({"mode": True}, "mode"),
            ({"destination": ""}, "destination"),
            ({"source": b"x"}, "source"),
            ({"view": None}, "view"),
        ):
            arguments = {"view": self.view(), "source": self.source, "destination": self.file, **options}
            self.assertIn(f"{what}", str(self.assertRaises(InvalidRequest, Template, **arguments)))

    def test_without_jinja2_the_error_names_the_extra(self) -> None:
        with mock.patch.dict(sys.modules, {"jinja2": None}):
            error = self.assertRaises(InvalidRequest, Template, self.view(), self.source, self.file)
        self.assertIn("txserf[templates]", str(error))

    def test_an_import_of_the_class_does_not_load_jinja2(self) -> None:
        check = "import sys, txserf; txserf.Template; sys.exit('jinja2' in sys.modules)"
        self.assertEqual(subprocess.run([sys.executable, "-c", check]).returncode, 0)


# With real commands, in the reactor.


@in_reactor
async def test_the_commands_are_run_by_a_shell(tmp_path: Path) -> None:
    cluster = EmbeddedCluster(reactor, nodes=2, seed=1)
    (tmp_path / "a b.j2").write_text(NAMES)
    reloaded = tmp_path / "reloaded"
    serf = Serf(cluster.endpoints())
    view = ClusterView(serf)
    template = Template(
        view,
        tmp_path / "a b.j2",
        tmp_path / "a b",
        check="grep -q n1 %s",
        reload=f"cp {shlex.quote(str(tmp_path / 'a b'))} {reloaded}",
    )
    template.startService()
    try:
        while not reloaded.exists() or reloaded.read_text() != "n1\nn2\n":
            await _turn()
    finally:
        await template.stopService()
        await view.stopService()
        await serf.close()


@in_reactor
async def test_a_check_that_hangs_is_killed_with_what_it_has_started(
    tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(constant, "HANDLER_TIMEOUT", 1.0)
    cluster = EmbeddedCluster(reactor, nodes=1, seed=1)
    (tmp_path / "t.j2").write_text(NAMES)
    pids = tmp_path / "pids"
    serf = Serf(cluster.endpoints())
    view = ClusterView(serf)
    template = Template(
        view, tmp_path / "t.j2", tmp_path / "out", check=f"sleep 1000 & echo $! $$ > {pids}; wait"
    )
    template.startService()
    try:
        while template._step.name != "QUIET":
            await _turn()
    finally:
        await template.stopService()
        await view.stopService()
        await serf.close()
    assert not (tmp_path / "out").exists()
    for pid in pids.read_text().split():
        assert holds_in_time(lambda pid=pid: not _runs(int(pid)))  # type: ignore[misc]


def _runs(pid: int) -> bool:
    try:
        return " Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


def _turn() -> Deferred[None]:
    turn: Deferred[None] = Deferred()
    reactor.callLater(0.02, turn.callback, None)
    return turn
