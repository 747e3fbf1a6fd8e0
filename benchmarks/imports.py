"""
The time of ``import txserf``, compared with importing Twisted's protocols and msgpack.

Run it without an agent: ``python benchmarks/imports.py``. It starts a process for each import, in turns.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
from time import perf_counter

ROUNDS = 21
BARE = "import twisted.internet.protocol, msgpack"
IMPORTS = {
    BARE: BARE,
    "import txserf": "import txserf",
    "txserf.Client": "import txserf; txserf.Client",
    "txserf.Serf": "import txserf; txserf.Serf",
}


def seconds(code: str) -> float:
    start = perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return perf_counter() - start


def main() -> None:
    times: dict[str, list[float]] = {name: [] for name in IMPORTS}
    for _ in range(ROUNDS):
        for name, code in IMPORTS.items():
            times[name].append(seconds(code))
    print(f"whole processes, {ROUNDS} rounds in turns\n")
    print(f"{'import':44}{'median':>9}{'ratio: median (min to max)':>30}")
    for name, taken in times.items():
        ratios = [ours / base for ours, base in zip(taken, times[BARE], strict=True)]
        spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        print(f"{name:44}{statistics.median(taken):>8.3f}s{spread:>30}")


main()
