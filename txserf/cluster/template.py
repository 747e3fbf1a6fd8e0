"""`Template`: a file that is rendered from the members of a view, and a command that is run when it changes."""

from __future__ import annotations

import enum
import os
import re
import shlex
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.interfaces import IReactorProcess
from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure

from txserf import constant, wire
from txserf.arguments import limit, reactor_or_global, seconds, what_it_is
from txserf.cluster.view import ClusterView
from txserf.errors import Disconnected, InvalidRequest, ProtocolError, SerfError, encodable, reason_text
from txserf.model import Member
from txserf.newfile import NewFile
from txserf.processes import ScriptFailed, inherited, run

if TYPE_CHECKING:
    from jinja2 import Template as Compiled

_log = Logger(namespace="txserf.cluster")

# Seconds until a file is tried again that could not be written, and members that could not be read.
_RETRY = 60.0

# Seconds until a view is looked at again that is stale.
_STALE = 1.0

_AWAY = "the agent is away"

# How much of a command's output is logged where it fails: its last characters.
_SHOWN = 1000


class Step(enum.Enum):
    """The state of a `Template`; each value says what it does in it."""

    STOPPED = "nothing"
    QUIET = "waits for a change"
    SETTLING = "waits until the changes settle"
    WORKING = "renders, writes and reloads"
    ENDING = "ends the work that was begun, and then nothing"


_MOVES = {
    Step.STOPPED: {Step.SETTLING},
    Step.QUIET: {Step.SETTLING, Step.STOPPED},
    Step.SETTLING: {Step.WORKING, Step.STOPPED},
    Step.WORKING: {Step.QUIET, Step.SETTLING, Step.ENDING},
    Step.ENDING: {Step.STOPPED, Step.WORKING},
}


class Template(Service):
    """
    A file that follows the members of a view.

    ::

        view = txserf.ClusterView(serf)
        template = txserf.Template(view, "haproxy.cfg.j2", "/etc/haproxy/haproxy.cfg",
                                   check="haproxy -c -f %s", reload="systemctl reload haproxy")
        template.setServiceParent(application)

    It is a service, whose start starts the view if that does not run. It needs the extra ``txserf[templates]``. It renders
    the file when the view is ready, and after changes of members. A file that is the same byte for byte is not written.
    Else a new one is written in the same folder, checked, and renamed. While the view is stale, or the agent can't be
    asked, nothing is written. All that fails is logged, and the old file stays.

    :param view: the members.
    :param source: the file of the Jinja2 template, in UTF-8. It can include others of its folder. It has ``members``,
        ``select`` and ``agent``: the view's members by name, the view's `ClusterView.select`, and the `Member` of the
        agent's own node. It runs in Jinja2's sandbox, and a variable that does not exist is an error. Nothing bounds the
        time that it takes but the sandbox's limit on ``range()``: it runs in the reactor's thread.
    :param destination: the file to write. If it is a link, the file that it leads to is written.
    :param check: a command line for a shell, run before the new file takes the place of the old one; ``%s`` in it is the
        new file's name. If it fails, or takes longer than ``constant.HANDLER_TIMEOUT``, the old file stays until the
        next change.
    :param reload: a command line for a shell, run after the file was written, for at most as long. One that failed is run
        again at the next change.
    :param settle: seconds without a change, after which changes are rendered.
    :param at_most: seconds after the first change, after which they are rendered even if there are more.
    :param mode: the permissions of the file, as 0o640; None keeps those of the old file, or takes 0o644 without one. The
        owner and the group are those of the old file.
    :raises InvalidRequest: for a bad argument, a template that can't be read, and one that Jinja2 refuses, with its
        line; where there is no Jinja2.
    :ivar view: the view.
    """

    def __init__(
        self,
        view: ClusterView,
        source: str | os.PathLike[str],
        destination: str | os.PathLike[str],
        *,
        check: str | None = None,
        reload: str | None = None,
        settle: float = 1.0,
        at_most: float = 10.0,
        mode: int | None = None,
    ) -> None:
        if not isinstance(view, ClusterView):
            raise InvalidRequest(f"Template: view must be a ClusterView, not {type(view).__name__}")
        self.view = view
        self._source = _path(source, "source")
        self._destination = _path(destination, "destination")
        self._check = _command(check, "check")
        self._reload = _command(reload, "reload")
        self._settle = seconds(settle, "Template: settle")
        self._at_most = limit(at_most, "Template: at_most")
        if self._settle > self._at_most:
            raise InvalidRequest(f"Template: settle must be at most at_most, not {settle!r} of {at_most!r}")
        if mode is not None and (
            isinstance(mode, bool) or not isinstance(mode, int) or not 0 <= mode <= 0o7777
        ):
            raise InvalidRequest(f"Template: mode must be an int from 0 to 0o7777, not {mode!r}")
        self._mode = mode
        self._compiled = _compile(self._source)
        self._step = Step.STOPPED
        self._end_changes: Callable[[], None] | None = None
        self._since: float | None = None  # the first change that is not rendered
        self._due: Any = None  # the call that renders; in SETTLING
        self._ready: Deferred[Any] | None = None  # while it waits for the view's first snapshot
        self._work: Deferred[None] = succeed(None)  # the last work; it runs in WORKING and ENDING
        self._checking: Deferred[None] | None = None  # the check that runs
        self._reload_owed = False  # the file was written, and no reload has succeeded since
        self._problem = ""  # why the last work did not leave the file as it should be

    def __repr__(self) -> str:
        return f"<Template {self._source} to {self._destination}: {self._step.name.lower()}>"

    # A service

    def startService(self) -> None:
        """Begin to follow the view; start that if it does not run."""
        if self.running:
            return
        if not self.view.running:
            self.view.startService()
        super().startService()  # type: ignore[no-untyped-call]  # Twisted's own
        self._end_changes = self.view.on_change(lambda old, new: self._changed())
        self._since = self.view.serf.clock.seconds()
        if self._step is Step.ENDING:
            self._move(Step.WORKING)  # and then it settles
            return
        self._move(Step.SETTLING)
        self._ready = self.view.when_ready()
        self._ready.addCallbacks(lambda _: self._arm(0), self._not_ready)

    def stopService(self) -> Deferred[None]:
        """
        End it. A check that runs is killed, a reload is waited for.

        :returns: a Deferred of None, once no command of it runs.
        """
        super().stopService()  # type: ignore[no-untyped-call]  # Twisted's own
        if self._end_changes is not None:
            self._end_changes()
            self._end_changes = None
        self._since = None
        if self._step is Step.WORKING:
            self._move(Step.ENDING)
            if self._checking is not None:
                self._checking.cancel()
        elif self._step in (Step.QUIET, Step.SETTLING):
            self._move(Step.STOPPED)
        self._disarm()
        ended: Deferred[None] = Deferred()
        self._work.addBoth(lambda _: ended.callback(None))
        return ended

    def write_once(self) -> Deferred[None]:
        """
        Render the file once, without following the view after that. The view has to be ready.

        :returns: a Deferred of None, once the file is as the members are, and *reload* has succeeded if it was written. It
            fails with a `SerfError` that says why it is not. It can be cancelled, which kills a check that runs.
        :raises InvalidRequest: at the call, where it runs as a service.
        """
        if self._step is not Step.STOPPED:
            raise InvalidRequest("Template: write_once is for one that was not started")

        async def write() -> None:
            await self._update()
            if self._problem:
                raise SerfError(self._problem)

        return Deferred.fromCoroutine(write())

    # When it renders

    def _move(self, step: Step) -> None:
        assert step in _MOVES[self._step], f"{self._step} to {step}"
        self._step = step

    def _not_ready(self, failure: Failure) -> None:
        if self._step is Step.SETTLING:  # else it was stopped
            self._arm(_RETRY)  # the view has logged why

    def _changed(self) -> None:
        if self._since is None:
            self._since = self.view.serf.clock.seconds()
        if self._step is Step.QUIET:
            self._move(Step.SETTLING)
        if self._step is Step.SETTLING and self._ready is None:
            self._arm_settled()

    def _arm_settled(self) -> None:
        """Render once there is no change for a while, or at the latest that is allowed."""
        assert self._since is not None
        self._arm(min(self._settle, self._since + self._at_most - self.view.serf.clock.seconds()))

    def _arm(self, delay: float) -> None:
        """Render after so many seconds, and not as it was said before."""
        self._disarm()
        self._due = self.view.serf.clock.callLater(max(0.0, delay), self._begin)

    def _disarm(self) -> None:
        due, self._due = self._due, None
        if due is not None:
            due.cancel()
        ready, self._ready = self._ready, None
        if ready is not None:
            ready.cancel()

    def _begin(self) -> None:
        self._due = None
        if self.view.stale:
            self._arm(_STALE)
            return
        self._move(Step.WORKING)
        self._since = None
        self._work = Deferred.fromCoroutine(self._update()).addCallbacks(self._worked, self._broke)

    def _broke(self, failure: Failure) -> None:
        _log.failure("{template!r}", failure, template=self)
        self._worked(None)

    def _worked(self, retry: float | None) -> None:
        """Take that the work has ended, and that it should be done again after *retry* seconds, or at the next change."""
        if self._step is Step.ENDING:
            self._move(Step.STOPPED)
        elif self._since is not None:
            self._move(Step.SETTLING)
            self._arm_settled()
        elif retry is not None:
            self._since = self.view.serf.clock.seconds()
            self._move(Step.SETTLING)
            self._arm(retry)
        else:
            self._move(Step.QUIET)

    # The rendering

    async def _update(self) -> float | None:
        """Render, check, write and reload; return the seconds after which to try again, None for the next change."""
        self._problem = ""
        try:
            agent = await self._agent()
        except SerfError as error:
            self._tell(LogLevel.warn, "{file} is not rendered: {reason}", reason=reason_text(error))
            return _STALE if isinstance(error, Disconnected) else _RETRY
        if self._step is Step.ENDING:
            return None
        if self.view.stale:
            self._problem = _AWAY
            return _STALE
        content = self._render(agent)
        if content is None:
            return None
        try:
            new = NewFile(self._destination, content, self._mode)
        except OSError as error:
            self._unwritten(error)
            return _RETRY
        try:
            if new.differs:
                if not await self._checks(new.path):
                    return None
                if self.view.stale:
                    self._problem = _AWAY
                    return _STALE
                new.replace()
                self._reload_owed = self._reload is not None
                _log.info("{file} was written", file=str(self._destination))
        except OSError as error:
            self._unwritten(error)
            return _RETRY
        finally:
            new.drop()
        if self._reload_owed:
            await self._reloads()
        return None

    def _unwritten(self, error: OSError) -> None:
        self._tell(LogLevel.error, "{file} can't be written: {reason}", reason=reason_text(error))

    def _tell(self, level: LogLevel, text: str, **fields: str) -> None:
        """Log why the file is not as it should be, or keep it for the caller of `write_once`."""
        event = {"file": str(self._destination), **fields}
        self._problem = text.format(**event)
        if self._step is not Step.STOPPED:
            _log.emit(level, text, **event)

    async def _agent(self) -> Member:
        """Return the member that is the agent's own node."""
        serf = self.view.serf
        name = (await serf.stats()).get("agent", {}).get("name", "")
        found = None if self.view.stale else self.view.members.get(name)
        if found is not None:
            return found
        for member in await serf.members(name=f"^{re.escape(name)}$"):  # the view is of others only
            if member.name == name:
                return member
        raise ProtocolError("the agent does not know its own node")

    def _render(self, agent: Member) -> bytes | None:
        """Return the content of the file, None if it can't be rendered."""
        variables = {"members": self.view.members, "select": self.view.select, "agent": agent}
        try:
            return wire.as_bytes(self._compiled.render(variables))
        except Exception as error:  # whatever a template leads to
            self._tell(
                LogLevel.error,
                "{source} can't be rendered{where}: {reason}",
                source=str(self._source),
                where=_where(error, self._compiled),
                reason=reason_text(error),
            )
            return None

    async def _checks(self, path: str) -> bool:
        """Return whether the new file passes its check."""
        if self._check is None:
            return True
        try:
            await self._run(self._check.replace("%s", shlex.quote(path)), checks=True)
        except SerfError as error:
            self._failed("check", error)
            return False
        except CancelledError:
            if self._step is Step.STOPPED:  # the caller of `write_once` has cancelled it
                raise
            return False
        return True

    async def _reloads(self) -> None:
        assert self._reload is not None
        try:
            await self._run(self._reload)
        except SerfError as error:
            self._failed("reload", error)
        else:
            self._reload_owed = False

    def _failed(self, what: str, error: SerfError) -> None:
        output = error.output[-_SHOWN:] if isinstance(error, ScriptFailed) else b""
        self._tell(
            LogLevel.error,
            "{file}: its {what} failed, {reason}{output}",
            what=what,
            reason=reason_text(error),
            output=encodable(": " + output.decode("utf-8", "replace").strip()) if output else "",
        )

    async def _run(self, command: str, *, checks: bool = False) -> None:
        """Run a command, for at most `constant.HANDLER_TIMEOUT` seconds; raise `ScriptFailed` where it fails."""
        clock = self.view.serf.clock
        reactor = clock if IReactorProcess.providedBy(clock) else reactor_or_global()
        running: Deferred[Any] = run(reactor, command, b"", inherited(rpc_auth=False))
        patience = constant.HANDLER_TIMEOUT

        def too_long(_: object, __: object) -> None:
            raise ScriptFailed(f"not over after {patience:g} s, and killed")

        running.addTimeout(patience, clock, too_long)
        if checks:
            self._checking = running
        try:
            await running
        finally:
            if checks:
                self._checking = None


def _path(value: object, what: str) -> Path:
    if isinstance(value, (str, os.PathLike)) and isinstance(os.fspath(value), str):
        text = os.fspath(value)
        if text and "\0" not in text:
            return Path(os.path.abspath(text))
    raise InvalidRequest(f"Template: {what} must be the name of a file, not {value!r}")


def _command(value: object, what: str) -> str | None:
    if value is None or (isinstance(value, str) and value.strip() and "\0" not in value):
        return value
    raise InvalidRequest(f"Template: {what} must be a command line or None, not {value!r}")


def _compile(source: Path) -> Compiled:
    try:
        import jinja2
        from jinja2.sandbox import ImmutableSandboxedEnvironment
    except ImportError:
        raise InvalidRequest("Template needs jinja2, which the extra txserf[templates] brings") from None

    try:
        kind = what_it_is(source)
    except OSError as error:
        raise InvalidRequest(f"Template: {source} can't be read: {error.strerror}") from None
    if kind is not None:
        raise InvalidRequest(f"Template: {source} can't be read: it is {kind}")
    environment = ImmutableSandboxedEnvironment(
        loader=jinja2.FileSystemLoader(source.parent),
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # it is no HTML
        auto_reload=False,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    try:
        return environment.get_template(source.name)
    except jinja2.TemplateSyntaxError as error:
        raise InvalidRequest(f"Template: {source}, line {error.lineno}: {error.message}") from None
    except (jinja2.TemplateError, OSError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"Template: {source} can't be read: {reason_text(error)}") from None
    except RecursionError:
        raise InvalidRequest(f"Template: {source} is nested too deep") from None


def _where(error: BaseException, compiled: Compiled) -> str:
    """Say in which line of a template an error was raised, as far as that is known."""
    lines = [
        frame.lineno
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename == compiled.filename
    ]
    return f", line {lines[-1]}" if lines else ""
