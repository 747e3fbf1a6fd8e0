"""
What an agent does when it is asked to and takes its time over: joining, leaving, tags, keys.

Each is a coroutine, which the RPC awaits before it reads that connection's next
request. Errors are `Refused`, their texts Serf's and memberlist's.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping
from math import ceil, log10

from twisted.internet.defer import Deferred, DeferredLock

from txserf.embedded import sizes
from txserf.embedded.keyring import KeyFailure, decode_key
from txserf.embedded.process import (
    BROADCAST_TIMEOUT,
    GOSSIP_INTERVAL,
    LEAVE_PROPAGATE_DELAY,
    AgentProcess,
    State,
)
from txserf.embedded.queries import Content, KeyAnswer, Question, Refused, RunningQuery
from txserf.model import KeyReply, Tags
from txserf.wire import as_bytes

#: Seconds that a join waits for an address that does not answer.
TCP_TIMEOUT = 1.0

_QUERY_TIMEOUT_MULTIPLE = 16


def default_query_timeout(nodes: int) -> int:
    """Return the nanoseconds that a query runs where its asker names no time."""
    return round(GOSSIP_INTERVAL * 1e9) * _QUERY_TIMEOUT_MULTIPLE * ceil(log10(nodes + 1))


# -- events and queries


def user_event(process: AgentProcess, name: str, payload: bytes, coalesce: bool) -> None:
    """Send a user event."""
    _check_event(process.knowledge.event_clock.time, name, payload)
    process.send_user_event(name, payload, coalesce)


def _check_event(ltime: int, name: str, payload: bytes) -> None:
    limit = f"exceeds configured limit of {sizes.EVENT_LIMIT} bytes"
    if len(as_bytes(name)) + len(payload) > sizes.EVENT_LIMIT:
        raise Refused(f"user event {limit} before encoding")
    if sizes.user_event(ltime, name, payload) > sizes.EVENT_LIMIT:
        raise Refused(f"encoded user event {limit} after encoding")


def ask(process: AgentProcess, question: Question, running: RunningQuery) -> None:
    """Start a query."""
    size = sizes.query(
        question.ltime,
        process.name,
        question.name,
        question.payload,
        question.timeout,
        question.filter_nodes,
        question.filter_tags,
    )
    if size > sizes.QUERY_LIMIT:
        raise Refused(f"query exceeds limit of {sizes.QUERY_LIMIT} bytes")
    process.ask(question, running)


# -- joining


async def join(process: AgentProcess, addresses: Iterable[str], replay: bool, lock: DeferredLock) -> int:
    """
    Join by gossip addresses, one after the other, and no two joins at a time.

    :returns: how many worked.
    """
    existing = tuple(addresses)
    flag = "true" if replay else "false"
    process.log.write("INFO", f"agent: joining: [{' '.join(existing)}] replay: {flag}")
    if process.state is not State.ALIVE:
        raise _not_joined(process, "Serf can't Join after Leave or Shutdown")
    await lock.acquire()
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
        lock.release()
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
    ip, port = _resolve(address, process.agent.port)
    agent = process.network.at(ip, port)
    target = None if agent is None else agent.process
    where = f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"
    if target is None:
        raise Refused(f"Failed to join {ip}: dial tcp {where}: connect: connection refused")
    if target.frozen or not process.network.connected(process, target):
        await process.agenda.sleep(TCP_TIMEOUT)
        raise Refused(f"Failed to join {ip}: dial tcp {where}: i/o timeout")
    await process.agenda.sleep(2 * process.agent.place.delay_to(target.agent.place))
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
    if process.state is State.LEAVING:
        process.log.write("ERR", "agent.ipc: leave failed: Leave already in progress")
        raise Refused("Leave already in progress")
    await process.readable()
    process.state = State.LEAVING
    knowledge, name = process.knowledge, process.name
    knowledge.refutes = False
    ltime = knowledge.clock.time
    knowledge.clock.increment()
    knowledge.leave_intent(ltime, name)
    if knowledge.others_alive():
        process.broadcast(lambda other: other.leave_intent(ltime, name))
        await process.agenda.sleep(GOSSIP_INTERVAL)
    incarnation = process.agent.incarnation
    knowledge.dead(name)
    process.broadcast(lambda other: other.dead(name, incarnation))
    await process.gossip()
    await process.agenda.sleep(LEAVE_PROPAGATE_DELAY)
    if process.running:
        process.state = State.LEFT


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
        agent = process.network.agents.get(node)
        if agent is not None and agent.process is not None:
            agent.process.watch()  # it may have something to say to this
        process.broadcast(lambda other: other.leave_intent(ltime, node, prune))
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
    process.agent.incarnation += 1
    if process.state is not State.ALIVE:  # nobody hears of it any more
        await process.agenda.sleep(BROADCAST_TIMEOUT)
        raise Refused("timeout waiting for update broadcast")
    process.broadcast_alive()
    await process.gossip()


# -- keys


async def change_keys(
    process: AgentProcess, command: str, key: str, lock: DeferredLock
) -> tuple[str, KeyReply]:
    """
    Have each node do something to its keyring.

    :param command: the wire name.
    :returns: an error, empty for none, and what the nodes said.
    """
    initiated = {
        "install-key": "key installation",
        "use-key": "primary key change",
        "remove-key": "key removal",
        "list-keys": "key listing",
    }
    process.log.write("INFO", f"agent: Initiating {initiated[command]}")
    await lock.acquire()
    if command == "list-keys":  # these don't exclude each other
        lock.release()
    try:
        decoded = decode_key(key)
        return await _ask_for_keys(process, command, decoded)
    except (KeyFailure, Refused) as failure:
        return str(failure), KeyReply()
    finally:
        if command != "list-keys":
            lock.release()


async def _ask_for_keys(process: AgentProcess, command: str, key: bytes) -> tuple[str, KeyReply]:
    nodes = len(process.knowledge.present)
    answers: dict[str, KeyAnswer] = {}
    over: Deferred[None] = Deferred()

    def end() -> None:
        if not over.called:
            over.callback(None)

    def answered(node: str, content: Content) -> None:
        if isinstance(content, KeyAnswer) and not over.called:
            answers[node] = content
            if len(answers) == nodes:
                end()

    question = Question(
        name=f"_serf_{command}",
        payload=bytes(6 + sizes.raw(key)),
        ltime=process.knowledge.query_clock.time,
        timeout=default_query_timeout(nodes),
        key=key,
    )
    ask(process, question, RunningQuery(lambda _: None, answered, end))
    await over
    return _key_result(answers, nodes)


def _key_result(answers: Mapping[str, KeyAnswer], nodes: int) -> tuple[str, KeyReply]:
    keys: dict[str, int] = {}
    for answer in answers.values():
        for key in answer.keys:
            keys[key] = keys.get(key, 0) + 1
    messages = {node: answer.message for node, answer in answers.items() if answer.message or not answer.done}
    errors = sum(not answer.done for answer in answers.values())
    error = ""
    if errors:
        error = f"{errors}/{nodes} nodes reported failure"
    elif len(answers) != nodes:
        error = f"{len(answers)}/{nodes} nodes reported success"
    return error, KeyReply(keys, messages, nodes, errors, len(answers))
