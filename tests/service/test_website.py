"""The site: which requests are let in, and how those are answered that are not."""

from __future__ import annotations

import json
from unittest import mock

from tests.fakes import Log
from tests.service.web_case import WebCase
from txserf.service import website


class GuardTests(WebCase):
    def test_on_loopback_only_its_names_are_a_host(self) -> None:
        for host in ("localhost", "LOCALHOST:9100", "127.0.0.1", "127.0.0.1:9100", "[::1]", "[::1]:9100"):
            self.assertEqual(self.get("/health", Host=host).status, 200, host)
        for host in (
            "evil.example",
            "localhost.evil.example",
            "evil.example:9100",
            "10.0.0.1",
            "",
            "\xff",
            "::",
            "a@127.0.0.1",
        ):
            got = self.get("/members", Host=host)
            self.assertEqual((got.status, "Host" in got.json["error"]), (403, True), host)
        self.assertEqual(self.get("/health").status, 200)  # HTTP/1.0 needs none

    def test_a_socket_of_ipv6_that_takes_ipv4_too_is_guarded_likewise(self) -> None:
        for address in ("::1", "::ffff:127.0.0.1"):
            self.assertEqual(self.get("/health", Host="evil.example", address=address).status, 403, address)
            self.assertEqual(self.get("/health", Host="localhost", address=address).status, 200, address)

    def test_none_of_several_hosts_may_be_another(self) -> None:
        for hosts in (("evil.example", "localhost"), ("localhost", "evil.example")):
            reader = self.connect_reader()
            reader.send("GET /health HTTP/1.1\r\n" + "".join(f"Host: {host}\r\n" for host in hosts) + "\r\n")
            self.assertEqual(reader.got.status, 403, hosts)

    def test_on_another_address_any_host_is_one(self) -> None:
        self.assertEqual(self.get("/health", Host="ops.example", address="10.0.0.1").status, 200)

    def test_an_unknown_path_is_404_and_those_that_are_get_named(self) -> None:
        for path in (
            "/x",
            "/health/",
            "/health/x",
            "//health",
            "/members%2f",
            "/page/../members",
            "/index.html%00",
        ):
            got = self.get(path)
            self.assertEqual((got.status, got.headers["content-type"]), (404, "application/json"), path)
            self.assertIn("/health", got.json["error"])

    def test_only_the_methods_of_a_path_are_allowed(self) -> None:
        for method in ("POST", "PUT", "DELETE", "OPTIONS", "TRACE", "NONSENSE"):
            got = self.get("/members", method)
            self.assertEqual((got.status, got.headers["allow"]), (405, "GET, HEAD"), method)

    def test_a_head_request_gets_the_head_alone(self) -> None:
        log = Log(self)
        for path in ("/health", "/members", "/nowhere", "/state"):
            whole, head = self.get(path), self.get(path, "HEAD")
            self.assertEqual((head.status, head.body), (whole.status, ""), path)
            self.assertEqual(head.headers["content-length"], whole.headers["content-length"], path)
        self.assertEqual(log.texts, [])  # Twisted would warn about a body for HEAD

    def test_every_answer_forbids_a_browser_all_that_the_page_does_not_need(self) -> None:
        for path in ("/health", "/nowhere", "/events", "/members"):
            headers = self.get(path).headers
            self.assertIn("default-src 'none'; script-src 'self';", headers["content-security-policy"])
            self.assertIn("frame-ancestors 'none'", headers["content-security-policy"])
            self.assertEqual(headers["x-content-type-options"], "nosniff")
            self.assertEqual(headers["referrer-policy"], "no-referrer")
            self.assertNotIn("access-control-allow-origin", headers)

    def test_a_mistake_of_ours_is_500_without_its_text_and_the_log_has_it(self) -> None:
        with mock.patch.object(self.live, "by_status", side_effect=KeyError("s3cret")):
            got = self.get("/state")
        self.assertEqual(got.status, 500)
        self.assertNotIn("s3cret", got.body)
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)


class LimitTests(WebCase):
    def test_a_request_has_to_be_complete_in_its_time_however_its_bytes_drip(self) -> None:
        reader = self.connect_reader()
        for byte in "GET /health HTTP/1.1\r\nA":
            reader.send(byte)
            self.run_for(1.0)
        self.assertFalse(reader.transport.disconnecting)
        for _ in range(8):
            reader.send("x")
            self.run_for(1.0)
        self.assertTrue(reader.transport.disconnecting)
        self.run_for(15.5)
        self.assertTrue(reader.transport.aborted)  # it does not close its end

    def test_a_connection_may_be_used_again_and_then_its_time_begins_anew(self) -> None:
        reader = self.connect_reader()
        for _ in range(3):
            reader.send("GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
            self.run_for(29.0)
        self.assertEqual(reader.text.count("HTTP/1.1 200 OK"), 3)
        self.assertFalse(reader.transport.disconnecting)
        self.run_for(2.0)
        self.assertTrue(reader.transport.disconnecting)

    def test_a_reader_of_events_may_stay(self) -> None:
        reader = self.follow()
        self.run_for(100.0)
        self.assertFalse(reader.transport.disconnecting)

    def test_an_answer_that_is_not_read_is_given_up(self) -> None:
        reader = self.connect_reader()
        reader.request("/members")
        self.assertTrue(reader.transport.disconnecting)  # the transport waits until it has been read
        self.run_for(15.5)
        self.assertTrue(reader.transport.aborted)

    def test_huge_heads_are_refused(self) -> None:
        for head in (
            "A: " + "x" * 20_000,
            "\r\n".join(["A: x"] * 501),
            "\r\n".join(["A: " + "x" * 1000] * 17),
        ):
            reader = self.connect_reader()
            reader.send(f"GET /health HTTP/1.1\r\n{head}\r\n\r\n")
            self.assertNotIn("200 OK", reader.text)
            self.assertTrue(reader.transport.disconnecting)

    def test_a_body_that_is_too_large_is_refused_whether_its_length_is_told_or_not(self) -> None:
        size = website.BODY_LIMIT + 1
        told = f"POST /members HTTP/1.1\r\nContent-Length: {size}\r\nExpect: 100-continue\r\n\r\n"
        chunk = f"8000\r\n{'x' * 0x8000}\r\n"
        untold = f"POST /members HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{chunk * 3}"
        for request in (told, untold):
            reader = self.connect_reader()
            reader.send(request)
            self.assertTrue(reader.text.startswith("HTTP/1.1 413 "), reader.text)
            self.assertTrue(reader.transport.disconnecting)
            reader.send("x" * 100)
            self.assertEqual(reader.text.count("HTTP/1.1 413"), 1)

    def test_what_is_no_request_is_refused(self) -> None:
        for data in (
            "nonsense\r\n\r\n",
            "GET /\r\n\r\n",
            "\x16\x03\x01\x02\x00\x01\r\n",
            "GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n",
        ):
            reader = self.connect_reader()
            reader.send(data)
            self.assertTrue(reader.text.startswith("HTTP/1.1 400 "), data)
            self.assertTrue(reader.transport.disconnecting)

    def test_requests_in_one_write_are_answered_in_order(self) -> None:
        reader = self.connect_reader()
        reader.send(
            "GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n" * 2
            + "GET /nowhere HTTP/1.1\r\nHost: localhost\r\n\r\n"
        )
        self.assertEqual(reader.text.count("HTTP/1.1 200 OK"), 2)
        self.assertTrue(json.loads(reader.text.rpartition("\r\n\r\n")[2])["error"])

    def test_further_requests_wait_while_the_answers_are_not_read(self) -> None:
        reader = self.connect_reader()
        transport, channel = reader.transport, reader.protocol
        write = transport.write

        def write_until_full(data: bytes) -> None:
            write(data)
            if len(transport.value()) > 5000:
                channel.pauseProducing()

        self.patch(transport, "write", write_until_full)
        self.patch(transport, "writeSequence", lambda parts: write_until_full(b"".join(parts)))
        request = "GET /members HTTP/1.1\r\nHost: localhost\r\n\r\n"
        reader.send(request * 20)
        answered = reader.text.count("200 OK")
        self.assertTrue(1 < answered < 7, answered)
        self.assertEqual(transport.producerState, "paused")  # and no more is read
        while answered < 20:
            transport.clear()
            channel.resumeProducing()
            self.assertGreater(reader.text.count("200 OK"), 0)
            answered += reader.text.count("200 OK")
        self.assertEqual(answered, 20)
        transport.clear()
        channel.resumeProducing()
        self.assertEqual(transport.producerState, "producing")
        reader.send(request)
        self.assertEqual(reader.text.count("200 OK"), 1)

    def test_a_connection_whose_answers_are_not_read_is_given_up(self) -> None:
        reader = self.connect_reader()
        write = reader.transport.writeSequence

        def write_and_pause(parts: list[bytes]) -> None:
            write(parts)
            reader.protocol.pauseProducing()

        self.patch(reader.transport, "writeSequence", write_and_pause)
        reader.send("GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n" * 2)
        self.assertEqual(reader.text.count("200 OK"), 1)
        self.run_for(46.0)
        self.assertTrue(reader.transport.aborted)

    def test_more_connections_than_there_may_be_are_closed(self) -> None:
        self.patch(website, "CONNECTIONS_LIMIT", 2)
        first, _ = self.connect_reader(), self.connect_reader()
        self.assertIsNone(self.site.buildProtocol(None))
        first.lose()
        self.assertEqual(self.get("/health").status, 200)

    def test_its_end_closes_the_connections(self) -> None:
        reader = self.connect_reader()
        self.site.close()
        self.assertTrue(reader.transport.disconnecting)
        reader.lose()
        self.assertEqual(self.site.channels, set())
