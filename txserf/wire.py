"""
The codec: bytes to records and requests to bytes, without any I/O.

MessagePack objects follow each other on the wire without a length prefix. A
header is a map of exactly ``Error`` and ``Seq``. Whether a body comes after it
depends on the command that used that Seq, so the decoder asks the holder of
the commands (`Receiver`) and never guesses.

Text goes out as MessagePack's str family and payloads as bin, as Serf wants
it. Serf's text is raw bytes that need not be UTF-8. Bytes that are not UTF-8
survive both ways by ``surrogateescape``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol, TypeAlias

import msgpack

from txserf import constant
from txserf.errors import ProtocolError

# How text that is not UTF-8 survives both ways.
_ERRORS = "surrogateescape"

# The most members of one array or map. Without this cap, five bytes could make the unpacker set aside half a
# gigabyte. The cap does not bound the memory of a message: arrays can hold arrays, and an array of empty maps takes
# some 90 times its bytes in Python. So the agent of an open connection can take 90 * MESSAGE_SIZE_LIMIT. A check of
# each container would cost time for each real reply.
_MOST_ITEMS = 1 << 20

#: Bytes of one object, and members of one container, before the handshake is through. A header is a map of two,
#: and Serf's longest error is well below this size. A stranger can make us take 90 * (GREETING_LIMIT + _BITE) bytes: 0.7 MB.
GREETING_LIMIT = 1 << 12
GREETING_ITEMS = 16

# How many bytes are fed to the unpacker at once: its buffer grows by no more
# than this beyond the message that it is waiting for.
_SLICE = 1 << 20

# How many bytes a decoder unpacks at once. With more objects at a time Python's garbage
# collector goes over them again and again: 1.2 us of a reply's 8 in a burst of replies. A
# msgpack in pure Python gets larger pieces, for it reads an unfinished object from its start
# each time.
_BITE = 1 << 12 if msgpack.Unpacker.__module__ != "msgpack.fallback" else _SLICE

# A msgpack.Unpacker takes 45 KB, and most connections are silent at most times. So each is lent for the bytes of a
# connection until an object ends with them, and is back here then, with nothing of that connection in it. A few of each
# kind are kept: more are used at a time only by connections that have the beginning of an object. A deque sets no memory
# aside to take one or to put one back.
_Limits: TypeAlias = "tuple[int, int]"  # bytes of an object, members of a container
_idle: dict[_Limits, deque[Any]] = {}
_MOST_IDLE = 4

# How many bytes one that is kept may have held: it has room for twice as many.
_MOST_HELD = 1 << 14


def as_bytes(text: str | bytes) -> bytes:
    """
    Return text as its bytes on the wire; bytes are returned as they are.

    :raises UnicodeEncodeError: for a surrogate that stands for no byte.
    """
    return text.encode("utf-8", _ERRORS) if isinstance(text, str) else text


def as_text(data: bytes) -> str:
    """Return bytes as text, of which `as_bytes` makes the same bytes again, also those that are not UTF-8."""
    return data.decode("utf-8", _ERRORS)


def _cut(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


def new_packer() -> msgpack.Packer:
    """Return a packer for what Serf takes: str as str, bytes as bin."""
    return msgpack.Packer(use_bin_type=True, unicode_errors=_ERRORS)


#: Returns the object of its bytes, which must be complete and have nothing behind them.
unpackb: Callable[[bytes], Any] = msgpack.unpackb

#: Returns the bytes of one object.
pack: Callable[[object], bytes] = new_packer().pack


# A header without an error, as an agent packs it, up to its Seq.
_HEAD = b"\x82" + pack("Error") + pack("") + pack("Seq")

# How many bytes a Seq has, by the first of them; 0 where no Seq begins with it.
_WIDTHS = bytes([1] * 0x80 + [0] * 0x4C + [2, 3, 5, 9] + [0] * 0x30)

#: How deep a body that is known may be nested: it is not checked against `constant.NESTING_LIMIT`.
KNOWN_NESTING = 4

# Streams whose Seqs are remembered. More of them on one connection are read all the same.
_MOST_MARKS = 256

# With so many records of one stream, and nothing else, in one bite, it is read as if it were alone.
_STRETCH = 8


def request_prefix(command: str) -> bytes:
    """
    Return all of a request's header but the Seq itself, which comes last.

    A command's header never differs but for its Seq, so the rest is packed
    once for each row of the table: 0.4 us less a request.
    """
    return b"\x82" + pack("Command") + pack(command) + pack("Seq")


def pack_list(packed: Sequence[bytes]) -> bytes:
    """Return the bytes of a list whose items are packed already."""
    head: bytes = msgpack.Packer().pack_array_header(len(packed))
    return head + b"".join(packed)


def _too_large(limit: int) -> ProtocolError:
    return ProtocolError(f"a message of more than {limit} bytes")


class Unpacker:
    """
    Objects out of a stream of bytes, each within the limits on size and nesting.

    :param size_limit: bytes that one object may have; None reads
        `constant.MESSAGE_SIZE_LIMIT` now.
    :param most_items: how many members an array or a map may have.
    """

    def __init__(self, size_limit: int | None = None, most_items: int = _MOST_ITEMS) -> None:
        self._limit = constant.MESSAGE_SIZE_LIMIT if size_limit is None else size_limit
        # Each level of nesting takes a byte, so that no small object is too deep.
        self._unchecked = min(self._limit, constant.NESTING_LIMIT)
        self._most_items = most_items
        self._idle: deque[Any] = _idle.setdefault((self._limit, most_items), deque(maxlen=_MOST_IDLE))
        self._unpacker: Any = None  # while an object is unfinished
        self._large = False  # it has held many bytes
        # Where its bytes end, and the last object of them. The two are equal while there is none.
        self._fed = 0
        self._taken = 0
        self._marks: dict[bytes, int] = {}  # Seqs of streams, by their bytes
        self._alone: int | None = None  # the one whose records come; None: that of several
        # The bytes in front of each record; or, for several streams, those of them that are the same.
        self._head = _HEAD

        #: The error, once the bytes have broken a rule; nothing is unpacked after it.
        self.failure: ProtocolError | None = None

    def close(self) -> None:
        """Unpack no more, and let go of the bytes and the unfinished object that are held."""
        self._unpacker = None
        if self.failure is None:
            self.failure = ProtocolError("nothing is unpacked any more")

    @property
    def waiting(self) -> int:
        """How many of the bytes belong to no object that was returned."""
        return self._fed - self._taken

    def relieved(self, data: bytes, size_limit: int, most_items: int = _MOST_ITEMS) -> tuple[Unpacker, bytes]:
        """
        Return an unpacker with other limits that goes on behind the last object of this one.

        :param data: the bytes that were fed last; that object ended in them.
        :returns: the unpacker, and the end of *data* that it has to be fed.
        """
        return Unpacker(size_limit, most_items), data[len(data) - self.waiting :]

    def go_inside(self) -> None:
        """Forget the unfinished object: the bytes to be fed next are of it, and what they hold are objects of their own."""
        self._unpacker, self._fed = None, self._taken

    def feed(self, data: bytes) -> list[Any]:
        """
        Return the objects that *data* completes.

        Bytes that are not MessagePack or are over a limit set `failure`; the
        objects before them are returned all the same. Nothing is raised.
        """
        # A list, not a generator, whose switches would cost 0.1 us an object.
        if len(data) <= _SLICE:
            return self.feed_slice(data)
        return [value for part in _cut(data, _SLICE) for value in self.feed_slice(part)]

    def feed_slice(self, data: bytes) -> list[Any]:
        """Do what `feed` does, with a megabyte at the most."""
        values: list[Any] = []
        if self.failure is not None or not data:
            return values
        unpacker, idle = self._unpacker, self._idle
        if unpacker is None:
            try:
                unpacker = idle.pop()
            except IndexError:
                unpacker = self._new()
            self._unpacker, tell = unpacker, unpacker.tell
            self._taken = taken = tell()
            fed = taken + len(data)
        else:
            tell, taken = unpacker.tell, self._taken
            fed = self._fed + len(data)
        unpacker.feed(data)
        self._fed, unchecked = fed, self._unchecked
        try:
            for value in unpacker:
                end = tell()
                if end - taken > unchecked:
                    self._check(value, end - taken)
                taken = end
                values.append(value)
                if end == fed:
                    # It is empty and at the start of an object, so another connection may have it. Asking it for one
                    # more object would cost 0.5 us.
                    self._unpacker = None
                    if self._large or len(data) > _MOST_HELD:
                        self._large = False
                    else:
                        idle.append(unpacker)
                    break
            else:
                if fed - taken > _MOST_HELD:
                    self._large = True
            if fed - taken > self._limit:
                self.failure = _too_large(self._limit)
        except ProtocolError as error:
            self.failure = error.with_traceback(None)  # its frames would hold this and the objects in a cycle
        except Exception as error:  # the unpacker has read a stranger's bytes, and may raise anything
            self.failure = ProtocolError(f"not MessagePack: {type(error).__name__}")
        self._taken = taken
        return values

    def expect(self, seq: int) -> None:
        """Take that records of a stream come behind headers of *seq*, for `feed_records`."""
        if seq == self._alone:
            return
        if len(self._marks) == _MOST_MARKS:
            self._marks.clear()  # most of them are of streams that have ended; the others will be told again
        self._marks[pack(seq)] = seq
        several = len(self._marks) > 1
        self._alone, self._head = (None, _HEAD) if several else (seq, _HEAD + pack(seq))

    def feed_records(self, data: bytes) -> list[Any]:
        """
        Do what `feed_slice` does, but with a pair in the place of records that came one behind the other in one stream.

        The pair is their Seq, and the list of their bodies. It holds for the Seqs that were given to `expect`, and for
        records that came whole; a header and a body stand for others, as ever. There is no difference but the time: headers
        are neither unpacked nor checked, which is half of the work of small records.
        """
        if self._fed - self._taken > _BITE:  # in the middle of a large object
            return self.feed_slice(data)
        # The end of an object follows from its bytes. So a piece between two headers that is just one object is the one
        # that the agent sent there. A payload that looks like a header makes pieces that are no objects.
        head, alone = self._head, self._alone
        pieces = data.split(head)
        if len(pieces) == 1:
            return self.feed_slice(data)
        before = pieces.pop(0)
        values = self.feed_slice(before) if before else []
        between = self._fed == self._taken  # two objects, and nothing has failed
        seq, last = alone, None
        run: list[dict[str, Any]] = []
        rest = iter(pieces)
        for piece in rest:
            if (
                not between
            ):  # in one piece, for msgpack in pure Python reads an unfinished object from its start each time
                values += self.feed_slice(head + head.join([piece, *rest]))
                break
            if len(piece) <= self._unchecked:
                try:
                    # Without arguments, which would cost 0.05 us: text that is not UTF-8 takes the other way.
                    if alone is not None:
                        body = unpackb(piece)
                    else:
                        width = _WIDTHS[piece[0]]
                        seq = self._marks.get(piece[:width])
                        body = None if seq is None else unpackb(piece[width:])
                except Exception:
                    body = None  # not one object: the unpacker says why, or takes it apart, or waits for the rest
                if body.__class__ is dict and "Seq" not in body:
                    if seq != last:
                        last, run = seq, []
                        values.append((seq, run))
                    run.append(body)
                    continue
            last = None
            values += self.feed_slice(head + piece)
            between = self._fed == self._taken
        if alone is None and last is not None and len(run) == len(pieces) >= _STRETCH:
            # Not to look at the Seqs saves 0.1 us a record, until one of another stream comes.
            self._alone, self._head = last, _HEAD + pack(last)
        return values

    def _new(self) -> Any:
        return msgpack.Unpacker(
            raw=False,
            unicode_errors=_ERRORS,
            max_buffer_size=self._limit + _SLICE,
            read_size=_BITE,  # its buffer begins with that, instead of a megabyte
            max_array_len=self._most_items,
            max_map_len=self._most_items,
        )

    def _check(self, value: Any, size: int) -> None:
        if size > self._limit:
            raise _too_large(self._limit)
        level = [value]
        for _ in range(constant.NESTING_LIMIT + 1):
            level = [
                item
                for holder in level
                if holder.__class__ is dict or holder.__class__ is list
                for item in (holder.values() if holder.__class__ is dict else holder)
            ]
            if not level:
                return
        raise ProtocolError(f"a message nested more than {constant.NESTING_LIMIT} deep")


class Items(Protocol):
    """Takes the items of a long list as they come."""

    def read(self, items: list[Any]) -> None:
        """Take the next ones. It raises nothing: a fault is told once all have come."""


class Receiver(Protocol):
    """Gets headers and bodies from a `Decoder`, each at once, so that it can judge a header by all before it."""

    def header(self, seq: int, error: str) -> bool | Literal["record", "known"] | None:
        """
        Take a header.

        :returns: whether a body belongs to it, or None if nobody used that Seq. ``"record"`` if the body is a record of
            a stream that goes on until it is stopped: its further records may come by way of `records`. ``"known"`` if the
            bodies of further replies like this one may be `known`.
        """

    def known(self, seq: int, body: bytes) -> Any:
        """
        Return the value of a reply's body, if that can be told from its bytes; nothing else may change by it.

        :param body: what came behind the header, which need not be one object.
        :returns: None where it has to be unpacked. Else it is one whole object, is no header, and is nested no more than
            `KNOWN_NESTING` deep.
        """

    def answered(self, seq: int, value: Any) -> None:
        """Take a reply without an error, as the value that `known` has returned for its body."""

    def body(self, seq: int, error: str, body: dict[str, Any]) -> None:
        """
        Take the body that belongs to the last header.

        Where `items` was asked for it, and there are some, they are in the place of the list.
        """

    def items(self, seq: int, number: int) -> Items | None:
        """
        Return what takes the items of the body that is due behind the last header.

        :param seq: of that header.
        :param number: of items.
        :returns: None if the body is to come as it is.
        """

    def records(self, seq: int, bodies: list[dict[str, Any]]) -> None:
        """Take records, each of which came behind a header of *seq* without an error."""


_STRAY_BODY = (-1, "")  # a header is due, or a body: the Seq of the last header was nobody's
_NOTHING = (-2, "")  # for it was closed


def _no_body(due: tuple[int, str]) -> ProtocolError:
    return ProtocolError(f"no body behind the header of Seq {due[0]}")


class _List:
    """
    A long list that is the whole body of a reply, while its items come.

    :ivar key: the name of its field.
    :ivar items: takes them.
    :ivar left: how many are still to come.
    :ivar size: how many bytes of the body have come.
    """

    __slots__ = ("items", "key", "left", "size")

    def __init__(self, key: str, items: Items, number: int, size: int) -> None:
        self.key = key
        self.items = items
        self.left = number
        self.size = size

    @staticmethod
    def head(data: bytes) -> tuple[str, int, int] | None:
        """
        Read the beginning of a body: a map of one field, whose value is a list of more than 15.

        :returns: the field's name, the number of items, and where these begin; None for anything else.
        """
        if data[:1] != b"\x81" or len(data) < 2 or data[1] >> 5 != 0b101:
            return None
        end = 2 + (data[1] & 0b11111)
        width = {b"\xdc": 2, b"\xdd": 4}.get(data[end : end + 1], 0)
        start = end + 1 + width
        if not width or len(data) < start:
            return None
        return as_text(data[2:end]), int.from_bytes(data[end + 1 : start], "big"), start


class Decoder:
    """
    Decodes the bytes of an agent into headers and bodies.

    :param receiver: gets each of them, and says for each header whether a body comes behind it.
    :param size_limit: bytes that one object may have; None takes
        `constant.MESSAGE_SIZE_LIMIT`.
    :param first_limit: bytes that one object may have until `open`, with containers of
        `GREETING_ITEMS` at the most; None: as later.
    """

    def __init__(
        self, receiver: Receiver, size_limit: int | None = None, first_limit: int | None = None
    ) -> None:
        self._receiver = receiver
        self._limit = constant.MESSAGE_SIZE_LIMIT if size_limit is None else size_limit
        if first_limit is None:
            self._unpacker = Unpacker(self._limit)
        else:
            self._unpacker = Unpacker(min(self._limit, first_limit), GREETING_ITEMS)
        self._feed_slice: Callable[[bytes], list[Any]] = self._unpacker.feed_slice
        self._opened = False  # just now: the bytes that wait are to go to an unpacker with the real limit
        # The header whose body is due, or one of the two below; None where a header is due.
        self._due: tuple[int, str] | None = None
        self._list: _List | None = None  # whose items are objects of their own to the unpacker
        self._may_know = False  # replies are of the kind whose bodies may be known

    @property
    def due(self) -> int | None:
        """The Seq of the header whose body is due; None if a header is due, or if this is closed."""
        return None if self._due is None or self._due[0] < 0 else self._due[0]

    @property
    def waiting(self) -> int:
        """How many bytes have come of a message that is not complete yet."""
        return self._unpacker.waiting if self._list is None else self._list.size

    def open(self) -> None:
        """Take objects of any size within the limit, from behind the header that the receiver is being given."""
        self._opened = True

    def close(self) -> None:
        """Give the receiver nothing more, and let go of all bytes and objects."""
        self._due = _NOTHING
        self._list = None
        self._unpacker.close()

    def feed(self, data: bytes) -> None:
        """
        Give the receiver each header and body that *data* completes, however the bytes were cut.

        :raises ProtocolError: at the first byte that breaks the rules, after the receiver has got all
            before it. Any other error is a bug, or the receiver's.
        """
        # The receiver is called, and nothing is yielded: a generator's switches and a second look at each Seq cost
        # 0.3 us a reply. It is one function: a call for each bite would cost 0.1 us, and most replies come one by one.
        receiver = self._receiver
        found: list[tuple[int, Any]] = []
        if self._may_know and self._due is None and data.startswith(_HEAD):
            found, data = self._find_known(data)
        for bite in (data,) if len(data) <= _BITE else _cut(data, _BITE):
            values = self._feed_slice(bite)
            if self._list is not None:
                values = self._behind_list(values, len(bite))
            if found:
                self._hand_up(found)
                found = []
            for value in values:
                due = self._due
                if value.__class__ is tuple and due is not _NOTHING:
                    if due is not None and due is not _STRAY_BODY:
                        raise _no_body(due)
                    self._due = None
                    receiver.records(*value)
                    continue
                if due is not None:
                    if due is _NOTHING:
                        return
                    is_header = value.__class__ is not dict or ("Seq" in value and "Error" in value)
                    if due is not _STRAY_BODY:
                        if is_header:
                            raise _no_body(due)
                        self._due = None
                        receiver.body(due[0], due[1], value)
                        continue
                    self._due = None
                    if not is_header:
                        continue
                try:
                    seq, error = value["Seq"], value["Error"]
                except (TypeError, KeyError, IndexError):
                    raise ProtocolError(
                        f"neither a header nor a body that is due: {type(value).__name__}"
                    ) from None
                if seq.__class__ is not int or error.__class__ is not str or len(value) != 2 or seq < 0:
                    raise ProtocolError("a header whose Seq or Error is not one")
                follows = receiver.header(seq, error)
                if follows is not False and self._due is not _NOTHING:
                    self._due = (seq, error) if follows else _STRAY_BODY
                    if follows == "record":
                        self._unpacker.expect(seq)
                        self._feed_slice = self._unpacker.feed_records
                    elif follows == "known":
                        self._may_know = True
            if self._due is not None and self._list is None:
                self._look_for_list(bite)
            if self._opened:
                self._reopen(bite)
        if self._unpacker.failure is not None and self._due is not _NOTHING:
            raise self._unpacker.failure

    def _find_known(self, data: bytes) -> tuple[list[tuple[int, Any]], bytes]:
        """
        Find the replies at the beginning of *data* whose bodies are known, and give none of them up yet.

        :returns: the Seq and the value of each, and the rest of *data*.
        """
        found: list[tuple[int, Any]] = []
        if self._unpacker.waiting or constant.NESTING_LIMIT < KNOWN_NESTING:
            return found, data
        known, limit = self._receiver.known, self._limit
        # A piece that is known is just one object, so that the header behind it is one, and not part of a text.
        pieces = iter(data.split(_HEAD)[1:])
        for piece in pieces:
            first = piece[0] if piece else 0xFF
            width = _WIDTHS[first]
            seq = first if width == 1 else int.from_bytes(piece[1:width], "big")
            value = known(seq, piece[width:]) if width and len(piece) <= limit else None
            if value is None:
                self._may_know = bool(found)  # if not, until a header is of such a kind again
                return found, _HEAD + _HEAD.join([piece, *pieces])
            found.append((seq, value))
        return found, b""

    def _hand_up(self, found: list[tuple[int, Any]]) -> None:
        # The bytes behind them are unpacked already: a callback may run the reactor, which feeds further ones.
        answered = self._receiver.answered
        for seq, value in found:
            due = self._due
            if due is not None:
                if due is _NOTHING:
                    return
                if due is not _STRAY_BODY:
                    raise _no_body(due)
                self._due = None
            answered(seq, value)

    def _look_for_list(self, bite: bytes) -> None:
        """
        Hand up the items of a long list as they come, where the receiver wants that.

        All records of 10,000 members at a time would take 8 MB more, and half as long again to read: they would have left the
        processor's caches before their turn came.
        """
        seq, size = self.due, self._unpacker.waiting
        if seq is None or not size or size > len(bite) or self._unpacker.failure is not None:
            return  # it is nobody's, or it has not begun, or not in this bite
        body = bite[-size:]
        head = _List.head(body)
        items = None if head is None else self._receiver.items(seq, head[1])
        if head is None or items is None:
            return
        key, number, start = head
        self._list = _List(key, items, number, start)
        self._unpacker.go_inside()
        self._feed_slice = self._unpacker.feed_slice  # items are no records
        self._behind_list(self._feed_slice(body[start:]), size - start)

    def _behind_list(self, values: list[Any], size: int) -> list[Any]:
        """
        Hand up the next items of the list.

        :param values: what was read of *size* bytes.
        :returns: the body, and what came behind it; nothing, while items are to come.
        """
        found = self._list
        assert found is not None
        items = values[: found.left]
        found.items.read(items)
        found.left -= len(items)
        found.size += size
        if found.left:
            if found.size > self._limit and self._unpacker.failure is None:
                self._unpacker.failure = _too_large(self._limit)
            return []
        self._list = None
        return [{found.key: found.items}, *values[len(items) :]]

    def _reopen(self, bite: bytes) -> None:
        # The header in which `open` was called came with this bite, and so did all behind it.
        self._opened = False
        if self._due is not _NOTHING:
            self._unpacker, rest = self._unpacker.relieved(bite, self._limit)
            self._feed_slice = self._unpacker.feed_slice
            self.feed(rest)
