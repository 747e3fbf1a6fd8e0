"""Members in each of the outputs."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

from txserf.connection.hosts import address_label
from txserf.model import Member
from txserf.service.members import port_number, target
from txserf.service.terminal import Cell, printable

#: The headings of `member_cells`.
MEMBER_HEADER = ("NAME", "ADDRESS", "STATUS", "TAGS")

# A name that a host can have: a stranger's member may have any name, also one with a new line in it.
_HOST_NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,251}[A-Za-z0-9_])?")
_NO_GROUP = re.compile(r"[^A-Za-z0-9_]")


def member_cells(member: Member) -> list[Cell]:
    """Return a member as a row of a table."""
    tags = ",".join(f"{key}={value}" for key, value in sorted(member.tags.items()))
    status = str(member.status)
    return [(member.name, "member"), where(member) or "-", (status, status), tags]


def where(member: Member) -> str:
    """Return the address of a member with its port; empty if it has none."""
    return "" if member.address is None else address_label(str(member.address), member.port)


def names(members: Iterable[Member]) -> list[str]:
    """Return a line for each name."""
    return [printable(member.name) for member in members]


def hosts(members: Iterable[Member], warn: Callable[[str], object]) -> list[str]:
    """
    Return lines for /etc/hosts.

    :param warn: called with a sentence for each member that is left out.
    """
    found = []
    for member in members:
        if member.address is None:
            warn(f"{printable(member.name)} has no address")
        elif _is_host(member, warn):
            found.append(f"{member.address}\t{member.name}")
    return found


def _is_host(member: Member, warn: Callable[[str], object]) -> bool:
    if _HOST_NAME.fullmatch(member.name) is None:
        warn(f"'{printable(member.name)}' is no name that a host can have")
        return False
    return True


def variables(member: Member) -> dict[str, Any]:
    """Return the variables that Ansible's inventory has of a member."""
    address = {} if member.address is None else {"ansible_host": str(member.address)}
    return {
        **address,
        "serf_address": where(member),
        "serf_status": str(member.status),
        "serf_tags": {key: _no_template(value) for key, value in member.tags.items()},
    }


def _no_template(value: str) -> str | dict[str, str]:
    """Return a value that Ansible takes as it is. It would run a template, and that can run programs."""
    return {"__ansible_unsafe": value} if "{" in value else value


def inventory(members: Iterable[Member], warn: Callable[[str], object]) -> dict[str, Any]:
    """
    Return the members as an inventory of Ansible.

    There is a group for each status, such as ``status_alive``, and for each value of a tag, such as ``tag_role_web``.

    :param warn: called with a sentence for each member that is left out.
    """
    members = [member for member in members if _is_host(member, warn)]
    groups: dict[str, list[str]] = {}
    for member in members:
        own = [f"status_{member.status}", *(f"tag_{key}_{value}" for key, value in member.tags.items())]
        for group in dict.fromkeys(_NO_GROUP.sub("_", group) for group in own):
            groups.setdefault(group, []).append(member.name)
    return {
        "_meta": {"hostvars": {member.name: variables(member) for member in members}},
        "all": {"hosts": [member.name for member in members], "children": sorted(groups)},
        **{group: {"hosts": groups[group]} for group in sorted(groups)},
    }


def targets(
    members: Iterable[Member], port: int | None = None, port_tag: str | None = None
) -> list[dict[str, Any]]:
    """
    Return the members as targets of Prometheus, in the form of its file_sd and http_sd.

    :param port: of all; without it and *port_tag* that of each member's gossip.
    :param port_tag: the tag with the port; a member that has none is left out, unless there is *port*.
    """
    found = []
    for member in members:
        own = port or member.port if port_tag is None else port
        if port_tag is not None and port_tag in member.tags:
            own = port_number(member.tags[port_tag])
        found.append(target(member, own))
    return [entry for entry in found if entry is not None]
