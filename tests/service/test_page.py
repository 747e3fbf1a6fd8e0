"""The files of the page: what the site serves of them, what they may not contain, and the tests of their modules."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

import txserf
from tests.service.web_case import WebCase

_PAGE = Path(txserf.__file__).parent / "service" / "page"
_MODULES = {path.name: path.read_text() for path in sorted(_PAGE.glob("*.js"))}
_INDEX = (_PAGE / "index.html").read_text()
_TESTS = Path(__file__).parents[1] / "page"

# The first of Node.js that takes a .js file for a module if it looks like one.
_NODE = (20, 19)


class PageTests(WebCase):
    def test_the_root_is_the_page(self) -> None:
        for path in ("/", "/index.html"):
            got = self.get(path)
            self.assertEqual((got.status, got.body), (200, _INDEX))
            self.assertEqual(got.headers["content-type"], "text/html; charset=utf-8")

    def test_all_that_the_page_loads_is_served_as_what_it_is(self) -> None:
        types = {
            ".js": "text/javascript; charset=utf-8",
            ".css": "text/css; charset=utf-8",
            ".svg": "image/svg+xml",
        }
        loaded = set(re.findall(r'(?:src|href)="(/[^"]+\.\w+)"', _INDEX))
        self.assertEqual(loaded, {"/main.js", "/page.css", "/icon.svg"})
        for path in loaded | {f"/{name}" for name in _MODULES}:
            got = self.get(path)
            self.assertEqual((got.status, got.headers["content-type"]), (200, types[Path(path).suffix]), path)

    def test_a_browser_that_has_a_file_gets_it_once(self) -> None:
        tag = self.get("/main.js").headers["etag"]
        self.assertEqual(self.get("/main.js", If_None_Match=tag).status, 304)

    def test_a_browser_lets_no_text_become_markup(self) -> None:
        policy = self.get("/").headers["content-security-policy"]
        self.assertIn("require-trusted-types-for 'script'", policy)


def test_no_module_is_left_over() -> None:
    imported = {name for module in _MODULES.values() for name in re.findall(r'from "\./([^"]+)";', module)}
    assert imported | {"main.js"} == set(_MODULES)


def test_the_page_has_no_script_and_no_style_of_its_own() -> None:
    assert re.findall(r"<style|\sstyle=|\son\w+=|javascript:", _INDEX) == []
    assert re.findall(r"<script(?![^>]* src=)", _INDEX) == []


@pytest.mark.parametrize("name", _MODULES)
def test_a_module_makes_no_markup_of_text(name: str) -> None:
    makers = (
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|createContextualFragment|\beval\b"
    )
    assert re.findall(makers + r"|new Function|setHTMLUnsafe|srcdoc", _MODULES[name]) == []


@pytest.mark.parametrize("path", sorted(_PAGE.iterdir()), ids=lambda path: path.name)
def test_a_file_names_no_other_host(path: Path) -> None:
    hosts = re.findall(r"""(?:https?:|["'(])//[\w.-]+""", path.read_text())
    assert set(hosts) <= {"http://www.w3.org"}, "that one is the name of SVG, which nobody asks for"


def test_the_modules_ask_for_elements_that_there_are() -> None:
    ids = set(re.findall(r'\bid="([^"]+)"', _INDEX))
    for name, module in _MODULES.items():
        assert set(re.findall(r'byId\("([^"]+)"\)', module)) <= ids, name


def test_the_modules_pass_their_own_tests() -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("no node: the tests of the page's modules need Node.js")
    said = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout
    version = tuple(map(int, re.findall(r"\d+", said)[:2]))
    if version < _NODE:
        pytest.skip(f"Node.js {said.strip()} is older than {'.'.join(map(str, _NODE))}")
    tests = sorted(map(str, _TESTS.glob("*.test.mjs")))
    done = subprocess.run([node, "--test", *tests], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    (passed,) = re.findall(r"^\S pass (\d+)$", done.stdout, re.MULTILINE)
    assert int(passed) > len(tests)
