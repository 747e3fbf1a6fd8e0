"""The program accepts the options and the file that the page about ``twistd txserf`` shows."""

from __future__ import annotations

import configparser
import os
import re
import shlex
import sys
import textwrap
from pathlib import Path
from typing import Any

from twisted.scripts.twistd import ServerOptions  # type: ignore[attr-defined]  # it is there on every system
from twisted.trial.unittest import SynchronousTestCase

from tests.fakes import new_folder
from txserf import constant
from txserf.service import settings
from txserf.service.options import Options

PAGE = (Path(__file__).parents[2] / "docs" / "service.rst").read_text()


def block(language: str, holds: str = "") -> str:
    """Return the page's only block of a language that holds that text."""
    blocks = re.findall(rf"^\.\. code-block:: {language}\n\n((?:    .*\n|\n)+)", PAGE, re.MULTILINE)
    (found,) = [text for text in blocks if holds in text]
    return textwrap.dedent(found)


def commands() -> list[list[str]]:
    """Return the arguments of each ``twistd`` command line on the page."""
    joined = PAGE.replace("\\\n", " ")
    return [shlex.split(line)[1:] for line in re.findall(r"^ +(twistd .*)$", joined, re.MULTILINE)]


class PageTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = new_folder(self)
        self.addCleanup(os.chdir, os.getcwd())
        self.addCleanup(setattr, sys, "path", list(sys.path))
        os.chdir(self.folder)

    def file(self, name: str, text: str, mode: int = 0o644) -> str:
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        path.chmod(mode)
        return str(path)

    def taken(self, words: list[str]) -> Options:
        """Parse the arguments with ``twistd``, and return txserf's options."""
        if "--uid" in words:  # the page's user does not exist on every machine
            words[words.index("--uid") + 1] = "0"
        twistd: Any = ServerOptions()
        twistd.parseOptions(words)
        options: Options = twistd.subOptions
        return options

    def test_the_file_is_taken(self) -> None:
        values = settings.merged({}, settings.load(Path(self.file("txserf.toml", block("toml", "handler")))))
        self.assertEqual((len(values["handler"]), values["concurrency"]), (2, 4))

    def test_the_table_of_a_template_is_taken(self) -> None:
        table = block("toml", "[[template]]").replace("/etc/txserf/", "")
        self.file("haproxy.cfg.j2", "")
        options = self.taken(["twistd", "txserf", "--config", self.file("txserf.toml", table)][1:])
        (wanted,) = options.chosen["template"]
        self.assertEqual(set(wanted.options), {"check", "reload", "settle", "at_most", "mode"})

    def test_every_command_line_is_taken(self) -> None:
        self.file("hosts.j2", "")
        self.file("deploy.sh", "", 0o755)
        self.file("mypackage/__init__.py", "")
        self.file("mypackage/ops.py", "import txserf\nrouter = txserf.Router()")
        self.addCleanup(lambda: [sys.modules.pop(name) for name in ("mypackage", "mypackage.ops")])
        files = {
            "/etc/txserf.toml": self.file("txserf.toml", ""),
            "/etc/txserf.key": self.file("key", "s3cret", 0o600),
        }
        lines = commands()
        self.assertGreater(len(lines), 4)
        for words in lines:
            # The folder of authorities is any that is there.
            self.taken([files.get(word, word).replace("/etc/txserf/ca", str(self.folder)) for word in words])

    def test_the_unit_starts_it_and_reloads_it(self) -> None:
        unit = configparser.ConfigParser(interpolation=None)
        unit.optionxform = str  # type: ignore[assignment,method-assign]  # as configparser's own pages say
        unit.read_string(block("ini"))
        program, *words = shlex.split(unit["Service"]["ExecStart"])
        self.assertTrue(program.endswith("/twistd"))
        ours = {"/etc/txserf.toml": self.file("txserf.toml", ""), "/var/lib/txserf/state": "state"}
        options = self.taken([ours.get(word, word) for word in words])
        self.assertIsNotNone(options.router)
        self.assertEqual(unit["Service"]["ExecReload"].split(), ["/bin/kill", "-HUP", "$MAINPID"])
        self.assertGreater(int(unit["Service"]["TimeoutStopSec"]), constant.DRAIN_TIMEOUT)

    def test_the_drain_is_as_long_as_it_says(self) -> None:
        self.assertIn(f"(for at most {constant.DRAIN_TIMEOUT:g} seconds)", " ".join(PAGE.split()))
