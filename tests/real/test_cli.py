"""The command ``txserf`` on real agents, held against the ``serf`` program, and in a terminal."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.agents import Agent, holds_in_time, new_encrypt_key
from tests.real.commands import ROOT, answer, environment, has_written, in_terminal, piped, txserf

# -- the same as serf


def serf_json(agent: Agent, *argv: str) -> object:
    return json.loads(agent.serf(*argv, "-format=json"))


def test_members_are_those_of_serf(shared_cluster: list[Agent]) -> None:
    agent = shared_cluster[0]
    listed = json.loads(agent.serf("members", "-format=json"))["members"]
    ours = answer("members", "-a", agent.rpc)
    assert {
        (each["name"], f"{each['address']}:{each['port']}", each["status"], *each["tags"].items())
        for each in ours
    } == {(each["name"], each["addr"], each["status"], *each["tags"].items()) for each in listed}


@pytest.mark.parametrize(
    "filters",
    [
        ["--tag", "role=w.*"],
        ["--name", "n2"],
        ["--status", "failed"],
        ["--tag", "role=web", "--name", "n2"],
        ["--tag", "role=web|db"],
    ],
)
def test_filters_select_what_those_of_serf_do(shared_cluster: list[Agent], filters: list[str]) -> None:
    agent = shared_cluster[0]
    same = [word.replace("--", "-", 1).replace("web|db", "(web|db)") for word in filters]
    listed = json.loads(agent.serf("members", "-format=json", *same))["members"] or []
    lines = txserf("members", "-a", agent.rpc, *filters, "-o", "names").stdout.splitlines()
    assert lines == sorted(each["name"] for each in listed)


def test_info_is_that_of_serf(shared_cluster: list[Agent]) -> None:
    agent = shared_cluster[0]
    theirs, ours = serf_json(agent, "info"), answer("info", "-a", agent.rpc)
    assert isinstance(theirs, dict)
    assert ours.keys() == theirs.keys()
    assert (ours["agent"], ours["tags"]) == (theirs["agent"], theirs["tags"])
    assert ours["serf"].keys() == theirs["serf"].keys()


def test_rtt_is_that_of_serf(two_agents: list[Agent]) -> None:
    near, far = two_agents
    argv = ["rtt", near.name, far.name]

    def known() -> bool:
        return "rtt:" in near.serf(*argv, check=False)

    assert holds_in_time(known)
    told = re.findall(r"rtt: ([\d.]+) ms", near.serf(*argv))
    ours = txserf(*argv, "-a", near.rpc).stdout.split()
    assert ours[:2] == [near.name, far.name]
    assert abs(float(ours[2]) - float(told[0])) < 5


def test_tags_are_seen_by_serf(agent: Agent) -> None:
    txserf("tags", "set", "role=web", "zone=a", "-a", agent.rpc)
    assert json.loads(agent.serf("members", "-format=json"))["members"][0]["tags"] == {
        "role": "web",
        "zone": "a",
    }
    txserf("tags", "delete", "zone", "-a", agent.rpc)
    assert json.loads(agent.serf("members", "-format=json"))["members"][0]["tags"] == {"role": "web"}
    assert answer("tags", "-a", agent.rpc) == {"role": "web"}


def test_keys_are_those_of_serf(encrypted_agents: list[Agent]) -> None:
    agent, other = encrypted_agents[0], new_encrypt_key()
    (first,) = answer("keys", "-a", agent.rpc)["keys"]
    assert first in agent.serf("keys", "-list")
    txserf("keys", "install", other, "-a", agent.rpc)
    assert other in agent.serf("keys", "-list")
    txserf("keys", "use", other, "-a", agent.rpc)
    txserf("keys", "remove", first, "-a", agent.rpc)
    assert first not in agent.serf("keys", "-list")
    assert answer("keys", "-a", agent.rpc) == {"keys": {other: 2}, "nodes": 2}


def test_a_key_command_without_a_keyring_is_1_and_one_line(shared_cluster: list[Agent]) -> None:
    done = txserf("keys", "-a", shared_cluster[0].rpc, check=1)
    assert done.stdout == "" and done.stderr.count("\n") == 1
    assert "Keyring is empty" in done.stderr


def sent_until_shown(agent: Agent, following: subprocess.Popen[str], *event: str) -> None:
    """Send an event until one is shown: the first ones may be too early."""

    def shown() -> bool:
        agent.serf("event", *event)
        return has_written(following)

    assert holds_in_time(shown)


def test_events_of_serf_are_shown(two_agents: list[Agent]) -> None:
    near, far = two_agents
    with piped("events", "user", "-o", "jsonl", "-a", near.rpc) as following:
        assert following.stdout is not None
        sent_until_shown(far, following, "-coalesce=false", "ping", "x")
        event = json.loads(following.stdout.readline())
    assert (event["type"], event["name"], event["payload"], event["coalesce"]) == ("user", "ping", "x", False)


def test_an_event_is_seen_by_serf(agent: Agent, tmp_path: Path) -> None:
    txserf("event", "deploy", "v2", "-a", agent.rpc)
    assert holds_in_time(lambda: "user-event: deploy" in agent.log)


def test_a_query_has_the_answers_of_serf(agent: Agent) -> None:
    with piped("run", "--handler", "query:load=echo 0.31", "-a", agent.rpc):
        assert holds_in_time(lambda: "0.31" in agent.serf("query", "-timeout=500ms", "load"))
        found = answer("query", "load", "--expect", "all", "-a", agent.rpc)
    assert found == {"acks": [agent.name], "answers": {agent.name: "0.31\n"}, "missing": []}


def test_a_query_that_a_node_does_not_answer_is_3_with_its_name(two_agents: list[Agent]) -> None:
    near, far = two_agents
    far.pause()
    try:
        done = txserf("query", "load", "--expect", "all", "--timeout", "0.5", "-a", near.rpc, check=3)
    finally:
        far.resume()
    assert f"missing: {near.name}, {far.name}" in done.stderr
    assert "Total Responses: 0" in near.serf("query", "-timeout=500ms", "load")  # and serf's exit code is 0


def test_join_leave_and_force_leave_do_as_serf_does(two_agents: list[Agent]) -> None:
    near, far = two_agents
    assert answer("join", far.bind, "-a", near.rpc)["joined"] == 1
    far.kill()
    near.wait_for_member(far.name, "failed")
    txserf("force-leave", far.name, "-a", near.rpc)
    near.wait_for_member(far.name, "left")
    txserf("force-leave", far.name, "--prune", "-a", near.rpc)
    assert holds_in_time(lambda: far.name not in near.members())
    txserf("leave", "-a", near.rpc)
    assert near.process is not None
    assert near.process.wait(20) == 0


def test_monitor_shows_the_log(agent: Agent) -> None:
    done = txserf("monitor", "--timeout", "1", "-a", agent.rpc)
    assert "[INFO] agent: Serf agent starting" in done.stdout


def test_nearest_has_the_round_trips_from_the_agents_own_node(shared_cluster: list[Agent]) -> None:
    agent = shared_cluster[0]
    found = {each["name"]: each["seconds"] for each in answer("nearest", "-a", agent.rpc)}
    assert agent.name in found
    assert list(found.values()) == sorted(found.values())


# -- hosts and keys


def test_agents_come_from_the_option_or_the_environment_and_the_next_one_is_asked(
    shared_cluster: list[Agent],
) -> None:
    hosts = f"127.0.0.1:1,{shared_cluster[1].rpc}"
    for done in (txserf("members", "-a", hosts), txserf("members", environ={"SERF_RPC_ADDR": hosts})):
        assert [line.split()[0] for line in done.stdout.splitlines()] == ["n1", "n2"]
        assert done.stderr == ""


def test_the_key_comes_from_the_url_the_environment_or_a_file(auth_agent: Agent, tmp_path: Path) -> None:
    from urllib.parse import quote

    key = auth_agent.rpc_auth or ""
    file = tmp_path / "key"
    file.write_text(key)
    file.chmod(0o600)
    txserf("members", "-a", f"serf://{auth_agent.rpc}?AuthKey={quote(key, safe='')}")
    txserf("members", "-a", auth_agent.rpc, environ={"SERF_RPC_AUTH": key})
    txserf("members", "-a", auth_agent.rpc, "--auth-key-file", str(file))
    for environ in ({}, {"SERF_RPC_AUTH": "wr0ng"}):
        done = txserf("members", "-a", auth_agent.rpc, check=1, environ=environ)
        assert done.stderr.count("\n") == 1 and "key" in done.stderr and "wr0ng" not in done.stderr


def test_no_agent_is_1_and_one_line() -> None:
    done = txserf("members", "-a", "127.0.0.1:1", check=1)
    assert done.stdout == "" and done.stderr.count("\n") == 1
    assert done.stderr.startswith("txserf: no host could be reached: 127.0.0.1:1")


def test_events_go_on_with_the_next_agent(two_agents: list[Agent]) -> None:
    near, far = two_agents
    with piped("events", "user", "-o", "jsonl", "-a", f"{near.rpc},{far.rpc}") as following:
        assert following.stdout is not None
        sent_until_shown(near, following, "before")
        near.kill()
        seen = [("", "")]
        while seen[-1][1] != "deploy":
            if seen[-1][0] == "gap":
                far.serf("event", "deploy")
            record = json.loads(following.stdout.readline())
            seen.append((record["type"], record.get("name", "")))
    assert [kind for kind, name in seen if name not in ("", "before") or kind == "gap"] == ["gap", "user"]


# -- waiting


def test_wait_ends_when_enough_are_there_and_names_those_that_are_not(two_agents: list[Agent]) -> None:
    near, far = two_agents
    assert txserf("wait", "2", "-o", "names", "-a", near.rpc).stdout.split() == [near.name, far.name]
    far.kill()
    near.wait_for_member(far.name, "failed")
    done = txserf("wait", "2", "--timeout", "1", "-a", near.rpc, check=3)
    assert f"missing: {far.name} (failed)" in done.stderr
    with piped("wait", "2", "--timeout", "30", "-a", near.rpc) as waiting:
        far.restart(join=[near])
        assert waiting.wait(30) == 0


def test_a_template_is_written_once(shared_cluster: list[Agent], tmp_path: Path) -> None:
    pytest.importorskip("jinja2")
    (tmp_path / "in.j2").write_text(
        "{{ select(role='web') | map(attribute='name') | join }} {{ agent.name }}\n"
    )
    txserf("template", str(tmp_path / "in.j2"), str(tmp_path / "out"), "-a", shared_cluster[0].rpc)
    assert (tmp_path / "out").read_text() == "n1 n1\n"


# -- other programs' forms


def program_of_ansible(name: str) -> str:
    found = shutil.which(name, path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if found is None:
        pytest.skip(f"there is no {name}, which the extra test brings")
    return found


def inventory_script(agent: Agent, folder: Path) -> tuple[Path, dict[str, str]]:
    """Write the script that Ansible calls; return it, and the variables that Ansible needs."""
    script = folder / "inventory.sh"
    script.write_text(f'#!/bin/sh\nexec {sys.executable} -m txserf members -o ansible "$@"\n')
    script.chmod(0o700)
    return script, environment({"SERF_RPC_ADDR": agent.rpc, "ANSIBLE_HOME": str(folder)})


def test_ansible_reads_the_inventory(shared_cluster: list[Agent], tmp_path: Path) -> None:
    program = program_of_ansible("ansible-inventory")
    script, environ = inventory_script(shared_cluster[0], tmp_path)

    def inventory(*argv: str) -> object:
        done = subprocess.run(
            [program, "-i", str(script), *argv],
            env=environ,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0 and "[WARNING]" not in done.stderr, done.stderr
        return json.loads(done.stdout)

    listed = inventory("--list")
    assert isinstance(listed, dict)
    assert listed["tag_role_web"]["hosts"] == ["n1"]
    assert listed["status_alive"]["hosts"] == ["n1", "n2"]
    one = inventory("--host", "n2")
    assert isinstance(one, dict)
    assert (one["ansible_host"], one["serf_tags"]) == ("127.0.0.1", {"role": "db"})


def test_ansible_does_not_run_a_tag_that_is_a_template(agent: Agent, tmp_path: Path) -> None:
    program = program_of_ansible("ansible")
    template = f"{{{{ lookup('pipe', 'touch {tmp_path}/ran') }}}}"
    txserf("tags", "set", f"role={template}", "-a", agent.rpc)
    script, environ = inventory_script(agent, tmp_path)
    done = subprocess.run(
        [program, "-i", str(script), "all", "-m", "debug", "-a", "msg={{ serf_tags.role }}"],
        env=environ, cwd=tmp_path, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert template in done.stdout, (done.stdout, done.stderr)
    assert not (tmp_path / "ran").exists()


def test_prometheus_targets_have_the_form_that_its_manual_gives(shared_cluster: list[Agent]) -> None:
    """``[{"targets": ["<host>", ...], "labels": {"<labelname>": "<labelvalue>", ...}}, ...]``, and no other key."""
    argv = ["members", "-o", "prometheus", "--port", "9100", "-a", shared_cluster[0].rpc]
    found = json.loads(txserf(*argv).stdout)
    assert isinstance(found, list) and len(found) == 2
    for entry in found:
        assert entry.keys() == {"targets", "labels"}
        assert all(re.fullmatch(r"[\d.]+:9100", target) for target in entry["targets"])
        for name, value in entry["labels"].items():
            assert re.fullmatch("[a-zA-Z_][a-zA-Z0-9_]*", name) and isinstance(value, str)
    assert found[0]["labels"]["__meta_serf_tag_role"] == "web"


# -- terminals, pipes and signals


def test_a_terminal_gets_a_table_in_colours(shared_cluster: list[Agent]) -> None:
    pytest.importorskip("rich")
    with in_terminal("members", "-a", shared_cluster[0].rpc) as running:
        assert running.end() == 0
    assert "\x1b[32malive\x1b[0m" in running.shown
    assert "NAME" in running.shown


@pytest.mark.parametrize("environ", [{"NO_COLOR": "1"}, {"TERM": "dumb"}, {"TERM": ""}], ids=str)
def test_a_terminal_that_wants_none_gets_no_colours(
    shared_cluster: list[Agent], environ: dict[str, str]
) -> None:
    with in_terminal("members", "-a", shared_cluster[0].rpc, **environ) as running:
        assert running.end() == 0
    assert "\x1b" not in running.shown
    assert "NAME" in running.shown


def test_a_pipe_gets_plain_text(shared_cluster: list[Agent]) -> None:
    done = txserf("members", "-a", shared_cluster[0].rpc, environ={"TERM": "xterm-256color"})
    assert "\x1b" not in done.stdout and "NAME" not in done.stdout


def test_a_watch_is_drawn_again_and_ctrl_c_ends_it_quietly(two_agents: list[Agent]) -> None:
    near, far = two_agents
    with in_terminal("members", "--watch", "-a", near.rpc) as running:
        running.read_until("2 alive")
        far.kill()
        running.read_until("1 failed")
        before = len(running.shown)
        running.press(b"\x03")
        assert running.end() == 130
    assert running.shown[before:].strip() in ("", "^C")


@pytest.mark.parametrize(
    "argv",
    [["events"], ["monitor"], ["members", "--watch"], ["wait", "9"], ["query", "load", "--timeout", "20"]],
    ids=" ".join,
)
def test_ctrl_c_ends_whatever_goes_on_quietly(shared_cluster: list[Agent], argv: list[str]) -> None:
    agent = shared_cluster[0]
    accepted = agent.log.count("Accepted client")
    with piped(*argv, "-a", agent.rpc) as running:
        assert holds_in_time(lambda: agent.log.count("Accepted client") > accepted)
        running.send_signal(signal.SIGINT)
        _, errors = running.communicate(timeout=20)
        assert (running.returncode, errors) == (130, "")


def test_a_pipe_that_is_closed_ends_it_quietly(shared_cluster: list[Agent]) -> None:
    command = f'"{sys.executable}" -m txserf monitor -a {shared_cluster[0].rpc} -o jsonl | head -1'
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(["sh", "-c", command], env=environment(), text=True, **pipes) as running:  # type: ignore[call-overload]
        while running.poll() is None:
            shared_cluster[0].serf("members")  # so that the agent logs one more line, which can't be written
        printed, errors = running.communicate()
    assert printed.count("\n") == 1
    assert errors == ""


def test_an_output_that_is_full_is_1_and_one_line(shared_cluster: list[Agent]) -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("there is no /dev/full")
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "txserf", "members", "-a", shared_cluster[0].rpc],
            env=environment(), stdout=full, stderr=subprocess.PIPE, text=True, timeout=30,
        )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr == "txserf: the output can't be written: No space left on device\n"


# -- run and demo


def test_run_is_twistd_txserf_with_all_its_options(agent: Agent, tmp_path: Path) -> None:
    with piped("run", "--handler", f"user:deploy=touch {tmp_path}/done", "-a", agent.rpc) as running:

        def handled() -> bool:
            agent.serf("event", "deploy")
            return (tmp_path / "done").exists()

        assert holds_in_time(handled)
        assert running.poll() is None


def test_run_leaves_no_file_behind_and_refuses_a_wrong_option() -> None:
    for command in ("run", "demo"):
        done = txserf(command, "--no-such-option", check=2)
        assert done.stderr.startswith("txserf: option --no-such-option not recognized")
        assert done.stderr.endswith(f"; see txserf {command} --help\n") and done.stderr.count("\n") == 1
        assert done.stdout == ""
        assert not (ROOT / "twistd.pid").exists()


def test_the_demo_shows_a_cluster_without_serf() -> None:
    with piped("demo") as running:
        assert running.stdout is not None
        shown = ""
        while "member n3" not in shown and (line := running.stdout.readline()):
            shown += line
    assert "member n3" in shown
