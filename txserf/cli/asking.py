"""The commands that ask once, and show the answer."""

from __future__ import annotations

from collections.abc import Iterable

from txserf import constant
from txserf.cli import outputs
from txserf.cli.invocation import Invocation, stdin
from txserf.cli.parsing import UsageError, tags
from txserf.cli.selection import Selection
from txserf.errors import RpcError, hides_arguments
from txserf.model import KeyReply
from txserf.service.members import full
from txserf.service.terminal import printable


async def members(run: Invocation) -> None:
    """Show the members."""
    if run.values["watch"]:
        from txserf.cli.watching import watch_members

        await watch_members(run)
        return
    selection = Selection(run.values)
    try:
        found = await run.serf.members(**selection.arguments)
    except RpcError:
        selection.compiled()  # if that fails too, the command line is wrong
        raise
    run.show_members(found)


async def event(run: Invocation) -> None:
    """Send a user event."""
    name: str = run.values["name"]
    await run.serf.event(name, run.payload(), coalesce=not run.values["no_coalesce"])
    run.show({"event": name}, f"event {printable(name)} was sent")


async def nearest(run: Invocation) -> None:
    """Show members by their distance."""
    from txserf.cluster.view import ClusterView  # here, for the other commands need no view

    selection = Selection(run.values).compiled()
    view = ClusterView(run.serf)
    try:
        found = await view.nearest(run.values["node"], within=run.values["within"], status=None)
    finally:
        await view.stopService()
    near = [pair for pair in found if selection.has(pair[0])][: run.values["count"]]
    if run.output == "names":
        run.write(*outputs.names(member for member, _ in near))
        return
    run.show_list(
        [{**full(member), "seconds": seconds} for member, seconds in near],
        [[*outputs.member_cells(member)[:2], _milliseconds(seconds)] for member, seconds in near],
        (*outputs.MEMBER_HEADER[:2], "RTT"),
    )


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.3f} ms"


async def rtt(run: Invocation) -> None:
    """Estimate a round trip."""
    node, other = run.values["node"], run.values["other"]
    if other is None:
        other = (await run.serf.stats()).get("agent", {}).get("name", "")
    seconds = await run.serf.rtt(node, other)
    record = {"node": node, "other": other, "seconds": seconds}
    run.show(record, f"{printable(node)} {printable(other)} {_milliseconds(seconds)}")


async def info(run: Invocation) -> None:
    """Show figures about the agent."""
    stats = await run.serf.stats()
    if run.is_json:
        run.show(stats)
        return
    rows = [
        (section, name, value)
        for section, values in sorted(stats.items())
        for name, value in sorted(values.items())
    ]
    run.show_rows(rows, ("SECTION", "NAME", "VALUE"))


async def join(run: Invocation) -> None:
    """Make the agent join a cluster."""
    addresses: list[str] = run.values["address"]
    # The agent may spend 10 s on each.
    patience = run.timeout or constant.SERF_TIMEOUT * (1 + len(addresses))
    joined = await run.serf.join(addresses, replay=bool(run.values["replay"]), timeout=patience)
    run.show({"joined": joined, "addresses": addresses}, f"joined {joined} of {len(addresses)}")


async def leave(run: Invocation) -> None:
    """Make the agent leave."""
    await run.serf.leave()
    run.show({"left": True}, "the agent has left")


async def force_leave(run: Invocation) -> None:
    """Make a failed member one that left."""
    node: str = run.values["node"]
    await run.serf.force_leave(node, prune=bool(run.values["prune"]))
    run.show({"node": node, "pruned": bool(run.values["prune"])}, f"{printable(node)} was made to leave")


async def change_tags(run: Invocation) -> None:
    """Show or change the tags of the agent's own node."""
    action, items = run.values["action"], run.values["item"]
    if action is not None and not items:
        raise UsageError(f"tags {action} needs {'KEY=VALUE' if action == 'set' else 'KEY'}")
    if action == "set":
        await run.serf.set_tags(tags(items, "tags set"))
    elif action == "delete":
        await run.serf.set_tags(delete=items)
    now = (await run.serf.stats()).get("tags", {})
    if run.is_json:
        run.show(now)
    else:
        run.show_rows(sorted(now.items()), ("TAG", "VALUE"))


@hides_arguments
async def keys(run: Invocation) -> None:
    """Show or change the keys."""
    action: str = run.values["action"]
    if action == "list":
        if run.values["key"] is not None:
            raise UsageError("keys list takes no KEY")
        _show_keys(run, await run.serf.list_keys())
        return
    key = run.values["key"]
    if key is None:
        raise UsageError(f"keys {action} needs KEY")
    if key == "-":
        key = stdin().readline().strip()
    serf = run.serf
    change = {"install": serf.install_key, "use": serf.use_key, "remove": serf.remove_key}[action]
    reply = await change(key)
    record = {"nodes": reply.nodes, "responses": reply.responses, "messages": reply.messages}
    run.show(record, f"{reply.responses} of {reply.nodes} nodes did it", *_messages(reply))


def _show_keys(run: Invocation, reply: KeyReply) -> None:
    if run.is_json:
        run.show({"keys": reply.keys, "nodes": reply.nodes})
        return
    rows = [(key, f"{count}/{reply.nodes}") for key, count in sorted(reply.keys.items())]
    run.show_rows(rows, ("KEY", "NODES"))


def _messages(reply: KeyReply) -> Iterable[str]:
    return [f"{printable(node)}: {printable(text)}" for node, text in sorted(reply.messages.items()) if text]
