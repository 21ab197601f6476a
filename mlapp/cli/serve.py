"""`mlapp serve`: the dashboard and the web service, or the service alone."""

import argparse
from functools import partial
from typing import Any

from mlapp.cli.score import parse_count
from mlapp.settings import read_settings

LARGEST_PORT = 65535


def add_parsers(commands: "argparse._SubParsersAction[Any]") -> None:
    """Add the command's options."""
    serve = commands.add_parser("serve", help="serve the dashboard and the web service")
    serve.add_argument("--host", default="127.0.0.1", help="(default: %(default)s)")
    serve.add_argument("--port", type=_parse_port, default=8501, help="(default: %(default)s)")
    serve.add_argument("--api-only", action="store_true", help="serve without the dashboard")
    serve.add_argument(
        "--workers",
        type=parse_count,
        metavar="N",
        help="worker processes, with --api-only (default: 1)",
    )
    serve.add_argument("--open", action="store_true", help="serve other machines without a key")
    serve.add_argument(
        "--engine",
        choices=("local", "ray"),
        default="local",
        help="ray: the service alone, on Ray Serve",
    )
    serve.add_argument("--address", help="a Ray cluster to use: auto, HOST:PORT or ray://HOST:PORT")
    serve.add_argument(
        "--replicas", type=parse_count, metavar="N", help="replicas on Ray (default: 1)"
    )
    serve.add_argument(
        "--max-replicas",
        type=parse_count,
        metavar="N",
        help="most replicas on Ray, while requests queue up (default: --replicas)",
    )
    serve.set_defaults(run=partial(serve_models, serve))


def _parse_port(text: str) -> int:
    if not text.isdecimal() or int(text) > LARGEST_PORT:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a port from 0 to {LARGEST_PORT}")
    return int(text)


def _check_options(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """End the command where options do not go together."""
    on_ray = (options.address, options.replicas, options.max_replicas)
    if options.engine == "ray" and options.workers:
        parser.error("--workers goes with the local engine; on Ray, use --replicas")
    if options.engine == "local" and any(value is not None for value in on_ray):
        parser.error("--address, --replicas and --max-replicas go with --engine ray")
    fewest, most = options.replicas or 1, options.max_replicas
    if most is not None and most < fewest:
        parser.error(f"--max-replicas: got {most}, expected at least --replicas, which is {fewest}")
    if options.workers and not options.api_only:
        parser.error("--workers goes with --api-only; the dashboard runs in one process")


def serve_models(parser: argparse.ArgumentParser, options: argparse.Namespace) -> int:
    """Serve until SIGTERM or SIGINT."""
    _check_options(parser, options)
    from mlapp.service import run

    run.check_exposure(options.host, read_settings(), options.open)
    if options.engine == "ray":
        from mlapp.service.replicas import serve_replicas

        replicas, most = options.replicas or 1, options.max_replicas
        serve_replicas(options.host, options.port, options.address, replicas, most)
    elif options.api_only:
        run.serve_workers(options.host, options.port, options.workers or 1)
    else:
        run.serve_together(options.host, options.port)
    return 0
