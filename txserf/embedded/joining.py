"""
Commands that an agent takes its time over: joining, leaving, tags.

Each is a coroutine, which the RPC awaits before it reads that connection's next
request. Errors are `Refused`, their texts Serf's and memberlist's.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping

from txserf.embedded import sizes
from txserf.embedded.process import BROADCAST_TIMEOUT, LEAVE_PROPAGATE_DELAY, AgentProcess, AgentState
from txserf.embedded.queries import GOSSIP_INTERVAL, Refused
from txserf.model import Tags

#: Seconds that a join waits for an address that does not answer.
TCP_TIMEOUT = 1.0

# -- joining


async def join(process: AgentProcess, addresses: Iterable[str], replay: bool) -> int:
    """
    Join by gossip addresses, one after the other, and no two joins of an agent at a time.

    :returns: how many worked.
    """
    existing = tuple(addresses)
    flag = "true" if replay else "false"
    process.log.write("INFO", f"agent: joining: [{' '.join(existing)}] replay: {flag}")
    if process.state is not AgentState.ALIVE:
        raise _not_joined(process, "Serf can't Join after Leave or Shutdown")
    await process.join_lock.acquire()
    try:
        joined, failures = 0, []
        for address in existing:
            try:
                await _join_one(process, address, replay)
                joined += 1
            except Refused as failure:
                process.log.write("DEBUG", f"memberlist: {failure}")
                failures.append(str(failure))
    finally:
        process.join_lock.release()
    if joined:
        process.log.write("INFO", f"agent: joined: {joined} nodes")
        process.broadcast_join()
    elif failures:
        count = f"{len(failures)} error{'s' if len(failures) > 1 else ''} occurred:"
        raise _not_joined(process, f"{count}\n" + "".join(f"\t* {failure}\n" for failure in failures) + "\n")
    return joined


def _not_joined(process: AgentProcess, reason: str) -> Refused:
    process.log.write("WARN", f"agent: error joining: {reason.rstrip()}")
    return Refused(reason)


async def _join_one(process: AgentProcess, address: str, replay: bool) -> None:
    ip, port = _resolve(address, process.seat.port)
    target = process.network.node_at(ip, port)
    where = f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"
    if target is None:
        raise Refused(f"Failed to join {ip}: dial tcp {where}: connect: connection refused")
    if target.frozen_at is not None or not process.network.connected(process, target):
        await process.agenda.sleep(TCP_TIMEOUT)
        raise Refused(f"Failed to join {ip}: dial tcp {where}: i/o timeout")
    await process.agenda.sleep(2 * process.seat.place.delay_to(target.seat.place))
    if target.running and target is not process:
        process.network.merge(process, target, replay=replay)


def _resolve(address: str, own_port: int) -> tuple[str, int]:
    """Return the IP address and the port in ``[NODE/]HOST[:PORT]``."""

    def failed(reason: str) -> Refused:
        return Refused(f"Failed to resolve {address}: {reason}")

    node, slash, rest = address.rpartition("/") if "/" in address else ("", "", address)
    if slash:
        node, _, rest = address.partition("/")
        if not node:
            raise failed("empty node name provided")
    bracketed = re.fullmatch(r"\[([^\[\]]*)\](?::([^:]*))?", rest)
    if bracketed is not None:
        host, port = bracketed[1], bracketed[2]
    elif rest.count(":") == 1:
        host, _, port = rest.partition(":")
    else:
        host, port = rest, None
    number = own_port
    if port is not None:
        if not port.isdecimal() or not port.isascii():
            raise failed(f'strconv.ParseUint: parsing "{port}": invalid syntax')
        number = int(port)
        if number > 65535:
            raise failed(f'strconv.ParseUint: parsing "{port}": value out of range')
    try:
        return str(ipaddress.ip_address("127.0.0.1" if host == "localhost" else host)), number
    except ValueError:
        raise failed(f"lookup {host}: no such host") from None


# -- leaving


async def leave(process: AgentProcess) -> None:
    """
    Leave the cluster, which ends the agent: the caller does that once it has told about it.

    :raises Refused: where it is leaving already.
    """
    process.log.write("INFO", "agent.ipc: Graceful leave triggered")
    process.log.write("INFO", "agent: requesting graceful leave from Serf")
    if process.state is AgentState.LEAVING:
        process.log.write("ERR", "agent.ipc: leave failed: Leave already in progress")
        raise Refused("Leave already in progress")
    await process.readable()
    process.state = AgentState.LEAVING
    knowledge, name = process.knowledge, process.name
    knowledge.refutes = False
    ltime = knowledge.clock.time
    knowledge.clock.increment()
    knowledge.leave_intent(ltime, name)
    if knowledge.others_alive():
        process.network.broadcast(process, lambda other: other.leave_intent(ltime, name))
        await process.agenda.sleep(GOSSIP_INTERVAL)
    incarnation = process.seat.incarnation
    knowledge.dead(name)
    process.network.broadcast(process, lambda other: other.dead(name, incarnation))
    await process.gossip()
    await process.agenda.sleep(LEAVE_PROPAGATE_DELAY)
    if process.running:
        process.state = AgentState.LEFT


async def force_leave(process: AgentProcess, node: str, prune: bool) -> None:
    """Have a failed node count as left; with *prune*, be forgotten."""
    how = " (prune)" if prune else ""
    process.log.write("INFO", f"agent: Force leaving node{how}: {node}")
    await process.readable()
    knowledge = process.knowledge
    ltime = knowledge.clock.time
    knowledge.clock.increment()
    knowledge.leave_intent(ltime, node, prune)
    await process.readable()
    # A node that was alive is no more, as this one sees it: then nobody is told.
    if knowledge.others_alive():
        seat = process.network.seats.get(node)
        if seat is not None and seat.node is not None:
            seat.node.watch()  # it may have something to say to this
        process.network.broadcast(process, lambda other: other.leave_intent(ltime, node, prune))
        await process.agenda.sleep(GOSSIP_INTERVAL)


# -- tags


async def set_tags(process: AgentProcess, new: Mapping[str, str], deleted: Iterable[str]) -> None:
    """Delete tags of the agent's own, then set some."""
    gone = set(deleted)
    tags = Tags({**{name: value for name, value in process.tags.items() if name not in gone}, **new})
    if sizes.tags(tags) > sizes.TAGS_LIMIT:
        raise Refused(f"Encoded length of tags exceeds limit of {sizes.TAGS_LIMIT} bytes")
    await process.readable()
    process.tags = tags
    process.seat.incarnation += 1
    if process.state is not AgentState.ALIVE:  # nobody hears of it any more
        await process.agenda.sleep(BROADCAST_TIMEOUT)
        raise Refused("timeout waiting for update broadcast")
    process.broadcast_alive()
    await process.gossip()
