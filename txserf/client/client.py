"""`Client`: the fluent face. Commands are queued, then requested together."""

from __future__ import annotations

import functools
import inspect
import warnings
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from types import TracebackType
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger

from txserf import commands, constant
from txserf.arguments import seconds
from txserf.callbacks import Callback, check_callables
from txserf.client.batch import Batch
from txserf.client.requests import QueuedCommand, Response, Responses, UnderWay
from txserf.connection.factory import SerfClientFactory
from txserf.connection.hosts import Hosts
from txserf.connection.session import Session, summary
from txserf.errors import InvalidRequest, Overloaded, hides_arguments

_log = Logger(namespace="txserf.client")

_Method = TypeVar("_Method", bound=Callable[..., "Client"])


def _command(method: _Method) -> _Method:
    """
    Make a method that queues the command of its name.

    Its signature is for people and for mypy. Arguments are checked by the table, so that a wrong
    name or a missing argument is an `InvalidRequest` like any other mistake.
    """
    row = commands.BY_WIRE[method.__name__.replace("_", "-")]
    filtered = commands.MEMBERS_FILTERED if row is commands.MEMBERS else row

    @functools.wraps(method)
    def queue(self: Client, *positional: object, **given: Any) -> Client:
        if positional:
            raise InvalidRequest(f"{row.wire}: its arguments go by keyword")
        if given:
            self._queued.append(QueuedCommand(filtered, filtered.arguments(given)))
        else:
            self._queued.append(QueuedCommand(row, row.arguments(given)))
        return self

    queued: Any = hides_arguments(queue) if row.has_secret else queue
    queued.__signature__ = inspect.signature(method)  # inspect and Sphinx read it
    return queued  # type: ignore[no-any-return]  # as above: the signature is the method's


class Client:
    """
    A client of Serf's agents: commands chain, and nothing is sent before they are requested.

    ::

        responses = await client.members(Status="alive").event(Name="deploy").request()

    :param hosts: a host list, see :doc:`/hosts`; None takes ``$SERF_RPC_ADDR``, else ``127.0.0.1:7373``.
    :param auto_reconnect: stay connected until `disconnect`, whatever happens to agents.
        Otherwise one round over the hosts for a connection; a loss ends what was
        in flight, and the next request starts afresh.
    :param reactor: dials and keeps the time; None takes the global reactor at the first use.
    :param connect_timeout: seconds to connect, then again for handshake and auth.
    :param heartbeat: seconds between checks of the connection; None for none.
    :raises InvalidHostURL: at once, for a host list that is not understood.
    """

    @hides_arguments
    def __init__(
        self,
        hosts: Hosts = None,
        *,
        auto_reconnect: bool = False,
        reactor: Any = None,
        connect_timeout: float = constant.CONNECT_TIMEOUT,
        heartbeat: float | None = constant.HEARTBEAT,
    ) -> None:
        self._session = Session(
            hosts,
            reconnect=bool(auto_reconnect),
            reactor=reactor,
            connect_timeout=connect_timeout,
            heartbeat=heartbeat,
        )
        self._queued: list[QueuedCommand] = []
        self._close_after = False
        self._under_way = UnderWay(self._session)
        self._closing: Deferred[None] | None = None

    def __repr__(self) -> str:
        return f"<Client: {summary(self)}>"

    def __del__(self) -> None:
        if getattr(self, "_queued", None):
            wires = ", ".join(each.command.wire for each in self._queued)
            told = f"nothing was sent, for request() was not called behind: {wires}"
            warnings.warn(told, RuntimeWarning, stacklevel=2)

    @property
    def factory(self) -> SerfClientFactory:
        """The factory that connects, for its settings and counts: ``client.factory.maxDelay = 10``."""
        return self._session.factory

    # The commands

    @_command
    def handshake(self, *, Version: int = 1) -> Client:
        """Queue ``handshake``; it is answered with the connection's own, which happens by itself."""
        raise AssertionError

    @_command
    def auth(self, *, AuthKey: str) -> Client:
        """
        Queue ``auth``: use this key for the connection.

        Its handshake comes along in the list: ``[ResponseHandshake, ResponseAuth]``. A
        refused key fails the Deferred with `AuthenticationError`.
        """
        raise AssertionError

    @_command
    def event(self, *, Name: str, Payload: bytes | str = b"", Coalesce: bool = True) -> Client:
        """Queue ``event``: a user event for all members."""
        raise AssertionError

    @_command
    def force_leave(self, *, Node: str, Prune: bool = False) -> Client:
        """Queue ``force-leave``: make the failed member *Node* one that left; with *Prune* forget it."""
        raise AssertionError

    @_command
    def join(self, *, Existing: Iterable[str], Replay: bool = False) -> Client:
        """Queue ``join``: gossip addresses of members (``HOST:PORT``); *Replay* past user events."""
        raise AssertionError

    @_command
    def members(self, *, Name: str = "", Status: str = "", Tags: Mapping[str, str] = {}) -> Client:
        """
        Queue ``members``, or with any filter ``members-filtered``.

        :param Name: a regular expression (Go's RE2), which has to match the whole name.
        :param Status: likewise: ``alive``, ``leaving``, ``left``, ``failed``.
        :param Tags: likewise, by tag: ``{"role": "web|db"}``. All filters must match.
        """
        raise AssertionError

    @_command
    def tags(self, *, Tags: Mapping[str, str] = {}, DeleteTags: Iterable[str] = ()) -> Client:
        """Queue ``tags``: delete and then set tags of the agent's own node."""
        raise AssertionError

    @_command
    def stream(self, *, Type: str = "*") -> Client:
        """Queue ``stream``: the events that match, as ``*``, ``user:deploy``, ``member-join,query``."""
        raise AssertionError

    @_command
    def monitor(self, *, LogLevel: str) -> Client:
        """Queue ``monitor``: the agent's log from *LogLevel* (``TRACE``, ``DEBUG``, ``INFO``, ``WARN``, ``ERR``) up."""
        raise AssertionError

    @_command
    def stop(self, *, Stop: int) -> Client:
        """Queue ``stop`` of the stream or monitor whose Seq is *Stop*."""
        raise AssertionError

    @_command
    def leave(self) -> Client:
        """Queue ``leave``: the agent leaves its cluster and exits."""
        raise AssertionError

    @_command
    def query(
        self,
        *,
        Name: str,
        Payload: bytes | str = b"",
        FilterNodes: Iterable[str] = (),
        FilterTags: Mapping[str, str] = {},
        RequestAck: bool = True,
        Timeout: int | timedelta = 0,
        RelayFactor: int = 0,
    ) -> Client:
        """Queue ``query``; *Timeout* is an int of nanoseconds (0: the agent's default) or a ``timedelta``."""
        raise AssertionError

    @_command
    def respond(self, *, ID: int, Payload: bytes | str = b"", Timeout: float | timedelta = 0) -> Client:
        """Queue ``respond`` to the query *ID* of a stream of this connection; *Timeout* is not sent."""
        raise AssertionError

    @_command
    def install_key(self, *, Key: str) -> Client:
        """Queue ``install-key``: a key (base64) for every node's keyring."""
        raise AssertionError

    @_command
    def use_key(self, *, Key: str) -> Client:
        """Queue ``use-key``: encrypt with this key of the keyrings from now on."""
        raise AssertionError

    @_command
    def remove_key(self, *, Key: str) -> Client:
        """Queue ``remove-key``: take a key out of every node's keyring."""
        raise AssertionError

    @_command
    def list_keys(self) -> Client:
        """Queue ``list-keys``."""
        raise AssertionError

    @_command
    def stats(self) -> Client:
        """Queue ``stats``: figures about the agent."""
        raise AssertionError

    @_command
    def get_coordinate(self, *, Node: str) -> Client:
        """Queue ``get-coordinate`` of a member."""
        raise AssertionError

    # Requesting, connecting, closing

    def add_callback(self, *functions: Callback[Response]) -> Client:
        """
        Add callbacks to the last command queued.

        :param functions: called in order with each `Response` of that command: its reply, and
            for a streaming command its records. One may be a coroutine function, or return an
            awaitable; the next function and the next record wait for it. An exception fails
            the Deferred of the ``request()``; `StopReceiveData` ends it as a success.
        :raises InvalidRequest: where no command is queued, or for what can't be called.
        """
        check_callables(functions)
        if not self._queued:
            raise InvalidRequest("add_callback() goes behind a command, and none is queued")
        last = self._queued[-1]
        last.callbacks = [*(last.callbacks or ()), *functions]
        return self

    def request(self, timeout: float | None = None, watch: bool = False) -> Deferred[Responses]:
        """
        Send all that is queued, in one write.

        :param timeout: seconds for all answers; None takes `constant.DEFAULT_TIMEOUT`.
        :param watch: let streams run until they are stopped, without a timeout.
        :returns: a Deferred of `Responses`, in order of Seq; an agent's error is a
            `Response` with ``error`` set. ``stream`` and ``monitor`` collect records until
            the timeout and are stopped; ``query`` collects until ``done``, however
            long that takes if no *timeout* is given and the agent has taken it within
            `constant.DEFAULT_TIMEOUT`. Cancelling it leaves the connection good.
        :raises InvalidRequest: for a timeout that is none; `Overloaded` where more than
            `constant.CALLS_LIMIT` commands would be under way: then all that was queued is dropped.
            The Deferred fails with `RequestTimeout` (with what did arrive in ``.responses``),
            `ConnectError`, `AuthenticationError`, `ConnectionLost`, `Disconnected`,
            `ProtocolError` or what a callback raised.
        """
        patient = timeout is None
        if timeout is not None:
            timeout = seconds(timeout, "timeout")
        elif not watch:
            timeout = constant.DEFAULT_TIMEOUT
        queued = self._queued
        try:
            self._session.admit(len(queued))
        except Overloaded:
            self._queued = []
            raise
        if len(queued) == 1 and (only := queued[0]).callbacks is None and only.command.answers_alone:
            queued.clear()
            result = only.alone(timeout, self._under_way)
            if not self._close_after:
                return result
        elif queued:
            self._queued = []
            result = self._submit(queued, timeout, patient, watch)
        else:
            result = succeed(Responses())
            if self._closing is not None:
                result = self._closed(result)
        close, self._close_after = self._close_after, False
        return result.addBoth(self._close_and_return) if close else result

    def watch(self) -> Deferred[Responses]:
        """
        Send all that is queued, and let its streams run.

        :returns: a Deferred of the first replies (`Responses`). It fires once a callback
            raises `StopReceiveData` (the stream is stopped at the agent then), or the streams were
            stopped; it fails as that of `request` does. With ``auto_reconnect`` a stream
            survives the loss of an agent: its callbacks get a ``ResponseStream`` again,
            whose body is None, and may have missed what happened in between.
        """
        return self.request(watch=True)

    def connect(self) -> Client:
        """Begin to connect; see `when_connected`."""
        self._session.connect()
        return self

    def when_connected(self) -> Deferred[Client]:
        """
        Wait for the connection; it starts nothing.

        :returns: a Deferred of this client, once handshake and auth are through. It fails
            with `ConnectError`, `AuthenticationError` or `Disconnected`, and can be cancelled.
        """
        return self._session.factory.when_connected().addCallback(lambda _: self)

    def disconnect(self, wait: bool = False) -> Client:
        """
        Close the connection. Queued commands are not sent, those in flight end with `Disconnected`.

        :param wait: close once the responses of the coming ``request()`` are in; its Deferred then
            fires when the connection is closed.
        """
        self._close_after = wait
        if not wait:
            self._queued = []
            self._close()
        return self

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # A block that raised is over at once: a watch that it left behind would never end.
        (self._under_way.drained() if error is None else succeed(None)).addCallback(lambda _: self._close())

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if error is None:
                await self._under_way.drained()
        finally:
            await self._close()

    # How it works

    def _submit(
        self, requests: list[QueuedCommand], timeout: float | None, patient: bool, watch: bool
    ) -> Deferred[Responses]:
        if requests[0].command is commands.AUTH:
            requests.insert(0, QueuedCommand(commands.HANDSHAKE, {"Version": 1}))
        batch = Batch(requests, timeout, patient, watch, self._under_way)
        result = batch.result  # the batch drops it at its end, which may come inside send()
        batch.send()
        return result

    def _close(self) -> Deferred[None]:
        closing = self._closing = self._session.disconnect()

        def closed(_: object) -> None:
            if self._closing is closing:
                self._closing = None

        closing.addCallback(closed)
        waiter: Deferred[None] = Deferred()
        closing.addCallback(lambda _: waiter.callback(None))
        return waiter

    def _closed(self, result: Deferred[Responses]) -> Deferred[Responses]:
        assert self._closing is not None
        later: Deferred[Responses] = Deferred()
        self._closing.addCallback(lambda _: result.chainDeferred(later))
        return later

    def _close_and_return(self, result: Any) -> Deferred[Any]:
        return self._close().addCallback(lambda _: result)
