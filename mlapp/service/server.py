"""The HTTP server: uvicorn with limits for slow clients, and supervised workers.

A client must send the headers of a request within a deadline. When a process has reached its limit
of connections, the oldest one that is idle or still sending is closed for a new one.
"""

import asyncio
import logging
import math
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, ClassVar, NoReturn

import httptools
import uvicorn
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from mlapp.errors import InvalidSettings
from mlapp.records import writer as records

HEADER_BYTES = 1 << 16
KEPT_SECONDS = 15  # how long an idle connection is kept
GRACE_SECONDS = 30  # for in-flight requests after SIGTERM or SIGINT
FIRST_SECONDS = 1.0  # for the headers of a first request, or of one that has begun, likewise
BACKLOG = 2048  # connections that the kernel queues for a busy process
MOST_CONNECTIONS = 1 << 16  # of a process, if the system allows that many
SPARE_FILES = 256  # file descriptors kept for models, bodies on disk and the log
STOPPING = frozenset({signal.SIGTERM, signal.SIGINT})

TIMEOUT = b"The headers of the request did not arrive in time"
TOO_LARGE = b"The headers of the request are larger than %d bytes" % HEADER_BYTES

_log = logging.getLogger(__name__)


class Protocol(HttpToolsProtocol):
    """HTTP/1.1 with a deadline and a size for headers, and a limit on connections."""

    opened: ClassVar[dict["Protocol", None]] = {}  # of this process, oldest first
    most: ClassVar[int] = MOST_CONNECTIONS
    timeout: ClassVar[float] = 15  # seconds for the headers of a request

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the clock for the first request's headers."""
        super().connection_made(transport)
        self.access_log = False  # the service writes its own
        self._header_bytes: int | None = 0  # None while no headers are awaited
        self._has_begun = False  # whether a request began in the data received last
        self._trailer_bytes = 0
        self._is_last = False  # whether the connection ends with the next response
        self._timer: asyncio.TimerHandle | None = None
        if len(self.opened) >= self.most:
            self._close_oldest()
        self.opened[self] = None
        self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clock."""
        self.opened.pop(self, None)
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse, and count headers that are not complete yet."""
        self._has_begun = False
        self._unset_keepalive_if_required()
        self._feed(data)
        if self._header_bytes is not None:
            # The body of the request before may be in the same data.
            self._header_bytes += 1 if self._has_begun else len(data)
            if self._header_bytes > HEADER_BYTES:
                self._refuse(431, TOO_LARGE)
            elif self._timer is None:
                self._start_timer()

    def _feed(self, data: bytes) -> None:
        """Parse as uvicorn does, which would lose the body of a request that asks for HTTP/2."""
        pieces: list[bytes | memoryview] = [data]
        while pieces:
            piece = pieces.pop()
            try:
                self.parser.feed_data(piece)
            except httptools.HttpParserUpgrade as upgrade:
                if self._should_upgrade():
                    self.handle_websocket_upgrade()
                    return
                if not self._asks_in_vain():  # CONNECT: what follows is no HTTP
                    return
                pieces += [memoryview(piece)[upgrade.args[0] :], self._plain_head()]
                # The first parser has no body to expect, nor anything after `Connection: close`.
                self.parser = httptools.HttpRequestParser(self)
                self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn
            except httptools.HttpParserError:
                message = "Invalid HTTP request received."
                self.logger.warning(message)
                self.send_400_response(message)
                return

    def _asks_in_vain(self) -> bool:
        """Return whether a request asks for another protocol than is spoken here."""
        return any(name == b"upgrade" for name, _ in self.headers) and not self._should_upgrade()

    def _plain_head(self) -> bytes:
        """Return the head of a request without `Upgrade`, to be ignored (RFC 9110, section 7.8)."""
        version = self.parser.get_http_version().encode()
        lines = [b"%s %s HTTP/%s" % (self.parser.get_method(), self.url, version)]
        lines += [b"%s: %s" % each for each in self.headers if each[0] != b"upgrade"]
        return b"\r\n".join([*lines, b"", b""])

    def on_message_begin(self) -> None:
        """Await the headers of another request."""
        super().on_message_begin()
        self._has_begun = True
        self._header_bytes = self._trailer_bytes = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; what follows a chunked body is none (RFC 9110, section 6.5.1)."""
        if self._header_bytes is not None:
            super().on_header(name, value)
            return
        self._trailer_bytes += len(name) + len(value)
        if self._trailer_bytes > HEADER_BYTES:
            self.transport.abort()

    def on_headers_complete(self) -> None:
        """Stop the clock, and hand the request over."""
        if self.parser.should_upgrade() and self._asks_in_vain():
            return  # it is parsed again without `Upgrade`
        self._header_bytes = None
        self._stop_timer()
        super().on_headers_complete()
        if self._is_last and self.cycle is not None:  # it is None where a websocket begins
            self.cycle.keep_alive = False

    def on_message_complete(self) -> None:
        """Note the end of the body, unless the request is to be parsed again."""
        if self._header_bytes is None:
            super().on_message_complete()

    def shutdown(self) -> None:
        """Close the connection at the end of the server, after the request that is under way.

        A client cannot know that a new connection was closed before its request was read, so one
        that has had no request waits for it, as does one whose next request has begun.
        """
        if self.cycle is None or (self.cycle.response_complete and self._header_bytes):
            self._is_last = True
            self._stop_timer()
            self._start_timer(FIRST_SECONDS)
        else:
            super().shutdown()

    def send_400_response(self, msg: str) -> None:
        """Answer a request that is not HTTP; if a response is being sent, cut it off."""
        if self._is_answering() and self.cycle.response_started:
            self.transport.abort()
        else:
            super().send_400_response(msg)

    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _start_timer(self, most: float = math.inf) -> None:
        self._timer = self.loop.call_later(min(self.timeout, most), self._time_out)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _time_out(self) -> None:
        if self._is_answering():  # these are the headers of a request sent ahead
            self._start_timer()
        elif self._header_bytes is not None:
            self._refuse(408, TIMEOUT)

    def _close_oldest(self) -> None:
        """Close the oldest connection without an in-flight request."""
        for other in self.opened:
            if other.cycle is None or other.cycle.more_body or other.cycle.response_complete:
                self.opened.pop(other)
                other.transport.close()
                return

    def _refuse(self, status: int, detail: bytes) -> None:
        """Close the connection; if a request has begun and is not answered yet, send a reason."""
        if self._header_bytes and not self._is_answering() and not self.transport.is_closing():
            self.transport.write(
                b"%sContent-Type: text/plain; charset=utf-8\r\nContent-Length: %d\r\n"
                b"Connection: close\r\n\r\n%s" % (STATUS_LINE[status], len(detail), detail)
            )
        self.transport.close()


def serve(app: Any, listener: socket.socket, ws: str) -> None:
    """Serve an ASGI application until SIGTERM or SIGINT, which let in-flight requests finish.

    So does SIGHUP, which a terminal sends when it is closed, unless it is ignored.

    Args:
        app: the application.
        listener: a listening socket.
        ws: uvicorn's implementation of websockets, or `none`.
    """
    config = uvicorn.Config(
        app,
        http=Protocol,
        lifespan="on",
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,  # anybody can send them
        backlog=BACKLOG,
        timeout_keep_alive=KEPT_SECONDS,
        timeout_graceful_shutdown=GRACE_SECONDS,
        ws=ws,
    )
    server = uvicorn.Server(config)
    stopping = set(STOPPING)
    if sys.platform != "win32" and signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
        stopping.add(signal.SIGHUP)
    for number in stopping:  # uvicorn would raise the signal again before the log is written
        signal.signal(number, lambda *_: setattr(server, "should_exit", True))
    server.run([listener])


def prepare_process(timeout: float) -> None:
    """Raise this process's limit of connections to what the system allows.

    Args:
        timeout: seconds for the headers of a request.
    """
    Protocol.timeout = timeout
    if sys.platform == "win32":
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_CONNECTIONS if hard == resource.RLIM_INFINITY else min(MOST_CONNECTIONS, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    else:
        wanted = MOST_CONNECTIONS
    Protocol.most = max(SPARE_FILES, wanted - SPARE_FILES)


# --- workers ------------------------------------------------------------------------------------


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket, for several processes to share.

    Raises:
        InvalidSettings: the address cannot be used.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise InvalidSettings(f"{host}, port {port}, cannot be served: {error.strerror}") from error


def run_workers(create: Callable[[], Any], listener: socket.socket, workers: int) -> None:
    """Serve from worker processes until SIGTERM or SIGINT, which let in-flight requests finish.

    A worker that ends, for whatever reason, is replaced. SIGHUP replaces all workers. Workers stop
    when this process ends.

    Args:
        create: called in each worker; returns the ASGI application.
        listener: a listening socket.
        workers: how many processes.
    """
    lifeline, signals = os.pipe(), Signals()

    def fork() -> int:
        if pid := os.fork():
            born[pid] = time.monotonic()
            return pid
        signals.restore()
        os.close(lifeline[1])
        _work(create, listener, lifeline[0])

    born: dict[int, float] = {}
    replaced = set[int]()  # which finish their requests
    for _ in range(workers):
        fork()
    while not (caught := signals.wait()) & STOPPING:
        if signal.SIGHUP in caught:
            _log.info("Replacing all workers")
            for pid in list(born):
                fork()
                del born[pid]
                replaced.add(pid)
                _kill({pid}, signal.SIGTERM)
        for pid in _reap():
            replaced.discard(pid)
            if pid in born:
                _log.warning("Worker %d ended; starting another", pid)
                if time.monotonic() - born.pop(pid) < 1:
                    time.sleep(1)  # a worker that cannot start must not use up the machine
                fork()
    _stop(replaced.union(born), signals)


class Signals:
    """Signals to this process, in order, whichever of its threads receives them."""

    def __init__(self) -> None:
        self._reader, writer = os.pipe()
        os.set_blocking(writer, False)
        signal.set_wakeup_fd(writer)
        for number in (*STOPPING, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(number, lambda *_: None)

    def wait(self, seconds: float | None = None) -> frozenset[int]:
        """Wait for a signal or until the time is over; return the signals that arrived."""
        ready, _, _ = select.select([self._reader], [], [], seconds)
        return frozenset(os.read(self._reader, 512)) if ready else frozenset()

    @staticmethod
    def restore() -> None:
        """Restore the default signal handlers, in a new process."""
        signal.set_wakeup_fd(-1)
        for number in (*STOPPING, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # a terminal sends it to all


def _stop(pids: set[int], signals: Signals) -> None:
    """Let workers finish; kill those that take too long, or all on another interrupt."""
    _kill(pids, signal.SIGTERM)
    end = time.monotonic() + GRACE_SECONDS + 5
    while pids := pids - set(_reap()):
        caught = signals.wait(max(0.0, end - time.monotonic()))
        if not caught or signal.SIGINT in caught:
            _kill(pids, signal.SIGKILL)


def _kill(pids: set[int], number: int) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def _reap() -> list[int]:
    """Return the child processes that have ended."""
    pids = []
    with suppress(ChildProcessError):
        while (pid := os.waitpid(-1, os.WNOHANG)[0]) != 0:
            pids.append(pid)
    return pids


def _work(create: Callable[[], Any], listener: socket.socket, lifeline: int) -> NoReturn:
    """Serve in a new process, and end it."""
    status = 1
    try:
        threading.Thread(target=_follow, args=[lifeline], daemon=True).start()
        serve(create(), listener, ws="none")
        status = 0
    except BaseException:
        _log.exception("A worker failed")
    finally:
        try:
            records.close()
            logging.shutdown()
            sys.stderr.flush()
        finally:
            os._exit(status)  # cleaning up is the parent's task


def _follow(lifeline: int) -> None:
    """Stop when the parent has ended, since nothing would replace this worker."""
    os.read(lifeline, 1)
    os.kill(os.getpid(), signal.SIGTERM)
