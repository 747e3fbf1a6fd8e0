"""The table of the page about mistakes, which holds the messages that the tests compare."""

from __future__ import annotations

import re
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "mistakes.rst"


def rows() -> dict[str, str]:
    """Return the message of each mistake, without the marks around it."""
    cells = [
        " ".join(cell.split())
        for cell in re.split(r"^   (?:\*|  ?) - |^     - ", PAGE.read_text(), flags=re.M)[1:]
    ]
    table = dict(zip(cells[3::3], cells[4::3], strict=True))
    return {mistake: message.removeprefix("``").removesuffix("``") for mistake, message in table.items()}


MESSAGES = rows()
