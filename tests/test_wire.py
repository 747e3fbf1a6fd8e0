"""The codec: it decodes records from chunks of any size, and refuses all other bytes with a `ProtocolError`."""

from __future__ import annotations

import contextlib
import gc
import tracemalloc
from collections.abc import Callable, Iterable
from typing import Any

import msgpack
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.fakes import cuts, header, reply
from txserf import constant, wire
from txserf.errors import ProtocolError

#: In these tests a body follows headers of the first Seq and none follows those of the second. Others are unknown.
WITH_BODY, WITHOUT_BODY = 7, 8


#: Seq, error and body; None if no body follows.
Record = tuple[int, str, "dict[str, Any] | None"]


class Recorder:
    """Receives decoded records and keeps them. Says that a body follows only without an error."""

    def __init__(self) -> None:
        self.got: list[Record] = []

    def header(self, seq: int, error: str) -> bool | None:
        follows = {WITH_BODY: not error, WITHOUT_BODY: False}.get(seq)
        if not follows:
            self.got.append((seq, error, None))
        return follows

    def body(self, seq: int, error: str, body: dict[str, Any]) -> None:
        self.got.append((seq, error, body))

    def items(self, seq: int, number: int) -> wire.Items | None:
        return None

    def known(self, seq: int, body: bytes) -> Any:
        raise AssertionError("it has told of no reply that may be known")

    def answered(self, seq: int, value: Any) -> None:
        raise AssertionError("likewise")

    def records(self, seq: int, bodies: list[dict[str, Any]]) -> None:
        raise AssertionError("it has told of no stream")


class StreamRecorder(Recorder):
    """
    Does the same, and says that each body is a record of an open stream.

    :ivar together: how many records came at once, each time.
    """

    def __init__(self) -> None:
        super().__init__()
        self.together: list[int] = []

    def header(self, seq: int, error: str) -> Any:
        return super().header(seq, error) and "record"

    def records(self, seq: int, bodies: list[dict[str, Any]]) -> None:
        self.together.append(len(bodies))
        self.got += [(seq, "", body) for body in bodies]


class Collected:
    """The items of a long list, which came one after the other."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.got: list[Any] = []

    def read(self, items: list[Any]) -> None:
        self.got += items


class ItemRecorder(Recorder):
    """
    Keeps decoded records, and takes the items of long lists as they come.

    :ivar lists: these lists, in order.
    """

    def __init__(self) -> None:
        super().__init__()
        self.lists: list[Collected] = []

    def items(self, seq: int, number: int) -> wire.Items | None:
        assert seq == WITH_BODY
        self.lists.append(Collected(number))
        return self.lists[-1]

    def body(self, seq: int, error: str, body: dict[str, Any]) -> None:
        for key, value in body.items():
            if isinstance(value, Collected):
                assert value is self.lists[-1]
                assert len(value.got) == value.number
                body = {key: value.got}
        super().body(seq, error, body)


class Knower(Recorder):
    """
    Keeps decoded records, and knows the bodies of all replies that are whole.

    :ivar taken: how many it took as values.
    """

    def __init__(self) -> None:
        super().__init__()
        self.taken = 0

    def header(self, seq: int, error: str) -> Any:
        return super().header(seq, error) and "known"

    def known(self, seq: int, body: bytes) -> Any:
        objects = wire.Unpacker()
        values = objects.feed(body)
        if seq != WITH_BODY or len(values) != 1 or objects.waiting or objects.failure:
            return None
        (value,) = values
        return None if not isinstance(value, dict) or {"Seq", "Error"} <= value.keys() else value

    def answered(self, seq: int, value: Any) -> None:
        self.taken += 1
        self.got.append((seq, "", value))


def fed(recorder: Recorder, decoder: wire.Decoder, chunks: Iterable[bytes]) -> ProtocolError | None:
    """Feed *chunks*, and return the error, if there was one."""
    try:
        for chunk in chunks:
            decoder.feed(chunk)
    except ProtocolError as error:
        return error  # the records before an error are delivered
    return None


def decode(*chunks: bytes, size_limit: int | None = None) -> tuple[list[Record], ProtocolError | None]:
    """
    Feed *chunks*, and return the records and the error, if there was one.

    They are the same where the bodies are records of a stream whose records came before, where the items of long
    lists are taken as they come, and where the receiver knows the bodies of replies.
    """
    recorder = Recorder()
    error = fed(recorder, wire.Decoder(recorder, size_limit), chunks)
    if size_limit is None:
        taker = ItemRecorder()
        assert str(fed(taker, wire.Decoder(taker), chunks)) == str(error)
        assert taker.got == recorder.got
        for other in (StreamRecorder(), Knower()):
            decoder = wire.Decoder(other)
            decoder.feed(reply(WITH_BODY, {}))  # from now on bodies may come as records, or be known
            del other.got[:]
            assert str(fed(other, decoder, chunks)) == str(error)
            assert other.got == recorder.got
    return recorder.got, error


#: Seqs of streams, by the number of their bytes.
SEQS = (WITH_BODY, 200, 300, 70_000, 2**40)


class Streams(StreamRecorder):
    """Says of `SEQS` that they are streams."""

    def header(self, seq: int, error: str) -> Any:
        if seq in SEQS:
            return "record"
        return super().header(seq, error)


#: The start of a map with one key, ``x``. The next object is its value.
_OPENING = b"\x81\xa1x"


def nested(levels: int) -> bytes:
    """Return an empty map inside *levels* maps. Made by hand, because some versions of msgpack refuse to pack it."""
    return _OPENING * levels + b"\x80"


class RecordTests(SynchronousTestCase):
    def decoded(self, *chunks: bytes) -> list[Record]:
        records, error = decode(*chunks)
        self.assertIsNone(error)
        return records

    def refused(self, *chunks: bytes, size_limit: int | None = None) -> str:
        """Return the text of the error that *chunks* cause."""
        _, error = decode(*chunks, size_limit=size_limit)
        self.assertIsInstance(error, ProtocolError)
        return str(error)

    def test_a_header_without_a_body_is_a_record(self) -> None:
        self.assertEqual(self.decoded(header(WITHOUT_BODY)), [(WITHOUT_BODY, "", None)])

    def test_a_header_with_a_body_is_a_record_once_the_body_is_there(self) -> None:
        recorder = Recorder()
        decoder = wire.Decoder(recorder)
        decoder.feed(header(WITH_BODY))
        self.assertEqual(recorder.got, [])
        decoder.feed(wire.pack({"Num": 1}))
        self.assertEqual(recorder.got, [(WITH_BODY, "", {"Num": 1})])

    def test_each_header_is_delivered_before_the_next_object_is_read(self) -> None:
        told: list[object] = []

        class Judge(Recorder):
            def header(self, seq: int, error: str) -> bool | None:
                told.append(seq)
                return len(told) == 2  # a body follows the second header only

            def body(self, seq: int, error: str, body: dict[str, Any]) -> None:
                told.append(body)

        wire.Decoder(Judge()).feed(header(5) + header(5) + wire.pack({"Num": 1}) + header(5))
        self.assertEqual(told, [5, 5, {"Num": 1}, 5])

    def test_a_closed_decoder_delivers_nothing_more(self) -> None:
        class Closer(Recorder):
            def header(self, seq: int, error: str) -> bool | None:
                decoder.close()
                return super().header(seq, error)

        recorder = Closer()
        decoder = wire.Decoder(recorder)
        decoder.feed(header(WITHOUT_BODY) * 2 + b"\xc1")
        decoder.feed(header(WITHOUT_BODY))
        self.assertEqual(recorder.got, [(WITHOUT_BODY, "", None)])

    def test_the_receiver_says_whether_a_body_follows_an_error(self) -> None:
        records = self.decoded(header(WITH_BODY, "no"), header(WITHOUT_BODY))
        self.assertEqual(records, [(WITH_BODY, "no", None), (WITHOUT_BODY, "", None)])

    def test_the_order_of_a_headers_keys_does_not_matter(self) -> None:
        self.assertEqual(self.decoded(wire.pack({"Seq": 8, "Error": "x"})), [(8, "x", None)])

    def test_a_seq_may_have_64_bits(self) -> None:
        seq = 2**64 - 1
        self.assertEqual(self.decoded(header(seq)), [(seq, "", None)])

    def test_many_records_in_one_chunk_come_in_order(self) -> None:
        data = b"".join(reply(WITH_BODY, {"LTime": number}) for number in range(100))
        self.assertEqual([body["LTime"] for _, _, body in self.decoded(data) if body], list(range(100)))

    def test_a_stray_body_after_an_unknown_seq_is_skipped(self) -> None:
        records = self.decoded(reply(99, {"Members": []}), header(WITHOUT_BODY))
        self.assertEqual(records, [(99, "", None), (WITHOUT_BODY, "", None)])

    def test_only_one_body_is_skipped_after_an_unknown_seq(self) -> None:
        stray = wire.pack({"Num": 1})
        self.refused(header(99), stray, stray)

    def test_a_body_after_a_header_that_has_none_is_refused(self) -> None:
        self.assertIn("dict", self.refused(reply(WITHOUT_BODY, {"Num": 1})))

    def test_a_header_in_place_of_a_body_is_refused(self) -> None:
        self.assertIn(str(WITH_BODY), self.refused(header(WITH_BODY), header(WITHOUT_BODY)))

    def test_a_body_that_is_no_map_is_refused(self) -> None:
        bodies: tuple[object, ...] = (None, 1, "x", [], b"")
        for body in bodies:
            self.refused(header(WITH_BODY), wire.pack(body))

    def test_a_header_of_any_other_shape_is_refused(self) -> None:
        for value in (
            {},
            {"Seq": 8},
            {"Error": ""},
            {"Seq": 8, "Error": "", "More": 1},
            {"seq": 8, "error": ""},
            {"Seq": -1, "Error": ""},
            {"Seq": True, "Error": ""},
            {"Seq": 8.0, "Error": ""},
            {"Seq": "8", "Error": ""},
            {"Seq": None, "Error": ""},
            {"Seq": 8, "Error": None},
            {"Seq": 8, "Error": b""},
            {"Seq": 8, "Error": 0},
            None,
            0,
            "Seq",
            b"Seq",
            ["Seq", "Error"],
            1.5,
            msgpack.ExtType(5, b"x"),
            msgpack.Timestamp(1),
        ):
            self.refused(wire.pack(value))

    def test_the_records_before_garbage_are_still_delivered(self) -> None:
        records, error = decode(reply(WITH_BODY, {"Num": 1}) + header(WITHOUT_BODY) + b"\xc1")
        self.assertEqual([seq for seq, _, _ in records], [WITH_BODY, WITHOUT_BODY])
        self.assertIsInstance(error, ProtocolError)

    def test_nothing_is_decoded_after_garbage(self) -> None:
        recorder = Recorder()
        decoder = wire.Decoder(recorder)
        self.assertRaises(ProtocolError, decoder.feed, b"\xc1")
        self.assertRaises(ProtocolError, decoder.feed, header(WITHOUT_BODY))
        self.assertEqual(recorder.got, [])

    def test_http_is_refused(self) -> None:
        self.refused(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    def test_a_tls_alert_is_refused(self) -> None:
        self.refused(b"\x15\x03\x01\x00\x02\x02\x46")

    def test_an_ssh_banner_is_refused(self) -> None:
        self.refused(b"SSH-2.0-OpenSSH_9.2\r\n")

    def test_a_map_with_keys_that_are_not_text_is_refused(self) -> None:
        self.refused(header(WITH_BODY), wire.pack({1: 2}))

    def test_no_error_shows_received_data(self) -> None:
        secret = "c2VjcmV0"
        for data in (
            wire.pack(secret),
            wire.pack({"Keys": secret}),
            header(WITHOUT_BODY) + wire.pack([secret]),
        ):
            self.assertNotIn(secret, self.refused(data))


class LimitTests(SynchronousTestCase):
    def test_a_message_of_64_mib_is_the_most_by_default(self) -> None:
        self.assertEqual(constant.MESSAGE_SIZE_LIMIT, 64 * 1024 * 1024)

    def test_the_limit_is_read_when_a_decoder_is_made(self) -> None:
        self.patch(constant, "MESSAGE_SIZE_LIMIT", 100)
        _, error = decode(header(WITH_BODY) + wire.pack({"Log": "x" * 100}))
        self.assertIn("100", str(error))

    def test_a_message_of_the_limits_size_passes(self) -> None:
        body = wire.pack({"Log": "x" * 80})
        records, error = decode(header(WITH_BODY) + body, size_limit=len(body))
        self.assertEqual((len(records), error), (1, None))

    def test_a_message_over_the_limit_is_refused_though_it_came_whole(self) -> None:
        body = wire.pack({"Log": "x" * 80})
        _, error = decode(header(WITH_BODY) + body, size_limit=len(body) - 1)
        self.assertIsInstance(error, ProtocolError)

    def test_a_message_over_the_limit_is_refused_before_it_is_whole(self) -> None:
        body = wire.pack({"Log": "x" * 1000})
        _, error = decode(header(WITH_BODY), body[:150], size_limit=100)
        self.assertIsInstance(error, ProtocolError)

    def test_the_limit_is_on_each_message_and_not_on_their_sum(self) -> None:
        data = header(WITHOUT_BODY) * 1000
        records, error = decode(data, size_limit=50)
        self.assertEqual((len(records), error), (1000, None))

    def test_a_chunk_larger_than_the_unpackers_slice_is_decoded(self) -> None:
        body = {"Log": "x" * 3_000_000}
        records, error = decode(reply(WITH_BODY, body) * 2)
        self.assertEqual((records, error), ([(WITH_BODY, "", body)] * 2, None))

    def test_nesting_past_the_limit_is_refused(self) -> None:
        for levels, fine in ((constant.NESTING_LIMIT - 1, True), (constant.NESTING_LIMIT + 1, False)):
            _, error = decode(header(WITH_BODY), nested(levels))
            self.assertEqual(error is None, fine, levels)

    def test_nesting_that_would_overflow_the_stack_is_refused(self) -> None:
        for opening in (b"\x91", _OPENING):
            _, error = decode(opening * 200_000)
            self.assertIsInstance(error, ProtocolError)

    def test_a_body_at_the_limit_of_nesting_can_be_printed(self) -> None:
        records, _ = decode(header(WITH_BODY), nested(constant.NESTING_LIMIT - 1))
        self.assertIn("{'x': {", repr(records[0][2]))

    def test_a_claimed_length_reserves_no_memory(self) -> None:
        claims = {
            "array": b"\xdd\xff\xff\xff\xff",
            "map": b"\xdf\xff\xff\xff\xff",
            "str": b"\xdb\xff\xff\xff\xff",
            "bin": b"\xc6\xff\xff\xff\xff",
            "ext": b"\xc9\xff\xff\xff\xff\x05",
        }
        for kind, claim in claims.items():
            tracemalloc.start()
            try:
                decode(header(WITH_BODY), claim)
                _, peak = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
            self.assertLess(peak, 16 * 1024 * 1024, kind)


class Opening(Recorder):
    """Calls `open` on its decoder at the first header."""

    def __init__(self, first_limit: int, size_limit: int | None = None) -> None:
        super().__init__()
        self.decoder = wire.Decoder(self, size_limit, first_limit)

    def header(self, seq: int, error: str) -> bool | None:
        if not self.got:
            self.decoder.open()
        return super().header(seq, error)


class OpeningTests(SynchronousTestCase):
    def test_until_it_is_open_a_small_limit_holds(self) -> None:
        body = wire.pack({"Log": "x" * 1000})
        whole = wire.Decoder(Recorder(), first_limit=100)
        self.assertRaises(ProtocolError, whole.feed, header(WITH_BODY) + body)
        begun = wire.Decoder(Recorder(), first_limit=100)
        self.assertRaises(ProtocolError, begun.feed, header(WITH_BODY) + body[:150])

    def test_until_it_is_open_no_container_has_more_than_a_few_members(self) -> None:
        for claim in (b"\xdc\x00\x11", b"\xde\x00\x11", b"\xdd\x00\x00\x00\x11", b"\xdf\x00\x00\x00\x11"):
            decoder = wire.Decoder(Recorder(), first_limit=100)
            self.assertRaises(ProtocolError, decoder.feed, claim)

    def test_until_it_is_open_nested_claims_take_a_few_hundred_kilobytes_at_the_most(self) -> None:
        for claim in (b"\xdd\x00\x00\xff\xff", b"\xdd\x00\x00\x00\x10", b"\x9f", b"\x9f" + b"\x80" * 14):
            decoder = wire.Decoder(Recorder(), first_limit=wire.GREETING_LIMIT)
            tracemalloc.start()
            try:
                with contextlib.suppress(ProtocolError):
                    for _ in range(16):
                        decoder.feed(claim * (1024 // len(claim)))
                _, peak = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
            self.assertLess(peak, 1_000_000, claim)

    def test_the_smaller_limit_holds_in_any_case(self) -> None:
        opening = Opening(first_limit=1000, size_limit=100)
        data = header(WITHOUT_BODY) + header(WITH_BODY) + wire.pack({"Log": "x" * 100})
        self.assertRaises(ProtocolError, opening.decoder.feed, data)
        decoder = wire.Decoder(Recorder(), 100, first_limit=1000)
        self.assertRaises(ProtocolError, decoder.feed, header(WITH_BODY) + wire.pack({"Log": "x" * 100}))

    def test_once_it_is_open_the_real_limit_holds_however_the_bytes_are_cut(self) -> None:
        bodies: list[Any] = [{"Log": "x" * 60}, {"Log": "x" * 200}, {"Keys": [0] * 70}, {"Log": "x" * 9000}]
        for body in bodies:
            expected = [(WITHOUT_BODY, "", None), (WITH_BODY, "", body), (WITHOUT_BODY, "no", None)]
            data = header(WITHOUT_BODY) + reply(WITH_BODY, body) + header(WITHOUT_BODY, "no")
            for cut in range(min(len(data), 400)):
                opening = Opening(first_limit=64)
                for chunk in (data[:cut], data[cut:]):
                    opening.decoder.feed(chunk)
                self.assertEqual(opening.got, expected)
            opening = Opening(first_limit=64)
            for at in range(len(data)):
                opening.decoder.feed(data[at : at + 1])
            self.assertEqual(opening.got, expected)

    def test_garbage_after_the_header_that_opens_it_is_refused(self) -> None:
        opening = Opening(first_limit=64)
        self.assertRaises(ProtocolError, opening.decoder.feed, header(WITHOUT_BODY) + b"\xc1")
        self.assertRaises(ProtocolError, opening.decoder.feed, header(WITHOUT_BODY))
        self.assertEqual(len(opening.got), 1)

    def test_a_decoder_that_is_closed_as_it_opens_delivers_nothing_more(self) -> None:
        class Closing(Opening):
            def header(self, seq: int, error: str) -> bool | None:
                follows = super().header(seq, error)
                self.decoder.close()
                return follows

        closing = Closing(first_limit=64)
        closing.decoder.feed(header(WITHOUT_BODY) + header(WITHOUT_BODY) + b"\xc1")
        closing.decoder.feed(header(WITHOUT_BODY))
        self.assertEqual(len(closing.got), 1)


class ClosingTests(SynchronousTestCase):
    def held(self, *chunks: bytes) -> int:
        """Return the bytes that a decoder holds once it is closed, without help of the garbage collector."""
        decoder = wire.Decoder(Recorder())
        gc.collect()
        gc.disable()
        tracemalloc.start()
        try:
            before, _ = tracemalloc.get_traced_memory()
            for chunk in chunks:
                try:
                    decoder.feed(chunk)
                except ProtocolError:
                    break
            decoder.close()
            del chunk
            return tracemalloc.get_traced_memory()[0] - before
        finally:
            tracemalloc.stop()
            gc.enable()

    def test_a_closed_decoder_holds_nothing(self) -> None:
        unfinished = header(WITH_BODY) + wire.pack({"Log": "x" * 900_000})[:-1]
        nested = b"\x81\xa1k" * 600 + b"\x80"
        for chunks in (
            [unfinished],
            [b"\xdd\x00\x00\xff\xff" * 1000],
            [header(WITH_BODY), nested],
            [b"\xc1"],
        ):
            self.assertLess(self.held(*chunks), 50_000)

    def test_a_closed_decoder_takes_no_more_bytes(self) -> None:
        recorder = Recorder()
        decoder = wire.Decoder(recorder)
        decoder.close()
        decoder.close()
        for chunk in (header(WITHOUT_BODY), b"\xc1"):
            decoder.feed(chunk)
        self.assertEqual(recorder.got, [])


class LendingTests(SynchronousTestCase):
    """An unpacker serves one connection after the other, as their bytes come."""

    WHOLE = reply(WITH_BODY, {"x": "y" * 100})

    def held(self, data: bytes, number: int = 100) -> float:
        """Return the bytes that each of *number* decoders holds that were fed *data*."""
        decoders: list[wire.Decoder] = []
        gc.collect()
        tracemalloc.start()
        try:
            before, _ = tracemalloc.get_traced_memory()
            for _ in range(number):
                recorder = Recorder()
                decoders.append(wire.Decoder(recorder))
                decoders[-1].feed(data)
                recorder.got.clear()
            return (tracemalloc.get_traced_memory()[0] - before) / number
        finally:
            tracemalloc.stop()

    def test_a_decoder_between_two_messages_holds_no_unpacker(self) -> None:
        self.held(self.WHOLE)  # what is made once
        self.assertLess(self.held(self.WHOLE), 4_000)
        self.assertGreater(self.held(self.WHOLE[:-1]), 4_000)

    def test_an_opened_decoder_that_is_fed_nothing_more_holds_none(self) -> None:
        self.assertIsNone(Opening(wire.GREETING_LIMIT).decoder._unpacker._unpacker)
        opening = Opening(wire.GREETING_LIMIT)
        opening.decoder.feed(header(WITHOUT_BODY))
        self.assertIsNone(opening.decoder._unpacker._unpacker)

    def test_the_room_for_a_large_message_is_not_kept(self) -> None:
        self.held(self.WHOLE)
        large = header(WITH_BODY) + wire.pack({"x": "y" * 500_000})
        self.assertLess(self.held(large, number=1) - self.held(self.WHOLE, number=1), 10_000)

    def test_no_more_than_a_few_are_kept(self) -> None:
        decoders = [wire.Decoder(Recorder()) for _ in range(50)]
        for decoder in decoders:
            decoder.feed(self.WHOLE[:-1])
        for decoder in decoders:
            decoder.feed(self.WHOLE[-1:])
        self.assertTrue(all(len(kept) <= 4 for kept in wire._idle.values()))

    def test_the_limits_are_those_of_its_own_decoder(self) -> None:
        wire.Decoder(Recorder()).feed(self.WHOLE)
        with self.assertRaisesRegex(ProtocolError, "not MessagePack"):
            Opening(wire.GREETING_LIMIT).decoder.feed(wire.pack([None] * 100))
        recorder = Recorder()
        wire.Decoder(recorder).feed(reply(WITH_BODY, {"x": [None] * 100}))
        self.assertEqual(len(recorder.got), 1)


STREAM = 300


class StreamsAndItems(ItemRecorder):
    """
    Says of `STREAM` that it is a stream, too.

    :ivar together: how many records came at once, each time.
    """

    def __init__(self) -> None:
        super().__init__()
        self.together: list[int] = []

    def header(self, seq: int, error: str) -> Any:
        return "record" if seq == STREAM else super().header(seq, error)

    def records(self, seq: int, bodies: list[dict[str, Any]]) -> None:
        self.together.append(len(bodies))


class ItemTests(SynchronousTestCase):
    """The items of a long list are taken as they come, where the receiver wants that; nothing else differs."""

    def setUp(self) -> None:
        self.recorder = ItemRecorder()
        self.decoder = wire.Decoder(self.recorder, 10_000)
        self.body = {"Members": [{"Name": f"node-{number:03}"} for number in range(300)]}
        self.data = reply(WITH_BODY, self.body)

    def taken(self) -> int:
        """Return how many items have been taken."""
        return sum(len(each.got) for each in self.recorder.lists)

    def test_they_are_taken_before_the_rest_has_come(self) -> None:
        self.decoder.feed(self.data[:1000])
        self.assertGreater(self.taken(), 40)
        self.assertEqual(self.recorder.got, [])
        self.decoder.feed(self.data[1000:])
        self.assertEqual(self.recorder.got, [(WITH_BODY, "", self.body)])

    def test_no_more_of_them_are_unpacked_than_have_not_been_taken(self) -> None:
        data = reply(WITH_BODY, {"Members": [[0] * 10] * 100_000})

        class Dropped(ItemRecorder):
            def items(self, seq: int, number: int) -> wire.Items | None:
                found = Collected(number)
                found.read = lambda items: None  # type: ignore[method-assign]
                return found

            def body(self, seq: int, error: str, body: dict[str, Any]) -> None:
                self.got.append((seq, error, None))

        recorder = Dropped()
        decoder = wire.Decoder(recorder)
        tracemalloc.start()
        try:
            for start in range(0, len(data), 60_000):
                decoder.feed(data[start : start + 60_000])
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        self.assertEqual(recorder.got, [(WITH_BODY, "", None)])
        self.assertLess(peak, 2_000_000)

    def test_what_comes_behind_them_is_read_as_ever(self) -> None:
        behind = header(WITHOUT_BODY) + self.data + reply(WITH_BODY, {"Num": 1})
        self.decoder.feed(self.data + behind)
        expected = [
            (WITH_BODY, "", self.body),
            (WITHOUT_BODY, "", None),
            (WITH_BODY, "", self.body),
            (WITH_BODY, "", {"Num": 1}),
        ]
        self.assertEqual(self.recorder.got, expected)

    def test_a_list_that_comes_in_one_bite_or_is_short_is_a_list(self) -> None:
        self.decoder.feed(reply(WITH_BODY, {"Members": [0] * 100}))
        self.decoder.feed(reply(WITH_BODY, {"Members": ["x" * 500] * 15}))
        self.assertEqual((len(self.recorder.got), self.recorder.lists), (2, []))

    def test_a_list_of_another_place_than_the_only_field_is_a_list(self) -> None:
        for body in ({"A": 1, "Members": [0] * 5_000}, {"Members": {"A": [0] * 5_000}}, {"A": [[0] * 5_000]}):
            self.setUp()
            self.decoder.feed(reply(WITH_BODY, body))
            self.assertEqual((self.recorder.got, self.recorder.lists), ([(WITH_BODY, "", body)], []))

    def test_those_behind_a_header_that_is_nobodys_are_not_offered(self) -> None:
        data = reply(9, self.body)
        self.decoder.feed(data[:1000])
        self.decoder.feed(data[1000:] + reply(WITH_BODY, {"Num": 1}))
        self.assertEqual(self.recorder.lists, [])
        self.assertEqual(self.recorder.got, [(9, "", None), (WITH_BODY, "", {"Num": 1})])

    def test_the_bytes_of_all_of_them_count_as_one_message(self) -> None:
        self.decoder = wire.Decoder(self.recorder, len(self.data) // 2)
        error = fed(self.recorder, self.decoder, cuts(self.data, range(0, len(self.data), 100)))
        self.assertIsInstance(error, ProtocolError)
        self.assertLess(self.taken(), 160)

    def test_the_bytes_that_have_come_of_a_message_are_counted_with_them(self) -> None:
        start = len(header(WITH_BODY))
        for end in range(start, len(self.data)):
            self.setUp()
            self.decoder.feed(self.data[:end])
            self.assertEqual(self.decoder.waiting, end - start)

    def test_garbage_among_them_is_refused(self) -> None:
        self.decoder.feed(self.data[:1000])
        self.assertRaises(ProtocolError, self.decoder.feed, b"\xc1" * 100)
        self.assertEqual((self.recorder.got, self.decoder.due), ([], WITH_BODY))

    def test_a_decoder_that_is_closed_among_them_takes_no_more(self) -> None:
        self.decoder.feed(self.data[:1000])
        taken = self.taken()
        self.decoder.close()
        self.decoder.feed(self.data[1000:])
        self.assertEqual((self.taken(), self.recorder.got, self.decoder.waiting), (taken, [], 0))

    def test_items_that_look_like_records_of_an_open_stream_are_items(self) -> None:
        recorder, decoder, record = self.with_stream()
        items = wire.Unpacker().feed(record * 400)
        decoder.feed(reply(WITH_BODY, {"Members": items}))
        self.assertEqual((recorder.got, recorder.together), ([(WITH_BODY, "", {"Members": items})], []))

    def test_records_of_streams_come_together_behind_them_as_before(self) -> None:
        recorder, decoder, record = self.with_stream()
        decoder.feed(self.data + record)
        decoder.feed(record * 5)
        self.assertEqual((len(recorder.lists), recorder.together), (1, [5]))

    def with_stream(self) -> tuple[StreamsAndItems, wire.Decoder, bytes]:
        """Return a decoder that knows a stream, its recorder, and a record of that stream."""
        recorder = StreamsAndItems()
        decoder = wire.Decoder(recorder)
        record = reply(STREAM, {"LTime": 1})
        decoder.feed(record + record)
        del recorder.got[:], recorder.together[:]
        return recorder, decoder, record


class Listening(list[Record]):
    """A list that calls a function once something was added to it."""

    told: Callable[[], object]

    def append(self, record: Record) -> None:
        super().append(record)
        self.told()


class KnownTests(SynchronousTestCase):
    """Replies whose bodies the receiver knows are not unpacked; nothing else differs."""

    def setUp(self) -> None:
        self.recorder = Knower()
        self.decoder = wire.Decoder(self.recorder, 1_000)
        self.reply = reply(WITH_BODY, {"Num": 1})
        self.record = (WITH_BODY, "", {"Num": 1})
        self.decoder.feed(self.reply)
        self.assertEqual((self.recorder.got.pop(), self.recorder.taken), (self.record, 0))

    def test_those_of_a_kind_that_came_before_are_taken(self) -> None:
        self.decoder.feed(self.reply * 3)
        self.assertEqual((self.recorder.got, self.recorder.taken), ([self.record] * 3, 3))

    def test_a_seq_may_have_any_number_of_bytes(self) -> None:
        self.recorder.known = lambda seq, body: body  # type: ignore[method-assign]
        seqs = [0, 127, 128, 255, 256, 2**16 - 1, 2**16, 2**32 - 1, 2**32, 2**64 - 1]
        self.decoder.feed(b"".join(reply(seq, {}) for seq in seqs))
        self.assertEqual(self.recorder.got, [(seq, "", wire.pack({})) for seq in seqs])

    def test_what_comes_behind_them_is_read_as_ever(self) -> None:
        self.decoder.feed(self.reply + header(WITHOUT_BODY) + self.reply + self.reply[:-1])
        self.assertEqual(self.recorder.got, [self.record, (WITHOUT_BODY, "", None), self.record])
        self.assertEqual(self.recorder.taken, 1)
        self.decoder.feed(self.reply[-1:])
        self.assertEqual(self.recorder.got[3:], [self.record])

    def test_behind_one_that_was_not_taken_the_next_one_is_tried_again(self) -> None:
        self.decoder.feed(header(WITHOUT_BODY))
        self.decoder.feed(self.reply)
        self.decoder.feed(self.reply)
        self.assertEqual((self.recorder.got[1:], self.recorder.taken), ([self.record] * 2, 1))

    def test_behind_some_that_were_taken_the_next_ones_are(self) -> None:
        self.decoder.feed(self.reply + header(WITHOUT_BODY))
        self.decoder.feed(self.reply)
        self.assertEqual(self.recorder.taken, 2)

    def test_a_header_without_its_body_in_front_of_them_is_refused(self) -> None:
        self.decoder.feed(header(WITH_BODY))
        self.assertRaises(ProtocolError, self.decoder.feed, self.reply)
        self.assertEqual(self.recorder.got, [])

    def test_a_header_whose_seq_is_no_number_is_refused(self) -> None:
        seqs: list[Any] = [-1, -32, -1_000, None, False, True, "7", [], {}]
        for seq in seqs:
            self.setUp()
            self.recorder.known = lambda seq, body: {}  # type: ignore[method-assign]
            data = wire.pack({"Error": "", "Seq": seq}) + wire.pack({"Num": 1})
            self.assertRaises(ProtocolError, self.decoder.feed, data)
            self.assertEqual((self.recorder.got, self.recorder.taken), ([], 0))

    def test_an_error_that_looks_like_a_reply_is_an_error(self) -> None:
        data = header(WITHOUT_BODY, wire.as_text(self.reply * 3))
        at = data.index(self.reply)
        self.decoder.feed(data[:at])
        self.decoder.feed(data[at:])
        self.assertEqual((self.recorder.got[0][0], self.recorder.taken), (WITHOUT_BODY, 0))

    def test_nothing_is_taken_behind_what_broke_the_rules(self) -> None:
        self.assertRaises(ProtocolError, self.decoder.feed, b"\xc1")
        self.assertRaises(ProtocolError, self.decoder.feed, self.reply)
        self.assertEqual((self.recorder.got, self.recorder.taken), ([], 0))

    def test_one_whose_beginning_came_before_is_not_taken(self) -> None:
        for end in range(1, len(self.reply)):
            self.setUp()
            self.decoder.feed(self.reply[:end])
            self.decoder.feed(self.reply[end:])
            self.assertEqual((self.recorder.got, self.recorder.taken), ([self.record], 0))

    def test_one_over_the_limit_is_refused(self) -> None:
        data = reply(WITH_BODY, {"Text": "x" * 1_000})
        self.assertRaises(ProtocolError, self.decoder.feed, self.reply + data)
        self.assertEqual((self.recorder.got, self.recorder.taken), ([self.record], 1))

    def test_a_decoder_that_is_closed_between_them_delivers_nothing_more(self) -> None:
        answered = self.recorder.answered

        def answer_and_close(seq: int, value: Any) -> None:
            self.decoder.close()
            answered(seq, value)

        self.recorder.answered = answer_and_close  # type: ignore[method-assign]
        self.decoder.feed(self.reply * 3)
        self.decoder.feed(self.reply)
        self.assertEqual(self.recorder.got, [self.record])

    def test_one_that_is_over_the_limit_of_nesting_is_refused(self) -> None:
        self.patch(constant, "NESTING_LIMIT", 3)
        self.setUp()
        self.recorder.known = lambda seq, body: {}  # type: ignore[method-assign]
        self.assertRaises(ProtocolError, self.decoder.feed, reply(WITH_BODY, {"a": [{"b": {"c": 1}}]}))
        self.assertEqual((self.recorder.got, self.recorder.taken), ([], 0))

    def test_they_are_taken_once_whatever_comes_behind_them(self) -> None:
        self.decoder = wire.Decoder(self.recorder)
        self.decoder.feed(self.reply)
        del self.recorder.got[:]
        large = {"Text": "x" * 10_000}
        self.recorder.known = lambda seq, body: {"Num": 1} if len(body) < 10 else None  # type: ignore[method-assign]
        self.decoder.feed(self.reply * 2 + reply(WITH_BODY, large))
        self.assertEqual(self.recorder.got, [self.record, self.record, (WITH_BODY, "", large)])

    def test_items_of_a_long_list_that_look_like_them_are_items(self) -> None:
        class KnowerOfItems(ItemRecorder, Knower):
            """Takes the items of long lists, too."""

        items = wire.Unpacker().feed(self.reply * 800)
        data = reply(WITH_BODY, {"Members": items})
        start = len(data) - len(self.reply) * 800
        recorder = KnowerOfItems()
        decoder = wire.Decoder(recorder)
        decoder.feed(self.reply)
        for chunk in cuts(data, (start + len(self.reply) * number for number in range(300, 800, 100))):
            decoder.feed(chunk)
        self.assertEqual((recorder.got[1:], recorder.taken), ([(WITH_BODY, "", {"Members": items})], 0))
        self.assertEqual(len(recorder.lists), 1)

    def test_what_comes_inside_a_callback_that_runs_the_reactor_makes_no_difference(self) -> None:
        data = self.reply * 2 + header(WITHOUT_BODY) + self.reply * 2
        for behind in (b"", header(WITH_BODY), header(9), self.reply[:9]):
            for end in range(len(self.reply), len(data) + 1):
                told = [
                    self.nested(recorder, data[:end], data[end:] + behind)
                    for recorder in (Recorder(), Knower())
                ]
                self.assertEqual(*told)

    def nested(self, recorder: Recorder, data: bytes, inside: bytes) -> tuple[str, list[Record]]:
        """Feed *data* and a body, and *inside* when the first record is given to *recorder*."""
        decoder = wire.Decoder(recorder)
        decoder.feed(self.reply)
        got, rest = Listening(), [inside]
        recorder.got = got

        def told() -> None:
            if rest:
                decoder.feed(rest.pop())

        got.told = told
        error = fed(recorder, decoder, [data, wire.pack({})])
        return str(error), got


class StreamTests(SynchronousTestCase):
    """Records of streams come together where they can; nothing else differs."""

    def setUp(self) -> None:
        self.recorder = Streams()
        self.decoder = wire.Decoder(self.recorder)

    def know(self, *seqs: int) -> None:
        """Let the decoder know that these are streams: one record of each has come."""
        for seq in seqs:
            self.decoder.feed(reply(seq, {}))
        del self.recorder.got[:], self.recorder.together[:]

    def come(self, *records: Record, together: list[int]) -> None:
        """Feed records in one piece; check that they come, and how many at a time of those that come together."""
        self.decoder.feed(b"".join(reply(seq, body, error) for seq, error, body in records))
        self.assertEqual((self.recorder.got, self.recorder.together), ([*records], together))

    def record(self, seq: int, body: object = 0) -> Record:
        return seq, "", {"LTime": body}

    def test_those_of_one_stream_come_together(self) -> None:
        for seq in SEQS:
            self.setUp()
            self.know(seq)
            self.come(*[self.record(seq, number) for number in range(30)], together=[30])

    def test_one_that_comes_alone_comes_at_once(self) -> None:
        self.know(WITH_BODY)
        self.come(self.record(WITH_BODY), together=[1])

    def test_those_of_several_streams_and_replies_keep_their_order(self) -> None:
        a, b, other = self.record(WITH_BODY, "a"), self.record(300, "b"), (WITHOUT_BODY, "no", None)
        self.know(WITH_BODY, 300)
        self.come(a, a, b, other, b, b, a, together=[2, 2, 1])  # what an error stands behind comes alone

    def test_those_of_another_stream_behind_many_of_one_come_in_their_place(self) -> None:
        a, b = self.record(WITH_BODY, "a"), self.record(300, "b")
        self.know(WITH_BODY, 300)
        self.come(*[a] * 20, together=[20])
        for _ in range(3):
            del self.recorder.got[:], self.recorder.together[:]
            self.decoder.feed(b"".join(reply(seq, body) for seq, _, body in [a, b] * 20))
            self.assertEqual(self.recorder.got, [a, b] * 20)
        self.assertEqual(self.recorder.together, [1] * 40)

    def test_more_streams_than_are_remembered_are_read_all_the_same(self) -> None:
        self.patch(wire, "_MOST_MARKS", 3)
        self.know(*SEQS, *SEQS)
        self.decoder.feed(b"".join(reply(seq, {"LTime": seq}) for seq in SEQS * 2))
        self.assertEqual(self.recorder.got, [self.record(seq, seq) for seq in SEQS * 2])

    def test_a_payload_that_looks_like_headers_is_a_payload(self) -> None:
        looks = header(WITH_BODY)
        for payload in (looks, looks * 3, b"x" + looks, looks + wire.pack({"LTime": 1}), looks[:-1]):
            body = {
                "Name": looks.decode("latin-1"),
                "Payload": payload,
                "Tags": {"a": {"Error": "", "Seq": 7}},
            }
            for known in ([WITH_BODY], [WITH_BODY, 300]):
                self.setUp()
                self.know(*known)
                data = reply(WITH_BODY, body) * 3
                for cut in range(len(data)):
                    del self.recorder.got[:]
                    self.decoder.feed(data[:cut])
                    self.decoder.feed(data[cut:])
                    self.assertEqual(self.recorder.got, [(WITH_BODY, "", body)] * 3)

    def test_an_unfinished_object_is_fed_in_few_pieces_whatever_it_has(self) -> None:
        fed: list[int] = []
        feed_slice = wire.Unpacker.feed_slice

        def counted(unpacker: wire.Unpacker, data: bytes) -> list[Any]:
            fed.append(len(data))
            return feed_slice(unpacker, data)

        self.patch(wire.Unpacker, "feed_slice", counted)
        body = {"Members": [header(WITH_BODY)] * 100}
        data = reply(WITH_BODY, body)
        for known in ([WITH_BODY], [WITH_BODY, 300]):
            self.setUp()
            self.know(*known)
            del fed[:]
            self.decoder.feed(data[:40])
            self.decoder.feed(data[40:])
            self.assertEqual(self.recorder.got, [(WITH_BODY, "", body)])
            self.assertLessEqual(len(fed), 4)

    def test_those_that_are_large_or_not_utf_8_come_one_by_one(self) -> None:
        small, large = self.record(WITH_BODY), self.record(WITH_BODY, "x" * 600)
        strange = self.record(WITH_BODY, "\udcff")
        self.know(WITH_BODY)
        self.come(small, small, large, small, strange, together=[2, 1])

    def test_the_rules_hold_for_them(self) -> None:
        for bad in (
            header(WITH_BODY) + header(WITH_BODY),
            header(WITH_BODY) + header(WITHOUT_BODY, "no"),
            reply(WITH_BODY, 1),
            reply(WITH_BODY, [1]),
            reply(WITH_BODY, {}) + wire.pack({}),
            header(WITH_BODY) + nested(600),
            header(WITH_BODY) + b"\x81\xc1",
            header(WITH_BODY) + b"\xc1",
            header(WITH_BODY) + b"\x81\x01\x01",
        ):
            for known in ([WITH_BODY], [WITH_BODY, 300]):
                self.setUp()
                self.know(*known)
                good = reply(WITH_BODY, {"LTime": 1}) * 2
                self.assertRaises(ProtocolError, self.decoder.feed, good + bad + good)
                self.assertEqual(self.recorder.got[:2], [self.record(WITH_BODY, 1)] * 2)

    def test_a_header_without_its_body_in_front_of_them_is_refused(self) -> None:
        self.know(WITH_BODY, 300)
        self.decoder.feed(reply(300, {})[:-1])
        self.assertRaises(ProtocolError, self.decoder.feed, reply(WITH_BODY, {}) * 2)

    def test_a_decoder_that_is_closed_between_them_delivers_nothing_more(self) -> None:
        class Closing(Streams):
            def records(self, seq: int, bodies: list[dict[str, Any]]) -> None:
                super().records(seq, bodies)
                closing.close()

        recorder = Closing()
        closing = wire.Decoder(recorder)
        closing.feed(reply(WITH_BODY, {}) + reply(300, {}))
        closing.feed(reply(WITH_BODY, {}) * 2 + reply(300, {}) * 2 + header(WITHOUT_BODY))
        closing.feed(reply(WITH_BODY, {}) * 2)
        self.assertEqual(len(recorder.got), 4)


class TextTests(SynchronousTestCase):
    def packed_code(self, value: object) -> int:
        return wire.pack(value)[0]

    def test_any_bytes_become_text_and_the_same_bytes_again(self) -> None:
        for data in (b"", "é".encode(), b"\xff\xfe\x00", bytes(range(256)), b"\xed\xa0\x80"):
            self.assertEqual(wire.as_bytes(wire.as_text(data)), data)

    def test_text_of_any_length_goes_out_as_str(self) -> None:
        codes = [self.packed_code("x" * length) for length in (0, 31, 32, 255, 256, 65536)]
        self.assertEqual(codes, [0xA0, 0xBF, 0xD9, 0xD9, 0xDA, 0xDB])

    def test_bytes_go_out_as_bin(self) -> None:
        codes = [self.packed_code(b"x" * length) for length in (0, 1, 255, 256)]
        self.assertEqual(codes, [0xC4, 0xC4, 0xC4, 0xC5])

    def test_text_that_is_not_utf_8_survives_both_ways(self) -> None:
        raw = b"n\xff\xfe1"
        packed = b"\x81\xa4Name" + bytes((0xA0 + len(raw),)) + raw
        records, _ = decode(header(WITH_BODY) + packed)
        body = records[0][2]
        self.assertEqual(body, {"Name": "n\udcff\udcfe1"})
        self.assertEqual(wire.pack(body), packed)

    def test_text_that_cannot_be_packed_does_not_spoil_what_is_packed_next(self) -> None:
        self.assertRaises(UnicodeEncodeError, wire.pack, {"Name": "fine", "Payload": "\ud800"})
        self.assertEqual(wire.pack({"Seq": 1}), b"\x81\xa3Seq\x01")

    def test_a_request_is_its_prefix_and_its_seq(self) -> None:
        for seq in (0, 1, 127, 128, 255, 256, 2**32, 2**64 - 1):
            packed = wire.request_prefix("members") + wire.pack(seq)
            self.assertEqual(packed, wire.pack({"Command": "members", "Seq": seq}))


_BODIES = st.dictionaries(
    st.text(max_size=5).filter(lambda key: key not in ("Seq", "Error")),
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(2**63), 2**64 - 1)
        | st.binary(max_size=40)
        | st.text(max_size=40),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
        max_leaves=5,
    ),
    max_size=3,
)
# Up to 15 items a list has a shorter head. Some items look like other messages.
_LONG_LISTS = st.dictionaries(
    st.text(max_size=20),
    st.lists(
        st.sampled_from([0, {}, {"Seq": WITHOUT_BODY, "Error": ""}, {"Payload": header(WITHOUT_BODY)}, [[]]]),
        min_size=14,
        max_size=40,
    ),
    min_size=1,
    max_size=2,
)
_RECORDS = st.lists(
    st.tuples(st.just(WITH_BODY), st.just(""), _BODIES | _LONG_LISTS)
    | st.tuples(st.just(WITHOUT_BODY), st.text(max_size=10), st.none()),
    max_size=6,
)


_LOOKS = header(WITH_BODY) + header(300)
_OF_STREAMS = st.lists(
    st.tuples(
        st.sampled_from(SEQS),
        st.just(""),
        st.fixed_dictionaries(
            {"Payload": st.binary(max_size=20) | st.sampled_from([_LOOKS, _LOOKS[:20], _LOOKS * 30])}
        ),
    )
    | st.tuples(st.just(WITHOUT_BODY), st.text(max_size=3), st.none()),
    max_size=30,
)


class PropertyTests(SynchronousTestCase):
    @given(records=_OF_STREAMS, places=st.lists(st.integers(0, 3000), max_size=8))
    @settings(deadline=None)
    def test_streams_in_any_mixture_and_splitting_come_in_order(
        self, records: list[Record], places: Iterable[int]
    ) -> None:
        recorder = Streams()
        decoder = wire.Decoder(recorder)
        data = b"".join(reply(seq, body, error) for seq, error, body in records)
        for chunk in cuts(data, places):
            decoder.feed(chunk)
        self.assertEqual(recorder.got, records)

    @given(records=_RECORDS, places=st.lists(st.integers(0, 2000), max_size=8))
    @settings(deadline=None)
    def test_any_splitting_of_the_bytes_gives_the_same_records(
        self, records: list[Record], places: Iterable[int]
    ) -> None:
        data = b"".join(reply(seq, body, error) for seq, error, body in records)
        self.assertEqual(decode(*cuts(data, places)), (records, None))

    @given(connections=st.lists(st.tuples(_RECORDS, st.binary(max_size=3)), max_size=4), data=st.data())
    @settings(deadline=None)
    def test_connections_whose_bytes_come_in_turns_get_each_its_own(
        self, connections: list[tuple[list[Record], bytes]], data: st.DataObject
    ) -> None:
        # Each ends with bytes of an unfinished message, or of none.
        left = [
            b"".join(reply(seq, body, error) for seq, error, body in records) + end
            for records, end in connections
        ]
        recorders = [Recorder() for _ in left]
        decoders = [wire.Decoder(recorder) for recorder in recorders]
        while any(left):
            at = data.draw(st.sampled_from([at for at, rest in enumerate(left) if rest]))
            size = data.draw(st.integers(1, 300))
            chunk, left[at] = left[at][:size], left[at][size:]
            if fed(recorders[at], decoders[at], [chunk]):
                decoders[at].close()
                left[at] = b""
        for recorder, (records, end) in zip(recorders, connections, strict=True):
            alone, _ = decode(b"".join(reply(seq, body, error) for seq, error, body in records) + end)
            self.assertEqual(recorder.got, alone)
            self.assertEqual(recorder.got[: len(records)], records)

    @given(records=_RECORDS)
    @settings(deadline=None)
    def test_byte_by_byte_gives_the_same_records(self, records: list[Record]) -> None:
        data = b"".join(reply(seq, body, error) for seq, error, body in records)
        self.assertEqual(decode(*(data[at : at + 1] for at in range(len(data)))), (records, None))

    @given(chunks=st.lists(st.binary(max_size=60), max_size=5), size_limit=st.integers(0, 100))
    @settings(deadline=None)
    def test_random_bytes_raise_nothing_but_protocol_error(
        self, chunks: list[bytes], size_limit: int
    ) -> None:
        decode(*chunks, size_limit=size_limit)

    @given(
        records=_RECORDS,
        at=st.integers(0, 500),
        wrong=st.integers(0, 255),
        places=st.lists(st.integers(0, 500)),
    )
    @settings(deadline=None)
    def test_a_wrong_byte_raises_nothing_but_protocol_error(
        self, records: list[Record], at: int, wrong: int, places: Iterable[int]
    ) -> None:
        data = bytearray(b"".join(reply(seq, body, error) for seq, error, body in records))
        if data:
            data[at % len(data)] = wrong
        decode(*cuts(bytes(data), places))

    @given(records=_RECORDS, garbage=st.binary(min_size=1, max_size=20))
    @settings(deadline=None)
    def test_records_are_delivered_whatever_bytes_follow(self, records: list[Record], garbage: bytes) -> None:
        data = b"".join(reply(seq, body, error) for seq, error, body in records)
        decoded, _ = decode(data + garbage)
        self.assertEqual(decoded[: len(records)], records)
