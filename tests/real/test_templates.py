"""`twistd txserf` with templates, as a process on real agents."""

from __future__ import annotations

import os
import shutil
import signal
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.threads import deferToThread
from twisted.web.server import Site
from twisted.web.static import Data

from tests.agents import Agent, holds_in_time
from tests.real.helpers import in_reactor, reactor
from tests.real.processes import Start

ROOT = Path(__file__).parents[2]
NAMES = "{% for member in select() %}{{ member.name }} {% endfor %}"


async def has(file: Path, text: str) -> None:
    assert await deferToThread(holds_in_time, lambda: file.exists() and file.read_text() == text)


@in_reactor
async def test_a_file_follows_the_members_and_a_reload_brings_another_one(
    two_agents: list[Agent], twistd: Start, tmp_path: Path
) -> None:
    near, far = two_agents
    configuration, source = tmp_path / "txserf.toml", tmp_path / "t.j2"
    source.write_text(NAMES)

    def configure(name: str) -> None:
        configuration.write_text(
            f'[[template]]\nsource = "t.j2"\ndestination = "{name}"\nreload = "cp {name} {name}.copy"\n'
            'check = "grep -q n1 %s"\n'
        )

    configure("a")
    running = twistd("--agent", near.rpc, "--config", "txserf.toml")
    await has(tmp_path / "a.copy", "n1 n2 ")
    far.kill()
    await has(tmp_path / "a.copy", "n1 ")
    source.write_text("of n1: " + NAMES)
    configure("b")
    running.process.signalProcess("HUP")
    await has(tmp_path / "b.copy", "of n1: n1 ")
    source.write_text("{% endif %}")
    running.process.signalProcess("HUP")
    await running.logged("t.j2, line 1: ")
    far.start(join=[near])
    await has(tmp_path / "b.copy", "of n1: n1 n2 ")
    assert (tmp_path / "a").read_text() == "n1 "
    running.process.signalProcess("TERM")
    await running.ended
    assert "Traceback" not in running.log


@in_reactor
async def test_a_wrong_template_is_refused_at_the_start(twistd: Start, tmp_path: Path) -> None:
    (tmp_path / "t.j2").write_text("one\n{% for %}\n")
    running = twistd("--template", "t.j2:out")
    await running.gone()
    assert "t.j2, line 2: " in running.log + "".join(running.lines)


def _served_by(port: int) -> str | None:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=2) as response:
            return str(response.read().decode())
    except OSError:
        return None


@pytest.mark.skipif(shutil.which("haproxy") is None, reason="there is no haproxy")
@in_reactor
async def test_haproxy_serves_the_members_that_are_alive(
    two_agents: list[Agent], twistd: Start, tmp_path: Path
) -> None:
    sites: list[Any] = []
    for agent in two_agents:
        page = Data(agent.name.encode(), "text/plain")
        page.isLeaf = True
        sites.append(reactor.listenTCP(0, Site(page), interface="127.0.0.1"))
        agent.serf("tags", "-set", "role=web", "-set", f"http={sites[-1].getHost().port}")
    free = reactor.listenTCP(0, Site(Data(b"", "text/plain")), interface="127.0.0.1")
    port = free.getHost().port
    await free.stopListening()
    source = (ROOT / "examples" / "haproxy.cfg.j2").read_text()
    (tmp_path / "haproxy.cfg.j2").write_text(source.replace(":8080", f":{port}"))
    pids = tmp_path / "pids"
    (tmp_path / "txserf.toml").write_text(
        '[[template]]\nsource = "haproxy.cfg.j2"\ndestination = "haproxy.cfg"\ncheck = "haproxy -c -f %s"\n'
        f"reload = 'haproxy -D -f haproxy.cfg -p {pids} -sf $(cat {pids}) >log 2>&1'\n"
    )
    near, far = two_agents
    running = twistd("--agent", near.rpc, "--config", "txserf.toml")

    async def served(names: set[str]) -> None:
        def same() -> bool:
            return {_served_by(port) for _ in range(6)} == names

        assert await deferToThread(holds_in_time, same), running.log

    try:
        await served({"n1", "n2"})
        far.kill()
        await served({"n1"})
        assert "n2" not in (tmp_path / "haproxy.cfg").read_text()
    finally:
        running.process.signalProcess("TERM")
        await running.ended
        for pid in pids.read_text().split():
            os.kill(int(pid), signal.SIGKILL)
        for listening in sites:
            await listening.stopListening()
