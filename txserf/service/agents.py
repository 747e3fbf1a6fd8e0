"""The agents that ``--agent`` names, as hosts or as endpoint strings, and the key of ``--auth-key-file``."""

from __future__ import annotations

import os
import re
import shlex
import stat
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from twisted.internet.endpoints import clientFromString
from twisted.internet.interfaces import IStreamClientEndpoint, IStreamClientEndpointStringParserWithReactor
from twisted.plugin import getPlugins

from txserf.arguments import reactor_or_global
from txserf.connection.hosts import Host, HostItem, parse_hosts
from txserf.errors import InvalidHostURL, hides_arguments
from txserf.service.settings import ConfigError, Values
from txserf.wire import as_text

#: Bytes that a key file may have: more than any key has.
KEY_LIMIT = 1 << 16

# The endpoints that Twisted has without a plugin.
_BUILT_IN = ("tcp", "ssl", "unix")


@hides_arguments
def read_agents(values: Values) -> tuple[Host, ...]:
    """
    Return the agents that the options name.

    An entry of ``--agent`` that begins with the name of a client endpoint and a colon is an endpoint string, as
    ``clientFromString`` takes it. ``NAME:NUMBER`` is a host, though, and so is ``NAME://...``. A comma in an endpoint
    string is written ``\\,``. Hosts without a key of their own have that of the key file.

    :raises ConfigError: for a host list that is not understood, or a key file that can't be used. It has no key.
    """
    agent, path = values["agent"], values["auth-key-file"]
    environ = dict(os.environ)
    if path is not None:
        environ["SERF_RPC_AUTH"] = read_key(Path(path))
    items: list[HostItem] | None = None
    if agent is not None:
        items = [_endpoint(entry) if _is_endpoint(entry) else entry for entry in _entries(agent)]
    try:
        return parse_hosts(_joined(items), environ)
    except InvalidHostURL as error:
        # If none is given, the text names the environment variable already.
        raise ConfigError(str(error) if agent is None else f"--agent: {error}") from None


def _entries(text: str) -> Iterator[str]:
    """Cut a list at its commas, but for those of an endpoint string that have a backslash in front."""
    entry = ""
    for part in text.split(","):
        entry = f"{entry},{part}" if entry else part.strip()
        backslashes = len(entry) - len(entry.rstrip("\\"))
        if backslashes % 2 and _is_endpoint(entry):
            continue  # Twisted takes the backslash away
        yield entry.strip()
        entry = ""
    if entry:
        yield entry


def _joined(items: list[HostItem] | None) -> list[HostItem] | None:
    """Put neighbours that are text into one again: the error of an entry depends on the one before."""
    if items is None:
        return None
    joined: list[HostItem] = []
    for item in items:
        if isinstance(item, str) and joined and isinstance(joined[-1], str):
            joined[-1] = f"{joined[-1]},{item}"
        else:
            joined.append(item)
    return joined


def _is_endpoint(entry: str) -> bool:
    name, colon, rest = entry.partition(":")
    if not colon or rest.isdecimal() or rest.startswith("//"):
        return False
    plugins = (each.prefix for each in getPlugins(IStreamClientEndpointStringParserWithReactor))
    return name.casefold() in _BUILT_IN or name.casefold() in map(str.casefold, plugins)


def _endpoint(text: str) -> IStreamClientEndpoint:
    try:
        endpoint: IStreamClientEndpoint = clientFromString(reactor_or_global(), text)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # an endpoint's parser may be a plugin's
        reason = _why_not(text.partition(":")[0], error)
    else:
        return endpoint
    raise ConfigError(f"--agent: {_shown(text)!r} is no client endpoint: {reason}")


def _why_not(name: str, error: BaseException) -> str:
    """Say why an endpoint string is not understood, without its values: one may be a key."""
    if name.casefold() in ("tls", "ssl") and find_spec("OpenSSL") is None:
        return "it needs pyOpenSSL, which the extra txserf[tls] brings"
    error = getattr(
        error, "originalException", error
    )  # a folder that can't be listed has an error around the real one
    if isinstance(error, OSError):
        return f"{error.strerror or type(error).__name__}: {error.filename}"
    return f"{type(error).__name__}, see 'client endpoints' in the documentation of Twisted"


def _shown(text: str) -> str:
    """Return an endpoint string as errors may show it: its name and its host, for the rest may be a key."""
    found = re.match(r"\w+:(?:host=)?(?:[\w.-]+(?=:)(?!.*@))?", text, re.DOTALL)
    return f"{found[0] if found else ''}***"


@hides_arguments
def read_key(path: Path, option: str = "auth-key-file") -> str:
    """
    Read a key, that of the agents or another: the only line of a file that its owner alone can read.

    :param option: the option that names the file.
    :raises ConfigError: for a file that others can read too, or that has no key or more than one line.
    """
    named = f"--{option} {path}"
    try:
        # Not blocking: a FIFO would wait for a writer.
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise ConfigError(f"{named} is no regular file")
            _check_mode(path, named, stat.S_IMODE(found.st_mode))
            data = file.read(KEY_LIMIT + 1)
    except OSError as error:
        raise ConfigError(f"{named} can't be read: {error.strerror}") from None
    except ConfigError:
        raise
    except ValueError as error:  # its name has a NUL
        raise ConfigError(f"--{option} {str(path)!r}: {error}") from None
    key = as_text(data).removesuffix("\n").removesuffix("\r")
    if not key:
        raise ConfigError(f"{named} is empty")
    if len(data) > KEY_LIMIT:
        raise ConfigError(f"{named} is larger than {KEY_LIMIT} bytes")
    if "\n" in key:
        raise ConfigError(f"{named} has more than one line")
    return key


def _check_mode(path: Path, named: str, mode: int) -> None:
    # In the folder of systemd's credentials, which is private, the bits of the group are the mask of an access list
    # where the service has a user: they say 0440 (systemd's issue 29435).
    is_credential = str(path.parent) == os.environ.get("CREDENTIALS_DIRECTORY")
    if mode & (0o037 if is_credential else 0o077):
        mend = shlex.join(["chmod", "600", str(path)])
        raise ConfigError(f"{named} is open to others than its owner (mode {mode:04o}); mend it by: {mend}")
