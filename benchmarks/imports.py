"""
The CPU time of imports, each in a Python that starts and ends, compared with what any program with a service imports.

All find their bytecode, as installed packages do, also where ``PYTHONDONTWRITEBYTECODE`` is set or a tree was not imported yet:
to compile the sources would take longer than the rest.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator

from benchmarks.harness import Measure, Sample, Setting, Subject, Table, Turn

TWISTED = "import twisted.internet.reactor, twisted.application.service, msgpack"
SERF = "import txserf; txserf.Serf"
BOTH = f"{TWISTED}; {SERF}"
OURS = ("import txserf", "import txserf; txserf.Client", SERF, BOTH)


def importing(code: str) -> Measure:
    def measure(setting: Setting) -> Iterator[Turn]:
        argv = [sys.executable, "-c", code]
        with tempfile.TemporaryDirectory() as kept:
            env = {**os.environ, "PYTHONPYCACHEPREFIX": kept}
            env.pop("PYTHONDONTWRITEBYTECODE", None)
            subprocess.run(argv, check=True, env=env)  # writes the bytecode
            while True:
                before = cpu_of_children()
                subprocess.run(argv, check=True, env=env)
                yield [Sample((cpu_of_children() - before) * 1000, "ms")]

    return measure


def cpu_of_children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


TABLE = Table(
    "imports",
    "the CPU of a process that imports something",
    (Subject(TWISTED, importing(TWISTED), ours=False), *(Subject(code, importing(code)) for code in OURS)),
    base=TWISTED,
)
