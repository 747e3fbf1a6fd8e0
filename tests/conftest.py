"""
Fixtures with real Serf agents.

A test that uses one of them, or lies in ``tests/real``, is marked ``real`` by
itself: ``pytest -m "not real"`` leaves these out.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.agents import Agent, cluster, find_serf, new_encrypt_key

#: Characters that a URL has to percent-encode, and that a shell or a JSON file could trip over.
ODD_KEY = "s3cret %2F/?&=+#@:,'\"é"

_AGENT_FIXTURES = {"agent", "two_agents", "auth_agent", "encrypted_agents", "shared_cluster"}
_REAL = Path(__file__).parent / "real"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        uses_agents = _AGENT_FIXTURES.intersection(getattr(item, "fixturenames", ()))
        if uses_agents or _REAL in item.path.parents:
            item.add_marker(pytest.mark.real)


def pytest_collection_finish(session: pytest.Session) -> None:
    # A download must not be charged to the time limit of the first test.
    if any(item.get_closest_marker("real") for item in session.items):
        find_serf()


@pytest.fixture
def agent() -> Iterator[Agent]:
    """One agent, ``n1``, without any tags."""
    with cluster(1) as (only,):
        yield only


@pytest.fixture
def two_agents() -> Iterator[list[Agent]]:
    """Two agents of one cluster, for a test that changes or ends them."""
    with cluster(2) as agents:
        yield agents


@pytest.fixture
def auth_agent() -> Iterator[Agent]:
    """One agent whose RPC wants a key: its ``rpc_auth``."""
    with cluster(1, rpc_auth=ODD_KEY) as (only,):
        yield only


@pytest.fixture
def encrypted_agents() -> Iterator[list[Agent]]:
    """Two agents with encrypted gossip, on which the key commands work."""
    with cluster(2, encrypt=new_encrypt_key()) as agents:
        yield agents


@pytest.fixture(scope="session")
def shared_cluster() -> Iterator[list[Agent]]:
    """Two agents for all the tests that only read: ``n1`` with role web, ``n2`` with role db."""
    with cluster(2, tags=[{"role": "web"}, {"role": "db"}]) as agents:
        yield agents
