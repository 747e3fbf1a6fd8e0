"""A `Router` calls functions and runs scripts for the events and queries of a cluster."""

from txserf.handlers.router import Router as Router
