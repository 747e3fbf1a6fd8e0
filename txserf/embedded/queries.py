"""Queries: one that runs, where it was asked; and one that arrived, where it may be answered."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import attrs

from txserf.embedded import sizes
from txserf.embedded.re2 import BadPattern, compile_pattern
from txserf.model import QueryEvent

if TYPE_CHECKING:
    from txserf.embedded.process import AgentProcess

#: Names that start so are Serf's own: no stream sees them.
INTERNAL = "_serf_"

NANOSECOND = 1e-9


class Refused(Exception):
    """The agent's answer is an error; its text goes out as it is."""


@attrs.frozen(kw_only=True)
class Question:
    """
    What travels to the nodes.

    :ivar ltime: the Lamport time, which tells an asker's queries apart.
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
    def internal(self) -> bool:
        return self.name.startswith(INTERNAL)

    def is_for(self, node: str, tags: Mapping[str, str]) -> bool:
        """
        Say whether a node passes the filters.

        :raises BadPattern: for a filter that is no pattern: nobody passes.
        """
        if self.filter_nodes and node not in self.filter_nodes:
            return False
        return all(
            compile_pattern(pattern).matches(tags.get(tag, "")) for tag, pattern in self.filter_tags.items()
        )


@attrs.frozen
class KeyAnswer:
    """What a node answers to a key command: empty *message* and *done* where all is well."""

    done: bool
    message: str = ""
    keys: tuple[str, ...] = ()


#: The content of a node's response.
Content = bytes | KeyAnswer


class RunningQuery:
    """
    A query where it was asked: collects acks and responses until its deadline.

    :param on_ack: called with the name of a node, once for each.
    :param on_response: called with a name and what that node answered, once for each.
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

    :ivar deadline: seconds of the cluster's time.
    """

    type = QueryEvent.type

    def __init__(
        self, question: Question, process: AgentProcess, origin: AgentProcess, deadline: float
    ) -> None:
        self.question = question
        self.deadline = deadline
        self._process = process
        self._origin = origin
        self._answered = False

    @property
    def name(self) -> str:
        return self.question.name

    def respond(self, payload: bytes) -> None:
        """
        Send the answer to who asked; that it arrives is not known.

        :raises Refused: where it is too large, too late or not the first.
        """
        question = self.question
        if sizes.response(question.ltime, self._process.name, payload) > sizes.RESPONSE_LIMIT:
            raise self._refusal(f"response exceeds limit of {sizes.RESPONSE_LIMIT} bytes")
        if self._answered:
            raise self._refusal("response already sent")
        if self._process.agenda.seconds() > self.deadline:
            raise self._refusal("response is past the deadline")
        self._answered = True
        self.send(payload)

    def send(self, content: Content) -> None:
        """Send *content* without any check."""
        origin, node = self._origin, self._process.name
        self._process.send(origin, lambda: origin.query_answered(self.question, node, content))

    def _refusal(self, reason: str) -> Refused:
        # Serf's own words, for whatever query it was.
        return Refused(f"failed to respond to key query: {reason}")


__all__ = ["BadPattern", "Content", "KeyAnswer", "Question", "ReceivedQuery", "Refused", "RunningQuery"]
