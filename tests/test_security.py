"""SECURITY.rst: the limits that it tells are those of the code."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from txserf import constant

PAGE = (Path(__file__).parents[1] / "SECURITY.rst").read_text()


def limits() -> dict[str, float]:
    """Return the rows of the table: the full name of each limit, and its value."""
    rows = re.findall(r"^``(txserf\.[\w.]+)``\s+([\d,]+) ", PAGE, re.MULTILINE)
    return {name: float(value.replace(",", "")) for name, value in rows}


class LimitTests(SynchronousTestCase):
    def test_each_has_the_value_that_the_page_tells(self) -> None:
        for name, value in limits().items():
            module, _, attribute = name.rpartition(".")
            self.assertEqual(getattr(import_module(module), attribute), value, name)

    def test_each_limit_that_a_program_can_set_is_there(self) -> None:
        numbers = {
            name for name, value in vars(constant).items() if name.isupper() and name != "DEFAULT_PORT"
        }
        numbers = {name for name in numbers if isinstance(getattr(constant, name), (int, float))}
        told = {name.rpartition(".")[2] for name in limits() if name.startswith("txserf.constant.")}
        self.assertEqual(numbers, told)
