"""The program ``txserf``: from a command line to an exit code."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import signal
import sys
from collections.abc import Sequence
from typing import IO, TYPE_CHECKING, Any

from txserf.cli.parsing import UsageError, parse
from txserf.cli.table import CliCommand
from txserf.errors import hides_arguments

if TYPE_CHECKING:
    from txserf.cli.process import StderrLog
    from txserf.connection.hosts import HostItem
    from txserf.serf.serf import Serf

# Commands that wait for an agent which is not there yet. For all others each agent is tried once.
_PATIENT = frozenset({"wait"})


@hides_arguments
def main(argv: Sequence[str] | None = None) -> int:
    """
    Run a command line.

    :param argv: the arguments; None takes those of the process.
    :returns: the exit code.
    """
    _escape_what_can_not_be_written(sys.stdout, sys.stderr)
    try:
        return _main(sys.argv[1:] if argv is None else argv)
    except UsageError as error:
        return _failed(2, str(error))
    except BrokenPipeError:
        _forget_output()
        return 128 + signal.SIGPIPE
    except OSError as error:
        _forget_output()
        return _failed(1, f"the output can't be written: {error.strerror}")
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


def _main(argv: Sequence[str]) -> int:
    row, values = parse(argv)
    if row.handed_on is not None:
        return _hand_on(row.name, values["argv"])
    from txserf.service.agents import read_agents
    from txserf.service.settings import ConfigError

    try:
        hosts = read_agents({"agent": values["agent"], "auth-key-file": values["auth_key_file"]})
    except ConfigError as error:
        raise UsageError(str(error)) from None
    from txserf.cli.process import in_reactor

    code = in_reactor(lambda reactor, log: work(reactor, row, values, hosts, sys.stdout, sys.stderr, log))
    if sys.stdout is not None:
        sys.stdout.flush()
    return code


async def work(
    reactor: Any,
    row: CliCommand,
    values: dict[str, Any],
    hosts: Sequence[HostItem] | None,
    out: IO[str] | None,
    err: IO[str] | None,
    log: StderrLog | None = None,
) -> int:
    """
    Run a command that talks to an agent.

    :param hosts: the agents; None takes those of the environment.
    :param out: where its output goes.
    :param err: where its one line goes if it fails.
    :param log: shows warnings too once a loss of the agent does not end the command.
    :returns: the exit code.
    """
    from twisted.logger import LogLevel

    from txserf import constant
    from txserf.cli.invocation import Invocation, Missing, complain
    from txserf.errors import InvalidRequest, SerfError
    from txserf.serf.serf import Serf

    module, _, function = row.function.partition(":")
    command = getattr(importlib.import_module(f"txserf.cli.{module}"), function)
    timeout = values["timeout"]
    patience = constant.SERF_TIMEOUT if timeout is None else timeout
    serf = Serf(
        hosts, reactor=reactor, timeout=patience, connect_timeout=min(patience, constant.CONNECT_TIMEOUT)
    )
    waits = row.name in _PATIENT
    if not waits:
        serf.factory.maxRetries = 0  # type: ignore[assignment]  # of Twisted it is None
    try:
        async with serf:
            if waits and timeout is None and log is not None:
                log.level = LogLevel.warn  # or it would not say why it waits
            serf.when_connected().addCallbacks(lambda _: _goes_on(serf, log), lambda _: None)
            await command(Invocation(values, serf, out, err, log))
    except Missing as error:
        code, why = 3, str(error)
    except (InvalidRequest, UsageError) as error:
        code, why = 2, str(error)
    except SerfError as error:
        code, why = 1, _why(error)
    else:
        return 0
    if log is not None:
        log.drop()
    complain(err, why)
    return code


def _goes_on(serf: Serf, log: StderrLog | None) -> None:
    """From now on a lost agent is replaced, however long that takes."""
    from twisted.logger import LogLevel

    serf.factory.maxRetries = None
    if log is not None:
        log.level = LogLevel.warn


def _why(error: BaseException) -> str:
    from txserf.errors import KeyringError, reason_text

    text = reason_text(error)
    if isinstance(error, KeyringError) and error.reply is not None:
        text += "".join(f"; {node}: {said}" for node, said in sorted(error.reply.messages.items()) if said)
    return text


def _hand_on(name: str, argv: Sequence[str]) -> int:
    """Be ``twistd -n txserf``, without a file for its process id."""
    from twisted.scripts.twistd import run

    from txserf.service.options import WrongCommandLine

    sys.argv[:] = ["twistd", "-n", "--pidfile=", "txserf", *argv]
    try:
        run()
    except WrongCommandLine as error:
        raise UsageError(f"{error.sentence}; see txserf {name} --help") from None
    return 0


def _failed(code: int, text: str) -> int:
    with contextlib.suppress(OSError, ValueError):
        if sys.stderr is not None:
            sys.stderr.write(f"txserf: {text if text.isprintable() else repr(text)[1:-1]}\n")
    return code


def _escape_what_can_not_be_written(*streams: Any) -> None:
    """Let streams write escapes for letters that their encoding does not have: a stranger's name may have any."""
    for stream in streams:
        if isinstance(stream, io.TextIOWrapper) and stream.errors in ("strict", "surrogateescape"):
            stream.reconfigure(errors="backslashreplace")


def _forget_output() -> None:
    """Let nothing that is still to be written fail at the end of the process."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
