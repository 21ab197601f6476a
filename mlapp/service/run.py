"""`mlapp serve`: dashboard and service in one process, or the service alone in several workers."""

import gc
import ipaddress
import logging
import os
import sys
import threading
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from mlapp.errors import ArtifactError, InvalidSettings
from mlapp.families.contract import replay
from mlapp.records import writer as records
from mlapp.records.process import start_early
from mlapp.service.app import create_app
from mlapp.service.gateway import LOOPBACK, Gateway
from mlapp.service.metrics import join_workers, shared_folder
from mlapp.service.server import listen, prepare_process, run_workers, serve
from mlapp.settings import Settings, dashboard_script, read_settings
from mlapp.store import artifacts
from mlapp.store.repository import repository

_log = logging.getLogger(__name__)

ROUTES = (
    "/form",
    "/predict",
    "/livez",
    "/readyz",
    "/metrics",
    "/openapi.json",
    "/docs",
    "/service-static/",
    "/v1/",
    "/v2",
    "/v2/",
)


def is_loopback(host: str) -> bool:
    """Return whether an address can only be reached from this machine."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def allowed_hosts(host: str, settings: Settings) -> list[str] | None:
    """Return the names that a request's `Host` may have; None allows all.

    Args:
        host: the interface that is listened on.
        settings: `hosts` lists names; without it, a loopback interface accepts the names of this
            machine, and any other interface accepts all names.
    """
    if settings.hosts is None and not is_loopback(host):
        return None
    return [*LOOPBACK, host, *(settings.hosts or ())]


def check_exposure(host: str, settings: Settings, open_to_all: bool) -> None:
    """Refuse to serve other machines without an API key, unless `--open` was given.

    Raises:
        InvalidSettings: the host is not loopback, and there is neither a key nor `--open`.
    """
    loopback = is_loopback(host)
    if settings.api_key is None and not loopback and not open_to_all:
        raise InvalidSettings(
            f"MLAPP_API_KEY: got nothing, expected a key to serve {host}; --open serves without one"
        )
    if settings.api_key is None:
        clients = "this machine only" if loopback else "anyone who can reach it"
        print(f"No MLAPP_API_KEY is set: the service answers {clients}, without a key", flush=True)


def start_logging() -> None:
    """Write the log to standard error, one line per message."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)


class AccessLog(logging.Handler):
    """Writes lines to standard error in batches, a few times a second.

    A write releases the GIL, and the thread must then wait to get it back: a write in every request
    would cost more than the request.
    """

    def __init__(self, seconds: float = 0.2) -> None:
        super().__init__()
        self._lines: deque[str] = deque()
        self.append = self._lines.append
        threading.Thread(target=self._write, args=[seconds], daemon=True).start()

    def flush(self) -> None:
        """Write the pending lines; `logging.shutdown` calls this at the end."""
        lines = []
        with suppress(IndexError):  # at the end; another thread may be here, too
            while True:
                lines.append(self._lines.popleft())
        if lines:
            sys.stderr.write("\n".join([*lines, ""]))
            sys.stderr.flush()

    def _write(self, seconds: float) -> None:
        while True:
            time.sleep(seconds)
            self.flush()


def warm(settings: Settings) -> None:
    """Open every model and replay its golden instances; log those that cannot be opened.

    Pinned versions that are not published are logged, too.
    """
    records.start(start_early(settings))
    models = repository(settings.artifacts.resolve())
    for name, version in settings.pins.items():
        if version not in artifacts.versions(models.root, name):
            _log.warning("MLAPP_PINS: version %d of %s is not published", version, name)
    for name in models.names():
        try:
            replay(models.get(name))
        except ArtifactError as error:
            _log.warning("%s is not served: %s", name, error)


def freeze() -> None:
    """Exempt what there is from garbage collection: models and modules live as long as the process.

    Records that wait to be written make collections frequent; each would look at all of it.
    """
    gc.collect()
    gc.freeze()


def serve_workers(host: str, port: int, workers: int) -> None:
    """Serve the service without dashboard, in worker processes, until SIGTERM or SIGINT."""
    start_logging()
    settings = read_settings()

    def create() -> Gateway:
        prepare_process(settings.read_timeout)
        join_workers()
        warm(settings)
        app = create_app(settings)
        app.log = AccessLog().append
        gateway = Gateway(app, allowed_hosts(host, settings))
        freeze()
        return gateway

    with listen(host, port) as listener, shared_folder():
        run_workers(create, listener, workers)


def serve_together(host: str, port: int) -> None:
    """Serve dashboard and service in this process, with one copy of each model."""
    os.environ |= {
        "STREAMLIT_SERVER_ADDRESS": host,
        "STREAMLIT_SERVER_PORT": str(port),
        "STREAMLIT_SERVER_HEADLESS": "true",
    }
    import streamlit as st

    start_logging()
    settings = read_settings()
    prepare_process(settings.read_timeout)
    app = create_app(settings, home=False)
    app.log = AccessLog().append

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[dict[str, Any]]:  # noqa: ARG001
        warm(settings)
        freeze()
        print(f"Serving http://{f'[{host}]' if ':' in host else host}:{port}", flush=True)
        yield {}

    # Streamlit looks for its settings next to the script that started the process.
    sys.argv = [str(dashboard_script())]
    dashboard: Any = st.App(dashboard_script(), lifespan=lifespan)
    gateway = Gateway(app, allowed_hosts(host, settings), dashboard, ROUTES)
    with listen(host, port) as listener:
        serve(gateway, listener, ws="websockets-sansio")
