"""
A real Prometheus takes its targets from ``/sd``, scrapes ``/metrics``, and evaluates the queries of the dashboard.

``prometheus`` is looked for in ``$PROMETHEUS_BINARY`` and on PATH; Debian has it in the package of that name.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit
from urllib.request import urlopen

import pytest
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from tests.agents import Agent
from tests.real.helpers import in_reactor, reactor
from tests.real.processes import ROOT, Start
from tests.real.test_service import ANY_PORT, pages
from txserf import Serf

EXAMPLE = ROOT / "examples" / "prometheus"
BINARY = os.environ.get("PROMETHEUS_BINARY") or shutil.which("prometheus")

pytestmark = pytest.mark.skipif(BINARY is None, reason="no prometheus in $PROMETHEUS_BINARY or on PATH")


class Prometheus:
    """A running Prometheus with the configuration of the example, which is changed to a port and to short intervals."""

    def __init__(self, folder: Path, site: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        text = (EXAMPLE / "prometheus.yml").read_text()
        text = text.replace("localhost:9100", urlsplit(site).netloc).replace("15s", "1s")
        (folder / "prometheus.yml").write_text("global: {scrape_interval: 1s}\n" + text)
        self._url = f"http://127.0.0.1:{port}/api/v1"
        self._log = open(folder / "prometheus.log", "wb")
        self._process = subprocess.Popen(
            [
                str(BINARY),
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=self._log,
            stderr=self._log,
        )

    async def until(self, path: str, fits: Callable[[Any], object], **parameters: str) -> Any:
        """Ask until an answer fits, and return its data."""
        url = f"{self._url}/{path}?{urlencode(parameters)}"
        while True:
            assert self._process.poll() is None, "prometheus has ended"
            try:
                answer = await deferToThread(lambda: json.load(urlopen(url, timeout=5)))
            except OSError:  # it does not listen yet
                answer = {"status": "no answer"}
            if answer["status"] == "success" and fits(answer["data"]):
                return answer["data"]
            await deferLater(reactor, 0.2)

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        self._log.close()


@pytest.fixture
def prometheus(tmp_path: Path) -> Iterator[Callable[[str], Prometheus]]:
    started: list[Prometheus] = []

    def start(site: str) -> Prometheus:
        started.append(Prometheus(tmp_path, site))
        return started[0]

    yield start
    for each in started:
        each.end()


@in_reactor
async def test_members_become_targets_and_the_queries_of_the_dashboard_have_results(
    agent: Agent, twistd: Start, prometheus: Callable[[str], Prometheus]
) -> None:
    running = twistd("--agent", agent.rpc, "--http", ANY_PORT, "--handler", "user=true")
    site = await pages(running)
    await running.logged("ready: ")
    async with Serf(agent.rpc) as serf:
        await serf.set_tags({"role": "web", "metrics": site.rpartition(":")[2]})
        server = prometheus(site)
        found = await server.until(
            "targets", lambda data: [t for t in data["activeTargets"] if t["labels"]["job"] == "members"]
        )
        (target,) = [t for t in found["activeTargets"] if t["labels"]["job"] == "members"]
        assert (target["labels"]["instance"], target["labels"]["role"]) == ("n1", "web")
        await server.until("query", lambda data: data["result"], query='up{job="members",instance="n1"} == 1')
        dashboard = json.loads((EXAMPLE / "dashboard.json").read_text())
        queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
        for number in range(3):  # a rate needs a growing count
            await serf.event(f"e{number}", coalesce=False)
            await deferLater(reactor, 1.0)
        for query in queries:
            query = query.replace("$instance", ".*").replace("$__rate_interval", "1m")
            assert "$" not in query
            await server.until("query", lambda data: data["result"], query=query)
        # Without the tag it is no target any more.
        await serf.set_tags(delete=["metrics"])
        await server.until(
            "targets", lambda data: all(t["labels"]["job"] != "members" for t in data["activeTargets"])
        )
