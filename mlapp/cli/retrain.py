"""`mlapp retrain`: train a model again with feedback, and publish a candidate."""

import argparse
from pathlib import Path
from typing import Any

from mlapp.settings import read_settings


def add_parsers(commands: "argparse._SubParsersAction[Any]") -> None:
    """Add the command's options."""
    parser = commands.add_parser(
        "retrain",
        help="train a model again with the judged answers, as a candidate",
        description="Run the command that trained the served version again, with the judged answers"
        " as more rows, and publish a candidate, which is not served. Files that the command names"
        " are looked up in the current folder.",
    )
    parser.add_argument("name", metavar="NAME")
    parser.add_argument(
        "--data", metavar="FILE", type=Path, help="train on this file instead of the original data"
    )
    parser.add_argument("--dry-run", action="store_true", help="only print what would be done")
    parser.set_defaults(run=retrain_model)


def retrain_model(options: argparse.Namespace) -> int:
    """Train a candidate, and print how it compares with the served version.

    Raises:
        MlappError: as `retraining.retrain`.
    """
    from mlapp.scoring import retraining  # takes longer to import than other commands run

    retraining.retrain(read_settings(), options.name, options.data, options.dry_run)
    return 0
