"""The agents of `twistd txserf`: host lists, endpoint strings, the key file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from twisted.internet.endpoints import TCP4ClientEndpoint, UNIXClientEndpoint
from twisted.trial.unittest import SynchronousTestCase

from tests.fakes import new_folder
from tests.options_case import OptionsCase
from txserf.connection.hosts import Host
from txserf.service import settings
from txserf.service.agents import KEY_LIMIT, read_agents, read_key
from txserf.service.settings import ConfigError


def agents(text: str | None, key_file: str | None = None) -> tuple[Host, ...]:
    return read_agents(settings.merged({"agent": text, "auth-key-file": key_file}, {}))


def labels(text: str) -> list[str]:
    return [host.label for host in agents(text)]


class EndpointTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.patch(os, "environ", {"SERF_RPC_AUTH": "env"})

    def refusal(self, text: str) -> str:
        return str(self.assertRaises(ConfigError, agents, text))

    def test_the_string_of_an_endpoint_is_one(self) -> None:
        for text, kind, label in (
            ("tcp:agent.example:7373", TCP4ClientEndpoint, "tcp:agent.example:7373"),
            ("TCP:host=agent.example:port=7373", TCP4ClientEndpoint, "tcp:agent.example:7373"),
            ("unix:/run/serf.sock", UNIXClientEndpoint, "unix:/run/serf.sock"),
        ):
            (host,) = agents(text)
            self.assertIsInstance(host.endpoint, kind)
            self.assertEqual((host.label, host.auth_key), (label, "env"))

    def test_tls_is_one_and_shows_no_path(self) -> None:
        folder = new_folder(self)
        self.assertEqual(labels("tls:agent.example:7373"), ["tls:agent.example:7373"])
        self.assertEqual(labels(f"tls:agent.example:7373:trustRoots={folder}"), ["tls:agent.example:7373"])
        self.assertEqual(labels(r"tls:agent.example:0:endpoint=unix\:/run/x"), ["tls:unix:/run/x"])

    def test_it_stands_beside_hosts_in_order(self) -> None:
        self.assertEqual(
            labels("a, unix:/run/serf.sock ,serf://b:1,tls:c:2,[::1]:7374"),
            ["a:7373", "unix:/run/serf.sock", "b:1", "tls:c:2", "[::1]:7374"],
        )

    def test_a_comma_in_it_has_a_backslash(self) -> None:
        self.assertEqual(labels(r"unix:/run/a\,b\,c,d"), ["unix:/run/a,b,c", "d:7373"])
        self.assertEqual(labels(r"unix:/run/a\\,d"), ["unix:/run/a\\", "d:7373"])

    def test_a_host_with_such_a_name_and_a_port_is_a_host(self) -> None:
        self.assertEqual(labels("tls:7373,unix:1,tcp"), ["tls:7373", "unix:1", "tcp:7373"])
        self.assertEqual([host.endpoint for host in agents("tls:7373,unix:1,tcp")], [None] * 3)

    def test_another_word_with_a_colon_is_a_host_list_and_refused_as_such(self) -> None:
        self.assertEqual(
            self.refusal("db1:s3cret"),
            "--agent: not HOST, HOST:PORT or serf://HOST:PORT?AuthKey=KEY: 'db1:***'",
        )

    def test_one_that_is_not_understood_is_refused_without_its_options(self) -> None:
        for text, shown in (
            ("tcp:db1.example:s3cret", "'tcp:db1.example***'"),
            ("tcp:db1.example:7373:AuthKey=s3cret", "'tcp:db1.example***'"),
            ("tls:db1.example:7373?AuthKey=s3cret", "'tls:db1.example***'"),
            ("tls:s3cret@db1.example:7373:x", "'tls:***'"),
            ("tcp:s3cret", "'tcp:***'"),
            ("unix:/run/serf.sock:AuthKey=s3cret", "'unix:***'"),
        ):
            told = self.refusal(f"a,{text}")
            self.assertIn(f"--agent: {shown} is no client endpoint: ", told)
            self.assertNotIn("s3cret", told)

    def test_a_file_that_it_lacks_is_named(self) -> None:
        told = self.refusal("tls:db1:7373:certificate=/no/such.pem")
        self.assertIn("No such file or directory: /no/such.pem", told)
        told = self.refusal("tls:db1:7373:trustRoots=/no/such")
        self.assertIn("No such file or directory: /no/such", told)

    def test_an_empty_entry_is_refused(self) -> None:
        for text in ("", "a,", "tcp:a:1,,b", ",tcp:a:1"):
            self.assertIn("empty entry", self.refusal(text))

    def test_the_rest_of_a_key_with_a_comma_is_not_shown(self) -> None:
        self.assertNotIn("cret", self.refusal("serf://a?AuthKey=s3,cret x"))

    def test_the_environments_list_is_refused_by_its_variable(self) -> None:
        self.patch(os, "environ", {"SERF_RPC_ADDR": "https://a?AuthKey=s3cret"})
        told = str(self.assertRaises(ConfigError, agents, None))
        self.assertTrue(told.startswith("$SERF_RPC_ADDR: not HOST"), told)
        self.assertNotIn("s3cret", told)

    def test_a_bad_host_is_named_without_its_key(self) -> None:
        told = self.refusal("serf://a:99999?AuthKey=s3cret")
        self.assertIn("--agent: ", told)
        self.assertIn("99999", told)
        self.assertNotIn("s3cret", told)


class KeyFileTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = new_folder(self)

    def file(self, data: bytes, mode: int = 0o600) -> Path:
        path = self.folder / "a key"
        path.unlink(missing_ok=True)
        path.write_bytes(data)
        path.chmod(mode)
        return path

    def refusal(self, path: Path) -> str:
        told = str(self.assertRaises(ConfigError, read_key, path))
        self.assertNotIn("s3cret", told)
        return told

    def test_the_key_is_its_only_line(self) -> None:
        for data, key in (
            (b"s3cret", "s3cret"),
            (b"s3cret\n", "s3cret"),
            (b"s3cret\r\n", "s3cret"),
            (b" s3 cret ,%&\n", " s3 cret ,%&"),
            (b"\xc3\xa9\xff", "\xe9\udcff"),
        ):
            for mode in (0o600, 0o400):
                self.assertEqual(read_key(self.file(data, mode)), key)

    def test_a_file_that_others_can_read_is_refused_with_the_command_that_mends_it(self) -> None:
        for mode in (0o640, 0o604, 0o644, 0o620, 0o602, 0o610):
            path = self.file(b"s3cret", mode)
            self.assertEqual(
                self.refusal(path),
                f"--auth-key-file {path} is open to others than its owner (mode {mode:04o}); "
                f"mend it by: chmod 600 '{path}'",
            )

    def test_a_credential_of_systemd_may_have_an_access_list(self) -> None:
        path = self.file(b"s3cret", 0o440)
        environ: dict[str, Any] = {"CREDENTIALS_DIRECTORY": str(self.folder)}
        self.patch(os, "environ", environ)
        self.assertEqual(read_key(path), "s3cret")
        self.assertIn("mode 0460", self.refusal(self.file(b"s3cret", 0o460)))
        self.assertIn("mode 0444", self.refusal(self.file(b"s3cret", 0o444)))
        environ["CREDENTIALS_DIRECTORY"] = str(self.folder.parent)
        self.assertIn("mode 0440", self.refusal(self.file(b"s3cret", 0o440)))

    def test_what_is_no_key_is_refused(self) -> None:
        self.assertIn("is empty", self.refusal(self.file(b"")))
        self.assertIn("is empty", self.refusal(self.file(b"\n")))
        self.assertIn("more than one line", self.refusal(self.file(b"s3cret\ns3cret\n")))
        self.assertIn("larger than 65536 bytes", self.refusal(self.file(b"s3cret" * KEY_LIMIT)))

    def test_what_is_no_file_is_refused_at_once(self) -> None:
        self.assertIn("can't be read: No such file", self.refusal(self.folder / "nowhere"))
        self.assertIn("Is a directory", self.refusal(self.folder))
        os.mkfifo(self.folder / "fifo", 0o600)
        self.assertIn("no regular file", self.refusal(self.folder / "fifo"))
        self.assertIn("null", self.refusal(Path("a\0b")))

    def test_it_is_for_the_hosts_without_a_key_of_their_own(self) -> None:
        self.patch(os, "environ", {"SERF_RPC_AUTH": "env"})
        path = str(self.file(b"file\n"))
        hosts = agents("a,serf://b?AuthKey=own,unix:/run/x", path)
        self.assertEqual([host.auth_key for host in hosts], ["file", "own", "file"])
        self.assertEqual([host.auth_key for host in agents(None, path)], ["file"])
        self.assertEqual(os.environ["SERF_RPC_AUTH"], "env")


class OptionTests(OptionsCase):
    def test_the_file_is_meant_where_twistd_is_started_and_read_again(self) -> None:
        key = self.folder / "key"
        key.touch(0o600)
        key.write_text("one")
        options = self.options("--config", self.file('auth-key-file = "key"\nagent = "tcp:h:1"'))
        assert options.agents is not None
        self.assertEqual([(host.label, host.auth_key) for host in options.agents], [("tcp:h:1", "one")])
        key.write_text("two")
        os.chdir("/")
        options.read(again=True)
        self.assertEqual([host.auth_key for host in options.agents], ["two"])

    def test_an_embedded_cluster_has_no_agents_of_the_options(self) -> None:
        self.assertIsNone(self.options("--embedded", "1").agents)
        self.patch(os, "environ", {**os.environ, "SERF_RPC_ADDR": "https://a"})
        self.assertIsNone(self.options("--embedded", "1").agents)
