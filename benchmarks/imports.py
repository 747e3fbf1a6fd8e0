"""The CPU time of imports, each in a Python that starts and ends, compared with what any program with a service imports."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Iterator

from benchmarks.harness import Measure, Sample, Setting, Subject, Table, Turn

TWISTED = "import twisted.internet.reactor, twisted.application.service, msgpack"
OURS = ("import txserf", "import txserf; txserf.Client", "import txserf; txserf.Serf")


def importing(code: str) -> Measure:
    def measure(setting: Setting) -> Iterator[Turn]:
        while True:
            before = cpu_of_children()
            subprocess.run([sys.executable, "-c", code], check=True)
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
