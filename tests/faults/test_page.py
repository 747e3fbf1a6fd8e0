"""The page on reliability names tests that there are."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_each_test_that_the_page_names_exists() -> None:
    page = (ROOT / "docs" / "reliability.rst").read_text()
    named = re.findall(r"``(tests/[\w/]+\.py): (test_\w+)``", page)
    assert len(named) > 10
    missing = [f"{path}: {test}" for path, test in named if f"def {test}(" not in (ROOT / path).read_text()]
    assert missing == []
