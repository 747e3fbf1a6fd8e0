"""Runs: a program beside an agent, and faults; each can be made again from its seed."""

from __future__ import annotations

import functools
import gc
import random
from collections.abc import Iterator, Sequence
from typing import Any

import attrs
from twisted.internet import error

from tests.agents import Agent
from tests.faults.damage import CORRUPTING, Fault, Kind, Way, random_fault
from tests.faults.programs import KEY_MARK, PROGRAMS
from tests.faults.promises import play
from tests.faults.relay import Plan, no_faults
from tests.faults.witness import Witness
from tests.faults.worlds import MemoryWorld, RealWorld, run_in_memory

#: The key of each agent's RPC.
AUTH_KEY = "s3cret of a test"

#: What no log line and no error may show.
SECRETS = (AUTH_KEY, KEY_MARK)


#: Those after which an answer may take any time, as long as some of it comes.
SLOWEST = (Kind.THROTTLE, None)


@attrs.frozen
class Report:
    """
    What one run came to.

    :ivar what: how to make it again.
    :ivar operations: the number of Deferreds that were watched.
    :ivar agent_failed: how the agent itself failed, by which the run says nothing.
    """

    what: str
    operations: int
    violations: tuple[str, ...]
    agent_failed: str = ""

    def __str__(self) -> str:
        return "\n  ".join([self.what, *self.violations])


# -- what is chosen at random


def random_steps(rng: random.Random, face: str, kind: Kind | None, number: int) -> list[str]:
    """Choose operations, and pauses between them."""
    names = [*_operations(face), "event", "event", "event"]
    if kind in (None, Kind.SILENCE):  # each silence would take two minutes; `session` has them
        names = [name for name in names if name not in PROGRAMS[face].slow]
    steps = []
    for _ in range(number):
        if rng.random() < 0.4:
            steps.append(f"wait {rng.choice((0, 1, 5, 30, 200, 600))}")
        steps.append(rng.choice(names))
    return steps


def _operations(face: str) -> list[str]:
    world = MemoryWorld(no_faults, 1)
    witness = Witness(world.clock)
    witness.leave()
    return list(PROGRAMS[face](world, witness, random.Random(1), "x", False).operations)


def random_plan(rng: random.Random, kind: Kind | None) -> tuple[Plan, dict[int, list[Fault]]]:
    """Choose a fault for some of the first connections; of one kind, or of all."""
    plan: dict[int, list[Fault]] = {}
    for number in range(rng.randrange(1, 7)):
        if rng.random() < 0.8:
            chosen = kind or rng.choice([each for each in Kind if each not in CORRUPTING])
            plan[number] = [random_fault(rng, chosen, rng.choice((60, 400, 3000)))]
    return (lambda number: plan.get(number, ())), plan


# -- in memory


def memory_run(
    face: str,
    steps: Sequence[str],
    plan: Plan,
    seed: int,
    *,
    corrupting: bool = False,
    careful: bool = False,
    what: str,
) -> Report:
    """Run a program beside an embedded agent."""
    world = MemoryWorld(plan, seed, AUTH_KEY)
    witness = Witness(world.clock, SECRETS)
    program = PROGRAMS[face](world, witness, random.Random(seed), "e", careful or corrupting)

    async def whole() -> None:
        await play(world, witness, program, steps, corrupting=corrupting, first="first")
        await world.close()

    try:
        run_in_memory(world, whole())
        for call in world.left():
            witness.accuse(f"left in the reactor: {call}")
    except Exception as error:
        witness.accuse(f"the run itself failed: {error!r}")
    finally:
        witness.leave()
    return Report(what, witness.operations, tuple(witness.violations))


def random_memory_run(face: str, kind: Kind | None, seed: str) -> Report:
    """Run a random program with random faults."""
    rng = random.Random(seed)
    plan, chosen = random_plan(rng, kind)
    steps = random_steps(rng, face, kind, rng.randrange(5, 30))
    what = f"{face}, seed {seed}: {'; '.join(f'{n}: {f[0]}' for n, f in chosen.items())}"
    corrupting = kind in CORRUPTING
    return memory_run(
        face, steps, plan, rng.randrange(2**31), corrupting=corrupting, careful=kind in SLOWEST, what=what
    )


# -- the cut at every byte


@functools.cache
def session(face: str) -> tuple[str, ...]:
    """Return the operations of the session that is cut: all of them, in order, but for the cancelling."""
    return tuple(name for name in _operations(face) if name != "cancel")


def lengths(face: str) -> list[dict[Way, int]]:
    """Return how many bytes pass each way on each connection of the session, where nothing goes wrong."""
    found: list[dict[Way, int]] = []
    world = MemoryWorld(no_faults, 1, AUTH_KEY)
    witness = Witness(world.clock)
    program = PROGRAMS[face](world, witness, random.Random(1), "e", False)
    relays: list[Any] = []
    make = world.plans.relay

    def relay(client: Any, agent: Any) -> Any:
        relays.append(make(client, agent))
        return relays[-1]

    world.plans.relay = relay  # type: ignore[method-assign]  # to see each of them

    async def whole() -> None:
        await play(world, witness, program, session(face), corrupting=False, first="first")
        found.extend(each.passed for each in relays)
        await world.close()

    try:
        run_in_memory(world, whole())
    finally:
        witness.leave()
    assert not witness.violations, witness.violations
    return found


def places(face: str, kinds: Sequence[Kind]) -> Iterator[tuple[int, Fault]]:
    """Give each place where the session can be cut: a connection's number, and a fault."""
    for number, passed in enumerate(lengths(face)):
        for way, length in passed.items():
            for after in range(length + 1):
                for kind in kinds:
                    yield number, Fault(kind, way, after)


def cut_run(face: str, number: int, fault: Fault) -> Report:
    """Run the session with one fault on one of its connections."""

    def plan(made: int) -> tuple[Fault, ...]:
        return (fault,) if made == number else ()

    return memory_run(face, session(face), plan, 1, what=f"{face}, connection {number}: {fault}")


# -- on a real agent


async def real_run(
    reactor: Any,
    agent: Agent,
    face: str,
    steps: Sequence[str],
    plan: Plan,
    seed: int,
    *,
    name: str,
    what: str,
    corrupting: bool = False,
    careful: bool = False,
) -> Report:
    """Run a program beside a real agent."""
    world = RealWorld(plan, reactor, agent)
    witness = Witness(world.clock, SECRETS)
    try:
        await world.open()
        program = PROGRAMS[face](world, witness, random.Random(seed), name, careful or corrupting)
        await play(world, witness, program, steps, corrupting=corrupting, first=f"{name}-first")
    except error.ConnectError as refused:
        witness.agent_failed = f"it can't be reached: {refused}"
    finally:
        await world.close()
        witness.leave()
    for call in world.left():
        witness.accuse(f"left: {call}")
    violations = () if witness.agent_failed else tuple(witness.violations)
    return Report(what, witness.operations, violations, witness.agent_failed)


async def random_real_run(reactor: Any, agent: Agent, face: str, kind: Kind | None, seed: str) -> Report:
    """Run a random program with random faults."""
    rng = random.Random(seed)
    plan, chosen = random_plan(rng, kind)
    steps = random_steps(rng, face, kind, rng.randrange(5, 20))
    what = f"{face} on a real agent, seed {seed}: {'; '.join(f'{n}: {f[0]}' for n, f in chosen.items())}"
    name = f"r{rng.randrange(16**8):08x}"
    return await real_run(
        reactor,
        agent,
        face,
        steps,
        plan,
        rng.randrange(2**31),
        name=name,
        what=what,
        corrupting=kind in CORRUPTING,
        careful=kind in SLOWEST,
    )


def collect_garbage() -> None:
    """Let Deferreds that failed unheard say so in the log now."""
    gc.collect()
