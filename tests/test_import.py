"""Importing txserf installs no reactor, and loads the upper layers at their first use."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import txserf

ROOT = Path(__file__).parents[1]


def modules_after(statement: str) -> set[str]:
    """Run *statement* in a new interpreter, and return the modules that it loaded."""
    script = f"import sys; sys.path.insert(0, sys.argv[1]); {statement}; print(*sys.modules)"
    argv = [sys.executable, "-W", "error", "-c", script, str(ROOT)]
    return set(subprocess.run(argv, check=True, capture_output=True, text=True).stdout.split())


class ImportTests(SynchronousTestCase):
    def test_importing_txserf_installs_no_reactor(self) -> None:
        self.assertNotIn("twisted.internet.reactor", modules_after("import txserf"))

    def test_importing_txserf_loads_no_embedded_cluster_and_none_of_the_upper_layers(self) -> None:
        loaded = modules_after("import txserf")
        ours = {name for name in loaded if name.partition(".")[0] == "txserf"}
        self.assertEqual(ours, {"txserf", "txserf.constant", "txserf.errors"})

    def test_serf_loads_what_dials_and_what_reads_urls_at_its_first_use(self) -> None:
        loaded = modules_after("import txserf; txserf.Serf()")
        late = {"twisted.internet.endpoints", "twisted.internet.reactor", "OpenSSL", "hyperlink"}
        self.assertEqual(loaded & late, set())

    def test_the_embedded_cluster_is_loaded_at_its_first_use(self) -> None:
        loaded = modules_after("import txserf; txserf.embedded.EmbeddedCluster()")
        self.assertIn("txserf.embedded", loaded)
        self.assertNotIn("twisted.internet.reactor", loaded)
        self.assertIn("embedded", dir(txserf))

    def test_all_public_names_are_there_without_a_reactor(self) -> None:
        statement = "import txserf; [getattr(txserf, name) for name in txserf.__all__]"
        self.assertNotIn("twisted.internet.reactor", modules_after(statement))
