"""The blocks of the docs and the README run, their links are known, and the reference has all public names."""

from __future__ import annotations

import doctest
import os
import re
import shlex
import signal
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
from txserf.cli.parsing import UsageError, parse
from txserf.client.requests import Request
from txserf.connection.exchange import Reply

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.rst", *sorted(DOCS.rglob("*.rst"))]

# A block with its indented code, the comment in front of it, and behind it what it prints, if these are there.
_BLOCK = re.compile(
    r"(?:^(?P<margin> *)\.\. (?P<how>(?:run|not run): [^\n]+)\n\n?)?"
    r"^(?P<indent> *)\.\. code-block:: (?P<language>python|shell)\n(?P<options>(?:(?P=indent)   :.*\n)*)\n"
    r"(?P<code>(?:(?:(?P=indent) {3,4}[^\n]*)?\n)+)"
    r"(?:(?:[^ \n.][^\n]*\n+){0,3}(?P=indent)\.\. prints\n\n?(?P=indent)\.\. code-block:: text\n\n"
    r"(?P<prints>(?:(?:(?P=indent) {3,4}[^\n]*)?\n)+))?",
    re.MULTILINE,
)

# The addresses that the pages link. No test looks whether they are there, for there is no network: whoever adds one does.
_KNOWN_LINKS = {
    "https://github.com/KushalP/serfclient-py",
    "https://github.com/hashicorp/serf",
    "https://github.com/hashicorp/serf/blob/master/docs/intro/getting-started/install.html.markdown",
    "https://github.com/hashicorp/serf/tree/master/client",
    "https://github.com/hashicorp/serf/tree/master/docs",
    "https://html.spec.whatwg.org/multipage/server-sent-events.html",
    "https://jinja.palletsprojects.com/",
    "https://prometheus.io/docs/prometheus/latest/http_sd/",
    "https://pypi.org/project/uvloop/",
    "https://rich.readthedocs.io",
    "https://twisted.org",
    "https://www.stunnel.org",
}

# The addresses of this project: its repository and these pages.
_OURS = ("https://github.com/txserf/txserf", "https://txserf.readthedocs.io/")

# A block of Python that says ``run: body`` stands in this function, beside two real agents.
_BODY = """\
from pprint import pprint
from twisted.internet.task import react
import txserf

async def main(reactor):
    hosts = "127.0.0.1:7373,127.0.0.1:7374"
"""
_BODY_BLOCK = """\

    # {place}
    client = txserf.Client(hosts)
    async with txserf.Serf(hosts) as serf:
{code}
    client.disconnect()
"""


@attrs.frozen
class Block:
    place: str
    how: str
    language: str
    code: str
    prints: str

    @property
    def real(self) -> bool:
        """Whether it needs agents."""
        return self.how in ("run: real", "run: body", "run: shell, real")


def blocks() -> Iterator[Block]:
    for page in PAGES:
        text = page.read_text()
        found = list(_BLOCK.finditer(text))
        written = sum(text.count(f".. code-block:: {language}\n") for language in ("python", "shell"))
        assert len(found) == written, f"{page}: a block is not found"
        assert text.count(".. prints\n") == sum(match["prints"] is not None for match in found), page
        for match in found:
            line = text.count("\n", 0, match.start("indent")) + 1
            code = textwrap.dedent(match["code"]).strip("\n") + "\n"
            prints = textwrap.dedent(match["prints"] or "").strip("\n") + "\n"
            place = f"{page.relative_to(ROOT)}:{line}"
            yield Block(place, match["how"] or "unmarked", match["language"], code, prints)


def output(argv: list[str], folder: Path, environ: dict[str, str], until: str | None = None) -> str:
    """Run a command, and return what it prints. It has to succeed; once it has printed *until*, it is interrupted."""
    streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    lines = []
    with subprocess.Popen(
        argv, cwd=folder, env=environ, text=True, start_new_session=True, **streams
    ) as running:  # type: ignore[call-overload]
        try:
            for line in running.stdout:
                lines.append(line)
                if until is not None and until in line:
                    until = ""
                    os.killpg(running.pid, signal.SIGINT)
                    break
            lines += running.stdout
            code = running.wait()
        finally:
            if running.poll() is None:
                os.killpg(running.pid, signal.SIGKILL)
    printed = "".join(lines)
    assert code == 0 or until == "", printed
    assert not until, f"it never printed {until!r}: {printed}"
    assert "Traceback" not in printed, printed
    return printed


def run_python(code: str, folder: Path, environ: dict[str, str]) -> str:
    script = folder / "example.py"
    script.write_text(code)
    return output([sys.executable, "-X", "dev", "-W", "error::ResourceWarning", str(script)], folder, environ)


def prints(block: Block, printed: str) -> bool:
    """Return whether a block printed what the page says. There, ``...`` stands for any text."""
    return not block.prints.strip() or doctest.OutputChecker().check_output(
        block.prints, printed, doctest.ELLIPSIS
    )


def environment() -> dict[str, str]:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("SERF_")}
    environ["PYTHONPATH"] = str(ROOT)
    environ["PATH"] = os.pathsep.join((str(Path(sys.executable).parent), environ["PATH"]))
    return environ


def beside(agents: list[Agent], code: str) -> str:
    """Put the agents' addresses into a program."""
    for shown, agent in zip(("127.0.0.1:7373", "127.0.0.1:7374"), agents, strict=True):
        code = code.replace(shown, agent.rpc)
    return code


def environment_and_code(block: Block, request: pytest.FixtureRequest) -> tuple[dict[str, str], str]:
    """Return the variables of a block, and its code; if it needs agents, both have their addresses."""
    environ, code = environment(), block.code
    if block.real:
        agents: list[Agent] = request.getfixturevalue("shared_cluster")
        environ["SERF_RPC_ADDR"] = ",".join(agent.rpc for agent in agents)
        code = beside(agents, code)
    return environ, code


_SEPARATORS = "\n;&|<>()"


def command_lines() -> Iterator[tuple[str, list[str]]]:
    """Give the arguments of each ``txserf`` that a block of shell runs, and its place."""
    for block in blocks():
        if block.language != "shell":
            continue
        code = block.code.replace("\\\n", " ")
        lexer = shlex.shlex(code, posix=True, punctuation_chars=_SEPARATORS)
        lexer.whitespace, lexer.whitespace_split = " \t", True
        before = "\n"
        argv: list[str] | None = None
        for word in [*lexer, "\n"]:
            begins = before == "exec" or "=" in before or set(before) <= set(_SEPARATORS)
            if argv is None:
                argv = [] if word == "txserf" and begins else None
            elif set(word) <= set(_SEPARATORS):
                yield block.place, argv
                argv = None
            else:
                argv.append(word)
            before = word


def runnable(*hows: str) -> list[object]:
    found: list[object] = []
    for block in blocks():
        if block.how.partition(",")[0] in hows:
            found.append(pytest.param(block, id=block.place, marks=[pytest.mark.real] if block.real else []))
    return found


def pages_with_bodies() -> list[str]:
    return sorted({block.place.partition(":")[0] for block in blocks() if block.how == "run: body"})


def referenced() -> set[str]:
    """Return the names that the docs have a reference for."""
    pages = "".join(page.read_text() for page in DOCS.rglob("*.rst"))
    return set(re.findall(r"^\.\. auto(?:class|exception|module):: ([\w.]+)", pages, re.MULTILINE))


def test_every_public_name_has_a_reference_under_that_name() -> None:
    public = {f"txserf.{name}" for name in txserf.__all__}
    public |= {f"txserf.embedded.{name}" for name in embedded.__all__}
    assert public - referenced() == set()


def test_classes_described_by_hand_have_exactly_those_attributes() -> None:
    """`Reply` and `Request` are not public names, so the reference describes them by hand."""
    described = {}
    for page in DOCS.rglob("*.rst"):
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
    python = re.compile(r"run: (real|alone|body)|not run: .+")
    shell = re.compile(r"run: shell(, real|, until .+)?|not run: .+")
    known = {"python": python, "shell": shell}
    assert [block.place for block in blocks() if not known[block.language].fullmatch(block.how)] == []


def test_every_block_says_its_language() -> None:
    # The README is read by tools that know no directives of Sphinx.
    for page in PAGES[1:]:
        plain = re.findall(r"^(?!\s*\.\. ).*::$", page.read_text(), re.MULTILINE)
        assert plain == [], f"{page}: write '.. code-block:: shell' with a marker, or '.. code-block:: text'"


def test_no_line_of_a_block_is_cut_off_on_a_screen() -> None:
    """Wider lines would have to be scrolled, at the width that ``docs/_static/txserf.css`` sets."""
    block = re.compile(r"^( *)\.\. code-block:: .*\n((?:\1   .*\n|\n)+)", re.MULTILINE)
    for page in PAGES[1:]:
        for indent, code in block.findall(page.read_text()):
            too_long = [line for line in code.splitlines() if len(line) > len(indent) + 4 + 97]
            assert too_long == [], page


def links() -> set[str]:
    """Return the addresses that the pages link."""
    found = set()
    for page in [*PAGES, *ROOT.glob("*.rst")]:
        for inline, target in re.findall(
            r"<(https?://[^>]+)>`|^\.\. _\S+: (https?://\S+)$", page.read_text(), re.MULTILINE
        ):
            found.add(inline or target)
    return found


def test_the_links_of_the_pages_are_known() -> None:
    """Sphinx itself refuses a link to a page or a name that is not there (``nitpicky``, ``-W``)."""
    own = {link for link in links() if link.startswith(_OURS)}
    assert links() - own - _KNOWN_LINKS == set()
    files = {link.removeprefix(_OURS[0]).strip("/") for link in own if link.startswith(_OURS[0])}
    # Towncrier makes the changelog at a release.
    files = {re.sub(r"^(?:blob|tree)/main/", "", name) for name in files} - {"issues", "", "CHANGELOG.rst"}
    pages = {link.removeprefix(_OURS[1]).partition("#")[0] for link in own if link.startswith(_OURS[1])}
    pages = {re.sub(r"^en/(?:latest|stable)/", "", name) for name in pages}
    assert [name for name in files if not (ROOT / name).exists()] == []
    assert [name for name in pages if not (DOCS / name.replace(".html", ".rst")).exists()] == []


def test_the_files_that_the_readme_links_are_there() -> None:
    linked = re.findall(r"<([^:>]+)>`_", (ROOT / "README.rst").read_text())
    assert [name for name in linked if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("block", runnable("run: real", "run: alone"))
def test_an_example_runs(block: Block, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    environ, code = environment_and_code(block, request)
    printed = run_python(code, tmp_path, environ)
    assert prints(block, printed), printed


@pytest.mark.parametrize("page", pages_with_bodies())
def test_the_examples_of_a_page_that_are_parts_run(
    page: str, tmp_path: Path, two_agents: list[Agent]
) -> None:
    code = _BODY
    for block in blocks():
        if block.how == "run: body" and block.place.startswith(f"{page}:"):
            code += _BODY_BLOCK.format(place=block.place, code=textwrap.indent(block.code, " " * 8))
    environ = environment()
    run_python(beside(two_agents, code + "\nreact(main)\n"), tmp_path, environ)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("block", runnable("run: shell"))
def test_a_command_runs(block: Block, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    _, _, until = block.how.partition(", until ")
    environ, code = environment_and_code(block, request)
    command = tmp_path / "bin" / "txserf"  # that of this tree, whether it is installed or not
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m txserf "$@"\n')
    command.chmod(0o755)
    environ["PATH"] = os.pathsep.join((str(command.parent), environ["PATH"]))
    printed = output(["bash", "-ec", code], tmp_path, environ, until.strip() or None)
    assert prints(block, printed), printed


def test_the_commands_of_the_pages_are_understood() -> None:
    """Also of blocks that are not run."""
    lines = list(command_lines())
    assert len(lines) > 10
    for place, argv in lines:
        try:
            parse([word for word in argv if word != "$@"])
        except UsageError as error:
            raise AssertionError(f"{place}: {' '.join(argv)}: {error}") from error


def test_the_service_of_the_first_steps_passes_its_test(tmp_path: Path) -> None:
    page = [block for block in blocks() if block.place.startswith("docs/start.rst:")]
    for name, holds in (("ops.py", "@router"), ("test_ops.py", "TestCase")):
        (source,) = [block.code for block in page if holds in block.code]
        (tmp_path / name).write_text(source)
    printed = output([sys.executable, "-m", "twisted.trial", "test_ops"], tmp_path, environment())
    assert "PASSED (successes=1)" in printed
