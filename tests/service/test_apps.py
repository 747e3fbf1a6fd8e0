"""The router made from the options: errors name the option, and leave imported modules as they were."""

from __future__ import annotations

import os
import sys

from twisted.trial.unittest import SynchronousTestCase

from tests.fakes import new_folder
from txserf.model import UserEvent
from txserf.service.apps import make_router
from txserf.service.settings import ConfigError

APP = """
import txserf
router = txserf.Router()
@router.user_event("deploy")
def {name}(event): pass
class inner: routes = router
"""


class AppCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = new_folder(self)
        sys.path.insert(0, str(self.folder))
        self.addCleanup(sys.path.remove, str(self.folder))
        self.addCleanup(self.forget, set(sys.modules))

    def forget(self, before: set[str]) -> None:
        for name in set(sys.modules) - before:
            del sys.modules[name]

    def module(self, name: str, text: str) -> None:
        (self.folder / f"{name}.py").write_text(text)

    def refusal(self, *specs: str, app: str | None = None, again: bool = False) -> str:
        error = self.assertRaises(ConfigError, make_router, specs, app, folder=str(self.folder), again=again)
        return str(error)

    def labels(self, *specs: str, app: str | None = None, again: bool = False) -> list[str]:
        """Return the labels of the handlers for the event ``deploy``."""
        router = make_router(specs, app, folder=str(self.folder), again=again)
        return [handler.label for handler in router.routes().handlers(UserEvent("deploy"))]


class HandlerTests(AppCase):
    def test_scripts_are_in_the_order_of_their_options(self) -> None:
        self.assertEqual(self.labels("user:deploy=true", "other", "user:x=false"), ["true", "other"])

    def test_a_bad_filter_is_refused_with_those_that_there_are(self) -> None:
        told = self.refusal("deploy=true")
        self.assertIn("--handler 'deploy=true': 'deploy' is no event type; there are user, query, ", told)

    def test_a_script_that_does_not_exist_is_refused(self) -> None:
        self.assertIn("./deploy.sh does not exist", self.refusal("user=./deploy.sh now"))

    def test_a_script_that_is_not_executable_is_refused(self) -> None:
        (self.folder / "deploy.sh").write_text("#!/bin/sh\n")
        self.assertIn("./deploy.sh is not executable", self.refusal("user=./deploy.sh now"))

    def test_a_script_is_looked_for_in_the_folder_where_it_will_be_run(self) -> None:
        (self.folder / "deploy.sh").touch(mode=0o755)
        self.assertEqual(self.labels("user=./deploy.sh now"), ["./deploy.sh now"])

    def test_what_a_shell_makes_of_other_words_is_its_own_business(self) -> None:
        for command in ("no-such-word", "X=1 ./nothing", "$DIR/deploy.sh", "cat | ./nothing"):
            self.assertEqual(self.labels(f"user={command}"), [command])


class ApplicationTests(AppCase):
    def test_handlers_of_an_application_come_before_scripts(self) -> None:
        self.module("txserf_test_app", APP.format(name="first"))
        self.assertEqual(
            self.labels("user=then", app="txserf_test_app:router"), ["txserf_test_app.first", "then"]
        )

    def test_it_may_be_an_attribute_of_something(self) -> None:
        self.module("txserf_test_app", APP.format(name="first"))
        self.assertEqual(self.labels(app="txserf_test_app:inner.routes"), ["txserf_test_app.first"])

    def test_a_script_of_its_that_does_not_exist_is_refused(self) -> None:
        self.module("txserf_test_app", 'import txserf\nr = txserf.Router()\nr.add_script("./gone.sh")')
        self.assertIn("./gone.sh does not exist", self.refusal(app="txserf_test_app:r"))

    def test_what_names_no_module_and_attribute_is_refused(self) -> None:
        for app in ("txserf_test_app", "txserf_test_app:", ":router", ""):
            self.assertIn("--app is MODULE:NAME", self.refusal(app=app))

    def test_an_unknown_module_is_refused(self) -> None:
        self.assertEqual(
            self.refusal(app="txserf_nowhere:router"),
            "--app txserf_nowhere:router: there is no module txserf_nowhere",
        )
        self.assertIn("no module txserf_nowhere", self.refusal(app="txserf_nowhere.ops:router"))

    def test_a_name_that_can_be_no_module_is_refused(self) -> None:
        for name in (".ops", "a b", "..", "a/b"):
            self.assertIn(f"--app {name}:router: ", self.refusal(app=f"{name}:router"))

    def test_a_missing_attribute_is_refused(self) -> None:
        self.module("txserf_test_app", "")
        self.assertIn("txserf_test_app has no router", self.refusal(app="txserf_test_app:router"))

    def test_what_is_no_router_is_refused(self) -> None:
        self.module("txserf_test_app", "router = [1]")
        self.assertIn("is a list, not a txserf.Router", self.refusal(app="txserf_test_app:router"))

    def test_a_module_that_fails_is_refused_with_its_reason_and_place(self) -> None:
        self.module("txserf_test_app", "\nraise OSError('no such luck\\non this line')")
        told = self.refusal(app="txserf_test_app:router")
        self.assertIn("can't be imported: OSError: no such luck on this line", told)
        self.assertIn("txserf_test_app.py, line 2", told)
        self.assertNotIn("\n", told)

    def test_a_module_that_misses_another_one_is_not_called_missing_itself(self) -> None:
        self.module("txserf_test_app", "import txserf_nowhere")
        self.assertIn("No module named 'txserf_nowhere'", self.refusal(app="txserf_test_app:router"))

    def test_a_module_with_a_syntax_error_is_refused_with_its_place(self) -> None:
        self.module("txserf_test_app", "def (:")
        self.assertIn("(txserf_test_app.py, line 1)", self.refusal(app="txserf_test_app:router"))

    def test_a_module_that_exits_is_refused(self) -> None:
        self.module("txserf_test_app", "raise SystemExit(3)")
        self.assertIn("SystemExit: 3", self.refusal(app="txserf_test_app:router"))

    def test_an_attribute_that_fails_is_refused_with_its_reason_and_place(self) -> None:
        for error in ("SystemExit(3)", "OSError(3)"):
            self.module("txserf_test_lazy", f"def __getattr__(name):\n    raise {error}")
            told = self.refusal(app="txserf_test_lazy:router", again=True)
            self.assertTrue(told.startswith("--app txserf_test_lazy:router: router can't be read: "), told)
            self.assertIn(f"{error.partition('(')[0]}: 3 (", told)
            self.assertIn("txserf_test_lazy.py, line 2)", told)


class AgainTests(AppCase):
    def setUp(self) -> None:
        super().setUp()
        self.module("txserf_test_app", APP.format(name="before"))
        self.labels(app="txserf_test_app:router")
        self.old = sys.modules["txserf_test_app"]

    def test_a_module_is_imported_once_unless_it_is_asked_for_again(self) -> None:
        self.module("txserf_test_app", APP.format(name="something_else"))
        self.assertEqual(self.labels(app="txserf_test_app:router"), ["txserf_test_app.before"])
        self.assertEqual(
            self.labels(app="txserf_test_app:router", again=True), ["txserf_test_app.something_else"]
        )

    def test_functions_of_the_old_one_keep_what_they_know(self) -> None:
        known = self.old.before.__globals__
        self.module("txserf_test_app", APP.format(name="something_else"))
        self.labels(app="txserf_test_app:router", again=True)
        self.assertNotIn("something_else", known)
        self.assertIs(known["before"], self.old.before)

    def test_where_the_new_one_fails_the_old_one_stays_imported(self) -> None:
        self.module("txserf_test_app", "1 / 0  # quite another length than before")
        self.assertIn("ZeroDivisionError", self.refusal(app="txserf_test_app:router", again=True))
        self.assertIs(sys.modules["txserf_test_app"], self.old)

    def test_nor_is_it_replaced_where_something_else_is_wrong(self) -> None:
        self.module("txserf_test_app", APP.format(name="something_else"))
        for specs, app in (
            (("deploy=true",), "txserf_test_app:router"),
            (("user=./gone.sh",), "txserf_test_app:router"),
            ((), "txserf_test_app:gone"),
            ((), "txserf_test_app:inner"),
        ):
            self.refusal(*specs, app=app, again=True)
            self.assertIs(sys.modules["txserf_test_app"], self.old, (specs, app))

    def test_a_package_has_the_old_one_back_too(self) -> None:
        (self.folder / "txserf_test_package").mkdir()
        self.module("txserf_test_package/__init__", "")
        self.module("txserf_test_package/ops", APP.format(name="before"))
        self.labels(app="txserf_test_package.ops:router")
        old = sys.modules["txserf_test_package.ops"]
        self.module("txserf_test_package/ops", APP.format(name="something_else"))
        self.refusal("user=./gone.sh", app="txserf_test_package.ops:router", again=True)
        self.assertIs(sys.modules["txserf_test_package.ops"], old)
        self.assertIs(sys.modules["txserf_test_package"].ops, old)

    def test_a_module_that_was_written_meanwhile_is_found(self) -> None:
        times = self.folder.stat()
        self.refusal(app="txserf_test_new:router", again=True)
        self.module("txserf_test_new", APP.format(name="new"))
        # Reset the folder's time, as on a file system with coarse times.
        os.utime(self.folder, ns=(times.st_atime_ns, times.st_mtime_ns))
        self.assertEqual(self.labels(app="txserf_test_new:router", again=True), ["txserf_test_new.new"])
