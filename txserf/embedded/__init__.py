"""
A Serf cluster in this process, for tests and first steps.

Its agents answer Serf's RPC as real ones do, over memory or TCP, and the cluster
between them is a model whose time is a reactor's, or a `Clock`'s.
"""

from __future__ import annotations

from txserf.embedded.agent import EmbeddedAgent
from txserf.embedded.cluster import EmbeddedCluster
from txserf.embedded.keyring import Keyring

__all__ = ["EmbeddedAgent", "EmbeddedCluster", "Keyring"]
