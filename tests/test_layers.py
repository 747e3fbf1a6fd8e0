"""Who imports whom: the order of the modules holds, and importing one does nothing."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

PACKAGE = Path(__file__).parents[1] / "txserf"

# From the bottom to the top. A module imports what stands on lines above its own,
# and what stands before it on its line. `__init__` has the public names of all.
ORDER = """
    constant errors checks
    wire model commands
    deadlines
    exchanges
    protocol
    hosts
    factory
    operations lanes session
    chain responses batch client
    calls feed streams logs queries serf
    cluster
    scripts routes ltimes identity work intake dispatch handlers
    embedded
    config apps jsonlog metrics web reload guard
    follow demo service pytest_plugin
    __init__
"""
RANK = {name: rank for rank, name in enumerate(ORDER.split())}


def modules() -> Iterator[tuple[str, str, ast.Module]]:
    """Give each module: its path, the layer that it belongs to, and its tree."""
    for path in sorted(PACKAGE.rglob("*.py")):
        place = path.relative_to(PACKAGE)
        layer = place.parts[0].removesuffix(".py")
        yield str(place), layer, ast.parse(path.read_text(), str(path))


def imported(tree: ast.AST) -> Iterator[str]:
    """Give the full names of all that is imported anywhere in *tree*, inside functions too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute here"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def imported_at_once(tree: ast.Module) -> Iterator[str]:
    """Give what is imported when the module is: not inside functions, not for type checkers only."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        typing_only = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in () if typing_only else (node, *outside_functions(node)):
            if isinstance(inner, ast.Import | ast.ImportFrom):
                yield from imported(inner)


def outside_functions(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield child
            yield from outside_functions(child)


def is_in(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


class LayerTests(SynchronousTestCase):
    def test_every_module_has_its_place(self) -> None:
        self.assertEqual({layer for _, layer, _ in modules()} - set(RANK), set())

    def test_no_module_imports_upward(self) -> None:
        upward = []
        for path, layer, tree in modules():
            for name in imported(tree):
                if is_in(name, "txserf") and layer != "__init__":
                    # `from txserf import wire` names a module; `from txserf import Serf` comes from the top.
                    other = name.split(".")[1] if name.count(".") else "__init__"
                    if RANK.get(other, RANK["__init__"]) > RANK.get(layer, len(RANK)):
                        upward.append(f"{path} imports {name}")
        self.assertEqual(upward, [])

    def test_only_the_codec_imports_msgpack(self) -> None:
        users = {path for path, _, tree in modules() for name in imported(tree) if is_in(name, "msgpack")}
        self.assertEqual(users, {"wire.py"})

    def test_the_codec_imports_neither_twisted_nor_the_table(self) -> None:
        (names,) = [set(imported(tree)) for path, _, tree in modules() if path == "wire.py"]
        unwanted = [name for name in names if is_in(name, "twisted") or is_in(name, "txserf.commands")]
        self.assertEqual(unwanted, [])

    def test_no_module_imports_the_reactor_when_it_is_imported(self) -> None:
        eager = [
            path
            for path, _, tree in modules()
            for name in imported_at_once(tree)
            if is_in(name, "twisted.internet.reactor")
        ]
        self.assertEqual(eager, [])
