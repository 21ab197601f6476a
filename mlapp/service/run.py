"""`mlapp serve`: dashboard and service in one process, or the service alone on many workers."""

import atexit
import ipaddress
import logging
import sys
import threading
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from flask import Flask

from mlapp.errors import ArtifactError, InvalidSettings
from mlapp.repository import repository
from mlapp.service.app import create_app
from mlapp.settings import Settings, dashboard_script, read_settings

THREADS = 32  # per worker; one that waits for a slow client costs nothing else
GRACE = 30  # seconds for the requests in hand when asked to stop
ROUTES = (
    "/form",
    "/predict",
    "/livez",
    "/readyz",
    "/metrics",
    "/openapi.json",
    "/docs",
    "/service-static/{rest:path}",
    "/v1/{rest:path}",
    "/v2",
    "/v2/{rest:path}",
)


def check_exposure(host: str, settings: Settings, open_to_all: bool) -> None:
    """Refuse to serve others than this machine without a key, and say what is served.

    Raises:
        InvalidSettings: the host is not loopback, there is no key, and it was not said twice.
    """
    try:
        loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = False
    if settings.api_key is None and not loopback and not open_to_all:
        raise InvalidSettings(
            f"MLAPP_API_KEY: got nothing, expected a key to serve {host}; --open serves all without"
        )
    if settings.api_key is None:
        whom = "this machine only" if loopback else "everybody who reaches it"
        print(f"No MLAPP_API_KEY is set: the service answers {whom}, without a key", flush=True)


def start_logging() -> None:
    """Send what is logged to standard error, a line each."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)


class AccessLog:
    """Writes lines to standard error a few times a second, at once.

    A write lets other threads run, and the one that wrote then waits for its turn: a write in
    every request would cost more than the request.
    """

    def __init__(self, seconds: float = 0.2) -> None:
        self._lines: deque[str] = deque()
        self.append = self._lines.append
        threading.Thread(target=self._write, args=[seconds], daemon=True).start()
        atexit.register(self.flush)

    def flush(self) -> None:
        """Write what there is."""
        lines = [self._lines.popleft() for _ in range(len(self._lines))]
        if lines:
            sys.stderr.write("\n".join([*lines, ""]))
            sys.stderr.flush()

    def _write(self, seconds: float) -> None:
        while True:
            time.sleep(seconds)
            self.flush()


def warm(settings: Settings) -> None:
    """Open every model and let it answer once; one that cannot be opened is logged."""
    models = repository(settings.artifacts.resolve())
    for name in models.names():
        try:
            models.get(name).replay()
        except ArtifactError as error:
            logging.getLogger(__name__).warning("%s is not served: %s", name, error)


def serve_workers(host: str, port: int, workers: int) -> None:
    """Serve the service alone, by gunicorn, until it is told to stop."""
    from gunicorn.app.base import BaseApplication

    class Service(BaseApplication):  # type: ignore[misc]
        def load_config(self) -> None:
            options = {
                "bind": [f"[{host}]:{port}" if ":" in host else f"{host}:{port}"],
                "workers": workers,
                "worker_class": "gthread",
                "threads": THREADS,
                "graceful_timeout": GRACE,
                "timeout": 60,
                "keepalive": 15,
                "child_exit": _forget_worker,
            }
            for key, value in options.items():
                self.cfg.set(key, value)

        def load(self) -> Flask:
            start_logging()
            settings = read_settings()
            warm(settings)
            app = create_app(settings)
            app.log = AccessLog().append
            return app

    Service().run()


def _forget_worker(server: Any, worker: Any) -> None:  # noqa: ARG001 - gunicorn's signature
    from prometheus_client.multiprocess import mark_process_dead

    mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]


def serve_together(host: str, port: int) -> None:
    """Serve dashboard and service in this process, with one copy of each model."""
    import streamlit as st
    from starlette.routing import Route

    from mlapp.service.gateway import Gateway

    start_logging()
    settings = read_settings()
    app: Any = create_app(settings, home=False)
    app.log = AccessLog().append
    service: Any = Gateway(app, THREADS)

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[dict[str, Any]]:  # noqa: ARG001
        warm(settings)
        yield {}

    # Streamlit looks for its settings beside the script that started the process.
    sys.argv = [str(dashboard_script())]
    dashboard = st.App(
        dashboard_script(),
        routes=[Route(path, service, include_in_schema=False) for path in ROUTES],
        lifespan=lifespan,
    )
    dashboard.run(config={"server.address": host, "server.port": port, "server.headless": True})
