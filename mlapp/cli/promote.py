"""`mlapp promote`, `rollback` and `history`: which version is served, and why."""

import argparse
import sys
from typing import Any

from mlapp.cli.score import parse_count
from mlapp.errors import GateRefused, ModelNotFound
from mlapp.settings import read_settings
from mlapp.store import artifacts, promotion


def add_parsers(commands: "argparse._SubParsersAction[Any]") -> None:
    """Add the commands' options."""
    promote = commands.add_parser("promote", help="serve a candidate, unless it is worse")
    promote.add_argument("name", metavar="NAME")
    promote.add_argument(
        "version",
        metavar="VERSION",
        type=parse_count,
        nargs="?",
        help="(default: the newest candidate)",
    )
    promote.add_argument(
        "--force",
        metavar="WHY",
        type=parse_reason,
        help="promote it even if it is worse, for this reason",
    )
    promote.set_defaults(
        run=lambda options: promote_version(options.name, options.version, options.force)
    )
    rollback = commands.add_parser("rollback", help="serve the version before the one served")
    rollback.add_argument("name", metavar="NAME")
    rollback.add_argument("--because", metavar="WHY", default="", help="for the history")
    rollback.set_defaults(run=lambda options: roll_back(options.name, options.because))
    history = commands.add_parser("history", help="list promotions and rollbacks")
    history.add_argument("name", metavar="NAME")
    history.set_defaults(run=lambda options: show_history(options.name))


def parse_reason(text: str) -> str:
    """Return a reason, which must say something.

    Raises:
        ArgumentTypeError: it is blank.
    """
    if not text.strip():
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a reason")
    return text


def promote_version(name: str, version: int | None, force: str | None) -> int:
    """Compare a candidate with the served version, on held-out rows and judged answers; serve it.

    Raises:
        GateRefused: it is worse beyond chance or cannot be judged, and is not forced.
        ModelNotFound: there is no such model or candidate.
        OutputError: the folder of the model cannot be written to.
    """
    from mlapp.records.database import Database  # take longer to import than other commands run
    from mlapp.scoring import candidates

    settings = read_settings()
    root = settings.artifacts
    artifacts.require_model(root, name)
    waiting = artifacts.candidates(root, name)
    if version is None and not waiting:
        raise ModelNotFound(f"{name!r} has no candidate in {root}")
    version = waiting[-1] if version is None else version
    try:
        change = candidates.promote(
            root, Database(settings), name, version, force or "", force=force is not None, say=print
        )
    except GateRefused as error:
        raise GateRefused(f"{error}; use --force WHY to promote it anyway") from error
    print(f"{name}: version {change.version} is served")
    return 0


def roll_back(name: str, reason: str) -> int:
    """Serve the version before the one that is served.

    Raises:
        ModelNotFound: there is none.
        OutputError: the folder of the model cannot be written to.
    """
    change = promotion.roll_back(read_settings().artifacts, name, reason)
    print(f"{name}: version {change.version} is served")
    return 0


def show_history(name: str) -> int:
    """Print a line for each promotion and rollback, the newest last.

    Raises:
        ModelNotFound: there is no such model, and there was none that left a history.
    """
    root = read_settings().artifacts
    changes = promotion.history(root, name)
    if not changes:
        artifacts.require_model(root, name)
        print("Nothing has been promoted or rolled back yet.", file=sys.stderr)
    for each in changes:
        forced = ", forced" if each.forced else ""
        before = "" if each.previous is None else f" after {each.previous}"
        reason = " ".join(each.reason.split())
        print(
            f"{each.time:%Y-%m-%d %H:%M} version {each.version}{before} {each.action}{forced}"
            f" by {each.by}" + (f": {reason}" if reason else "")
        )
    return 0
