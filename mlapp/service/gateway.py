"""The service as an ASGI application: bodies are read before a thread is used.

    request -> host -> body, in time and within its limit -> queue -> Flask on a thread -> response

A client that is slow to send or to read costs a connection, but no thread. Small requests have
their own threads, so that large ones cannot delay them; the others wait in a bounded queue.
"""

import asyncio
import errno
import functools
import io
import logging
import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Awaitable, Callable, Iterable, Iterator, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, BinaryIO, TypeAlias, cast
from urllib.parse import urlsplit

from werkzeug.exceptions import (
    ClientDisconnected,
    HTTPException,
    RequestEntityTooLarge,
    RequestTimeout,
    TooManyRequests,
)

from mlapp.disk import temporary_file, writing
from mlapp.errors import MlappError
from mlapp.service.app import HEADERS, Service
from mlapp.service.bodies import Body

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]
Environ: TypeAlias = dict[str, Any]

SMALL = 1 << 16  # the largest body in bytes that stays in memory, and of a small request
QUICK_THREADS, OTHER_THREADS = 2, 4  # more threads only wait for each other
SLOWEST = 1 << 14  # bytes per second: each so many bytes of a body extend its deadline by a second
DRAINED_SECONDS = 2.0  # how long the rest of a refused body is read, so that the answer arrives
SPARE_SHARE, SPARE_BYTES = 0.05, 1 << 26  # what bodies leave free of the disk: the smaller of both

IMMEDIATE = frozenset({"/livez", "/v2/health/live"})  # answered without a thread
SLOW = (":score", "/feedback")  # reads a file, or waits for the database, however small
LOOPBACK = ("localhost", "127.0.0.1", "::1")

_log = logging.getLogger(__name__)


class Gateway:
    """The service as an ASGI application, alone or combined with a dashboard."""

    def __init__(
        self,
        service: Service,
        hosts: Iterable[str] | None = None,
        dashboard: Application | None = None,
        routes: Iterable[str] = (),
    ) -> None:
        """Wrap a service.

        Args:
            service: the Flask application.
            hosts: the names that a request's `Host` may have, without port; None allows all.
            dashboard: answers the paths that are not the service's, and the lifespan messages.
            routes: the service's paths if there is a dashboard: whole paths, or prefixes that end
                in `/`.
        """
        self.service, self.dashboard = service, dashboard
        self.hosts = None if hosts is None else frozenset(map(str.lower, hosts))
        self.paths = frozenset(route for route in routes if not route.endswith("/"))
        self.folders = tuple(route for route in routes if route.endswith("/"))
        slots = Slots(service.settings.max_concurrent)
        self.quick, self.other = Lane(QUICK_THREADS, slots), Lane(OTHER_THREADS, slots)
        self.reading = Lane(QUICK_THREADS, Slots(service.settings.max_concurrent))
        self.uploads = Lane(1, slots)  # a slow disk delays only these

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or hand it to the dashboard."""
        if scope["type"] == "lifespan":
            await (self.dashboard or _live)(scope, receive, send)
        elif not self.is_allowed_host(scope):
            await _refuse_host(scope, send)
        elif self.dashboard is None or self.owns(scope):
            if scope["type"] == "http":
                await self._answer(scope, receive, send)
            else:
                await send({"type": "websocket.close", "code": 1008})
        else:
            await self.dashboard(scope, receive, _add_headers(send))

    def owns(self, scope: Scope) -> bool:
        """Return whether a path belongs to the service, not to the dashboard."""
        path = scope["path"]
        return path in self.paths or path.startswith(self.folders)

    def is_allowed_host(self, scope: Scope) -> bool:
        """Return whether a request's `Host` is allowed.

        Another site may make its own name resolve to this machine (DNS rebinding); browsers then
        send that name.
        """
        if self.hosts is None:
            return True
        given = [value for name, value in scope["headers"] if name == b"host"]
        if not given and scope.get("http_version") == "1.0":
            return True
        return len(given) == 1 and _host_of(given[0]) in self.hosts

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Read a request's body, let the service answer, and send its answer."""
        environ = make_environ(scope)
        has_body = scope["method"] not in ("GET", "HEAD", "OPTIONS")
        unread: Receive | None = receive if has_body else None
        try:
            if has_body:
                await self._read_body(environ, receive)
                unread = None
            if lane := self._lane(environ, has_body):
                lane.slots.check()
        except (HTTPException, MlappError) as refusal:
            environ["mlapp.refusal"], lane = refusal, None
            environ["wsgi.input"].close()  # frees the disk at once
        try:
            if lane is None:
                head, parts = call(self.service, environ)
                await _send_whole(head, b"".join(parts), send, unread)
            else:
                with lane.slots:
                    rest = await self._run(environ, lane, receive, send)
                if rest:
                    await _send_whole(*rest, send)
        finally:
            environ["wsgi.input"].close()

    def _lane(self, environ: Environ, has_body: bool) -> "Lane | None":
        """Return the lane whose threads answer a request; None if no thread is needed."""
        if not has_body:
            return None if environ["PATH_INFO"] in IMMEDIATE else self.reading
        is_slow = environ["PATH_INFO"].endswith(SLOW)
        return self.other if is_slow or environ["mlapp.received"] > SMALL else self.quick

    async def _read_body(self, environ: Environ, receive: Receive) -> None:
        """Read the body into `wsgi.input`, in memory or on disk.

        Raises:
            HTTPException: it is too large, late, or cut off; or the request would be refused
                whatever its body is.
            DiskFull: it does not fit on the disk.
        """
        length = environ.get("CONTENT_LENGTH", "")
        limit = SMALL
        if not length.isdecimal() or int(length) > SMALL or "HTTP_EXPECT" in environ:
            self.other.slots.check()
            limit = await self.uploads.run(self.service.admit, environ)  # may refuse it unread
            if length.isdecimal() and int(length) > limit:
                raise _make_too_large(limit)
        end = asyncio.get_running_loop().time() + self.service.settings.read_timeout
        received = 0
        body: Any = io.BytesIO()
        while True:
            try:
                async with asyncio.timeout_at(end + received / SLOWEST):
                    message = await receive()
            except TimeoutError:
                raise RequestTimeout("The body of the request did not arrive in time") from None
            if message["type"] == "http.disconnect":
                raise ClientDisconnected
            if data := message.get("body"):
                received += len(data)
                if received > limit:
                    raise _make_too_large(limit)
                if received <= SMALL:
                    body.write(data)
                else:
                    body = environ["wsgi.input"] = await self.uploads.run(_append, body, data)
            if not message.get("more_body"):
                break
        body.seek(0)
        environ["wsgi.input"], environ["mlapp.received"] = body, received
        environ["CONTENT_LENGTH"] = str(received)

    async def _run(
        self, environ: Environ, lane: "Lane", receive: Receive, send: Send
    ) -> "tuple[Head, bytes] | None":
        """Answer a request on a thread of a lane.

        Large responses are sent within the time limit; a small one is returned, since a client
        that does not read it is to hold no slot.
        """
        gone, watcher = threading.Event(), None
        environ["mlapp.gone"] = gone.is_set
        if lane is self.other:
            watcher = asyncio.create_task(_watch(receive, gone))
        try:
            head, parts = await lane.run(call, self.service, environ)
            seconds = self.service.settings.read_timeout
            if not isinstance(parts, list):
                await _send_stream(head, parts, send, lane, gone, seconds)
                return None
            body = b"".join(parts)
            if len(body) <= SMALL:
                return head, body
            with suppress(TimeoutError):  # the server closes the connection
                async with asyncio.timeout(seconds + len(body) / SLOWEST):
                    await _send_whole(head, body, send)
            return None
        finally:
            if watcher:
                watcher.cancel()


class Slots:
    """The slots of requests that run or wait: `with slots` holds one. Not thread-safe."""

    def __init__(self, count: int) -> None:
        self._count, self._taken = count, 0

    def check(self) -> None:
        """Check that a slot is free.

        Raises:
            TooManyRequests: none is.
        """
        if self._taken >= self._count:
            raise TooManyRequests(f"{self._count} requests are in flight; try again in a second")

    def __enter__(self) -> None:
        """Take a slot."""
        self._taken += 1

    def __exit__(self, *_: object) -> None:
        """Release the slot."""
        self._taken -= 1


class Lane:
    """Threads for requests of one kind, and the slots that these requests take."""

    def __init__(self, threads: int, slots: Slots) -> None:
        self._pool = ThreadPoolExecutor(threads, "mlapp")
        self.slots = slots

    def run(self, function: Callable[..., Any], *arguments: Any) -> Awaitable[Any]:
        """Call a function on a thread."""
        return asyncio.get_running_loop().run_in_executor(self._pool, function, *arguments)


# --- the request --------------------------------------------------------------------------------


@functools.lru_cache(maxsize=256)
def _host_of(given: bytes) -> str | None:
    """Return the name in a `Host` header, without port and final dot; None if there is none."""
    try:
        host = urlsplit(f"//{given.decode('latin-1')}").hostname
    except ValueError:
        return None
    return host and host.rstrip(".")


def make_environ(scope: Scope) -> Environ:
    """Return the WSGI environment of an ASGI request, with an empty body.

    Headers with an underscore are dropped: WSGI cannot tell them from those with a hyphen.
    """
    host, port = scope.get("server") or ("localhost", 80)
    environ: Environ = {
        "REQUEST_METHOD": scope["method"],
        "SCRIPT_NAME": "",
        "PATH_INFO": scope["path"].encode().decode("latin-1"),
        "QUERY_STRING": scope["query_string"].decode("latin-1"),
        "SERVER_NAME": host,
        "SERVER_PORT": str(port),
        "SERVER_PROTOCOL": f"HTTP/{scope['http_version']}",
        "REMOTE_ADDR": (scope.get("client") or ("?",))[0],
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scope.get("scheme", "http"),
        "wsgi.input": io.BytesIO(),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
        "wsgi.input_terminated": True,
        "mlapp.received": 0,
    }
    for name, value in scope["headers"]:
        if key := _environ_key(name):
            text = value.decode("latin-1")
            environ[key] = f"{environ[key]},{text}" if key in environ else text
    environ.pop("HTTP_TRANSFER_ENCODING", None)
    return environ


@functools.lru_cache(maxsize=256)
def _environ_key(name: bytes) -> str | None:
    if b"_" in name:
        return None
    key = name.decode("latin-1").upper().replace("-", "_")
    return key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}"


def _append(body: BinaryIO, data: bytes) -> BinaryIO:
    """Append to a body on the disk, which must leave some of it free; return the body.

    Raises:
        DiskFull: it does not fit on the disk.
    """
    if isinstance(body, io.BytesIO):
        data = body.getvalue() + data
        body = temporary_file(Body.name, buffering=0)  # so that a full disk raises at once
    with writing(Body.name):
        disk = shutil.disk_usage(tempfile.gettempdir())
        if disk.free < len(data) + min(SPARE_BYTES, SPARE_SHARE * disk.total):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        while data:
            data = data[body.write(data) :]
    return body


def _make_too_large(limit: int) -> HTTPException:
    return RequestEntityTooLarge(f"The body is larger than {limit:,} bytes")


async def _watch(receive: Receive, gone: threading.Event) -> None:
    """Set an event when the client disconnects."""
    while (await receive())["type"] != "http.disconnect":
        pass
    gone.set()


# --- the answer ---------------------------------------------------------------------------------

Head: TypeAlias = dict[str, Any]


def call(service: Service, environ: Environ) -> tuple[Head, list[bytes] | Iterator[bytes]]:
    """Call the service; return the head of the response, and its body unless it is a stream.

    A stream must be read to its end, or closed.
    """
    head: Head = {"type": "http.response.start"}

    def start(status: str, headers: list[tuple[str, str]], _error: Any = None) -> Any:
        head["status"] = int(status[:3])
        head["headers"] = [_encode(name, value) for name, value in headers]

    answer = service(environ, start)
    if "mlapp.stream" in environ:
        return head, cast(Iterator[bytes], answer)
    try:
        return head, list(answer)
    finally:
        if close := getattr(answer, "close", None):
            close()


@functools.lru_cache(maxsize=256)
def _encode(name: str, value: str) -> tuple[bytes, bytes]:
    return name.lower().encode("latin-1"), value.encode("latin-1")


async def _send_whole(head: Head, body: bytes, send: Send, unread: Receive | None = None) -> None:
    """Send a response.

    Args:
        head: its status and headers.
        body: its body.
        send: sends a message.
        unread: receives the unread rest of the request's body; the connection is then closed.
    """
    if unread is None:
        await send(head)
        await send({"type": "http.response.body", "body": body})
        return
    head["headers"].append((b"connection", b"close"))
    await send(head)
    await send({"type": "http.response.body", "body": body, "more_body": True})
    try:
        # Closing a connection with unread bytes resets it, and the response may be lost.
        async with asyncio.timeout(DRAINED_SECONDS):
            while (await unread()).get("more_body"):
                pass
    except TimeoutError:
        pass
    await send({"type": "http.response.body", "body": b""})


async def _send_stream(
    head: Head,
    parts: Iterator[bytes],
    send: Send,
    lane: Lane,
    gone: threading.Event,
    seconds: float,
) -> None:
    """Send a response while it is computed; if it fails or stalls, the connection is closed."""
    source = iter(parts)
    try:
        await send(head)
        while (part := await lane.run(next, source, None)) is not None:
            async with asyncio.timeout(seconds):
                await send({"type": "http.response.body", "body": part, "more_body": True})
            if gone.is_set():
                return
        await send({"type": "http.response.body", "body": b""})
    except (ConnectionResetError, TimeoutError):
        pass  # the server closes the connection, since the response is incomplete
    finally:
        gone.set()
        if close := getattr(parts, "close", None):
            await lane.run(close)


# --- the dashboard ------------------------------------------------------------------------------


async def _live(scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG001 - ASGI's signature
    """Complete startup and shutdown, with nothing to do."""
    for kind in ("startup", "shutdown"):
        await receive()
        await send({"type": f"lifespan.{kind}.complete"})


async def _refuse_host(scope: Scope, send: Send) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008})
        return
    body = b"This host is not served; MLAPP_HOSTS lists those that are"
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(body))]
    headers += [(b"connection", b"close"), *_SERVICE_HEADERS]
    await send({"type": "http.response.start", "status": 421, "headers": headers})
    await send({"type": "http.response.body", "body": body})


_SERVICE_HEADERS = [_encode(name, value) for name, value in HEADERS]
# Streamlit's page runs inline scripts, evaluates charts and loads fonts from data URLs; nothing is
# loaded from, or sent to, another site.
_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:;"
    " style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:;"
    " connect-src 'self' data: blob:; worker-src 'self' blob:; media-src 'self' data: blob:;"
    " object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'"
)
_DASHBOARD_HEADERS = [
    (name, _POLICY.encode() if name == b"content-security-policy" else value)
    for name, value in _SERVICE_HEADERS
]


def _add_headers(send: Send) -> Send:
    """Return a function that sends the dashboard's messages with security headers."""

    async def send_with_headers(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            own = {name.lower() for name, _ in message.get("headers", [])}
            more = [header for header in _DASHBOARD_HEADERS if header[0] not in own]
            message["headers"] = [*message.get("headers", []), *more]
        await send(message)

    return send_with_headers
