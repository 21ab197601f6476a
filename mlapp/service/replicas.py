"""`mlapp serve --engine ray`: the service on Ray Serve, on one or more replicas."""

import os
import signal
import threading
from typing import Any

from mlapp.errors import ClusterError
from mlapp.scoring.ray_connection import connect, last_line
from mlapp.service import create_app, run
from mlapp.service.gateway import Gateway
from mlapp.service.server import GRACE_SECONDS
from mlapp.settings import read_settings


def serve_replicas(
    host: str, port: int, address: str | None, replicas: int, most: int | None
) -> None:
    """Serve the web service on Ray Serve until SIGTERM or SIGINT.

    Args:
        host: the interface that each machine of the cluster listens on.
        port: the port.
        address: as for `connect`.
        replicas: the number of processes, with one core each; with `most` the smallest number.
        most: the largest number, which Ray may start when many requests wait; None for a fixed
            number.

    Raises:
        ClusterError: Ray cannot be reached, or the replicas do not start.
    """
    with connect(address, most or replicas, show=True):
        import ray
        from ray import serve

        variables = {key: value for key, value in os.environ.items() if key.startswith("MLAPP_")}
        variables["MLAPP_ARTIFACTS"] = str(read_settings().artifacts.resolve())
        stopped = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: stopped.set())
        deploy: Any = serve.deployment(
            name="mlapp",
            num_replicas=None if most else replicas,
            autoscaling_config={"min_replicas": replicas, "max_replicas": most} if most else None,
            max_ongoing_requests=read_settings().max_concurrent,
            graceful_shutdown_timeout_s=GRACE_SECONDS,
            ray_actor_options={"num_cpus": 1, "runtime_env": {"env_vars": variables}},
        )
        try:
            quiet = {"log_level": "WARNING", "enable_access_log": False}
            serve.start(http_options={"host": host, "port": port}, logging_config=quiet)
            replica = deploy(serve.ingress(_create_asgi_app)())
            serve.run(replica.bind(), name="mlapp", logging_config=quiet)
        except (RuntimeError, ray.exceptions.RayError) as error:
            raise ClusterError(f"The service cannot be started: {last_line(error)}") from error
        shown = f"[{host}]" if ":" in host else host
        count = f"{replicas} replica" + ("s" if replicas > 1 else "")
        print(f"Ray serves http://{shown}:{port} on {count}", flush=True)
        stopped.wait()
        serve.delete("mlapp")
        if address and not serve.status().applications:
            serve.shutdown()  # type: ignore[no-untyped-call]


def _create_asgi_app() -> Any:
    """Return the service of one replica."""
    run.start_logging()
    settings = read_settings()
    run.warm(settings)
    app: Any = create_app(settings)
    app.log = run.AccessLog().append
    return Gateway(app)
