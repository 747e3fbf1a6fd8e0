"""
Fuzzers: each takes a seed and returns a `Report`; the same seed does the same again.

The peers that send anything are in `peers`; here are texts and arguments that may be anything.
"""

from __future__ import annotations

import inspect
import random
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

import txserf
from tests.faults.anything import AGENT_LIMIT, STRANGER_LIMIT, WORDS, any_value, bounded, report
from tests.faults.peers import hostile_agent, stranger
from tests.faults.programs import CONNECT, HEARTBEAT
from tests.faults.relay import no_faults
from tests.faults.runs import Report
from tests.faults.witness import Witness
from tests.faults.worlds import MemoryWorld

# -- host lists

_PIECES = (
    "127.0.0.1", "[::1]", "[fe80::1%eth0]", "db1.example", "serf://", "tcp://", ":", "7373", "0", "65536", ",", ", ",
    "?", "&", "=", "#", "@", "/", "%", "%2C", "%zz", " ", "\t", "é", "\x00", "\udcff", "x", "", "[", "]", "?AuthKey=",
    "&AuthKey=", "?authkey=", "::1", "user:pw@",
)  # fmt: skip


def host_list(seed: str) -> Report:
    """Take any text as hosts: it is understood, or refused by `InvalidHostURL`; no key is shown."""
    rng = random.Random(seed)
    secret = "S3CRETKEY"
    text = "".join(rng.choice(_PIECES) for _ in range(rng.randrange(1, 8)))
    if rng.random() < 0.5:
        text += f"{rng.choice(('', ',', 'serf://h'))}?AuthKey={secret}{rng.choice(('', '%', '&x=1', ',h2', '#', ' '))}"
    hosts: Any = text if rng.random() < 0.7 else [text, rng.choice((7, None, b"h", text))]
    wrong: list[str] = []
    try:
        client = txserf.Client(hosts, reactor=MemoryWorld(no_faults, 1).clock)
        shown = f"{client!r} {client.factory.hosts!r}"
    except txserf.InvalidHostURL as error:
        shown = f"{error} {error!r} {Failure().getTraceback()}"
        if not str(error):
            wrong.append("an error without a text")
    except Exception:
        shown = ""
        wrong.append(f"not ours: {Failure().getTraceback()}")
    if secret in shown:
        wrong.append(f"it shows the key: {shown}")
    return Report(f"hosts {hosts!r}, seed {seed}", 1, tuple(wrong))


# -- event filters

_FILTER_PIECES = (
    "*", "user", "query", "user:", "user:x", "query:a b", "member-join", "member-leave", "member-failed",
    "member-update", "member-reap", "member", ",", ",", ":", " ", "=", "USER", "x", "é", "\udcff", "",
)  # fmt: skip


def event_filter(seed: str) -> Report:
    """Take any text as a filter: the two faces, the router and the agent agree on whether it is one."""
    rng = random.Random(seed)
    text = "".join(rng.choice(_FILTER_PIECES) for _ in range(rng.randrange(0, 6)))
    world = MemoryWorld(no_faults, 1)
    witness = Witness(world.clock)
    hosts = [world.agent]
    serf, client = txserf.Serf(hosts, reactor=world.clock), txserf.Client(hosts, reactor=world.clock)

    async def whole() -> None:
        typed = fluent = True
        stream = witness.call("stream", lambda: serf.stream(text))
        if stream is None:
            typed = False
        else:
            opened = witness.watch("stream", stream.when_active(), 5.0)
            await world.until(lambda: opened.fired > 0, 6.0)
            typed = opened.outcome == "success"
        asked = witness.call("fluent stream", lambda: client.stream(Type=text).request(timeout=0.5))
        if asked is not None:
            refused: list[str] = []
            reply = witness.watch(
                "fluent stream", asked, 0.5, lambda got: refused.extend(r.error for r in got)
            )
            await world.until(lambda: reply.fired > 0, 6.0)
            fluent = reply.outcome == "success" and not any(refused)
        scripted = witness.call("script", lambda: _scripted(f"{text}=true"))
        if typed is not fluent:
            witness.accuse(f"{text!r}: the typed face says {typed}, the fluent one {fluent}")
        if "=" not in text and text and bool(scripted) is not fluent:
            witness.accuse(f"{text!r}: a router says {bool(scripted)}, the agent {fluent}")
        await serf.close()
        client.disconnect()
        await client.disconnect(wait=True).request()
        await world.close()
        await world.until(lambda: not world.left(), 30.0)

    return report(f"filter {text!r}, seed {seed}", witness, world, whole())


def _scripted(script: str) -> bool:
    txserf.Router().add_script(script)
    return True


# -- arguments

_SERF_CALLS = (
    "members", "event", "join", "force_leave", "set_tags", "install_key", "use_key", "remove_key", "list_keys",
    "stats", "coordinate", "rtt", "ping", "query", "stream", "monitor",
)  # fmt: skip
_CLIENT_CALLS = (
    "event", "force_leave", "join", "members", "tags", "stream", "monitor", "stop", "query", "respond", "install_key",
    "use_key", "remove_key", "list_keys", "stats", "get_coordinate",
)  # fmt: skip


def _any_argument(rng: random.Random) -> Any:
    return rng.choice(
        (
            any_value(rng),
            rng.choice(WORDS),
            {rng.choice(WORDS): rng.choice(WORDS)},
            [rng.choice(WORDS)],
            timedelta(seconds=rng.choice((0, 1, -1, 10**9))),
            rng.choice((0, 1, 0.5, -1, 2**70, 1e400, 10**400)),
            object(),
            {1, 2},
            iter(()),
            bytearray(b"x"),
        )
    )


def arguments(seed: str) -> Report:
    """Call methods with anything: they refuse it by `InvalidRequest`, or it goes well or fails with our errors."""
    rng = random.Random(seed)
    world = MemoryWorld(no_faults, 1)
    witness = Witness(world.clock)
    serf = txserf.Serf(
        [world.agent], reactor=world.clock, timeout=3.0, connect_timeout=CONNECT, heartbeat=HEARTBEAT
    )
    client = txserf.Client([world.agent], reactor=world.clock, auto_reconnect=True, heartbeat=HEARTBEAT)
    shown: list[str] = []

    def given(function: Callable[..., Any]) -> dict[str, Any]:
        named = inspect.signature(function).parameters
        needed = [name for name, each in named.items() if each.default is each.empty]
        chosen = [name for name in named if name in needed or rng.random() < 0.4]
        values = {name: _any_argument(rng) for name in chosen}
        if rng.random() < 0.5:
            values.update({name: rng.choice(WORDS) for name in needed})
        # A longer timeout than the run's would only be a longer wait.
        return {name: value for name, value in values.items() if name != "timeout"}

    def call_serf() -> None:
        name = rng.choice(_SERF_CALLS)
        values = given(getattr(serf, name))
        shown.append(f"serf.{name}({values})")
        result: Any = getattr(serf, name)(**values)
        if isinstance(result, Deferred):
            witness.watch(shown[-1], result, 3.0)
        elif isinstance(result, txserf.Query):
            witness.awaited(shown[-1], result, None)
        else:
            witness.watch(shown[-1], result.when_active(), None)
            witness.consume(shown[-1], result, lambda item: None)

    def call_client() -> None:
        name = rng.choice(_CLIENT_CALLS)
        values = given(getattr(client, name))
        shown.append(f"client.{name}({values})")
        getattr(client, name)(**values)
        witness.watch(shown[-1], client.request(timeout=1.0), 1.0)

    async def whole() -> None:
        for _ in range(rng.randrange(1, 6)):
            witness.call("a call", rng.choice((call_serf, call_client)))
            await world.wait(rng.choice((0.0, 0.1)))
        await world.until(lambda: not witness.under_way, 5.0)
        witness.check_fired(all_of_them=False)
        good = witness.watch("members afterwards", serf.members(), 3.0)
        await world.until(lambda: good.fired > 0, 5.0)
        if good.outcome != "success":
            witness.accuse(f"it does not work afterwards: {good.outcome}")
        witness.watch("the end", serf.close(), 2.0)
        client.disconnect()
        witness.watch("the end", client.disconnect(wait=True).request(), 2.0)
        await world.until(lambda: all(each.fired for each in witness.watched), 5.0)
        witness.check_fired(all_of_them=True)
        await world.close()
        await world.until(lambda: not world.left(), 30.0)

    told = report(f"arguments of seed {seed}", witness, world, whole())
    return Report(f"{told.what}: {shown}", told.operations, told.violations)


FUZZERS: dict[str, Callable[[str], Report]] = {
    "a hostile agent": bounded(hostile_agent, AGENT_LIMIT),
    "a stranger at an embedded agent": bounded(stranger, STRANGER_LIMIT),
    "host lists": host_list,
    "event filters": event_filter,
    "arguments": arguments,
}
