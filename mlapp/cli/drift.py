"""`mlapp drift`: whether the requests still look like the training data."""

import argparse
import json
from dataclasses import asdict
from typing import Any

from mlapp import store
from mlapp.settings import read_settings
from mlapp.tables.numbers import parse_number

MOST_DAYS = 20_000


def add_parsers(commands: "argparse._SubParsersAction[Any]") -> None:
    """Add the command's options."""
    parser = commands.add_parser(
        "drift", help="compare requests with the training data, input by input"
    )
    parser.add_argument("name", metavar="NAME")
    parser.add_argument(
        "--days", type=parse_days, default=7.0, metavar="N", help="(default: %(default)g)"
    )
    parser.add_argument("--json", action="store_true", help="print all figures as JSON")
    parser.set_defaults(run=lambda options: show_drift(options.name, options.days, options.json))


def parse_days(text: str) -> float:
    """Read a number of days, more than 0 and at most those since 1970.

    Raises:
        ArgumentTypeError: the text is something else.
    """
    days = parse_number(text)
    if days is None or not 0 < days < MOST_DAYS:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a number of days, as in 7")
    return days


def show_drift(name: str, days: float, as_json: bool) -> int:
    """Print a line for each series of the served version; exit status 3 if one is flagged.

    Raises:
        ModelNotFound: there is no such model.
        RecordsUnavailable: the records cannot be read.
    """
    from mlapp.records import drift, queries, reference  # take longer to import than others run
    from mlapp.records.database import Database

    settings = read_settings()
    model = store.open_model(settings.artifacts, name)
    since = queries.now() - int(days * queries.DAY)
    known = reference.read(settings.artifacts, name, model.manifest.version)
    found = drift.measure(model, known, Database(settings), since)
    if as_json:
        listed = [asdict(each) | {"series": each.series._asdict()} for each in found]
        about = {"model": name, "version": model.manifest.version, "days": days}
        print(json.dumps(about | {"series": listed}, indent=1))
    else:
        if known is None:
            print(f"{name} {model.manifest.version} has no reference: train it again to compare")
        for each in found:
            psi = "-" if each.psi is None else f"{each.psi:.3f}"
            p = "-" if each.p is None else f"{each.p:.2g}"
            print(
                f"{each.state:8}{each.series.kind} {each.series.name}: PSI {psi}, p {p},"
                f" {each.rows:,} rows, {each.missing:.1%} missing, {each.outside:.1%} outside the"
                f" range of training, {each.refused:,} refused"
                + (f"; {each.reason}" if each.reason and known is not None else "")
            )
    return 3 if any(each.state in ("watch", "act") for each in found) else 0
