"""Serf's own client, in Go: ``client.go`` is built where Go and Debian's package of the library are."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
from pathlib import Path

from benchmarks.harness import CACHE

SOURCE = Path(__file__).with_name("client.go")
LIBRARY = Path("/usr/share/gocode")  # of Debian's golang-github-hashicorp-serf-dev
ROW = "Serf's Go client"


def missing() -> str:
    """Return why it can't be built here; empty where it can."""
    if shutil.which("go") is None:
        return "there is no Go (golang-go)"
    if not (LIBRARY / "src/github.com/hashicorp/serf/client").is_dir():
        return "Serf's library for Go is not installed (golang-github-hashicorp-serf-dev)"
    return ""


@functools.cache
def client() -> str:
    """Return the path of the program. It is built once for each version of its source, into a cache of the user."""
    program = CACHE / "go-client"
    if not program.exists() or program.stat().st_mtime < SOURCE.stat().st_mtime:
        CACHE.mkdir(parents=True, exist_ok=True)
        built = CACHE / f"go-client-{os.getpid()}"
        environ = os.environ | {"GO111MODULE": "off", "GOPATH": str(LIBRARY)}
        subprocess.run(["go", "build", "-o", str(built), str(SOURCE)], check=True, env=environ, cwd=CACHE)
        os.replace(built, program)
    return str(program)
