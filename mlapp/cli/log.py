"""`mlapp log`: export or delete the records of answers."""

import argparse
import heapq
import sys
from datetime import UTC, datetime
from typing import Any

import orjson

from mlapp.cli.drift import MOST_DAYS
from mlapp.settings import read_settings


def add_parsers(commands: "argparse._SubParsersAction[Any]") -> None:
    """Add the command's options."""
    log = commands.add_parser("log", help="export or delete the records of answers")
    actions = log.add_subparsers(dest="action", required=True)
    export = actions.add_parser(
        "export",
        help="print the recorded answers with their feedback, and scored files, as JSON lines",
        description="Print the records, the oldest first, as JSON lines. The member record says"
        " what each is: an answer, with its feedback, or a file that was scored, with its counts.",
    )
    export.add_argument("--model", metavar="NAME", help="(default: all)")
    export.add_argument("--since", type=parse_time, metavar="TIME", help="as in 2031-05-17 (UTC)")
    export.add_argument("--until", type=parse_time, metavar="TIME", help="exclusive")
    purge = actions.add_parser(
        "purge",
        help="delete records older than some days",
        description="Delete answers, feedback and counts that are older than some days.",
    )
    purge.add_argument("--model", metavar="NAME", help="(default: all)")
    purge.add_argument(
        "--days",
        type=parse_days,
        metavar="N",
        help="0 deletes all (default: MLAPP_LOG_DAYS)",
    )
    log.set_defaults(run=run_log)


def run_log(options: argparse.Namespace) -> int:
    """Export or purge, as the options say.

    Raises:
        RecordsUnavailable: the database cannot be used.
        InvalidSettings: `MLAPP_DATABASE_URL` cannot.
    """
    from mlapp.records import queries  # SQLAlchemy takes longer to import than other commands run
    from mlapp.records.database import Database

    settings = read_settings()
    database = Database(settings)
    if options.action == "purge":
        days = settings.log_days if options.days is None else options.days
        gone = queries.purge(database, days, options.model)
        print(f"{database}: {gone:,} answers deleted")
        return 0
    which = database, options.model, options.since or 0, options.until
    answered = ({"record": "answer"} | row for row in queries.export(*which))
    scored = ({"record": "file"} | row for row in queries.export_runs(*which))
    for row in heapq.merge(answered, scored, key=lambda row: str(row["id"])):  # in order of time
        moment = datetime.fromtimestamp(row["time"] / 1000, UTC)
        sys.stdout.buffer.write(orjson.dumps(row | {"time": moment.isoformat()}) + b"\n")
    sys.stdout.buffer.flush()
    return 0


def parse_time(text: str) -> int:
    """Read a time as milliseconds since 1970; one without an offset is UTC.

    Raises:
        ArgumentTypeError: the text is something else.
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"got {text!r}, expected a time, as in 2031-05-17 or 2031-05-17T08:30"
        ) from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return int(moment.timestamp() * 1000)


def parse_days(text: str) -> int:
    """Read a number of days.

    Raises:
        ArgumentTypeError: the text is something else.
    """
    if not (text.isascii() and text.isdecimal() and float(text) <= MOST_DAYS):
        raise argparse.ArgumentTypeError(
            f"got {text[:80]!r}, expected a whole number from 0 to {MOST_DAYS}"
        )
    return int(text)
