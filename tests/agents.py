"""
Real Serf agents for tests, benchmarks and first steps.

`serf_binary` finds the ``serf`` program, or downloads it. `cluster` starts agents on
free loopback ports, and ends them. This module is also a program. It runs a command beside
a cluster, with the agents' addresses in ``SERF_RPC_ADDR`` and ``serf`` on its PATH::

    python -m tests.agents -n 2 -- twistd -n txserf

Everything here blocks. Call it before and after the reactor runs. It ends only processes
that it started, and they do not outlive the thread that started them.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import ctypes
import fcntl
import functools
import itertools
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import SkipTest

# Seconds that an agent may need to start, to join or to end.
_PATIENCE = 20.0
# Systems take higher ports for outgoing connections, so these are still free when an agent restarts.
_PORTS = range(20000, 32000)


class SerfMissing(SkipTest):
    """There is no ``serf``, and it could not be downloaded. pytest and trial skip the test and say why."""


class AgentFailed(Exception):
    """An agent failed to do something in time. The text ends with its log."""


# An agent prints this once both of its ports listen.
_RUNNING = "==> Serf agent running!"

# -- finding serf


@functools.cache
def find_serf() -> Path | str:
    """Return the path of the program, downloaded if need be, or the reason why there is none. Looks once per process."""
    named = os.environ.get("SERF_BINARY")
    if named:
        return Path(named) if os.access(named, os.X_OK) else f"$SERF_BINARY is no program: {named}"
    found = shutil.which("serf")
    if found:
        return Path(found)
    try:
        return _downloaded_serf()
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:
        said = (getattr(error, "stderr", None) or "").strip()
        return f"no serf on PATH or in $SERF_BINARY, and apt-get could not get it: {said or error}"


def serf_binary() -> Path:
    """
    Return the path of ``serf``: ``$SERF_BINARY``, else from PATH, else from Debian's package.

    :raises SerfMissing: if there is none. This skips the test that asked.
        Under ``CI=true`` an `AssertionError` is raised instead, which fails it.
    """
    found = find_serf()
    if isinstance(found, Path):
        return found
    if os.environ.get("CI") == "true":
        raise AssertionError(f"the tests on real agents can't run: {found}")
    raise SerfMissing(found)


def _downloaded_serf() -> Path:
    """Download the program once per user, into a cache. Of several callers at once, one downloads and the others wait."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "txserf"
    program = cache / "serf"
    if program.exists():
        return program
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not program.exists():
            with tempfile.TemporaryDirectory(dir=cache) as work:
                os.replace(_unpacked_package(Path(work)), program)
    return program


def _unpacked_package(work: Path) -> Path:
    """Download Debian's package and unpack it under *work*; neither needs root."""

    def run(*command: str) -> None:
        nothing = subprocess.DEVNULL
        subprocess.run(
            command, cwd=work, check=True, timeout=240, stdin=nothing, capture_output=True, text=True
        )

    try:
        run("apt-get", "-q", "download", "serf")
    except subprocess.CalledProcessError:
        # The system's package lists are missing or old: fetch some of our own.
        for folder in ("state/lists/partial", "cache/archives/partial"):
            (work / folder).mkdir(parents=True)
        own = ["-q", "-o", f"Dir::State={work}/state", "-o", f"Dir::Cache={work}/cache"]
        own += ["-o", "Dir::State::status=/var/lib/dpkg/status", "-o", "Acquire::Languages=none"]
        own += ["-o", "APT::Sandbox::User=root", "-o", "Acquire::Retries=2"]
        # Ignore sources that can't be reached; if one of them was needed, the download below fails.
        with contextlib.suppress(subprocess.CalledProcessError):
            run("apt-get", *own, "update")
        run("apt-get", *own, "download", "serf")
    (package,) = work.glob("serf_*.deb")
    run("dpkg", "-x", str(package), "unpacked")
    return work / "unpacked" / "usr" / "bin" / "serf"


# -- one agent


class Agent:
    """
    A ``serf agent`` process. It keeps its ports when it is started again.

    :ivar name: its node name.
    :ivar rpc: ``127.0.0.1:port`` of its RPC.
    :ivar bind: ``127.0.0.1:port`` of its gossip.
    :ivar rpc_auth: the key of its RPC; None for no key.
    :ivar process: the running process; None before `start` and after its end.

    :param interface: the address that its gossip listens on. ``0.0.0.0`` is Serf's default.
    :param enter: the beginning of a command line that runs ``serf`` in another network namespace.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        *,
        rpc_auth: str | None = None,
        interface: str = "127.0.0.1",
        enter: Sequence[str] = (),
        **config: Any,
    ) -> None:
        self.name = name
        self.rpc_auth = rpc_auth
        self.process: subprocess.Popen[bytes] | None = None
        self.rpc = self.bind = ""
        self._config = {"profile": "local", "log_level": "debug"} | config
        self._config_file = folder / f"{name}.json"
        self._log_file = folder / f"{name}.log"
        self._interface = interface
        self._serf = [*enter, str(serf_binary())]

    def __repr__(self) -> str:
        return f"<Agent {self.name}: RPC on {self.rpc}, gossip on {self.bind}>"

    @property
    def log(self) -> str:
        """Everything that the agent has written since its first start."""
        return self._log_file.read_text(errors="replace") if self._log_file.exists() else ""

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def start(self, *, join: Sequence[Agent] = ()) -> None:
        """
        Start the process and wait until its RPC listens.

        :param join: agents to join. The agent tries again until it has joined one.
        :raises AgentFailed: if it ended, or did not listen in time.
        """
        assert not self.running, f"{self} runs already"
        first = not self.rpc
        for attempts_left in reversed(range(5 if first else 1)):
            if first:
                self.rpc, self.bind = (f"127.0.0.1:{port}" for port in _free_ports(2))
            self._launch([other.bind for other in join])
            if self.running:
                return
            # Another process may have taken one of the ports since they were chosen.
            if not attempts_left or "address already in use" not in self.log:
                raise AgentFailed(f"{self} ended at its start:\n{self.log}")

    def _launch(self, join: list[str]) -> None:
        bind = self.bind.replace("127.0.0.1", self._interface)
        config = self._config | {"node_name": self.name, "bind": bind, "rpc_addr": self.rpc}
        if self.rpc_auth is not None:
            config["rpc_auth"] = self.rpc_auth  # the agent has no flag for it
        if join:
            config |= {"retry_join": join, "retry_interval": "1s"}
        starts = self.log.count(_RUNNING)
        self._config_file.touch(mode=0o600)
        self._config_file.write_text(json.dumps(config))
        with self._log_file.open("ab") as log:
            self.process = subprocess.Popen(
                [*self._serf, "agent", f"-config-file={self._config_file}"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # so that Ctrl-C at the terminal ends the tests, not the agent
                preexec_fn=_dies_with_parent(signal.SIGKILL),
            )
        self._wait(lambda: not self.running or self.log.count(_RUNNING) > starts, "runs")

    def kill(self) -> None:
        """End the process at once, as a crash would. If it has ended, do nothing."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Let the agent leave its cluster and end. This takes a second or two."""
        self._end(signal.SIGINT)

    def restart(self, *, join: Sequence[Agent] = ()) -> None:
        """Kill the process if it still runs, and start it again on the same ports."""
        self.kill()
        self.start(join=join)

    def pause(self) -> None:
        """Suspend the process. Its ports still accept connections, but nothing is answered."""
        self._signal(signal.SIGSTOP)
        assert self.process is not None
        os.waitid(os.P_PID, self.process.pid, os.WSTOPPED)  # a signal may take a moment to arrive

    def resume(self) -> None:
        """Let the suspended process go on."""
        self._signal(signal.SIGCONT)

    def serf(self, *arguments: str, check: bool = True, timeout: float = _PATIENCE) -> str:
        """
        Run the ``serf`` program against this agent, with its key.

        :param check: raise `subprocess.CalledProcessError` if it fails.
        :returns: its output, followed by its standard error.
        """
        environ = os.environ | {"SERF_RPC_ADDR": self.rpc, "SERF_RPC_AUTH": self.rpc_auth or ""}
        argv, nothing = [*self._serf, *arguments], subprocess.DEVNULL
        done = subprocess.run(
            argv, env=environ, check=check, timeout=timeout, stdin=nothing, capture_output=True, text=True
        )
        return done.stdout + done.stderr

    def members(self) -> dict[str, str]:
        """Return the status of each member by its name, as this agent sees it."""
        listed = json.loads(self.serf("members", "-format=json"))
        return {member["name"]: member["status"] for member in listed["members"]}

    def wait_for_member(self, name: str, status: str) -> None:
        """Wait until this agent sees the node *name* in that status. ``failed`` takes some seconds."""
        self._wait(lambda: self.members().get(name) == status, f"sees {name} {status}")

    def _wait(self, condition: Callable[[], bool], hope: str) -> None:
        if not holds_in_time(condition):
            raise AgentFailed(f"not so within {_PATIENCE:g} s: {self} {hope}\n{self.log}")

    def _signal(self, number: signal.Signals) -> None:
        assert self.process is not None and self.running, f"{self} does not run"
        self.process.send_signal(number)

    def _end(self, number: signal.Signals) -> None:
        process, self.process = self.process, None
        if process is None:
            return
        process.send_signal(number)  # does nothing if the process has ended
        try:
            process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise AgentFailed(f"{self} did not end by {number.name}:\n{self.log}") from None


# -- several agents


@contextlib.contextmanager
def cluster(
    n: int = 2,
    *,
    rpc_auth: str | None = None,
    encrypt: str | None = None,
    tags: Sequence[Mapping[str, str]] = (),
    **config: Any,
) -> Iterator[list[Agent]]:
    """
    Start agents ``n1``, ``n2``..., yield them once each sees all of them alive, and kill them at the end.

    In a trial test::

        stack = contextlib.ExitStack()
        self.addCleanup(stack.close)
        agents = stack.enter_context(cluster())

    :param rpc_auth: the key of every agent's RPC.
    :param encrypt: the key of their gossip, as `new_encrypt_key` makes one.
    :param tags: the tags of the first agents, in order; the others have none.
    :param config: more arguments of each `Agent`, and more keys for the agents' configuration files.
    :raises SerfMissing: see `serf_binary`.
    """
    if encrypt is not None:
        config["encrypt_key"] = encrypt
    agents: list[Agent] = []
    # The stack comes last: it kills the agents before the folder is deleted.
    with tempfile.TemporaryDirectory(prefix="txserf-agents-") as folder, contextlib.ExitStack() as stack:
        for index in range(n):
            own: dict[str, Any] = {"tags": dict(tags[index])} if index < len(tags) else {}
            agent = Agent(f"n{index + 1}", Path(folder), rpc_auth=rpc_auth, **config, **own)
            stack.callback(agent.kill)
            agent.start(join=agents)
            agents.append(agent)
        for agent, other in itertools.product(agents, agents):
            agent.wait_for_member(other.name, "alive")
        yield agents


def new_encrypt_key() -> str:
    """Make a key for gossip, as ``serf keygen`` does."""
    return base64.b64encode(os.urandom(32)).decode()


# -- ports, waiting, processes


def _free_ports(count: int) -> list[int]:
    """Choose ports that are free now for both TCP and UDP (gossip needs both)."""
    ports: list[int] = []
    while len(ports) < count:
        port = random.choice(_PORTS)
        with socket.socket(type=socket.SOCK_STREAM) as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
            with contextlib.suppress(OSError):
                tcp.bind(("127.0.0.1", port))
                udp.bind(("127.0.0.1", port))
                ports.append(port)
    return ports


def accepts(address: str) -> bool:
    """Return whether *address*, ``host:port``, accepts connections."""
    host, _, port = address.rpartition(":")
    with contextlib.suppress(OSError), socket.create_connection((host, int(port)), timeout=1.0):
        return True
    return False


def holds_in_time(condition: Callable[[], bool]) -> bool:
    """Poll *condition* for up to 20 seconds, and return whether it became true."""
    deadline = time.monotonic() + _PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def _dies_with_parent(number: signal.Signals) -> Callable[[], object] | None:
    """Return a function for `preexec_fn` that makes the kernel end the child when its parent ends. Linux only."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    return lambda: prctl(1, int(number), 0, 0, 0)  # 1 is PR_SET_PDEATHSIG


# -- as a program


def _run_beside(agents: list[Agent], command: list[str]) -> int:
    """Run *command* in the foreground with the agents' addresses. Return its exit code, as a shell gives it."""
    environ = os.environ | {"SERF_RPC_ADDR": ",".join(agent.rpc for agent in agents)}
    if agents[0].rpc_auth is not None:
        environ["SERF_RPC_AUTH"] = agents[0].rpc_auth
    serf = serf_binary().absolute()
    # Add the folder only if need be: it may have other programs too, which would hide those on PATH.
    if shutil.which("serf") != str(serf):
        environ["PATH"] = os.pathsep.join((str(serf.parent), os.environ.get("PATH", os.defpath)))
    # The terminal sends Ctrl-C to the command too, so do nothing here. A function, not SIG_IGN,
    # because the command would inherit an ignored signal.
    signal.signal(signal.SIGINT, lambda *_: None)
    try:
        process = subprocess.Popen(command, env=environ, preexec_fn=_dies_with_parent(signal.SIGTERM))
    except OSError as error:
        print(f"can't run {command[0]}: {error}", file=sys.stderr)
        return 127
    signal.signal(signal.SIGTERM, lambda *_: process.send_signal(signal.SIGTERM))
    code = process.wait()
    return code if code >= 0 else 128 - code


def main() -> int:
    parser = argparse.ArgumentParser("python -m tests.agents", description="Run COMMAND beside a cluster.")
    parser.add_argument("-n", type=int, default=2, metavar="N", help="how many agents (default: 2)")
    parser.add_argument("--rpc-auth", metavar="KEY", help="the key of their RPC")
    parser.add_argument("command", nargs="+", metavar="COMMAND", help="what to run, after a --")
    options = parser.parse_args()
    try:
        with cluster(options.n, rpc_auth=options.rpc_auth) as agents:
            return _run_beside(agents, options.command)
    except SerfMissing as reason:
        print(reason, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
