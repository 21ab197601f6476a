"""What turned out to be true of an answer: given once, kept when it is acknowledged.

An answer is named by its identifier: `id` where a request had one instance, `id-k` for the one in
place k of several. The same truth may be given again, and changes nothing; another is refused.
"""

import math
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import orjson
from sqlalchemy import and_, or_, select

from mlapp.errors import (
    AnswerNotFound,
    ArtifactError,
    Fault,
    InvalidInput,
    ModelNotFound,
    OtherTruth,
    RecordsUnavailable,
)
from mlapp.manifest import Manifest
from mlapp.records.database import Database, answers, feedback, time_of
from mlapp.records.queries import now
from mlapp.schema import IN_RANGE, Input, describe, match_label, quote
from mlapp.store import artifacts
from mlapp.tables.numbers import LARGEST, parse_number

IDENTIFIER = re.compile(
    r"([0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12})(?:-(0|[1-9][0-9]{0,8}))?"
)
LONGEST_NOTE = 2_000  # characters
AT_ONCE = 200  # answers that are looked up in one query
SETTLED = 1_500  # milliseconds after which an answer is recorded, whichever process gave it


class Given(NamedTuple):
    """What somebody says of an answer.

    Attributes:
        id: its identifier.
        truth: a number or a label.
        note: a remark.
        number: what the truth is where it has a unit or marks, and the answer is a number.
    """

    id: Any
    truth: Any
    note: str | None = None
    number: float | None = None


class _Key(NamedTuple):
    """The primary key of an answer; the place is None where none was said."""

    id: str
    place: int | None


class Asked(NamedTuple):
    """Answers of a version by what was asked in an input.

    Attributes:
        spec: the input; None for a text, or where no version says what the input is.
        answers: identifiers by the value, as `spec.plain` has it.
    """

    spec: Input | None
    answers: dict[float | str, list[str]]


def give(
    database: Database,
    root: Path,
    given: Sequence[Given],
    channel: str,
    as_text: bool = False,
    is_behind: Callable[[], bool] = lambda: False,
) -> list[bool]:
    """Keep what turned out to be true, all of it or none.

    Args:
        database: where the answers are recorded.
        root: the folder of artifacts, whose manifests say which labels there are.
        given: what is true of one or more answers.
        channel: where it came from.
        as_text: whether numbers come as text, as in a file.
        is_behind: whether answers wait in memory, so that one that is not found may be recorded
            later.

    Returns:
        For each whether it is new, and not what was recorded before.

    Raises:
        InvalidInput: with every fault: of identifiers, truths and notes, and truths that contradict
            each other.
        AnswerNotFound: an answer is not recorded.
        ModelNotFound: an answer is a label, and no version is left that says which there are.
        OtherTruth: another truth of an answer is recorded.
        RecordsUnavailable: the database cannot be used, or is behind; nothing is kept.
    """
    keys = [_key(each.id) for each in given]
    faults = [fault for each in enumerate(given) for fault in _faults(*each)]
    if faults:
        raise InvalidInput(_unnumbered(faults, given))
    rows = _find(database, [key for key in keys if key])
    labels: dict[tuple[str, int], tuple[str, ...]] = {}
    entries: dict[int, dict[str, Any]] = {}
    for place, (each, key) in enumerate(zip(given, keys, strict=True)):
        row = rows.get(key) if key else None
        if row is None and is_behind():
            raise RecordsUnavailable(f"Answers wait to be recorded, perhaps {each.id!r} too")
        if row is None or key is None:
            raise AnswerNotFound(f"No answer {each.id!r} is recorded")
        which, is_number = (row.model, row.version), row.label is None
        if not is_number and which not in labels:
            labels[which] = _labels(root, *which)
        allowed = () if is_number else labels[which]
        truth = read_truth(each, is_number, allowed, as_text)
        if key.place is None and row.rows > 1:
            got = f"an answer of {row.rows} rows"
            faults.append(Fault("id", got, f"one of its rows, as in {key.id}-0", place))
        elif truth is None:
            expected = _allowed_numbers(each) if is_number else f"one of {quote(allowed)}"
            faults.append(Fault("truth", describe(each.truth), expected, place))
        else:
            entries[place] = _entry(row, channel, truth, each.note)
    faults += _contradictions(entries, given)
    if faults:
        raise InvalidInput(_unnumbered(faults, given))
    return _keep(database, list(entries.values()))


def find_by_key(database: Database, key: str, model: str | None = None) -> list[str]:
    """Return the identifiers of the answers that a client called by a key.

    Args:
        database: where to look.
        key: what the client calls an instance.
        model: by default of any model.

    Raises:
        RecordsUnavailable: the database cannot be read.
    """
    if not database.exists:
        return []
    wanted = select(answers.c.id, answers.c.place).where(answers.c.key == key)
    if model is not None:
        wanted = wanted.where(answers.c.model == model)
    with database.reading() as connection:
        return [f"{row.id}-{row.place}" for row in connection.execute(wanted)]


def find_by_input(database: Database, root: Path, model: str, name: str) -> list[Asked]:
    """Return a model's answers by the value of an input, for each version that answered.

    Only answers whose inputs were kept are found.

    Args:
        database: where to look.
        root: the folder of artifacts, whose manifests say what the input is.
        model: the model's name.
        name: the input's name.

    Raises:
        RecordsUnavailable: the database cannot be read.
    """
    found: dict[int, Asked] = {}
    if not database.exists:
        return []
    wanted = select(answers.c.id, answers.c.place, answers.c.version, answers.c.inputs)
    wanted = wanted.where(answers.c.model == model, answers.c.inputs.is_not(None))
    with database.reading() as connection:
        for row in connection.execute(wanted):
            value = orjson.loads(row.inputs).get(name)
            if value is None:
                continue
            if row.version not in found:
                found[row.version] = Asked(_spec(root, model, row.version, name), {})
            value = value.strip() if isinstance(value, str) else value
            asked = found[row.version].answers.setdefault(value, [])
            asked.append(f"{row.id}-{row.place}")
    return list(found.values())


def truth_of(database: Database, name: str) -> float | str | None:
    """Return the recorded truth of an answer, None where there is none.

    Raises:
        RecordsUnavailable: the database cannot be read.
    """
    key = _key(name)
    if key is None or not database.exists:
        return None
    with database.reading() as connection:
        row = connection.execute(select(feedback).where(_is(feedback, key))).first()
    if row is None:
        return None
    return float(row.number) if row.label is None else str(row.label)


# --- reading ---------------------------------------------------------------------------------


def _key(name: object) -> _Key | None:
    match = IDENTIFIER.fullmatch(name.strip().lower()) if isinstance(name, str) else None
    return _Key(match[1], None if match[2] is None else int(match[2])) if match else None


def _faults(place: int, given: Given) -> list[Fault]:
    found = []
    if _key(given.id) is None:
        allowed = "the id of an answer, or of one of its rows, as in ID-0"
        found.append(Fault("id", describe(given.id), allowed, place))
    if isinstance(given.note, str) and len(given.note) > LONGEST_NOTE:
        got, allowed = f"{len(given.note):,} characters", f"at most {LONGEST_NOTE:,}"
        found.append(Fault("note", got, allowed, place))
    elif given.note is not None and not isinstance(given.note, str):
        found.append(Fault("note", describe(given.note), "a text, or no note", place))
    return found


def read_truth(
    said: Given, is_number: bool, labels: Sequence[str], as_text: bool
) -> float | str | None:
    """Return the truth, as a number or as one of the labels; None where it is not allowed."""
    given = said.truth
    if is_number and as_text:
        number = parse_number(given) if said.number is None else said.number
        return None if number is None or math.isnan(number) else number
    if is_number:
        if not isinstance(given, int | float) or isinstance(given, bool):
            return None
        return float(given) if abs(given) <= LARGEST else None
    if given in labels:
        return str(given)
    if not (as_text or isinstance(given, str | int | float)):
        return None
    # A label is as its training's file wrote it, 1,5, or the number that older versions read, 1.5.
    return match_label(given, labels) or match_label(said.number, labels) or None


def _allowed_numbers(said: Given) -> str:
    """Return in words which numbers are allowed, where what was said is none of them."""
    try:
        size = abs(float(said.truth))
    except (TypeError, ValueError, OverflowError):
        size = math.nan
    return IN_RANGE if LARGEST < size < math.inf else "a finite number"


def _entry(row: Any, channel: str, truth: float | str, note: str | None) -> dict[str, Any]:
    """Return the row of `feedback` on a row of `answers`."""
    return {
        "id": row.id,
        "place": row.place,
        "time": now(),
        "model": row.model,
        "version": row.version,
        "channel": channel,
        "number": truth if isinstance(truth, float) else None,
        "label": truth if isinstance(truth, str) else None,
        "note": (note or "").replace("\0", "") or None,  # which PostgreSQL does not take
    }


def _manifests(root: Path, name: str, version: int) -> list[Manifest]:
    """Return the manifest of a version; where it is gone, those of the others, newest first."""
    try:
        return [artifacts.read_manifest(root / name / str(version))]
    except ArtifactError:
        return artifacts.readable_manifests(root, name)[::-1]


def _labels(root: Path, name: str, version: int) -> tuple[str, ...]:
    """Return the labels of a version; where it is gone, those of the model's other versions.

    Raises:
        ModelNotFound: no version says which labels there are.
    """
    manifests = _manifests(root, name, version)
    found = dict.fromkeys(label for each in manifests for label in each.labels or ())
    if not found:
        raise ModelNotFound(
            f"Version {version} of {name!r} answered, and neither it nor another version in {root}"
            " says which labels there are"
        )
    return tuple(found)


def _spec(root: Path, name: str, version: int, wanted: str) -> Input | None:
    """Return an input of a version; where that is gone, of the newest other version that has it."""
    for manifest in _manifests(root, name, version):
        schema = manifest.input_schema
        if schema and wanted in schema.names:
            return schema[wanted]
    return None


def _contradictions(
    entries: Mapping[int, dict[str, Any]], given: Sequence[Given]
) -> Iterator[Fault]:
    """Yield a fault for each row of `feedback`, by its place, that contradicts an earlier one."""
    first: dict[tuple[str, int], int] = {}
    for place, entry in entries.items():
        earlier = first.setdefault(_primary(entry), place)
        if any(entry[name] != entries[earlier][name] for name in ("number", "label")):
            allowed = f"{describe(given[earlier].truth)}, as row {earlier} says of the same answer"
            yield Fault("truth", describe(given[place].truth), allowed, place)


def _unnumbered(faults: list[Fault], given: Sequence[Given]) -> list[Fault]:
    """Return faults, without their number where there is one thing given only."""
    return faults if len(given) > 1 else [replace(fault, row=None) for fault in faults]


# --- keeping ---------------------------------------------------------------------------------


def _is(table: Any, key: _Key) -> Any:
    return and_(table.c.id == key.id, table.c.place == (key.place or 0))


def _find(database: Database, keys: Sequence[_Key]) -> dict[_Key, Any]:
    """Return the rows of answers; those given a moment ago may take another to be recorded."""
    found: dict[_Key, Any] = {}
    left = list(dict.fromkeys(keys))
    while left:
        if database.exists:
            with database.reading() as connection:
                for start in range(0, len(left), AT_ONCE):
                    some = left[start : start + AT_ONCE]
                    chosen = or_(*(_is(answers, key) for key in some))
                    rows = {
                        (row.id, row.place): row
                        for row in connection.execute(select(answers).where(chosen))
                    }
                    found |= {
                        key: rows[key.id, key.place or 0]
                        for key in some
                        if (key.id, key.place or 0) in rows
                    }
        left = [key for key in left if key not in found]
        if not left or all(abs(now() - time_of(key.id)) > SETTLED for key in left):
            break
        time.sleep(0.05)
    return found


def _keep(database: Database, entries: Sequence[dict[str, Any]]) -> list[bool]:
    """Insert feedback that is not there yet; return for each whether it is new."""
    insert = database.insert(feedback).on_conflict_do_nothing().returning(feedback.c.id)
    # In one order everywhere, or two processes would wait for each other.
    order = sorted(range(len(entries)), key=lambda place: _primary(entries[place]))
    new = [False] * len(entries)
    with database.begin() as connection:
        for place in order:
            entry = entries[place]
            new[place] = connection.execute(insert, entry).first() is not None
            if new[place]:
                continue
            chosen = _is(feedback, _Key(*_primary(entry)))
            kept = connection.execute(select(feedback).where(chosen)).one()
            if (kept.number, kept.label) != (entry["number"], entry["label"]):
                truth = kept.number if kept.label is None else kept.label
                raise OtherTruth(f"Another truth of {kept.id}-{kept.place} is recorded: {truth!r}")
    return new


def _primary(entry: dict[str, Any]) -> tuple[str, int]:
    return entry["id"], entry["place"]
