"""The faults are those that they say, and the witness sees what it is there for."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import Logger
from twisted.trial.unittest import SynchronousTestCase

import txserf
from tests.faults.damage import TICK, Course, Fault, Kind, Way
from tests.faults.ledger import Ledger, Listener, packed
from tests.faults.programs import GAP, SerfProgram
from tests.faults.promises import check_delivered, comes_back
from tests.faults.relay import no_faults
from tests.faults.witness import SLACK, Witness
from tests.faults.worlds import MemoryWorld, run_in_memory


class Receiver:
    """Keeps what comes."""

    def __init__(self) -> None:
        self.came: list[bytes] = []
        self.ends: list[str] = []

    @property
    def data(self) -> bytes:
        return b"".join(self.came)

    def write(self, data: bytes) -> None:
        self.came.append(data)

    def loseConnection(self) -> None:
        self.ends.append("end")

    def loseWriteConnection(self) -> None:
        self.ends.append("half")

    def abortConnection(self) -> None:
        self.ends.append("reset")


class CourseTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock, self.receiver = Clock(), Receiver()
        self.ended: list[bool] = []

    def course(self, *faults: Fault) -> Course:
        course = Course(self.clock, list(faults), self.receiver, self.ended.append)
        course.start()
        return course

    def taken(self, kind: Kind, amount: int = 1) -> bytes:
        """Send ten bytes through a fault behind the fourth, in two pieces."""
        course = self.course(Fault(kind, Way.UP, 4, amount))
        course.take(b"012")
        course.take(b"3456789")
        return self.receiver.data

    def test_without_a_fault_all_passes(self) -> None:
        self.course().take(b"0123")
        self.assertEqual(self.receiver.data, b"0123")

    def test_a_cut_and_a_reset_end_it_behind_so_many_bytes(self) -> None:
        for kind in (Kind.CUT, Kind.RESET):
            self.setUp()
            self.assertEqual((self.taken(kind), self.ended), (b"0123", [kind is Kind.RESET]))

    def test_a_cut_behind_no_byte_is_one_at_once(self) -> None:
        self.course(Fault(Kind.CUT, Way.UP, 0))
        self.assertEqual(self.ended, [False])

    def test_a_half_close_ends_one_direction(self) -> None:
        self.assertEqual(self.taken(Kind.HALF_CLOSE), b"0123")
        self.assertEqual((self.receiver.ends, self.ended), (["half"], []))

    def test_a_silence_ends_nothing(self) -> None:
        self.assertEqual(self.taken(Kind.SILENCE), b"0123")
        self.assertEqual((self.receiver.ends, self.ended), ([], []))

    def test_a_garbled_byte_is_another_one(self) -> None:
        self.assertEqual(self.taken(Kind.GARBLE, 0x40), b"0123t56789")

    def test_duplicated_bytes_come_twice(self) -> None:
        self.assertEqual(self.taken(Kind.DUPLICATE, 2), b"012345456789")

    def test_withheld_bytes_never_come(self) -> None:
        self.assertEqual(self.taken(Kind.WITHHOLD, 2), b"01236789")

    def test_a_throttle_passes_so_many_bytes_in_each_tick(self) -> None:
        self.assertEqual(self.taken(Kind.THROTTLE, 2), b"0123")
        for passed in (b"012345", b"01234567", b"0123456789"):
            self.clock.advance(TICK)
            self.assertEqual(self.receiver.data, passed)

    def test_a_delay_passes_all_late_and_the_end_behind_it(self) -> None:
        course = self.course(Fault(Kind.DELAY, Way.UP, 0, 500))
        course.take(b"0123")
        course.finish()
        self.clock.advance(0.4)
        self.assertEqual((self.receiver.data, self.receiver.ends), (b"", []))
        self.clock.advance(0.2)
        self.assertEqual((self.receiver.data, self.receiver.ends), (b"0123", ["end"]))
        self.assertEqual(self.clock.getDelayedCalls(), [])


class WitnessTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.witness = Witness(self.clock, ("S3CRET",))
        self.addCleanup(self.witness.leave)

    def assertAccused(self, part: str) -> None:
        self.assertIn(part, "\n".join(self.witness.violations))

    def test_what_never_fires_is_accused(self) -> None:
        self.witness.watch("it", Deferred(), 1.0)
        self.witness.check_fired(all_of_them=False)
        self.assertAccused("it never fired")

    def test_what_fires_late_is_accused(self) -> None:
        late: Deferred[None] = Deferred()
        self.witness.watch("it", late, 1.0)
        self.clock.advance(1.1 + SLACK)
        late.callback(None)
        self.assertAccused("too late")

    def test_an_error_that_is_not_ours_is_accused(self) -> None:
        failed: Deferred[None] = Deferred()
        self.witness.watch("it", failed, 1.0)
        failed.errback(KeyError("x"))
        self.assertAccused("not ours")

    def test_an_error_of_ours_is_none(self) -> None:
        failed: Deferred[None] = Deferred()
        self.witness.watch("it", failed, 1.0)
        failed.errback(txserf.ConnectionLost("gone"))
        self.assertEqual(self.witness.violations, [])

    def test_a_key_in_the_log_or_in_an_error_is_accused(self) -> None:
        Logger(namespace="txserf.x").info("with {key}", key="S3CRET")
        self.assertAccused("a key in the log")
        failed: Deferred[None] = Deferred()
        self.witness.watch("it", failed, 1.0)
        failed.errback(txserf.SerfError("S3CRET"))
        self.assertAccused("a key in the error of it")

    def test_a_failure_in_the_log_is_accused(self) -> None:
        try:
            raise KeyError("x")
        except KeyError:
            Logger(namespace="txserf.x").failure("oh")
        self.flushLoggedErrors(KeyError)
        self.assertAccused("logged: oh")


class LedgerTests(SynchronousTestCase):
    def test_a_change_that_is_sent_twice_is_found_on_whatever_connections(self) -> None:
        ledger = Ledger()
        event = packed({"Command": "event", "Seq": 1}, {"Name": "x", "Payload": b""})
        first, second = ledger.reader(), ledger.reader()
        first(event[:20])
        first(event[20:] + packed({"Command": "members", "Seq": 2}) * 2)
        self.assertEqual(ledger.sent_twice, [])
        second(event)
        self.assertEqual(ledger.sent_twice, [("event", "'x'")])


class DeliveredTests(SynchronousTestCase):
    """The agent had the events a to f, and the stream was open from b on."""

    def wrong(self, *delivered: str) -> str:
        world = MemoryWorld(no_faults, 1)
        witness = Witness(world.clock)
        witness.leave()
        program = SerfProgram(world, witness, None, "e", False)  # type: ignore[arg-type]  # nothing is chosen
        program.delivered = list(delivered)
        listener = Listener(None)
        listener.names = list("abcdef")
        return "\n".join(check_delivered(program, listener, "b"))

    def test_all_in_order_is_right_with_and_without_those_before(self) -> None:
        self.assertEqual(self.wrong(*"abcdef") + self.wrong(*"bcd"), "")

    def test_what_is_missing_behind_a_gap_is_right(self) -> None:
        self.assertEqual(self.wrong("b", GAP, "e", "f") + self.wrong(GAP, "f"), "")

    def test_what_is_missing_without_a_gap_is_found(self) -> None:
        self.assertIn("missed ['c'] without a gap before d", self.wrong(*"bd"))
        self.assertIn("missed ['b'] without a gap before c", self.wrong(*"c"))

    def test_what_comes_twice_or_late_is_found(self) -> None:
        self.assertIn("delivered c twice", self.wrong(*"bcc"))
        self.assertIn("delivered c twice", self.wrong("b", "d", GAP, "c"))

    def test_what_nobody_sent_is_found(self) -> None:
        self.assertIn("never had", self.wrong("b", "x"))


class ComesBackTests(SynchronousTestCase):
    def wrong(self, corrupting: bool, *, type: str | None = "user", key: str = "k") -> list[str]:
        """Follow the events of *type*, or a stream that was stopped, with *key*; return what is wrong with it."""
        world = MemoryWorld(no_faults, 1, "k")
        world.hosts = [txserf.Host(endpoint=world.agent, auth_key=key)]
        witness = Witness(world.clock)
        program = SerfProgram(world, witness, None, "e", False)  # type: ignore[arg-type]  # nothing is chosen

        async def whole() -> None:
            listener = await Listener.at(world.agent, "k")
            program.begin()
            if type != "user":
                program.events.stop()
            if type not in ("user", None):
                program.events = program.serf.stream(type)
                program.followed = witness.consume("the stream", program.events, program.deliver)
            await world.wait(1.0)
            await comes_back(world, witness, program, listener, "first", corrupting)
            await program.end()
            listener.close()
            await world.close()

        run_in_memory(world, whole())
        witness.leave()
        return witness.violations

    def test_a_stream_that_delivers_is_right(self) -> None:
        self.assertEqual(self.wrong(False) + self.wrong(True), [])

    def test_one_that_delivers_nothing_is_found_whatever_became_of_the_bytes(self) -> None:
        for corrupting in (False, True):
            for type in (None, "query"):
                self.assertEqual(
                    self.wrong(corrupting, type=type), ["the stream did not come back, or delivers nothing"]
                )

    def test_one_that_the_agent_refused_is_right_only_where_bytes_were_changed(self) -> None:
        self.assertEqual(self.wrong(True, key="another"), [])
        self.assertEqual(len(self.wrong(False, key="another")), 1)
