"""Values and bytes of any kind for the fuzzers, and what their runs have in common."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Callable, Coroutine
from typing import Any

from twisted.python.failure import Failure

from tests.faults.runs import Report
from tests.faults.witness import Witness
from tests.faults.worlds import MemoryWorld, run_in_memory

#: Bytes that a run may have more at one moment than at its start: with a stranger, who gets some 100 KB before the
#: handshake and little more behind it, and with an agent of open connections. A run that meets nobody takes 0.4 MiB.
STRANGER_LIMIT = 4 * 2**20
AGENT_LIMIT = 16 * 2**20


def report(what: str, witness: Witness, world: MemoryWorld, play: Coroutine[Any, Any, None]) -> Report:
    """Run *play* to its end, and report what was seen."""
    try:
        run_in_memory(world, play)
        for call in world.left():
            witness.accuse(f"left in the reactor: {call}")
    except Exception:
        witness.accuse(f"the run itself failed: {Failure().getTraceback()}")
    finally:
        witness.leave()
    return Report(what, witness.operations, tuple(witness.violations))


def bounded(fuzzer: Callable[[str], Report], limit: int) -> Callable[[str], Report]:
    """
    See that a run does not take more memory than it may. One of ten is measured: it takes five times as long.

    :param limit: bytes.
    """

    def bounded(seed: str) -> Report:
        if random.Random(f"memory of {seed}").random() > 0.1:
            return fuzzer(seed)
        tracemalloc.start()
        try:
            told = fuzzer(seed)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        if peak <= limit:
            return told
        return Report(told.what, told.operations, (*told.violations, f"it took {peak / 2**20:.0f} MiB"))

    return bounded


#: What values are made of: those of Serf, their neighbours, and what breaks carelessly written code.
WORDS = (
    "", "n1", "alive", "user", "query", "user:deploy", "member-join", "member-promoted", "*", ",", ":", "(", "a|b",
    "Seq", "Error", "ack", "response", "done", "\udcff\udcfe", "é", "\x00", "x" * 300, "[::1]:7946", "127.0.0.1:1",
)  # fmt: skip
KEYS = (
    "Seq", "Error", "Members", "Name", "Addr", "Port", "Tags", "Status", "Event", "LTime", "Payload", "Coalesce",
    "ID", "Type", "From", "Log", "Num", "Messages", "Keys", "NumNodes", "NumErr", "NumResp", "Coord", "Ok", "Vec",
    "Height", "Adjustment", "agent", "", "x",
)  # fmt: skip


def any_value(rng: random.Random, depth: int = 3) -> Any:
    """Make a value of any type that MessagePack has."""
    kind = rng.randrange(10 if depth else 8)
    if kind == 0:
        return rng.choice((0, 1, -1, 127, 255, 2**31, 2**63 - 1, -(2**63), 2**64 - 1))
    if kind <= 3:
        return rng.choice(WORDS)
    if kind == 4:
        return rng.randbytes(rng.choice((0, 1, 4, 16, 40)))
    if kind == 5:
        return rng.choice((None, True, False))
    if kind == 6:
        return rng.choice((0.0, 1.5, -1e300, float("inf"), float("nan")))
    if kind == 7:
        return rng.randrange(100)
    if kind == 8:
        return [any_value(rng, depth - 1) for _ in range(rng.randrange(5))]
    return {rng.choice(KEYS): any_value(rng, depth - 1) for _ in range(rng.randrange(6))}


def broken_bytes(rng: random.Random, *, deep: bool) -> bytes:
    """
    Make bytes that are no message.

    :param deep: nest large lists up to a thousand deep. By five bytes each, they take half a megabyte each where that is
        allowed, so not for an open connection.
    """
    if deep and rng.random() < 0.3:
        return b"\xdd\x00\x00\xff\xff" * rng.randrange(1, 1000)
    return rng.choice(
        (
            rng.randbytes(rng.randrange(1, 200)),
            b"\xc1",
            b"\x91" * rng.randrange(1, 3000),
            b"\x81\xa1x" * rng.randrange(1, 3000),
            b"\xdd\x00\x00\xff\xff" * rng.randrange(1, 20),
            b"\xdf\xff\xff\xff\xff",
            b"\xdb\x03\xff\xff\xff" + b"x" * rng.randrange(1000),
            b"\xc6\xff\xff\xff\xff",
            b"\xc9\xff\xff\xff\xff\x05",
            b"HTTP/1.1 400 Bad Request\r\n\r\n",
            b"\x15\x03\x01\x00\x02\x02\x46",
        )
    )


def changed(rng: random.Random, value: Any) -> Any:
    """Change one thing somewhere in *value*."""
    if isinstance(value, dict) and value and rng.random() < 0.8:
        key = rng.choice(list(value))
        return (
            {**value, key: changed(rng, value[key])} if rng.random() < 0.8 else {**value, rng.choice(KEYS): 1}
        )
    if isinstance(value, list) and value and rng.random() < 0.8:
        place = rng.randrange(len(value))
        return [*value[:place], changed(rng, value[place]), *value[place + 1 :]]
    return any_value(rng)
