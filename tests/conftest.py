"""
Fixtures with real Serf agents, and with a browser.

Tests that use one of them, and all tests in ``tests/real``, get the mark ``real``
automatically. ``pytest -m "not real"`` leaves them out.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.agents import Agent, cluster, find_serf, new_encrypt_key

if TYPE_CHECKING:
    from tests.browser import Browser

#: A key of characters that have to be percent-encoded in a URL, or escaped in a shell or in JSON.
ODD_KEY = "s3cret %2F/?&=+#@:,'\"é"

_AGENT_FIXTURES = {"agent", "two_agents", "auth_agent", "encrypted_agents", "shared_cluster"}
_REAL = Path(__file__).parent / "real"

# A shell has what it starts in the background ignore Ctrl-C, and so would the programs that tests start and end by it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        uses_agents = _AGENT_FIXTURES.intersection(getattr(item, "fixturenames", ()))
        if uses_agents or _REAL in item.path.parents:
            item.add_marker(pytest.mark.real)
    # Those with a limit of their own take longest. They come first: else one process is still at them when the others
    # have nothing left to do.
    items.sort(key=lambda item: item.get_closest_marker("timeout") is None)


def pytest_collection_finish(session: pytest.Session) -> None:
    # Download serf now, so that it does not count for the time limit of the first test.
    if any(item.get_closest_marker("real") for item in session.items):
        find_serf()


@pytest.fixture
def agent() -> Iterator[Agent]:
    """One agent, ``n1``, without tags."""
    with cluster(1) as (only,):
        yield only


@pytest.fixture
def two_agents() -> Iterator[list[Agent]]:
    """Two agents of one cluster, for a test that changes or ends them."""
    with cluster(2) as agents:
        yield agents


@pytest.fixture
def auth_agent() -> Iterator[Agent]:
    """One agent whose RPC needs a key: its ``rpc_auth``."""
    with cluster(1, rpc_auth=ODD_KEY) as (only,):
        yield only


@pytest.fixture
def encrypted_agents() -> Iterator[list[Agent]]:
    """Two agents with encrypted gossip, as the key commands need it."""
    with cluster(2, encrypt=new_encrypt_key()) as agents:
        yield agents


@pytest.fixture(scope="session")
def shared_cluster() -> Iterator[list[Agent]]:
    """Two agents shared by all tests that change nothing on them: ``n1`` with role web, ``n2`` with role db."""
    with cluster(2, tags=[{"role": "web"}, {"role": "db"}]) as agents:
        yield agents


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A headless Chromium. Where there is none, the test is skipped."""
    # pytest reads this file before pytest-twisted has chosen the reactor, which this module loads.
    from tests.shown import running_browser

    with running_browser(tmp_path_factory.mktemp("browser")) as running:
        yield running
