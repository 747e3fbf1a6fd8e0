"""The commands that go on: they follow something, or wait for it."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Coroutine, Iterable
from typing import Any

from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.task import deferLater

from txserf import wire
from txserf.cli import outputs
from txserf.cli.invocation import Invocation, Missing
from txserf.cli.parsing import UsageError
from txserf.cli.selection import Selection
from txserf.cluster.template import Template
from txserf.cluster.view import ClusterView
from txserf.commands import LOG_LEVELS
from txserf.errors import ConnectError, RequestTimeout, RpcError
from txserf.model import Answer, Gap, Member
from txserf.serf.query import Query
from txserf.service.members import full
from txserf.service.terminal import printable

# Seconds between two looks at whether the table on a terminal is still true.
_REDRAWN = 0.25

_CLEAR = "\x1b[2J"

# The kinds of changes, and the style of each.
_KINDS = {"member": "member", "added": "member-join", "changed": "member-update", "removed": "member-reap"}


async def limited(run: Invocation, work: Coroutine[Any, Any, None]) -> bool:
    """
    Do something for ``--timeout`` seconds at the most.

    :returns: whether it ended by itself.
    :raises ConnectError: if there was no connection in that time.
    """
    doing = Deferred.fromCoroutine(work)
    if run.timeout is not None:
        doing.addTimeout(run.timeout, run.serf.clock)
    try:
        await doing
    except TimeoutError:
        if not run.serf.factory.connections:
            raise _no_agent(run) from None
        return False
    return True


def _no_agent(run: Invocation) -> ConnectError:
    return ConnectError(f"no agent answered within {run.timeout:g} s: {run.serf.why_disconnected}")


def listed(names: Iterable[str]) -> str:
    """Return names for a sentence."""
    return ", ".join(map(printable, names))


# -- queries


async def query(run: Invocation) -> None:
    """Ask the members, and show the answers."""
    values = run.values
    expected = _expected(values["expect"])
    selection = Selection({"status": None, "tag": values["tag"]})
    asked = run.serf.query(
        values["name"],
        run.payload(),
        nodes=values["node"] or (),
        tags=selection.arguments.get("tags", {}),
        acks=not values["no_ack"],
        timeout=run.timeout,
        relay_factor=values["relay_factor"] or 0,
        # For a number too, because the agent's list of the members has the names of those that are missing.
        expect="all" if expected else None,
    )
    try:
        acks, answers = await _collect(run, asked, expected if isinstance(expected, int) else None)
    except RpcError:
        selection.compiled()  # if that fails too, the command line is wrong
        raise
    enough = len(answers) >= (expected if isinstance(expected, int) else 1)
    missing: list[str] = []
    if expected == "all" or (expected and not enough):
        missing = (await asked).missing
    elif not enough:
        missing = sorted(acks - answers.keys())
    if run.output == "json":
        shown = {node: wire.as_text(payload) for node, payload in answers.items()}
        run.show({"acks": sorted(acks), "answers": shown, "missing": missing})
    if missing or not enough:
        selection.compiled()  # nodes say nothing of a pattern that they can't read
        of = f" of {expected}" if isinstance(expected, int) else ""
        came = f"query {values['name']}: {len(answers)}{of} answers came"
        raise Missing(f"{came}; missing: {listed(missing)}" if missing else came)


def _expected(text: str | None) -> int | str | None:
    if text in (None, "all"):
        return text
    if text is not None and text.isascii() and text.isdecimal():
        return int(text)
    raise UsageError(f"--expect is a whole number or all, not {text!r}")


async def _collect(run: Invocation, asked: Query, enough: int | None) -> tuple[set[str], dict[str, bytes]]:
    """Show acks and answers, up to *enough* of these."""
    acks: set[str] = set()
    answers: dict[str, bytes] = {}
    line = run.lines(timed=False)
    try:
        async for record in asked:
            if isinstance(record, Answer):
                answers[record.node] = record.payload
                if run.output == "names":
                    run.write(printable(record.node))
            else:
                acks.add(record.node)
            if run.output not in ("names", "json"):
                run.write(line(record))
            if enough and len(answers) >= enough:
                break
    finally:
        asked.cancel()  # where it has not ended
    return acks, answers


# -- events, and the log


async def events(run: Invocation) -> None:
    """Show events as they come."""
    wanted: int | None = run.values["count"]
    stream = run.serf.stream(run.values["filter"], gaps=True)
    line = run.lines()
    seen = 0

    async def follow() -> None:
        nonlocal seen
        await stream.when_active()
        async for event in stream:
            run.write(line(event))
            seen += not isinstance(event, Gap)
            if seen == wanted:
                return

    if not await limited(run, follow()) and wanted is not None:
        raise Missing(f"events: {seen} of {wanted} came")


async def monitor(run: Invocation) -> None:
    """Show the agent's log."""
    level: str = run.values["level"].upper()
    if level not in LOG_LEVELS:
        raise UsageError(f"monitor: LEVEL is one of {', '.join(LOG_LEVELS)}, not {run.values['level']!r}")
    log = run.serf.monitor(level)
    shown = run.lines()

    async def follow() -> None:
        async for line in log:
            # As text it is the agent's own line, which has a time.
            run.write(printable(line.line) if run.output == "text" else shown(line))

    await limited(run, follow())


# -- members


async def wait(run: Invocation) -> None:
    """Wait for members."""
    selection, number = Selection(run.values).compiled(), run.values["number"]
    view = ClusterView(run.serf)
    try:
        await view.wait_for(
            lambda members: len(selection.of(members)) >= number, status=None, timeout=run.timeout
        )
    except RequestTimeout:
        if not run.serf.factory.connections:
            raise _no_agent(run) from None
        found = selection.of(view.members.values())
        others = Selection({**run.values, "status": None}).compiled().of(view.members.values())
        missing = [f"{each.name} ({each.status})" for each in others if each not in found]
        came = f"wait: {len(found)} of {number} members are there"
        came += f" ({listed(each.name for each in found)})" if found else ""
        raise Missing(f"{came}; missing: {listed(missing)}" if missing else came) from None
    else:
        run.show_members(selection.of(view.members.values()))
    finally:
        await view.stopService()


async def watch_members(run: Invocation) -> None:
    """Show the members, and their changes."""
    if run.output not in ("table", "text", "json", "jsonl"):
        raise UsageError(f"--watch has no output {run.output}")
    selection = Selection(run.values).compiled()
    view = ClusterView(run.serf)
    redraws = run.output == "table" and run.look.can_redraw
    work = _redraw(run, view, selection) if redraws else _write_changes(run, view, selection)
    try:
        await limited(run, work)
    finally:
        await view.stopService()


async def _write_changes(run: Invocation, view: ClusterView, selection: Selection) -> None:
    await view.when_ready()
    changes = view.changes()
    for member in selection.of(view.members.values()):
        _write_change(run, "member", member)
    async for change in changes:
        old, new = (
            member if member is not None and selection.has(member) else None
            for member in (change.old, change.new)
        )
        if new is not None and new != old:
            _write_change(run, "added" if old is None else "changed", new)
        elif old is not None and new is None:
            _write_change(run, "removed", change.new or old)


def _write_change(run: Invocation, kind: str, member: Member) -> None:
    if run.is_json:
        run.write(json.dumps({**full(member), "type": kind}))
    else:
        run.write(*run.look.columns([[(kind, _KINDS[kind]), *outputs.member_cells(member)]]))


async def _redraw(run: Invocation, view: ClusterView, selection: Selection) -> None:
    """Draw the table, and again when something has changed."""
    changes = 0

    def changed(old: Member | None, new: Member | None) -> None:
        nonlocal changes
        changes += 1

    await view.when_ready()
    run.show_no_log()
    forget = view.on_change(changed)
    run.draw(_CLEAR)
    drawn: object = None
    try:
        while True:
            state = (changes, run.look.size, run.serf.why_disconnected)
            if state != drawn:
                run.draw(run.look.redrawn(_frame(run, view, selection)))
                drawn = state
            await deferLater(run.serf.clock, _REDRAWN)
            await view.when_ready()  # it fails if the view has
    finally:
        forget()


def _frame(run: Invocation, view: ClusterView, selection: Selection) -> list[str]:
    members = selection.of(view.members.values())
    why = run.serf.why_disconnected
    lines = run.look.columns(map(outputs.member_cells, members), outputs.MEMBER_HEADER)
    counts = Counter(str(member.status) for member in members)
    told = ", ".join(f"{count} {status}" for status, count in sorted(counts.items())) or "no members"
    return [
        run.look.styled(told, "hint") if why is None else run.look.styled(f"{told}; {why}", "error"),
        "",
        *lines,
    ]


# -- templates


async def template(run: Invocation) -> None:
    """Write a file from a template."""
    values = run.values
    mode: str | None = values["mode"]
    if mode is not None and not re.fullmatch("0?[0-7]{3}", mode):
        raise UsageError(f"--mode is octal digits such as 0640, not {mode!r}")
    view = ClusterView(run.serf)
    made = Template(
        view,
        os.path.abspath(values["source"]),
        os.path.abspath(values["destination"]),
        check=values["check"],
        reload=values["reload"],
        mode=None if mode is None else int(mode, 8),
    )
    try:
        if values["watch"]:
            made.startService()
            await limited(run, _for_ever())
        else:
            await view.when_ready()
            await made.write_once()
    finally:
        await made.stopService()
        await view.stopService()


async def _for_ever() -> None:
    await Deferred()
