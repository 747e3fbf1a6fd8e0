"""A cluster that is shown on the page: the site on a port, and a browser that looks at it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred

from tests.browser import Browser, Page
from tests.in_reactor import reactor, wait_for
from txserf.serf.serf import Serf
from txserf.service.live import Live
from txserf.service.website import Site

#: The token of the site's actions.
TOKEN = b"open sesame"


class Shown:
    """
    The site of a cluster, and the pages that are open on it.

    :param browser: opens the pages.
    :param hosts: the agents, or their endpoints.
    :ivar serf: the site's connection.
    """

    def __init__(self, browser: Browser, hosts: Any, token: bytes | None = TOKEN) -> None:
        self._browser = browser
        self.serf = Serf(hosts)
        self.serf.factory.maxDelay = 0.2  # else it looks for a lost agent less and less often
        self._live = Live(self.serf)
        self._site = Site(self._live, token=lambda: token)
        self._pages: list[Page] = []
        self._may_fail = False
        self.serf.startService()
        self._live.startService()
        self._number = 0
        self.listen()

    def listen(self) -> None:
        """Listen, on the port that it had before if there was one."""
        self._port: Any = reactor.listenTCP(self._number, self._site, interface="127.0.0.1")
        self._number = self._port.getHost().port

    async def hang_up(self) -> None:
        """Answer no more. A browser notes in its console that it is so."""
        self.may_fail()
        await self._port.stopListening()
        self._site.close()

    def may_fail(self) -> None:
        """Let errors in the console pass."""
        self._may_fail = True

    @property
    def url(self) -> str:
        """The address of the page."""
        return f"http://127.0.0.1:{self._number}/"

    async def open(self, **look: Any) -> Page:
        """Open the page."""
        page = await self._browser.open(self.url, **look)
        self._pages.append(page)
        return page

    def check(self) -> None:
        """Check that no page had an error, and that none asked another host for anything."""
        for page in self._pages:
            assert page.errors == [] or self._may_fail
            assert [url for url in page.requests if not url.startswith(self.url)] == []

    async def close(self) -> None:
        """Close the pages, the site and its connection."""
        for page in self._pages:
            await page.close()
        await self._port.stopListening()
        self._site.close()
        await self._live.stopService()
        await self.serf.close()


def status_of(name: str) -> str:
    """Return an expression for the status of a member in the list."""
    rows = "[...document.querySelectorAll('#space .row:not([hidden])')]"
    row = f"{rows}.find((row) => row.querySelector('.name').textContent === {json.dumps(name)})"
    return f"{row}.dataset.status"


async def wait_for_status(page: Page, name: str, status: str) -> None:
    """Wait until the list shows a member in that status."""
    await page.until(f"{status_of(name)} === {json.dumps(status)}")


@contextmanager
def running_browser(folder: Path) -> Iterator[Browser]:
    """Start a browser for synchronous code, such as a fixture, and end it."""
    browser = Browser(folder)
    yield browser
    wait_for(Deferred.fromCoroutine(browser.close()))


@contextmanager
def shown_to(browser: Browser) -> Iterator[Any]:
    """Yield a function that makes a `Shown` of the same arguments; all are checked and closed at the end."""
    made: list[Shown] = []

    def show(*arguments: Any, **options: Any) -> Shown:
        made.append(Shown(browser, *arguments, **options))
        return made[-1]

    yield show
    for each in made:
        wait_for(Deferred.fromCoroutine(each.close()))
    for each in made:
        each.check()
