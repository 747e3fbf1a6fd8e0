"""Members in the forms that other programs read, for the command ``txserf`` and over HTTP alike."""

from __future__ import annotations

import re
from typing import Any

from txserf.connection.hosts import address_label
from txserf.model import Member

_VERSIONS = ("min", "max", "current")
_NO_LABEL = re.compile("[^A-Za-z0-9_]")


def brief(member: Member) -> dict[str, Any]:
    """Return a member as the fields of a JSON object, as records of events have it."""
    return {
        "name": member.name,
        "address": None if member.address is None else str(member.address),
        "port": member.port,
        "status": str(member.status),
        "tags": member.tags,
    }


def full(member: Member) -> dict[str, Any]:
    """Return a member as the fields of a JSON object, with the versions that it speaks, as lists of members have it."""
    versions = {"protocol": member.protocol, "delegate": member.delegate}
    return {
        **brief(member),
        "versions": {kind: dict(zip(_VERSIONS, each, strict=True)) for kind, each in versions.items()},
    }


def target(member: Member, port: int | None) -> dict[str, Any] | None:
    """
    Return a member as an entry of Prometheus' file_sd and http_sd.

    :param port: the port that the member serves on; None if it has none.
    :returns: None for a member without a port or an address.
    """
    if member.address is None or port is None:
        return None
    labels = {"__meta_serf_name": member.name, "__meta_serf_status": str(member.status)}
    for tag, value in sorted(member.tags.items()):
        labels[f"__meta_serf_tag_{_NO_LABEL.sub('_', tag)}"] = value
    return {"targets": [address_label(str(member.address), port)], "labels": labels}


def port_number(text: str) -> int | None:
    """Return the port that *text* names, such as the value of a tag; None if it names none."""
    # The ASCII digits only: int() takes others too, blanks and underscores.
    return int(text) if re.fullmatch("[0-9]{1,5}", text) and 1 <= int(text) <= 65535 else None
