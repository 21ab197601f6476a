"""The application factory: limits, keys, headers, errors, the access log, health."""

import functools
import hmac
import json
import logging
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from flask import Flask, Request, Response, request
from flask.sessions import NullSession, SessionInterface
from werkzeug.datastructures import WWWAuthenticate
from werkzeug.exceptions import HTTPException, MethodNotAllowed, NotFound, Unauthorized
from werkzeug.routing import BaseConverter, IntegerConverter, MapAdapter

from mlapp.answering import Channel
from mlapp.errors import InvalidInput, MlappError, describe
from mlapp.service import feedback, forms, openapi, score, v1, v2
from mlapp.service.bodies import JsonResponse
from mlapp.service.state import State, state
from mlapp.settings import Settings, read_settings

_access = logging.getLogger("mlapp.access")
_log = logging.getLogger(__name__)

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

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
MODEL_METHOD = re.compile(r"/v1/models/[^/:]+(?:/versions/[0-9]+)?:(.*)", re.DOTALL)
MOST_MATCHED, LONGEST_MATCHED = 1000, 200  # paths whose rules are cached, and their length
NOT_KEPT = [*HEADERS, ("Cache-Control", "no-store")]
CHANNELS: dict[str, Channel] = {"forms": "form", "v1": "v1", "v2": "v2", "score": "file"}
# The endpoints that answer without an API key: HTML pages, documents and health checks. All others
# need it, and so does a path that matches no endpoint.
OPEN = frozenset(
    {
        "forms.predict",
        "forms.text_form",
        "forms.show_form",
        "forms.to_form",
        "home",
        "livez",
        "openapi.docs",
        "openapi.document",
        "readyz",
        "static",
        "v2.live",
        "v2.ready",
    }
)


class _NoSession(SessionInterface):
    """Disables sessions, which nothing here uses."""

    _session = NullSession()

    def open_session(self, app: Flask, request: Request) -> NullSession:  # noqa: ARG002
        """Return an empty session."""
        return self._session


class Service(Flask):
    """Flask, with headers, metrics and the access log at the WSGI level, where they cost least.

    Attributes:
        log: called with each request's line for the access log.
    """

    log: Callable[[str], object] = staticmethod(_access.info)
    session_interface = _NoSession()

    def wsgi_app(
        self, environ: "WSGIEnvironment", start_response: "StartResponse"
    ) -> Iterable[bytes]:
        """Answer a request; add the headers, count it, and log it when its answer is sent."""
        began = time.perf_counter()
        status = "500"

        def start(line: str, headers: list[tuple[str, str]], failed: Any = None) -> Any:
            nonlocal status
            status = line[:3]
            rule = environ.get("mlapp.rule")
            kept = rule is not None and rule.endpoint == "static"
            added = HEADERS if kept else NOT_KEPT
            if "mlapp.id" in environ:
                added = [("Mlapp-Id", environ["mlapp.id"]), *added]
            return start_response(line, headers + added, failed)

        try:
            answered = self._answer_directly(environ)
            return (answered or super().wsgi_app)(environ, start)
        finally:
            if stream := environ.get("mlapp.stream"):
                stream.call_on_close(lambda: self._note(environ, status, began))
            else:
                self._note(environ, status, began)

    def _answer_directly(self, environ: "WSGIEnvironment") -> Response | JsonResponse | None:
        """Answer without Flask's contexts, where `direct` allows it and the path is known.

        What cannot be answered so is refused by Flask, with the error as `mlapp.refusal`.
        """
        path = environ["PATH_INFO"]
        if environ["REQUEST_METHOD"] != "POST" or "mlapp.refusal" in environ or not path.isascii():
            return None
        here: State = self.extensions["mlapp"]
        rule, values = here.matched.get((path, "POST"), (None, {}))
        if rule is None:
            return None
        handler = getattr(self.view_functions[rule.endpoint], "handler", None)
        if handler is None:
            return None
        environ["mlapp.rule"] = rule
        try:
            _check_key(here.settings.api_key, rule.endpoint, environ)
            answered: Response | JsonResponse = handler(here, environ, **values)
        except Exception as error:
            environ["mlapp.refusal"] = error
            return None
        return answered

    def _note(self, environ: "WSGIEnvironment", status: str, began: float) -> None:
        seconds = time.perf_counter() - began
        # The rule, not the path: the number of paths is unlimited.
        rule = environ.get("mlapp.rule")
        route = _route(rule.rule) if rule else "none"
        here: State = self.extensions["mlapp"]
        here.metrics.observe(route, status, environ.get("mlapp.model"), seconds)
        self.log(_line(here.settings.json_log, environ, route, status, seconds))

    @property
    def settings(self) -> Settings:
        """The settings of the application."""
        here: State = self.extensions["mlapp"]
        return here.settings

    def admit(self, environ: "WSGIEnvironment") -> int:
        """Return the largest body that a request may have, in bytes, before the body is read.

        Raises:
            HTTPException: the request would be refused whatever its body is.
        """
        with self.request_context(environ):
            if request.routing_exception is not None:
                raise request.routing_exception
            _check_key(self.settings.api_key, request.endpoint, environ)
            is_file = request.blueprint == score.blueprint.name
        return self.settings.max_file_bytes if is_file else self.settings.max_bytes

    def is_open(self, path: str, method: str) -> bool:
        """Return whether a route answers without an API key.

        Raises:
            HTTPException: there is no such route.
        """
        endpoint, _ = self.url_map.bind("").match(path, method)
        return endpoint in OPEN

    # The methods below skip parts of Flask that nothing here uses and that took a third of the time
    # of a short request: sessions, signals, hooks before and after, international host names.

    def full_dispatch_request(self) -> Response:
        """Answer the current request, with an error if it was refused before its body was read."""
        answered: Any
        try:
            _check(self.settings.api_key)
            answered = self.dispatch_request()
        except Exception as error:
            answered = self.handle_user_exception(error)
        return answered if type(answered) is JsonResponse else self.make_response(answered)  # type: ignore[return-value]

    def create_url_adapter(self, request: Request | None) -> MapAdapter | None:
        """Return the adapter that matches the request's path, whatever its host."""
        if request is None:
            return None
        environ = request.environ
        host, scheme = environ.get("HTTP_HOST", "localhost"), environ["wsgi.url_scheme"]
        query = environ.get("QUERY_STRING", "")
        adapter = _Adapter(self.url_map, host, "/", "", scheme, request.path, request.method, query)
        adapter.matched, adapter.environ = self.extensions["mlapp"].matched, environ
        return adapter

    def do_teardown_request(self, exc: BaseException | None = None) -> None:
        """Do nothing: no functions are registered for the end of a request."""

    def do_teardown_appcontext(self, exc: BaseException | None = None) -> None:
        """Do nothing: no functions are registered for the end of a request."""


def create_app(settings: Settings | None = None, *, home: bool = True) -> Service:
    """Return the service as a Flask application.

    Args:
        settings: by default those of the environment.
        home: whether `/` shows the form; False if a dashboard is served there.
    """
    app = Service(__name__, static_folder="static", static_url_path="/service-static")
    settings = read_settings() if settings is None else settings
    app.url_map.converters |= {"model": _ModelName, "int": _Version}
    app.extensions["mlapp"] = State(settings)
    app.register_error_handler(Exception, _handle_error)
    app.register_blueprint(v1.blueprint)
    app.register_blueprint(score.blueprint)
    app.register_blueprint(feedback.blueprint)
    app.register_blueprint(v2.blueprint)
    app.register_blueprint(forms.blueprint)
    app.register_blueprint(openapi.blueprint)
    if home:
        app.add_url_rule("/", "home", forms.show_home)
    app.add_url_rule("/livez", "livez", lambda: _plain("ok"))
    app.add_url_rule("/readyz", "readyz", _readyz)
    app.add_url_rule("/metrics", "metrics", lambda: _plain(state().expose_metrics()))
    return app


class _ModelName(BaseConverter):
    """A model's name in a path; it ends before a colon, which precedes the method."""

    regex = r"[^/:]+"


class _Version(IntegerConverter):
    """A version's number in a path; each has one spelling."""

    regex = r"0|[1-9][0-9]{0,17}"


class _Adapter(MapAdapter):
    """Matches paths to rules, with a cache of the last paths that matched."""

    matched: OrderedDict[tuple[str, str], Any]
    environ: "WSGIEnvironment"  # of the request, which keeps the rule as `mlapp.rule`

    def match(self, *args: Any, **kwargs: Any) -> Any:
        """Return the rule and the values in the path; calls unlike Flask's are not cached."""
        if args or kwargs != {"return_rule": True}:
            return super().match(*args, **kwargs)
        key = (self.path_info, self.default_method)
        found = self.matched.get(key)
        if found is None:
            found = super().match(return_rule=True)
            if len(self.path_info) <= LONGEST_MATCHED:
                self.matched[key] = found
                if len(self.matched) > MOST_MATCHED:
                    self.matched.popitem(last=False)
        rule, values = found
        self.environ["mlapp.rule"] = rule
        return rule, dict(values)


def _check(key: str | None) -> None:
    """Raise the error that a request was already refused with, or check its API key."""
    if refusal := request.environ.get("mlapp.refusal"):
        raise refusal
    _check_key(key, request.endpoint, request.environ)


def _check_key(key: str | None, endpoint: str | None, environ: "WSGIEnvironment") -> None:
    """Check the API key of a request, if one is set, unless its endpoint is open.

    The matched endpoint decides, since the path of an endpoint has many spellings.

    Raises:
        Unauthorized: the request has no key, or a wrong one.
    """
    if key is None or endpoint in OPEN:
        return
    given = _given_key(environ)
    challenge = {"realm": "mlapp"}
    if given is None:
        why = "Send the API key as X-API-Key, or as Authorization: Bearer"
    elif any(hmac.compare_digest(given, each) for each in _spellings(key)):
        return
    else:
        challenge["error"], why = "invalid_token", "The API key is wrong"
    raise Unauthorized(why, www_authenticate=_Challenge("bearer", {**challenge}))


class _Challenge(WWWAuthenticate):
    """A challenge with its parameters in quotes, as RFC 9110, section 11.5, requires of a realm."""

    def to_header(self) -> str:
        """Return the header's value."""
        quoted = ", ".join(f'{name}="{value}"' for name, value in self.parameters.items())
        return f"{self.type.title()} {quoted}"


def _given_key(environ: "WSGIEnvironment") -> bytes | None:
    """Return the bytes of the API key of a request, or None.

    The name of an authentication scheme is case-insensitive (RFC 9110, section 11.1); one token
    follows it (RFC 6750, section 2.1).
    """
    given = environ.get("HTTP_X_API_KEY")
    if given is None:
        scheme, _, given = environ.get("HTTP_AUTHORIZATION", "").partition(" ")
        if scheme.lower() != "bearer":
            return None
    return str(given).strip(" \t").encode("latin-1")  # WSGI's text of a header is its bytes


@functools.cache
def _spellings(key: str) -> tuple[bytes, ...]:
    """Return the bytes that clients send for a key: as UTF-8, and as Latin-1 if possible."""
    try:
        return key.encode(), key.encode("latin-1")
    except UnicodeEncodeError:
        return (key.encode(),)


@functools.cache
def _route(rule: str) -> str:
    """Return a rule in the syntax of OpenAPI, with names in braces."""
    return re.sub(r"<(?:[a-z]+:)?([a-z]+)>", r"{\1}", rule)


@functools.lru_cache(maxsize=2)
def _stamp(second: int) -> str:
    """Return a Unix time in the format of RFC 3339."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(second))


def _line(
    as_json: bool, environ: "WSGIEnvironment", route: str, status: str, seconds: float
) -> str:
    """Return the access log's line of a request, which never contains texts or values from it."""
    stamp, client = _stamp(int(time.time())), environ.get("REMOTE_ADDR", "?")
    method = environ["REQUEST_METHOD"] if route != "none" else "?"
    model = environ.get("mlapp.model")
    name, version = (model.manifest.name, model.manifest.version) if model else ("-", 0)
    rows = environ.get("mlapp.rows", 0)
    if not as_json:
        took = f"{seconds * 1000:.2f}"
        return f"{stamp} {client} {method} {route} {status} {took} {name} {version} {rows}"
    line = {
        "time": stamp,
        "client": client,
        "method": method,
        "route": route,
        "status": int(status),
        "milliseconds": round(seconds * 1000, 2),
    }
    if model:
        line |= {"model": name, "version": version, "rows": rows}
    return json.dumps(line)


def _plain(content: str | bytes, status: int = 200) -> Response:
    return Response(content, status, mimetype="text/plain")


def _readyz() -> Response:
    return _plain("ok") if v2.is_ready() else _plain("not ready", 503)


# --- errors ----------------------------------------------------------------------------------


def _handle_error(error: Exception) -> Response | JsonResponse:
    """Return the response for any error, in the format of the route's protocol."""
    headers: dict[str, str] = {}
    response: Response | JsonResponse
    if isinstance(error, HTTPException):
        if error.response is not None or (error.code or 500) < 400:
            return error.get_response()  # type: ignore[return-value]  # a redirect
        status, detail = error.code or 500, _describe_refusal(error)
        headers = {
            name: value
            for name, value in error.get_headers()
            if name in ("Allow", "Retry-After", "WWW-Authenticate")
        }
    elif isinstance(error, MlappError):
        status, detail = error.status, str(error)
    else:
        _log.exception("unexpected error")
        status, detail = 500, "Something unexpected went wrong; see the server's log"
    if status in (429, 503):
        headers["Retry-After"] = "1"
    faults = error.faults if isinstance(error, InvalidInput) else ()
    if channel := CHANNELS.get(request.blueprint or ""):
        state().note_refusal(request.environ, channel, status, faults)
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
        response = JsonResponse({"error": detail} | (content if faults else {}), status)
    elif forms.is_page(request.path):
        response = forms.show_error(status, detail)
    else:
        problem: dict[str, Any] = {
            "type": "about:blank",
            "title": HTTPStatus(status).phrase,
            "status": status,
            "detail": detail,
        }
        response = JsonResponse(
            problem | (content if faults else {}), status, "application/problem+json"
        )
    response.headers.update(headers)
    return response


def _describe_refusal(error: HTTPException) -> str:
    """Return what is wrong, in our own words where Werkzeug's do not say what is allowed."""
    path, method = describe(request.path), describe(request.method)
    if isinstance(error, MethodNotAllowed):
        allowed = ", ".join(sorted(error.valid_methods or ()))
        return f"Method: got {method}, expected one of {allowed} for {path}"
    if not isinstance(error, NotFound):
        return error.description or ""
    if found := MODEL_METHOD.fullmatch(request.path):
        return f"Method of a model: got {describe(found[1])}, expected predict, explain or score"
    return f"Nothing is at {path}; /docs lists the routes"
