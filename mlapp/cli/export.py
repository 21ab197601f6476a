"""`mlapp export`: a published version as a folder that other servers load."""

import argparse
import shlex
from pathlib import Path
from typing import Any

from mlapp.exporting import TARGETS, export
from mlapp.settings import read_settings


def add_parsers(commands: "argparse._SubParsersAction[Any]") -> None:
    """Add the command's options."""
    parser = commands.add_parser("export", help="export a version for another server")
    parser.add_argument("name", metavar="NAME")
    parser.add_argument(
        "version", metavar="VERSION", type=int, nargs="?", help="(default: the one served)"
    )
    parser.add_argument("--to", choices=TARGETS, required=True, help="the server's format")
    parser.add_argument(
        "--out",
        metavar="DIR",
        type=_parse_folder,
        help="the new folder (default: NAME-mlflow and so on)",
    )
    parser.set_defaults(run=export_version)


def _parse_folder(text: str) -> Path:
    if not text:
        raise argparse.ArgumentTypeError("got '', expected a path")
    return Path(text)


def export_version(options: argparse.Namespace) -> int:
    """Write the folder, and print how to serve it.

    Raises:
        MlappError: the version cannot be opened, or the folder not written.
    """
    out = options.out or Path(f"{options.name}-{options.to}")
    path = export(read_settings().artifacts, options.name, options.version, options.to, out)
    quoted = shlex.quote(str(path))
    how = {
        "mlflow": f"mlflow models serve -m {quoted} --env-manager local",
        "mlserver": f"mlserver start {quoted}",
        "folder": f"MLAPP_ARTIFACTS={quoted} mlapp serve",
    }
    print(f"Wrote {path}. To serve it: {how[options.to]}")
    return 0
