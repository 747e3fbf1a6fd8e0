"""
A headless Chromium, for tests of the page.

It is driven by the DevTools protocol over two pipes, in the reactor: no driver program, no port and no thread are needed.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest import SkipTest

from twisted.internet.defer import Deferred
from twisted.internet.protocol import ProcessProtocol, connectionDone
from twisted.python.failure import Failure

from tests.in_reactor import reactor

# The pipes, as the browser numbers them.
_COMMANDS, _ANSWERS = 3, 4

_OPTIONS = (
    "--headless",
    "--remote-debugging-pipe",
    "--no-first-run",
    # It is to ask nobody anything but the page that is tested.
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-quic",
    "--disable-gpu",
    "--disable-dev-shm-usage",
)

_KEYS = {
    "Enter": 13,
    "Tab": 9,
    "Escape": 27,
    "PageDown": 34,
    "End": 35,
    "Home": 36,
    "ArrowUp": 38,
    "ArrowDown": 40,
}


class BrowserMissing(SkipTest):
    """There is no Chromium here. pytest skips the test and says why."""


def find_chromium() -> str:
    """Return the path of the program. ``CHROMIUM`` names another one."""
    for name in (os.environ.get("CHROMIUM", ""), "chromium", "chromium-browser", "google-chrome"):
        found = shutil.which(name)
        if found is not None:
            return found
    raise BrowserMissing("no chromium: apt-get install chromium, or name it in $CHROMIUM")


class Browser(ProcessProtocol):
    """
    A running browser.

    :param folder: where it keeps its files.
    """

    def __init__(self, folder: Path) -> None:
        self._buffer = b""
        self._number = 0
        self._waiting: dict[int, Deferred[Any]] = {}
        self._pages: dict[str, Page] = {}
        self._ended: Deferred[None] = Deferred()
        options = list(_OPTIONS)
        if os.geteuid() == 0:
            options.append("--no-sandbox")  # root can't have one
        command = [find_chromium(), *options, f"--user-data-dir={folder}"]
        pipes: Any = {0: "w", 1: "r", 2: "r", _COMMANDS: "w", _ANSWERS: "r"}
        self._process: Any = reactor.spawnProcess(
            self, command[0], command, env={**os.environ, "HOME": str(folder)}, childFDs=pipes
        )

    async def open(self, url: str, **look: Any) -> Page:
        """
        Open a page.

        :param look: arguments of `Page.look`.
        """
        target = (await self.send("Target.createTarget", url="about:blank"))["targetId"]
        session = (await self.send("Target.attachToTarget", targetId=target, flatten=True))["sessionId"]
        page = self._pages[session] = Page(self, session)
        for domain in ("Page", "Runtime", "Log", "Network"):
            await page.send(f"{domain}.enable")
        await page.look(**look)
        await page.send("Page.navigate", url=url)
        await page.until("document.readyState === 'complete'")
        return page

    async def close(self) -> None:
        """End the browser."""
        self.send("Browser.close").addErrback(lambda _: None)
        await self._ended

    # -- the protocol

    def send(self, method: str, session: str | None = None, **parameters: Any) -> Deferred[Any]:
        """Send a command; the Deferred fires with its result, or fails with `AssertionError`."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if session is not None:
            message["sessionId"] = session
        self._process.writeToChild(_COMMANDS, json.dumps(message).encode() + b"\0")
        waiting = self._waiting[self._number] = Deferred()
        return waiting

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        if childFD != _ANSWERS:
            return
        *messages, self._buffer = (self._buffer + data).split(b"\0")
        for each in messages:
            self._take(json.loads(each))

    def _take(self, message: Mapping[str, Any]) -> None:
        if "id" not in message:
            page = self._pages.get(message.get("sessionId", ""))
            if page is not None:
                page.note(message["method"], message["params"])
            return
        waiting = self._waiting.pop(message["id"])
        if waiting.called:  # its test ran out of time
            return
        if "error" in message:
            waiting.errback(AssertionError(message["error"]["message"]))
        else:
            waiting.callback(message["result"])

    def processEnded(self, reason: Failure = connectionDone) -> None:
        waiting, self._waiting = self._waiting, {}
        for each in waiting.values():
            if not each.called:
                each.errback(AssertionError(f"the browser has ended: {reason.getErrorMessage()}"))
        self._ended.callback(None)


class Page:
    """
    A page in the browser.

    :ivar errors: what its console has of errors and warnings.
    :ivar requests: the URLs that it asked for.
    """

    def __init__(self, browser: Browser, session: str) -> None:
        self.errors: list[str] = []
        self.requests: list[str] = []
        self._browser = browser
        self._session = session

    def send(self, method: str, **parameters: Any) -> Deferred[Any]:
        """Send a command of the DevTools protocol."""
        return self._browser.send(method, self._session, **parameters)

    def note(self, method: str, event: Mapping[str, Any]) -> None:
        """Take an event of the DevTools protocol."""
        match method:
            case "Network.requestWillBeSent":
                self.requests.append(event["request"]["url"])
            case "Runtime.exceptionThrown":
                self.errors.append(json.dumps(event["exceptionDetails"]))
            case "Runtime.consoleAPICalled" if event["type"] in ("error", "warning", "assert"):
                self.errors.append(json.dumps(event["args"]))
            case "Log.entryAdded" if event["entry"]["level"] in ("error", "warning"):
                self.errors.append(json.dumps(event["entry"]))

    async def close(self) -> None:
        """Close the page."""
        await self.send("Page.close")

    async def look(
        self, width: int = 1280, height: int = 1200, *, dark: bool = False, scale: float = 1.0
    ) -> None:
        """Set the size of the window in CSS pixels, and whether the reader prefers dark colours."""
        await self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=scale,
            mobile=width < 600,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.send("Emulation.setEmulatedMedia", features=[scheme])

    async def run(self, script: str) -> Any:
        """Return the value of an expression, or what it promises."""
        answer = await self.send(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True, userGesture=True
        )
        assert "exceptionDetails" not in answer, (script, answer["exceptionDetails"])
        return answer["result"].get("value")

    async def until(self, condition: str) -> Any:
        """Wait until an expression is true, and return its value. It may fail until then."""
        return await self.run(
            f"""new Promise((resolve) => {{
                const look = () => {{
                    let found = null;
                    try {{ found = ({condition}); }} catch {{ }}
                    if (found) resolve(found); else setTimeout(look, 20);
                }};
                look();
            }})"""
        )

    async def until_text(self, selector: str, part: str) -> str:
        """Wait until an element has a text, and return all of its text."""
        element = f"document.querySelector({json.dumps(selector)})"
        await self.until(f"{element}.textContent.includes({json.dumps(part)})")
        return str(await self.run(f"{element}.textContent"))

    async def click(self, selector: str) -> None:
        """Click on an element."""
        await self.until(f"document.querySelector({json.dumps(selector)})")
        await self.run(f"document.querySelector({json.dumps(selector)}).click()")

    async def write(self, selector: str, text: str) -> None:
        """Write text into an element in place of what it has."""
        await self.run(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)}); e.focus(); e.select(); }})()"
        )
        await self.send("Input.insertText", text=text)

    async def press(self, *keys: str) -> None:
        """Press keys, one after the other."""
        for key in keys:
            for kind in ("rawKeyDown", "keyUp"):
                await self.send(
                    "Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=_KEYS[key]
                )

    async def picture(self, **options: Any) -> bytes:
        """Return a picture of what the window shows, as PNG."""
        answer = await self.send("Page.captureScreenshot", format="png", **options)
        return base64.b64decode(answer["data"])
