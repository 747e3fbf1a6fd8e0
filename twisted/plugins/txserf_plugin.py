"""
What makes ``twistd txserf`` known to Twisted.

The service is named by a string, so that ``twistd --help`` imports nothing of
txserf. Twisted remembers the name ``txserf`` below in its ``dropin.cache``: a release
that renamed it could leave an entry that points nowhere, where an installer
keeps the times of files older than that cache. So it stays.
"""

from twisted.application.service import ServiceMaker

txserf = ServiceMaker(
    "txserf",
    "txserf.service",
    "Follow the events of a Serf cluster, and run handlers for them.",
    "txserf",
)
