"""
A fixture for pytest: ``serf_cluster``, an `EmbeddedCluster` that is closed after the test.

pytest finds it once txserf is installed. No other module of txserf imports pytest.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from txserf.embedded import EmbeddedCluster


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker."""
    config.addinivalue_line(
        "markers",
        "serf_cluster(reactor=None, nodes=1, ...): the arguments of the serf_cluster fixture's cluster",
    )


@pytest.fixture
def serf_cluster(request: pytest.FixtureRequest) -> Iterator[EmbeddedCluster]:
    """
    A cluster of one agent in this process, on the global reactor.

    The marker passes other arguments to `EmbeddedCluster`: ``@pytest.mark.serf_cluster(nodes=3, auth_key="s3cret",
    seed=1)``. With ``reactor=Clock()`` the test itself moves the time.
    """
    from txserf.embedded import EmbeddedCluster  # here, for pytest loads this module in every run

    marker = request.node.get_closest_marker("serf_cluster")
    args, kwargs = ((), {}) if marker is None else (marker.args, marker.kwargs)
    cluster = EmbeddedCluster(*args, **kwargs)
    yield cluster
    cluster.close()
