"""
A fixture for pytest: ``serf_cluster``, an `EmbeddedCluster` that is closed behind the test.

Installing txserf makes it known to pytest; nothing else of txserf imports pytest.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from txserf.embedded import EmbeddedCluster


def pytest_configure(config: pytest.Config) -> None:
    """Tell pytest of the marker."""
    config.addinivalue_line(
        "markers", "serf_cluster(reactor=None, nodes=1, ...): what the serf_cluster fixture is made with"
    )


@pytest.fixture
def serf_cluster(request: pytest.FixtureRequest) -> Iterator[EmbeddedCluster]:
    """
    A cluster of one agent in this process, on the global reactor.

    ``@pytest.mark.serf_cluster(nodes=3, auth_key="s3cret", seed=1)`` gives it other arguments of
    `EmbeddedCluster`; ``reactor=Clock()`` a time that the test itself moves.
    """
    from txserf.embedded import EmbeddedCluster  # not to be paid for by who does not ask for it

    marker = request.node.get_closest_marker("serf_cluster")
    args, kwargs = ((), {}) if marker is None else (marker.args, marker.kwargs)
    cluster = EmbeddedCluster(*args, **kwargs)
    yield cluster
    cluster.close()
