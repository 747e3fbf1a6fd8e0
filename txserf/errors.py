"""
The errors of txserf: one hierarchy, rooted in `SerfError`.

Data is in keyword-only attributes with defaults, so that each error survives
``copy`` and ``pickle``. No error ever holds or shows a key.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

    from twisted.python.failure import Failure


class SerfError(Exception):
    """The base of all errors of txserf."""


class InvalidRequest(SerfError, ValueError):
    """A command or an argument that can't be sent; raised at the call, nothing was sent."""


class InvalidHostURL(SerfError, ValueError):
    """An entry of a host list that is not understood; its key is blotted out."""


class ConnectError(SerfError):
    """
    No host could be reached.

    :ivar failures: a pair (host, reason) for each host that was tried, in order:
        the host as text, the reason as the exception that ended the attempt.
    """

    def __init__(self, message: str = "", *, failures: tuple[tuple[str, BaseException], ...] = ()) -> None:
        super().__init__(message)
        self.failures = failures


class AuthenticationError(SerfError):
    """
    The agent refused the key, or a key was due and none was given.

    :ivar host: the agent that refused, as text.
    """

    def __init__(self, message: str = "", *, host: str = "") -> None:
        super().__init__(message)
        self.host = host


class RequestTimeout(SerfError, TimeoutError):
    """
    No complete answer in time.

    :ivar responses: each `Response` that did come, in order of Seq (`Client` only).
    """

    # Any, and so below: the classes of these values are in modules above this one.
    def __init__(self, message: str = "", *, responses: tuple[Any, ...] = ()) -> None:
        super().__init__(message)
        self.responses = responses


class Disconnected(SerfError):
    """We closed the connection, or it is closed for good."""


class ConnectionLost(Disconnected):
    """
    The connection went away under us.

    :ivar host: the agent that was lost, as text.
    :ivar result: for a query, the answers that had come (a `QueryResult`), else None.
    """

    def __init__(self, message: str = "", *, host: str = "", result: Any = None) -> None:
        super().__init__(message)
        self.host = host
        self.result = result


class ProtocolError(SerfError):
    """The other side does not speak Serf's RPC, or broke its rules."""


class RpcError(SerfError):
    """
    The agent said no.

    :ivar command: the wire name of the command, such as ``force-leave``.
    :ivar message: the agent's own words.
    """

    def __init__(self, text: str = "", *, command: str = "", message: str = "") -> None:
        super().__init__(text or f"{command}: {message}")
        self.command = command
        self.message = message


class JoinError(RpcError):
    """
    Some of the addresses, or all, could not be joined.

    :ivar joined: the number of those that could.
    """

    def __init__(self, text: str = "", *, command: str = "join", message: str = "", joined: int = 0) -> None:
        super().__init__(text, command=command, message=message)
        self.joined = joined


class KeyringError(RpcError):
    """
    A key command failed on a node, or a node did not answer.

    :ivar reply: the `KeyReply`, with the answer of each node.
    """

    def __init__(self, text: str = "", *, command: str = "", message: str = "", reply: Any = None) -> None:
        super().__init__(text, command=command, message=message)
        self.reply = reply


class QueryError(RpcError):
    """The agent refused a query or a response to one."""


class StopReceiveData(Exception):
    """Raised by a callback to end a watch or a stream. It is no error, hence no `SerfError`."""


def reason_text(reason: Failure | BaseException) -> str:
    """Say in a line why something ended, for another error's text or for a log."""
    # Imported here: the codec imports this module, and no Twisted.
    from twisted.python.failure import Failure
    from twisted.python.reflect import safe_str

    # Not by its `value`: another exception may have one too.
    error = reason.value if isinstance(reason, Failure) else reason
    return encodable(" ".join(safe_str(error).split())) or type(error).__name__


def failures_text(failures: Iterable[tuple[str, BaseException]]) -> str:
    """Say in a line why hosts could not be reached, as ``ConnectError.failures`` has it: each with its reason."""
    return "; ".join(f"{host}: {reason_text(reason)}" for host, reason in failures)


def encodable(text: str) -> str:
    """Return *text* with escapes for characters that UTF-8 lacks: a line with one would turn a log's observer off."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
