"""The layers: modules import only from lower ones, and an import loads no reactor."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import combinations
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

PACKAGE = Path(__file__).parents[1] / "txserf"

# From the bottom to the top: a name is a folder of the package, or a module beside the folders. A layer imports
# those that stand before it, whole folders too; those with a | between them on a line do not know each other.
ORDER = """
    constant errors
    wire known model callbacks arguments
    commands filters processes newfile
    connection | embedded
    client | serf
    cluster handlers
    service
    pytest_plugin
    __init__
    cli
    __main__
"""

# The same for the modules of one folder, from the first to the last.
INSIDE = {
    "connection": "exchange replies heartbeat deadlines protocol operation hosts keys failover diallers observers factory lanes session",
    "embedded": "agenda memory re2 sizes log membership network queries keyring events process joining requests rpc server agent cluster",
    "client": "requests batch client",
    "serf": "call feed streams logs recipients query advertise serf",
    "cluster": "ring matching table changes waits coordinates following view template endpoint client_string",
    "handlers": "scripts routes handled agent work backlog intake running router",
    "service": "terminal settings agents members lines apps templates jsonlog live metrics answers webfiles webmembers webevents webstate webactions website web reload readiness locking follow demo ending options making",
}


class Places:
    """
    Where each layer, and each module of a folder, stands.

    :param order: the layers, written as `ORDER` is.
    :param inside: the modules of each folder, written as `INSIDE` is.
    """

    def __init__(self, order: str, inside: Mapping[str, str]) -> None:
        lines = [line.split() for line in order.splitlines()]
        self.layers = [name for line in lines for name in line if name != "|"]
        self.apart = {frozenset(pair) for line in lines if "|" in line for pair in combinations(line, 2)}
        self.inside = {folder: [*modules.split(), "__init__"] for folder, modules in inside.items()}

    def may_import(self, importer: str, imported: str) -> bool:
        """Whether the module *importer* may import *imported*: dotted names without the leading ``txserf.``."""
        layer, _, module = importer.partition(".")
        other_layer, _, other = imported.partition(".")
        if layer != other_layer:
            apart = frozenset((layer, other_layer)) in self.apart
            return not apart and self.layers.index(other_layer) < self.layers.index(layer)
        order = self.inside.get(layer)
        return order is None or order.index(other or "__init__") < order.index(module or "__init__")


PLACES = Places(ORDER, INSIDE)


def modules() -> Iterator[tuple[str, str, ast.Module]]:
    """Give each module: its path, its dotted name without the leading ``txserf.``, and its tree."""
    for path in sorted(PACKAGE.rglob("*.py")):
        place = path.relative_to(PACKAGE)
        parts = place.with_suffix("").parts
        if len(parts) > 1 and parts[-1] == "__init__":
            parts = parts[:-1]
        yield str(place), ".".join(parts), ast.parse(path.read_text(), str(path))


NAMES = {name for _, name, _ in modules()}


def module_of(name: str) -> str:
    """Return the module that the import of *name* loads: ``txserf.wire.pack`` is ``wire``."""
    parts = name.split(".")[1:]
    while parts and ".".join(parts) not in NAMES:
        parts.pop()
    return ".".join(parts) or "__init__"


def imported(tree: ast.AST) -> Iterator[str]:
    """Give the full names of all that is imported anywhere in *tree*, inside functions too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute here"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def imported_at_once(tree: ast.Module) -> Iterator[str]:
    """Give the names that are imported with the module: not those in functions, and not those for type checkers."""
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
        homeless = []
        for path, name, _ in modules():
            layer, _, module = name.partition(".")
            known = PLACES.inside.get(layer, [module or "__init__"])
            if layer not in PLACES.layers or (module or "__init__") not in known:
                homeless.append(path)
        self.assertEqual(homeless, [])

    def test_no_module_imports_upward_or_aside(self) -> None:
        upward = []
        for path, name, tree in modules():
            for other in imported(tree):
                if is_in(other, "txserf") and name != "__init__":
                    module = module_of(other)
                    if module != name and not PLACES.may_import(name, module):
                        upward.append(f"{path} imports {other}")
        self.assertEqual(upward, [])

    def test_an_import_upward_or_aside_is_found(self) -> None:
        places = Places("low\nleft | right\ntop", {"left": "a b"})
        allowed = [("left.a", "low"), ("left.b", "left.a"), ("top", "left.b"), ("left", "left.b")]
        refused = [
            ("low", "left.a"),
            ("left.a", "right"),
            ("right", "left"),
            ("left.a", "left.b"),
            ("left.a", "left"),
        ]
        self.assertEqual([pair for pair in allowed if not places.may_import(*pair)], [])
        self.assertEqual([pair for pair in refused if places.may_import(*pair)], [])

    def test_each_class_name_stands_once(self) -> None:
        names = [
            node.name for _, _, tree in modules() for node in ast.walk(tree) if isinstance(node, ast.ClassDef)
        ]
        self.assertEqual([name for name, count in Counter(names).items() if count > 1], [])

    def test_only_the_codec_imports_msgpack(self) -> None:
        users = {path for path, _, tree in modules() for name in imported(tree) if is_in(name, "msgpack")}
        self.assertEqual(users, {"wire.py"})

    def test_the_codec_imports_neither_twisted_nor_the_table(self) -> None:
        (names,) = [set(imported(tree)) for path, _, tree in modules() if path == "wire.py"]
        unwanted = [name for name in names if is_in(name, "twisted") or is_in(name, "txserf.commands")]
        self.assertEqual(unwanted, [])

    def test_each_logger_is_a_modules_with_the_namespace_of_its_folder(self) -> None:
        """A logger in a class takes the name of the class, whatever namespace it was given."""
        wrong = []
        for path, name, tree in modules():
            expected = f"Logger(namespace='txserf.{name.partition('.')[0]}')"
            at_module = {node.value for node in tree.body if isinstance(node, ast.Assign)}
            for node in ast.walk(tree):
                if isinstance(node, ast.Call) and ast.unparse(node.func) == "Logger":
                    if node not in at_module or ast.unparse(node) != expected:
                        wrong.append(f"{path}:{node.lineno}")
        self.assertEqual(wrong, [])

    def test_no_module_imports_the_reactor_when_it_is_imported(self) -> None:
        eager = [
            path
            for path, _, tree in modules()
            for name in imported_at_once(tree)
            if is_in(name, "twisted.internet.reactor")
        ]
        self.assertEqual(eager, [])
