"""The service that ``twistd txserf`` runs."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from txserf.service.making import makeService as makeService
    from txserf.service.options import Options as Options

# Loaded at first use: ``txserf members`` needs a module or two of this folder, and not the whole service.
_LAZY = {"makeService": "txserf.service.making", "Options": "txserf.service.options"}

if not TYPE_CHECKING:  # where mypy saw this, it would let every typo pass

    def __getattr__(name: str) -> object:
        if name not in _LAZY:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(_LAZY[name]), name)
