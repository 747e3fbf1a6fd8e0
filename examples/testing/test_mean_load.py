"""A test under pytest with pytest-twisted. Run it with ``pytest test_mean_load.py``."""

from __future__ import annotations

import pytest
import pytest_twisted  # type: ignore[import-untyped]  # it ships no types

import txserf
from txserf.embedded import EmbeddedCluster


async def mean_load(serf: txserf.Serf) -> float:
    """The code under test: return the mean of the loads that all nodes answer."""
    result = await serf.query("load", timeout=1, expect="all")
    return sum(map(float, result.responses.values())) / len(result.responses)


@pytest.mark.serf_cluster(nodes=2)
@pytest_twisted.ensureDeferred  # type: ignore[untyped-decorator]  # it ships no types
async def test_the_mean_load_is_that_of_all_nodes(serf_cluster: EmbeddedCluster) -> None:
    serf_cluster.agents["n1"].handle_query("load", lambda query: b"0.2")
    serf_cluster.agents["n2"].handle_query("load", lambda query: b"0.4")
    async with txserf.Serf(serf_cluster.endpoints()) as serf:
        assert await mean_load(serf) == pytest.approx(0.3)
