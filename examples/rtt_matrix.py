"""
Print the estimated round trips between all members, in milliseconds.

    python rtt_matrix.py
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import gatherResults
from twisted.internet.task import react

import txserf


async def main(reactor: Any) -> None:
    async with txserf.Serf() as serf:
        names = sorted(member.name for member in await serf.members(status="alive"))
        # One request for each member, all at once. The distances are computed here.
        places = dict(zip(names, await gatherResults([serf.coordinate(name) for name in names]), strict=True))
        width = max(map(len, names)) + 2
        print(" " * width + "".join(name.rjust(max(width, 10)) for name in names))
        for name, here in places.items():
            cells = [
                f"{here.distance_to(there) * 1000:.3f}" if here is not None and there is not None else "?"
                for there in places.values()
            ]
            print(name.ljust(width) + "".join(cell.rjust(max(width, 10)) for cell in cells))


if __name__ == "__main__":
    react(main)
