"""`ServiceEndpoint`: connections to the members of a cluster that are alive."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping

from twisted.internet import error
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.logger import Logger
from zope.interface import implementer

from txserf import constant
from txserf.cluster.matching import Match, TagMatch
from txserf.cluster.view import ClusterView
from txserf.connection.hosts import Host
from txserf.errors import (
    ConnectError,
    InvalidRequest,
    NoMember,
    SerfError,
    encodable,
    failures_text,
    reason_text,
)
from txserf.model import Member

_log = Logger(namespace="txserf.cluster")

POLICIES = ("random", "round-robin", "nearest")

HIGHEST_PORT = 65535


@implementer(IStreamClientEndpoint)
class ServiceEndpoint:
    """
    An endpoint that connects to a member of the cluster that is alive and matches.

    ::

        endpoint = txserf.ServiceEndpoint(view, port=8080, role="web")
        protocol = await endpoint.connect(factory)

    It is an ``IStreamClientEndpoint``, for all of Twisted that takes one. The reactor of the view's `Serf` dials.

    :param view: the view that has the members. The first ``connect()`` starts it.
    :param port: the port that is dialled. Give this or *port_tag*.
    :param port_tag: the tag that has a member's port.
    :param policy: ``random`` dials a member at random, ``round-robin`` one after the other in the order of names,
        ``nearest`` the one with the shortest estimated round trip from the agent (`ClusterView.nearest`). Members whose
        distance is not known come last, at random, as all do while the agent is away.
    :param tags: as of `ClusterView.select`; *more_tags* are the same.
    :raises InvalidRequest: for a bad argument.
    """

    def __init__(
        self,
        view: ClusterView,
        *,
        port: int | None = None,
        port_tag: str | None = None,
        policy: str = "random",
        tags: Mapping[str, TagMatch] = {},
        **more_tags: TagMatch,
    ) -> None:
        if not isinstance(view, ClusterView):
            raise InvalidRequest(f"ServiceEndpoint: view must be a ClusterView, not {type(view).__name__}")
        if (port is None) == (port_tag is None):
            raise InvalidRequest("ServiceEndpoint: give either port or port_tag")
        if port is not None and (type(port) is not int or not 1 <= port <= HIGHEST_PORT):
            raise InvalidRequest(
                f"ServiceEndpoint: port must be an int from 1 to {HIGHEST_PORT}, not {port!r}"
            )
        if port_tag is not None and not isinstance(port_tag, str):
            raise InvalidRequest(f"ServiceEndpoint: port_tag must be str, not {port_tag!r}")
        if policy not in POLICIES:
            raise InvalidRequest(
                f"ServiceEndpoint: policy must be one of {', '.join(POLICIES)}, not {policy!r}"
            )
        Match("ServiceEndpoint", "alive", tags, more_tags)  # which checks them
        self._view = view
        self._port = port
        self._port_tag = port_tag
        self._policy = policy
        self._tags = {**tags, **more_tags}
        self._last = ""  # the name of the member that was dialled last

    def __repr__(self) -> str:
        return f"<ServiceEndpoint: {self._wanted()}>"

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """
        Connect to a member; to the next one where that can't be reached within ``constant.CONNECT_TIMEOUT``.

        It waits for the view's first snapshot. Each member is dialled once at most.

        :returns: a Deferred of the protocol. It fails with `NoMember` where no alive member matches, with
            `ConnectError` (``failures``) where none of those that do could be reached, and with `Disconnected` where the
            view is stopped. What the factory raises is no reason to dial the next one. It can be cancelled.
        """
        return Deferred.fromCoroutine(self._connect(protocolFactory))

    async def _connect(self, factory: IProtocolFactory) -> IProtocol:
        await self._view.when_ready()
        near = await self._by_distance() if self._policy == "nearest" else []
        tried: set[str] = set()
        failures: list[tuple[str, BaseException]] = []
        # Selected anew for each: a dialling may take seconds, in which others fail and come.
        while left := [each for each in self._view.select(tags=self._tags) if each.name not in tried]:
            member = self._choose(left, near)
            tried.add(member.name)
            label = member.name
            try:
                host = self._host_of(member)
                label += f" ({host.label})"
                endpoint = host.dialled_by(self._view.serf.clock, constant.CONNECT_TIMEOUT)
                protocol: IProtocol = await endpoint.connect(factory)
                return protocol
            except (error.ConnectError, ConnectError, OSError) as reason:
                failures.append((encodable(label), reason))
        if failures:
            text = f"no member could be reached that is alive and has {self._wanted()}: {failures_text(failures)}"
            raise ConnectError(text, failures=tuple(failures))
        stale = ", as far as is known while the agent is away" if self._view.stale else ""
        raise NoMember(f"no member is alive and has {self._wanted()}{stale}")

    async def _by_distance(self) -> list[str]:
        """Return the names of the members whose distance from the agent is known, the nearest first."""
        if self._view.stale:  # the question would wait for an agent
            return []
        try:
            found = await self._view.nearest(tags=self._tags)
        except SerfError as reason:
            _log.warn("the distances of members are not known: {reason}", reason=reason_text(reason))
            return []
        return [member.name for member, _ in found]

    def _choose(self, members: list[Member], near: list[str]) -> Member:
        """
        Return the one of *members* that is dialled next.

        :param members: at least one, in the order of names.
        :param near: the names of some, the nearest first.
        """
        if self._policy == "round-robin":
            chosen = next((member for member in members if member.name > self._last), members[0])
            self._last = chosen.name
            return chosen
        by_name = {member.name: member for member in members} if near else {}
        nearest = next((by_name[name] for name in near if name in by_name), None)
        return nearest or random.choice(members)

    def _host_of(self, member: Member) -> Host:
        """Return what is dialled; `ConnectError` where the member does not say that."""
        try:
            if member.address is None:
                raise ConnectError("the agent knows no address of it")
            port = self._port if self._port_tag is None else _port_in(member, self._port_tag)
        except ConnectError as reason:
            _log.warn(
                "member {name} is not dialled: {reason}",
                name=encodable(member.name),
                reason=reason_text(reason),
            )
            raise
        assert port is not None
        return Host(str(member.address), port)

    def _wanted(self) -> str:
        """Say which tags a member must have."""
        shown = [f"{tag}={value!r}" if isinstance(value, str) else tag for tag, value in self._tags.items()]
        return encodable(", ".join(shown)) or "any tags"


def _port_in(member: Member, tag: str) -> int:
    value = member.tags.get(tag)
    if value is None:
        raise ConnectError(f"it has no tag {tag!r} with a port")
    port = port_from_text(value)
    if port is None:
        raise ConnectError(f"its tag {tag!r} is no port: {value!r}")
    return port


def port_from_text(text: str) -> int | None:
    """Return the port that a text is; None where it is none."""
    # int() would take spaces, signs, underscores and the digits of other scripts.
    port = int(text) if re.fullmatch("[0-9]{1,5}", text) else 0
    return port if 1 <= port <= HIGHEST_PORT else None
