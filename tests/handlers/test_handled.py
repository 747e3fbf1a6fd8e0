"""Each event is handled once: one that comes again is recognised, after a restart too."""

from __future__ import annotations

import errno
import json
import os

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests.fakes import new_folder
from tests.router_case import RouterCase
from txserf import QueryEvent, UserEvent
from txserf.handlers.handled import LTimes, StateError, key_of
from txserf.handlers.running import RouterService
from txserf.model import Event


class DuplicateTests(RouterCase):
    def feed(self, service: RouterService, *events: Event) -> None:
        for event in events:
            service._take(event)
        self.turn(0.5)

    def test_an_event_that_comes_again_is_handled_once(self) -> None:
        self.router.user_event()(self.got.append)
        service = self.bind()
        self.send("a", "b", "c")
        self.feed(service, *self.got)
        self.assertEqual(self.names(), ["a", "b", "c"])

    def test_an_older_one_that_had_not_come_is_none(self) -> None:
        self.router.user_event()(self.got.append)
        service = self.bind()
        self.feed(service, UserEvent("a", b"", 9), UserEvent("b", b"", 7), UserEvent("a", b"other", 9))
        self.assertEqual(self.names(), ["a", "b", "a"])

    def test_two_queries_of_one_ltime_and_name_are_two_questions(self) -> None:
        self.router.query()(self.got.append)
        service = self.bind()
        self.feed(service, QueryEvent(1, "q", b"", 1), QueryEvent(2, "q", b"", 1))
        self.assertEqual(len(self.got), 2)

    def test_a_cluster_that_began_anew_has_no_duplicates(self) -> None:
        self.router.user_event()(self.got.append)
        service = self.bind()
        self.feed(service, *(UserEvent("deploy", b"", ltime) for ltime in range(1, 9)))
        self.cluster.agents["n1"].drop_connections()  # the agent has not seen those events: its LTime is 1
        self.turn(1.0)
        self.send("deploy")
        self.turn(3.0)
        self.assertEqual([event.ltime for event in self.got], [*range(1, 9), 1])
        self.assertEqual(len(self.logged("event clock has begun anew")), 1)

    def test_an_end_at_once_keeps_what_was_handled(self) -> None:
        state = new_folder(self) / "state"
        self.router.user_event()(self.got.append)
        service = self.bind(state=state)
        self.send("a", "b")
        state.unlink(missing_ok=True)
        service._take(UserEvent("c", b"", 9))
        service.abandon()
        kept = LTimes()
        kept.load(state)
        self.assertEqual([key_of(event) in kept for event in self.got], [True] * 3)

    def test_a_restart_handles_nothing_twice_and_skips_nothing(self) -> None:
        state = new_folder(self) / "state"
        self.router.user_event()(self.got.append)
        service = self.bind(state=state)
        self.send("a", "b")
        self.successResultOf(service.stopService())
        again = self.bind(state=state)
        self.feed(again, UserEvent("a", b"", 1), UserEvent("b", b"", 2), UserEvent("missed", b"", 2))
        self.send("c")
        self.assertEqual(self.names(), ["a", "b", "missed", "c"])
        self.assertEqual([path.name for path in state.parent.iterdir()], ["state"])

    def test_what_was_cut_off_at_work_is_not_taken_as_handled(self) -> None:
        state = new_folder(self) / "state"

        @self.router.user_event()
        def hangs(event: UserEvent) -> Deferred[None]:
            self.got.append(event)
            return Deferred()

        service = self.bind(state=state, drain=0.5)
        self.send("a")
        service.stopService()
        self.turn(1.0)
        again = self.bind(state=state, drain=0.5)
        self.feed(again, UserEvent("a", b"", 1))
        self.assertEqual(self.names(), ["a", "a"])

    def test_what_was_cut_off_at_work_is_handled_by_the_same_service_started_again(self) -> None:
        @self.router.user_event()
        def hangs(event: UserEvent) -> Deferred[None]:
            self.got.append(event)
            return Deferred()

        service = self.bind(drain=0.5)
        self.send("a")
        service.stopService()
        self.turn(1.0)
        service.startService()
        self.turn(0.5)
        self.feed(service, UserEvent("a", b"", 1))
        self.assertEqual(self.names(), ["a", "a"])

    def test_it_is_written_each_second_not_at_the_end_only(self) -> None:
        state = new_folder(self) / "state"
        self.router.user_event()(self.got.append)
        self.bind(state=state)
        self.send("a")
        self.turn(1.5)
        self.assertIn('"last": 1', state.read_text())

    def test_a_state_file_that_is_broken_or_out_of_reach_is_an_error_in_the_log(self) -> None:
        folder = new_folder(self)
        (folder / "broken").write_text("{}")
        self.router.user_event()(self.got.append)
        self.bind(state=folder / "broken")
        self.assertEqual(len(self.logged("broken is no state file of txserf")), 1)
        self.send("a")
        self.turn(1.5)
        self.assertEqual((folder / "broken").read_text(), "{}", "it may be anybody's")
        self.bind(state=folder / "no" / "where")
        self.send("b")
        self.turn(1.5)
        self.assertEqual(len(self.logged("where can't be written")), 1)


class FileTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.path = new_folder(self) / "state"
        self.ltimes = LTimes()

    def handled(self, *events: UserEvent) -> None:
        for event in events:
            self.ltimes.begun(key_of(event))
            self.ltimes.handled(key_of(event))

    def loaded(self) -> LTimes:
        ltimes = LTimes()
        ltimes.load(self.path)
        return ltimes

    def test_what_was_handled_comes_back_whatever_its_name_is(self) -> None:
        events = [UserEvent(name, b"\xff", 5) for name in ("a", "", "x\ny", "nul\0", "'\"", "\udcff", "é")]
        self.handled(*events)
        self.ltimes.begun(key_of(UserEvent("at work", b"", 9)))
        self.ltimes.save(self.path)
        again = self.loaded()
        self.assertEqual([key_of(event) in again for event in events], [True] * len(events))
        self.assertNotIn(key_of(UserEvent("at work", b"", 9)), again)
        self.assertEqual((again.last, self.ltimes.last, self.ltimes.changed), (5, 9, False))

    def test_no_payload_is_in_it_and_nobody_else_may_read_it(self) -> None:
        self.handled(UserEvent("a", b"s3cret", 1))
        self.ltimes.save(self.path)
        self.assertNotIn("s3cret", self.path.read_text())
        self.assertEqual(self.path.stat().st_mode & 0o777, 0o600)

    def test_one_that_is_another_users_or_that_others_may_read_becomes_this_ones_alone(self) -> None:
        self.path.touch(0o644)

        def refuse(*arguments: object) -> None:
            raise PermissionError(errno.EPERM, "not the owner")

        self.patch(os, "fchown", refuse)
        self.patch(os, "fstat", refuse)
        self.handled(UserEvent("a", b"", 1))
        self.ltimes.save(self.path)
        self.assertEqual(self.path.stat().st_mode & 0o777, 0o600)
        self.assertEqual(self.loaded().last, 1)

    def test_where_it_can_t_be_written_the_one_before_stays_and_nothing_else(self) -> None:
        self.handled(UserEvent("a", b"", 1))
        self.ltimes.save(self.path)
        before = self.path.read_bytes()

        def refuse(*arguments: object) -> None:
            raise OSError(errno.ENOSPC, "no space")

        for function in ("fsync", "replace"):
            self.handled(UserEvent(function, b"", 2))
            patch = self.patch(os, function, refuse)
            error = self.assertRaises(StateError, self.ltimes.save, self.path)
            self.assertIn("no space", str(error))
            patch.restore()
            self.assertEqual(self.path.read_bytes(), before)
            self.assertEqual(list(self.path.parent.iterdir()), [self.path])
            self.assertTrue(self.ltimes.changed)

    def test_without_a_file_nothing_was_handled(self) -> None:
        self.assertEqual(self.loaded().last, 0)

    def test_an_empty_file_is_a_new_one(self) -> None:
        self.path.touch()
        self.assertEqual(self.loaded().last, 0)

    def test_where_it_is_a_link_its_target_is_written_and_the_link_stays(self) -> None:
        (folder := new_folder(self) / "elsewhere").mkdir()
        target = folder / "target"
        self.path.symlink_to(target)
        for number in (1, 2):  # a target that is not there yet, and one that is
            self.handled(UserEvent("a", b"", number))
            self.ltimes.save(self.path)
            self.assertTrue(self.path.is_symlink())
            self.assertEqual(list(folder.iterdir()), [target])
            self.assertEqual(self.loaded().last, number)
        self.assertEqual(list(self.path.parent.iterdir()), [self.path])

    def test_what_is_no_regular_file_is_refused_and_not_waited_for(self) -> None:
        os.mkfifo(self.path)
        error = self.assertRaises(StateError, self.loaded)
        self.assertEqual(str(error), f"{self.path} can't be read: it is a FIFO")

    def test_what_is_none_of_ours_is_refused_by_its_path(self) -> None:
        good = {"version": 1, "last": 1, "recent": [[1, "a", 0]]}
        self.path.write_text(json.dumps(good))
        self.assertEqual(self.loaded().last, 1)
        for bad in (
            " ", "[]", "{}", "no json", "\xff", "null",
            *(json.dumps({**good, name: value}) for name, value in (
                ("version", 2), ("last", "x"), ("last", None), ("recent", 5), ("recent", [[1, "a"]]),
                ("recent", [["1", "a", 0]]), ("recent", [[1, 2, 0]]), ("recent", [[1, "a", "0"]]),
                ("last", float("inf")), ("last", float("nan")), ("last", 1.5), ("last", {}),
            )),
            "[" * 100_000, '{"version": 1, "last": 0, "recent": ' + "[" * 100_000,
        ):  # fmt: skip
            self.path.write_bytes(bad.encode("latin-1"))
            error = self.assertRaises(StateError, self.loaded)
            self.assertIn(str(self.path), str(error), bad)

    def test_as_many_are_remembered_as_agents_can_tell_again(self) -> None:
        self.handled(*(UserEvent("a", b"", ltime) for ltime in range(1, 5001)))
        self.ltimes.save(self.path)
        again = self.loaded()
        remembered = [ltime for ltime in range(1, 5001) if key_of(UserEvent("a", b"", ltime)) in again]
        self.assertEqual(remembered, list(range(5001 - 2048, 5001)))

    def test_nothing_of_a_file_that_is_refused_is_remembered(self) -> None:
        self.path.write_text('{"version": 1, "last": 9, "recent": [[1, "a", 0], [2]]}')
        self.assertRaises(StateError, self.ltimes.load, self.path)
        self.assertNotIn((1, "a", 0), self.ltimes)
        self.assertEqual(self.ltimes.last, 0)

    def test_what_is_let_go_of_has_its_place_again(self) -> None:
        self.ltimes.begun(key := (1, "a", 0))
        self.ltimes.discard(key)
        self.ltimes.discard(key)
        self.assertNotIn(key, self.ltimes)
        self.handled(*(UserEvent("b", b"", ltime) for ltime in range(2048)))
        self.assertIn(key_of(UserEvent("b", b"", 0)), self.ltimes)
