"""The two sample tests of the page "Testing your application" pass under trial and pytest."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def run(*command: str, cwd: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, *command], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_the_sample_for_trial_passes(tmp_path: Path) -> None:
    told = run(
        "-m", "twisted.trial", str(ROOT / "examples" / "testing" / "test_deploy_listener.py"), cwd=tmp_path
    )
    assert "PASSED (successes=2)" in told


def test_the_sample_for_pytest_passes(tmp_path: Path) -> None:
    example = tmp_path / "test_load.py"
    example.write_text((ROOT / "examples" / "testing" / "test_mean_load.py").read_text())
    assert "1 passed" in run("-m", "pytest", "-q", str(example), cwd=tmp_path)
