import csv
import gzip
import io
import json
import uuid
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlapp.tables import writing
from mlapp.tables.chunks import Chunk
from mlapp.tables.formats import FileFormat
from mlapp.tables.writing import finish_parquet, guard, write_chunk, write_head

TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=20)
CSV, TSV, JSONL, PARQUET = (
    FileFormat("csv"),
    FileFormat("tsv"),
    FileFormat("jsonl"),
    FileFormat("parquet"),
)


def batch(**columns: Any) -> pa.RecordBatch:
    return pa.RecordBatch.from_pydict(columns)


def write(form: FileFormat, rows: pa.RecordBatch, raw: bool = False) -> str:
    data = [write_head(form, rows.schema, raw), write_chunk(form, Chunk(rows), 0, raw)]
    return b"".join(data).decode()


def test_cells_have_quotes_only_where_they_need_them() -> None:
    rows = batch(a=["x", "1,5", 'say "x"', "two\nlines", None, ""], b=[1, 2, 3, 4, 5, 6])
    assert write(CSV, rows) == ('a,b\nx,1\n"1,5",2\n"say ""x""",3\n"two\nlines",4\n,5\n,6\n')
    assert write(TSV, rows).splitlines()[2] == "1,5\t2"


@settings(deadline=None)
@given(rows=st.lists(st.tuples(TEXTS, TEXTS), min_size=1))
def test_a_csv_reader_reads_back_every_text(rows: list[tuple[str, str]]) -> None:
    columns = list(map(list, zip(*rows, strict=True)))
    written = write(CSV, batch(a=columns[0], b=columns[1]), raw=True)
    assert list(csv.reader(io.StringIO(written, newline="")))[1:] == list(map(list, rows))


@settings(deadline=None)
@given(numbers=st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1))
def test_numbers_read_back_exactly(numbers: list[float]) -> None:
    read = [float(line) for line in write(CSV, batch(a=numbers)).splitlines()[1:]]
    assert [each.hex() for each in read] == [each.hex() for each in numbers]
    read = [json.loads(line)["a"] for line in write(JSONL, batch(a=numbers)).splitlines()]
    assert read == numbers


@pytest.mark.parametrize(
    "text",
    [
        "=1+1",
        "+cmd|' /C calc'!A0",
        "-1+1",
        "@SUM(A1)",
        "\t=1",
        "\r=1",
        "\n=1",
        "＝1",
        "-e5",
        "+1-2",
    ],
)
def test_a_text_that_would_run_as_a_formula_gets_an_apostrophe(text: str) -> None:
    rows = batch(a=["x", text])
    assert list(csv.reader(io.StringIO(write(CSV, rows), newline="")))[2] == ["'" + text]
    assert list(csv.reader(io.StringIO(write(CSV, rows, raw=True), newline="")))[2] == [text]
    header = write_head(CSV, pa.schema([(text, pa.string())]))
    assert next(csv.reader(io.StringIO(bytes(header).decode(), newline=""))) == ["'" + text]
    assert json.loads(write(JSONL, rows).splitlines()[1]) == {"a": text}


@pytest.mark.parametrize(
    "text", ["-5.2", "+3", "-1e-5", "-.5", "-1,234.5", "-5%", "-", "+", "x=1", " =1", "", "é"]
)
def test_a_number_stays_a_number_and_other_texts_stay_as_they_are(text: str) -> None:
    assert guard(pa.array([text, None, "=1"])).to_pylist() == [text, None, "'=1"]


def test_a_slice_of_a_column_is_guarded_and_quoted_as_the_whole() -> None:
    rows = batch(a=["=x", "b", None, "=c,", "d"]).slice(2, 2)
    assert write(CSV, rows) == 'a\n\n"\'=c,"\n'
    assert write(JSONL, rows) == '{"a":null}\n{"a":"=c,"}\n'


def test_negative_numbers_of_a_typed_column_are_not_texts() -> None:
    assert write(CSV, batch(a=[-5.5, -1e300])) == "a\n-5.5\n-1e+300\n"


def test_every_kind_of_column_has_a_text_and_a_json_value() -> None:
    when = datetime(2024, 2, 29, 12, 30, tzinfo=UTC)
    rows = pa.RecordBatch.from_arrays(
        [
            pa.array([[1, 2], None]),
            pa.array([{"x": "=1"}, None]),
            pa.array([b"plain", b"\xff"]),
            pa.array([when, None]),
            pa.array([date(2024, 2, 29), None]),
            pa.array([Decimal("1.50"), None]),
            pa.array([True, None]),
            pa.array([np.nan, np.inf]),
            pa.array([None, None]),
        ],
        names=list("abcdefghi"),
    )
    lines = list(csv.reader(io.StringIO(write(CSV, rows), newline="")))
    assert lines[1][:3] == ["[1,2]", '{"x":"=1"}', "706c61696e"]
    assert lines[1][4:] == ["2024-02-29", "1.50", "true", "nan", ""]
    assert lines[1][3].startswith("2024-02-29 12:30:00")
    assert lines[2] == ["", "", "ff", "", "", "", "", "inf", ""]
    first, second = map(json.loads, write(JSONL, rows).splitlines())
    assert first["a"] == [1, 2]
    assert first["d"] == "2024-02-29T12:30:00+00:00"
    assert first["f"] == "1.50"
    assert [second[name] for name in "abdefghi"] == [None] * 8


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary(), pa.binary(2)])
def test_bytes_are_hexadecimal_whatever_they_hold(kind: pa.DataType) -> None:
    for value in (b"ab", b"\xff\x00"):
        rows = batch(a=pa.array([value, None], kind), b=[1, 2])
        assert write(CSV, rows) == f"a,b\n{value.hex()},1\n,2\n"


def test_a_uuid_has_its_usual_form() -> None:
    text = "00112233-4455-6677-8899-aabbccddeeff"
    rows = batch(a=pa.array([uuid.UUID(text).bytes, None], pa.uuid()), b=[1, 2])
    assert write(CSV, rows) == f"a,b\n{text},1\n,2\n"
    assert json.loads(write(JSONL, rows).splitlines()[0])["a"] == text


FAR = [
    (pa.date32(), 10**7, "29349-01-26", "1970-01-03"),
    (pa.duration("s"), 2**62, str(2**62), "0:00:02"),
    (pa.timestamp("s", "Europe/Berlin"), 2**45, f"<value out of range: {2**45}>", None),
    (pa.timestamp("s", "Foo/Bar"), 1, None, "1970-01-01T00:00:02+00:00"),
]


@pytest.mark.parametrize(("kind", "far", "written", "near"), FAR)
def test_a_time_that_python_cannot_hold_is_written(
    kind: pa.DataType, far: int, written: str | None, near: str | None
) -> None:
    storage = pa.int32() if pa.types.is_date32(kind) else pa.int64()
    column = pa.array([far, 2], storage).cast(kind)
    lists = pa.ListArray.from_arrays([0, 1, 2], column)
    structs = pa.StructArray.from_arrays([column], ["x"])
    maps = pa.MapArray.from_arrays([0, 1, 2], pa.array(["k", "k"]), column)
    rows = pa.RecordBatch.from_arrays([column, lists, structs, maps], names=list("abcd"))
    first, second = map(json.loads, write(JSONL, rows).splitlines())
    for row, text in ((first, written), (second, near)):
        value = row["a"]
        assert text in (None, value)
        assert [row[name] for name in "bcd"] == [[value], {"x": value}, [["k", value]]]
    cells = next(iter(csv.DictReader(io.StringIO(write(CSV, rows), newline=""))))
    assert written in (None, cells["a"])
    assert json.loads(cells["b"]) == first["b"]


@settings(deadline=None)
@given(texts=st.lists(st.none() | TEXTS, min_size=1))
def test_json_lines_read_back_every_text(texts: list[str | None]) -> None:
    rows = pa.RecordBatch.from_arrays([pa.array(texts, pa.string())], names=['a "quoted" name'])
    read = [json.loads(line) for line in write(JSONL, rows).split("\n")[:-1]]
    assert read == [{'a "quoted" name': text} for text in texts]


def test_lines_of_json_are_added_to() -> None:
    chunk = Chunk(batch(a=["1", None], p=[0.5, None]), {}, pa.array(['{ "a" : 1.0,', "{"]), "jsonl")
    written = bytes(write_chunk(JSONL, chunk, own=1))
    assert written == b'{ "a" : 1.0,"p":0.5}\n{"p":null}\n'


def test_rows_of_nothing_are_rows() -> None:
    rows = pa.RecordBatch.from_arrays([pa.nulls(2, pa.string()), pa.nulls(2)], names=["a", "b"])
    assert write(CSV, rows) == "a,b\n,\n,\n"


def test_gzipped_chunks_make_one_file_without_a_time() -> None:
    form = FileFormat("csv", compressed=True)
    rows = batch(a=["x"])
    data = bytes(write_head(form, rows.schema)) + bytes(write_chunk(form, Chunk(rows), 0))
    assert gzip.decompress(data) == b"a\nx\n"
    assert data[4:8] == bytes(4)


def test_parquet_does_not_depend_on_how_the_chunks_were_cut(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(writing, "GROUP_ROWS", 10)
    rows = batch(a=list(range(35)), b=[f"text {n}" for n in range(35)])

    def finish(*cuts: int) -> bytes:
        spool, file = io.BytesIO(bytes(write_head(PARQUET, rows.schema))), io.BytesIO()
        spool.seek(0, io.SEEK_END)
        for start, end in zip([0, *cuts], [*cuts, 35], strict=True):
            spool.write(write_chunk(PARQUET, Chunk(rows.slice(start, end - start)), 0))
        spool.seek(0)
        finish_parquet(spool, file)
        return file.getvalue()

    whole = finish()
    assert finish(3, 20, 21) == finish(10, 20, 30) == whole
    file = pq.ParquetFile(io.BytesIO(whole))
    assert file.read().to_pydict() == rows.to_pydict()
    assert [file.metadata.row_group(n).num_rows for n in range(4)] == [10, 10, 10, 5]
