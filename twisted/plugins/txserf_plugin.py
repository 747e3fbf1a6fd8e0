"""
The plugins of txserf: the command ``txserf`` of ``twistd``, and the descriptions ``serf:...`` of ``clientFromString``.

They import txserf when they are used, so that ``twistd --help`` imports nothing of it. Do not rename
the variables below. Twisted remembers their names in its ``dropin.cache``, and reads this file again
only if it is newer than the cache. Some installers keep older file times; after a rename the cache
would then have a name that no longer exists.
"""

from twisted.application.service import ServiceMaker
from twisted.internet.interfaces import IStreamClientEndpointStringParserWithReactor
from twisted.plugin import IPlugin
from zope.interface import implementer

txserf = ServiceMaker(
    "txserf",
    "txserf.service",
    "Follow the events of a Serf cluster, and run handlers for them.",
    "txserf",
)


@implementer(IPlugin, IStreamClientEndpointStringParserWithReactor)
class _ServiceEndpointParser:
    """Makes a ``txserf.ServiceEndpoint`` of ``serf:role=web:port=8080``."""

    prefix = "serf"

    # Arguments by position only, for a tag may have any name.
    def parseStreamClient(self, reactor, /, *args, **kwargs):
        from txserf.cluster.client_string import endpoint_from_string

        return endpoint_from_string(reactor, *args, **kwargs)


txserf_endpoint = _ServiceEndpointParser()
