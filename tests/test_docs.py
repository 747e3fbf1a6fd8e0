"""The Python blocks of the docs and the README run; the reference has all public names."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

import txserf
from tests.agents import Agent
from txserf import commands, constant, embedded
from txserf.client.requests import Request
from txserf.connection.exchange import Reply

ROOT = Path(__file__).parents[1]

# A block with its indented code, and the comment in front of it, if there is one.
_BLOCK = re.compile(
    r"(?:^\.\. (?P<how>(?:run|not run): [^\n]+)\n\n?)?^\.\. code-block:: python\n\n(?P<code>(?:(?:[ ]{4}[^\n]*)?\n)+)",
    re.MULTILINE,
)


@attrs.frozen
class Block:
    place: str
    how: str
    code: str


def blocks() -> Iterator[Block]:
    for page in [ROOT / "README.rst", *sorted((ROOT / "docs").rglob("*.rst"))]:
        text = page.read_text()
        found = list(_BLOCK.finditer(text))
        assert len(found) == text.count(".. code-block:: python"), f"{page}: a block is not found"
        for match in found:
            line = text.count("\n", 0, match.start()) + 1
            code = textwrap.dedent(match["code"])
            yield Block(f"{page.relative_to(ROOT)}:{line}", match["how"] or "unmarked", code)


def run(code: str, folder: Path, environ: dict[str, str]) -> None:
    script = folder / "example.py"
    script.write_text(code)
    argv = [sys.executable, "-X", "dev", "-W", "error::ResourceWarning", str(script)]
    done = subprocess.run(
        argv, cwd=folder, env=environ, timeout=40, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def runnable() -> Iterator[object]:
    for block in blocks():
        if block.how.startswith("run: "):
            marks = [pytest.mark.real] if block.how == "run: real" else []
            yield pytest.param(block, id=block.place, marks=marks)


def referenced() -> set[str]:
    """Return the names that the docs have a reference for."""
    pages = "".join(page.read_text() for page in (ROOT / "docs").rglob("*.rst"))
    return set(re.findall(r"^\.\. auto(?:class|exception|module):: ([\w.]+)", pages, re.MULTILINE))


def test_every_public_name_has_a_reference_under_that_name() -> None:
    public = {f"txserf.{name}" for name in txserf.__all__}
    public |= {f"txserf.embedded.{name}" for name in embedded.__all__}
    assert public - referenced() == set()


def test_classes_described_by_hand_have_exactly_those_attributes() -> None:
    """`Reply` and `Request` are not public names, so the reference describes them by hand."""
    described = {}
    for page in (ROOT / "docs").rglob("*.rst"):
        for name, text in re.findall(
            r"^\.\. py:class:: (\w+)\n((?:   .*\n|\n)+)", page.read_text(), re.MULTILINE
        ):
            described[name] = re.findall(r"^   \.\. py:attribute:: (\w+)", text, re.MULTILINE)
    request = Request(commands.STATS, {}, 1)
    assert described == {"Reply": list(Reply._fields), "Request": list(vars(request))}


def test_every_constant_says_what_it_is() -> None:
    source = Path(constant.__file__).read_text()
    explained = set(re.findall(r"^#: .+\n(?:#: .+\n)*(\w+): ", source, re.MULTILINE))
    assert {name for name in vars(constant) if name.isupper()} - explained == set()


def test_each_file_that_the_architecture_page_names_is_there() -> None:
    page = (ROOT / "docs" / "architecture.rst").read_text()
    named = re.findall(r"``((?:[\w]+/)*[\w]+(?:\.py|/))``", page)
    assert len(named) > 40
    assert [
        name for name in named if not (ROOT / name).exists() and not (ROOT / "txserf" / name).exists()
    ] == []


def test_every_block_says_how_it_is_run() -> None:
    known = re.compile(r"run: (real|alone)|not run: .+")
    assert [block.place for block in blocks() if not known.fullmatch(block.how)] == []


@pytest.mark.parametrize("block", list(runnable()))
def test_an_example_runs(block: Block, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("SERF_")}
    environ["PYTHONPATH"] = str(ROOT)
    code = block.code
    if block.how == "run: real":
        agents: list[Agent] = request.getfixturevalue("shared_cluster")
        environ["SERF_RPC_ADDR"] = ",".join(agent.rpc for agent in agents)
        for shown, agent in zip(("127.0.0.1:7373", "127.0.0.1:7374"), agents, strict=True):
            code = code.replace(shown, agent.rpc)
    run(code, tmp_path, environ)
