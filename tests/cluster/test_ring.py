"""`Ring`: the same owners everywhere, and few keys that move."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections import Counter
from operator import ne

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

import txserf
from txserf.cluster.ring import Ring
from txserf.errors import InvalidRequest
from txserf.model import Member

SEVEN = [f"n{number}" for number in range(7)]
KEYS = [f"key-{number}" for number in range(20_000)]

# A node of an older release has to agree: these can't change.
GOLDEN: dict[str | bytes, list[str]] = {
    "job:12345": ["n3", "n0", "n2", "n5", "n4", "n6", "n1"],
    "ü": ["n3", "n4", "n6", "n2", "n0", "n1", "n5"],
    b"\xff\x00": ["n2", "n6", "n3", "n1", "n4", "n5", "n0"],
}

IN_A_PROCESS = """
import sys
from txserf import Ring
ring = Ring([f"n{number}" for number in range(7)])
print(*(ring.owner(f"key-{number}") for number in range(500)))
"""


class AgreementTests(SynchronousTestCase):
    def test_the_owners_of_a_key_are_the_same_for_ever(self) -> None:
        ring = Ring(SEVEN)
        self.assertEqual({key: ring.owners(key, 7) for key in GOLDEN}, GOLDEN)

    def test_two_processes_with_other_seeds_of_hash_agree(self) -> None:
        said = {
            subprocess.run(
                [sys.executable, "-c", IN_A_PROCESS],
                env=os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)},
                check=True,
                capture_output=True,
                timeout=60,
                text=True,
            ).stdout
            for seed in ("1", "2")
        }
        ring = Ring(SEVEN)
        self.assertEqual(said, {" ".join(str(ring.owner(key)) for key in KEYS[:500]) + "\n"})

    def test_the_order_of_the_members_does_not_matter(self) -> None:
        shuffled = random.Random(7).sample(SEVEN, 7)
        self.assertNotEqual(shuffled, SEVEN)
        for key in KEYS[:200]:
            self.assertEqual(Ring(shuffled).owners(key, 3), Ring(SEVEN).owners(key, 3))
        self.assertEqual(list(Ring(shuffled)), SEVEN)

    def test_only_the_name_of_a_member_counts(self) -> None:
        before = Ring([Member(name=name) for name in SEVEN])
        after = Ring([Member(name=name, tags={"role": "web"}, status="failed") for name in SEVEN])
        for key in KEYS[:200]:
            owners = [before.owner(key), after.owner(key)]
            self.assertEqual({owner and owner.name for owner in owners}, {Ring(SEVEN).owner(key)})

    def test_text_stands_for_its_bytes(self) -> None:
        ring = Ring(SEVEN)
        for key in ("job", "ü", "\udcff\x00"):
            self.assertEqual(ring.owners(key, 7), ring.owners(key.encode("utf-8", "surrogateescape"), 7))

    def test_a_name_and_a_key_are_not_taken_for_another_pair(self) -> None:
        """Without the length of the name both rings would hash the same bytes: n1 and 1x, n11 and x."""
        one = [Ring(["n1", "m1"]).owner(f"1{key}") == "n1" for key in KEYS[:200]]
        other = [Ring(["n11", "m11"]).owner(key) == "n11" for key in KEYS[:200]]
        self.assertGreater(sum(map(ne, one, other)), 50)


class MovedKeysTests(SynchronousTestCase):
    def test_each_member_has_its_share_of_the_keys(self) -> None:
        ring = Ring([f"n{number}" for number in range(10)])
        shares = Counter(ring.owner(key) for key in KEYS)
        self.assertEqual(len(shares), 10)
        for owned in shares.values():
            self.assertLess(abs(owned / len(KEYS) - 1 / 10), 0.01)

    def test_when_a_member_leaves_its_own_keys_move_and_no_others(self) -> None:
        """The ideal is one Nth of the keys."""
        names = [f"n{number}" for number in range(10)]
        before, after = Ring(names), Ring(name for name in names if name != "n4")
        moved = [key for key in KEYS if before.owner(key) != after.owner(key)]
        self.assertEqual(moved, [key for key in KEYS if before.owner(key) == "n4"])
        self.assertLess(abs(len(moved) / len(KEYS) - 1 / 10), 0.005)

    def test_the_keys_of_a_member_that_leaves_are_spread_over_all_others(self) -> None:
        names = [f"n{number}" for number in range(10)]
        before, after = Ring(names), Ring(name for name in names if name != "n4")
        heirs = Counter(after.owner(key) for key in KEYS if before.owner(key) == "n4")
        self.assertEqual(set(heirs), set(names) - {"n4"})
        self.assertLess(max(heirs.values()), 2 * min(heirs.values()))

    @given(st.lists(st.text(), min_size=2, unique=True), st.one_of(st.text(), st.binary()))
    def test_without_its_owner_a_key_goes_to_the_next_one(self, names: list[str], key: str | bytes) -> None:
        owners = Ring(names).owners(key, len(names))
        self.assertEqual(sorted(owners), sorted(names))
        rest = Ring(name for name in names if name != owners[0])
        self.assertEqual(rest.owners(key, len(names)), owners[1:])


class UseTests(SynchronousTestCase):
    def test_it_is_a_public_name(self) -> None:
        self.assertIs(txserf.Ring, Ring)

    def test_what_it_was_made_of_comes_back(self) -> None:
        members = [Member(name=name, tags={"role": "web"}) for name in SEVEN]
        ring = Ring(members)
        self.assertEqual(list(ring), members)
        self.assertIs(ring.owner("job:12345"), members[3])
        self.assertEqual(ring.owners("job:12345", 2), [members[3], members[0]])

    def test_a_ring_without_members_has_no_owners(self) -> None:
        ring: Ring[Member] = Ring([])
        self.assertIsNone(ring.owner("job"))
        self.assertEqual(ring.owners("job", 3), [])
        self.assertEqual((len(ring), repr(ring)), (0, "<Ring of 0>"))

    def test_more_owners_than_members_are_all_members(self) -> None:
        self.assertEqual(sorted(Ring(SEVEN).owners("job", 100)), SEVEN)

    def test_a_ring_does_not_change_with_the_list_that_it_was_made_of(self) -> None:
        names = list(SEVEN)
        ring = Ring(names)
        names.clear()
        self.assertEqual(list(ring), SEVEN)

    def test_bad_input_is_named(self) -> None:
        ring = Ring(SEVEN)
        for call, text in (
            (lambda: Ring("n1"), "ring: members must be a sequence, not str"),
            (lambda: Ring(None), "ring: members must be a sequence, not NoneType"),  # type: ignore[arg-type]
            (lambda: Ring([b"n1"]), "ring: members must be Member or str, but hold bytes"),  # type: ignore[type-var]
            (lambda: Ring(["n1", "n1"]), "ring: there are two members 'n1'"),
            (lambda: Ring(["\ud800"]), "ring: '\\ud800' is no name of a member"),
            (lambda: ring.owner(7), "ring: a key must be str or bytes, not int"),  # type: ignore[arg-type]
            (lambda: ring.owner("\ud800"), "ring: a key has a surrogate that stands for no byte"),
            (lambda: ring.owners("job", 0), "ring: count must be an int of at least 1, not 0"),
            (lambda: ring.owners("job", True), "ring: count must be an int of at least 1, not True"),
        ):
            self.assertEqual(str(self.assertRaises(InvalidRequest, call)), text)
