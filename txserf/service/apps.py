"""Makes the `Router` that the options of ``twistd txserf`` ask for, and checks all of it."""

from __future__ import annotations

import contextlib
import sys
import traceback
from collections.abc import Iterable, Iterator
from importlib import import_module, invalidate_caches
from types import ModuleType

from txserf.errors import InvalidRequest
from txserf.handlers.router import Router
from txserf.handlers.scripts import parse_spec, what_is_wrong
from txserf.service.settings import ConfigError


def make_router(
    specs: Iterable[str],
    app: str | None,
    *,
    folder: str = ".",
    again: bool = False,
    rpc_auth: bool = False,
) -> Router:
    """
    Make a router of an application's handlers and, behind them, of scripts.

    :param specs: scripts, as `Router.add_script` takes them.
    :param app: the application's router, as ``MODULE:NAME``; None for none.
    :param folder: the folder in which the scripts will be run.
    :param again: whether to import the module anew if it was imported before.
    :param rpc_auth: whether those scripts get the key of the agents, as for `Router.add_script`.
    :raises ConfigError: for a handler that can't work. A module that was imported before is still imported then.
    """
    if app is None:
        return _checked(Router(), specs, folder, rpc_auth)
    with _restored_on_failure(app.partition(":")[0]):
        router = Router()
        router.include(_load(app, again))
        return _checked(router, specs, folder, rpc_auth)


def _checked(router: Router, specs: Iterable[str], folder: str, rpc_auth: bool) -> Router:
    for spec in specs:
        try:
            parse_spec(spec)
        except InvalidRequest as error:
            raise ConfigError(f"--handler {spec!r}: {error}") from None
        router.add_script(spec, rpc_auth=rpc_auth)
    for command in router.scripts:
        wrong = what_is_wrong(command, folder)
        if wrong is not None:
            raise ConfigError(f"handler {command!r}: {wrong}")
    return router


@contextlib.contextmanager
def _restored_on_failure(name: str) -> Iterator[None]:
    """Put the old module back if the new one can't be used: also in its package, which has it as an attribute."""
    old = sys.modules.get(name)
    try:
        yield
    except BaseException:
        if old is not None:
            sys.modules[name] = old
            package, _, attribute = name.rpartition(".")
            if package in sys.modules:
                setattr(sys.modules[package], attribute, old)
        raise


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
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # of a module's __getattr__, or a property
            raise ConfigError(f"--app {app}: {part} can't be read: {_told(error)}") from None
    if not isinstance(found, Router):
        raise ConfigError(f"--app {app}: it is a {type(found).__name__}, not a txserf.Router")
    return found


def _import(app: str, name: str, again: bool) -> ModuleType:
    # The old module is not reloaded in place, for its functions at work go on with its globals.
    if again:
        sys.modules.pop(name, None)
        invalidate_caches()  # a folder that changed within one tick of the clock seems unchanged
    try:
        return import_module(name)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a module may even call sys.exit()
        if isinstance(error, ModuleNotFoundError) and f"{name}.".startswith(f"{error.name}."):
            raise ConfigError(f"--app {app}: there is no module {error.name}") from None
        raise ConfigError(f"--app {app}: {name} can't be imported: {_told(error)}") from None


def _told(error: BaseException) -> str:
    """Return in one line why an import failed, and where."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    where = "" if isinstance(error, SyntaxError) else f" ({frame.filename}, line {frame.lineno})"
    return f"{type(error).__name__}: {error}{where}".replace("\n", " ")
