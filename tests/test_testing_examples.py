"""The two sample tests of the page "Testing your application" pass with the command that each of them names."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]

_DOCUMENTED = re.compile(r"Run it with ``(.+?)``")


def run_as_documented(sample: str, folder: Path) -> str:
    """Copy a sample into *folder*, run the command of its docstring there, and return what that printed."""
    copy = Path(shutil.copy(ROOT / "examples" / "testing" / sample, folder))
    documented = _DOCUMENTED.search(copy.read_text())
    assert documented is not None, f"{sample} does not say how to run it"
    programs = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)))
    done = subprocess.run(
        shlex.split(documented[1]),
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PATH": programs},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_sample_for_trial_passes(tmp_path: Path) -> None:
    assert "PASSED (successes=2)" in run_as_documented("test_deploy_listener.py", tmp_path)


def test_the_sample_for_pytest_passes(tmp_path: Path) -> None:
    assert "1 passed" in run_as_documented("test_mean_load.py", tmp_path)
