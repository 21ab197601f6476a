"""Small files that stand for large tables: each is read in bounded memory, or refused."""

import io
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlapp.errors import InvalidTable
from mlapp.tables import chunks, parquet
from mlapp.tables.decoding import find_encoding
from mlapp.tables.formats import FileFormat, TableFormat
from mlapp.tables.reading import open_table

# Reads a table in a process of its own, and prints its rows and the memory that they took.
READ = """
import resource, sys
import openpyxl, pyarrow.parquet
from mlapp.errors import InvalidTable
from mlapp.tables.formats import format_of
from mlapp.tables.reading import open_table
before, rows = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, 0
try:
    with open_table(__import__("pathlib").Path(sys.argv[1])) as table:
        for chunk in table.chunks():
            rows += chunk.batch.num_rows
except InvalidTable as error:
    print("refused", error, file=sys.stderr)
print(rows, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
MEGABYTES = 150


def memory(path: Path) -> tuple[int, int, str]:
    """Return the rows that are read, the megabytes that they take, and what is refused."""
    ran = subprocess.run(
        [sys.executable, "-c", READ, str(path)], capture_output=True, text=True, check=True
    )
    rows, megabytes = map(int, ran.stdout.split())
    return rows, megabytes, ran.stderr


def same(text: str, rows: int) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), pa.array([text]))


LIST = pa.array(np.arange(0, 40_001, 10, dtype=np.int32))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("column", "options", "rows"),
    [
        (lambda: same("x" * 10_000, 40_000), {}, 40_000),
        (lambda: pa.ListArray.from_arrays(LIST, same("x" * 10_000, 40_000)), {}, 4_000),
        (lambda: pa.StructArray.from_arrays([same("x" * 10_000, 40_000)], ["a"]), {}, 40_000),
        (lambda: pa.nulls(40_000, pa.binary(100_000)), {}, 40_000),
        (lambda: pa.array(np.zeros(20_000_000)), {"use_dictionary": False}, 20_000_000),
        (
            lambda: pa.array(["x" * 100_000 + str(place) for place in range(4_000)]),
            {"use_dictionary": False, "column_encoding": {"c": "DELTA_BYTE_ARRAY"}},
            4_000,
        ),
    ],
    ids=["text", "texts in lists", "text in a structure", "fixed width", "pages", "prefixes"],
)
def test_parquet_is_read_in_memory_that_does_not_grow_with_what_its_bytes_stand_for(
    column: Callable[[], pa.Array], options: dict[str, object], rows: int, tmp_path: Path
) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"c": column()}), path, compression="zstd", **options)
    assert path.stat().st_size < 200_000
    read, megabytes, refused = memory(path)
    assert refused == ""
    assert read == rows
    assert megabytes < MEGABYTES


@pytest.mark.slow
@pytest.mark.parametrize(
    ("column", "options"),
    [
        (lambda: pa.array(["x" * 100_000_000]), {"use_dictionary": False}),
        (lambda: same("x" * 100_000_000, 2), {}),
        (lambda: same("x" * 1_000_000, 100_000), {}),
        (
            lambda: pa.ListArray.from_arrays(
                pa.array([0, 20_000_000], pa.int32()), pa.array(np.zeros(20_000_000))
            ),
            {},
        ),
        (lambda: pa.nulls(10, pa.binary(1 << 26)), {}),
    ],
    ids=["page", "dictionary", "total", "list", "fixed width"],
)
def test_parquet_whose_memory_cannot_be_bounded_is_refused(
    column: Callable[[], pa.Array], options: dict[str, object], tmp_path: Path
) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"c": column()}), path, compression="zstd", **options)
    _, megabytes, refused = memory(path)
    assert "unpacks to more than 200 times its size" in refused or "a row of" in refused
    assert megabytes < MEGABYTES


def test_parquet_of_many_columns_is_read_a_few_rows_at_a_time() -> None:
    file = io.BytesIO()
    columns = {f"c{place}": np.zeros(3000) for place in range(1000)}
    pq.write_table(pa.table(columns), file)
    with open_table(file, FileFormat("parquet")) as table:
        sizes = [chunk.batch.nbytes for chunk in table.chunks()]
    assert len(sizes) > 3
    assert max(sizes) < 3 * parquet.BYTES


@pytest.mark.parametrize("coding", ["PLAIN", "DELTA_BYTE_ARRAY", "DELTA_LENGTH_BYTE_ARRAY", None])
@pytest.mark.parametrize("version", ["1.0", "2.0"])
def test_every_coding_of_parquet_is_read_the_same(coding: str | None, version: str) -> None:
    words = [None if place % 7 == 0 else f"wörd {place % 50}" * 9 for place in range(5000)]
    columns = {
        "text": pa.array(words),
        "lists": pa.array([[word, None, "x"] if word else None for word in words]),
        "map": pa.array([[("k", word)] for word in words], pa.map_(pa.string(), pa.string())),
        "structures": pa.array([{"a": word, "b": [1]} for word in words]),
        "bytes": pa.array([word.encode() if word else None for word in words]),
    }
    options = {"column_encoding": coding, "use_dictionary": False} if coding else {}
    file = io.BytesIO()
    if coding:
        columns = {name: columns[name] for name in ("text", "bytes")}
    pq.write_table(
        pa.table(columns), file, data_page_version=version, row_group_size=1500, **options
    )
    with open_table(file, FileFormat("parquet")) as table:
        read = pa.Table.from_batches([chunk.batch for chunk in table.chunks()])
    assert read.to_pydict() == pa.table(columns).to_pydict()


def test_a_page_header_that_is_damaged_is_an_error(tmp_path: Path) -> None:
    file = io.BytesIO()
    pq.write_table(pa.table({"c": [1, 2]}), file, compression="none")
    whole = file.getvalue()
    for place in range(4, len(whole) - 8, 3):
        for value in (0, 0x80, 0xFF):
            data = bytearray(whole)
            data[place] = value
            try:
                with open_table(io.BytesIO(bytes(data)), FileFormat("parquet")) as table:
                    list(table.chunks())
            except InvalidTable as error:
                assert str(error)


# --- columns ----------------------------------------------------------------------------------


def wide(format_: TableFormat, columns: int) -> bytes:
    names = [f"c{place}" for place in range(columns)]
    if format_ == "parquet":
        file = io.BytesIO()
        pq.write_table(pa.table({name: [1] for name in names}), file)
        return file.getvalue()
    if format_ == "jsonl":
        return "\n".join(f'{{"{name}": 1}}' for name in names).encode()
    separator = "\t" if format_ == "tsv" else ","
    return f"{separator.join(names)}\n{separator.join('1' * columns)}\n".encode()


@pytest.mark.slow
@pytest.mark.parametrize("format_", ["csv", "tsv", "jsonl", "parquet"])
def test_more_columns_than_a_spreadsheet_has_are_refused(format_: TableFormat) -> None:
    data = wide(format_, chunks.MOST_COLUMNS + 1)
    with (
        pytest.raises(InvalidTable, match=r"got 16,385 columns, expected at most 16,384"),
        open_table(io.BytesIO(data), FileFormat(format_)),
    ):
        pytest.fail("the table was opened")


@pytest.mark.slow
@pytest.mark.parametrize("format_", ["csv", "jsonl"])
def test_short_rows_of_a_wide_table_are_read_a_few_at_a_time(format_: TableFormat) -> None:
    rows = b"1\n" * 3000 if format_ == "csv" else b'{"c1": 1}\n' * 3000
    data = wide(format_, 5000) + (b"" if format_ == "csv" else b"\n") + rows
    with open_table(io.BytesIO(data), FileFormat(format_)) as table:
        sizes = [chunk.batch.num_rows for chunk in table.chunks()]
    assert sum(sizes) == 3001 if format_ == "csv" else sum(sizes) == 8000
    assert max(sizes) * 5000 <= chunks.MOST_CELLS + 5000


def test_a_ragged_row_of_very_many_cells_is_a_fault() -> None:
    data = b"a,b\n1,2\n" + b"," * 2_000_000 + b"\n3,4\n"
    with open_table(io.BytesIO(data), FileFormat("csv")) as table:
        read = list(table.chunks())
    cells = [row for chunk in read for row in chunk.batch.to_pylist()]
    assert [row["b"] for row in cells] == ["2", "", "4"]
    faults = [fault.message for chunk in read for fault in chunk.faults.values()]
    assert faults == ["got 2000001 cells, expected 2 cells"]


def test_a_line_of_very_many_values_is_a_fault() -> None:
    data = b'{"a": 1}\n{"a": [' + b"0," * 600_000 + b"0]}\n"
    with open_table(io.BytesIO(data), FileFormat("jsonl")) as table:
        [fault] = [each for chunk in table.chunks() for each in chunk.faults.values()]
    assert "one JSON object of at most 500,000 values" in fault.message


# --- Excel ------------------------------------------------------------------------------------


def workbook(path: Path, rows: str, text: str = "") -> Path:
    """Write a workbook with a column `a`, and rows of XML; `text` is the first shared text."""
    book = openpyxl.Workbook()
    book.worksheets[0].append(["a"])
    book.save(path)
    with zipfile.ZipFile(path) as archive:
        members = {each: archive.read(each) for each in archive.namelist()}
    sheet = "xl/worksheets/sheet1.xml"
    members[sheet] = members[sheet].replace(b"</sheetData>", rows.encode() + b"</sheetData>")
    shared = f'<sst xmlns="{MAIN}"><si><t>{text}</t></si></sst>'
    members["xl/sharedStrings.xml"] = shared.encode()
    kinds = "[Content_Types].xml"
    override = f'<Override PartName="/xl/sharedStrings.xml" ContentType="{SHARED}"/></Types>'
    members[kinds] = members[kinds].replace(b"</Types>", override.encode())
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


SHARED = "application/vnd.openxmlformats-officedocument.spreadsheetml.sharedStrings+xml"
MAIN = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"


@pytest.mark.slow
def test_a_workbook_that_unpacks_to_much_more_than_its_size_is_refused(tmp_path: Path) -> None:
    path = workbook(tmp_path / "a.xlsx", "<row>" + "<c/>" * 4_000_000 + "</row>")
    _, megabytes, refused = memory(path)
    assert "unpacks to more than" in refused
    assert megabytes < MEGABYTES


@pytest.mark.slow
def test_a_long_text_that_many_cells_share_is_read_in_bounded_memory(tmp_path: Path) -> None:
    rows = '<row><c t="s"><v>0</v></c></row>' * 20_000
    read, megabytes, _ = memory(workbook(tmp_path / "a.xlsx", rows, "x" * 30_000))
    assert read == 20_000
    assert megabytes < MEGABYTES


# --- encodings --------------------------------------------------------------------------------


OTHER = (
    *("utf-7", "unicode_escape", "raw_unicode_escape", "idna", "punycode", "base64", "rot13"),
    *("hex", "zip", "bz2", "quopri", "uu", "mbcs", "undefined", "charmap", "klingon", "cp037"),
)
CHARACTER_SETS = (
    *("UTF-8", "utf8", "utf-16", "utf-16le", "UTF-32-BE", "latin-1", "ISO-8859-15", "cp1251"),
    *("windows-1252", "Shift_JIS", "sjis", "euc-jp", "iso-2022-jp", "gb18030", "GBK", "gb2312"),
    *("big5", "euc-kr", "koi8-r", "KOI8-U", "macroman", "macintosh", "cp437", "tis-620"),
)


@pytest.mark.parametrize("name", OTHER)
def test_what_is_not_a_character_set_is_refused_with_what_is_allowed(name: str) -> None:
    for given in (name, name.upper(), name.replace("_", "-")):
        with (
            pytest.raises(InvalidTable, match=r"encoding: got .*expected utf-8, utf-16.*gb18030"),
            open_table(io.BytesIO(b"a,b\n1,2\n"), FileFormat("csv", encoding=given)),
        ):
            pytest.fail("the table was opened")


@pytest.mark.parametrize("name", ["é", "", " ", "../utf-8", "\0", "a" * 10_000, "utf-8\n"])
def test_odd_names_are_not_character_sets(name: str) -> None:
    assert find_encoding(name) in (None, "utf_8")


@pytest.mark.parametrize("name", CHARACTER_SETS)
@pytest.mark.parametrize("data", [b"\xff", b"\x81", b"\xd8\x00\xd8\x00", b"\x1b$B!", b"~{"])
def test_any_bytes_in_a_character_set_are_read_or_refused(name: str, data: bytes) -> None:
    assert find_encoding(name)
    for content in (b"a,b\n1," + data, data * 9, data * 8):
        try:
            with open_table(io.BytesIO(content), FileFormat("csv", encoding=name)) as table:
                list(table.chunks())
        except InvalidTable as error:
            assert str(error)
