"""`mlapp export`: a published version as a folder that other servers load."""

import argparse
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
        "--out", metavar="DIR", type=Path, help="the new folder (default: NAME-mlflow and so on)"
    )
    parser.set_defaults(run=export_version)


def export_version(options: argparse.Namespace) -> int:
    """Write the folder, and print how to serve it.

    Raises:
        MlappError: the version cannot be opened, or the folder not written.
    """
    out = options.out or Path(f"{options.name}-{options.to}")
    path = export(read_settings().artifacts, options.name, options.version, options.to, out)
    how = {
        "mlflow": f"mlflow models serve -m {path} --env-manager local",
        "mlserver": f"mlserver start {path}",
        "folder": f"MLAPP_ARTIFACTS={path} mlapp serve",
    }
    print(f"Wrote {path}. To serve it: {how[options.to]}")
    return 0
