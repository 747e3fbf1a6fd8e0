"""Fixtures for the tests on real agents: clients and servers that are closed after each test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.logger import ILogObserver, formatEvent, globalLogPublisher
from zope.interface import implementer

from tests.real.helpers import Listeners, reactor, wait_for
from tests.real.processes import Start
from tests.real.routers import Run, Running
from txserf.client.client import Client

#: Makes a `Client` that is disconnected after the test.
NewClient = Callable[..., Client]

#: Starts a server that is closed after the test, and returns its ``127.0.0.1:port``.
Listen = Callable[..., str]


@pytest.fixture(autouse=True)
def no_hosts_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SERF_RPC_ADDR", raising=False)
    monkeypatch.delenv("SERF_RPC_AUTH", raising=False)


@pytest.fixture(autouse=True)
def nothing_is_left(no_hosts_of_the_environment: None) -> Iterator[None]:
    """Check that the test left no timer and no socket in the reactor, and no failure in the log."""
    wait_for(deferLater(reactor, 0))  # the first run of the reactor adds a few readers of its own
    before = _in_reactor()
    failures: list[Any] = []

    @implementer(ILogObserver)
    def observe(event: Any) -> None:
        if "log_failure" in event:
            failures.append(event["log_failure"])

    globalLogPublisher.addObserver(observe)
    yield
    wait_for(deferLater(reactor, 0))
    globalLogPublisher.removeObserver(observe)
    assert _in_reactor() - before == set()
    assert failures == []


def _in_reactor() -> set[Any]:
    return {*reactor.getDelayedCalls(), *reactor.getReaders(), *reactor.getWriters()}


@pytest.fixture
def new_client(nothing_is_left: None) -> Iterator[NewClient]:
    clients: list[Client] = []

    def make(*hosts: Any, **options: Any) -> Client:
        clients.append(Client(*hosts, **options))
        return clients[-1]

    yield make
    for client in clients:
        wait_for(client.disconnect().disconnect(wait=True).request())


@pytest.fixture
def listen(nothing_is_left: None) -> Iterator[Listen]:
    listeners = Listeners()
    yield listeners.listen
    wait_for(Deferred.fromCoroutine(listeners.close()))


@pytest.fixture
def run(nothing_is_left: None) -> Iterator[Run]:
    made: list[Running] = []

    def make(*arguments: Any, **options: Any) -> Running:
        made.append(Running(*arguments, **options))
        return made[-1]

    yield make
    for running in made:
        wait_for(Deferred.fromCoroutine(running.close()))


@pytest.fixture
def log() -> Iterator[list[str]]:
    """The lines that txserf logs."""
    lines: list[str] = []

    @implementer(ILogObserver)
    def observe(event: Any) -> None:
        if str(event.get("log_namespace", "")).startswith("txserf"):
            lines.append(formatEvent(event))

    globalLogPublisher.addObserver(observe)
    yield lines
    globalLogPublisher.removeObserver(observe)


@pytest.fixture
def twistd(tmp_path: Path) -> Iterator[Start]:
    start = Start(tmp_path)
    yield start
    start.end()
