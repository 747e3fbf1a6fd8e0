"""
A query, from the node that asks it to the nodes that answer it and back.

`Queries` is both ends of it at one node: it sends a `Question` and collects acks and responses in a `RunningQuery`; it takes
a `Question` and makes a `ReceivedQuery` of it, which may be answered.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from math import ceil, log10
from typing import Any, Protocol

import attrs
from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from txserf import arguments
from txserf.callbacks import waited_for
from txserf.embedded import sizes
from txserf.embedded.log import AgentLog
from txserf.embedded.network import Network, Node
from txserf.embedded.re2 import BadPattern, compile_pattern
from txserf.model import QueryEvent, Tags
from txserf.wire import as_bytes

_log = Logger(namespace="txserf.embedded")

#: Names that start so are Serf's own: no stream sees them.
INTERNAL = "_serf_"

#: Seconds between two rounds of gossip. A command that tells the other nodes something waits so long.
GOSSIP_INTERVAL = 0.1

_TIMEOUT_MULTIPLE = 16

#: The return value of a function for `EmbeddedAgent.handle_query`: an answer, or None for no answer; at once or later.
QueryAnswer = bytes | str | None
QueryHandler = Callable[[QueryEvent], QueryAnswer | Awaitable[QueryAnswer]]


class Refused(Exception):
    """The agent's answer is an error; its text goes out as it is."""


@attrs.frozen(kw_only=True)
class Question:
    """
    The message that travels to the nodes.

    :ivar ltime: the Lamport time, which tells the queries of one node apart.
    :ivar timeout: nanoseconds.
    :ivar filter_tags: patterns of Go's, not anchored.
    :ivar key: for a key command: the key.
    """

    name: str
    payload: bytes
    ltime: int
    timeout: int
    request_ack: bool = False
    filter_nodes: tuple[str, ...] = ()
    filter_tags: Mapping[str, str] = attrs.field(factory=dict)
    key: bytes = b""

    @property
    def seconds(self) -> float:
        """The timeout in seconds."""
        return self.timeout / arguments.SECOND

    @property
    def internal(self) -> bool:
        return self.name.startswith(INTERNAL)

    def is_for(self, node: str, tags: Mapping[str, str]) -> bool:
        """
        Say whether a node passes the filters.

        :raises BadPattern: for a filter that is no pattern, which no node passes.
        """
        if self.filter_nodes and node not in self.filter_nodes:
            return False
        return all(
            compile_pattern(pattern).matches(tags.get(tag, "")) for tag, pattern in self.filter_tags.items()
        )


@attrs.frozen
class KeyAnswer:
    """A node's answer to a key command: *done* with an empty *message* where all is well."""

    done: bool
    message: str = ""
    keys: tuple[str, ...] = ()


#: The content of a node's response.
Content = bytes | KeyAnswer


class RunningQuery:
    """
    A query at the node that asked it: collects acks and responses until its deadline.

    :param on_ack: called with the name of a node, once for each.
    :param on_response: called with the name of a node and its answer, once for each.
    :param on_done: called at the deadline; nothing comes after it.
    """

    def __init__(
        self,
        on_ack: Callable[[str], None],
        on_response: Callable[[str, Content], None],
        on_done: Callable[[], None],
    ) -> None:
        self._on_ack = on_ack
        self._on_response = on_response
        self._on_done = on_done
        self._acks: set[str] = set()
        self._responses: set[str] = set()

    def ack(self, node: str) -> None:
        if node not in self._acks:
            self._acks.add(node)
            self._on_ack(node)

    def response(self, node: str, content: Content) -> None:
        if node not in self._responses:
            self._responses.add(node)
            self._on_response(node, content)

    def done(self) -> None:
        self._on_done()


class ReceivedQuery:
    """
    A query at a node that may answer it, once for the whole agent.

    :param node: the name of that node.
    :param deadline: seconds of the cluster's time.
    :param seconds: gives that time.
    :param send: sends a response to the node that asked; that it arrives is not known.
    """

    type: str = QueryEvent.type

    def __init__(
        self,
        question: Question,
        node: str,
        deadline: float,
        seconds: Callable[[], float],
        send: Callable[[bytes], None],
    ) -> None:
        self.question = question
        self.deadline = deadline
        self._node = node
        self._seconds = seconds
        self._send = send
        self._answered = False

    @property
    def name(self) -> str:
        return self.question.name

    def respond(self, payload: bytes) -> None:
        """
        Send the answer.

        :raises Refused: where it is too large, too late or not the first.
        """
        if sizes.response(self.question.ltime, self._node, payload) > sizes.RESPONSE_LIMIT:
            raise self._refusal(f"response exceeds limit of {sizes.RESPONSE_LIMIT} bytes")
        if self._answered:
            raise self._refusal("response already sent")
        if self._seconds() > self.deadline:
            raise self._refusal("response is past the deadline")
        self._answered = True
        self._send(payload)

    def _refusal(self, reason: str) -> Refused:
        # Serf's own words, for every kind of query.
        return Refused(f"failed to respond to key query: {reason}")


class QueryNode(Node, Protocol):
    """A node as its queries need it."""

    tags: Tags
    log: AgentLog
    queries: Queries

    @property
    def watched(self) -> bool:
        """Whether somebody has connected to its agent, so that there may be streams."""


class Queries:
    """
    The queries of one node: those that it asks, and those that come to it.

    :param node: the node.
    :param network: the way to the others.
    :param handlers: the program's own functions that answer, by name of query; read at each query.
    :param answer: answers Serf's own queries; None for no answer.
    :param post: called with each other query that this node may answer.
    """

    def __init__(
        self,
        node: QueryNode,
        network: Network[Any],
        handlers: Mapping[str, QueryHandler],
        answer: Callable[[Question], Content | None],
        post: Callable[[ReceivedQuery], None],
    ) -> None:
        self._node = node
        self._network = network
        self._handlers = handlers
        self._answer = answer
        self._post = post
        self._running: dict[int, RunningQuery] = {}

    # -- queries that this node asks

    def ask(
        self,
        name: str,
        payload: bytes,
        running: RunningQuery,
        *,
        timeout: int = 0,
        request_ack: bool = False,
        filter_nodes: tuple[str, ...] = (),
        filter_tags: Mapping[str, str] | None = None,
        key: bytes = b"",
    ) -> None:
        """
        Start a query.

        :param running: is told of acks, responses and the deadline.
        :param timeout: nanoseconds; 0 for as many as Serf takes for so many nodes.
        :raises Refused: where it is too large.
        """
        node, knowledge = self._node, self._node.knowledge
        question = Question(
            name=name,
            payload=payload,
            ltime=knowledge.query_clock.time,
            timeout=timeout or _default_timeout(len(knowledge.present)),
            request_ack=request_ack,
            filter_nodes=filter_nodes,
            filter_tags=filter_tags or {},
            key=key,
        )
        if _size(question, node.name) > sizes.QUERY_LIMIT:
            raise Refused(f"query exceeds limit of {sizes.QUERY_LIMIT} bytes")
        self._running[question.ltime] = running
        self._network.agenda.later(question.seconds, lambda: self._over(question.ltime))
        for known in (knowledge, node.pool.common):
            known.query_clock.witness(question.ltime)

        def reach(other: QueryNode) -> None:
            other.queries.take(question, self)

        self._network.send_to_all(node, reach)

    def _over(self, ltime: int) -> None:
        self._running.pop(ltime).done()

    def _answered(self, question: Question, node: str, content: Content | None) -> None:
        """Take an ack (None) or a response to a query of this node; past its deadline it is lost."""
        running, log = self._running.get(question.ltime), self._node.log
        log.write("DEBUG", f"serf: messageQueryResponseType: {node}")
        if running is None:
            reply = f"reply for non-running query (LTime: {question.ltime}) From: {node}"
            log.write("WARN", f"serf: {reply}")
        elif content is None:
            running.ack(node)
        else:
            running.response(node, content)

    # -- queries that it may answer

    def take(self, question: Question, origin: Queries) -> None:
        """Take a query that another node, or this one, has asked."""
        node, network = self._node, self._network
        node.knowledge.query_clock.witness(question.ltime)
        try:
            if not question.is_for(node.name, node.tags):
                return
        except BadPattern as reason:
            patterns = ", ".join(question.filter_tags.values())
            node.log.write("WARN", f"serf: failed to compile filter regex ({patterns}): {reason}")
            return
        send = partial(network.send, node, origin._node)
        answered = partial(origin._answered, question, node.name)
        if question.request_ack:
            send(partial(answered, None))
        if question.internal:
            answer = self._answer(question)
            if answer is not None:
                send(partial(answered, answer))
        elif node.watched or question.name in self._handlers:
            seconds = network.agenda.seconds
            deadline = seconds() + question.seconds

            def respond(payload: bytes) -> None:
                send(partial(answered, payload))

            self._post(ReceivedQuery(question, node.name, deadline, seconds, respond))

    def handle(self, query: ReceivedQuery) -> None:
        """Have the program's own function answer, if there is one."""
        function = self._handlers.get(query.name)
        if function is None:
            return
        name, node = query.name, self._node

        def answer(value: object) -> None:
            if value is None or not node.running:
                return
            if not isinstance(value, (bytes, str)):
                raise TypeError(
                    f"returned {type(value).__name__}: an answer is bytes or str, or None for none"
                )
            query.respond(as_bytes(value))

        def refused(failure: Failure) -> None:
            failure.trap(Refused)
            text = f"agent: Failed to respond to query 'query: {name}': {failure.value}"
            node.log.write("WARN", text)

        def failed(failure: Failure) -> None:
            _log.failure("handle_query's {name} failed at {node}", failure, name=name, node=node.name)

        event = QueryEvent(0, name, query.question.payload, query.question.ltime)
        try:
            value = function(event.bound(lambda _, payload: _respond(query, payload)))
        except KeyboardInterrupt:
            raise
        except BaseException:
            failed(Failure())
            return
        waiting: Deferred[object] = waited_for(value) or succeed(value)
        waiting.addCallback(answer).addErrback(refused).addErrback(failed)


def _respond(query: ReceivedQuery, payload: bytes | str) -> Deferred[None]:
    """Answer a query on behalf of a `QueryEvent`."""
    responding: Deferred[None] = Deferred()
    try:
        query.respond(as_bytes(payload))
    except Refused as refusal:
        responding.errback(refusal)
    else:
        responding.callback(None)
    return responding


def _default_timeout(nodes: int) -> int:
    """Return the nanoseconds that a query runs for where none are named."""
    return round(GOSSIP_INTERVAL * arguments.SECOND) * _TIMEOUT_MULTIPLE * ceil(log10(nodes + 1))


def _size(question: Question, node: str) -> int:
    return sizes.query(
        question.ltime,
        node,
        question.name,
        question.payload,
        question.timeout,
        question.filter_nodes,
        question.filter_tags,
    )
