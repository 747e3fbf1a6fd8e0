"""The fixtures of this folder. Each test runs twice: on real agents and on embedded ones."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.agents import find_serf, new_encrypt_key
from tests.contract.harness import KINDS, Nodes, turns, wait_for

BOTH = [pytest.param("embedded"), pytest.param("real", marks=pytest.mark.real)]

#: The RPC key of the agent in `locked`.
AUTH_KEY = "s3cret é"


def pytest_collection_finish(session: pytest.Session) -> None:
    # Download serf now, so that it does not count for the time limit of the first test.
    if any(item.get_closest_marker("real") for item in session.items):
        find_serf()


@pytest.fixture(scope="session", params=BOTH)
def _shared(request: pytest.FixtureRequest) -> Iterator[Nodes]:
    wait_for(turns(0))
    cluster = KINDS[request.param]([{"role": "web", "dc": "east"}, {"role": "db"}])
    yield Nodes(cluster)
    cluster.close()


@pytest.fixture
def shared(_shared: Nodes) -> Iterator[Nodes]:
    """Two agents shared by all tests that change no members: ``n1`` with role web and dc east, ``n2`` with role db."""
    yield _shared
    _shared.disconnect()


def _fresh(request: Any, nodes: int, **options: Any) -> Iterator[Nodes]:
    wait_for(turns(0))
    cluster = KINDS[request.param]([{}] * nodes, **options)
    fresh = Nodes(cluster)
    yield fresh
    fresh.disconnect()
    cluster.close()


@pytest.fixture(params=BOTH)
def single(request: pytest.FixtureRequest) -> Iterator[Nodes]:
    """One agent without tags, for one test only."""
    yield from _fresh(request, 1)


@pytest.fixture(params=BOTH)
def pair(request: pytest.FixtureRequest) -> Iterator[Nodes]:
    """Two agents without tags, for one test only."""
    yield from _fresh(request, 2)


@pytest.fixture(params=BOTH)
def trio(request: pytest.FixtureRequest) -> Iterator[Nodes]:
    """Three agents without tags, for one test only."""
    yield from _fresh(request, 3)


@pytest.fixture(params=BOTH)
def encrypted(request: pytest.FixtureRequest) -> Iterator[Nodes]:
    """Two agents with encrypted gossip, for one test only."""
    yield from _fresh(request, 2, encrypt_key=new_encrypt_key())


@pytest.fixture(params=BOTH)
def default_bind(request: pytest.FixtureRequest) -> Iterator[Nodes]:
    """Two agents whose gossip listens on 0.0.0.0, as Serf's does by default, for one test only."""
    yield from _fresh(request, 2, default_bind=True)


@pytest.fixture(scope="session", params=BOTH)
def _locked(request: pytest.FixtureRequest) -> Iterator[Nodes]:
    wait_for(turns(0))
    cluster = KINDS[request.param]([{}], auth_key=AUTH_KEY)
    yield Nodes(cluster)
    cluster.close()


@pytest.fixture
def locked(_locked: Nodes) -> Iterator[Nodes]:
    """One agent whose RPC needs `AUTH_KEY`."""
    yield _locked
    _locked.disconnect()
