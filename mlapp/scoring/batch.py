"""Whole tables through a model: rows in, predictions out, in order.

    table -> plan (which column is which input) -> chunks -> `score_batch` on all cores -> bytes

`score_batch` is a pure function of a batch, so every engine gives the same bits. A row that the
model refuses, or has no answer to, gets an empty prediction, and in the column `error` why; a row
outside the training range has a `notice`.
"""

import csv
import os
import time
from collections import Counter, deque
from collections.abc import Callable, Container, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from mlapp import answering
from mlapp.answering import Channel
from mlapp.errors import Fault, InvalidInput, InvalidTable
from mlapp.families.contract import (
    Answers,
    Batch,
    Field,
    Model,
    RowInput,
    Takes,
    Values,
    place_notices,
)
from mlapp.families.cores import use_one_core
from mlapp.schema import (
    TEXT,
    Checked,
    Input,
    Number,
    quote,
    refuse,
    settle_marks,
)
from mlapp.tables.chunks import Chunk
from mlapp.tables.formats import FileFormat
from mlapp.tables.jsonlines import load_json
from mlapp.tables.numbers import (
    Floats,
    decimal_of,
    parse_numbers,
)
from mlapp.tables.reading import Table
from mlapp.tables.values import to_values
from mlapp.tables.writing import Bytes, write_chunk, write_head

TEXT_COLUMNS = ("text", "review")  # the names of columns that are read as the texts
TEXT_ROWS = 32  # texts in a chunk: few, so that all cores are busy and progress is visible
# How the cells of values of JSON begin that are no texts.
_OTHER_VALUE = r"^(?:[\[{]|-?[0-9]|-?Infinity$|NaN$|true$|false$)"
_TYPES = {
    "FP64": pa.float64(),
    "INT64": pa.int64(),
    "BOOL": pa.bool_(),
    "BYTES": pa.string(),
}

Places: TypeAlias = npt.NDArray[np.int64]

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Options:
    """How a table is scored.

    Attributes:
        text_column: the column that a model of texts reads; see `make_plan`.
        columns: the model's input for each column that has another name.
        explain: whether the reasons are added: for a row `effect_baseline` and an `effect_` of
            each input, which sum to the prediction; for a text `words`, its strongest words with
            their weights, as JSON.
        prefix: what the names of the prediction's columns begin with.
        raw: whether texts that a spreadsheet would run as formulas are written unchanged to CSV.
    """

    text_column: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    explain: bool = False
    prefix: str = ""
    raw: bool = False


def parse_columns(text: str, names: Iterable[str] = ()) -> dict[str, str]:
    """Return the model's input for each of a file's columns from `theirs=ours,...`.

    An item with a comma stands in quotation marks, as in CSV.

    Args:
        text: the list.
        names: the model's inputs, which may hold = themselves.

    Raises:
        InvalidTable: the text is not such a list.
    """
    try:
        parts = next(csv.reader([text], skipinitialspace=True, strict=True), [])
    except csv.Error as error:
        raise InvalidTable(f"columns: got {text!r}, expected THEIRS=OURS,...: {error}") from error
    known = sorted(names, key=len, reverse=True)
    return dict(_parse_pair(part, known) for part in parts if part)


def _parse_pair(part: str, names: Iterable[str]) -> tuple[str, str]:
    """Return a file's column and the first of some names that `theirs=ours` ends with."""
    theirs, _, ours = part.rpartition("=")
    if not theirs or not ours:
        raise InvalidTable(f"columns: got {part!r}, expected THEIRS=OURS")
    for name in names:
        before = part.strip().removesuffix(name.strip()).rstrip()
        if len(before) > 1 and before.endswith("=") and part.strip().endswith(name.strip()):
            return before[:-1].strip(), name
    return theirs.strip(), ours.strip()


@dataclass(frozen=True)
class Plan:
    """Which column is which input, and which columns are added.

    Attributes:
        inputs: the column's name, by the model's input.
        schema: the table's columns, followed by those of the prediction.
        own: how many of them are the table's.
        explain: as in `Options`.
        decimals: the decimal marks, by column name, of the columns that have one.
    """

    inputs: Mapping[str, str]
    schema: pa.Schema
    own: int
    explain: bool
    decimals: Mapping[str, str]


class Counts(NamedTuple):
    """How many rows there were, were scored, scored with a notice (`noticed`), and refused."""

    rows: int = 0
    scored: int = 0
    noticed: int = 0
    refused: int = 0

    def __add__(self, other: Any) -> "Counts":
        return Counts(*map(sum, zip(self, other, strict=True)))


class Origin(NamedTuple):
    """The identifier of a run over a file, and where the file came from."""

    id: str
    channel: Channel


class Scored(NamedTuple):
    """A batch with its predictions, and the errors of the refused rows by their place in it.

    `checked` are the rows that were not refused, `answers` the answers to them, and `refused` says
    of how many rows each input was at fault.
    """

    batch: pa.RecordBatch
    counts: Counts
    errors: dict[int, str]
    checked: Batch
    answers: Answers
    refused: Counter[str]


Scorer: TypeAlias = Callable[[Model, Plan, pa.RecordBatch, Mapping[int, Fault] | None], Scored]


class Part(NamedTuple):
    """The bytes of a scored chunk, its counts and errors, and the share of the input read."""

    data: Bytes
    counts: Counts
    errors: dict[int, str]
    share: float | None


def make_plan(model: Model, schema: pa.Schema, options: Options) -> Plan:
    """Find the model's inputs among a table's columns.

    A model of texts reads the column `text_column`; by default the column that it was trained on,
    `text` or `review`, or else the only column of texts.

    Raises:
        InvalidInput: an input has no column.
        InvalidTable: an option names a column that the table lacks, or the table already has a
            column with the name of one of the prediction's.
    """
    inputs = find_inputs(model.takes, schema, options, trained_column(model))
    names = frozenset(schema.names)
    added = [pa.field(options.prefix + name, kind) for name, kind in _added(model, options.explain)]
    if clash := [each.name for each in added if each.name in names]:
        raise InvalidTable(
            f"the table already has columns {quote(clash)}; give the added columns a prefix"
        )
    specs = {inputs[spec.name]: spec for spec in model.takes.inputs}
    marks = {each.name: decimal_of(each) for each in settle_marks(specs, schema)}
    decimals = {name: mark for name, mark in marks.items() if mark is not None}
    whole = pa.schema([*(each.remove_metadata() for each in schema), *added])
    return Plan(inputs, whole, len(schema), options.explain, decimals)


def trained_column(model: Model) -> str | None:
    """Return the column of texts that a model was trained on, None where it is not known."""
    if model.takes.kind != "text":
        return None
    name: str | None = getattr(model, "report", {}).get("columns", {}).get("text")
    return name


def find_inputs(
    takes: Takes, schema: pa.Schema, options: Options, trained: str | None = None
) -> dict[str, str]:
    """Return the column's name, by the model's input; see `make_plan`.

    Args:
        takes: what the model takes.
        schema: the table's columns.
        options: which columns are chosen.
        trained: what `trained_column` returned.
    """
    names = frozenset(schema.names)
    renamed = dict(options.columns)
    if options.text_column is not None:
        renamed[options.text_column] = TEXT
    wanted = takes.names
    if options.text_column is not None and takes.kind != "text":
        got = f"text_column: got {options.text_column!r}"
        raise InvalidTable(f"{got}, expected none: this model takes no texts")
    for theirs, ours in renamed.items():
        if theirs not in names:
            option = "text_column" if theirs == options.text_column else "columns"
            listed = quote(schema.names)
            raise InvalidTable(f"{option}: got {theirs!r}, expected one of the columns {listed}")
        if ours not in wanted:
            listed = quote(wanted)
            raise InvalidTable(f"columns: {theirs} = {ours!r}: expected one of the inputs {listed}")
    counts = Counter(renamed.values())
    if twice := [ours for ours in wanted if counts[ours] > 1]:
        raise InvalidTable(f"got several columns for {quote(twice)}, expected one each")
    free = {name.strip(): name for name in schema.names if name not in renamed}
    free |= {name: name for name in schema.names if name not in renamed}
    if trained in free:
        free[TEXT] = free[trained]
    inputs = {ours: free[key] for ours in wanted for key in (ours.strip(), ours) if key in free}
    inputs |= {ours: theirs for theirs, ours in renamed.items()}
    absent = [spec for spec in takes.inputs if spec.name not in inputs]
    if absent and takes.kind == "text":
        return {TEXT: _text_column(schema, trained)}
    if absent:
        faults = [_explain_absence(spec.name, schema, renamed) for spec in absent]
        raise InvalidInput(faults, _sum_up(faults, schema) if len(faults) > 1 else None)
    return inputs


def _sum_up(faults: Sequence[Fault], schema: pa.Schema) -> str:
    """Return a sentence about several inputs without a column."""
    absent, there = quote(fault.input for fault in faults), quote(schema.names)
    return f"there is no column for {len(faults)} inputs, {absent}; the columns are {there}"


def _explain_absence(name: str, schema: pa.Schema, renamed: Mapping[str, str]) -> Fault:
    """Return the fault of an input without a column, also where that is used for another."""
    for theirs, ours in renamed.items():
        if theirs.strip() == name.strip():
            return Fault(name, f"no column, since {theirs!r} is used for {ours!r}", "another one")
    got = f"no such column among {quote(schema.names)}"
    return Fault(name, got, "a column of this name")


def score_batch(
    model: Model, plan: Plan, batch: pa.RecordBatch, faults: Mapping[int, Fault] | None = None
) -> Scored:
    """Score a batch: its columns, followed by the prediction's.

    These are `gives.table_fields`, `takes.reason_fields` if the plan explains, notice and error. A
    refused row has an error, and nulls elsewhere.

    Args:
        model: the model that the plan was made for.
        plan: what `make_plan` returned for the batch's schema.
        batch: n rows.
        faults: why a row could not be read, by its place in the batch.
    """
    errors = {place: fault.message for place, fault in (faults or {}).items()}
    read = _read_rows if model.takes.kind == "row" else _read_texts
    refused = Counter(fault.input for fault in (faults or {}).values() if fault.input == TEXT)
    checked, places = read(model, plan, batch, errors, refused)
    while True:
        try:
            answers = model.answer(checked)
            columns = list(_arrays(model.gives.table_fields, answers.table()))
            if plan.explain:
                columns += _arrays(model.takes.reason_fields, model.reasons(checked).table())
            break
        except InvalidInput as error:  # of rows that passed the check
            errors |= _find_errors(error, places)
            checked, places = read(model, plan, batch, errors, Counter())
    notices = place_notices(answers.notices)
    count = batch.num_rows
    if places is not None:
        columns = _spread_out(columns, places, count)
        notices = {int(places[row]): text for row, text in notices.items()}
    columns += [_sparse(notices, count), _sparse(errors, count)]
    whole = pa.RecordBatch.from_arrays([*batch.columns, *columns], schema=plan.schema)
    counts = Counts(count, count - len(errors), len(notices), len(errors))
    return Scored(whole, counts, errors, checked, answers, refused)


def score_table(
    model: Model,
    table: Table,
    plan: Plan,
    target_format: FileFormat,
    raw: bool = False,
    workers: int | None = None,
    skip: int = 0,
    origin: Origin | None = None,
    score: Scorer | None = None,
) -> Generator[Part]:
    """Yield the scored table in order, ready to be written: first the head, then each chunk.

    The run is recorded at the end, or when the generator is closed.

    Args:
        model: the model that the plan was made for.
        table: an opened table.
        plan: what `make_plan` returned.
        target_format: how the result is written. Parquet needs `finish_parquet` on the whole.
        raw: as in `Options`.
        workers: threads, by default one for each core.
        skip: how many of the first parts are skipped, since they were written before.
        origin: the run's identifier and channel; by default a new identifier and `file`.
        score: a function to score batches instead of `score_batch`, with the same arguments.

    Raises:
        InvalidTable: the file turns out to be damaged.
    """
    identifier, channel = origin or Origin(answering.new_id(), "file")
    began, done, complete = time.monotonic(), Counts(), False

    def work(item: tuple[Chunk, float | None]) -> Part:
        chunk, share = item
        if model.takes.kind == "text":
            chunk = refuse_other_values(chunk, plan.inputs[TEXT])
        scored = (score or score_batch)(model, plan, chunk.batch, chunk.faults)
        answering.count(model, scored.checked, scored.answers, scored.refused)
        whole = replace(chunk, batch=scored.batch)
        data = write_chunk(target_format, whole, plan.own, raw)
        return Part(data, scored.counts, scored.errors, share)

    def read() -> Iterator[tuple[Chunk, float | None]]:
        rows = rows_of_chunk(model.takes.kind)
        for number, chunk in enumerate(table.chunks(rows), 1):
            if number >= skip:
                yield chunk, table.position() / table.size if table.size else None

    try:
        if not skip:
            yield Part(write_head(target_format, plan.schema, raw), Counts(), {}, None)
        with closing(_in_order(work, read(), workers or os.cpu_count() or 1)) as parts:
            for part in parts:
                done += part.counts
                yield part
        complete = True
    finally:
        seconds = time.monotonic() - began
        answering.note_run(identifier, model.manifest, channel, seconds, done, complete)


def refuse_other_values(chunk: Chunk, column: str) -> Chunk:
    """Return a chunk of JSON lines in which a row whose text is another value has a fault.

    Cells are text, whatever the value was, so a line is read again if its cell may be another.

    Args:
        chunk: rows of any format.
        column: the name of the column of texts.
    """
    if chunk.line_format != "jsonl" or chunk.lines is None:
        return chunk
    suspect = pc.match_substring_regex(chunk.batch.column(column), _OTHER_VALUE)
    found: dict[int, Fault] = {}
    for place in np.flatnonzero(suspect.fill_null(False).to_numpy(zero_copy_only=False)).tolist():
        values = load_json(chunk.lines[place].as_py().removesuffix(",").encode() + b"}")
        value = next((each for key, each in values.items() if key.strip() == column), "")
        if not isinstance(value, str):
            from mlapp.families.text import refuse_other  # the model of texts has imported it

            found[place] = refuse_other(value)
    return replace(chunk, faults=found | chunk.faults) if found else chunk


def _in_order(work: Callable[[T], R], items: Iterable[T], threads: int) -> Generator[R]:
    """Yield the results of work on each item in order, with a few items in progress at a time."""
    pending: deque[Future[R]] = deque()
    pool = ThreadPoolExecutor(threads, initializer=use_one_core)
    try:
        for item in items:
            pending.append(pool.submit(work, item))
            if len(pending) > 2 * threads:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def rows_of_chunk(takes: str) -> int | None:
    """Return how many rows a chunk should have; None leaves it to the reader.

    Args:
        takes: row or text.
    """
    return TEXT_ROWS if takes == "text" else None


def _added(model: Model, explain: bool) -> list[tuple[str, pa.DataType]]:
    """Return the prediction's columns: names and types."""
    fields = model.gives.table_fields + (model.takes.reason_fields if explain else ())
    found = [(each.name, _TYPES[each.datatype]) for each in fields]
    return [*found, ("notice", pa.string()), ("error", pa.string())]


def _text_column(schema: pa.Schema, trained: str | None) -> str:
    for name in TEXT_COLUMNS:
        if name in schema.names:
            return name
    texts = [each.name for each in schema if pa.types.is_string(each.type)]
    if len(texts) != 1:
        fault = Fault(TEXT, f"no such column among {quote(schema.names)}", "one with the texts")
        usual = dict.fromkeys([*TEXT_COLUMNS, trained or TEXT])
        *others, last = map(repr, usual)
        raise InvalidInput(
            [fault],
            f"no column is called {', '.join(others)} or {last}: name the column of texts with"
            " --text-column (text_column in a request)",
        )
    return str(texts[0])


def _read_rows(
    model: Model,
    plan: Plan,
    batch: pa.RecordBatch,
    errors: dict[int, str],
    refused: Counter[str],
) -> tuple[Batch, Places | None]:
    """Check the rows of a batch; return those that pass, and their places unless all pass.

    The errors of the refused rows are added to `errors`, by their place, and the inputs at fault
    to `refused`.
    """
    assert isinstance(model.takes, RowInput)  # as its kind says
    specs = model.takes.inputs
    matrix = np.empty((batch.num_rows, len(specs)))
    found: dict[int, list[str]] = {}
    for place, spec in enumerate(specs):
        name = plan.inputs[spec.name]
        column = batch.column(name)
        matrix[:, place], bad = parse_column(spec, column, plan.decimals.get(name))
        if bad:
            refused[spec.name] += len(bad)
        for row in bad:
            fault = refuse(spec, to_values(column.slice(row, 1))[0])
            found.setdefault(row, []).append(fault.message)
    for row, messages in found.items():
        errors.setdefault(row, "; ".join(messages))
    places = _good_places(batch.num_rows, errors)
    return Checked(model.takes.schema, matrix if places is None else matrix[places]), places


def _read_texts(
    model: Model,
    plan: Plan,
    batch: pa.RecordBatch,
    errors: dict[int, str],
    refused: Counter[str],
) -> tuple[Batch, Places | None]:
    """Check the texts of a batch; see `_read_rows`."""
    texts = to_values(batch.column(plan.inputs[TEXT]))
    while True:
        places = _good_places(len(texts), errors)
        chosen = texts if places is None else [texts[place] for place in places]
        try:
            return model.check(chosen), places
        except InvalidInput as error:
            found = _find_errors(error, places)
            errors |= found
            refused[TEXT] += len(found)


def _find_errors(error: InvalidInput, places: Places | None) -> dict[int, str]:
    """Return the errors of rows, by their place in a batch of which rows at some places remain."""
    found: dict[int, list[str]] = {}
    for fault in error.faults:
        assert isinstance(fault.row, int)  # rows without labels are numbered
        row = fault.row if places is None else int(places[fault.row])
        found.setdefault(row, []).append(fault.message)
    return {row: "; ".join(messages) for row, messages in found.items()}


def _good_places(count: int, errors: Container[int]) -> Places | None:
    """Return the places of the rows without an error; None if no row has one."""
    if not errors:
        return None
    return np.array([place for place in range(count) if place not in errors], dtype=np.int64)


def _arrays(fields: Iterable[Field], table: Mapping[str, Values]) -> Iterator[pa.Array]:
    """Yield the columns of a table of answers or reasons as Arrow arrays."""
    for each in fields:
        values = np.ascontiguousarray(table[each.name])
        yield pa.array(values, _TYPES[each.datatype])


def _spread_out(columns: Iterable[pa.Array], places: Places, count: int) -> list[pa.Array]:
    """Return columns of `count` rows with the given values at some places and nulls elsewhere."""
    source = np.full(count, -1, dtype=np.int64)
    source[places] = np.arange(len(places))
    indices = pa.array(source, mask=source < 0)
    return [column.take(indices) for column in columns]


def parse_column(
    spec: Input, column: pa.Array, decimal: str | None = None
) -> tuple[Floats, list[int]]:
    """Parse a column as `spec.parse` does value by value.

    Args:
        spec: the input.
        column: n values.
        decimal: the column's decimal mark, see `schema.settle_marks`.

    Returns:
        The values (n,), NaN for a missing one, and the places of those that are not allowed.
    """
    if isinstance(spec, Number) and not pa.types.is_temporal(column.type):
        values, bad = parse_numbers(column, spec.mark_of(decimal))
        if bad and (spec.unit is not None or spec.placeholders):
            values, bad = _parse_again(spec, column, values, bad, decimal)
        if spec.missing:
            return values, bad
        return values, np.flatnonzero(np.isnan(values)).tolist()
    try:
        coded = column.dictionary_encode(null_encoding="encode")
    except pa.ArrowNotImplementedError:  # as for lists, or UUIDs
        each, wrong = _parse_each(spec, column)
        return each, np.flatnonzero(wrong).tolist()
    each, wrong = _parse_each(spec, coded.dictionary)
    codes = coded.indices.to_numpy(zero_copy_only=False)
    return each[codes], np.flatnonzero(wrong[codes]).tolist()


def _parse_again(
    spec: Number, column: pa.Array, values: Floats, bad: list[int], decimal: str | None
) -> tuple[Floats, list[int]]:
    """Parse what is not a plain number, which may have a unit or stand for a missing value."""
    wrong = []
    texts = column.take(pa.array(bad)).to_pylist()
    for place, text in zip(bad, texts, strict=True):
        parsed = spec.parse(text, decimal)
        values[place] = np.nan if parsed is None else parsed
        if parsed is None:
            wrong.append(place)
    return values, wrong


def _parse_each(spec: Input, column: pa.Array) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Parse value by value; return the values, and which of them are not allowed."""
    parsed = [spec.parse(value) for value in to_values(column)]
    wrong = [value is None for value in parsed]
    values = [np.nan if value is None else value for value in parsed]
    return np.array(values, dtype=float), np.array(wrong, dtype=bool)


def _sparse(texts: Mapping[int, str], count: int) -> pa.Array:
    """Return `count` texts, of which most are null."""
    if not texts:
        return pa.nulls(count, pa.string())
    return pa.array([texts.get(place) for place in range(count)], pa.string())
