"""The key that opens connections, and the greetings that a program has queued."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.fakes import Agent
from tests.session_case import SessionCase
from txserf.commands import AUTH, HANDSHAKE, MEMBERS
from txserf.connection.hosts import Host
from txserf.connection.keys import Greetings, Keys
from txserf.connection.operation import Operation
from txserf.connection.protocol import SerfProtocol


def auth(key: str) -> Operation:
    return Operation(AUTH, AUTH.arguments({"AuthKey": key}))


class KeysTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.keys = Keys()
        self.changes: list[str | None] = []
        self.keys.changed = lambda: self.changes.append(self.keys.current)

    def test_without_one_each_host_has_its_own(self) -> None:
        self.assertEqual(self.keys.of(Host("a", 1, "k")), "k")
        self.assertIsNone(self.keys.of(Host("a", 1)))

    def test_one_that_is_submitted_goes_before_those_of_the_hosts_at_once(self) -> None:
        self.keys.submit([auth("new")])
        self.assertEqual(self.keys.of(Host("a", 1, "k")), "new")

    def test_of_several_the_last_counts_and_then_the_one_before(self) -> None:
        first, second = auth("first"), auth("second")
        self.keys.submit([first, second])
        self.keys.withdraw(second)
        self.keys.withdraw(first)
        self.assertEqual(self.changes, ["second", "first", None])

    def test_what_is_no_auth_has_no_key(self) -> None:
        self.keys.submit([Operation(MEMBERS, {})])
        self.keys.withdraw(Operation(MEMBERS, {}))
        self.assertEqual(self.changes, [])

    def test_one_that_is_accepted_outlasts_its_operation_and_those_that_are_withdrawn(self) -> None:
        accepted, other = auth("good"), auth("other")
        self.keys.submit([accepted])
        self.keys.accept("good")
        self.keys.withdraw(accepted)
        self.keys.submit([other])
        self.keys.withdraw(other)
        self.assertEqual(self.changes, ["good", "other", "good"])

    def test_once_all_hosts_refused_it_those_of_the_hosts_are_due_again(self) -> None:
        self.keys.accept("bad")
        self.keys.submit([auth("worse")])
        self.keys.refuse()
        self.assertEqual(self.keys.of(Host("a", 1, "k")), "k")


class Counted(Operation):
    """An operation that counts its answers."""

    answers = 0

    def replied(self, error: str, body: object) -> None:
        self.answers += 1


class GreetingsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.greetings = Greetings(lambda: self.clock)
        self.protocol = SerfProtocol(reactor=self.clock, auth_key="k", heartbeat=None)
        Agent(self.protocol).greet()

    def held(self, key: str | None = None) -> Counted:
        command = HANDSHAKE if key is None else AUTH
        operation = Counted(command, command.arguments({} if key is None else {"AuthKey": key}))
        self.assertTrue(self.greetings.hold(self.protocol, operation))
        return operation

    def test_they_have_the_seqs_of_the_connections_own(self) -> None:
        self.assertEqual([self.held().seq, self.held("k").seq], [0, 1])

    def test_a_key_that_the_connection_was_not_opened_with_is_not_held(self) -> None:
        self.assertFalse(self.greetings.hold(self.protocol, auth("other")))

    def test_they_are_answered_once_now_or_in_a_later_turn(self) -> None:
        now = self.held()
        self.greetings.answer()
        later = self.held("k")
        self.greetings.answer_soon()
        self.assertEqual((now.answers, later.answers), (1, 0))
        self.clock.advance(0)
        self.assertEqual((now.answers, later.answers), (1, 1))

    def test_one_that_is_dropped_is_not_answered_and_leaves_no_timer(self) -> None:
        operation = self.held()
        self.greetings.answer_soon()
        self.greetings.drop(operation)
        self.assertEqual((operation.answers, self.clock.getDelayedCalls()), (0, []))

    def test_those_that_are_taken_are_not_answered(self) -> None:
        operation = self.held()
        self.greetings.answer_soon()
        self.assertEqual(self.greetings.take(), [operation])
        self.greetings.answer()
        self.assertEqual((operation.answers, self.clock.getDelayedCalls()), (0, []))


class OneHolderTests(SessionCase):
    def test_a_key_that_is_set_on_the_factory_opens_the_connections_to_come(self) -> None:
        session = self.session()
        session.factory.auth_key = "k"
        session.connect()
        self.assertEqual(self.host.accept().greet()[1].body, {"AuthKey": "k"})
        self.assertEqual(session.factory.auth_key, "k")
