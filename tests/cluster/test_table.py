"""The members of a view: their order, and what `select` finds by its indexes."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from txserf.cluster.matching import Match, TagMatch
from txserf.cluster.table import _MOST_INDEXES, Members, Table
from txserf.errors import InvalidRequest
from txserf.model import Member, Tags

NAMES = st.sampled_from([f"n{number}" for number in range(12)])
VALUES = st.sampled_from(["web", "db", "", "x"])
MEMBERS = st.builds(
    lambda name, status, tags: Member(name=name, status=status, tags=Tags(tags)),
    NAMES,
    st.sampled_from(["alive", "failed", "left", "quarantined"]),
    st.dictionaries(st.sampled_from(["role", "dc"]), VALUES),
)


def starts_with_w(value: str | None) -> bool:
    return value is not None and value.startswith("w")


def is_absent(value: str | None) -> bool:
    return value is None


def is_not_db(value: str | None) -> bool:
    return value != "db"


WANTED: st.SearchStrategy[TagMatch] = st.one_of(
    VALUES, st.sampled_from([starts_with_w, is_absent, is_not_db])
)
MATCHES = st.builds(
    lambda status, tags: Match("select", status, tags),
    st.sampled_from([None, "alive", "failed", "quarantined", "nothing"]),
    st.dictionaries(st.sampled_from(["role", "dc", "other"]), WANTED),
)
STEPS = st.lists(st.one_of(MEMBERS, NAMES, MATCHES), max_size=40)


class TableTests(SynchronousTestCase):
    @given(STEPS)
    def test_select_finds_what_a_scan_finds_in_the_order_of_names(
        self, steps: list[Member | str | Match]
    ) -> None:
        table, scanned = Table(), dict[str, Member]()
        for step in steps:
            if isinstance(step, Member):
                self.assertEqual(table.put(step), scanned.get(step.name))
                scanned[step.name] = step
            elif isinstance(step, str):
                self.assertEqual(table.remove(step), scanned.pop(step, None))
            else:
                expected = [scanned[name] for name in sorted(scanned) if step.matches(scanned[name])]
                self.assertEqual(table.select(step), expected)
            self.assertEqual(list(Members(table).items()), sorted(scanned.items()))

    def test_a_value_asked_for_often_is_not_looked_for_among_all(self) -> None:
        table = Table()
        for number in range(1000):
            table.put(Member(name=f"n{number}", tags=Tags(role="web" if number % 100 else "db")))
        asked: list[str | None] = []

        def even(value: str | None) -> bool:
            asked.append(value)
            return value == "db"

        found = table.select(Match("select", "alive", {"role": even}))
        self.assertEqual(len(found), 10)
        self.assertEqual(sorted(asked, key=str), [None, "db", "web"])  # once for each value

    def test_the_index_by_status_has_only_the_members_that_are_not_alive(self) -> None:
        table = Table()
        for number in range(100):
            table.put(Member(name=f"n{number:02}", status="failed" if number == 7 else "alive"))
        table.select(Match("select", "failed", {}))
        self.assertEqual(table._indexes[None], {"failed": {"n07": None}})
        table.put(Member(name="n08", status="left"))
        table.put(Member(name="n07", status="alive"))
        table.remove("n09")
        self.assertEqual(table._indexes[None], {"left": {"n08": None}})
        self.assertEqual(len(table.select(Match("select", "alive", {}))), 98)

    def test_only_the_tags_that_were_asked_for_last_have_an_index(self) -> None:
        table = Table()
        table.put(Member(name="n1", tags=Tags(role="web")))
        for number in range(3 * _MOST_INDEXES):
            table.select(Match("select", None, {f"tag{number}": "x"}))
        self.assertEqual(len(table._indexes), _MOST_INDEXES)
        self.assertEqual(len(table.select(Match("select", None, {"role": "web"}))), 1)

    def test_a_predicate_that_raises_reaches_the_caller(self) -> None:
        def broken(value: str | None) -> bool:
            raise RuntimeError("no")

        table = Table()
        table.put(Member(name="n1", tags=Tags(role="web")))
        self.assertRaises(RuntimeError, table.select, Match("select", None, {"role": broken}))
        self.assertEqual(len(table.select(Match("select", None, {"role": "web"}))), 1)

    def test_a_wrong_argument_is_refused_and_named(self) -> None:
        cases: list[tuple[str, Callable[[], Match]]] = [
            ("status must be", lambda: Match("select", 1, {})),  # type: ignore[arg-type]
            ("tags must be a mapping", lambda: Match("select", None, ["role"])),  # type: ignore[arg-type]
            ("a tag must be str", lambda: Match("select", None, {1: "x"})),  # type: ignore[dict-item]
            ("tag 'role' must be str or", lambda: Match("select", None, {"role": 1})),  # type: ignore[dict-item]
            ("tag 'role' must be str or", lambda: Match("select", None, None, {"role": None})),  # type: ignore[dict-item]
        ]
        for text, make in cases:
            error = self.assertRaises(InvalidRequest, make)
            self.assertIn(f"select: {text}", str(error))

    def test_the_mapping_shows_its_names_or_their_number(self) -> None:
        table = Table()
        members = Members(table)
        self.assertEqual(repr(members), "<Members: >")
        for number in range(11):
            table.put(Member(name=f"n{number}"))
        self.assertEqual(repr(members), "<Members: 11>")
        self.assertIn("n1", members)
        self.assertNotIn("x", members)
        self.assertRaises(KeyError, members.__getitem__, "x")
        self.assertFalse(hasattr(members, "__setitem__"))
