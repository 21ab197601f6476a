"""The API key: which endpoints need it, and which headers carry it."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from http.client import HTTPConnection
from itertools import product
from pathlib import Path
from urllib.parse import quote

import pytest
from flask import Flask
from werkzeug.routing import Rule

from mlapp.service import create_app
from mlapp.service.app import OPEN
from mlapp.settings import read_settings
from tests.conftest import Server, client_of

KEY = "secret"
FILLED = {"name": "regression", "version": 1, "filename": "style.css"}


@pytest.fixture
def app(folder: Path) -> Flask:
    return create_app(replace(read_settings(), api_key=KEY))


def path_of(app: Flask, rule: Rule) -> str:
    with app.test_request_context():
        values = {name: FILLED[name] for name in rule.arguments}
        return app.url_map.bind("localhost").build(
            rule.endpoint, values, method=None, force_external=False
        )


def spellings(path: str) -> list[str]:
    """Return ways to write a path that a router might take for the same."""
    encoded = "/".join("".join(f"%{ord(c):02x}" for c in part) for part in path.split("/"))
    first, _, rest = path.removeprefix("/").partition("/")
    return [
        path,
        f"/{path}",
        f"//{path}",
        path.replace("/", "//"),
        f"{path}/",
        f"/.{path}",
        f"/x/..{path}",
        path.upper(),
        path.title(),
        encoded,
        f"/%2e{path}",
        f"/{first}%2f{rest}",
        quote(path, safe=""),
        f"{path};a=b",
        f"{path}%00",
        f"{path}?X-API-Key={KEY}",
    ]


METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH")


@pytest.fixture(scope="module", params=[["--api-only"], []], ids=["alone", "with dashboard"])
def server(
    request: pytest.FixtureRequest, models: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("log") / "keys.log"
    started = Server(models, log, *request.param, MLAPP_API_KEY=KEY)
    yield started
    started.stop()


def ask(connection: HTTPConnection, method: str, path: str) -> tuple[int, bytes]:
    """Send a path as it is, which other clients would correct."""
    connection.putrequest(method, path, skip_accept_encoding=True)
    connection.putheader("Content-Length", "0")
    connection.endheaders()
    answer = connection.getresponse()
    return answer.status, answer.read()


@pytest.mark.slow
def test_no_spelling_of_a_path_gets_an_answer_without_the_key(app: Flask, server: Server) -> None:
    rules = [rule for rule in app.url_map.iter_rules() if rule.endpoint not in OPEN]
    assert {"v1.predict", "v2.infer", "metrics"} <= {rule.endpoint for rule in rules}
    asked = product({path_of(app, rule) for rule in rules}, METHODS)
    with closing(HTTPConnection("127.0.0.1", server.port, timeout=60)) as connection:
        for path, method in asked:
            for spelling in spellings(path):
                status, body = ask(connection, method, spelling)
                # The dashboard answers every path that is not the service's with its one page.
                page = b"<title>Streamlit</title>" in body or (method == "HEAD" and not body)
                refused = status in (301, 307, 308, 400, 401, 403, 404, 405)
                assert refused or page, f"{method} {spelling} got {status}: {body[:200]!r}"


def test_an_endpoint_is_closed_unless_it_is_named_as_open(app: Flask) -> None:
    assert {rule.endpoint for rule in app.url_map.iter_rules()} >= OPEN
    app.add_url_rule("/other", "other", lambda: "open")
    assert client_of(app).get("/other").status_code == 401


@pytest.mark.parametrize("path", ["/livez", "/v2/health/live", "/form", "/openapi.json"])
def test_health_checks_pages_and_documents_need_no_key(app: Flask, path: str) -> None:
    assert client_of(app).get(path).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"X-API-Key": KEY},
        {"Authorization": f"Bearer {KEY}"},
        {"Authorization": f"bearer {KEY}"},
        {"Authorization": f"BEARER  {KEY}"},
    ],
)
def test_the_scheme_of_a_key_has_no_case(app: Flask, headers: dict[str, str]) -> None:
    assert client_of(app).get("/v1/models", headers=headers).status_code == 200


@pytest.mark.parametrize(
    ("headers", "error"),
    [
        ({}, None),
        ({"Authorization": KEY}, None),
        ({"Authorization": f"Basic {KEY}"}, None),
        ({"Authorization": f"Bearer{KEY}"}, None),
        ({"Authorization": "Bearer other"}, "invalid_token"),
        ({"X-API-Key": ""}, "invalid_token"),
    ],
)
def test_a_missing_and_a_wrong_key_are_answered_with_a_challenge(
    app: Flask, headers: dict[str, str], error: str | None
) -> None:
    answer = client_of(app).get("/v1/models", headers=headers)
    assert answer.status_code == 401
    given = answer.www_authenticate
    assert (given.type, given["realm"], given.get("error")) == ("bearer", "mlapp", error)


@pytest.mark.parametrize("path", ["/v1/models/regression:predict", "/v2/models/regression/infer"])
def test_a_path_that_was_answered_with_the_key_still_needs_it(app: Flask, path: str) -> None:
    client, body = client_of(app), {"instances": [[1, 2, 3, 4, 5]], "inputs": []}
    for _ in range(2):
        assert client.post(path, json=body, headers={"X-API-Key": KEY}).status_code in (400, 422)
        assert client.post(path, json=body).status_code == 401


@pytest.mark.parametrize("key", ["schlüssel", "ключ", "鍵 with space"])
@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
def test_a_key_need_not_be_ascii(folder: Path, key: str, encoding: str) -> None:
    try:
        given = key.encode(encoding)
    except UnicodeEncodeError:
        pytest.skip(f"{key} cannot be written in {encoding}")
    client = client_of(create_app(replace(read_settings(), api_key=key)))
    header = {"HTTP_X_API_KEY": given.decode("latin-1")}
    assert client.get("/v1/models", environ_overrides=header).status_code == 200
    header = {"HTTP_X_API_KEY": (given + b"x").decode("latin-1")}
    assert client.get("/v1/models", environ_overrides=header).status_code == 401
