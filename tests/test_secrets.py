"""No key shows in what an error carries: its text, its chain, and the variables of all frames of its traceback."""

from __future__ import annotations

import itertools
import os
import traceback
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

import txserf
from tests.fakes import Endpoint, Log, Reactor
from txserf.commands import BY_WIRE, Road
from txserf.connection.factory import SerfClientFactory
from txserf.connection.hosts import parse_hosts
from txserf.embedded import EmbeddedCluster
from txserf.errors import hides_arguments

KEY = "s3cret"

#: The commands that take a key.
SECRET = [row for row in BY_WIRE.values() if row.has_secret]


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """Give an error and all that stand behind it, also those that its traceback leaves out."""
    waiting, seen = [error], set()
    while waiting:
        each = waiting.pop()
        if each is not None and id(each) not in seen:
            seen.add(id(each))
            waiting += (each.__cause__, each.__context__)
            yield each


def theirs(found: TracebackType | None) -> TracebackType | None:
    """Leave the frames of this file out: a program's own variables are its own."""
    while found is not None and found.tb_frame.f_code.co_filename == __file__:
        found = found.tb_next
    return found


def told(error: BaseException) -> str:
    """Return all that a tracker of errors can tell of one: texts, tracebacks and variables."""
    texts: list[str] = []
    for each in chain(error):
        found = theirs(each.__traceback__)
        texts.append(repr(each))
        shown = traceback.TracebackException(type(each), each, found, capture_locals=True)
        texts += shown.format()
        failure = Failure(each, type(each), found, captureVars=True)
        texts.append(failure.getTraceback(detail="verbose"))
    return "\n".join(texts)


def raised_by(entry: Callable[..., object], *arguments: Any, **named: Any) -> BaseException:
    try:
        entry(*arguments, **named)
    except Exception as error:
        return error
    raise AssertionError(f"not refused: {entry} {arguments} {named}")


WRONG_HOSTS: Sequence[Any] = (
    f"serf://h/{KEY}",
    f"h:{KEY}",
    f"a,serf://h:0?AuthKey={KEY}",
    f"serf://h?AuthKey={KEY}%",
    f"serf://[h?AuthKey={KEY}",
    f"serf://h?AuthKey={KEY}\ud800",
    f"serf://h?AuthKey=x,{KEY} x",
    [f"serf://a?AuthKey={KEY}", 7],
    [txserf.Host("h", auth_key=KEY), "h:x"],
)


class HostListTests(SynchronousTestCase):
    def refused(self, entry: Callable[..., object], *arguments: Any, **named: Any) -> None:
        error = raised_by(entry, *arguments, **named)
        self.assertIsInstance(error, (txserf.InvalidHostURL, txserf.InvalidRequest, ValueError))
        self.assertNotIn(KEY, told(error), (entry, arguments, named))

    def test_a_wrong_host_list_shows_none(self) -> None:
        for entry in (txserf.Client, txserf.Serf, SerfClientFactory, parse_hosts):
            for hosts in WRONG_HOSTS:
                self.refused(entry, hosts)

    def test_a_right_host_list_beside_a_wrong_argument_shows_none(self) -> None:
        hosts = f"serf://h?AuthKey={KEY}"
        for entry in (txserf.Client, txserf.Serf, SerfClientFactory):
            self.refused(entry, hosts, heartbeat=0)
            self.refused(entry, hosts, connect_timeout=-1)
        self.refused(txserf.Serf, hosts, timeout=-1)

    def test_the_environment_shows_none(self) -> None:
        for name, value in (
            ("SERF_RPC_ADDR", f"serf://h:x?AuthKey={KEY}"),
            ("SERF_RPC_AUTH", f"{KEY}\ud800"),
        ):
            environ = {"SERF_RPC_AUTH": KEY, name: value}
            self.refused(parse_hosts, None, environ)
            self.patch(os, "environ", environ)
            for entry in (txserf.Client, txserf.Serf, SerfClientFactory):
                self.refused(entry)

    def test_a_wrong_host_shows_none(self) -> None:
        for arguments in (
            ("h", KEY),
            ("h", 0, KEY),
            ("h x", 7373, KEY),
            ("h", 7373, f"{KEY}\ud800"),
            (f"serf://h?AuthKey={KEY}",),
            (f"h:{KEY}",),
        ):
            self.refused(txserf.Host, *arguments)
        self.refused(txserf.Host, auth_key=KEY, endpoint=7)

    def test_the_error_of_a_programs_own_list_shows_none(self) -> None:
        hosts = itertools.chain([f"serf://h?AuthKey={KEY}"], map(int, "x"))
        self.refused(txserf.Client, hosts)

    def test_the_embedded_cluster_shows_none(self) -> None:
        self.refused(EmbeddedCluster, auth_key=KEY, encrypt_key=f"{KEY}!")


class KeyTests(SynchronousTestCase):
    def refused(self, entry: Callable[..., object], *arguments: Any, **named: Any) -> None:
        error = raised_by(entry, *arguments, **named)
        self.assertIsInstance(error, txserf.InvalidRequest)
        self.assertNotIn(KEY, told(error), (entry, arguments, named))

    def test_a_key_that_a_client_can_not_queue_is_not_shown(self) -> None:
        client = txserf.Client("h")
        for row in SECRET:
            method = getattr(client, row.wire.replace("-", "_"))
            (name,) = (arg.name for arg in row.args if arg.secret)
            self.refused(method, **{name: [KEY]})
            self.refused(method, **{name: KEY.encode()})
            self.refused(method, **{name: f"{KEY}\ud800"})
            self.refused(method, **{name.lower(): KEY})
            self.refused(method, **{name: KEY}, Node="n1")
            self.refused(method, KEY)

    def test_a_key_that_a_serf_can_not_send_is_not_shown(self) -> None:
        serf = txserf.Serf("h", reactor=MemoryReactorClock())
        for row in SECRET:
            if row.road is Road.GREETING:
                continue  # a Serf takes that key with its hosts
            method = getattr(serf, row.wire.replace("-", "_"))
            self.refused(method, [KEY])
            self.refused(method, KEY.encode())
            self.refused(method, f"{KEY}\ud800")
            self.refused(method, KEY, timeout=-1)
            self.refused(method, KEY, timeout="soon")

    def test_a_key_that_a_factory_can_not_use_is_refused_at_once_and_not_shown(self) -> None:
        factory = SerfClientFactory("h")
        for key in ([KEY], KEY.encode(), f"{KEY}\ud800"):
            self.refused(setattr, factory, "auth_key", key)
        self.assertIsNone(factory.auth_key)
        factory.auth_key = KEY
        factory.auth_key = None


class RepeatedKeyTests(SynchronousTestCase):
    """An agent, or another program in its place, says the key that it was given."""

    def setUp(self) -> None:
        self.log = Log(self)
        self.reactor = Reactor()
        self.endpoint = Endpoint()
        self.host = txserf.Host(endpoint=self.endpoint, auth_key=KEY)

    def failed(self, waiting: Deferred[Any], kind: type[Exception]) -> None:
        error = self.failureResultOf(waiting, kind).value
        self.assertIn("no: ***", str(error))
        self.assertNotIn(KEY, told(error) + self.log.everything)

    def test_the_refusal_of_a_connection_does_not_show_it(self) -> None:
        client = txserf.Client(self.host, reactor=self.reactor)
        waiting = client.members().request()
        agent = self.endpoint.accept()
        agent.greet(f"no: {KEY}")
        agent.finish_closing()
        self.failed(waiting, txserf.AuthenticationError)

    def test_the_refusal_of_a_handshake_does_not_show_it(self) -> None:
        client = txserf.Client(self.host, reactor=self.reactor)
        waiting = client.members().request()
        agent = self.endpoint.accept()
        agent.reply(agent.asked()[0].seq, error=f"no: {KEY}")
        agent.finish_closing()
        self.failed(waiting, txserf.ConnectError)

    def test_the_refusal_of_a_key_that_was_queued_does_not_show_it(self) -> None:
        client = txserf.Client(self.endpoint, reactor=self.reactor)
        waiting = client.members().request()
        agent = self.endpoint.accept_and_greet()
        agent.reply(agent.asked_one("members").seq, {"Members": []})
        self.successResultOf(waiting)
        waiting = client.auth(AuthKey=KEY).request()
        for asked in agent.asked():
            agent.reply(asked.seq, error=f"no: {KEY}" if asked.command == "auth" else "")
        self.failed(waiting, txserf.AuthenticationError)

    def test_the_refusal_of_a_key_of_the_keyring_does_not_show_it(self) -> None:
        for name in ("install_key", "use_key", "remove_key"):
            with self.subTest(name):
                endpoint = Endpoint()
                serf = txserf.Serf(endpoint, reactor=self.reactor)
                serf.startService()
                endpoint.accept_and_greet()
                waiting = getattr(serf, name)(KEY)
                lane = endpoint.accept_and_greet()
                asked = lane.asked_one(name.replace("_", "-"))
                body: dict[str, Any] = {
                    "Keys": None,
                    "Messages": {},
                    "NumErr": 1,
                    "NumNodes": 2,
                    "NumResp": 2,
                }
                lane.reply(asked.seq, body, error=f"no: {KEY}")
                self.failed(waiting, txserf.KeyringError)
                serf.close()


class HidesArgumentsTests(SynchronousTestCase):
    def test_the_lines_of_the_traceback_stay(self) -> None:
        error = raised_by(txserf.Client, "h:x")
        names = [frame.name for frame in traceback.extract_tb(error.__traceback__)]
        self.assertIn("parse_hosts", names)

    def test_the_errors_of_before_stay_as_they_were(self) -> None:
        def fails() -> None:
            programs_own = "kept"
            raise KeyError(programs_own)

        try:
            try:
                fails()
            except KeyError:
                txserf.Client("h:x")
        except txserf.InvalidHostURL as error:
            found = "".join(
                line
                for each in chain(error)
                for line in traceback.TracebackException.from_exception(each, capture_locals=True).format()
            )
        self.assertIn("programs_own = 'kept'", found)

    def test_a_function_keeps_its_name_and_its_result(self) -> None:
        @hides_arguments
        def double(number: int, *, plus: int = 0) -> int:
            return 2 * number + plus

        self.assertEqual((double(2, plus=1), double.__name__), (5, "double"))


class ReprTests(SynchronousTestCase):
    def test_an_object_that_is_half_made_has_a_repr(self) -> None:
        for kind in (txserf.Client, txserf.Serf, SerfClientFactory, txserf.Host):
            self.assertIn(kind.__name__, repr(kind.__new__(kind)))

    def test_a_host_whose_endpoint_can_not_be_shown_has_a_repr(self) -> None:
        class Broken:
            def __repr__(self) -> str:
                raise RuntimeError

        from twisted.internet.interfaces import IStreamClientEndpoint
        from zope.interface import directlyProvides

        endpoint: Any = Broken()
        directlyProvides(endpoint, IStreamClientEndpoint)
        for shown in (txserf.Client(endpoint), txserf.Serf(endpoint), txserf.Host(endpoint=endpoint)):
            self.assertIn("Broken", repr(shown))
