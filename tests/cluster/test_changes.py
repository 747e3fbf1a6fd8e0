"""Changes that wait for a slow function of `on_change`, or for a slow callback of `changes()`."""

from __future__ import annotations

from collections.abc import Callable

import attrs
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests.cluster.view_case import Replay
from tests.fakes import MEMBER, Log
from txserf import constant
from txserf.cluster.changes import Change, ChangeCaller, Changes
from txserf.model import Member

PLAIN = Member.from_wire(MEMBER)


def member(name: str, value: int = 0) -> Member:
    return attrs.evolve(PLAIN, name=name, tags={"value": str(value)})


class ChangeCallerTests(SynchronousTestCase):
    """
    A test with a function whose awaitables end by hand, and room for five changes.

    :ivar told: the changes that the function was told of, as they were.
    :ivar members: the members as they are, beside those that the function knows.
    """

    def setUp(self) -> None:
        self.patch(constant, "STREAM_BUFFER", 5)
        self.log = Log(self)
        self.replay = Replay()
        self.at_work: list[Deferred[None]] = []
        self.members: dict[str, Member] = {}
        self.caller = ChangeCaller(self.work)

    def work(self, old: Member | None, new: Member | None) -> Deferred[None]:
        self.replay(old, new)
        self.at_work.append(Deferred())
        return self.at_work[-1]

    def change(self, name: str, value: int | None) -> None:
        """Give a member a value, or take it away."""
        old = self.members.pop(name, None)
        new = None if value is None else member(name, value)
        if new is not None:
            self.members[name] = new
        self.caller.put(Change(old, new))

    def catch_up(self) -> int:
        """End what is at work until nothing is; return how many changes that took."""
        before = len(self.replay.told)
        while self.at_work:
            self.at_work.pop().callback(None)
        return len(self.replay.told) - before

    def warnings(self) -> int:
        return sum("changes behind" in text for text in self.log.texts)

    def test_up_to_the_limit_each_is_told_once_and_in_order(self) -> None:
        for value in range(6):
            self.change("a", value)
        self.assertEqual(self.catch_up(), 5)
        values = [change.new.tags["value"] for change in self.replay.told if change.new is not None]
        self.assertEqual(values, list("012345"))
        self.assertEqual(self.warnings(), 0)

    def test_past_it_those_of_one_member_become_one_and_the_end_is_the_same(self) -> None:
        for value in range(100):
            self.change("a", value)
            self.change("b", value)
        self.assertLessEqual(self.catch_up(), 7)
        self.assertEqual(self.replay.members, self.members)
        self.assertEqual(self.warnings(), 1)

    def test_a_member_that_came_and_went_meanwhile_is_not_told_of(self) -> None:
        self.change("a", 0)
        for value in range(50):
            self.change("b", value)
            self.change("b", None)
        self.catch_up()
        self.assertLessEqual(len(self.replay.told), 6)
        self.assertEqual(list(self.replay.members), ["a"])

    def test_no_more_wait_than_twice_as_many_as_there_are_members(self) -> None:
        for name in range(40):
            self.change(str(name), 0)
        most = 0
        for value in range(1, 20):
            for name in range(40):
                self.change(str(name), value)
                most = max(most, len(self.caller._waiting))
        self.assertLessEqual(most, 2 * 40)
        self.catch_up()
        self.assertEqual(self.replay.members, self.members)

    def test_each_time_that_it_falls_behind_is_logged_once(self) -> None:
        for _ in range(2):
            for value in range(20):
                self.change("a", value)
            self.catch_up()
        self.assertEqual(self.warnings(), 2)

    def test_a_function_that_ends_at_once_has_nothing_waiting_however_many_there_are(self) -> None:
        told: list[object] = []
        first: Deferred[None] = Deferred()
        results: list[Deferred[None] | None] = [first]

        def function(old: Member | None, new: Member | None) -> object:
            told.append(new)
            return results.pop() if results else None

        self.patch(constant, "STREAM_BUFFER", 10_000)
        self.caller = ChangeCaller(function)
        for value in range(5_000):
            self.change("a", value)
        first.callback(None)  # the rest in one stack
        self.assertEqual(len(told), 5_000)

    def test_after_its_end_nothing_is_told(self) -> None:
        for value in range(5):
            self.change("a", value)
        self.caller.close()
        self.change("a", 9)
        self.assertEqual(self.catch_up(), 0)

    def test_what_it_raises_is_logged_and_the_next_change_is_told(self) -> None:
        told: list[object] = []

        def broken(old: Member | None, new: Member | None) -> None:
            told.append(new)
            raise RuntimeError("broken")

        self.caller = ChangeCaller(broken)
        self.change("a", 0)
        self.change("a", 1)
        self.assertEqual(len(told), 2)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 2)


class ChangesTests(SynchronousTestCase):
    def dropped(self, most: int | None, add: Callable[[Changes], object]) -> int:
        """Return how many of 40 changes of a view of 20 members go where nobody takes them."""
        self.patch(constant, "STREAM_BUFFER", 5)
        changes = Changes(most, lambda _: None)
        add(changes)
        for number in range(41):
            changes._put(Change(None, member(str(number))), 20)
        return changes.dropped

    def test_callbacks_have_as_much_room_as_a_reader(self) -> None:
        for most, dropped in ((None, 0), (5, 35)):
            self.assertEqual(
                self.dropped(most, lambda changes: changes.add_callback(lambda _: Deferred())), dropped
            )
        self.assertEqual(self.dropped(None, lambda changes: None), 1)
