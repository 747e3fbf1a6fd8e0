"""Members in each of the outputs."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from txserf.connection.hosts import address_label
from txserf.model import Member
from txserf.service import lines
from txserf.service.terminal import Cell, printable

#: The headings of `member_cells`.
MEMBER_HEADER = ("NAME", "ADDRESS", "STATUS", "TAGS")

# A name in /etc/hosts: a stranger's member may have any name, also one with a new line in it.
_HOST_NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,251}[A-Za-z0-9_])?")
_NO_GROUP = re.compile(r"[^A-Za-z0-9_]")
_NO_LABEL = re.compile(r"[^A-Za-z0-9_]")


def member_cells(member: Member) -> list[Cell]:
    """Return a member as a row of a table."""
    tags = ",".join(f"{key}={value}" for key, value in sorted(member.tags.items()))
    status = str(member.status)
    return [(member.name, "member"), where(member) or "-", (status, status), tags]


def where(member: Member) -> str:
    """Return the address of a member with its port; empty if it has none."""
    return "" if member.address is None else address_label(str(member.address), member.port)


def member_record(member: Member) -> dict[str, Any]:
    """Return a member as ``-o json`` has it."""
    found: dict[str, Any] = json.loads(lines.as_json(member))
    return found


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
        elif _HOST_NAME.fullmatch(member.name) is None:
            warn(f"{printable(member.name)!r} is no name that a host can have")
        else:
            found.append(f"{member.address}\t{member.name}")
    return found


def variables(member: Member) -> dict[str, Any]:
    """Return the variables that Ansible's inventory has of a member."""
    address = {} if member.address is None else {"ansible_host": str(member.address)}
    return {
        **address,
        "serf_address": where(member),
        "serf_status": str(member.status),
        "serf_tags": dict(member.tags),
    }


def inventory(members: Sequence[Member]) -> dict[str, Any]:
    """
    Return the members as an inventory of Ansible.

    There is a group for each status, such as ``status_alive``, and for each value of a tag, such as ``tag_role_web``.
    """
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
        own = str(port or member.port) if port_tag is None else member.tags.get(port_tag, str(port or ""))
        if member.address is None or not (own.isascii() and own.isdecimal() and 0 < int(own) < 65536):
            continue
        labels = {"__meta_serf_name": member.name, "__meta_serf_status": str(member.status)}
        for key, value in sorted(member.tags.items()):
            labels[f"__meta_serf_tag_{_NO_LABEL.sub('_', key)}"] = value
        found.append({"targets": [address_label(str(member.address), int(own))], "labels": labels})
    return found
