"""
The errors of txserf: one hierarchy, rooted in `SerfError`.

Data is in keyword-only attributes with defaults, so that each error survives
``copy`` and ``pickle``. No error ever holds or shows a key.
"""

from __future__ import annotations

import functools
import sys
import traceback
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from twisted.python.failure import Failure

_P = ParamSpec("_P")
_T = TypeVar("_T")


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


class NoMember(ConnectError):
    """No member of the cluster is alive and has the tags that a `ServiceEndpoint` is for; nothing was dialled."""


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


class Overloaded(SerfError):
    """More calls are under way than `constant.CALLS_LIMIT` allows; raised at the call, nothing was sent."""


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


def hides_arguments(function: Callable[_P, _T]) -> Callable[_P, _T]:
    """
    Decorate a function whose arguments may hold a key: no traceback of it has them.

    Trackers of errors, and Twisted's own ``Failure`` where it is asked to, record the local variables of each frame of
    a traceback. Of an error that leaves *function* the frames stay, for they say where it was raised, and the
    variables in them are gone. Those of its callers stay as they are.
    """

    @functools.wraps(function)
    def hidden(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        handled = sys.exc_info()[1]  # the program's own, which becomes the context of an error
        try:
            return function(*args, **kwargs)
        except BaseException as error:
            _forget_variables(error, handled)
            raise
        finally:
            del args, kwargs, handled

    return hidden


def _forget_variables(error: BaseException, handled: BaseException | None) -> None:
    """Clear the frames of *error*, and of all errors that it was raised for, up to *handled*."""
    errors: list[BaseException | None] = [error]
    seen = {id(handled), id(None)}
    while errors:
        each = errors.pop()
        if each is not None and id(each) not in seen:
            seen.add(id(each))
            traceback.clear_frames(each.__traceback__)
            errors += (each.__cause__, each.__context__)
            if each.__suppress_context__:
                each.__context__ = handled  # those between may show in their text what was given
