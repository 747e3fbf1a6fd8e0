"""The server's side of a connection: one request after the other, in each state of `ServerProtocol`."""

from __future__ import annotations

from twisted.internet import error

from tests.embedded.helpers import ClusterTestCase, Line
from txserf.embedded import EmbeddedCluster
from txserf.embedded.server import ServerState

SLOW = ({"Command": "tags", "Seq": 2}, {"Tags": {"a": "1"}})  # 0.1 s where there are other nodes
MEMBERS = {"Command": "members", "Seq": 3}


class StateTests(ClusterTestCase):
    def seqs(self, line: Line) -> list[int]:
        """Take the objects that came, and return the Seqs of the headers among them."""
        return [header["Seq"] for header in line.take() if "Seq" in header]

    def test_requests_behind_a_slow_one_wait_for_it(self) -> None:
        line = self.connect(self.cluster())
        line.send(*SLOW, MEMBERS)
        self.clock.advance(0)
        self.assertEqual(self.seqs(line), [])
        self.run_for(0.2)
        self.assertEqual(self.seqs(line), [2, 3])

    def test_thousands_of_requests_that_are_done_at_once_do_not_nest(self) -> None:
        line = self.connect(self.cluster(1))
        line.send(*SLOW * 3000, MEMBERS)
        self.run_for(1.0)
        self.assertEqual(self.seqs(line), [2] * 3000 + [3])

    def test_a_client_that_has_ended_gets_the_replies_to_all_it_has_sent(self) -> None:
        line = self.connect(self.cluster())
        line.send(*SLOW, MEMBERS)
        line.transport.loseWriteConnection()  # type: ignore[union-attr]  # a connection in memory has it
        self.run_for(0.3)
        self.assertEqual(self.seqs(line), [2, 3])
        self.assertTrue(line.lost is not None and line.lost.check(error.ConnectionDone))

    def test_bytes_that_are_no_request_end_the_connection_after_the_replies_to_those_before(self) -> None:
        line = self.connect(self.cluster())
        line.send(*SLOW, MEMBERS, b"\xc1")
        self.run_for(0.3)
        self.assertEqual(self.seqs(line), [2, 3])
        self.assertTrue(line.lost is not None and line.lost.check(error.ConnectionDone))

    def held(self) -> tuple[EmbeddedCluster, Line]:
        """Return a cluster whose first agent is paused, with a connection that it owes a reply."""
        cluster = self.cluster()
        line = self.connect(cluster)
        line.send(*SLOW, MEMBERS)
        self.clock.advance(0)
        cluster.agents["n1"].pause()
        self.run_for(0.3)
        self.assertEqual(self.seqs(line), [])
        return cluster, line

    def test_a_result_that_a_pause_held_back_comes_before_the_next_reply(self) -> None:
        cluster, line = self.held()
        cluster.agents["n1"].resume()
        self.clock.advance(0)
        self.assertEqual(self.seqs(line), [2, 3])

    def test_a_connection_that_is_dropped_in_a_pause_gets_no_reply_after_it(self) -> None:
        cluster, line = self.held()
        cluster.agents["n1"].drop_connections()
        cluster.agents["n1"].resume()
        self.run_for(0.3)
        self.assertEqual(self.seqs(line), [])
        self.assertTrue(line.lost is not None and line.lost.check(error.ConnectionLost))

    def test_a_connection_that_the_client_cuts_in_a_pause_leaves_nothing(self) -> None:
        cluster, line = self.held()
        line.transport.abortConnection()  # type: ignore[union-attr]  # likewise
        self.clock.advance(0)
        cluster.agents["n1"].resume()
        self.run_for(0.3)
        self.assertEqual(cluster.agents["n1"].connections, 0)

    def test_a_connection_that_is_gone_takes_no_further_step(self) -> None:
        cluster = self.cluster()
        line = self.connect(cluster)
        process = cluster.agents["n1"].process
        assert process is not None
        (server,) = process.connections
        line.transport.abortConnection()  # type: ignore[union-attr]  # likewise
        self.clock.advance(0)
        self.assertIs(server.state, ServerState.GONE)  # type: ignore[attr-defined]  # it is a ServerProtocol
        for state in ServerState:
            with self.assertRaises(AssertionError):
                server._move(state)  # type: ignore[attr-defined]  # likewise
