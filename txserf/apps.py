"""The `Router` that the options of ``twistd txserf`` ask for, all of it checked."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterable
from importlib import import_module
from types import ModuleType

from txserf.config import ConfigError
from txserf.errors import InvalidRequest
from txserf.handlers import Router
from txserf.scripts import what_is_wrong


def make_router(specs: Iterable[str], app: str | None, *, folder: str = ".", again: bool = False) -> Router:
    """
    Make a router of scripts and of an application's own router, whose handlers come first.

    :param specs: see `Router.add_script`.
    :param app: ``MODULE:NAME``.
    :param folder: where the scripts will be run.
    :param again: import the module anew, where it was imported before.
    :raises ConfigError: for what can't work; what was imported before is then still imported.
    """
    router = Router()
    if app is not None:
        router.include(_load(app, again))
    for spec in specs:
        try:
            router.add_script(spec)
        except InvalidRequest as error:
            raise ConfigError(f"--{error}") from None  # it begins with the word handler
    for command in router.scripts:
        wrong = what_is_wrong(command, folder)
        if wrong is not None:
            raise ConfigError(f"handler {command!r}: {wrong}")
    return router


def _load(app: str, again: bool) -> Router:
    name, _, attribute = app.partition(":")
    if not name or not attribute:
        raise ConfigError(f"--app is MODULE:NAME, as mypackage.ops:router, not {app!r}")
    found: object = _import(app, name, again)
    for part in attribute.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise ConfigError(f"--app {app}: {name} has no {attribute}") from None
    if not isinstance(found, Router):
        raise ConfigError(f"--app {app}: it is a {type(found).__name__}, not a txserf.Router")
    return found


def _import(app: str, name: str, again: bool) -> ModuleType:
    # A new module, rather than the old one filled anew: handlers that are at work go on with what they know.
    old = sys.modules.pop(name, None) if again else None
    try:
        return import_module(name)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a module may even call sys.exit()
        if old is not None:
            sys.modules[name] = old
        if isinstance(error, ModuleNotFoundError) and f"{name}.".startswith(f"{error.name}."):
            raise ConfigError(f"--app {app}: there is no module {error.name}") from None
        raise ConfigError(f"--app {app}: {name} can't be imported: {_told(error)}") from None


def _told(error: BaseException) -> str:
    """Say in a line what an import failed by, and where."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    where = "" if isinstance(error, SyntaxError) else f" ({frame.filename}, line {frame.lineno})"
    return f"{type(error).__name__}: {error}{where}".replace("\n", " ")
