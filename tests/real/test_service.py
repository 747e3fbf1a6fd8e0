"""`twistd txserf` with handlers, as a process on real agents: options, reload, pages and end."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from twisted.internet.threads import deferToThread

from tests.agents import Agent, holds_in_time
from tests.real.conftest import Listen
from tests.real.helpers import ScriptedServer, in_reactor
from tests.real.processes import ROOT, Start, Twistd
from txserf import Serf

ANY_PORT = "tcp:0:interface=127.0.0.1"

APP = """
from twisted.internet.task import deferLater
import txserf

router = txserf.Router()

@router.user_event()
async def handle(event):
    from twisted.internet import reactor
    await deferLater(reactor, 0.01)

@router.query("load")
def load(query):
    return b"0.31"
"""


def get(url: str) -> tuple[int, str]:
    """Get a page, and return its status and text."""
    try:
        with urllib.request.urlopen(url, timeout=10) as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as refusal:
        with refusal:
            return refusal.code, refusal.read().decode()


async def pages(running: Twistd) -> str:
    """Wait until the pages are served, and return their base URL."""
    found = re.compile(r"the cluster is shown on (http://[0-9.:]+)/\n")
    await running.until(lambda: found.search(running.log) is not None)
    return str(found.findall(running.log)[0])


async def health(url: str) -> tuple[int, str | None]:
    """Return the status of ``/health``, and the reason that it gives."""
    status, text = await deferToThread(get, f"{url}/health")
    return status, json.loads(text)["reason"]


def handled(running: Twistd) -> list[str]:
    """Return the names of the handled user events, in order, from the JSON log."""
    records = running.logged_records
    return [
        record["event"].split("'")[1]
        for record in records
        if record.get("type") == "user" and "result" in record
    ]


# -- handlers and the log


@in_reactor
async def test_scripts_and_functions_handle_events_and_answer_queries(
    two_agents: list[Agent], twistd: Start, tmp_path: Path
) -> None:
    (tmp_path / "ops.py").write_text(APP)
    running = [
        twistd("--agent", agent.rpc, "--app", "ops:router", "--handler", f"user:deploy=cat >{agent.name}")
        for agent in two_agents
    ]
    for each in running:
        await each.logged("ready: ")
    answers = two_agents[0].serf("query", "-format=json", "-timeout=1s", "load")
    two_agents[0].serf("event", "deploy", "v2")
    for each in running:
        await each.logged("user 'deploy' (LTime 1) handled in ")
    assert json.loads(answers)["Responses"] == {agent.name: "0.31" for agent in two_agents}
    assert [(tmp_path / agent.name).read_text() for agent in two_agents] == ["v2\n", "v2\n"]
    assert [line for each in running for line in each.lines] == []


@in_reactor
async def test_a_json_log_has_a_line_for_each_event_and_neither_payload_nor_key(
    auth_agent: Agent, twistd: Start
) -> None:
    assert auth_agent.rpc_auth is not None
    url = f"serf://{auth_agent.rpc}?AuthKey={quote(auth_agent.rpc_auth, safe='')}"
    running = twistd(
        "--agent", url, "--handler", "user=cat", "--handler", "user=exit 3", "--log-format", "json"
    )
    await running.logged("ready: ")
    async with Serf(url) as serf:
        await serf.event("deploy", b"pay-load")
        await running.logged(" handled in ")
    running.process.signalProcess("TERM")
    await running.ended
    (record,) = [record for record in running.logged_records if "result" in record]
    assert (record["type"], record["result"]) == ("user", "failed") and record["duration"] > 0
    assert record["text"].startswith("user 'deploy' (LTime 1) handled in ")
    (failure,) = [record for record in running.logged_records if record["level"] == "error"]
    assert (failure["handler"], failure["reason"]) == ("exit 3", "exit code 3")
    assert "pay-load" not in running.log
    assert auth_agent.rpc_auth not in running.log and quote(auth_agent.rpc_auth, safe="") not in running.log


@in_reactor
async def test_a_key_that_is_refused_ends_it_and_is_not_shown(auth_agent: Agent, twistd: Start) -> None:
    running = twistd("--agent", f"serf://{auth_agent.rpc}?AuthKey=wr0ng-key", "--handler", "true")
    assert await running.ended == 1
    assert "no events can be handled: " in running.log
    assert "wr0ng-key" not in running.log


# -- a reload


@in_reactor
async def test_reloads_lose_no_event_and_double_none(agent: Agent, twistd: Start, tmp_path: Path) -> None:
    configuration = tmp_path / "txserf.toml"

    def configure(number: int) -> None:
        # Each file has another length, and every second one another stream.
        more = "router.member_event()(print)\n" if number % 2 else ""
        (tmp_path / "ops.py").write_text(APP + more + f"number = {'1' * number}\n" * number)
        handlers = ["user:never=true", "member-leave=true"][: number % 3]
        configuration.write_text(f'app = "ops:router"\nconcurrency = {number + 1}\nhandler = {handlers}\n')

    configure(0)
    running = twistd("--agent", agent.rpc, "--config", "txserf.toml", "--log-format", "json")
    await running.logged("ready: ")
    sent = 0
    async with Serf(agent.rpc) as serf:
        for number in range(1, 7):
            configure(number)
            running.process.signalProcess("HUP")
            while running.log.count("reloaded: ") < number or sent < 60 * number:
                await serf.event(f"e{sent}", coalesce=False)
                sent += 1
        await serf.event("last", coalesce=False)
        await running.until(lambda: "last" in handled(running))
    names = handled(running)
    assert sorted(names) == sorted([*(f"e{number}" for number in range(sent)), "last"])
    assert running.log.count("connected to") == 1
    assert "Traceback" not in running.log and '"failed"' not in running.log


@in_reactor
async def test_a_file_that_can_not_work_is_logged_and_the_old_handlers_stay(
    agent: Agent, twistd: Start, tmp_path: Path
) -> None:
    configuration = tmp_path / "txserf.toml"
    configuration.write_text('handler = ["user:deploy=true"]')
    running = twistd("--agent", agent.rpc, "--config", "txserf.toml")
    await running.logged("ready: ")
    for number, (text, told) in enumerate(
        {
            "handlers = []": "there is no option 'handlers'",
            'handler = ["user=./gone.sh"]': "./gone.sh does not exist",
            'app = "ops:router"': "there is no module ops",
            'app = "ops': "is not TOML",
        }.items()
    ):
        configuration.write_text(text)
        running.process.signalProcess("HUP")
        await running.logged("not reloaded, ", number + 1)
        assert told in running.log
    agent.serf("event", "deploy")
    await running.logged("user 'deploy' (LTime 1) handled in ")
    assert "Traceback" not in running.log


# -- the pages


@in_reactor
async def test_health_follows_the_agent_and_metrics_count(agent: Agent, twistd: Start) -> None:
    running = twistd("--agent", agent.rpc, "--handler", "user=true", "--http", ANY_PORT)
    url = await pages(running)
    await running.logged("ready: ")
    assert await health(url) == (200, None)
    agent.serf("event", "deploy")
    await running.logged("handled in")
    agent.kill()
    await running.logged("no connection to")
    status, reason = await health(url)
    assert status == 503 and reason is not None and reason.startswith("not connected")
    agent.restart()
    await running.logged("events may have been missed in")
    assert await health(url) == (200, None)
    status, metrics = get(f"{url}/metrics")
    assert status == 200
    for sample in (
        "txserf_connected 1.0",
        "txserf_connections_total 2.0",
        "txserf_gaps_total 1.0",
        "txserf_queued 0.0",
        'txserf_events_total{type="user"} 1.0',
        'txserf_handler_results_total{handler="true",result="ok"} 1.0',
        'txserf_handler_seconds_count{handler="true"} 1.0',
    ):
        assert f"\n{sample}\n" in metrics


@in_reactor
async def test_without_the_metrics_extra_health_works_and_metrics_name_it(
    twistd: Start, tmp_path: Path
) -> None:
    (tmp_path / "prometheus_client.py").write_text("raise ImportError")
    running = twistd("--embedded", "1", "--embedded-quiet", "--http", ANY_PORT)
    url = await pages(running)
    await running.line("member n1")
    assert await health(url) == (200, None)
    status, text = get(f"{url}/metrics")
    assert status == 501 and "txserf[metrics]" in text


@in_reactor
async def test_a_port_that_is_taken_ends_it(twistd: Start, listen: Listen) -> None:
    taken = listen(ScriptedServer(lambda connection, data: None)).partition(":")[2]
    running = twistd("--embedded", "1", "--embedded-quiet", "--handler", "true", "--http", taken)
    assert await running.ended == 1
    assert "Server Shut Down" in running.log
    assert "--http: Couldn't listen on 127.0.0.1:" in running.log
    assert "Traceback" not in running.log


@in_reactor
async def test_exit_functions_of_an_application_run_even_after_a_failure(
    twistd: Start, listen: Listen, tmp_path: Path
) -> None:
    hooks = """
import atexit, logging.handlers, pathlib
memory = logging.handlers.MemoryHandler(9, 99, target=logging.FileHandler("logged"))
logging.getLogger().addHandler(memory)
logging.error("held back")
atexit.register(pathlib.Path("done").touch)
"""
    (tmp_path / "ops.py").write_text(APP + hooks)
    taken = listen(ScriptedServer(lambda connection, data: None)).partition(":")[2]
    running = twistd("--embedded", "1", "--embedded-quiet", "--app", "ops:router", "--http", taken)
    assert await running.ended == 1
    assert (tmp_path / "done").exists()
    assert (tmp_path / "logged").read_text() == "held back\n"


# -- its start and its end


@in_reactor
async def test_options_that_can_not_work_are_refused_at_the_start_without_a_traceback(twistd: Start) -> None:
    refused = {
        ("--app", "nowhere:router"): "--app nowhere:router: there is no module nowhere",
        ("--handler", "user=./gone.sh"): "./gone.sh does not exist",
        ("--http", "nonsense"): "--http: 'nonsense' is no server endpoint",
        ("--config", "gone.toml"): "gone.toml can't be read",
    }
    started = {told: twistd(*options) for options, told in refused.items()}
    for told, running in started.items():
        assert await running.ended == 1, told
        refusal, hint = running.log.splitlines()
        assert told in refusal
        assert "--help" in hint


@in_reactor
async def test_on_sigterm_running_handlers_are_finished(agent: Agent, twistd: Start, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    running = twistd("--agent", agent.rpc, "--handler", "query=cat fifo")
    await running.logged("ready: ")
    async with Serf(agent.rpc) as serf:
        answer = serf.query("slow", timeout=20.0, expect=1)
        await serf.ping()  # after this round trip the agent has the query
        with open(tmp_path / "fifo", "w") as fifo:  # blocks until the script opens its end
            running.process.signalProcess("TERM")
            await running.logged("Received SIGTERM")
            fifo.write("done")
        assert (await answer).responses == {"n1": b"done"}
    await running.ended
    assert "query 'slow' (LTime 1) handled in" in running.log
    assert "Traceback" not in running.log


HANGS = """
import time, pathlib, txserf

router = txserf.Router()

@router.user_event()
def hang(event):
    pathlib.Path("pid").touch()
    time.sleep(1000)
"""


@pytest.mark.parametrize("second", ["TERM", "INT"])
@in_reactor
async def test_a_second_signal_ends_it_at_once_and_kills_scripts(
    second: str, twistd: Start, tmp_path: Path
) -> None:
    script = "user=echo $$ >pid.new; mv pid.new pid; sleep 1000"
    limits = ("--handler-timeout", "0", "--drain-timeout", "1000", "--state", "state")
    running = twistd("--embedded", "1", "--handler", script, *limits)
    await deferToThread(holds_in_time, (tmp_path / "pid").exists)
    running.process.signalProcess("TERM")
    await running.logged("Received SIGTERM")
    assert not running.is_gone
    running.process.signalProcess(second)
    await running.gone()
    assert running.killed_by == getattr(signal, f"SIG{second}")
    assert f"received SIG{second} during the stop: ends at once" in running.log
    assert "Traceback" not in running.log
    pid = int((tmp_path / "pid").read_text())
    assert holds_in_time(lambda: not Path(f"/proc/{pid}").exists())


@in_reactor
async def test_a_second_signal_ends_it_in_a_function_that_hangs(twistd: Start, tmp_path: Path) -> None:
    (tmp_path / "ops.py").write_text(HANGS)
    running = twistd("--embedded", "1", "--app", "ops:router")
    await deferToThread(holds_in_time, (tmp_path / "pid").exists)
    running.process.signalProcess("INT")
    await running.logged("Received SIGINT")
    running.process.signalProcess("INT")
    await running.gone()
    assert running.killed_by == signal.SIGINT


@in_reactor
async def test_a_stop_takes_no_longer_than_its_limit(twistd: Start, tmp_path: Path) -> None:
    script = "user=echo $$ >pid.new; mv pid.new pid; sleep 1000"
    running = twistd("--embedded", "1", "--handler", script, "--drain-timeout", "0.2")
    await deferToThread(holds_in_time, (tmp_path / "pid").exists)
    running.process.signalProcess("TERM")
    await running.gone()
    assert running.killed_by == signal.SIGTERM
    assert " was cancelled after " in running.log
    assert "Traceback" not in running.log


# -- as a daemon


@pytest.fixture
def daemon(agent: Agent, tmp_path: Path) -> Iterator[int]:
    """Start a daemon whose working directory is not the one it was started in. Give its process ID."""
    (tmp_path / "work").mkdir()
    (tmp_path / "txserf.toml").write_text(
        f'agent = "{agent.rpc}"\nhandler = ["user:deploy=cat >out"]\nstate = "state"\nlog-format = "json"\n'
    )
    twistd = [sys.executable, "-c", "from twisted.scripts.twistd import run; run()"]
    own = ["--pidfile", "pid", "--logfile", "log", "--rundir", "work"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [*twistd, *own, "txserf", "--config", "txserf.toml"]
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, timeout=30, stdin=subprocess.DEVNULL)
    process = int((tmp_path / "pid").read_text())
    yield process
    if (tmp_path / "pid").exists():
        os.kill(process, signal.SIGKILL)


def test_a_daemon_finds_its_files_reloads_and_ends(agent: Agent, daemon: int, tmp_path: Path) -> None:
    def logged(part: str) -> bool:
        return holds_in_time(lambda: part in (tmp_path / "log").read_text())

    assert logged("ready: ")
    agent.serf("event", "deploy", "v2")
    assert logged("user 'deploy' (LTime 1) handled in ")
    assert (tmp_path / "work" / "out").read_text() == "v2\n"
    os.kill(daemon, signal.SIGHUP)
    assert logged("reloaded: ")
    os.kill(daemon, signal.SIGUSR1)
    assert holds_in_time((tmp_path / "log.1").exists)
    os.kill(daemon, signal.SIGTERM)
    assert holds_in_time(lambda: not (tmp_path / "pid").exists())
    for line in [
        *(tmp_path / "log.1").read_text().splitlines(),
        *(tmp_path / "log").read_text().splitlines(),
    ]:
        assert json.loads(line)["level"] != "error", line
    assert json.loads((tmp_path / "state").read_text())["last"] == 1


# -- the key


@in_reactor
async def test_the_key_is_read_from_a_file(twistd: Start, auth_agent: Agent, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.touch(0o600)
    key.write_text(f"{auth_agent.rpc_auth}\n")
    right = twistd("--agent", f"tcp:{auth_agent.rpc}", "--auth-key-file", "key")
    await right.line("member")
    key.write_text("another")
    wrong = twistd("--agent", auth_agent.rpc, "--auth-key-file", "key")
    assert await wrong.ended == 1
    assert "refused the key" in wrong.log
    key.chmod(0o644)
    refused = twistd("--agent", auth_agent.rpc, "--auth-key-file", "key")
    assert await refused.ended == 1
    assert f"mend it by: chmod 600 {key}" in refused.log + "".join(refused.lines)
