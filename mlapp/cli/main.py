"""The `mlapp` command: list, verify, pin, use and serve published models.

Exit status: 0 done, 1 something failed, 2 the command line is wrong; `mlapp score` has its own.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Any

from mlapp import families, store
from mlapp.cli import score
from mlapp.errors import Fault, InvalidInput, MlappError, ModelNotFound
from mlapp.families.regression import RegressionModel
from mlapp.schema import quote
from mlapp.settings import read_settings
from mlapp.store import artifacts


class Parser(argparse.ArgumentParser):
    """A parser, and parsers of commands, that take no abbreviated options."""

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, **options)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    parser = Parser(prog="mlapp", description="Published models, seen and held.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("models", help="list every published version")
    verify = commands.add_parser("verify", help="check digests and replay golden predictions")
    verify.add_argument("name", nargs="?", metavar="NAME", help="a model (default: all)")
    pin = commands.add_parser("pin", help="hold a version, however many newer are published")
    pin.add_argument("name", metavar="NAME")
    pin.add_argument("version", metavar="VERSION", type=int)
    unpin = commands.add_parser("unpin", help="serve the newest version again")
    unpin.add_argument("name", metavar="NAME")
    predict = commands.add_parser(
        "predict",
        help='predict one row (--var_1 734 ...) or one text ("a review")',
        usage='mlapp predict [--model NAME] (--INPUT VALUE ... | "TEXT")',
        epilog="--set INPUT=VALUE gives the value of an input called model, help or set.",
    )
    predict.add_argument(
        "--model", metavar="NAME", help="(default: sentiment for a text, else regression)"
    )
    score.add_parser(commands)
    serve = commands.add_parser("serve", help="serve the dashboard and the web service")
    serve.add_argument("--host", default="127.0.0.1", help="(default: %(default)s)")
    serve.add_argument("--port", type=int, default=8501, help="(default: %(default)s)")
    serve.add_argument("--api-only", action="store_true", help="serve without the dashboard")
    serve.add_argument("--workers", type=int, help="processes, with --api-only (default: 1)")
    serve.add_argument("--open", action="store_true", help="serve other machines without a key")
    serve.add_argument(
        "--engine",
        choices=("local", "ray"),
        default="local",
        help="ray: the service alone, on Ray Serve",
    )
    serve.add_argument("--address", help="a Ray cluster to use: auto, HOST:PORT or ray://HOST:PORT")
    serve.add_argument("--replicas", type=int, metavar="N", help="on Ray (default: 1)")
    serve.add_argument("--max-replicas", type=int, metavar="N", help="on Ray, when many wait")
    options, rest = parser.parse_known_args(arguments)
    if rest and options.command != "predict":
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if options.command == "serve":
        on_ray = (options.address, options.replicas, options.max_replicas)
        if options.engine == "ray" and options.workers:
            parser.error("--workers goes with the local engine: on Ray say --replicas")
        if options.engine == "local" and any(value is not None for value in on_ray):
            parser.error("--address, --replicas and --max-replicas go with --engine ray")
    if options.command == "serve" and options.workers and not options.api_only:
        parser.error("--workers goes with --api-only: the dashboard lives in one process")
    try:
        if options.command == "models":
            return list_models()
        if options.command == "verify":
            return verify_models(options.name)
        if options.command == "serve":
            return serve_models(options)
        if options.command == "score":
            return score.score_file(options)
        if options.command == "predict":
            return predict_one(options.model, rest)
        root = read_settings().artifacts
        if options.command == "pin":
            artifacts.pin(root, options.name, options.version)
        else:
            artifacts.unpin(root, options.name)
        print(f"{options.name}: version {artifacts.served_version(root, options.name)} is served")
    except MlappError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        # Whoever read the output has enough; what is left of it must not fail at the exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return 0


def list_models() -> int:
    """Print a line for each published version; those that do not open say why below."""
    root = read_settings().artifacts
    lines = [("NAME", "VERSION", "TASK", "CREATED (UTC)", "QUALITY", "SIZE", "OPENS", "SERVED")]
    troubles = []
    for name in artifacts.names(root):
        try:
            served = artifacts.served_version(root, name)
            held = artifacts.pinned(root, name) is not None
        except MlappError as error:
            served, held = 0, False
            troubles.append(str(error))
        for version in artifacts.versions(root, name):
            task = created = quality = size = "?"
            try:
                path = root / name / str(version)
                manifest = artifacts.read_manifest(path)
                task, created = manifest.task, f"{manifest.created:%Y-%m-%d %H:%M}"
                quality = " ".join(families.headline(manifest)[:2])
                size = f"{sum(file.size for file in manifest.files.values()) / 1000:,.0f} kB"
                store.open_model(root, name, version)
                opens = "yes"
            except MlappError as error:
                opens = "no"
                troubles.append(str(error))
            mark = ("pinned" if held else "yes") if version == served else ""
            lines.append((name, str(version), task, created, quality, size, opens, mark))
    if len(lines) == 1:
        print(f"No models in {root}. Train one: python -m training.regression")
        return 0
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        print("  ".join(cells).rstrip())
    for trouble in troubles:
        print(trouble)
    return 0


def verify_models(name: str | None) -> int:
    """Open every version of a model, or of all, and replay its golden predictions.

    Raises:
        ModelNotFound: there is nothing to verify.
    """
    root = read_settings().artifacts
    chosen = [name] if name else artifacts.names(root)
    found = [(each, version) for each in chosen for version in artifacts.versions(root, each)]
    if not found:
        raise ModelNotFound(
            f"No complete version of {repr(name) if name else 'any model'} in {root}"
        )
    status = 0
    for each, version in found:
        try:
            store.open_model(root, each, version).replay()
            print(f"{each} {version}: ok")
        except MlappError as error:
            status = 1
            print(f"{each} {version}: FAILED: {error}")
    return status


def predict_one(name: str | None, words: Sequence[str]) -> int:
    """Print the prediction of one row or text, a line per figure.

    Args:
        name: the model's name; by default the usual one for what the words are.
        words: `--INPUT VALUE` for each input of a row, or one text.

    Raises:
        InvalidInput: the row or the text is refused.
    """
    root = read_settings().artifacts
    name = name or ("regression" if not words or words[0].startswith("--") else "sentiment")
    model = store.open_model(root, name)
    notices: list[str] = []
    if isinstance(model, RegressionModel):
        checked = model.check([read_row(model.schema.names, words)])
        answer = model.predict(checked).iloc[0]
        notices = [
            notice.message for notice in model.notices(checked, model.predict_array(checked))
        ]
    else:
        if len(words) != 1:
            raise InvalidInput([Fault("text", f"{len(words)} words", "one text, in quotes")])
        answer = model.predict(words).iloc[0]
    for key, value in answer.items():
        print(f"{key}: {value}")
    for notice in notices:
        print(f"notice: {notice}", file=sys.stderr)
    return 0


def read_row(names: Sequence[str], words: Sequence[str]) -> dict[str, str]:
    """Read a row from `--INPUT VALUE`, `--INPUT=VALUE` and `--set INPUT=VALUE`.

    Names are taken as they are, never abbreviated; `--set` reaches those that the command has
    options of its own for.

    Args:
        names: the model's inputs.
        words: the command's arguments.

    Raises:
        InvalidInput: with each argument that is none of these.
    """
    row: dict[str, str] = {}
    faults = []
    left = list(words)
    while left:
        word = left.pop(0)
        given = word.removeprefix("--")
        if word == "--set" and left:
            given = left.pop(0)
        elif word.startswith("--") and given in names and left:
            given = f"{given}={left.pop(0)}"
        fitting = [name for name in names if given.startswith(f"{name}=")]
        if not fitting or not word.startswith("--"):
            faults.append(Fault(word, "no input with a value", f"one of {quote(names)}"))
            continue
        name = max(fitting, key=len)
        if name in row:
            faults.append(Fault(name, "two values", "one"))
        row[name] = given[len(name) + 1 :]
    if faults:
        raise InvalidInput(faults)
    return row


def serve_models(options: argparse.Namespace) -> int:
    """Serve until SIGTERM or SIGINT."""
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
