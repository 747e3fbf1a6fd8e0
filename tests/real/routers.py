"""Routers at work on real agents, and what lets a test wait for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.agents import Agent
from tests.real.helpers import Watched
from txserf import Router, Serf
from txserf.handlers.running import RouterService
from txserf.handlers.work import Observer, Outcome


class Handled(Watched):
    """A handler that notes what it gets."""

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
    """Notes how handlers end."""

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
    A router at work on an agent.

    :ivar router: takes the handlers, before `start`.
    :ivar ended: knows how they ended.
    """

    service: RouterService

    def __init__(self, agent: Agent | str, **options: Any) -> None:
        self.router = Router()
        self.serf = Serf(agent if isinstance(agent, str) else agent.rpc)
        self.ended = Ended()
        self._options = options

    async def start(self, *specs: str) -> None:
        """Start it with these scripts too; no event is missed behind this."""
        for spec in specs:
            self.router.add_script(spec)
        self.service = self.router.bind(self.serf, observer=self.ended, **self._options)
        self.service.startService()
        await self.service.when_active()

    async def close(self) -> None:
        if hasattr(self, "service"):
            await self.service.stopService()
        await self.serf.close()


#: Makes a `Running` that is closed behind the test.
Run = Callable[..., Running]
