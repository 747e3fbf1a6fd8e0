"""`tests.agents`, which starts the agents of all other tests on real agents."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.agents import Agent, accepts, cluster, holds_in_time, serf_binary

ROOT = Path(__file__).parents[2]


def alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


def test_an_agent_starts_and_lists_itself(agent: Agent) -> None:
    assert agent.members() == {"n1": "alive"}
    assert "Serf agent starting" in agent.log


def test_two_agents_see_each_other(two_agents: list[Agent]) -> None:
    for each in two_agents:
        assert each.members() == {"n1": "alive", "n2": "alive"}


def test_a_cluster_has_the_tags_that_were_asked_for(shared_cluster: list[Agent]) -> None:
    listed = shared_cluster[0].serf("members", "-tag", "role=db")
    assert "n2" in listed and "n1" not in listed


def test_an_agent_with_a_key_refuses_requests_without_it(auth_agent: Agent) -> None:
    assert auth_agent.members() == {"n1": "alive"}
    key, auth_agent.rpc_auth = auth_agent.rpc_auth, None
    assert "Authentication required" in auth_agent.serf("members", check=False)
    auth_agent.rpc_auth = f"{key}x"
    assert "Invalid authentication token" in auth_agent.serf("members", check=False)


def test_encrypted_agents_have_a_keyring(encrypted_agents: list[Agent]) -> None:
    assert "[2/2]" in encrypted_agents[0].serf("keys", "-list")


def test_a_killed_agent_comes_back_on_its_ports(two_agents: list[Agent]) -> None:
    first, second = two_agents
    rpc, bind = second.rpc, second.bind
    second.kill()
    assert not second.running
    assert not accepts(rpc)
    second.restart(join=[first])
    assert (second.rpc, second.bind) == (rpc, bind)
    second.wait_for_member("n1", "alive")
    assert second.log.count("Serf agent starting") == 2


def test_a_stopped_agent_has_left(two_agents: list[Agent]) -> None:
    first, second = two_agents
    second.stop()
    first.wait_for_member("n2", "left")


def test_a_paused_agent_accepts_and_does_not_answer(agent: Agent) -> None:
    agent.pause()
    assert accepts(agent.rpc)
    with pytest.raises(subprocess.TimeoutExpired):
        agent.serf("members", timeout=0.5)
    agent.resume()
    assert agent.members() == {"n1": "alive"}


def test_agents_are_gone_after_the_block() -> None:
    with cluster(1) as (agent,):
        assert agent.process is not None
        pid = agent.process.pid
        assert alive(pid)
    assert not alive(pid)


def start_program(folder: Path, *command: str) -> subprocess.Popen[str]:
    """Start ``python -m tests.agents``. Its temporary files go into *folder*, because it can't delete them if it is killed."""
    serf_binary()  # skips the test if there is no serf
    argv = [sys.executable, "-m", "tests.agents", *command]
    environ = os.environ | {"TMPDIR": str(folder)}
    return subprocess.Popen(argv, cwd=ROOT, env=environ, stdout=subprocess.PIPE, text=True)


def test_the_program_runs_a_command_beside_a_cluster(tmp_path: Path) -> None:
    script = "import os, sys; print(os.environ['SERF_RPC_ADDR']); sys.exit(7)"
    program = start_program(tmp_path, "-n", "2", "--", sys.executable, "-c", script)
    output, _ = program.communicate(timeout=30)
    addresses = output.strip().split(",")
    assert len(addresses) == 2
    assert program.returncode == 7
    assert not any(accepts(address) for address in addresses)


def test_the_program_lets_its_command_find_the_serf_that_it_has_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``serf`` may be in the cache, and in no folder of PATH."""
    cache = tmp_path / "txserf"
    cache.mkdir()
    (cache / "serf").symlink_to(serf_binary().absolute())
    monkeypatch.delenv("SERF_BINARY", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    program = start_program(tmp_path, "-n", "1", "--", "serf", "info")
    output, _ = program.communicate(timeout=30)
    assert program.returncode == 0
    assert "name = n1" in output


def test_the_program_leaves_path_alone_if_serf_is_on_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the folder of the system's serf would come before that of a virtual environment."""
    (tmp_path / "serf").symlink_to(serf_binary().absolute())
    path = f"{tmp_path / 'first'}{os.pathsep}{tmp_path}"
    monkeypatch.delenv("SERF_BINARY", raising=False)
    monkeypatch.setenv("PATH", path)
    script = "import os; print(os.environ['PATH'])"
    program = start_program(tmp_path, "-n", "1", "--", sys.executable, "-c", script)
    output, _ = program.communicate(timeout=30)
    assert output.strip() == path


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name)
def test_the_program_takes_command_and_agents_with_it(number: signal.Signals, tmp_path: Path) -> None:
    script = "import os, signal; print(os.getpid(), os.environ['SERF_RPC_ADDR'], flush=True); signal.pause()"
    program = start_program(tmp_path, "-n", "1", "--", sys.executable, "-c", script)
    assert program.stdout is not None
    pid, address = program.stdout.readline().split()
    os.kill(program.pid, number)
    program.wait(timeout=30)
    program.stdout.close()
    # The kernel may need a moment to end them after their parent.
    assert holds_in_time(lambda: not alive(int(pid)) and not accepts(address))
