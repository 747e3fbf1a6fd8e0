"""One run of a command: its values, the connection, and what it prints."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import IO, TYPE_CHECKING, Any, TextIO

from twisted.logger import LogLevel

from txserf.cli import outputs
from txserf.cli.parsing import UsageError
from txserf.model import Member
from txserf.serf.serf import Serf
from txserf.service import lines
from txserf.service.members import full
from txserf.service.terminal import Cell, Look, printable

if TYPE_CHECKING:
    from txserf.cli.process import StderrLog


class Invocation:
    """
    A command that runs.

    :param values: of its parameters, by `Parameter.key`.
    :param serf: the connection.
    :param out: where its output goes; None where there is nothing to write to.
    :param err: for its warnings.
    :param log: writes there what is logged.
    :ivar output: the name of the output.
    :ivar look: how text looks on *out*.
    """

    def __init__(
        self,
        values: dict[str, Any],
        serf: Serf,
        out: IO[str] | None,
        err: IO[str] | None,
        log: StderrLog | None = None,
    ) -> None:
        self.values = values
        self.serf = serf
        self.look = Look(out)
        self.output: str = values["output"] or ("table" if self.look.is_terminal else "text")
        self._out = out
        self._err = err
        self._log = log

    @property
    def is_json(self) -> bool:
        return self.output in ("json", "jsonl")

    @property
    def timeout(self) -> float | None:
        """The seconds of ``--timeout``; None if it was not given."""
        seconds: float | None = self.values["timeout"]
        return seconds

    def write(self, *texts: str) -> None:
        """Write lines, at once."""
        if self._out is not None and texts:
            self._out.write("".join(f"{line}\n" for line in texts))
            self._out.flush()

    def draw(self, text: str) -> None:
        """Write characters as they are, at once."""
        if self._out is not None:
            self._out.write(text)
            self._out.flush()

    def warn(self, text: str) -> None:
        """Write a line to standard error."""
        complain(self._err, text)

    def show_no_log(self) -> None:
        """Write nothing more of the log but errors: it would stand in the middle of what is drawn."""
        if self._log is not None:
            self._log.level = LogLevel.error

    def lines(self, *, timed: bool = True) -> lines.Format:
        """
        Return the function that makes a line of a record.

        :param timed: whether ``text`` has the time of each record too; the other outputs have it always.
        """
        now = self.serf.clock.seconds
        if self.output == "table":
            return lines.Columns(self.look, now)
        plain = Look(None)  # also on a terminal: that is what -o text is for
        name = "json" if self.is_json else "text"
        return lines.line_format(name, plain, now if timed or self.is_json else None)

    def payload(self) -> bytes:
        """Return the bytes that were given as PAYLOAD."""
        given: str | None = self.values["payload"]
        if given == "-":
            return stdin().buffer.read()
        return os.fsencode(given or "")

    # The forms of results

    def show_rows(self, rows: Iterable[Sequence[Cell]], header: Sequence[str]) -> None:
        """Write rows as a table, or as text."""
        self.write(*self.look.columns(rows, header if self.output == "table" else ()))

    def show(self, record: Any, *texts: str) -> None:
        """Write a result: as JSON, else as these lines."""
        if self.is_json:
            self.write(json.dumps(record, indent=2 if self.output == "json" else None))
        else:
            self.write(*texts)

    def show_list(
        self, records: Sequence[Any], rows: Iterable[Sequence[Cell]], header: Sequence[str]
    ) -> None:
        """Write a list: as one JSON document, as an object a line, or as a table."""
        if self.output == "json":
            self.write(json.dumps(records, indent=2))
        elif self.output == "jsonl":
            self.write(*map(json.dumps, records))
        else:
            self.show_rows(rows, header)

    def show_members(self, members: Sequence[Member]) -> None:
        """Write members in any of the outputs."""
        forms: dict[str, Callable[[], Iterable[str]]] = {
            "names": lambda: outputs.names(members),
            "hosts": lambda: outputs.hosts(members, self._left_out),
            "ansible": lambda: [self._inventory(members)],
            "prometheus": lambda: [json.dumps(self._targets(members), indent=2)],
        }
        if self.output in forms:
            self.write(*forms[self.output]())
        else:
            records = [full(member) for member in members]
            self.show_list(records, map(outputs.member_cells, members), outputs.MEMBER_HEADER)

    def _left_out(self, text: str) -> None:
        self.warn(f"left out: {text}")

    def _inventory(self, members: Sequence[Member]) -> str:
        name = self.values.get("host")
        if name is None:
            return json.dumps(outputs.inventory(members, self._left_out), indent=2)
        (found,) = [outputs.variables(member) for member in members if member.name == name] or [{}]
        return json.dumps(found, indent=2)

    def _targets(self, members: Sequence[Member]) -> list[dict[str, Any]]:
        return outputs.targets(members, self.values["port"], self.values["port_tag"])


def stdin() -> TextIO:
    """
    Return the standard input, for an argument that is ``-``.

    :raises UsageError: if it is closed.
    """
    if sys.stdin is None:
        raise UsageError("- is the standard input, which is closed")
    return sys.stdin


def complain(stream: IO[str] | None, text: str) -> None:
    """Write a line that says what is wrong; nothing of it can steer a terminal."""
    if stream is not None:
        stream.write(f"txserf: {printable(text)}\n")
        stream.flush()


class Missing(Exception):
    """Not all that was expected came; the text says so, with the names of the missing."""
