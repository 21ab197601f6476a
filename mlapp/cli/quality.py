"""`mlapp quality`: the quality of answers by feedback, compared with what training measured."""

import argparse
import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from mlapp.settings import read_settings
from mlapp.store import artifacts

if TYPE_CHECKING:
    from mlapp.records.quality import Quality


def add_parsers(commands: "argparse._SubParsersAction[Any]") -> None:
    """Add the command's options."""
    parser = commands.add_parser(
        "quality", help="measure the answers that feedback judged, by version and week"
    )
    parser.add_argument("name", metavar="NAME")
    parser.add_argument("--json", action="store_true", help="print all figures as JSON")
    parser.set_defaults(run=lambda options: show_quality(options.name, options.json))


def show_quality(name: str, as_json: bool) -> int:
    """Print a line for each version of a model, and for each of its weeks.

    Raises:
        ModelNotFound: there is no such model.
        RecordsUnavailable: the records cannot be read.
    """
    from mlapp.records import quality  # takes longer to import than other commands run
    from mlapp.records.database import Database

    settings = read_settings()
    if not artifacts.versions(settings.artifacts, name):
        raise artifacts.no_model(settings.artifacts, repr(name))
    manifests = artifacts.readable_manifests(settings.artifacts, name)
    found = quality.measure(Database(settings), name, manifests)
    if as_json:
        listed = [_plain(each) for each in found]
        print(json.dumps({"model": name, "quality": listed}, indent=1))
    elif not found:
        print(f"No answer of {name} has feedback yet")
    else:
        for each in found:
            print(_line(each))
    return 0


def _line(each: "Quality") -> str:
    when = "all weeks" if each.week is None else f"week of {each.week}"
    figures = []
    for name, (value, lower, upper, held_out) in each.figures.items():
        ends = "" if lower is None or upper is None else f" ({lower:.4g} to {upper:.4g})"
        beside = "" if held_out is None else f", held out {held_out:.4g}"
        figures.append(f"{name} {'-' if value is None else f'{value:.4g}'}{ends}{beside}")
    return f"version {each.version}, {when}, {each.rows:,} judged: {'; '.join(figures)}"


def _plain(each: "Quality") -> dict[str, Any]:
    """Return figures for JSON: by name, and the week as a date."""
    found = asdict(each) | {"week": None if each.week is None else each.week.isoformat()}
    found["figures"] = {name: figure._asdict() for name, figure in each.figures.items()}
    found["calibration"] = [
        part._asdict() | {"right": part.right._asdict()} for part in each.calibration
    ]
    return found
