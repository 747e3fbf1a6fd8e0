"""
Print tables of speed: ``python -m benchmarks [TABLE ...]``.

Machines differ, and each one's speed changes with time. So the subjects of a table measure in turns, and it is the
ratios that count. The agents are started, and no Serf has to run.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import platform
import re
from pathlib import Path

from benchmarks import goals
from benchmarks.harness import Setting
from benchmarks.results import Result, kept, text
from benchmarks.tables import TABLES
from benchmarks.turns import measured, tree_of
from tests.agents import SerfMissing

NUMBERS = re.compile(r"\[\s+([-+\d.e,\s]+?)\s+\]")  # a list of them, which takes one line in a file


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m benchmarks", description="Print tables of speed.")
    parser.add_argument("tables", nargs="*", metavar="TABLE", help=f"{', '.join(TABLES)} (default: all)")
    parser.add_argument("--rounds", type=int, default=9, help="turns of each subject (default: 9)")
    parser.add_argument(
        "--seconds", type=float, default=0.5, help="seconds of each turn of a rate (default: 0.5)"
    )
    parser.add_argument("--small", action="store_true", help="small sizes, only to see that all of it works")
    parser.add_argument("--against", metavar="REV", help="measure another commit of txserf too, in turns")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep all figures")
    parser.add_argument(
        "--plot", type=Path, metavar="FILE", help="draw them as FILE, a .png or .svg (matplotlib)"
    )
    parser.add_argument(
        "--show", type=Path, metavar="FILE", help="measure nothing, show figures kept by --json"
    )
    found = parser.parse_args()
    for name in found.tables:
        if name not in TABLES:
            parser.error(f"no table {name}; there are {', '.join(TABLES)}")
    return found


def results_of(found: argparse.Namespace) -> list[Result]:
    """Measure, and print each table once it is there."""
    names = found.tables or list(TABLES)
    if found.show:
        shown = [Result.from_dict(each) for each in json.loads(found.show.read_text())["tables"]]
        results = [result for result in shown if not found.tables or result.name in names]
        for result in results:
            print(text(result), flush=True)
        return results
    results = []
    setting = Setting(seconds=found.seconds, small=found.small)
    with tree_of(found.against) if found.against else contextlib.nullcontext() as other:
        for name in names:
            try:
                results.append(measured(TABLES[name], setting, found.rounds, other))
            except SerfMissing as reason:
                print(f"{name}: skipped: {reason}\n", flush=True)
                continue
            print(text(results[-1]), flush=True)
    return results


def main() -> None:
    found = options()
    results = results_of(found)
    print(goals.text(results), end="")
    if found.json:
        machine = {
            "python": platform.python_version(),
            "machine": platform.machine(),
            "system": platform.system(),
        }
        tables = [kept(result) for result in results]
        text = json.dumps({**machine, "tables": tables}, indent=1)
        found.json.write_text(NUMBERS.sub(lambda found: f"[{' '.join(found[1].split())}]", text) + "\n")
    if found.plot:
        from benchmarks.plot import draw

        draw(results, found.plot)


if __name__ == "__main__":
    main()
