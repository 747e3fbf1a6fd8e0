"""Handlers: a `Router` takes events and queries to functions and scripts."""

from txserf.handlers.router import Router as Router
