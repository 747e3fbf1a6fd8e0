"""
Host lists and ``serf://`` URLs.

A host is where an agent's RPC listens: an address and a port, or any
endpoint that Twisted can dial, and the key that the agent wants.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias
from urllib.parse import unquote

import attrs
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.python.reflect import safe_repr

from txserf import constant, wire
from txserf.arguments import did_you_mean
from txserf.errors import InvalidHostURL, hides_arguments

# These patterns, hyperlink and Twisted's endpoints are compiled and loaded at their first use, which leaves out a third of
# the time that ``import txserf; txserf.Serf`` takes: with the endpoints comes all of TLS.

# The name of a host, or of a zone. A character that could separate a key from it is not allowed.
_NAME = r"[^\s\x00-\x20\x7f\ud800-\udfff/\\?#@:%\[\];&=,]+"
# hyperlink is more lenient: it accepts any port that int() accepts, and a name in brackets.
_AUTHORITY = r"(?s)(?:[\w+.-]+://)?(?:\[(?P<ipv6>[^]]*)\]|[^][:/]+)(?::[0-9]+)?(?:[/?#].*)?"
# The zone of an IPv6 address, which hyperlink does not take.
_ZONE = r"(?:[\w+.-]+://)?\[[^]/?#%]*(%[^]/?#%]+)\]"
_BAD_ESCAPE = r"%(?![0-9A-Fa-f]{2})"
# The parts of an entry that can't be a key; the rest of it may be one.
_SHOWN = (
    r"(?s)(?P<scheme>[A-Za-z][\w+.-]*://)?(?P<host>\[[^]]*\](?=$|[:/?#;&\s])|[\w.-]+(?=$|[:/?#;&%\s]))?"
    r"(?P<port>:[0-9]{1,5}(?=$|[:/?#;&\s]))?(?P<sign>[:/?#;&]?)(?P<rest>.*)"
)


@attrs.frozen(init=False, repr=False)
class Host:
    """
    An agent's RPC.

    :ivar address: a host name or an IP address, without brackets.
    :ivar port: its TCP port, 1 to 65535.
    :ivar auth_key: the agent's key; None where none is due. Never shown.
    :ivar endpoint: dialled instead of address and port, if given: an ``IStreamClientEndpoint``.
    """

    address: str
    port: int
    auth_key: str | None
    endpoint: IStreamClientEndpoint | None = attrs.field(kw_only=True)

    @hides_arguments
    def __init__(
        self,
        address: str = constant.DEFAULT_HOST,
        port: int = constant.DEFAULT_PORT,
        auth_key: str | None = None,
        *,
        endpoint: IStreamClientEndpoint | None = None,
    ) -> None:
        self.__attrs_init__(address, port, auth_key, endpoint=endpoint)

    def __attrs_post_init__(self) -> None:
        if self.endpoint is not None:
            if not IStreamClientEndpoint.providedBy(self.endpoint):
                raise InvalidHostURL(f"not an IStreamClientEndpoint: {type(self.endpoint).__name__}")
        elif not isinstance(self.address, str) or not self._is_address():
            shown = _blotted(self.address) if isinstance(self.address, str) else type(self.address).__name__
            raise InvalidHostURL(f"not a host name or an IP address: {shown!r}")
        elif not isinstance(self.port, int) or isinstance(self.port, bool) or not 1 <= self.port <= 65535:
            # A key may be in its place.
            shown = repr(self.port) if type(self.port) is int and 0 <= self.port <= 99999 else "***"
            raise InvalidHostURL(f"the port of {self.address} is not a number from 1 to 65535: {shown}")
        if self.auth_key is not None:
            self._check_key(self.auth_key)

    def __repr__(self) -> str:
        if not hasattr(self, "endpoint"):  # tracebacks show objects that are half made
            return "<Host: not made>"
        key = "None" if self.auth_key is None else "'***'"
        address = _blotted(self.address) if isinstance(self.address, str) else type(self.address).__name__
        endpoint = safe_repr(self.endpoint)
        return f"Host(address={address!r}, port={self.port!r}, auth_key={key}, endpoint={endpoint})"

    def _check_key(self, key: object) -> None:
        if not isinstance(key, str):
            raise InvalidHostURL(f"the AuthKey of {self.label} is {type(key).__name__}, not str")
        try:
            wire.as_bytes(key)  # as it is sent
        except UnicodeEncodeError:  # its text would show the key
            raise InvalidHostURL(f"the AuthKey of {self.label} is not text that can be sent") from None

    def _is_address(self) -> bool:
        return _is_ipv6(self.address) or re.fullmatch(_NAME, self.address) is not None

    @property
    def label(self) -> str:
        """The host as errors and log lines show it, never with the key."""
        if self.endpoint is not None:
            return _endpoint_label(self.endpoint)
        return address_label(self.address, self.port)

    def dialled_by(self, reactor: Any, timeout: float) -> IStreamClientEndpoint:
        """Return an endpoint for it; one that is made here gives up after *timeout* seconds."""
        if self.endpoint is not None:
            return self.endpoint
        from twisted.internet.endpoints import HostnameEndpoint, TCP4ClientEndpoint, TCP6ClientEndpoint

        if _is_ipv6(self.address):
            return TCP6ClientEndpoint(reactor, self.address, self.port, timeout)
        try:
            ipaddress.IPv4Address(self.address)
        except ValueError:
            return HostnameEndpoint(reactor, self.address, self.port, timeout)
        return TCP4ClientEndpoint(reactor, self.address, self.port, timeout)


# For a class of twisted.internet.endpoints: the endpoint's name in an endpoint string, and the attribute that has its host.
_DIALS: Mapping[str, tuple[str, str]] = {
    "TCP4ClientEndpoint": ("tcp", "_host"),
    "TCP6ClientEndpoint": ("tcp", "_host"),
    "HostnameEndpoint": ("tcp", "_hostText"),
    "SSL4ClientEndpoint": ("ssl", "_host"),
}


def _endpoint_label(endpoint: object) -> str:
    """Return an endpoint of Twisted's as an endpoint string without its options, another one by its class."""
    kind = type(endpoint)
    # The attributes are private ones, and may go: then there is the class.
    fields: Mapping[str, Any] = getattr(endpoint, "__dict__", {})
    name_of_twisted = kind.__name__ if kind.__module__ == "twisted.internet.endpoints" else ""
    if name_of_twisted in _DIALS:
        name, attribute = _DIALS[name_of_twisted]
        host, port = fields.get(attribute), fields.get("_port")
        if host is not None and port is not None:
            return f"{name}:{address_label(_shown_address(os.fsdecode(host)), port)}"
    elif name_of_twisted == "UNIXClientEndpoint" and "_path" in fields:
        return f"unix:{os.fsdecode(fields['_path'])}".replace("\0", "@")  # as Linux shows an abstract one
    elif "_wrappedEndpoint" in fields and "wrapClientTLS" in getattr(
        fields.get("_wrapperFactory"), "__qualname__", ""
    ):
        return f"tls:{_endpoint_label(fields['_wrappedEndpoint']).removeprefix('tcp:')}"
    if kind.__repr__ is not object.__repr__:
        return str(safe_repr(endpoint))
    return f"{kind.__name__} at {id(endpoint):#x}"


def _shown_address(address: str) -> str:
    return address if _is_ipv6(address) or re.fullmatch(_NAME, address) else _blotted(address)


def address_label(address: str, port: int) -> str:
    """Return address and port as they are shown: an IPv6 address in brackets."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _is_ipv6(address: str) -> bool:
    _, percent, zone = address.partition("%")
    try:
        ipaddress.IPv6Address(address)
    except ValueError:
        return False
    return not percent or re.fullmatch(_NAME, zone) is not None


#: One item of a host list, and a host list: see `parse_hosts`.
HostItem: TypeAlias = "str | Host | IStreamClientEndpoint"
Hosts: TypeAlias = "HostItem | Iterable[HostItem] | None"


@hides_arguments
def parse_hosts(hosts: Hosts = None, environ: Mapping[str, str] | None = None) -> tuple[Host, ...]:
    """
    Read a host list.

    :param hosts: a string of entries with commas, or a sequence of such strings,
        `Host` objects and endpoints; None takes ``$SERF_RPC_ADDR``, else ``127.0.0.1:7373``.
    :param environ: None takes the process's environment. A host without a key takes ``$SERF_RPC_AUTH``.
    :returns: the hosts, in order; at least one.
    :raises InvalidHostURL: for an entry that is not understood; its text names the entry, without the key.
    """
    environ = os.environ if environ is None else environ
    if hosts is not None:
        found = _parse_list(hosts)
    elif environ.get("SERF_RPC_ADDR"):
        try:
            found = _parse_list(environ["SERF_RPC_ADDR"])
        except InvalidHostURL as error:
            raise InvalidHostURL(f"$SERF_RPC_ADDR: {error}") from None
    else:
        found = [Host(constant.DEFAULT_HOST, constant.DEFAULT_PORT)]
    key = environ.get("SERF_RPC_AUTH") or None
    return tuple(
        Host(host.address, host.port, key, endpoint=host.endpoint) if host.auth_key is None else host
        for host in found
    )


def _parse_list(hosts: HostItem | Iterable[HostItem]) -> list[Host]:
    items: list[Any] = [hosts]
    if not isinstance(hosts, (str, Host)) and not IStreamClientEndpoint.providedBy(hosts):
        try:
            items = list(hosts)
        except TypeError:
            raise InvalidHostURL(f"not a host list: {type(hosts).__name__}") from None
    found = [host for item in items for host in _parse_item(item)]
    if not found:
        raise InvalidHostURL("the host list is empty")
    return found


def _parse_item(item: object) -> list[Host]:
    if isinstance(item, Host):
        return [item]
    if isinstance(item, str):
        return _parse_text(item)
    if IStreamClientEndpoint.providedBy(item):
        return [Host(endpoint=item)]
    raise InvalidHostURL(f"neither a str, a Host nor an IStreamClientEndpoint: {type(item).__name__}")


def _parse_text(text: str) -> list[Host]:
    found: list[Host] = []
    before = ""
    for entry in map(str.strip, text.split(",")):
        try:
            found.append(_parse_entry(entry))
        except InvalidHostURL:
            if "?" in before:  # the rest of a key with a comma in it
                raise InvalidHostURL(
                    f"no host follows the comma behind {_blotted(before)!r}; a comma of the key is %2C"
                ) from None
            raise
        before = entry
    return found


def _parse_entry(entry: str) -> Host:
    if not entry:
        raise InvalidHostURL("the host list has an empty entry")
    shown = _blotted(entry)
    if "://" not in entry and ("?" in entry or "#" in entry):
        raise InvalidHostURL(f"an AuthKey needs a URL, serf://HOST:PORT?AuthKey=KEY: {shown!r}")
    if "@" in entry.partition("?")[0]:
        raise InvalidHostURL(f"neither a user nor a key goes before a host: {shown!r}")
    import hyperlink

    bare, zone = _without_zone(entry)
    try:
        url = hyperlink.URL.from_text(bare if "://" in bare else f"serf://{bare}")
    except ValueError:  # its text would show the key
        raise InvalidHostURL(f"not HOST, HOST:PORT or serf://HOST:PORT?AuthKey=KEY: {shown!r}") from None
    if url.scheme.lower() != "serf" or url.userinfo or any(url.path) or url.fragment:
        raise InvalidHostURL(f"not HOST, HOST:PORT or serf://HOST:PORT?AuthKey=KEY: {shown!r}")
    authority = re.fullmatch(_AUTHORITY, bare)
    if authority is None or (authority["ipv6"] is not None and not _is_ipv6(authority["ipv6"] + zone)):
        raise InvalidHostURL(f"not HOST, HOST:PORT or serf://HOST:PORT?AuthKey=KEY: {shown!r}")
    keys = [value for name, value in url.query if name == "AuthKey"]
    if len(keys) != len(url.query) or len(keys) > 1 or None in keys:
        # A name without a value may be the key itself.
        hints = (did_you_mean(name, ["AuthKey"]) for name, value in url.query if value and name != "AuthKey")
        hint = next(filter(None, hints), "")
        raise InvalidHostURL(
            f"AuthKey=KEY is all that may follow a '?'{hint}, & of the key is %26: {shown!r}"
        )
    if keys and re.search(_BAD_ESCAPE, keys[0] or ""):
        raise InvalidHostURL(f"a % of the key has to be written as %25: {shown!r}")
    key = unquote(keys[0] or "", errors="surrogateescape") if keys else None
    try:
        return Host(url.host + zone, constant.DEFAULT_PORT if url.port is None else url.port, key)
    except InvalidHostURL as error:
        raise InvalidHostURL(f"{error}, in {shown!r}") from None


def _without_zone(entry: str) -> tuple[str, str]:
    """Return *entry* without the zone of its IPv6 address, and that zone with its percent sign."""
    found = re.match(_ZONE, entry)
    if found is None:
        return entry, ""
    zone = found[1]
    if "://" in entry and zone.startswith("%25"):
        zone = "%" + zone[3:]  # as RFC 6874 has it
    return entry[: found.start(1)] + entry[found.end(1) :], zone


def _blotted(entry: str) -> str:
    """Return *entry* without anything that could be a key, for errors and log lines: its host is left."""
    if _is_ipv6(entry) and "%" not in entry:  # it lacks its brackets
        return entry
    found = re.fullmatch(_SHOWN, entry)
    assert found is not None, "it matches any text"
    scheme, host, port, sign, rest = (part or "" for part in found.groups())
    if "@" in entry or (host.startswith("[") and not _is_ipv6(host[1:-1].partition("%")[0])):
        return f"{scheme}***"  # a key on either side of the @
    if "%" in host:
        host = host.partition("%")[0] + "%***]"
    shown = f"{scheme}{host}{port}" + (f"{sign}***" if sign or rest else "")
    return re.sub(r"(authkey).*", r"\1***", shown, flags=re.DOTALL | re.IGNORECASE)
