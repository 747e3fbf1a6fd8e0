"""The pytest fixture ``serf_cluster``, which comes with an installed txserf."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from twisted.internet.task import Clock

import txserf
from txserf.embedded import EmbeddedCluster


@pytest.mark.serf_cluster(Clock(), nodes=2, seed=1)
def test_the_marker_says_how_the_cluster_is_made(serf_cluster: EmbeddedCluster) -> None:
    assert list(serf_cluster.agents) == ["n1", "n2"]


def test_without_a_marker_it_is_one_agent(serf_cluster: EmbeddedCluster) -> None:
    assert list(serf_cluster.agents) == ["n1"]


def test_importing_txserf_does_not_need_pytest() -> None:
    code = (
        "import sys; sys.modules['pytest'] = None; import txserf.embedded, txserf; txserf.Serf, txserf.Client"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(txserf.__file__).parents[1])
