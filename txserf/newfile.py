"""A new file that takes the place of an old one at once."""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from pathlib import Path

from txserf.arguments import what_it_is

# The permissions of a file where there was none.
_MODE = 0o644


class NewFile:
    """
    A file beside the one that it is to replace.

    :param path: the file to be replaced, which need not be there. If it is a link, it stays, and the file that it
        leads to is replaced.
    :param content: the bytes of the new file.
    :param mode: the permissions of the new file; None for those of the old one.
    :param keeps_owner: whether it gets the owner and the group of the old one; else it is this process's.
    :raises OSError: if it can't be written, or can't be given to the owner of the old one.
    :ivar differs: whether the old file has other bytes, or is not there. If not, there is no new one.
    :ivar path: the new file's name.
    """

    def __init__(self, path: Path, content: bytes, mode: int | None, *, keeps_owner: bool = True) -> None:
        self._target = os.path.realpath(path)  # os.replace() would replace a link itself
        self.path: str = ""
        old = self._old()
        self.differs: bool = old is None or Path(self._target).read_bytes() != content
        if self.differs:
            folder, name = os.path.split(self._target)
            fd, self.path = tempfile.mkstemp(dir=folder, prefix=f".{name}.")
            try:
                with os.fdopen(fd, "wb") as file:
                    file.write(content)
                    file.flush()
                    if keeps_owner and old is not None:
                        self._give(fd, old)
                    if mode is None:
                        mode = _MODE if old is None else stat.S_IMODE(old.st_mode)
                    os.fchmod(fd, mode)  # behind the owner, whose change takes away some
                    os.fsync(fd)
            except BaseException:
                self.drop()
                raise

    def _old(self) -> os.stat_result | None:
        try:
            kind = what_it_is(Path(self._target))
        except FileNotFoundError:
            return None
        if kind is not None:
            raise OSError(f"it is {kind}")
        return os.stat(self._target)

    @staticmethod
    def _give(fd: int, old: os.stat_result) -> None:
        new = os.fstat(fd)
        if (new.st_uid, new.st_gid) != (old.st_uid, old.st_gid):
            os.fchown(fd, old.st_uid, old.st_gid)

    def replace(self) -> None:
        """
        Put it in the old file's place.

        :raises OSError: if that can't be done.
        """
        os.replace(self.path, self._target)
        self.path = ""

    def drop(self) -> None:
        """Delete it, unless it has replaced the old one; that it can't be deleted is no error."""
        if self.path:
            with contextlib.suppress(OSError):
                os.unlink(self.path)
            self.path = ""
