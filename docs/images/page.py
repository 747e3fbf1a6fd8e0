"""
Make the pictures of the page of ``--http``: ``python -m docs.images.page``.

A headless Chromium looks at an embedded cluster of three sites, in which something happens. Pillow makes the pictures small.
"""

from __future__ import annotations

import io
import math
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater, react

from tests.browser import Browser, Page
from tests.shown import TOKEN, Shown
from txserf.embedded import EmbeddedCluster
from txserf.model import QueryEvent

FOLDER = Path(__file__).parent

_NAMES = (
    "web-1",
    "web-2",
    "web-3",
    "web-4",
    "db-1",
    "db-2",
    "cache-1",
    "cache-2",
    "queue-1",
    "build-1",
    "proxy-1",
)

# Seconds between the sites, and within one.
_FAR, _NEAR = 0.012, 0.0012


def make_cluster() -> EmbeddedCluster:
    """Return a cluster whose members lie in three sites."""
    cluster = EmbeddedCluster(nodes=1, default_bind=True, seed=3)
    cluster.failure_detection = 0.1
    for number, name in enumerate(_NAMES):
        tags = {"role": name.partition("-")[0], "site": "abc"[number % 3], "version": "2.4.1"}
        cluster.add(name, tags).handle_query("load", partial(_load, number))
    for number, agent in enumerate(cluster.agents.values()):
        # An embedded cluster has all of its members in one rack. These are to have some distance.
        place: Any = agent._seat.place
        site, own = 2 * math.pi * (number % 3) / 3, 2.4 * number
        x = _FAR * math.cos(site) + _NEAR * (1 + number / 8) * math.cos(own)
        y = _FAR * math.sin(site) + _NEAR * (1 + number / 8) * math.sin(own)
        place._vec = (x, y, *(part * 2 for part in place._vec[2:]))
    return cluster


def _load(number: int, query: QueryEvent) -> str:
    return f"0.{number + 11}"


async def happen(page: Page, shown: Shown, cluster: EmbeddedCluster) -> None:
    """Let something happen that the pictures show."""
    await page.until_text("#found", "12 members")
    await page.until("document.querySelectorAll('.place').length === 12")
    cluster.fail("web-3")
    await page.until_text("#feed", "web-3")
    await shown.serf.event("deploy", b"v2.4.2")
    await cluster.leave("build-1")
    await page.until_text("#feed", "build-1")
    await page.until("document.querySelectorAll('.place').length === 11")
    await page.run(f"document.querySelector('#token').value = {TOKEN.decode()!r}")
    await page.run("document.querySelector('#unlock').requestSubmit()")
    await page.run("document.querySelector('#ask-query').elements.name.value = 'load'")
    await page.run("document.querySelector('#ask-query').elements.nodes.value = 'n1, web-1, db-1'")
    await page.run("document.querySelector('#ask-query').elements.timeout.value = '0.5'")
    await page.run("document.querySelector('#ask-query').requestSubmit()")
    await page.until_text("#query-status", "3 acks")
    await page.run("document.activeElement.blur()")


async def take(name: str, page: Page, reactor: Any, **look: Any) -> None:
    await page.look(**look)
    await page.send("Emulation.setScrollbarsHidden", hidden=True)
    await deferLater(reactor, 1.5)  # until all has moved to its place
    picture = Image.open(io.BytesIO(await page.picture()))
    picture.convert("RGB").quantize(200, method=Image.Quantize.MAXCOVERAGE).save(
        FOLDER / f"{name}.png", optimize=True
    )


async def run(reactor: Any) -> None:
    cluster = make_cluster()
    port: Any = await cluster.agents["n1"].listen()
    with tempfile.TemporaryDirectory() as folder:
        browser = Browser(Path(folder))
        shown = Shown(browser, [f"127.0.0.1:{port.getHost().port}"])
        await deferLater(reactor, 1.5)  # until the members' coordinates are known
        page = await shown.open(width=1280, height=1240)
        await happen(page, shown, cluster)
        await take("page", page, reactor, width=1280, height=1240)
        await take("page-dark", page, reactor, width=1280, height=1240, dark=True)
        await take("page-phone", page, reactor, width=390, height=844, scale=2)
        await shown.close()
        await browser.close()
        shown.check()
    await cluster.close()


if __name__ == "__main__":
    react(lambda reactor: Deferred.fromCoroutine(run(reactor)))
