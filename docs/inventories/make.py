"""
Make the small inventories in this folder from whole ones.

An inventory lists the names that the documentation of another project describes, with their addresses. A build needs no
network, for it takes these files, which hold the names that our pages link and no others. Where a page links a new
name, the build says that its target is not found. Then make the files again, from the inventories of Debian's
packages ``python3-doc`` and ``twisted-doc``::

    cd docs
    python inventories/make.py python=/usr/share/doc/python3/html/objects.inv \\
        twisted=/usr/share/doc/twisted-doc/html/objects.inv \\
        twisted-api=/usr/share/doc/twisted-doc/html/api/objects.inv
"""

from __future__ import annotations

import runpy
import sys
import tempfile
import zlib
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx

HERE = Path(__file__).parent


def used_addresses(inventories: dict[str, Path]) -> set[str]:
    """Build the documentation with these inventories, and return the addresses that it links by them."""
    used: set[str] = set()

    def note(app: Sphinx, document: nodes.document, name: str) -> None:
        used.update(
            reference["refuri"] for reference in document.findall(nodes.reference) if "refuri" in reference
        )

    mapping = {name: (base, str(inventories[name].absolute())) for name, base in bases().items()}
    with tempfile.TemporaryDirectory() as work:
        settings = {"intersphinx_mapping": mapping}
        app = Sphinx(HERE.parent, HERE.parent, work, work, "dummy", settings, status=None)
        app.connect("doctree-resolved", note)
        app.build()
    return {address.removeprefix(f"{base}/") for address in used for base in bases().values()}


def bases() -> dict[str, str]:
    """Return the address of each project by its name in ``conf.py``."""
    return {
        name: base
        for name, (base, _) in runpy.run_path(str(HERE.parent / "conf.py"))["intersphinx_mapping"].items()
    }


def selected(whole: bytes, used: set[str]) -> bytes:
    """Return an inventory with the used entries of another one."""
    *head, packed = whole.split(b"\n", 4)
    lines = []
    for line in zlib.decompress(packed).decode().splitlines():
        name, _, rest = line.partition(" ")
        address = rest.split(" ")[2] if rest.count(" ") >= 3 else ""
        if address.replace("$", name) in used:
            lines.append(line)
    return b"\n".join([*head, zlib.compress("".join(f"{line}\n" for line in lines).encode(), 9)])


def main(arguments: list[str]) -> None:
    inventories = {name: Path(path) for name, path in (argument.split("=", 1) for argument in arguments)}
    used = used_addresses(inventories)
    for name, path in inventories.items():
        small = selected(path.read_bytes(), used)
        (HERE / f"{name}.inv").write_bytes(small)
        print(f"{name}.inv: {len(small)} bytes")


if __name__ == "__main__":
    main(sys.argv[1:])
