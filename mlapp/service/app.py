"""The application factory: limits, keys, headers, errors, the access log, health."""

import functools
import hmac
import json
import logging
import re
import time
from http import HTTPStatus
from typing import Any

from flask import Flask, Response, g, request
from werkzeug.exceptions import HTTPException, Unauthorized
from werkzeug.routing import BaseConverter

from mlapp.errors import InvalidInput, MlappError
from mlapp.service import forms, openapi, v1, v2
from mlapp.service.state import State, state
from mlapp.settings import Settings, read_settings

HEADERS = [
    (
        "Content-Security-Policy",
        "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self';"
        " base-uri 'none'; frame-ancestors 'none'",
    ),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Referrer-Policy", "no-referrer"),
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
]
NOT_KEPT = [*HEADERS, ("Cache-Control", "no-store")]
# What a program may ask without a key: whether the service is there, and what it offers.
OPEN = ("/v2/health/live", "/v2/health/ready")

_access = logging.getLogger("mlapp.access")
_log = logging.getLogger(__name__)


def create_app(settings: Settings | None = None, *, home: bool = True) -> Flask:
    """Return the service as a Flask application.

    Args:
        settings: by default what the environment says.
        home: whether `/` shows the form; False where a dashboard has that place.
    """
    app = Flask(__name__, static_folder="static", static_url_path="/service-static")
    settings = read_settings() if settings is None else settings
    app.config["MAX_CONTENT_LENGTH"] = settings.max_bytes
    app.json.sort_keys = False  # type: ignore[attr-defined]
    app.extensions["mlapp"] = State(settings)
    app.url_map.converters["model"] = _ModelName
    app.before_request(_begin)
    app.after_request(_end)
    app.register_error_handler(Exception, _tell)
    app.register_blueprint(v1.blueprint)
    app.register_blueprint(v2.blueprint)
    app.register_blueprint(forms.blueprint)
    app.register_blueprint(openapi.blueprint)
    if home:
        app.add_url_rule("/", "home", forms.show_form)
    app.add_url_rule("/livez", "livez", lambda: _plain("ok"))
    app.add_url_rule("/readyz", "readyz", _readyz)
    app.add_url_rule("/metrics", "metrics", lambda: _plain(state().metrics()))
    return app


class _ModelName(BaseConverter):
    """A model's name in a path: what follows a colon is what is asked of it."""

    regex = r"[^/:]+"


def _begin() -> None:
    g.began = time.perf_counter()
    key = state().settings.api_key
    if key is None or request.path in OPEN:
        return
    if request.path.startswith(("/v1/", "/v2")) or request.path == "/metrics":
        bearer = request.headers.get("Authorization", "").removeprefix("Bearer ")
        given = request.headers.get("X-API-Key", bearer)
        if not hmac.compare_digest(given.encode(), key.encode()):
            raise Unauthorized("Send the API key as X-API-Key, or as Authorization: Bearer")


def _end(response: Response) -> Response:
    rule = request.url_rule
    response.headers.extend(HEADERS if rule and rule.endpoint == "static" else NOT_KEPT)
    seconds = time.perf_counter() - g.began
    # The rule, not the path: a path could be anything, and so could its number.
    route = _route(rule.rule) if rule else "none"
    here = state()
    here.observe(route, response.status_code, seconds)
    if _access.isEnabledFor(logging.INFO):
        _access.info(_line(here, response, route, seconds))
    return response


@functools.cache
def _route(rule: str) -> str:
    """Return a rule as OpenAPI writes it, with names in braces."""
    return re.sub(r"<(?:[a-z]+:)?([a-z]+)>", r"{\1}", rule)


def _line(here: State, response: Response, route: str, seconds: float) -> str:
    """Return a line about the request; never a text or a value that somebody sent."""
    model = g.get("model")
    line: dict[str, Any] = {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "client": request.remote_addr,
        "method": request.method if route != "none" else "?",
        "route": route,
        "status": response.status_code,
        "milliseconds": round(seconds * 1000, 2),
    }
    if model:
        line["model"], line["version"] = model.manifest.name, model.manifest.version
        line["rows"] = g.get("rows", 0)
    return json.dumps(line) if here.settings.json_log else " ".join(map(str, line.values()))


def _plain(content: str | bytes, status: int = 200) -> Response:
    return Response(content, status, mimetype="text/plain")


def _readyz() -> Response:
    return _plain("ok") if v2.is_ready() else _plain("not ready", 503)


# --- errors ----------------------------------------------------------------------------------


def _tell(error: Exception) -> Response:
    """Translate any error, in the form that the one who asked can read."""
    headers: dict[str, str] = {}
    if isinstance(error, HTTPException):
        if error.response is not None or (error.code or 500) < 400:
            return error.get_response()  # type: ignore[return-value]  # a redirect
        status, detail = error.code or 500, error.description or ""
        headers = {
            name: value
            for name, value in error.get_headers()
            if name in ("Allow", "Retry-After", "WWW-Authenticate")
        }
    elif isinstance(error, MlappError):
        status, detail = error.status, str(error)
    else:
        _log.exception("unexpected error")
        status, detail = 500, "Something unexpected went wrong; the server's log says more"
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if status in (429, 503):
        headers["Retry-After"] = "1"
    faults = error.faults if isinstance(error, InvalidInput) else ()
    content: dict[str, Any] = {
        "faults": [
            {
                "row": fault.row if isinstance(fault.row, int) else None,
                "input": fault.input,
                "got": fault.got,
                "expected": fault.allowed,
            }
            for fault in faults
        ]
    }
    if request.path == "/v2" or request.path.startswith("/v2/"):
        response = v2.answer({"error": detail} | (content if faults else {}), status)
    elif forms.is_page(request.path):
        response = forms.show_error(status, detail)
    else:
        problem = {
            "type": "about:blank",
            "title": HTTPStatus(status).phrase,
            "status": status,
            "detail": detail,
        }
        response = v1.answer(
            problem | (content if faults else {}), status, "application/problem+json"
        )
    response.headers.update(headers)
    return response
