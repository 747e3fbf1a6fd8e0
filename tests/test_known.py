"""Known items: their values are found by their bytes, and are the same ones that who unpacks them gets."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.fakes import MEMBER, MEMBERS, NO_MEMBERS
from txserf import commands, wire
from txserf.errors import ProtocolError
from txserf.known import KnownItems


def item(name: str, note: object = None) -> dict[str, Any]:
    """Return an item as an agent packs it: its fields are in alphabetical order."""
    return {"Name": name, "Note": note}


def named(body: Any) -> list[str]:
    """Read the items of a body."""
    names = [each["Name"] for each in body["Members"]]
    if not all(isinstance(name, str) for name in names):
        raise ProtocolError("Name is no text")
    return names


def found_again(known: KnownItems, body: bytes) -> list[Any] | None:
    """Return the values of a body that comes for the second time."""
    known.find(body)
    return known.find(body)


class KnownItemsTests(SynchronousTestCase):
    """The values of items that came before are found by their bytes. Whoever unpacks a body gets the same ones."""

    def setUp(self) -> None:
        self.read = 0
        self.known = KnownItems("Members", ("Note", "Name"), self.names, lambda name: name)

    def names(self, body: Any) -> list[str]:
        self.read += len(body["Members"])
        return named(body)

    def values(self, *items: Any) -> list[str] | None:
        """Return the values of items that have come before."""
        return found_again(self.known, wire.pack({"Members": items}))

    def test_an_item_that_comes_for_the_first_time_has_none(self) -> None:
        a, b = item("a"), item("b")
        for items, expected in (([a], None), ([a, b], None), ([b], ["b"]), ([b, a], ["a", "b"])):
            self.assertEqual(self.known.find(wire.pack({"Members": items})), expected)

    def test_an_item_is_read_once_whatever_order_the_items_have(self) -> None:
        a, b, c = item("a"), item("b", {"x": 1}), item("c")
        for items in ((a, b), (b, a), (c, b, a), (b,), (a, b, c)):
            self.assertEqual(self.values(*items), sorted(each["Name"] for each in items))
        self.assertEqual(self.read, 3)

    def test_an_item_of_which_any_part_has_changed_is_read_anew(self) -> None:
        for each in (item("a"), item("a", 1), item("a", 2), item("b", 2), item("b", "2")):
            self.assertEqual(self.values(each), [each["Name"]])
        self.assertEqual(self.read, 5)

    def test_no_items_are_an_empty_list(self) -> None:
        self.assertEqual(self.values(), [])

    def test_each_list_is_its_callers_own(self) -> None:
        for _ in range(3):
            found = self.values(item("a"), item("b"))
            assert found is not None
            self.assertEqual(found, ["a", "b"])
            found.clear()

    def test_a_body_that_is_not_whole_has_none(self) -> None:
        body = wire.pack({"Members": [item("a"), item("b", {"x": [1, 2]})]})
        for _ in range(2):
            for end in range(len(body)):
                self.assertIsNone(found_again(self.known, body[:end]), body[:end])
            self.assertEqual(found_again(self.known, body), ["a", "b"])

    def test_a_body_with_more_behind_it_has_none(self) -> None:
        body = wire.pack({"Members": [item("a")]})
        more = body[-len(wire.pack(item("a"))) :]
        for _ in range(2):
            for behind in (b"\x00", b"\xc0", more, body, b"\x82"):
                self.assertIsNone(found_again(self.known, body + behind))
            self.assertEqual(found_again(self.known, body), ["a"])

    def test_a_body_of_another_shape_has_none(self) -> None:
        items = [item("a")]
        bodies: list[Any] = [
            {"Other": items},
            {"Members": items, "Num": 1},
            {"Members": None},
            {},
            items,
            None,
        ]
        for body in bodies:
            self.assertIsNone(found_again(self.known, wire.pack(body)))

    def test_items_of_another_shape_have_none(self) -> None:
        for each in ({**item("a"), "Other": 1}, {"Note": None, "Name": "a"}, {"Name": "a"}, {}, None, 7):
            self.assertIsNone(self.values(each))

    def test_items_that_cannot_be_read_have_none(self) -> None:
        for name in (1, None, "\udcff"):
            for items in ([item(name)], [item("a"), item(name)]):  # type: ignore[arg-type]
                self.assertIsNone(self.values(*items))

    def test_an_item_with_what_looks_like_the_beginning_of_an_item_has_none_or_its_own_value(self) -> None:
        looks = wire.pack(item("b"))
        for each in (item("a", looks), item("a", [item("b")]), item("a", looks[:5]), item("a", looks[1:])):
            self.assertIn(self.values(each), (None, ["a"]))
        self.assertEqual(self.values(item("b")), ["b"])

    def test_items_with_a_field_more_have_none(self) -> None:
        # Nobody reads it, and it could be nested as deep as an agent likes.
        known = KnownItems("Members", ("Name", "Note"), named, lambda name: name)
        more = {"Name": "a", "Other": [[]]}
        self.assertIsNone(found_again(known, wire.pack({"Members": [more]})))

    def test_what_was_forgotten_is_read_anew(self) -> None:
        for number in (1, 2):
            self.assertIsNone(self.known.find(wire.pack({"Members": [item("a")]})))
            self.assertEqual(self.values(item("a")), ["a"])
            self.assertEqual(self.read, number)
            self.known.clear()

    def test_a_long_list_has_none(self) -> None:
        self.assertEqual(self.values(*[item("a")] * 15), ["a"] * 15)
        self.assertIsNone(self.values(*[item("a")] * 16))

    def test_no_more_are_kept_than_a_few_hundred(self) -> None:
        found = 0
        for number in range(2_000):
            names = [f"{number}", f"{number + 1}"]
            values = self.values(*map(item, names))
            if values is not None:  # else one of them was forgotten meanwhile
                self.assertEqual(values, sorted(names))
                found += 1
            self.known.find(wire.pack({"Members": [item(f"once {number}")]}))
            self.assertLess(len(self.known._known), 300)
            self.assertLess(len(self.known._seen), 300)
        self.assertGreater(found, 1_900)

    def test_a_large_item_is_not_kept(self) -> None:
        self.assertIsNone(self.values(item("a", "x" * 2_000)))
        self.assertEqual((self.known._known, self.known._seen), ({}, set()))


# Those of the last three kinds look like other items, or have others in them.
_ITEMS = st.lists(
    st.builds(
        item,
        st.sampled_from(["a", "b", "c"]),
        st.sampled_from([None, 1, {"x": "y"}, wire.pack(item("a")), wire.pack(item(""))[:-2], [item("b")]]),
    ),
    max_size=6,
)


class PropertyTests(SynchronousTestCase):
    @given(lists=st.lists(_ITEMS, min_size=1, max_size=4))
    @settings(deadline=None)
    def test_they_have_the_values_that_who_unpacks_them_gets(self, lists: list[list[dict[str, Any]]]) -> None:
        known = KnownItems("Members", ("Name", "Note"), named, lambda name: name)
        for items in lists:
            expected = sorted(each["Name"] for each in items)
            found = found_again(known, wire.pack({"Members": items}))
            if all(each["Note"] in (None, 1, {"x": "y"}) for each in items):
                self.assertEqual(found, expected)
            else:
                self.assertIn(found, (None, expected))

    @given(
        items=_ITEMS,
        wrong=st.binary(max_size=2),
        at=st.integers(0, 200),
        cut=st.integers(0, 3),
    )
    @settings(deadline=None)
    def test_a_spoilt_body_has_none_or_those_that_who_unpacks_it_gets(
        self, items: list[dict[str, Any]], wrong: bytes, at: int, cut: int
    ) -> None:
        known = KnownItems("Members", ("Name", "Note"), named, lambda name: name)
        body = wire.pack({"Members": items})
        found_again(known, body)
        at %= len(body)
        spoilt = body[:at] + wrong + body[at + cut :]
        found = found_again(known, spoilt)
        if found is not None:
            self.assertEqual(found, sorted(named(wire.unpackb(spoilt))))


class TableTests(SynchronousTestCase):
    def test_what_a_row_knows_is_what_it_decodes(self) -> None:
        rows = [row for row in commands.TABLE if row.known is not None]
        self.assertEqual([row.wire for row in rows], ["members", "members-filtered"])
        other = {**MEMBER, "Name": "a", "Tags": {"b": "c", "d": "e"}, "Status": "left"}
        for row in rows:
            assert row.known is not None
            for body in (MEMBERS, NO_MEMBERS, {"Members": [MEMBER, other]}, {"Members": [other] * 15}):
                for _ in range(2):
                    self.assertEqual(found_again(row.known, wire.pack(body)), row.decode(body))
