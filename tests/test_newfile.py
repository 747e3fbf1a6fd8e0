"""A new file takes the place of an old one at once: its bytes, its permissions, its owner."""

from __future__ import annotations

import os
import stat
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from tests.fakes import new_folder
from txserf.newfile import NewFile


class NewFileTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.path = new_folder(self) / "file"

    def write(self, content: bytes, mode: int | None = None, *, keeps_owner: bool = True) -> None:
        new = NewFile(self.path, content, mode, keeps_owner=keeps_owner)
        self.assertTrue(new.differs)
        new.replace()
        new.drop()
        self.assertEqual(self.path.read_bytes(), content)
        self.assertEqual(os.listdir(self.path.parent), ["file"])

    def mode(self) -> int:
        return stat.S_IMODE(self.path.stat().st_mode)

    def test_it_has_the_permissions_that_are_given_else_those_of_the_old_one(self) -> None:
        self.write(b"1")
        self.assertEqual(self.mode(), 0o644)
        self.path.chmod(0o640)
        self.write(b"2")
        self.assertEqual(self.mode(), 0o640)
        self.write(b"3", 0o600)
        self.assertEqual(self.mode(), 0o600)

    def test_it_gets_the_owner_of_the_old_one_unless_it_is_to_be_this_processs(self) -> None:
        self.write(b"1")
        given: list[tuple[int, int]] = []
        old = self.path.stat()
        with mock.patch("os.fchown", lambda fd, user, group: given.append((user, group))):
            with mock.patch("os.fstat", return_value=mock.Mock(st_uid=12345, st_gid=12345)):
                self.write(b"2", keeps_owner=False)
                self.assertEqual(given, [])
                self.write(b"3")
        self.assertEqual(given, [(old.st_uid, old.st_gid)])

    def test_one_that_is_dropped_or_has_the_same_bytes_leaves_the_old_one(self) -> None:
        self.write(b"1")
        old = self.path.stat()
        dropped = NewFile(self.path, b"2", None)
        dropped.drop()
        dropped.drop()
        same = NewFile(self.path, b"1", 0o600)
        same.drop()
        self.assertFalse(same.differs)
        self.assertEqual((self.path.stat().st_ino, self.mode()), (old.st_ino, 0o644))
        self.assertEqual(os.listdir(self.path.parent), ["file"])

    def test_it_is_on_the_disk_before_it_takes_the_place(self) -> None:
        done: list[str] = []
        with (
            mock.patch("os.fsync", lambda fd: done.append("on the disk")),
            mock.patch("os.replace", lambda new, old: done.append("replaced")),
        ):
            NewFile(self.path, b"1", None).replace()
        self.assertEqual(done, ["on the disk", "replaced"])
