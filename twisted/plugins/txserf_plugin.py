"""
The plugin that adds the command ``txserf`` to ``twistd``.

It names the service's module in a string, so that ``twistd --help`` imports nothing of
txserf. Do not rename the variable ``txserf`` below. Twisted remembers that name in its
``dropin.cache``, and reads this file again only if it is newer than the cache. Some installers
keep older file times; after a rename the cache would then have a name that no longer exists.
"""

from twisted.application.service import ServiceMaker

txserf = ServiceMaker(
    "txserf",
    "txserf.service",
    "Follow the events of a Serf cluster, and run handlers for them.",
    "txserf",
)
