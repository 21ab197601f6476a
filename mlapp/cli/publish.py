"""`mlapp publish`: publish a fitted estimator of scikit-learn."""

import argparse
import shlex
from pathlib import Path
from typing import Any

from mlapp.errors import MlappError
from mlapp.settings import read_settings
from mlapp.tables.options import READING, add_reading_options

LEVEL = 0.9  # of the intervals


def add_parsers(commands: "argparse._SubParsersAction[Any]") -> None:
    """Add the command's options."""
    parser = commands.add_parser("publish", help="publish a fitted estimator of scikit-learn")
    add = parser.add_argument
    add("model", metavar="MODEL", type=Path, help="a .joblib, .pickle, .skops or .onnx file")
    add("--data", metavar="FILE", type=Path, required=True, help="a table like the training data")
    add("--target", metavar="COLUMN", required=True, help="the column that the model predicts")
    add("--name", metavar="NAME", required=True, help="the published model's name")
    add(
        "--held-out",
        metavar="FILE",
        type=Path,
        help="rows that the model has not seen, to measure it on (default: cross-validate a clone)",
    )
    add(
        "--level",
        type=float,
        default=LEVEL,
        help="the share of new rows that intervals should contain (default: %(default)s)",
    )
    add("--candidate", action="store_true", help="serve it only after mlapp promote")
    add_reading_options(parser)
    parser.set_defaults(run=publish_model)


def publish_model(options: argparse.Namespace) -> int:
    """Publish an estimator from a file, and print what was measured.

    Raises:
        MlappError: it cannot be published; the message says why.
    """
    try:
        from training.publish import publish_file  # serving does not need it
    except ModuleNotFoundError as error:
        if error.name not in ("onnx", "scipy", "skops"):
            raise
        raise MlappError(
            f'Publishing needs {error.name}. To fix it: pip install "mlapp[publish]"'
        ) from error

    publish_file(
        options.model,
        options.data,
        options.target,
        options.name,
        held_out=options.held_out,
        root=read_settings().artifacts,
        level=options.level,
        candidate=options.candidate,
        command=_command(options),
        reading={key: getattr(options, key) for key in READING},
    )
    return 0


def _command(options: argparse.Namespace) -> str:
    """Return the command that publishes the same model again."""
    parts = ["mlapp", "publish", str(options.model), "--data", str(options.data)]
    parts += ["--target", options.target, "--name", options.name]
    given = {key: getattr(options, key) for key in ("held_out", *READING)}
    given["level"] = None if options.level == LEVEL else options.level
    for key, value in given.items():
        parts += [f"--{key.replace('_', '-')}", str(value)] if value is not None else []
    return shlex.join(parts)
