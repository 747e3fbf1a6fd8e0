"""The typed face: `Serf`, its streams, log lines and queries."""

from txserf.serf.serf import Serf as Serf
