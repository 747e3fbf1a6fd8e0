"""
Print the longest modules, classes and functions of the folders given. Nothing fails.

Docstrings of classes and functions are not counted.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path

SHOWN = 8


def without_docstring(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> int:
    lines = (node.end_lineno or node.lineno) - node.lineno + 1
    if ast.get_docstring(node) is not None:
        first = node.body[0]
        lines -= (first.end_lineno or first.lineno) - first.lineno + 1
    return lines


def main(folders: list[str]) -> None:
    modules: list[tuple[int, str]] = []
    functions: list[tuple[int, str]] = []
    classes: list[tuple[int, str]] = []
    for path in (path for folder in folders for path in Path(folder).rglob("*.py")):
        text = path.read_text()
        modules.append((text.count("\n"), str(path)))
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                functions.append((without_docstring(node), f"{path}:{node.lineno} {node.name}"))
            elif isinstance(node, ast.ClassDef):
                classes.append((without_docstring(node), f"{path}:{node.lineno} {node.name}"))
    for title, found, aim in (
        ("modules", modules, 400),
        ("classes", classes, 300),
        ("functions", functions, 40),
    ):
        print(f"the longest {title} (aim: under {aim} lines)")
        for lines, name in sorted(found, reverse=True)[:SHOWN]:
            print(f"  {lines:5} {name}")


main(sys.argv[1:])
