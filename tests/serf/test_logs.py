"""Log streams share the one monitor of a connection, and each gets every line once."""

from __future__ import annotations

from typing import Any

from tests.fakes import reply
from tests.serf_case import SerfCase
from txserf.errors import RpcError
from txserf.serf.logs import LogStream


def line(text: str, level: str = "INFO") -> dict[str, Any]:
    return {"Log": f"2026/11/24 00:47:08 [{level}] agent: {text}"}


class LogCase(SerfCase):
    """
    A test with log streams whose lines are recorded.

    :ivar seq: the Seq of the latest monitor.
    """

    seq: int

    def monitor(self, level: str = "INFO") -> tuple[LogStream, list[str]]:
        """Open a log stream. Return it, and a list that gets the texts of its lines."""
        texts: list[str] = []
        return self.serf.monitor(level).add_callback(lambda got: texts.append(got.text)), texts

    def agree(self) -> None:
        """Answer the request for a monitor, and the round trip after it."""
        asked = [one for one in self.agent.asked() if one.command == "monitor"][-1]
        self.seq = asked.seq
        self.agent.reply(self.seq)
        self.agent.reply(self.agent.asked_one("stop").seq)

    def write(self, *texts: str, level: str = "INFO") -> None:
        self.agent.send(*(reply(self.seq, line(text, level)) for text in texts))


class ReplayTests(LogCase):
    def test_of_a_replay_only_what_is_new_comes(self) -> None:
        _, texts = self.monitor()
        self.agree()
        self.write("a", "b")
        self.reconnect()
        self.agree()
        self.write("a", "b", "c")
        self.assertEqual(texts, ["a", "b", "c"])

    def test_all_of_the_512_lines_that_an_agent_replays_are_known_again(self) -> None:
        _, texts = self.monitor()
        self.agree()
        written = [str(number) for number in range(600)]
        self.write(*written)
        self.reconnect()
        self.agree()
        self.write(*written[-512:])
        self.assertEqual(texts, written)

    def test_behind_the_first_new_line_all_are_new_though_they_read_as_old_ones(self) -> None:
        _, texts = self.monitor()
        self.agree()
        self.write("a", "b")
        self.reconnect()
        self.agree()
        self.write("another agent's", "b")
        self.assertEqual(texts, ["a", "b", "another agent's", "b"])

    def test_lines_before_a_replay_do_not_come_in_it(self) -> None:
        _, texts = self.monitor()
        self.agree()
        self.write("a", "b", "c")
        self.reconnect()
        self.agree()
        self.write("c", "a")
        self.assertEqual(texts, ["a", "b", "c", "a"])

    def test_equal_lines_are_known_again_each_for_itself(self) -> None:
        _, texts = self.monitor()
        self.agree()
        self.write("a", "a")
        self.reconnect()
        self.agree()
        self.write("a", "a", "a")
        self.assertEqual(texts, ["a", "a", "a"])

    def test_a_stream_added_behind_a_lowered_level_gets_each_past_line_once(self) -> None:
        self.monitor("INFO")
        self.agree()
        self.write("i")
        self.monitor("DEBUG")
        self.agree()
        self.write("d", level="DEBUG")
        self.write("i")
        _, texts = self.monitor("DEBUG")
        self.assertEqual(texts, ["d", "i"])


class SharingTests(LogCase):
    def test_a_stream_added_while_the_level_is_lowered_is_not_active_before_it_is(self) -> None:
        self.monitor("INFO")
        self.agree()
        self.monitor("DEBUG")
        late = self.serf.monitor("INFO").when_active()
        self.assertNoResult(late)
        self.agree()
        self.successResultOf(late)

    def test_a_stream_added_between_two_connections_is_not_active_before_the_next_one(self) -> None:
        self.monitor()
        self.agree()
        self.agent.lose()
        late = self.serf.monitor().when_active()
        self.assertNoResult(late)
        self.agent = self.endpoint.accept_and_greet()
        self.agree()
        self.successResultOf(late)

    def test_stopping_twice_is_stopping_once(self) -> None:
        first, _ = self.monitor()
        _, texts = self.monitor()
        self.agree()
        self.successResultOf(first.stop())
        self.successResultOf(first.stop())
        self.write("a")
        self.assertEqual((texts, self.agent.asked()), (["a"], []))

    def test_behind_an_end_the_next_one_has_a_monitor_of_its_own(self) -> None:
        ended = self.serf.monitor()
        self.agree()
        self.reconnect()
        self.agent.reply(self.asked_one("monitor").seq, error="Monitor already exists")
        self.failureResultOf(ended.when_active(), RpcError)
        stream, texts = self.monitor()
        self.agree()
        self.write("a")
        self.assertEqual(texts, ["a"])
        stream.stop()
        self.assertEqual(self.agent.asked_one("stop").body, {"Stop": self.seq})

    def test_a_refused_one_ends_with_the_agents_words_and_may_be_tried_again(self) -> None:
        stream = self.serf.monitor()
        self.agent.reply(self.asked_one("monitor").seq, error="Monitor already exists")
        error = self.failureResultOf(stream.when_active(), RpcError).value
        self.assertEqual(error.message, "Monitor already exists")
        again = self.serf.monitor().when_active()
        self.agree()
        self.successResultOf(again)
