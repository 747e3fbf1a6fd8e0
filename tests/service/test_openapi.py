"""``docs/openapi.json``: the site answers as the file says, whatever it is asked. It needs schemathesis."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.service.test_webactions import TOKEN
from tests.service.web_case import WebCase
from txserf.service.webfiles import page_files
from txserf.service.website import Site

FILE = Path(__file__).parents[2] / "docs" / "openapi.json"

_settings = settings(
    max_examples=15,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


class OpenAPITests(WebCase):
    if find_spec("schemathesis") is None:
        skip = "schemathesis is not installed; pip install 'txserf[test]' brings it"

    def setUp(self) -> None:
        import schemathesis

        super().setUp()
        self.set_tags("n2", role="web", port="9100")
        self.run_for(3.0)
        self.schema = schemathesis.openapi.from_path(str(FILE))

    def make_site(self, **options: Any) -> Site:
        from txserf.service.metrics import Metrics

        return super().make_site(token=TOKEN.encode, metrics=Metrics(self.serf))

    def answered(self, case: Any, token: str | None) -> int:
        """Send what schemathesis has made, hold the answer against the file, and return its status."""
        from schemathesis.core.transport import Response

        asked = case.as_transport_kwargs(base_url="http://localhost:9100")
        if token is not None:
            asked["headers"]["Authorization"] = f"Bearer {token}"
        requests: Any = import_module("requests")  # by its name: mypy takes benchmarks/requests.py for it
        prepared = requests.Request(
            **{name: value for name, value in asked.items() if name != "timeout"}
        ).prepare()
        url = urlsplit(str(prepared.url))
        body = prepared.body or b""
        headers = {
            name: value for name, value in prepared.headers.items() if name.lower() != "content-length"
        }
        reader = self.connect_reader()
        reader.request(
            f"{url.path}?{url.query}" if url.query else url.path,
            str(prepared.method),
            (body.encode() if isinstance(body, str) else bytes(body)).decode("latin-1"),
            **headers,
        )
        self.run_for(0.3)
        got = reader.got
        reader.lose()
        kept = {name: [value] for name, value in got.headers.items()}
        response = Response(got.status, kept, got.body.encode(), prepared, 0.1, False)
        case.validate_response(response, checks=self.checks())
        return got.status

    def checks(self) -> list[Callable[..., Any]]:
        from schemathesis.specs.openapi import checks

        return [
            checks.status_code_conformance,
            checks.content_type_conformance,
            checks.response_headers_conformance,
            checks.response_schema_conformance,
        ]

    def hold(self, path: str, method: str, token: str | None = TOKEN) -> set[int]:
        """Send a number of requests for a path, and return the statuses of the answers."""
        statuses: set[int] = set()

        @_settings
        @given(st.data())
        def check(data: Any) -> None:
            statuses.add(self.answered(data.draw(self.schema[path][method].as_strategy()), token))

        check()
        return statuses

    def test_each_path_is_there_and_no_other_one(self) -> None:
        served = {path.decode(): each.methods[0].decode() for path, each in self.site.resource._paths.items()}
        files = {path.decode() for path in page_files()}
        told = {
            path: method.upper() for path, item in self.schema.raw_schema["paths"].items() for method in item
        }
        self.assertEqual(told, {path: method for path, method in served.items() if path not in files})

    def test_members(self) -> None:
        self.assertIn(200, self.hold("/members", "GET"))

    def test_service_discovery(self) -> None:
        self.assertEqual(self.hold("/sd", "GET") - {200, 400}, set())

    def test_coordinates(self) -> None:
        self.assertIn(200, self.hold("/coordinates", "GET"))

    def test_events(self) -> None:
        self.assertIn(200, self.hold("/events", "GET"))

    def test_what_needs_no_parameters(self) -> None:
        for path in ("/health", "/state", "/metrics"):
            self.assertEqual(self.hold(path, "GET"), {200})

    def test_actions(self) -> None:
        for path in ("/event", "/query", "/force-leave"):
            self.assertIn(200, self.hold(path, "POST"), path)
            self.assertEqual(self.hold(path, "POST", token=None), {401}, path)
