"""The command line of ``txserf``, parsed as the table says."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NoReturn

import attrs

from txserf import __version__
from txserf.arguments import did_you_mean
from txserf.cli.table import BY_NAME, COMMANDS, COMMON, CliCommand, Parameter

_DESCRIPTION = "Asks and follows Serf's agents. When one is lost, it goes on with the next."

# Stands before each word behind "--" while argparse has it. Options and arguments may stand in any order, so argparse goes over
# the words twice; the second time it has forgotten the "--". No command line can have this character.
_ARGUMENT = "\0"


class UsageError(Exception):
    """A command line that is wrong, in a line."""


class _OneLineParser(argparse.ArgumentParser):
    """A parser whose refusals are one line."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; see {self.prog} --help")


def split(argv: Sequence[str]) -> tuple[list[str], str | None, list[str]]:
    """Return the options before the command, the command, and the arguments behind it."""
    with_value = {name for row in COMMON if row.shown is not None for name in row.names}
    place = 0
    while place < len(argv) and argv[place].startswith("-"):
        place += 2 if argv[place] in with_value else 1
    if place >= len(argv):
        return list(argv), None, []
    return list(argv[:place]), argv[place], list(argv[place + 1 :])


def top_parser() -> argparse.ArgumentParser:
    """Make the parser of what stands before the command; its help lists the commands."""
    width = max(len(row.name) for row in COMMANDS)
    listed = "\n".join(f"  {row.name:{width}}  {row.summary}" for row in COMMANDS)
    parser = _OneLineParser(
        "txserf",
        usage="txserf [OPTIONS] COMMAND ...",
        description=_DESCRIPTION,
        epilog=f"commands:\n{listed}\n\n'txserf COMMAND --help' shows the options of one.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--version", action="version", version=f"txserf {__version__}", help="Show the version."
    )
    for row in COMMON:
        _add(parser, row)
    return parser


def command_parser(row: CliCommand) -> argparse.ArgumentParser:
    """Make the parser of one command."""
    parser = _OneLineParser(
        f"txserf {row.name}", description=f"{row.summary} {row.more}".strip(), allow_abbrev=False
    )
    for each in row.parameters:
        _add(parser, each)
    common = parser.add_argument_group("common options")
    for each in COMMON:
        _add(common, attrs.evolve(each, choices=row.outputs) if each.key == "output" else each)
    return parser


def _add(parser: Any, row: Parameter) -> None:
    # Without a default, so that an option that was not given does not hide one that stood before the command.
    keywords: dict[str, Any] = {"help": row.help.replace("%", "%%")}
    if row.shown is None:
        keywords["action"] = "store_true"
    else:
        keywords["metavar"] = row.shown
        keywords["type"] = _converter(row.kind)
        if row.choices:
            keywords["choices"] = row.choices
    if row.is_option:
        keywords["dest"] = row.key
        keywords["default"] = argparse.SUPPRESS
        if row.many:
            keywords["action"] = "append"
    elif row.many:
        keywords["nargs"] = "*" if row.optional else "+"
    elif row.optional:
        keywords["nargs"] = "?"
        keywords["default"] = row.default
    parser.add_argument(*row.names, **keywords)


def _converter(kind: type[Any]) -> Callable[[str], Any]:
    def convert(word: str) -> Any:
        word = word.removeprefix(_ARGUMENT)
        try:
            return kind(word)
        except ValueError:
            raise argparse.ArgumentTypeError(f"invalid {kind.__name__} value: {word!r}") from None

    return convert


def parse(argv: Sequence[str]) -> tuple[CliCommand, dict[str, Any]]:
    """
    Parse a command line.

    :param argv: the arguments, without the program's name.
    :returns: the command, and the value of each of its parameters by `Parameter.key`. For a command that is handed on: its
        arguments as ``argv``.
    :raises UsageError: for a line that is wrong.
    :raises SystemExit: for ``--help`` and ``--version``, once they are printed.
    """
    before, name, behind = split(argv)
    row = None if name is None else BY_NAME.get(name)
    if name is not None and row is None:
        raise UsageError(f"there is no command {name!r}{did_you_mean(name, BY_NAME)}; see txserf --help")
    if row is not None and row.handed_on is not None:
        return row, {"argv": [*row.handed_on, *before, *behind]}
    given = _parsed(top_parser(), before, COMMON)
    if row is None:
        raise UsageError("a command is due; see txserf --help")
    parser = command_parser(row)
    if "--" in behind:
        place = behind.index("--")
        behind[place:] = [_ARGUMENT + word for word in behind[place + 1 :]]
    given |= _parsed(parser, behind, (*row.parameters, *COMMON))
    values = {each.key: each.default for each in (*row.parameters, *COMMON)}
    values |= given
    _check(row, values)
    return row, values


def _parsed(parser: argparse.ArgumentParser, argv: list[str], rows: Iterable[Parameter]) -> dict[str, Any]:
    found, unknown = parser.parse_known_intermixed_args(argv)
    if unknown:
        word = unknown[0].partition("=")[0]
        known = [name for row in rows for name in row.names if name.startswith("--")]
        what = "option" if word.startswith("-") else "argument"
        hint = did_you_mean(word, known) if what == "option" else ""
        raise UsageError(
            f"there is no {what} {word.removeprefix(_ARGUMENT)!r}{hint}; see {parser.prog} --help"
        )
    return vars(found)


def _check(row: CliCommand, values: dict[str, Any]) -> None:
    """Check what the parsers have not: numbers, and an output that stood before the command."""
    output = values["output"]
    if output is not None and output not in row.outputs:
        raise UsageError(f"{row.name} has no output {output}; it has {', '.join(row.outputs)}")
    for each in (*row.parameters, *COMMON):
        value = values[each.key]
        if each.kind is not str and value is not None and not each.accepts(value):
            named = each.names[-1] if each.is_option else each.shown
            raise UsageError(f"{named} is {each.rule}, not {value:g}")


def tags(items: Iterable[str] | None, named: str = "--tag") -> dict[str, str]:
    """Read ``KEY=VALUE`` items."""
    found: dict[str, str] = {}
    for item in items or ():
        key, equals, value = item.partition("=")
        if not key or not equals:
            raise UsageError(f"{named} is KEY=VALUE, not {item!r}")
        found[key] = value
    return found
