"""
A network namespace with an address of its own, for agents with Serf's default bind.

Such an agent takes a private address of the machine, which a test can't rely on. In the namespace there is one, and
nothing of the machine's network is reached. Root is not needed, but the kernel has to allow it.

The agents' RPC can't be reached from outside by TCP. UNIX sockets can be, for they belong to the file system: a
relay in the namespace listens on one for each agent. This module is also that relay, as a program.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from unittest import SkipTest

from twisted.internet import stdio
from twisted.internet.endpoints import UNIXClientEndpoint
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Protocol, connectionDone
from twisted.protocols.portforward import ProxyFactory
from twisted.python.failure import Failure

from tests.in_reactor import reactor

#: The address of the namespace, beside that of its loopback interface.
ADDRESS = "10.9.8.7"

_SETUP = f"ip link set lo up && ip addr add {ADDRESS}/32 dev lo && echo ready && exec cat"


class Namespace:
    """
    A namespace, which lasts until it is closed.

    :param folder: where the relay's sockets are made.
    :ivar enter: the beginning of a command line that runs a program in it.
    :raises SkipTest: if none can be made here. It says why.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._relay: subprocess.Popen[str] | None = None
        for program in ("unshare", "nsenter", "ip"):
            if shutil.which(program) is None:
                raise SkipTest(f"no network namespace: there is no {program!r}")
        self._holder = _started(["unshare", "-rn", "sh", "-c", _SETUP], stderr=subprocess.PIPE)
        if not _is_ready(self._holder):
            _, said = self._holder.communicate()
            raise SkipTest(f"no network namespace: {said.strip()}")
        target = str(self._holder.pid)
        self.enter = ("nsenter", "--preserve-credentials", "--user", "--net", "--target", target)

    def relay(self, ports: Sequence[str]) -> None:
        """Make the TCP ports of the namespace's loopback interface reachable by `endpoint`."""
        self._relay = _started([*self.enter, sys.executable, "-m", __name__, str(self._folder), *ports])
        assert _is_ready(self._relay), "the relay of the namespace has ended"

    def endpoint(self, port: str) -> IStreamClientEndpoint:
        """Return an endpoint of a port that `relay` was called with."""
        endpoint: IStreamClientEndpoint = UNIXClientEndpoint(reactor, str(self._folder / port))
        return endpoint

    def close(self) -> None:
        """End the relay and the namespace."""
        for process in (self._relay, self._holder):
            if process is not None:
                process.communicate()  # closes its standard input, at whose end it ends


def _started(command: list[str], stderr: int | None = None) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=stderr, text=True)


def _is_ready(process: subprocess.Popen[str]) -> bool:
    assert process.stdout is not None
    return process.stdout.readline() == "ready\n"


def main(folder: str, *ports: str) -> None:
    class Input(Protocol):
        def connectionLost(self, reason: Failure = connectionDone) -> None:
            reactor.stop()

    for port in ports:
        reactor.listenUNIX(str(Path(folder) / port), ProxyFactory("127.0.0.1", int(port)))
    stdio.StandardIO(Input())
    print("ready", flush=True)
    reactor.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
