"""The typed API: `Serf` reconnects by itself, returns values and raises exceptions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any, Literal

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList

from txserf import commands, constant
from txserf.arguments import count, nanoseconds, seconds
from txserf.commands import Command
from txserf.connection.factory import SerfClientFactory
from txserf.connection.hosts import Hosts
from txserf.connection.session import Session, summary
from txserf.errors import (
    Disconnected,
    InvalidRequest,
    JoinError,
    RpcError,
    failures_text,
    hides_arguments,
)
from txserf.filters import parse_filter
from txserf.model import Coordinate, KeyReply, Member, MemberStatus
from txserf.serf.advertise import Advertisement, Advertiser
from txserf.serf.call import Call, Ping
from txserf.serf.logs import LogStream, Monitors
from txserf.serf.query import Query
from txserf.serf.recipients import Rosters, member_filters
from txserf.serf.streams import EventStream


class Serf(Service):
    """
    A client of Serf's agents that is always connected to one of them.

    ::

        async with txserf.Serf("10.0.0.1,10.0.0.2") as serf:
            print(await serf.members(status="alive"))

    It is a service (``setServiceParent``) and an async context manager; a command
    before either starts it. It stays connected to one of the hosts until it is closed.

    Each command takes ``timeout`` in seconds (None for this `Serf`'s own), which covers the wait for a
    connection too, and returns a Deferred that can be cancelled. Neither a timeout nor a cancel harms the
    connection. A bad argument raises `InvalidRequest` at the call, and one call more than
    `constant.CALLS_LIMIT` under way raises `Overloaded` there. The Deferred fails with `RpcError` (the
    agent's own words), `RequestTimeout`, `ConnectionLost` (the agent was lost while it worked on a command
    that is not sent twice), `AuthenticationError`, or `Disconnected` once it is closed.

    :param hosts: a host list, see :doc:`/hosts`; None takes ``$SERF_RPC_ADDR``, else ``127.0.0.1:7373``.
    :param reactor: dials and keeps the time; None takes the global reactor at the first use.
    :param timeout: seconds for each command.
    :param connect_timeout: seconds to connect, then again for handshake and auth.
    :param heartbeat: seconds between checks of the connection; None for none.
    :raises InvalidHostURL: at once, for a host list that is not understood.
    """

    @hides_arguments
    def __init__(
        self,
        hosts: Hosts = None,
        *,
        reactor: Any = None,
        timeout: float = constant.SERF_TIMEOUT,
        connect_timeout: float = constant.CONNECT_TIMEOUT,
        heartbeat: float | None = constant.HEARTBEAT,
    ) -> None:
        self._timeout = seconds(timeout, "timeout")
        self._session = Session(
            hosts, reconnect=True, reactor=reactor, connect_timeout=connect_timeout, heartbeat=heartbeat
        )
        self._monitors = Monitors(self._session, self._timeout)
        self._advertiser = Advertiser(self._session, self._timeout)
        self._rosters = Rosters()  # the views that are open
        self._closed = False

    def __repr__(self) -> str:
        return f"<Serf: {summary(self)}>"

    # A service, and a context

    def startService(self) -> None:
        """Begin to connect."""
        super().startService()  # type: ignore[no-untyped-call]  # Twisted's own
        self._closed = False
        self._advertiser.hurry()
        self._session.connect()

    def stopService(self) -> Deferred[None]:
        """As `close`."""
        super().stopService()  # type: ignore[no-untyped-call]  # Twisted's own
        self._closed = True
        withdrawn = self._advertiser.close()
        if withdrawn is None:
            return self._session.disconnect()
        return withdrawn.addCallback(lambda _: self._session.disconnect())

    def close(self) -> Deferred[None]:
        """
        End everything: streams end, calls that wait fail with `Disconnected`.

        Where tags are advertised and the agent is there, it puts them back first, which takes it a moment. The calls that
        wait go on as long.

        :returns: a Deferred of None, once the sockets are closed.
        """
        return self.stopService()

    async def __aenter__(self) -> Serf:
        self._begin()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    def when_connected(self) -> Deferred[Serf]:
        """
        Wait for a connection; it starts nothing.

        :returns: a Deferred of this `Serf`. It fails with `AuthenticationError` where
            every host refused the key, or with `Disconnected`.
        """
        return self._session.factory.when_connected().addCallback(lambda _: self)

    @property
    def factory(self) -> SerfClientFactory:
        """The factory of its connections: the hosts, the open connection, how many there have been."""
        return self._session.factory

    @property
    def clock(self) -> Any:
        """The source of time, as ``IReactorTime``: the reactor that was given, or the global one."""
        return self._session.clock

    @property
    def why_disconnected(self) -> str | None:
        """Say in a line why there is no connection now; None while there is one."""
        factory = self._session.factory
        if factory.open_connection is not None:
            return None
        failures = failures_text(factory.last_failures)
        return f"not connected: {failures}" if failures else "not connected"

    # Members

    def members(
        self,
        *,
        name: str | None = None,
        status: str | None = None,
        tags: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> Deferred[list[Member]]:
        """
        Return the members.

        :param name: a regular expression (Go's RE2), which has to match the whole name.
        :param status: likewise, for ``alive``, ``leaving``, ``left`` or ``failed``.
        :param tags: likewise, by tag. All filters that are given must match.
        :returns: a Deferred of a list of `Member`, sorted by name; a member that has not changed may be the same object as in
            the list before. It fails with `RpcError` for a filter that is no regular expression: the agent closes the
            connection then, which is one made for it.
        :raises InvalidRequest: at the call, for a *status* that no member can have.

        Wire: ``members``, or ``members-filtered`` where there is a filter. The agent puts each between ``^`` and ``$``
        without a group, so one that has alternatives is sent in a group.
        """
        if name is None and status is None and tags is None:
            return self._call(commands.MEMBERS, timeout).result
        given = {"name": name, "status": status, "tags": tags}
        filters = {argument: value for argument, value in given.items() if value is not None}
        if status and isinstance(status, str) and not commands.can_match(status, MemberStatus):
            known = ", ".join(MemberStatus)
            raise InvalidRequest(f"members: {str(status)!r} is no status; there are {known}")
        return self._call(commands.MEMBERS_FILTERED, timeout, **filters).result

    def join(
        self, addresses: Iterable[str], *, replay: bool = False, timeout: float | None = None
    ) -> Deferred[int]:
        """
        Make the agent join a cluster.

        :param addresses: gossip addresses of members, ``HOST:PORT``; the agent tries one after the
            other, and may spend 10 s and more on each: other commands don't wait for it.
        :param replay: let past user events come through the streams.
        :returns: a Deferred of the number joined. It fails with `JoinError` (``joined``) where
            that is fewer than *addresses*.

        Wire: ``join``.
        """
        call = self._call(commands.JOIN, timeout, addresses=addresses, replay=replay)
        asked = len(call.values["Existing"])

        def all_joined(joined: int) -> int:
            if joined < asked:
                message = f"{joined} of {asked} addresses were joined"
                raise JoinError(command="join", message=message, joined=joined)
            return joined

        return call.result.addCallback(all_joined)

    def leave(self, *, timeout: float | None = None) -> Deferred[None]:
        """
        Make the agent leave its cluster and exit.

        :returns: a Deferred of None. It fires too where the agent goes away before it has answered.

        Wire: ``leave``. The agent answers after a second or more, then closes all connections.
        """
        return self._call(commands.LEAVE, timeout).result

    def force_leave(self, node: str, *, prune: bool = False, timeout: float | None = None) -> Deferred[None]:
        """
        Make a failed member one that left.

        :param node: its name; one that nobody knows is a success.
        :param prune: forget it at once. Pruning a member that is alive freezes the agent for seconds.

        Wire: ``force-leave``.
        """
        return self._call(commands.FORCE_LEAVE, timeout, node=node, prune=prune).result

    def set_tags(
        self, tags: Mapping[str, str] = {}, *, delete: Iterable[str] = (), timeout: float | None = None
    ) -> Deferred[None]:
        """
        Change tags of the agent's own node.

        :param tags: values by tag; the others stay.
        :param delete: tags to delete; one that is in *tags* too is set.

        Wire: ``tags``. All tags together have 512 bytes at the most, encoded.
        """
        return self._call(commands.TAGS, timeout, tags=tags, delete=delete).result

    def advertise(self, tags: Mapping[str, str]) -> Advertisement:
        """
        Set tags of the agent's own node, and keep them.

        They are set again whenever a connection is made and the agent does not have them: an agent that is started again
        has lost them. `Advertisement.withdraw` puts back what was there before, and so does the end of this `Serf`.

        Of two advertisements of the same tag the later one counts. When that is withdrawn, the earlier one
        gets its value back.

        :param tags: values by tag; the others of the node stay.
        :returns: at once, an `Advertisement`. A failure is logged, and the tags are tried again with the next connection.
        :raises InvalidRequest: for a bad argument; `Disconnected` once this is closed.

        Wire: ``stats``, which has the node's name and tags, then ``tags`` for what differs.
        """
        values = commands.TAGS.typed_arguments({"tags": tags})
        commands.TAGS.body(values)
        self._begin()
        return self._advertiser.add(values["Tags"])

    # Events and queries

    def event(
        self, name: str, payload: bytes | str = b"", *, coalesce: bool = True, timeout: float | None = None
    ) -> Deferred[None]:
        """
        Send a user event to all members.

        :param name: the event's name.
        :param payload: its bytes (text goes as UTF-8). Name and payload together have 512 bytes
            at the most, unless the agents are configured otherwise.
        :param coalesce: whether a later event of the same name may replace it, in the agents
            that have not delivered it yet.
        :returns: a Deferred of None, once the agent has taken it.

        Wire: ``event``.
        """
        return self._call(commands.EVENT, timeout, name=name, payload=payload, coalesce=coalesce).result

    def query(
        self,
        name: str,
        payload: bytes | str = b"",
        *,
        nodes: Iterable[str] = (),
        tags: Mapping[str, str] = {},
        acks: bool = True,
        timeout: float | None = None,
        relay_factor: int = 0,
        expect: int | Literal["all"] | None = None,
    ) -> Query:
        """
        Ask the members.

        :param name: the query's name.
        :param payload: bytes that go with it (text goes as UTF-8).
        :param nodes: names of those to ask; none: all.
        :param tags: regular expressions by tag (Go's RE2, not anchored): all must match.
        :param acks: ask each node to acknowledge.
        :param timeout: seconds until the agents stop answering, at least 0.001;
            None takes the agent's own, which grows with the cluster (some 3 s for up to nine nodes).
        :param relay_factor: how many other members relay each answer, 0 to 255.
        :param expect: end with the Nth answer; ``"all"``: with the last answer of the members that were alive, and selected by
            *nodes* and *tags*, when it was asked, and the result names those that are ``missing``. Otherwise it ends at the
            timeout, even where all have answered long before.
        :returns: at once, a `Query`: awaitable, and async-iterable over `Ack` and `Answer`.
        :raises InvalidRequest: for a bad argument; `Disconnected` once this is closed; `Overloaded`.

        Wire: ``query``; with ``expect="all"`` a ``members-filtered`` before it in the same write, two if there are both *nodes*
        and *tags*; none where a `ClusterView` of this `Serf` knows the members.
        """
        everyone = isinstance(expect, str) and expect == "all"
        number = None if everyone or expect is None else _expected(expect)
        values = commands.QUERY.typed_arguments(
            {
                "name": name,
                "payload": payload,
                "nodes": nodes,
                "tags": tags,
                "acks": acks,
                "timeout": nanoseconds(timeout),
                "relay_factor": relay_factor,
            }
        )
        self._begin()
        known = self._rosters.recipients(values) if everyone else None
        reads = member_filters(values) if everyone and known is None else ()
        self._session.admit(1 + len(reads))
        return Query(self._session, values, number, self._timeout, timeout, reads, known)

    def stream(self, type: str = "*", *, buffer: int | None = None, gaps: bool = False) -> EventStream:
        """
        Follow events.

        :param type: a filter as ``user:deploy,member-failed,query``; ``*`` is everything.
        :param buffer: events that may wait for a slow reader; past it the oldest goes (``dropped``). None takes
            ``constant.STREAM_BUFFER``, which is 8192.
        :param gaps: deliver a `Gap` where the stream was down and may have missed events.
        :returns: at once, an `EventStream`, which opens again after each loss.
        :raises InvalidRequest: for a bad argument, such as a filter that is no event type;
            `Disconnected` once this is closed. A stream that the agent refuses fails
            ``when_active()`` with `RpcError`, and ends the iteration with it.

        Wire: ``stream``.
        """
        values = commands.STREAM.typed_arguments({"type": type})
        try:
            parse_filter(values["Type"] or "*")
        except InvalidRequest as error:
            raise InvalidRequest(f"stream: {error}") from None
        if not isinstance(gaps, bool):
            raise InvalidRequest(f"stream: gaps must be bool, not {gaps!r}")
        limit = _buffer("stream", buffer)
        self._begin()
        self._session.admit()
        return EventStream(self._session, values, limit, gaps, self._timeout)

    def monitor(self, level: str = "INFO", *, buffer: int | None = None) -> LogStream:
        """
        Follow the agent's log, from its last 512 lines on.

        :param level: the lowest level: ``TRACE``, ``DEBUG``, ``INFO``, ``WARN``, ``ERR``.
        :param buffer: as of `stream`.
        :returns: at once, a `LogStream` of `LogLine`; all of them share the agent's one monitor.
        :raises InvalidRequest: for a bad argument; `Disconnected` once this is closed. A level that the
            agent does not know is an `RpcError` as in `stream`.

        Wire: ``monitor``.
        """
        values = commands.MONITOR.typed_arguments({"level": level})
        limit = _buffer("monitor", buffer)
        self._begin()
        self._session.admit()
        return LogStream(self._monitors, values["LogLevel"], limit)

    # Keys

    @hides_arguments
    def install_key(self, key: str, *, timeout: float | None = None) -> Deferred[KeyReply]:
        """
        Add a key to every node's keyring.

        :param key: 16, 24 or 32 bytes in base64.
        :returns: a Deferred of a `KeyReply`; `KeyringError` (``reply``) on any node's failure.

        Wire: ``install-key``.
        """
        return self._call(commands.INSTALL_KEY, timeout, key=key).result

    @hides_arguments
    def use_key(self, key: str, *, timeout: float | None = None) -> Deferred[KeyReply]:
        """Make a key of the keyrings the primary one; as `install_key`. Wire: ``use-key``."""
        return self._call(commands.USE_KEY, timeout, key=key).result

    @hides_arguments
    def remove_key(self, key: str, *, timeout: float | None = None) -> Deferred[KeyReply]:
        """Take a key out of every node's keyring; as `install_key`. Wire: ``remove-key``."""
        return self._call(commands.REMOVE_KEY, timeout, key=key).result

    def list_keys(self, *, timeout: float | None = None) -> Deferred[KeyReply]:
        """
        Return the keys of all keyrings (``KeyReply.keys``), as `install_key`.

        Wire: ``list-keys``. With twenty keys and more it crashes agents before 0.9.8.
        """
        return self._call(commands.LIST_KEYS, timeout).result

    # The agent and the network

    def stats(self, *, timeout: float | None = None) -> Deferred[dict[str, dict[str, str]]]:
        """Return figures about the agent: text by name by section. Wire: ``stats``."""
        return self._call(commands.STATS, timeout).result

    def coordinate(self, node: str, *, timeout: float | None = None) -> Deferred[Coordinate | None]:
        """
        Return where a node lies in the network.

        :param node: a member's name, not an address.
        :returns: a Deferred of the `Coordinate` (its distances are seconds), of None while the agent has none.

        Wire: ``get-coordinate``.
        """
        return self._call(commands.GET_COORDINATE, timeout, node=node).result

    def rtt(self, a: str, b: str, *, timeout: float | None = None) -> Deferred[float]:
        """
        Estimate the round trip between two nodes.

        :param a: a member's name.
        :param b: another's.
        :returns: a Deferred of seconds. It fails with `RpcError` where the agent has no coordinate of
            one, or two of different dimensions.

        Wire: ``get-coordinate`` of both.
        """
        commands.GET_COORDINATE.typed_arguments({"node": b})

        def unknown(message: str) -> RpcError:
            return RpcError(command=commands.GET_COORDINATE.wire, message=message)

        def estimate(outcomes: list[Any]) -> Any:
            for (good, found), node in zip(outcomes, (a, b), strict=True):
                if not good:
                    return found
                if found is None:
                    raise unknown(f"the agent has no coordinate of {node!r}")
            (_, near), (_, far) = outcomes
            try:
                return near.distance_to(far)
            except ValueError as error:  # of agents that are configured differently
                raise unknown(f"there is no distance from {a!r} to {b!r}: {error}") from None

        both = [self.coordinate(node, timeout=timeout) for node in (a, b)]
        return DeferredList(both, consumeErrors=True).addCallback(estimate)

    def ping(self, *, timeout: float | None = None) -> Deferred[float]:
        """
        Measure a round trip to the agent.

        :returns: a Deferred of seconds, without those that it takes to connect.

        Wire: ``stop`` of a Seq that no stream has, which an agent answers at once.
        """
        seq = self._session.next_seq()
        return self._call(commands.STOP, timeout, Ping, seq=seq).result

    # How it works

    def _begin(self) -> None:
        if self._closed:
            raise Disconnected("this Serf is closed")
        if not self.running:
            self.startService()

    def _call(
        self, command: Command, timeout: float | None, kind: type[Call] = Call, /, **given: Any
    ) -> Call:
        """Check the arguments, and send the command; once this is closed, the call fails."""
        values = command.typed_arguments(given) if command.args else {}
        limit = self._timeout if timeout is None else seconds(timeout, f"{command.wire}: timeout")
        if self._closed:
            call = kind(self._session, command, values, None)
            call.lost(Disconnected("this Serf is closed"))
            return call
        if not self.running:
            self.startService()
        session = self._session
        session.admit()
        call = kind(session, command, values, limit)
        session.submit_one(call)
        return call


def _expected(value: object) -> int:
    try:
        return count(value, "query: expect")
    except InvalidRequest:
        message = f"query: expect must be an int of at least 1, or 'all', not {value!r}"
        raise InvalidRequest(message) from None


def _buffer(command: str, value: object) -> int:
    return constant.STREAM_BUFFER if value is None else count(value, f"{command}: buffer")
