"""The promises to a program, and how they are checked while it is played; the page on reliability has them in words."""

from __future__ import annotations

from collections.abc import Sequence

from tests.faults.ledger import Listener
from tests.faults.programs import BACK, CONNECT, GAP, LATE, Program
from tests.faults.witness import Witness
from tests.faults.worlds import World


def check_delivered(program: Program, listener: Listener, first: str) -> list[str]:
    """
    Say where a stream did not deliver what the agent had.

    From the event *first* on each event is delivered once and in order, unless a gap is told in its place.
    """
    order = {name: place for place, name in enumerate(listener.names)}
    if len(order) < len(listener.names):
        return []  # the agent ran something twice, which is told elsewhere
    if first not in order:
        return []
    wrong = []
    expected: int | None = order[first]  # None behind a gap
    last = -1
    for name in program.delivered:
        if name == GAP:
            expected = None
            continue
        place = order.get(name)
        if place is None:
            wrong.append(f"delivered {name}, which the agent's other stream never had")
            continue
        if place <= last:
            wrong.append(f"delivered {name} twice or out of order")
        last = max(last, place)
        if place < order[first]:
            continue  # from before the stream was sure to be open
        if expected is not None and place > expected:
            missed = listener.names[expected:place]
            wrong.append(f"missed {missed} without a gap before {name}")
        expected = place + 1
    return wrong


#: Seconds until an agent has an event come by a stream that nothing goes wrong with.
ECHO = 10.0


async def play(
    world: World, witness: Witness, program: Program, steps: Sequence[str], *, corrupting: bool, first: str
) -> None:
    """
    Run a program to its end, and accuse whatever it was not told as it should be.

    :param steps: as `Program.take` has them.
    :param corrupting: the bytes may be changed on their way; then no promise holds of what they meant. But the streams come
        back, or the program is told that the agent refused them.
    :param first: the name of the event that marks when the stream was open.
    """
    if program.slow.intersection(steps):
        program.back = LATE
    listener = await Listener.at(world.agent, world.auth_key)
    program.begin()
    try:
        await _play(world, witness, program, listener, steps, corrupting, first)
    except BaseException:  # this run is cancelled, or wrong: it leaves nothing to the tests behind it
        listener.close()
        await program.end()
        raise


async def _play(
    world: World,
    witness: Witness,
    program: Program,
    listener: Listener,
    steps: Sequence[str],
    corrupting: bool,
    first: str,
) -> None:
    opening = program.active()
    witness.watch("the opening", opening, None, lambda _: listener.event(first))
    await program.take(steps)
    await world.until(lambda: not witness.under_way, program.query_limit)
    witness.check_fired(all_of_them=False)
    world.plans.heal()
    await comes_back(world, witness, program, listener, first, corrupting)
    end = witness.watch("the end", program.end(), CONNECT + 2.0)
    if not await world.until(lambda: bool(end.fired), 2 * BACK):
        witness.accuse("it could not be closed")
    await world.until(lambda: all(each.fired for each in witness.watched), 2.0)
    witness.check_fired(all_of_them=True)
    # Behind an event of its own, the listener has had all that came before.
    await _echoed(world, witness, listener, f"{first}-end")
    if not listener.lost:
        listener.close()
        await world.until(lambda: listener.lost, 2.0)
    for command, what in world.ledger.sent_twice:
        if what != "'ask'":
            witness.accuse(f"{command} {what} was sent twice")
    if not corrupting:
        witness.violations += check_delivered(program, listener, first)
        _check_events(witness, program, listener)


async def _echoed(world: World, witness: Witness, listener: Listener, event: str) -> bool:
    """
    Send an event by the listener, and see that the agent has it come by the listener's stream.

    An agent of Serf 0.9.4 may end by a panic, or have no events any more, where streams end while events come.
    """
    if not listener.lost:
        listener.event(event)
    if await world.until(lambda: event in listener.names or listener.lost, ECHO) and not listener.lost:
        return True
    witness.agent_failed = "its own stream is lost" if listener.lost else "it has no events any more"
    return False


#: The errors by which a stream may end where the agent gets other bytes than were sent, for it may refuse these. A ``stop``
#: that became one of another stream is the only fault that nobody could notice: of 7,400 garbled runs none had it.
REFUSALS = ("RpcError", "AuthenticationError")


async def comes_back(
    world: World, witness: Witness, program: Program, listener: Listener, first: str, corrupting: bool
) -> None:
    """See that the stream is open again, and delivers; or, with *corrupting*, that the program was told of a refusal."""
    for number in range(3):  # one more fault may strike while this is seen
        if corrupting and program.followed.outcome in REFUSALS:
            return
        if listener.lost:  # no fault can strike it, so the agent is gone
            witness.agent_failed = "its own stream is lost"
            return
        if (
            await _delivers(world, witness, program, listener, f"{first}-last-{number}")
            or witness.agent_failed
        ):
            return
    witness.accuse("the stream did not come back, or delivers nothing")


async def _delivers(world: World, witness: Witness, program: Program, listener: Listener, event: str) -> bool:
    back = witness.watch("the way back", program.active(), program.back)
    if not await world.until(lambda: back.fired > 0, program.back + 2.0) or back.outcome != "success":
        return False
    gaps = program.delivered.count(GAP)
    if not await _echoed(world, witness, listener, event):
        return False
    await world.until(lambda: event in program.delivered or program.delivered.count(GAP) > gaps, program.back)
    return event in program.delivered


def _check_events(witness: Witness, program: Program, listener: Listener) -> None:
    own = [name for name in listener.names if name in set(program.tried)]
    for name in set(own):
        if own.count(name) > 1:
            witness.accuse(f"the agent has run the event {name} {own.count(name)} times")
    for name in program.sure:
        if name not in own:
            witness.accuse(f"the event {name} succeeded, and the agent never had it")
