"""The mistakes that the documentation lists: each one is made, and gives the message that stands there."""

from __future__ import annotations

import ast
import asyncio
import gc
import io
import os
import re
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests import mistakes
from tests.fakes import Log, new_folder
from tests.mistakes import MESSAGES
from tests.options_case import OptionsCase
from txserf.client.client import Client
from txserf.embedded import EmbeddedCluster
from txserf.errors import AuthenticationError, InvalidRequest, KeyringError, RpcError
from txserf.handlers.router import Router
from txserf.model import UserEvent
from txserf.serf.serf import Serf
from txserf.service import making
from txserf.service.locking import StateLock

FILES = (Path(__file__), Path(__file__).parent / "real" / "test_mistakes.py")


class PageTests(SynchronousTestCase):
    def test_it_has_twenty(self) -> None:
        self.assertEqual(len(MESSAGES), 20)

    def test_each_has_a_test_that_names_it(self) -> None:
        named = {
            node.value
            for file in FILES
            for node in ast.walk(ast.parse(file.read_text()))
            if isinstance(node, ast.Constant)
        }
        self.assertEqual([mistake for mistake in MESSAGES if mistake not in named], [])


class MistakeCase(OptionsCase):
    """A test with an embedded cluster of one agent, and a `Serf` on it."""

    auth_key: str | None = None

    def setUp(self) -> None:
        super().setUp()
        self.patch(os, "environ", {n: v for n, v in os.environ.items() if not n.startswith("SERF_")})
        self.clock = Clock()
        self.cluster: Any = EmbeddedCluster(self.clock, nodes=1, auth_key=self.auth_key, seed=1)

    def serf(self, **settings: Any) -> Serf:
        serf = Serf(self.cluster.endpoints(), reactor=self.clock, **settings)
        self.addCleanup(self.clock.pump, [0.1] * 20)
        self.addCleanup(serf.close)
        return serf

    def client(self) -> Client:
        return Client(self.cluster.endpoints(), reactor=self.clock)

    def message(self, result: Any, kind: type[BaseException]) -> str:
        """Return the text of the error that a Deferred fails with."""
        self.clock.pump([0.1] * 50)
        return str(self.failureResultOf(result, kind).value)

    def check(self, mistake: str, message: str) -> None:
        self.assertEqual(message, MESSAGES[mistake])


class KeyTests(MistakeCase):
    auth_key = "s3cret"

    def check_host(self, mistake: str, message: str) -> None:
        self.check(mistake, message.replace("<MemoryEndpoint n1>", "127.0.0.1:7373"))

    def test_missing(self) -> None:
        told = self.message(self.client().members().request(), AuthenticationError)
        self.check_host("No key, where the agent has an ``rpc_auth``", told)

    def test_wrong(self) -> None:
        self.patch(os, "environ", {**os.environ, "SERF_RPC_AUTH": "wrong"})
        told = self.message(self.client().auth(AuthKey="wrong").members().request(), AuthenticationError)
        self.check_host("A wrong key", told)


class ProgramTests(MistakeCase):
    def test_request_forgotten(self) -> None:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            self.client().members(Status="alive")
            gc.collect()
        (warning,) = told
        name = warning.category.__name__
        self.check("``request()`` forgotten", f"{name}: {warning.message}")

    def test_reactor_forgotten(self) -> None:
        program = "import txserf; txserf.Serf().members().addCallback(print)"
        ended = subprocess.run(
            [sys.executable, "-c", program],
            capture_output=True,
            timeout=60,
            env=os.environ | {"PYTHONPATH": str(mistakes.PAGE.parents[1])},
        )
        self.assertEqual((ended.returncode, ended.stdout, ended.stderr), (0, b"", b""))
        self.check("The reactor forgotten", "None: the program ends at once, without output.")

    def test_await_in_a_task_of_asyncio(self) -> None:
        members = self.serf().members()
        members.addErrback(lambda _: None)

        async def main() -> None:
            await members

        error = self.assertRaises(RuntimeError, asyncio.run, main())
        told = re.sub("0x[0-9a-f]+", "0x...", f"RuntimeError: {error}")
        self.check("``await`` in a task of asyncio", re.sub(" current result.*>", ">", told))

    def test_blocking_in_a_handler(self) -> None:
        router = Router()

        @router.user_event("deploy")
        def deploy(event: UserEvent) -> None:
            self.clock.rightNow += 3.0  # time.sleep(3)

        deploy_label = f"{__name__}.{deploy.__qualname__}"
        log, serf = Log(self), self.serf()
        service = router.bind(serf)
        serf.startService()
        service.startService()
        self.clock.pump([0.1] * 20)
        serf.event("deploy")
        self.clock.pump([0.1] * 20)
        service.stopService()
        (told,) = (text for text in log.texts if "blocked" in text)
        self.check("Blocking in a handler", told.replace(deploy_label, "ops.deploy"))

    def test_wrong_case_of_an_argument(self) -> None:
        event: Any = self.client().event
        told = str(self.assertRaises(InvalidRequest, event, name="deploy"))
        self.check("The wrong case of an argument", told)

    def test_event_too_large(self) -> None:
        told = str(self.assertRaises(InvalidRequest, self.serf().event, "deploy", b"x" * 2000))
        self.check("An event that is too large", told)

    def test_agent_without_a_keyring(self) -> None:
        told = self.message(self.serf().list_keys(), KeyringError)
        self.check("A key command, and an agent without a keyring", told)

    def test_stream_that_nobody_reads(self) -> None:
        log, serf = Log(self), self.serf()
        stream = serf.stream("user")
        self.clock.pump([0.1] * 5)
        for _ in range(8193):
            stream._deliver(UserEvent("deploy"))
        (told,) = (text for text in log.texts if "items wait" in text)
        self.check("A stream that nobody reads", told)

    def test_payload_that_is_no_bytes(self) -> None:
        event: Any = self.serf().event
        told = str(self.assertRaises(InvalidRequest, event, "deploy", {"a": 1}))
        self.check("A payload that is no bytes", told)

    def test_pythons_re(self) -> None:
        told = self.message(self.serf().members(name="web(?=-1)"), RpcError)
        self.check("Python's ``re`` where Go's RE2 is meant", told)


class TwistdTests(MistakeCase):
    def test_without_n(self) -> None:
        error = io.StringIO()
        self.patch(error, "isatty", lambda: True)
        self.patch(sys, "stderr", error)
        making.makeService(self.options())
        told = error.getvalue().strip().replace(str(self.folder), "/srv")
        self.check("``twistd`` without ``-n``", told)

    def test_table_in_the_file(self) -> None:
        told = self.refusal("--config", self.file('[txserf]\nagent = "x"'))
        self.check("A table in the configuration file", told.replace(f"{self.folder}/", ""))

    def test_misspelt_option(self) -> None:
        self.check("A misspelt option", self.refusal("--agnet", "x"))

    def test_module_without_a_router(self) -> None:
        self.file("import txserf\n", "txserf_test_ops.py")
        self.addCleanup(sys.modules.pop, "txserf_test_ops", None)
        told = self.refusal("--app", "txserf_test_ops:router")
        self.check("A module without a router", told.replace("txserf_test_ops", "ops"))

    def test_two_programs_on_one_state(self) -> None:
        told: list[str] = []
        state = new_folder(self) / "state"
        Log(self)
        for _ in range(2):
            lock = StateLock(state, lambda reason: told.append(str(reason)))
            self.addCleanup(lock.stopService)
            lock.startService()
        self.check("Two programs on one ``--state``", told[0].replace(str(state.parent), "/srv"))
