"""The environment and input of scripts, their output and their end. No agent is needed."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import attrs
import pytest
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase

from tests.agents import holds_in_time
from tests.fakes import new_folder
from tests.in_reactor import in_reactor, reactor
from tests.real.helpers import fails
from txserf import InvalidRequest, Member, MemberEvent, QueryEvent, Router, UserEvent, processes
from txserf.filters import parse_filter
from txserf.handlers.routes import ScriptHandler
from txserf.handlers.scripts import (
    Myself,
    parse_spec,
    run,
    standard_input,
    variables,
    what_is_wrong,
)
from txserf.processes import ScriptFailed, inherited

NOBODY = Myself("n1", {})


class SpecTests(SynchronousTestCase):
    def test_a_spec_is_a_script_or_a_filter_and_a_script(self) -> None:
        for spec, expected in {
            "./all.sh": ("*", "./all.sh"),
            "*=env A=1 x.sh": ("*", "env A=1 x.sh"),
            "=x": ("*", "x"),
            "user:=x": ("user", "x"),
            "user:a:b=x": ("user:a:b", "x"),
            "query:load,member-join,user: a=x y": ("query:load,member-join,user: a", "x y"),
        }.items():
            filter, script = expected
            self.assertEqual(parse_spec(spec), (parse_filter(filter), script), spec)

    def test_what_is_no_spec_is_refused_by_its_text(self) -> None:
        for spec in (
            "",
            "user=",
            "user= ",
            "foo=x",
            "user, query=x",
            "user,=x",
            "member-join:a=x",
            "user=a\0b",
        ):
            error = self.assertRaises(InvalidRequest, Router().add_script, spec)
            self.assertIn(repr(spec), str(error))

    def test_a_script_that_is_not_there_shows_before_it_runs(self) -> None:
        folder = new_folder(self)
        (folder / "plain").touch()
        (folder / "good").touch(0o755)
        self.assertIsNone(what_is_wrong("./good --now", str(folder)))
        self.assertIsNone(
            what_is_wrong("cat > /no/such"), "of a shell's command only the first word is known"
        )
        self.assertIsNone(what_is_wrong("$HOME/x.sh"))
        self.assertEqual(what_is_wrong("./bad a b", str(folder)), "./bad does not exist")
        for word in ("./plain", str(folder)):
            self.assertEqual(what_is_wrong(word, str(folder)), f"{word} is not executable")


class GivenTests(SynchronousTestCase):
    def test_the_environment_names_the_event_and_the_agent(self) -> None:
        myself = Myself("n1", {"role": "web", "my-tag.x": "1", "é": "2", "aß": "3", "A_9": "\udcff"})
        common = {
            b"SERF_SELF_NAME": b"n1",
            b"SERF_SELF_ROLE": b"web",
            b"SERF_TAG_ROLE": b"web",
            b"SERF_TAG_MY_TAG_X": b"1",
            b"SERF_TAG__": b"2",
            b"SERF_TAG_A_": b"3",
            b"SERF_TAG_A_9": b"\xff",
        }
        for event, own in (
            (UserEvent("a=b", b"x", 7), {b"SERF_USER_EVENT": b"a=b", b"SERF_USER_LTIME": b"7"}),
            (QueryEvent(3, "q", b"x", 8), {b"SERF_QUERY_NAME": b"q", b"SERF_QUERY_LTIME": b"8"}),
        ):
            kind = b"user" if isinstance(event, UserEvent) else b"query"
            self.assertEqual(variables(event, myself), {b"SERF_EVENT": kind, **common, **own})
        self.assertEqual(
            variables(MemberEvent("join", ()), myself), {b"SERF_EVENT": b"member-join", **common}
        )

    def test_the_key_of_the_agents_is_not_in_the_environment_of_a_script(self) -> None:
        given = {b"PATH": b"/bin", b"SERF_RPC_AUTH": b"s3cret", b"SERF_RPC_ADDR": b"a:1"}
        self.patch(os, "environb", given)
        self.assertEqual(inherited(False), {b"PATH": b"/bin", b"SERF_RPC_ADDR": b"a:1"})
        self.assertEqual(inherited(True), given)
        given[b"SERF_RPC_ADDR"] = b"a:1,serf://b?AuthKey=s3cret"
        self.assertEqual(inherited(False), {b"PATH": b"/bin"})
        self.assertEqual(inherited(True), given)
        self.assertIn(b"SERF_RPC_AUTH", given)

    def test_the_role_is_there_though_it_be_empty(self) -> None:
        self.assertEqual(variables(UserEvent("a"), NOBODY)[b"SERF_SELF_ROLE"], b"")

    def test_a_nul_in_a_value_is_an_error_that_names_the_variable(self) -> None:
        error = self.assertRaises(ScriptFailed, variables, UserEvent("a\0b"), NOBODY)
        self.assertEqual(str(error), "not started: there is a NUL in SERF_USER_EVENT")
        self.assertRaises(ScriptFailed, variables, UserEvent("a"), Myself("n1", {"t": "\0"}))

    def test_the_input_is_the_payload_and_ends_in_a_newline(self) -> None:
        for payload, given in ((b"", b""), (b"a", b"a\n"), (b"a\n", b"a\n"), (b"\xff\0", b"\xff\0\n")):
            self.assertEqual(standard_input(UserEvent("a", payload)), given)
            self.assertEqual(standard_input(QueryEvent(1, "a", payload)), given)

    def test_the_input_of_a_member_event_has_a_line_for_each(self) -> None:
        members = (
            Member(name="a\tb\n", address=ip_address("10.0.0.1"), tags={"role": "w\t", "x": "1,2=\\"}),
            Member(name="v6", address=ip_address("::ffff:10.0.0.2")),
            Member(name="none"),
        )
        self.assertEqual(
            standard_input(MemberEvent("join", members)),
            b"a\\tb\\n\t10.0.0.1\tw\\t\trole=w\\t,x=1,2=\\\nv6\t10.0.0.2\t\t\nnone\t<nil>\t\t\n",
        )


# -- processes


def start(command: str) -> Deferred[bytes]:
    return run(reactor, command, UserEvent("a", b"payload"), NOBODY)


@pytest.fixture(params=["setsid", "without setsid"])
def own_group(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Run the test with ``setsid``, and as on a system without it."""
    if request.param != "setsid":
        monkeypatch.setattr(shutil, "which", lambda name: None)
    processes._own_group.cache_clear()
    yield
    processes._own_group.cache_clear()


@in_reactor
async def test_the_output_is_both_of_its_outputs_in_order_and_the_last_of_it(own_group: None) -> None:
    assert await start("echo 1; echo 2 >&2; cat; printf 3") == b"1\n2\npayload\n3"
    assert await start("head -c 20000 /dev/zero; printf end") == bytes(8189) + b"end"
    assert await start("exec <&- >&- 2>&-") == b""


@in_reactor
async def test_it_is_over_once_its_output_is_closed_though_it_has_exited(own_group: None) -> None:
    assert await start("(sleep 0.1; echo later) & echo first") == b"first\nlater\n"
    pid = await start("sleep 1000 > /dev/null 2>&1 & echo $!")
    os.kill(int(pid), signal.SIGKILL)


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ("echo s3cret; exit 3", "exit code 3"),
        ("kill -TERM $$", "killed by SIGTERM"),
        ("kill -40 $$", "killed by signal 40"),
        ("/no/such", "exit code 127: it was not found"),
        ("/etc/passwd", "exit code 126: it can't be executed"),
        ("(", "exit code 2"),
    ],
)
@in_reactor
async def test_an_end_that_is_no_success_says_how(command: str, reason: str) -> None:
    assert str(await fails(start(command), ScriptFailed)) == reason


@in_reactor
async def test_cancelling_kills_all_that_it_started(tmp_path: Path, own_group: None) -> None:
    pids = tmp_path / "pids"
    running = start(f"sleep 1000 & sh -c 'sleep 1000 & echo $! $$ > {pids}.new; mv {pids}.new {pids}; wait'")
    await until(pids.exists)
    running.cancel()
    await fails(running, CancelledError)
    assert holds_in_time(lambda: not any(alive(int(pid)) for pid in pids.read_text().split()))


@in_reactor
async def test_cancelling_kills_what_an_ended_script_has_left(tmp_path: Path, own_group: None) -> None:
    pid = tmp_path / "pid"
    running = start(f"sleep 1000 & echo $! > {pid}.new; mv {pid}.new {pid}")
    await until(pid.exists)
    running.cancel()
    await fails(running, CancelledError)
    assert holds_in_time(lambda: not alive(int(pid.read_text())))


@in_reactor
async def test_cancelled_in_its_first_instant_it_is_killed_too(
    monkeypatch: pytest.MonkeyPatch, own_group: None
) -> None:
    spawn, processes = reactor.spawnProcess, list[Any]()
    monkeypatch.setattr(reactor, "spawnProcess", lambda *args, **kw: processes.append(spawn(*args, **kw)))
    running = start("sleep 1000")
    pid = processes[0].pid
    running.cancel()
    await fails(running, CancelledError)
    await until(lambda: not alive(pid))
    assert not alive(pid)


def sleeper(path: Path) -> Path:
    """Make a program that writes its process ID to a file, and sleeps."""
    program = path.with_suffix(".sh")
    program.write_text(f"#!/bin/sh\necho $$ > {path}.new; mv {path}.new {path}; exec sleep 1000")
    program.chmod(0o755)
    return program


@pytest.mark.parametrize(
    "command",
    [
        pytest.param("setsid {left}", id="a child"),
        pytest.param(
            "setsid sh -c 'setsid {left} >&- 2>&-; true'; true", id="a grandchild without the output"
        ),
        pytest.param("setsid {left} & exit 0", id="one that holds the output of a script that has exited"),
        pytest.param("setsid sh -c '{left} & exit 0'; sleep 1000", id="an orphan that holds the output"),
        pytest.param(
            "setsid sh -c 'sleep 1000 & {left} >&- 2>&- & exit 0'; sleep 1000",
            id="an orphan beside such a one",
        ),
    ],
)
@in_reactor
async def test_what_has_left_its_group_is_killed_too_and_nothing_more_is_read(
    tmp_path: Path, command: str
) -> None:
    before = set(reactor.getReaders())
    path = tmp_path / "pid"
    running = start(command.format(left=sleeper(path)))
    await until(path.exists)
    running.cancel()
    await fails(running, CancelledError)
    pid = int(path.read_text())
    try:
        assert set(reactor.getReaders()) <= before
        assert await until(lambda: not alive(pid))
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def pipes() -> dict[int, str]:
    """Return the pipes that this program has open, by file descriptor."""
    found = {}
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the folder itself
            found[int(fd)] = os.readlink(f"/proc/self/fd/{fd}")
    return {fd: link for fd, link in found.items() if link.startswith("pipe:")}


@in_reactor
async def test_processes_that_it_has_not_started_are_left_alone(tmp_path: Path) -> None:
    # It has the reading end of the output open, as a process that was forked has, and a session of its own.
    before = pipes().values()
    running = start(f"touch {tmp_path}/there; sleep 1000")
    opened = [fd for fd, pipe in pipes().items() if pipe not in before]
    assert opened
    other = subprocess.Popen(["sleep", "1000"], pass_fds=opened, start_new_session=True)
    beside = start("sleep 1000")
    try:
        await until((tmp_path / "there").exists)
        running.cancel()
        await fails(running, CancelledError)
        assert other.poll() is None and alive(other.pid)
        assert not beside.called
    finally:
        beside.cancel()
        await fails(beside, CancelledError)
        other.kill()
        other.wait()


STOPS = """
import pathlib, sys
from twisted.internet import reactor
from twisted.internet.task import LoopingCall
from txserf.handlers.scripts import Myself, run
from txserf.model import UserEvent

def stop():
    if all(pathlib.Path(path).exists() for path in sys.argv[1].split()):
        waiting.stop()
        reactor.stop()

for command in sys.argv[2:]:
    run(reactor, command, UserEvent("a"), Myself("n1", {})).addErrback(lambda _: None)
waiting = LoopingCall(stop)
reactor.callWhenRunning(waiting.start, 0.01)
reactor.run()
"""


def test_the_end_of_the_reactor_kills_those_at_work(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in "abc"]
    commands = [
        f"{sleeper(paths[0])}; true",
        f"exec >&- 2>&-; {sleeper(paths[1])}; true",
        f"setsid {sleeper(paths[2])} & exit 0",
    ]
    arguments = [" ".join(map(str, paths)), *commands]
    subprocess.run([sys.executable, "-c", STOPS, *arguments], check=True, timeout=30)
    pids = [int(path.read_text()) for path in paths]
    try:
        assert holds_in_time(lambda: not any(map(alive, pids)))
    finally:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@attrs.frozen
class Context:
    """The context that a handler gets with its event."""

    clock: Any = reactor

    def myself(self) -> Deferred[Myself]:
        return succeed(NOBODY)


@in_reactor
async def test_the_output_is_the_answer_of_a_query_and_none_is_no_answer() -> None:
    for event, output, answer in (
        (QueryEvent(1, "q"), "0.31", b"0.31"),
        (QueryEvent(1, "q"), "", None),
        (UserEvent("a"), "0.31", None),
    ):
        assert await ScriptHandler(f"printf '{output}'").start(event, Context()) == answer


@in_reactor
async def test_a_script_has_the_key_of_the_agents_where_it_was_added_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(os.environ, "SERF_RPC_AUTH", "s3cret")
    router = Router()
    router.add_script("query=echo ${SERF_RPC_AUTH-none}")
    router.add_script("query=echo ${SERF_RPC_AUTH-none} ", rpc_auth=True)
    event = QueryEvent(1, "q")
    outputs = [await handler.start(event, Context()) for handler in router.routes().handlers(event)]  # type: ignore[misc]  # a script's is awaited
    assert outputs == [b"none\n", b"s3cret\n"]


@in_reactor
async def test_where_the_system_starts_no_process_nothing_is_left_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*arguments: Any, **options: Any) -> None:
        raise OSError(errno.EAGAIN, "no more processes")

    before = len(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(reactor, "spawnProcess", refuse)
    with pytest.raises(ScriptFailed, match="no more processes"):
        start("true")
    assert len(os.listdir("/proc/self/fd")) == before


def alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (ProcessLookupError, FileNotFoundError):
        return False


def until(condition: Callable[[], bool]) -> Deferred[bool]:
    return deferToThread(holds_in_time, condition)
