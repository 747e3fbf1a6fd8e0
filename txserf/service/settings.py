"""
The options of ``twistd txserf``: one table, and the configuration file.

The command line, the file, the documentation and the reload on SIGHUP all read `SETTINGS`.
"""

from __future__ import annotations

import enum
import math
import os
import sys
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import attrs

from txserf import constant
from txserf.arguments import count, did_you_mean, seconds, what_it_is
from txserf.commands import LOG_LEVELS
from txserf.errors import InvalidRequest
from txserf.filters import parse_filter


class ConfigError(ValueError):
    """An option that can't work. The text names the option, and the file if it came from one."""


class Takes(enum.Enum):
    """The kind of value that an option takes; the value is its name in the documentation."""

    TEXT = "text"
    LIST = "a list of text"
    NUMBER = "a whole number"
    SECONDS = "seconds"
    FLAG = "true or false"
    TABLES = "an array of tables"


# The names of TOML for the types of Python that its values have.
_TOML_TYPES = {"str": "text", "int": "a number", "float": "a number", "bool": "true or false"}
_TOML_TYPES |= {"list": "an array", "dict": "a table"}

# Python makes no text of a number with more than 4,300 digits, and nobody would read it.
_LONG = 10**20

# The highest number of a port.
_PORTS = 65535


@attrs.frozen
class Setting:
    """
    A row of the table.

    :ivar name: its name in the file, and on the command line behind ``--``.
    :ivar help: what it does, in a sentence or two.
    :ivar short: its letter on the command line.
    :ivar highest: of a NUMBER: the highest value. The lowest one is 1.
    :ivar zero: of SECONDS: whether they may be 0.
    :ivar choices: of a TEXT: all values that it may have; empty for any value.
    :ivar port: of a TEXT: whether the file may have the number of a port in its place.
    :ivar reloads: whether a SIGHUP takes a new value from the file.
    :ivar in_file: whether it may be in the file.
    """

    name: str
    kind: Takes
    help: str
    default: Any = None
    short: str | None = None
    highest: int | None = None
    zero: bool = True
    choices: tuple[str, ...] = ()
    port: bool = False
    reloads: bool = False
    in_file: bool = True

    @property
    def summary(self) -> str:
        """Its help, and its default."""
        return self.help if self.default is None else f"{self.help} [default: {self.shown_default}]"

    @property
    def shown_default(self) -> str:
        """Its default as text."""
        return f"{self.default:g}" if isinstance(self.default, float) else str(self.default)

    @property
    def rule(self) -> str:
        """The rule that its values follow, as in "seconds, 0 or more"."""
        if self.choices:
            return " or ".join(self.choices)
        if self.kind is Takes.NUMBER:
            return f"{self.kind.value} from 1 " + ("on" if self.highest is None else f"to {self.highest}")
        if self.kind is Takes.SECONDS:
            return f"{self.kind.value}, " + ("0 or more" if self.zero else "above 0")
        return f"{self.kind.value}, or the number of a port" if self.port else str(self.kind.value)

    def accepts(self, value: Any) -> bool:
        """Whether a value has the type and is within the limits."""
        if self.kind is Takes.FLAG:
            return isinstance(value, bool)
        if self.kind is Takes.LIST:
            return isinstance(value, list) and all(isinstance(item, str) for item in value)
        if self.kind is Takes.TABLES:
            return isinstance(value, list) and all(isinstance(item, dict) for item in value)
        if self.port and isinstance(value, int) and not isinstance(value, bool):
            return 1 <= value <= _PORTS
        if self.kind is Takes.TEXT:
            return isinstance(value, str) and (not self.choices or value in self.choices)
        try:
            if self.kind is Takes.SECONDS:
                return seconds(value, self.name) < math.inf and (self.zero or value > 0)
            return count(value, self.name) <= (self.highest or math.inf)
        except InvalidRequest:
            return False

    def from_text(self, text: str) -> Any:
        """
        Read a value of the command line.

        :raises ValueError: for a value that is against the rule, which the text names.
        """
        value: Any = text
        try:
            if self.kind is Takes.NUMBER:
                value = int(text)
            elif self.kind is Takes.SECONDS:
                value = float(text)
        except ValueError:
            pass
        if self.accepts(value):
            return value
        raise ValueError(f"--{self.name} is {self.rule}, not {text!r}")


SETTINGS = (
    Setting(
        "agent",
        Takes.TEXT,
        "Agents, with commas, as HOST:PORT, serf://HOST:PORT?AuthKey=KEY or a client endpoint of Twisted's such as "
        "tls:HOST:PORT; without it $SERF_RPC_ADDR, else 127.0.0.1:7373.",
        short="a",
    ),
    Setting(
        "auth-key-file",
        Takes.TEXT,
        "A file with the key of the agents, which its owner alone can read; for all that have no key of their own in "
        "--agent. Without it $SERF_RPC_AUTH.",
    ),
    Setting(
        "handler",
        Takes.LIST,
        "A script for events, as 'serf agent -event-handler' takes it: SCRIPT, or FILTER=SCRIPT such as "
        "user:deploy=./deploy.sh. May be given several times.",
        reloads=True,
    ),
    Setting(
        "script-rpc-auth",
        Takes.FLAG,
        "Leave $SERF_RPC_AUTH, the agent's key, in the environment of the scripts of --handler.",
        reloads=True,
    ),
    Setting(
        "app",
        Takes.TEXT,
        "A txserf.Router to take handlers from, as MODULE:NAME.",
        reloads=True,
    ),
    Setting(
        "template",
        Takes.TABLES,
        "Keep the file DEST, which the Jinja2 template SRC makes of the members, and run the command RELOAD when it has "
        "changed: SRC:DEST or SRC:DEST:RELOAD. May be given several times.",
        reloads=True,
    ),
    Setting("concurrency", Takes.NUMBER, "How many events may be in work at once.", default=1, reloads=True),
    Setting(
        "handler-timeout",
        Takes.SECONDS,
        "Seconds that a handler may take; 0: no limit.",
        default=constant.HANDLER_TIMEOUT,
        reloads=True,
    ),
    Setting(
        "drain-timeout",
        Takes.SECONDS,
        "Seconds in which a stop handles the events that came before it.",
        default=constant.DRAIN_TIMEOUT,
        zero=False,
    ),
    Setting("state", Takes.TEXT, "A file that keeps which events were handled, over restarts."),
    Setting(
        "stream",
        Takes.TEXT,
        "Events to show, such as user:deploy,member-failed,query; empty: none. Without it all are shown if there "
        "are no handlers, else none.",
        short="s",
    ),
    Setting(
        "monitor",
        Takes.TEXT,
        f"Show the agent's log too, from this level up: {', '.join(LOG_LEVELS)}.",
        short="m",
    ),
    Setting(
        "format",
        Takes.TEXT,
        "The format of the lines that are shown: text, or json for a JSON object a line.",
        default="text",
        short="f",
        choices=("text", "json"),
    ),
    Setting(
        "log-format",
        Takes.TEXT,
        "The format of the log: text, or json for a JSON object a line.",
        default="text",
        choices=("text", "json"),
    ),
    Setting(
        "http",
        Takes.TEXT,
        "Serve the cluster over HTTP here (health, metrics, members, events): a port of 127.0.0.1, or a server endpoint of "
        "Twisted's.",
        port=True,
    ),
    Setting(
        "http-token-file",
        Takes.TEXT,
        "A file with a token, which its owner alone can read. Who has the token may send events, ask queries and force "
        "members to leave over --http. Without it nobody may.",
        reloads=True,
    ),
    Setting(
        "embedded",
        Takes.NUMBER,
        "Run a cluster of this many agents in this process, and use it: no Serf is needed.",
        highest=1000,
    ),
    Setting(
        "embedded-port",
        Takes.NUMBER,
        "Let the embedded agents listen on 127.0.0.1, from this port on.",
        highest=_PORTS,
    ),
    Setting("embedded-quiet", Takes.FLAG, "Let no events happen by themselves in the embedded cluster."),
    Setting(
        "config",
        Takes.TEXT,
        "Read options from this TOML file, and again on SIGHUP.",
        short="c",
        in_file=False,
    ),
)

BY_NAME = {setting.name: setting for setting in SETTINGS}

Values = Mapping[str, Any]


def load(path: Path) -> dict[str, Any]:
    """
    Read a configuration file: the names of the options as keys.

    :raises ConfigError: for a file that can't be read, an unknown name or a wrong type. The text has no value of
        text, which may hold an agent's key.
    """
    loads = _toml().loads
    try:
        kind = what_it_is(path)
        text = path.read_text(encoding="utf-8") if kind is None else ""
    except OSError as error:
        raise ConfigError(f"{path} can't be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not TOML: {error}") from None
    if kind is not None:
        raise ConfigError(f"{path} can't be read: it is {kind}")
    try:
        found: dict[str, Any] = loads(text)
    except ValueError as error:
        raise ConfigError(f"{path} is not TOML: {error}") from None
    except RecursionError:
        raise ConfigError(f"{path} is not TOML: it is nested too deep") from None
    for name, value in found.items():
        setting = BY_NAME.get(name)
        if setting is None or not setting.in_file:
            known = [row.name for row in SETTINGS if row.in_file]
            hint = did_you_mean(name, known) or f"; there are {', '.join(known)}"
            if isinstance(value, dict):
                hint = "; options stand at the top of the file, in no table"
            raise ConfigError(f"{path}: there is no option {name!r}{hint}")
        if not setting.accepts(value):
            raise ConfigError(f"{path}: {name} is {setting.rule}, not {_shown(value, setting)}")
        if setting.port:
            found[name] = str(value)
    return found


def _shown(value: object, setting: Setting) -> str:
    """Return a value of the file for a refusal: the value itself if it can't be secret, else its type."""
    if isinstance(value, int) and abs(value) >= _LONG:
        return "a number of 21 digits or more"
    public = setting.kind in (Takes.NUMBER, Takes.SECONDS) or setting.choices or setting.port
    if public and isinstance(value, (str, int, float)):
        return repr(value)
    return _TOML_TYPES.get(type(value).__name__, "a date or time")


def _toml() -> Any:
    name = "tomllib" if sys.version_info >= (3, 11) else "tomli"
    try:
        return import_module(name)
    except ImportError:
        raise ConfigError(f"--config needs {name}, which the extra txserf[toml] brings") from None


def merged(given: Values, file: Values) -> dict[str, Any]:
    """Return the value of each option: from the command line, else from the file, else its default."""
    return {row.name: given.get(row.name, file.get(row.name, row.default)) for row in SETTINGS}


def check(values: Values) -> None:
    """
    Check values by themselves and against each other.

    :raises ConfigError: for one that can't work; it names the option.
    """
    if values["embedded"] is None and (values["embedded-port"] is not None or values["embedded-quiet"]):
        raise ConfigError("--embedded-port and --embedded-quiet go with --embedded")
    if values["embedded"] is not None and values["agent"] is not None:
        raise ConfigError("--agent and --embedded exclude each other")
    if values["embedded"] is not None and values["auth-key-file"] is not None:
        raise ConfigError("--auth-key-file and --embedded exclude each other")
    if values["http-token-file"] is not None and values["http"] is None:
        raise ConfigError("--http-token-file goes with --http")
    if values["state"] is not None:
        if not (values["handler"] or values["app"] or values["config"]):
            raise ConfigError("--state goes with --handler, --app or --config")
        _check_state(Path(values["state"]))
    _check_shown(values["stream"], values["monitor"])


def _check_shown(stream: str | None, monitor: str | None) -> None:
    try:
        parse_filter(stream or "*")
    except InvalidRequest as error:
        raise ConfigError(f"--stream {stream!r}: {error}") from None
    if monitor and monitor.upper() not in LOG_LEVELS:
        raise ConfigError(f"--monitor {monitor!r}: there are {', '.join(LOG_LEVELS)}")


def _check_state(path: Path) -> None:
    try:
        kind = what_it_is(path)
    except FileNotFoundError:  # it will be made
        kind = None
    except OSError as error:
        raise ConfigError(f"--state {path}: {error.strerror}") from None
    except ValueError as error:  # it has a NUL
        raise ConfigError(f"--state {str(path)!r}: {error}") from None
    if kind is not None:
        raise ConfigError(f"--state {path} is {kind}")
    folder = Path(os.path.realpath(path)).parent
    if not folder.is_dir():
        raise ConfigError(f"--state {path}: there is no directory {folder}")
