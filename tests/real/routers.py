"""Routers on real agents, with handlers that a test can wait for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.agents import Agent
from tests.real.helpers import Watched
from txserf import Router, Serf
from txserf.handlers.running import RouterService
from txserf.handlers.work import Observer, Outcome


class Handled(Watched):
    """A handler that keeps its events."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[Any] = []

    def __call__(self, event: Any) -> None:
        self.events.append(event)
        self.changed()

    async def count(self, number: int) -> list[Any]:
        await self.until(lambda: len(self.events) >= number)
        return self.events


class Ended(Watched, Observer):
    """An observer that keeps the outcomes of handlers."""

    def __init__(self) -> None:
        super().__init__()
        self.outcomes: list[Outcome] = []

    def ended(self, type: str, handler: str, outcome: Outcome, duration: float) -> None:
        self.outcomes.append(outcome)
        self.changed()

    async def count(self, number: int) -> list[Outcome]:
        await self.until(lambda: len(self.outcomes) >= number)
        return self.outcomes


class Running:
    """
    A router that works on an agent.

    :ivar router: the router; add handlers before `start`.
    :ivar ended: the outcomes of its handlers.
    """

    service: RouterService

    def __init__(self, agent: Agent | str, **options: Any) -> None:
        self.router = Router()
        self.serf = Serf(agent if isinstance(agent, str) else agent.rpc)
        self.ended = Ended()
        self._options = options

    async def start(self, *specs: str) -> None:
        """Add these scripts, start the router and wait until it misses no event."""
        for spec in specs:
            self.router.add_script(spec)
        self.service = self.router.bind(self.serf, observer=self.ended, **self._options)
        self.service.startService()
        await self.service.when_active()

    async def close(self) -> None:
        if hasattr(self, "service"):
            await self.service.stopService()
        await self.serf.close()


#: Makes a `Running` that is closed after the test.
Run = Callable[..., Running]
