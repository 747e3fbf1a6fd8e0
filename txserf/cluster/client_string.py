"""The description ``serf:...`` of a client endpoint, for Twisted's ``clientFromString``."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, gatherResults

from txserf.cluster.endpoint import HIGHEST_PORT, ServiceEndpoint, port_from_text
from txserf.cluster.view import ClusterView
from txserf.connection.hosts import parse_hosts
from txserf.errors import InvalidRequest, hides_arguments
from txserf.serf.serf import Serf

# The attribute of a reactor that has the views behind its descriptions. A dict by reactor in this module would keep each
# reactor for good, even a weak one: a view leads to its reactor.
_VIEWS = "_txserf_views"


@hides_arguments
def endpoint_from_string(
    reactor: Any,
    /,
    *more: str,
    agent: str | None = None,
    port: str | None = None,
    portTag: str | None = None,
    policy: str = "random",
    **tags: str,
) -> ServiceEndpoint:
    """
    Make the endpoint of a description.

    :param reactor: dials, and keeps the view that all descriptions with this *agent* share.
    :param more: the parts of the description without a name; there are none.
    :param agent: a host list; None takes ``$SERF_RPC_ADDR``, else ``127.0.0.1:7373``.
    :param port: as of `ServiceEndpoint`, and so *portTag* and *policy*.
    :param tags: values by tag.
    :raises InvalidRequest: for a bad description; `InvalidHostURL` for a bad *agent*.
    """
    if more:
        raise InvalidRequest(f"serf: each part must have a name, as in role=web, but {more[0]!r} has none")
    number = None if port is None else port_from_text(port)
    if number is None and port is not None:
        raise InvalidRequest(f"serf: port must be a number from 1 to {HIGHEST_PORT}, not {port!r}")
    view = _shared_view(reactor, agent)
    return ServiceEndpoint(view, port=number, port_tag=portTag, policy=policy, tags=tags)


@hides_arguments
def _shared_view(reactor: Any, agent: str | None) -> ClusterView:
    """Return the view of a reactor and of a host list, which is stopped before the reactor ends."""
    hosts = parse_hosts(agent)
    if not hasattr(reactor, _VIEWS):
        setattr(reactor, _VIEWS, {})
    views: dict[object, ClusterView] = getattr(reactor, _VIEWS)
    if hosts not in views:
        view = views[hosts] = ClusterView(Serf(hosts, reactor=reactor))

        def stop() -> Deferred[list[None]]:
            return gatherResults(
                [view.stopService(), view.serf.close()]
            )  # at once, for an agent may be silent

        reactor.addSystemEventTrigger("before", "shutdown", stop)
    return views[hosts]
