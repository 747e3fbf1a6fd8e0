"""The base class for tests of the options of `twistd txserf`: a temporary folder and a command line."""

from __future__ import annotations

import os
import sys
from typing import Any

from twisted.python import usage
from twisted.trial.unittest import SynchronousTestCase

from tests.fakes import new_folder
from txserf.service.options import Options


class OptionsCase(SynchronousTestCase):
    def setUp(self) -> None:
        path = list(sys.path)
        self.addCleanup(setattr, sys, "path", path)
        self.folder = new_folder(self)
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir(self.folder)

    def options(self, *arguments: str, **twistd: Any) -> Options:
        options: Any = Options()
        options.parent = twistd
        options.parseOptions(arguments)
        parsed: Options = options
        return parsed

    def refusal(self, *arguments: str, **twistd: Any) -> str:
        return str(self.assertRaises(usage.UsageError, self.options, *arguments, **twistd))

    def file(self, text: str, name: str = "c.toml") -> str:
        (self.folder / name).write_text(text)
        return name
