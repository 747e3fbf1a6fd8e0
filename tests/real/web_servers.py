"""Web servers of members: each says the name of its member, and can be killed."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

from twisted.web.resource import Resource
from twisted.web.server import Site

import txserf
from tests.agents import Agent
from tests.real.helpers import reactor


class _Name(Resource):
    isLeaf = True

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name

    def render_GET(self, request: Any) -> bytes:
        return self._name.encode()


class WebServer:
    """
    The web server of an agent's node, which the node's tags name: ``role=web`` and ``http``.

    :param agent: the agent; it must run.
    """

    def __init__(self, agent: Agent) -> None:
        self.agent = agent
        site = Site(_Name(agent.name))
        site.noisy = False
        self._listening: Any = reactor.listenTCP(0, site, interface="127.0.0.1")
        self.port: int = self._listening.getHost().port

    async def advertise(self) -> None:
        async with txserf.Serf(self.agent.rpc) as serf:
            await serf.set_tags({"role": "web", "http": str(self.port)})

    async def kill(self) -> None:
        await self._listening.stopListening()


_PROGRAM = """
import http.server, sys

class Name(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        name = sys.argv[1].encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(name)))
        self.end_headers()
        self.wfile.write(name)

    def log_message(self, *args):
        pass

server = http.server.HTTPServer(("127.0.0.1", 0), Name)
print(server.server_port, flush=True)
server.serve_forever()
"""


class WebProcess(WebServer):
    """The same as a process of its own, which SIGKILL ends."""

    def __init__(self, agent: Agent) -> None:
        self.agent = agent
        self._process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, agent.name], stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())

    async def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()
