"""Host lists: the forms that are accepted, those that are refused, and that no key is shown."""

from __future__ import annotations

import traceback
from typing import Any

from twisted.internet.endpoints import (
    HostnameEndpoint,
    SSL4ClientEndpoint,
    TCP4ClientEndpoint,
    TCP6ClientEndpoint,
    UNIXClientEndpoint,
    wrapClientTLS,
)
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from tests.fakes import Endpoint
from txserf.connection.hosts import Host, Hosts, parse_hosts
from txserf.errors import InvalidHostURL


def parsed(hosts: Hosts = None, **environ: str) -> list[tuple[str, int, str | None]]:
    return [(host.address, host.port, host.auth_key) for host in parse_hosts(hosts, environ)]


class FormTests(SynchronousTestCase):
    def one(self, entry: str) -> tuple[str, int, str | None]:
        (host,) = parsed(entry)
        return host

    def test_an_address_alone_has_the_port_of_serf(self) -> None:
        self.assertEqual(self.one("127.0.0.1"), ("127.0.0.1", 7373, None))

    def test_an_address_and_a_port(self) -> None:
        self.assertEqual(self.one("10.0.0.1:7374"), ("10.0.0.1", 7374, None))

    def test_a_name(self) -> None:
        self.assertEqual(self.one("db-1.example"), ("db-1.example", 7373, None))
        self.assertEqual(self.one("db_1:1"), ("db_1", 1, None))

    def test_an_ipv6_address_in_brackets(self) -> None:
        self.assertEqual(self.one("[::1]"), ("::1", 7373, None))
        self.assertEqual(self.one("[fe80::1]:65535"), ("fe80::1", 65535, None))

    def test_a_url(self) -> None:
        self.assertEqual(self.one("serf://db1.example"), ("db1.example", 7373, None))
        self.assertEqual(self.one("serf://db1.example:7374/"), ("db1.example", 7374, None))
        self.assertEqual(self.one("serf://[::1]:7375"), ("::1", 7375, None))

    def test_a_url_with_a_key(self) -> None:
        self.assertEqual(self.one("serf://a:1?AuthKey=s3cret"), ("a", 1, "s3cret"))
        self.assertEqual(self.one("serf://a/?AuthKey=s3cret"), ("a", 7373, "s3cret"))

    def test_an_empty_key_is_one(self) -> None:
        self.assertEqual(self.one("serf://a?AuthKey="), ("a", 7373, ""))

    def test_a_key_is_percent_decoded_once(self) -> None:
        for written, key in (
            ("a%20b", "a b"),
            ("100%25", "100%"),
            ("%2525", "%25"),
            ("a%2Cb", "a,b"),
            ("a%26b", "a&b"),
            ("a%3Db=c", "a=b=c"),
            ("a%23b", "a#b"),
            ("a%3Fb?c", "a?b?c"),
            ("a/b:c@d", "a/b:c@d"),
            ("a+b", "a+b"),
            ("a%2Bb", "a+b"),
            ("%C3%A9", "é"),
            ("é", "é"),
            ("%FF", "\udcff"),
            ("%00", "\x00"),
            ("a;b", "a;b"),
        ):
            self.assertEqual(self.one(f"serf://h?AuthKey={written}"), ("h", 7373, key), written)

    def test_an_ipv6_address_has_its_zone(self) -> None:
        self.assertEqual(self.one("[fe80::1%eth0]:7373"), ("fe80::1%eth0", 7373, None))
        self.assertEqual(self.one("[fe80::1%25]"), ("fe80::1%25", 7373, None))
        self.assertEqual(self.one("serf://[fe80::1%eth0]?AuthKey=k"), ("fe80::1%eth0", 7373, "k"))

    def test_the_percent_of_a_zone_may_be_encoded_in_a_url(self) -> None:
        self.assertEqual(self.one("serf://[fe80::1%25eth0]:1"), ("fe80::1%eth0", 1, None))

    def test_the_scheme_may_be_in_capitals(self) -> None:
        self.assertEqual(self.one("SERF://a:1?AuthKey=K"), ("a", 1, "K"))

    def test_blanks_around_an_entry_are_left_out(self) -> None:
        self.assertEqual(parsed(" a , b:1 "), [("a", 7373, None), ("b", 1, None)])


class ListTests(SynchronousTestCase):
    def test_entries_are_cut_at_commas_and_stay_in_order(self) -> None:
        hosts = parsed("127.0.0.1,[::1]:7374,serf://db1.example:7375?AuthKey=k")
        self.assertEqual(hosts, [("127.0.0.1", 7373, None), ("::1", 7374, None), ("db1.example", 7375, "k")])

    def test_a_sequence_mixes_strings_hosts_and_endpoints(self) -> None:
        endpoint, host = Endpoint(), Host("b", 2, "k")
        hosts = parse_hosts(["a,serf://c?AuthKey=x", host, endpoint], {})
        self.assertEqual([h.address for h in hosts[:3]], ["a", "c", "b"])
        self.assertIs(hosts[3].endpoint, endpoint)

    def test_any_iterable_is_a_sequence(self) -> None:
        self.assertEqual(parsed(iter(("a", "b"))), [("a", 7373, None), ("b", 7373, None)])

    def test_a_host_or_an_endpoint_alone_is_a_list_of_one(self) -> None:
        host, endpoint = Host("a"), Endpoint()
        self.assertEqual(parse_hosts(host, {}), (host,))
        self.assertEqual([h.endpoint for h in parse_hosts(endpoint, {})], [endpoint])

    def test_the_same_host_twice_stays_twice(self) -> None:
        self.assertEqual(len(parsed("a,a")), 2)


class DefaultTests(SynchronousTestCase):
    def test_without_a_list_it_is_the_agent_of_this_machine(self) -> None:
        self.assertEqual(parsed(), [("127.0.0.1", 7373, None)])

    def test_without_a_list_the_environment_has_it(self) -> None:
        self.assertEqual(parsed(None, SERF_RPC_ADDR="a:1,b"), [("a", 1, None), ("b", 7373, None)])

    def test_an_empty_variable_is_none(self) -> None:
        self.assertEqual(parsed(None, SERF_RPC_ADDR="", SERF_RPC_AUTH=""), [("127.0.0.1", 7373, None)])

    def test_a_list_goes_before_the_environment(self) -> None:
        self.assertEqual(parsed("b", SERF_RPC_ADDR="a"), [("b", 7373, None)])

    def test_a_host_without_a_key_takes_the_environments(self) -> None:
        hosts = parsed("a,serf://b?AuthKey=own", SERF_RPC_AUTH="100%25,&")
        self.assertEqual(hosts, [("a", 7373, "100%25,&"), ("b", 7373, "own")])

    def test_a_host_object_and_an_endpoint_take_the_environments_key_too(self) -> None:
        keys = [
            key for _, _, key in parsed([Host("a"), Host("b", auth_key=""), Endpoint()], SERF_RPC_AUTH="k")
        ]
        self.assertEqual(keys, ["k", "", "k"])

    def test_the_environment_is_the_processs_unless_one_is_given(self) -> None:
        import os

        self.patch(os, "environ", {"SERF_RPC_ADDR": "c:3", "SERF_RPC_AUTH": "k"})
        (host,) = parse_hosts()
        self.assertEqual((host.address, host.port, host.auth_key), ("c", 3, "k"))


class RefusalTests(SynchronousTestCase):
    def refused(self, hosts: Any, **environ: str) -> str:
        error = self.assertRaises(InvalidHostURL, parse_hosts, hosts, environ)
        return str(error)

    def test_a_bad_port_is_refused_by_its_entry(self) -> None:
        for port in ("0", "65536", "-1", "x", "7373x", "", "1.5", " 1", "+1"):
            for entry in (f"10.1.2.3:{port}", f"serf://10.1.2.3:{port}"):
                self.assertIn("10.1.2.3", self.refused(f"a,{entry}"), entry)

    def test_an_empty_list_is_refused(self) -> None:
        empty: tuple[Any, ...] = ([], (), iter(()))
        for hosts in empty:
            self.assertIn("empty", self.refused(hosts))

    def test_an_empty_entry_is_refused(self) -> None:
        for hosts in ("", " ", ",", "a,", ",a", "a,,b", ["a", ""]):
            self.assertIn("empty entry", self.refused(hosts))

    def test_the_environments_list_is_refused_by_its_variable(self) -> None:
        text = self.refused(None, SERF_RPC_ADDR="a,x:0")
        self.assertIn("$SERF_RPC_ADDR", text)
        self.assertIn("x:0", text)
        self.assertNotIn("SERF_RPC_ADDR", self.refused("x:y", SERF_RPC_ADDR="a"))

    def test_an_ipv6_address_without_brackets_is_refused(self) -> None:
        self.refused("::1")
        self.refused("fe80::1:7373")

    def test_an_entry_without_a_host_is_refused(self) -> None:
        for entry in ("serf://", ":7373", "serf://:7373", "serf://?AuthKey=k"):
            self.refused(entry)

    def test_what_is_no_host_name_is_refused(self) -> None:
        for entry in ("a b", "a%20b", "[::1", "::1]", "[xyz]", "a\\b", "a\x00b", "a/b"):
            self.refused(entry)
        for sign in ";&=\x7f\ud800":
            self.refused(f"a{sign}b")
        for entry in ("[fe80::1%]", "[fe80::1%a;b]", "[fe80::1%a b]", "[::1%a%b]", "serf://[fe80::1%25]"):
            self.refused(entry)

    def test_another_scheme_is_refused(self) -> None:
        for entry in ("http://a", "tcp://a:7373", "serfs://a", "://a"):
            self.refused(entry)

    def test_a_path_or_a_fragment_is_refused(self) -> None:
        for entry in ("serf://a/b", "serf://a#b", "serf://a?AuthKey=k#b"):
            self.refused(entry)

    def test_userinfo_is_refused_and_blotted_out(self) -> None:
        for entry in (
            "serf://user:s3cret@a",
            "serf://s3cret@a:1",
            "user:s3cret@a",
            "s3cret@a",
            ":s3cret@a:7373",
        ):
            text = self.refused(entry)
            self.assertNotIn("s3cret", text)
            self.assertIn("***", text)

    def test_userinfo_with_a_sign_of_a_query_in_it_is_blotted_out(self) -> None:
        for entry in (
            "serf://:s3cret?x@a",
            "serf://:s3cret#x@a",
            "serf://:x?s3cret@a",
            "serf://a?Key=x@s3cret",
        ):
            self.assertNotIn("s3cret", self.refused(entry))

    def test_whatever_may_be_a_key_is_blotted_out_and_the_host_is_not(self) -> None:
        for entry, shown in (
            ("serf://db1.example/s3cret", "serf://db1.example/***"),
            ("serf://db1.example:7373/s3cret", "serf://db1.example:7373/***"),
            ("serf://db1.example#s3cret", "serf://db1.example#***"),
            ("serf://db1.example:s3cret", "serf://db1.example:***"),
            ("db1.example:s3cret", "db1.example:***"),
            ("db1.example:7s3cret", "db1.example:***"),
            ("db1.example:7373s3cret", "db1.example:***"),
            ("db1.example:7373:s3cret", "db1.example:7373:***"),
            ("db1.example:s3cret:7373", "db1.example:***"),
            ("db1.example:7373/s3cret", "db1.example:7373/***"),
            ("db1.example s3cret", "db1.example***"),
            ("db1.example;s3cret", "db1.example;***"),
            ("db1.example?s3cret", "db1.example?***"),
            ("https://db1.example/s3cret", "https://db1.example/***"),
            ("[::1]:s3cret", "[::1]:***"),
            ("[::1]/s3cret", "[::1]/***"),
            ("[::1]s3cret", "***"),
            ("[s3cret]", "***"),
            ("[fe80::1%s3cret!;]", "[fe80::1%***]"),
            ("s3cret=", "***"),
            ("s3cret+x=", "***"),
            ("db1.example:s3@cret", "***"),
            ("s3@cret", "***"),
            ("fe80::1:7373", "fe80::1:7373"),
        ):
            text = self.refused(f"good.example,{entry}")
            self.assertIn(repr(shown), text)
            for part in ("s3", "cret"):
                self.assertNotIn(part, text)

    def test_a_number_that_can_be_no_port_may_be_a_key(self) -> None:
        self.assertNotIn("1234567", self.refused("db1.example:1234567"))
        self.assertNotIn("1234567", self.refused("serf://db1.example:1234567"))
        self.assertIn("70000", self.refused("serf://db1.example:70000"))

    def test_what_follows_a_bare_comma_of_a_key_is_not_shown(self) -> None:
        text = self.refused("serf://db1.example?AuthKey=s3,cret!:x")
        self.assertIn("serf://db1.example?***", text)
        self.assertIn("%2C", text)
        for part in ("s3", "cret"):
            self.assertNotIn(part, text)

    def test_an_unknown_parameter_is_refused(self) -> None:
        for query in ("authkey=s3cret", "AuthKey=s3cret&Timeout=1", "s3cret", "Key=s3cret", "AuthKey"):
            self.assertNotIn("s3cret", self.refused(f"serf://a?{query}"))

    def test_the_refusal_of_a_misspelt_parameter_names_the_right_one(self) -> None:
        for name in ("Authkey", "authkey", "AUTHKEY", "AuthKeys", "Auth-Key", "AuthKye"):
            refusal = self.refused(f"serf://h?{name}=s3cret")
            self.assertIn("did you mean AuthKey?", refusal)
            self.assertNotIn("s3cret", refusal)

    def test_where_no_parameter_is_misspelt_none_is_named(self) -> None:
        for query in ("timeout=3", "s3cret", "AuthKey", "AuthKey=a&b"):
            self.assertNotIn("did you mean", self.refused(f"serf://h?{query}"))

    def test_two_keys_are_refused(self) -> None:
        self.assertNotIn("s3cret", self.refused("serf://a?AuthKey=s3cret&AuthKey=s3cret2"))

    def test_a_key_with_a_bare_ampersand_is_refused(self) -> None:
        text = self.refused("serf://a?AuthKey=s3&cret")
        self.assertIn("%26", text)
        self.assertNotIn("cret", text)

    def test_a_key_with_a_bare_percent_is_refused(self) -> None:
        for key in ("100%", "%", "a%2", "%zz"):
            self.assertIn("%25", self.refused(f"serf://a?AuthKey={key}"))

    def test_a_key_without_a_url_is_refused(self) -> None:
        text = self.refused("10.1.2.3:7373?AuthKey=s3cret")
        self.assertIn("10.1.2.3", text)
        self.assertIn("serf://", text)
        self.assertNotIn("s3cret", text)

    def test_what_is_neither_a_list_nor_an_item_of_one_is_refused(self) -> None:
        for hosts in (7, [7], [None], [["a"]], [b"a"], b"a", object()):
            self.refused(hosts)

    def test_the_entry_that_is_wrong_is_named_and_no_other(self) -> None:
        text = self.refused("good.example,serf://bad.example:0?AuthKey=s3cret")
        self.assertIn("bad.example", text)
        self.assertNotIn("good.example", text)

    def test_no_traceback_shows_a_key(self) -> None:
        for entry in (
            "serf://a:x?AuthKey=s3cret",
            "serf://a:0?AuthKey=s3cret",
            "serf://a?AuthKey=s3cret%",
            "serf://[a?AuthKey=s3cret",
            "serf://a b?AuthKey=s3cret\ns3cret",
            "http://a?AuthKey=s3cret",
            "a?AuthKey=s3cret",
            "serf://a#AuthKey=s3cret",
            "serf://a/AuthKey=s3cret",
            "serf://a/authkey=s3cret",
            "serf://a/Auth%4Bey=s3cret",
            "serf://a:7373&AuthKey=s3cret",
            "serf://a:7373;Key=s3cret",
            "serf://a:7373 AuthKey:s3cret",
            "serf://AuthKey=x@s3cret@a",
            "serf://us/er:s3cret@a",
            "a;AuthKey=s3cret",
            "a&AuthKey=x@s3cret",
            "a/AUTHKEY s3cret",
            "[::1%AuthKey=s3cret]",
            "serf://a?AuthKey=s3cret\ud800",
            "serf://[fe80::1%x?AuthKey=s3cret",
        ):
            # The entry is in a variable, because a traceback quotes the line of the call.
            try:
                parse_hosts(entry, {})
            except InvalidHostURL as error:
                told = "".join(traceback.format_exception(error))
                self.assertNotIn("s3cret", told, entry)
            else:
                self.fail(f"not refused: {entry}")


class HostTests(SynchronousTestCase):
    def test_a_key_is_not_in_its_repr(self) -> None:
        self.assertEqual(
            repr(Host("a", 1, "s3cret")), "Host(address='a', port=1, auth_key='***', endpoint=None)"
        )
        self.assertIn("auth_key=None", repr(Host("a")))

    def test_a_key_is_not_in_its_label(self) -> None:
        self.assertEqual(Host("a", 1, "s3cret").label, "a:1")

    def test_a_label_has_brackets_for_ipv6(self) -> None:
        self.assertEqual(Host("::1").label, "[::1]:7373")

    def test_the_label_of_an_endpoint_of_twisted_is_its_string_without_options(self) -> None:
        reactor: Any = MemoryReactorClock()
        tcp = TCP4ClientEndpoint(reactor, "10.0.0.1", 7373)
        named = HostnameEndpoint(reactor, b"agent.example", 7373, bindAddress="10.0.0.9")
        unix = UNIXClientEndpoint(reactor, "/run/serf.sock")
        options: Any = object()
        for endpoint, label in (
            (tcp, "tcp:10.0.0.1:7373"),
            (TCP6ClientEndpoint(reactor, "::1", 7373), "tcp:[::1]:7373"),
            (named, "tcp:agent.example:7373"),
            (unix, "unix:/run/serf.sock"),
            (UNIXClientEndpoint(reactor, b"\0serf"), "unix:@serf"),
            (SSL4ClientEndpoint(reactor, "agent.example", 7373, options), "ssl:agent.example:7373"),
            (wrapClientTLS(options, named), "tls:agent.example:7373"),
            (wrapClientTLS(options, tcp), "tls:10.0.0.1:7373"),
            (wrapClientTLS(options, unix), "tls:unix:/run/serf.sock"),
        ):
            self.assertEqual(Host(endpoint=endpoint).label, label)

    def test_the_label_of_an_endpoint_with_a_key_for_its_host_does_not_show_it(self) -> None:
        reactor: Any = MemoryReactorClock()
        for address in ("h?AuthKey=s3cret", "user:s3cret@h", "serf://h/s3cret"):
            for kind in (TCP4ClientEndpoint, HostnameEndpoint):
                self.assertNotIn("s3cret", Host(endpoint=kind(reactor, address, 7373)).label)

    def test_the_label_of_an_endpoint_names_its_class(self) -> None:
        self.assertIn("Endpoint at 0x", Host(endpoint=Endpoint(), auth_key="s3cret").label)

    def test_the_label_of_an_endpoint_with_a_repr_of_its_own_is_that(self) -> None:
        class Named(Endpoint):
            def __repr__(self) -> str:
                return "<a tunnel to db1>"

        self.assertEqual(Host(endpoint=Named()).label, "<a tunnel to db1>")

    def test_a_key_that_cannot_be_sent_is_refused_and_not_shown(self) -> None:
        for arguments in ({"address": "a"}, {"endpoint": Endpoint()}):
            error = self.assertRaises(InvalidHostURL, Host, auth_key="s3cret\ud800", **arguments)
            self.assertNotIn("s3cret", str(error))
            self.assertIn("AuthKey", str(error))
        error = self.assertRaises(InvalidHostURL, parse_hosts, "a", {"SERF_RPC_AUTH": "s3cret\ud800"})
        self.assertNotIn("s3cret", str(error))
        Host("a", auth_key="bytes that are no text: \udcff")

    def test_a_host_can_be_compared_and_cannot_be_changed(self) -> None:
        self.assertEqual(Host("a"), Host("a", 7373))
        self.assertRaises(AttributeError, setattr, Host("a"), "port", 1)

    def test_wrong_fields_are_refused(self) -> None:
        wrong: list[dict[str, Any]] = [
            {"address": ""},
            {"address": "a b"},
            {"address": None},
            {"address": b"a"},
            {"address": "a:1"},
            {"address": "a;AuthKey=k"},
            {"address": "a,b"},
            {"address": "fe80::1%a;b"},
            {"address": "[::1]"},
            {"port": 0},
            {"port": 65536},
            {"port": "7373"},
            {"port": True},
            {"port": None},
            {"port": "s3cret"},
            {"auth_key": b"k"},
            {"endpoint": "tcp:a:1"},
        ]
        for fields in wrong:
            error = self.assertRaises(InvalidHostURL, Host, **fields)
            self.assertNotIn("s3cret", str(error))

    def test_a_url_in_place_of_an_address_is_refused_without_its_key(self) -> None:
        for address in (
            "serf://a?AuthKey=s3cret",
            "a?AuthKey=s3cret",
            "a;authkey=s3cret",
            "a/AuthKey=s3cret",
            "user:s3cret@a",
        ):
            error = self.assertRaises(InvalidHostURL, Host, address)
            self.assertNotIn("s3cret", str(error))

    def test_an_address_is_dialled_by_the_kind_of_endpoint_that_it_needs(self) -> None:
        reactor = MemoryReactorClock()
        kinds = [
            type(Host(address).dialled_by(reactor, 5.0)) for address in ("10.0.0.1", "::1", "db.example")
        ]
        self.assertEqual(kinds, [TCP4ClientEndpoint, TCP6ClientEndpoint, HostnameEndpoint])

    def test_an_endpoint_is_dialled_itself(self) -> None:
        endpoint = Endpoint()
        self.assertIs(Host(endpoint=endpoint).dialled_by(None, 5.0), endpoint)
