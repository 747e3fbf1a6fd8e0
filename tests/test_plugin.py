"""
The plugins of ``twistd`` and of endpoints after an install, an upgrade and an uninstall of txserf.

The installs are real ones, into virtual environments with copies of this
environment's Twisted and of its requirements. pip puts the plugin into their
``twisted/plugins``, where Twisted keeps its ``dropin.cache`` too.
"""

from __future__ import annotations

import importlib.metadata
import re
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]

_TWISTD = "import sys; sys.argv[0] = 'twistd'; from twisted.scripts.twistd import run; run()"

pytestmark = pytest.mark.timeout(300)


def run(*command: str | Path, cwd: Path) -> str:
    """Run a command that has to succeed, and return its output."""
    done = subprocess.run(command, cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout


def pip(*arguments: str | Path, cwd: Path) -> str:
    return run(sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments, cwd=cwd)


def requirements(name: str, seen: set[str]) -> set[str]:
    """Return the names of a distribution and of everything that it requires here."""
    key = re.sub(r"[-_.]+", "-", name).lower()
    if key in seen:
        return seen
    seen.add(key)
    for line in importlib.metadata.requires(name) or ():
        needed = Requirement(line)
        if needed.marker is None or needed.marker.evaluate({"extra": ""}):
            requirements(needed.name, seen)
    return seen


def copy_source(folder: Path, version: str) -> Path:
    """Copy the files that the package is built from, because a build would leave files in the tree."""
    for part in ("txserf", "twisted"):
        shutil.copytree(
            ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__", "dropin.cache")
        )
    for part in ("pyproject.toml", "README.rst", "LICENSE"):
        shutil.copy(ROOT / part, folder)
    settings = (ROOT / "setup.cfg").read_text()
    (folder / "setup.cfg").write_text(re.sub(r"(?m)^version = .*", f"version = {version}", settings))
    return folder


def build_wheel(folder: Path, version: str) -> Path:
    (folder / "source").mkdir(parents=True)
    source = copy_source(folder / "source", version)
    pip("wheel", "-q", "--no-deps", "-w", folder, source, cwd=folder)
    (wheel,) = folder.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(tmp_path_factory.mktemp("wheel"), "1.0")


@pytest.fixture(scope="module")
def newer_wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(tmp_path_factory.mktemp("newer-wheel"), "1.1")


class Environment:
    """A virtual environment with Twisted, and without txserf at first."""

    def __init__(self, folder: Path) -> None:
        venv.create(folder / "env", symlinks=True)
        self.python = folder / "env" / "bin" / "python"
        self.elsewhere = folder / "elsewhere"
        self.elsewhere.mkdir()
        where = "import sysconfig; print(sysconfig.get_path('purelib'))"
        self.packages = Path(self.run("-c", where).strip())
        self.plugins = self.packages / "twisted" / "plugins"
        self.copy("twisted")

    def copy(self, name: str) -> None:
        """Copy a distribution of this environment, and all that it requires."""
        for each in requirements(name, set()):
            for file in importlib.metadata.files(each) or ():
                # Skip scripts, which name another interpreter, and compiled files.
                if ".." not in file.parts and file.suffix != ".pyc":
                    target = self.packages / file
                    target.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy(str(file.locate()), target)

    def run(self, *arguments: str) -> str:
        return run(self.python, *arguments, cwd=self.elsewhere)

    def pip(self, *arguments: str | Path) -> None:
        pip("--python", self.python, *arguments, cwd=self.elsewhere)

    def services(self) -> set[str]:
        """Return the commands that ``twistd --help`` lists when it runs in an unrelated folder."""
        offered = self.run("-c", _TWISTD, "--help")
        _, _, commands = offered.partition("Commands:")
        return {line.split()[0] for line in commands.splitlines() if re.match(r" {4}\S", line)}

    def cached(self) -> set[str]:
        """Return the plugin modules in Twisted's cache."""
        names = "import pickle, sys; print(*pickle.load(open(sys.argv[1], 'rb')))"
        return set(self.run("-c", names, str(self.plugins / "dropin.cache")).split())


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    made = Environment(tmp_path)
    assert "web" in made.services() and "txserf" not in made.services()
    return made


def test_the_wheel_has_the_plugin_and_nothing_else_of_twisted(wheel: Path) -> None:
    names = [name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name]
    assert [name for name in names if not name.startswith("txserf/")] == ["twisted/plugins/txserf_plugin.py"]
    assert "txserf/py.typed" in names


def test_the_wheel_has_the_files_of_the_page(wheel: Path) -> None:
    page = "txserf/service/page"
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith(page)}
    assert packed == {f"{page}/{path.name}" for path in (ROOT / page).iterdir()}
    assert f"{page}/index.html" in packed


def test_an_installed_plugin_is_listed_and_not_imported(environment: Environment, wheel: Path) -> None:
    environment.pip("install", "-q", "--no-deps", wheel)
    assert "txserf" in environment.services()
    assert "txserf_plugin" in environment.cached()
    names = "from twisted.plugin import getPlugins; from twisted.application.service import IServiceMaker"
    check = "import sys; assert [p for p in getPlugins(IServiceMaker) if p.tapname == 'txserf']"
    environment.run("-c", f"{names}; {check}; assert 'txserf' not in sys.modules")


def test_an_installed_plugin_makes_endpoints_of_descriptions(environment: Environment, wheel: Path) -> None:
    environment.copy("msgpack")
    environment.pip("install", "-q", "--no-deps", wheel)
    names = "from twisted.internet import reactor; from twisted.internet.endpoints import clientFromString"
    unused = "assert 'txserf' not in sys.modules"
    made = "print(clientFromString(reactor, 'serf:role=web:port=8080'))"
    others = "clientFromString(reactor, 'tcp:127.0.0.1:80')"
    shown = environment.run("-c", f"import sys; {names}; {others}; {unused}; {made}")
    assert shown == "<ServiceEndpoint: role='web'>\n"


def test_a_second_install_and_an_upgrade_keep_it_listed(
    environment: Environment, wheel: Path, newer_wheel: Path
) -> None:
    before = environment.services()
    for package in (wheel, wheel, newer_wheel):
        environment.pip("install", "-q", "--no-deps", "--force-reinstall", package)
        assert environment.services() == before | {"txserf"}
    version = "from importlib.metadata import version; print(version('txserf'))"
    assert environment.run("-c", version).strip() == "1.1"


def test_an_uninstall_leaves_nothing_behind(environment: Environment, wheel: Path) -> None:
    before, files = environment.services(), set(environment.packages.rglob("*"))
    environment.pip("install", "-q", "--no-deps", wheel)
    assert "txserf" in environment.services()
    environment.pip("uninstall", "-q", "-y", "txserf")
    assert environment.services() == before
    assert "txserf_plugin" not in environment.cached()
    left = {path for path in environment.packages.rglob("*") if "__pycache__" not in path.parts} - files
    assert left == set()


def test_an_editable_install_is_listed_from_any_folder(environment: Environment, tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    environment.pip("install", "-q", "--no-deps", "-e", copy_source(tmp_path / "source", "1.0"))
    assert "txserf" in environment.services()
    environment.pip("uninstall", "-q", "-y", "txserf")
    assert "txserf" not in environment.services()
