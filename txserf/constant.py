"""
Limits and defaults that a program may tune.

Each is read at the time of use (``constant.DEFAULT_TIMEOUT``), so that setting
it here takes effect at once; a name imported from here would be frozen.

The defaults that the signatures of ``Client``, ``Serf`` and ``Router.bind`` show are
those of the time of import; give the argument there.
"""

from __future__ import annotations

#: Seconds that ``Client.request()`` waits for its answers where no ``timeout`` is given.
DEFAULT_TIMEOUT: float = 2.0

#: Seconds that a call of ``Serf`` waits for its answer where no ``timeout`` is given.
SERF_TIMEOUT: float = 10.0

#: Seconds for a connection to be made, then again for its handshake, then for the answer to a heartbeat.
CONNECT_TIMEOUT: float = 5.0

#: Seconds between two checks of a connection.
HEARTBEAT: float = 30.0

#: Calls that one ``Serf`` or ``Client`` may have under way. Those that have timed out count until the agent has answered
#: them or is lost, unless they never left. A further one raises `Overloaded`. None: no limit. A call takes some 1.5 kB.
CALLS_LIMIT: int | None = 100_000

#: Bytes that the payload of an ``event`` may have; None: no check. The agent has a
#: limit of its own on name and payload together, 512 bytes unless it is configured.
PAYLOAD_SIZE_LIMIT: int | None = 1024

#: Bytes that one message of an agent may have. The largest real one is the reply
#: to ``members``: some 250 bytes a member, so this is room for 250,000 of them.
MESSAGE_SIZE_LIMIT: int = 64 * 1024 * 1024

#: Containers that may be nested in one message. Serf has four at most (the tags of a
#: member in the list of a reply); with this many, Python can still print a body.
NESTING_LIMIT: int = 512

#: Records of a stream that may wait for a slow callback or a slow reader; past it the oldest goes.
STREAM_BUFFER: int = 8192

#: Seconds that each handler of a ``Router`` may take.
HANDLER_TIMEOUT: float = 60.0

#: Seconds that the end of a ``Router``'s service waits for handlers that are at work.
DRAIN_TIMEOUT: float = 10.0

#: The host list where neither an argument nor ``$SERF_RPC_ADDR`` has one.
DEFAULT_HOST: str = "127.0.0.1"

#: The port of an agent's RPC where a host has none.
DEFAULT_PORT: int = 7373
