"""Random stories: each Deferred fires once and nothing is left, whatever programs, agents and the clock do."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.stories import ClientStory, FactoryStory, SessionStory, steps


class StoryTests(SynchronousTestCase):
    @given(story=steps(*FactoryStory.STEPS))
    @settings(deadline=None, max_examples=200)
    def test_a_factory_ends_whatever_endpoints_and_callbacks_do(self, story: list[tuple[str, int]]) -> None:
        happened = FactoryStory()
        happened.tell(story)
        happened.check(self)

    @given(story=steps(*SessionStory.STEPS), reconnect=st.booleans())
    @settings(deadline=None, max_examples=200)
    def test_each_call_of_a_session_ends_once_and_no_change_is_sent_twice(
        self, story: list[tuple[str, int]], reconnect: bool
    ) -> None:
        happened = SessionStory(reconnect)
        happened.tell(story)
        happened.check(self)

    @given(story=steps(*ClientStory.STEPS), reconnect=st.booleans())
    @settings(deadline=None, max_examples=200)
    def test_each_request_of_a_client_ends_once_whatever_its_callbacks_do(
        self, story: list[tuple[str, int]], reconnect: bool
    ) -> None:
        happened = ClientStory(reconnect)
        happened.tell(story)
        happened.check(self)
