"""The service within the dashboard's ASGI server."""

import asyncio
import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from a2wsgi import WSGIMiddleware

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment


class Gateway(WSGIMiddleware):
    """a2wsgi, which tells the application when the one who asked has gone away.

    a2wsgi itself takes a broken connection for the end of the body, and lets an answer that nobody
    receives go on to its end.
    """

    def __init__(self, app: "WSGIApplication", threads: int) -> None:
        def run(environ: "WSGIEnvironment", start: "StartResponse") -> Iterable[bytes]:
            environ["wsgi.input_terminated"] = True
            if gone := environ["asgi.scope"].get("mlapp.gone"):
                environ["mlapp.gone"] = gone.is_set
            return app(environ, start)

        super().__init__(run, workers=threads)  # type: ignore[arg-type]

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer a request; of a file, watch the connection."""
        if not scope.get("path", "").endswith(":score"):
            await super().__call__(scope, receive, send)
            return
        gone = scope["mlapp.gone"] = threading.Event()
        watcher: asyncio.Task[None] | None = None

        async def watch() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            gone.set()

        async def hear() -> Any:
            nonlocal watcher
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ConnectionResetError
            if not message.get("more_body"):
                watcher = asyncio.create_task(watch())
            return message

        try:
            await super().__call__(scope, hear, send)
        except ConnectionResetError:
            pass  # the answer broke off: the server, which misses its end, closes the connection
        finally:
            if watcher:
                watcher.cancel()
