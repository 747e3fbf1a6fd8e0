"""The page in a real browser, on real agents."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.agents import Agent
from tests.browser import Browser
from tests.real.helpers import in_reactor
from tests.shown import shown_to, wait_for_status

_HOSTILE = "<script>alert(1)</script>"
_IMAGE = "<img src=x onerror=alert(2)>"


@pytest.fixture
def show(browser: Browser, nothing_is_left: None) -> Iterator[Any]:
    with shown_to(browser) as make:
        yield make


@in_reactor
async def test_joins_and_failures_are_seen(show: Any, two_agents: list[Agent]) -> None:
    near, far = two_agents
    page = await show([near.rpc]).open()
    await wait_for_status(page, "n2", "alive")
    far.kill()
    await page.until_text(".record.member-failed", "n2")
    await wait_for_status(page, "n2", "failed")
    far.start(join=[near])
    await page.until_text(".record.member-join", "n2")
    await wait_for_status(page, "n2", "alive")


@in_reactor
async def test_a_killed_agent_shows_a_banner_then_the_gap_then_that_it_is_back(
    show: Any, two_agents: list[Agent]
) -> None:
    near, far = two_agents
    page = await show([near.rpc]).open()
    await page.until_text("#light", "connected to")
    near.kill()
    await page.until_text("#banner", "The agent is away since")
    await wait_for_status(page, "n2", "alive")
    near.start(join=[far])
    await page.until_text(".record.gap", "Events may have been missed")
    await page.until_text("#banner", "The agent is back, after")


@in_reactor
async def test_another_agent_takes_over_and_the_page_says_so(show: Any, two_agents: list[Agent]) -> None:
    near, far = two_agents
    page = await show([near.rpc, far.rpc]).open()
    await page.until_text("#light", near.rpc)
    near.kill()
    await page.until_text("#light", far.rpc)
    await page.until_text("#state", "Failovers1")
    await page.until_text("#state", f"Agent{far.rpc}")


@pytest.fixture
def hostile_agent(tmp_path: Path) -> Iterator[Agent]:
    """An agent whose node is called like a script."""
    agent = Agent("hostile", tmp_path)
    agent.name = _HOSTILE  # which is not the name of its files
    agent.start()
    yield agent
    agent.kill()


@in_reactor
async def test_a_member_that_is_called_like_a_script_stays_text(show: Any, hostile_agent: Agent) -> None:
    shown = show([hostile_agent.rpc])
    page = await shown.open()
    await wait_for_status(page, _HOSTILE, "alive")
    await shown.serf.set_tags({"role": _HOSTILE, _IMAGE: "x"})
    await page.until_text("#space .row .tags", f"{_IMAGE}=x")
    await page.until_text("#feed .record.member-update", f"role={_HOSTILE}")
    await shown.serf.event(_HOSTILE, _IMAGE.encode())
    await page.until_text("#feed .record.user", _IMAGE)
    assert await page.run("document.querySelectorAll('img, body script').length") == 0
