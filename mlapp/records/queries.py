"""Queries of the records: counts by hour, the latest answers, export, purge."""

import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import orjson
from sqlalchemy import Select, case, func, or_, select, tuple_

from mlapp.records.bins import SECONDS, Series
from mlapp.records.database import (
    Database,
    answers,
    counts,
    feedback,
    first_id,
    hour_of,
    runs,
    shadows,
)
from mlapp.records.deleting import delete_before

DAY = 86_400_000  # milliseconds
SHADOW = ("version", "prediction", "label", "probability")  # columns of `shadows`
AT_ONCE = 5_000  # rows that are read in one transaction


class Agreement(NamedTuple):
    """How the answers of a shadow candidate differ from those that were served.

    Attributes:
        version: the served version.
        candidate: the candidate's version.
        rows: how many rows both answered.
        differing: how many answers differ; for labels, those with different labels.
        outside: for numbers, how many of the candidate's are outside the served interval.
        mean: for numbers, the mean absolute difference; None for labels.
    """

    version: int
    candidate: int
    rows: int
    differing: int
    outside: int
    mean: float | None


def now() -> int:
    """Return the time in milliseconds since 1970 (UTC)."""
    return time.time_ns() // 1_000_000


def totals(
    database: Database, model: str, since: int, version: int | None = None
) -> dict[Series, dict[int, int]]:
    """Return a model's counts by series and bin, summed over the hours.

    Args:
        database: where to look.
        model: the model's name.
        since: the hour of this time, in milliseconds, and those after it are counted.
        version: by default all versions.

    Raises:
        RecordsUnavailable: the database cannot be read.
    """
    if not database.exists:
        return {}
    keys = (counts.c.kind, counts.c.name, counts.c.bin)
    wanted = select(*keys, func.sum(counts.c.count).label("total")).group_by(*keys)
    wanted = wanted.where(counts.c.model == model, counts.c.hour >= hour_of(since))
    if version is not None:
        wanted = wanted.where(counts.c.version == version)
    found: dict[Series, dict[int, int]] = {}
    with database.reading() as connection:
        for row in connection.execute(wanted):
            found.setdefault(Series(row.kind, row.name), {})[row.bin] = int(row.total)
    return found


def latest(
    database: Database, model: str, most: int, with_inputs: bool = False
) -> list[dict[str, Any]]:
    """Return the latest answers of a model, the newest first, as columns of `answers`.

    Args:
        database: where to look.
        model: the model's name.
        most: the most that are returned.
        with_inputs: whether to return only answers with recorded inputs, which are then decoded.

    Raises:
        RecordsUnavailable: the database cannot be read.
    """
    if not database.exists:
        return []
    wanted = select(answers).where(answers.c.model == model)
    if with_inputs:
        wanted = wanted.where(answers.c.inputs.is_not(None))
    wanted = wanted.order_by(answers.c.id.desc(), answers.c.place).limit(most)
    return _rows(database, wanted)


def latest_runs(
    database: Database, model: str | None, most: int, since: int = 0
) -> list[dict[str, Any]]:
    """Return the files scored last, the newest first, as columns of `runs`.

    Args:
        database: where to look.
        model: None stands for all models.
        most: the most that are returned.
        since: a time in milliseconds; by default the first.

    Raises:
        RecordsUnavailable: the database cannot be read.
    """
    if not database.exists:
        return []
    wanted = select(runs).where(runs.c.id >= first_id(since))
    wanted = wanted.order_by(runs.c.id.desc()).limit(most)
    if model is not None:
        wanted = wanted.where(runs.c.model == model)
    return _rows(database, wanted)


def count_runs(
    database: Database, model: str, since: int, version: int | None = None
) -> dict[Series, dict[int, int]]:
    """Return how many files were scored by channel and time, as `totals` has requests.

    Args:
        database: where to look.
        model: the model's name.
        since: a time in milliseconds.
        version: by default all versions.

    Raises:
        RecordsUnavailable: the database cannot be read.
    """
    if not database.exists:
        return {}
    wanted = select(runs.c.channel, runs.c.seconds)
    wanted = wanted.where(runs.c.model == model, runs.c.id >= first_id(since))
    if version is not None:
        wanted = wanted.where(runs.c.version == version)
    seconds: dict[str, list[float]] = {}
    for row in _rows(database, wanted):
        seconds.setdefault(row["channel"], []).append(row["seconds"])
    return {
        Series("seconds", channel): SECONDS.count(np.array(found))
        for channel, found in seconds.items()
    }


def shadowed(database: Database, model: str, since: int) -> list[Agreement]:
    """Return how the answers of a model's shadow candidates differ from those that were served.

    Args:
        database: where to look.
        model: the model's name.
        since: a time in milliseconds.

    Raises:
        RecordsUnavailable: the database cannot be read.
    """
    if not database.exists:
        return []
    shadow, served = shadows.c.prediction, answers.c.prediction
    differs = or_(shadow != served, shadows.c.label != answers.c.label)
    outside = or_(shadow < answers.c.lower, shadow > answers.c.upper)
    keys = (answers.c.version, shadows.c.version.label("candidate"))
    wanted = select(
        *keys,
        func.count().label("rows"),
        func.sum(case((differs, 1), else_=0)).label("differing"),
        func.sum(case((outside, 1), else_=0)).label("outside"),
        func.avg(func.abs(shadow - served)).label("mean"),
    )
    same = (answers.c.id == shadows.c.id) & (answers.c.place == shadows.c.place)
    wanted = wanted.select_from(shadows.join(answers, same)).group_by(*keys).order_by(*keys)
    wanted = wanted.where(shadows.c.model == model, shadows.c.id >= first_id(since))
    with database.reading() as connection:
        return [
            Agreement(row[0], row[1], row[2], int(row[3]), int(row[4]), row[5])
            for row in connection.execute(wanted)
        ]


def export(
    database: Database, model: str | None = None, since: int = 0, until: int | None = None
) -> Iterator[dict[str, Any]]:
    """Yield the answers, the oldest first, as columns of `answers`.

    Each has its feedback, as `truth` and `note`, and the answer of a shadow candidate, as `shadow`:
    version, prediction, label and probability; None if there is none.

    Args:
        database: where to look.
        model: by default all models.
        since: a time in milliseconds; by default the first.
        until: a time in milliseconds, exclusive; by default all.

    Raises:
        RecordsUnavailable: the database cannot be read.
    """
    key = tuple_(answers.c.id, answers.c.place)
    judged = (answers.c.id == feedback.c.id) & (answers.c.place == feedback.c.place)
    shadowed = (answers.c.id == shadows.c.id) & (answers.c.place == shadows.c.place)
    of_shadow = [shadows.c[name].label(f"shadow_{name}") for name in SHADOW]
    of_feedback = (feedback.c.number, feedback.c.label.label("own"), feedback.c.note)
    wanted = select(answers, *of_feedback, *of_shadow)
    wanted = wanted.select_from(answers.outerjoin(feedback, judged).outerjoin(shadows, shadowed))
    wanted = wanted.where(answers.c.id >= first_id(since))
    if until is not None:
        wanted = wanted.where(answers.c.id < first_id(until))
    if model is not None:
        wanted = wanted.where(answers.c.model == model)
    wanted = wanted.order_by(answers.c.id, answers.c.place).limit(AT_ONCE)
    page: Select[Any] = wanted
    while database.exists:
        rows = _rows(database, page)  # page by page: a long read would keep the log growing
        for row in rows:
            number, label = row.pop("number"), row.pop("own")
            shadow = {name: row.pop(f"shadow_{name}") for name in SHADOW}
            yield row | {
                "truth": number if label is None else label,
                "note": row.pop("note"),
                "shadow": None if shadow["version"] is None else shadow,
            }
        if len(rows) < AT_ONCE:
            return
        page = wanted.where(key > tuple_(rows[-1]["id"], rows[-1]["place"]))


def export_runs(
    database: Database, model: str | None = None, since: int = 0, until: int | None = None
) -> Iterator[dict[str, Any]]:
    """Yield the files that were scored, the oldest first, as columns of `runs`.

    Args:
        database: where to look.
        model: by default all models.
        since: a time in milliseconds; by default the first.
        until: a time in milliseconds, exclusive; by default all.

    Raises:
        RecordsUnavailable: the database cannot be read.
    """
    wanted = select(runs).where(runs.c.id >= first_id(since))
    if until is not None:
        wanted = wanted.where(runs.c.id < first_id(until))
    if model is not None:
        wanted = wanted.where(runs.c.model == model)
    page = wanted = wanted.order_by(runs.c.id).limit(AT_ONCE)
    while database.exists:
        rows = _rows(database, page)
        yield from rows
        if len(rows) < AT_ONCE:
            return
        page = wanted.where(runs.c.id > rows[-1]["id"])


def purge(database: Database, days: float, model: str | None = None) -> int:
    """Delete the rows of all tables that are older than some days.

    Args:
        database: where to delete.
        days: 0 deletes everything.
        model: by default of all models.

    Returns:
        How many answers were deleted.

    Raises:
        RecordsUnavailable: the database cannot be written.
    """
    return delete_before(database, now() - int(days * DAY) if days else None, model)


def _rows(database: Database, wanted: Select[Any]) -> list[dict[str, Any]]:
    """Return what is selected, by the names of its columns."""
    with database.reading() as connection:
        return [_plain(row) for row in connection.execute(wanted).mappings()]


def _plain(row: Any) -> dict[str, Any]:
    """Return a row as a dictionary, with its inputs decoded."""
    found = {str(name): value for name, value in row.items()}
    if found.get("inputs") is not None:
        found["inputs"] = orjson.loads(found["inputs"])
    return found
