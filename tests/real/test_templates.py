"""`twistd txserf` with templates, as a process on real agents."""

from __future__ import annotations

from pathlib import Path

from twisted.internet.threads import deferToThread

from tests.agents import Agent, holds_in_time
from tests.real.helpers import in_reactor
from tests.real.processes import Start

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
