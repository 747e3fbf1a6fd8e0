"""The page in a real browser, on an embedded cluster."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from tests.browser import Browser, Page
from tests.in_reactor import in_reactor, wait_for
from tests.shown import TOKEN, shown_to, status_of, wait_for_status
from txserf.embedded import EmbeddedCluster
from txserf.model import QueryEvent

_HOSTILE = "<script>alert(1)</script>"
_IMAGE = '"><img src=x onerror=alert(1)>'


@pytest.fixture
def cluster() -> Iterator[EmbeddedCluster]:
    made = EmbeddedCluster(nodes=3, default_bind=True)
    made.failure_detection = 0.1
    yield made
    wait_for(made.close())


@pytest.fixture
def show(cluster: EmbeddedCluster, browser: Browser) -> Iterator[Any]:
    """Show the cluster by its first agent."""
    with shown_to(browser) as make:
        yield lambda **options: make([cluster.agents["n1"].endpoint()], **options)


@in_reactor
async def test_joins_changes_failures_and_leaves_are_seen(show: Any, cluster: EmbeddedCluster) -> None:
    page = await show().open()
    await page.until_text("#found", "3 members")
    cluster.add("web-1", {"role": "web"})
    await wait_for_status(page, "web-1", "alive")
    await page.until_text(".record.member-join", "role=web")
    cluster.fail("web-1")
    await wait_for_status(page, "web-1", "failed")
    await page.until_text(".record.member-failed", "web-1")
    await page.until_text("[data-status=failed].chip", "1")
    await cluster.leave("n3")
    await wait_for_status(page, "n3", "left")


@in_reactor
async def test_a_lost_agent_shows_a_banner_then_the_gap_then_that_it_is_back(
    show: Any, cluster: EmbeddedCluster
) -> None:
    page = await show().open()
    await page.until_text("#light", "connected to")
    cluster.fail("n1")
    await page.until("document.querySelector('#banner').dataset.how === 'away'")
    told = await page.until_text("#banner", "The agent is away since")
    assert ".." not in told
    assert await page.run(status_of("n2")) == "alive"  # the last known members stay
    cluster.fail("n3")  # which nobody tells
    cluster.recover("n1")
    await page.until_text(".record.gap", "Events may have been missed")
    await page.until_text("#banner", "The agent is back, after")
    await wait_for_status(page, "n3", "failed")
    await page.until_text("#state", "Gaps1")


@in_reactor
async def test_a_lost_site_shows_a_banner_and_a_gap_too(show: Any) -> None:
    shown = show()
    page = await shown.open()
    await page.until_text("#light", "connected to")
    await shown.hang_up()
    await page.until_text("#banner", "txserf does not answer since")
    shown.listen()
    await page.until_text("#banner", "txserf answers again")
    await page.until_text(".record.gap", "This page had no connection")


@in_reactor
async def test_markup_from_the_cluster_stays_text(show: Any, cluster: EmbeddedCluster) -> None:
    shown = show()
    page = await shown.open()
    elements = await page.run("document.querySelectorAll('script, img').length")
    cluster.add(_HOSTILE, {"role": _IMAGE, _IMAGE: _HOSTILE}).handle_query(_IMAGE, lambda query: _HOSTILE)
    await wait_for_status(page, _HOSTILE, "alive")
    await page.until_text(".record.member-join", _HOSTILE)
    await page.until_text("#map", _HOSTILE)
    await page.click("#space .row:not([hidden])")
    await page.until_text("#details-name", _HOSTILE)
    await page.until_text("#details-tags", _IMAGE)
    await page.press("Escape")
    await unlock(page)
    await fill(page, "#send-event", name=_IMAGE, payload=_HOSTILE)
    await page.until_text(".record.user", _IMAGE)
    await page.until_text("#event-status", _IMAGE)
    await fill(page, "#ask-query", name=_IMAGE, payload=_HOSTILE, nodes=_HOSTILE, timeout="0.5")
    await page.until_text("#answers", _HOSTILE)
    await page.until_text("#feed .record.answer", _HOSTILE)
    await page.until_text("#query-status", "1 ack, 1 answer.")
    assert await page.run("document.querySelectorAll('script, img').length") == elements


@in_reactor
async def test_thousands_of_members_are_few_elements(show: Any, cluster: EmbeddedCluster) -> None:
    for number in range(5000):
        cluster.add(f"node-{number:04}", {"role": "web" if number % 2 else "db"})
    page = await show().open()
    await page.until_text("#found", "5,003 members")
    for top, name in ((1e9, "node-4999"), (0, "n1")):
        await page.run(f"document.querySelector('#rows').scrollTop = {top}")
        await wait_for_status(page, name, "alive")
    assert await page.run("document.querySelectorAll('#space .row').length") < 60
    await page.write("#search", "role=web 499")
    await page.until_text("#found", "10 of 5,003 members")
    await page.write("#search", "nobody is called so")
    await page.until_text("#nobody", "No member matches.")
    await page.write("#search", "n")
    await page.click("[data-status=failed].chip")
    await page.until_text("#found", "0 of 5,003 members")
    await page.until_text("#map-error", "A sample of 150 of 5,003 members.")


@in_reactor
async def test_the_keyboard_alone_is_enough(show: Any) -> None:
    page = await show().open()
    await page.until_text("#found", "3 members")
    await page.press("Tab", "Enter")  # the first link skips to the list
    await page.press("Tab") if await page.run("document.activeElement.id") != "members-table" else None
    await page.until("document.activeElement.id === 'members-table'")
    current = "document.getElementById(document.activeElement.getAttribute('aria-activedescendant'))"
    for key, name in (
        ("ArrowDown", "n2"),
        ("End", "n3"),
        ("ArrowUp", "n2"),
        ("Home", "n1"),
        ("PageDown", "n3"),
    ):
        await page.press(key)
        await page.until(f"{current}.querySelector('.name').textContent === {json.dumps(name)}")
    await page.press("Enter")
    await page.until_text("dialog[open] h2", "n3")
    await page.press("Escape")
    await page.until(
        "!document.querySelector('dialog').open && document.activeElement.id === 'members-table'"
    )


@in_reactor
async def test_a_column_sorts_the_list_and_says_so(show: Any) -> None:
    page = await show().open()
    await page.until_text("#found", "3 members")
    first = "[...document.querySelectorAll('#space .row')].find((row) => row.ariaRowIndex === '2')"
    for order, name in (("descending", "n3"), ("ascending", "n1")):
        await page.click("[data-column=name]")
        await page.until(f"{first}.querySelector('.name').textContent === {json.dumps(name)}")
        assert await page.run("document.querySelector('#column-name').ariaSort") == order


@in_reactor
async def test_a_paused_feed_keeps_what_comes(show: Any) -> None:
    shown = show()
    page = await shown.open()
    await page.until_text("#light", "connected to")
    await page.click("#pause")
    await shown.serf.event("deploy", b"v2")
    await page.until_text("#pause", "Resume (1 new record)")
    assert await page.run("document.querySelectorAll('#feed li').length") == 0
    await page.click("#pause")
    await page.until_text("#feed", "deploy")
    assert await page.run("document.querySelector('#pause').textContent") == "Pause"


@in_reactor
async def test_the_acks_of_a_query_are_one_line_and_each_answer_is_one(
    show: Any, cluster: EmbeddedCluster
) -> None:
    for number, agent in enumerate(cluster.agents.values()):
        agent.handle_query("load", partial(_load, number))
    page = await show().open()
    await unlock(page)
    await fill(page, "#ask-query", name="load", timeout="0.5")
    await page.until_text("#query-status", "3 acks, 3 answers.")
    await page.until_text("#feed .record.ack", "3 members")
    assert await page.run("document.querySelectorAll('#feed .record.ack').length") == 1
    assert await page.run("document.querySelectorAll('#feed .record.answer').length") == 3


def _load(number: int, query: QueryEvent) -> str:
    return f"0.{number}"


@in_reactor
async def test_members_that_come_and_go_are_put_on_the_map(show: Any, cluster: EmbeddedCluster) -> None:
    page = await show().open()
    await page.until("document.querySelectorAll('.place[data-status=alive]').length === 3")
    await page.until_text("#map-error", "Half of the distances are within")
    cluster.fail("n3")
    await page.until("document.querySelectorAll('.place[data-status=failed]').length === 1")
    await cluster.leave("n2")
    await page.until("document.querySelectorAll('.place').length === 2")


async def unlock(page: Page, token: str = TOKEN.decode()) -> None:
    await page.until("!document.querySelector('#unlock').hidden")
    await fill(page, "#unlock", token=token)
    await page.until("!document.querySelector('#acting').hidden")


async def fill(page: Page, form: str, **values: str) -> None:
    """Fill in a form, and submit it."""
    fields = f"document.querySelector({json.dumps(form)}).elements"
    for name, value in values.items():
        await page.run(f"{fields}.namedItem({json.dumps(name)} ).value = {json.dumps(value)}")
    await page.run(f"document.querySelector({json.dumps(form)}).requestSubmit()")


@in_reactor
async def test_a_failed_member_is_let_leave(show: Any, cluster: EmbeddedCluster) -> None:
    page = await show().open()
    await unlock(page)
    cluster.fail("n3")
    await wait_for_status(page, "n3", "failed")
    await page.click("[data-status=failed].row")
    await page.click("#prune")
    await page.click("#leave")
    await page.until_text("#found", "2 members")
    await page.until("!document.querySelector('dialog').open")  # there is no such member any more


@in_reactor
async def test_a_token_that_is_wrong_is_asked_for_again(show: Any, cluster: EmbeddedCluster) -> None:
    shown = show()
    page = await shown.open()
    await unlock(page, "wrong")
    await fill(page, "#send-event", name="deploy")
    await page.until("document.querySelector('#acting').hidden")
    await page.until_text("#refused", "the token of --http-token-file")
    shown.may_fail()  # the browser notes the answer 401


@in_reactor
async def test_without_a_token_of_the_site_nobody_can_act(show: Any) -> None:
    page = await show(token=None).open()
    await page.until("!document.querySelector('#actions-off').hidden")
    assert await page.run(
        "document.querySelector('#unlock').hidden && document.querySelector('#acting').hidden"
    )


@in_reactor
async def test_the_token_is_kept_nowhere(show: Any) -> None:
    page = await show().open()
    await unlock(page)
    kept = await page.run(
        "JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie, location.href])"
    )
    assert TOKEN.decode() not in kept
    assert await page.run("document.querySelector('#token').value") == ""
    await page.click("#lock")
    await page.until("document.querySelector('#acting').hidden")


@in_reactor
async def test_nothing_is_wider_than_a_phone(show: Any, cluster: EmbeddedCluster) -> None:
    cluster.add("a-name-that-is-long-" * 4, {"role": "a-tag-that-is-long-" * 4})
    page = await show().open(width=390, height=844)
    await page.until_text("#found", "4 members")
    assert await page.run("document.documentElement.scrollWidth") <= 390


@in_reactor
async def test_it_is_dark_for_a_reader_who_wants_that(show: Any) -> None:
    page = await show().open(dark=True)
    colours = "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]"
    ground, ink = (sum(map(int, each[4:-1].split(", "))) for each in await page.run(colours))
    assert ground < ink


@in_reactor
async def test_a_hundred_events_at_once_are_shown_in_order(show: Any) -> None:
    shown = show()
    page = await shown.open()
    await page.until_text("#light", "connected to")
    sent: list[Deferred[None]] = [shown.serf.event(f"e{number}") for number in range(100)]
    for each in sent:
        await each
    await page.until("document.querySelectorAll('#feed .user').length === 100")
    names = "[...document.querySelectorAll('#feed .user b')].map((each) => each.textContent)"
    assert set(await page.run(names)) == {f"e{number}" for number in range(100)}
