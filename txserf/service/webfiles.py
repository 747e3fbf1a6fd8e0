"""``/``: the page, and the files that it is made of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib.resources import files
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from txserf.service.answers import WebReply

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

# The content types by the end of a name. A file of another kind is not served.
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".ico": "image/vnd.microsoft.icon",
    ".json": "application/json",
    ".txt": "text/plain; charset=utf-8",
}


def page_files() -> Mapping[bytes, WebReply]:
    """Read the files of the page; return each by its path in the site. ``index.html`` is ``/`` too."""
    folder = files("txserf.service") / "page"
    found = dict(_read(folder, "/")) if folder.is_dir() else {}
    index = found.get(b"/index.html")
    return found if index is None else {**found, b"/": index}


def _read(folder: Traversable, path: str) -> Iterator[tuple[bytes, WebReply]]:
    for each in folder.iterdir():
        if each.is_dir():
            yield from _read(each, f"{path}{each.name}/")
            continue
        type = _TYPES.get(PurePosixPath(each.name).suffix)
        if type is not None:
            yield f"{path}{each.name}".encode(), WebReply.kept(each.read_bytes(), type)
