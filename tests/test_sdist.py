"""The source distribution has everything that its tests, docs and checks need."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

import txserf
from tests.test_plugin import ROOT, pip, run

# Files that tools leave in a checkout, or that only tools read.
_LEFT_OUT = shutil.ignore_patterns(
    *(".git*", ".venv", ".tox", ".hypothesis", ".*_cache", "__pycache__", "*.py[co]", "*.egg-info"),
    *("build", "dist", "_build", "_trial_temp*", "dropin.cache", "twistd.log*", "twistd.pid"),
)

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the source distribution from a copy of the tree, and return the folder where it is unpacked."""
    folder = tmp_path_factory.mktemp("sdist")
    source = folder / "source"
    shutil.copytree(ROOT, source, ignore=_LEFT_OUT)
    pip("install", "-q", "--target", folder / "tools", "setuptools>=77", cwd=folder)
    build = f"import sys; sys.path.insert(0, {str(folder / 'tools')!r})"
    build += f"; from setuptools.build_meta import build_sdist; build_sdist({str(folder)!r})"
    run(sys.executable, "-c", build, cwd=source)
    (archive,) = folder.glob("*.tar.gz")
    with tarfile.open(archive) as packed:
        packed.extractall(folder / "unpacked")
    (found,) = (folder / "unpacked").iterdir()
    shutil.rmtree(next(source.glob("*.egg-info")))
    return found


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_it_has_every_file_of_every_folder_of_the_tree(unpacked: Path) -> None:
    missing = files(unpacked.parents[1] / "source") - files(unpacked)
    assert [name for name in missing if "/" in name] == []


def test_it_has_the_version_that_the_package_says(unpacked: Path) -> None:
    assert unpacked.name == f"txserf-{txserf.__version__}"


def test_it_has_nothing_that_was_compiled(unpacked: Path) -> None:
    assert [name for name in files(unpacked) if name.endswith((".pyc", ".pyo"))] == []


def test_its_tests_can_be_run(unpacked: Path) -> None:
    # All are collected, which imports each module; those of one module are run.
    argv = [sys.executable, "-B", "-m", "pytest", "-q", "-p", "no:cacheprovider", "--assert=plain"]
    argv += ["tests", "-k", "test_filters.py"]
    environ = os.environ | {"PYTHONPATH": str(unpacked)}
    done = subprocess.run(argv, cwd=unpacked, env=environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^[1-9]\d* passed, [1-9]\d{3,} deselected", done.stdout, re.MULTILINE), done.stdout
