import codecs
import csv
import gzip
import io
import os
import re
import signal
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mlapp.errors import Fault, InvalidTable
from mlapp.tables import decoding, delimited, jsonlines
from mlapp.tables.chunks import Chunk
from mlapp.tables.delimited import find_row_end
from mlapp.tables.formats import FileFormat, TableFormat, format_of
from mlapp.tables.reading import open_table
from mlapp.tables.writing import write_chunk, write_head
from training.tables import read_table


def read(
    source: Path | BinaryIO, form: FileFormat | None = None
) -> tuple[list[Any], dict[int, str]]:
    """Return all rows as lists of cells, and the faults by row."""
    rows: list[Any] = []
    faults: dict[int, str] = {}
    with open_table(source, form) as table:
        for chunk in table.chunks():
            faults |= {len(rows) + place: each.message for place, each in chunk.faults.items()}
            rows += map(list, zip(*(column.to_pylist() for column in chunk.batch), strict=True))
    return rows, faults


def read_csv(data: bytes | str, format_: TableFormat = "csv") -> tuple[list[Any], dict[int, str]]:
    return read(io.BytesIO(data.encode() if isinstance(data, str) else data), FileFormat(format_))


def refusal(source: Path | BinaryIO, form: FileFormat | None = None) -> str:
    with pytest.raises(InvalidTable) as caught, open_table(source, form) as table:
        list(table.chunks())
    return str(caught.value)


class Pipe(io.RawIOBase):
    """A stream that can be read once only, and gives little at a time."""

    name = "a pipe"

    def __init__(self, data: bytes) -> None:
        self._data = io.BytesIO(data)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._data.read(min(len(buffer), 7))
        buffer[: len(data)] = data
        return len(data)


# --- what a name says -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("a.csv", FileFormat("csv")),
        ("A.TXT", FileFormat("csv")),
        ("a.b.tsv", FileFormat("tsv")),
        ("a.csv.gz", FileFormat("csv", compressed=True)),
        ("a.ndjson.zip", FileFormat("jsonl", compressed=True)),
        ("a.zip", FileFormat("csv", compressed=True)),
        ("a.2024.zip", FileFormat("csv", compressed=True)),
        ("a.parquet", FileFormat("parquet")),
    ],
)
def test_a_name_says_how_a_table_is_written_down(name: str, form: FileFormat) -> None:
    assert format_of(name) == form


@pytest.mark.parametrize(
    "name", ["a.xls", "a", "a.parquet.gz", "a.parquet.zip", "a.xlsx.zip", "a.gz", ".csv"]
)
def test_a_name_that_says_nothing_is_refused_with_what_is_allowed(name: str) -> None:
    with pytest.raises(InvalidTable, match=r"expected \.csv, \.tsv or \.jsonl"):
        format_of(name)


def test_a_zip_is_read_but_not_written() -> None:
    assert format_of("a.csv.zip").compressed
    for name in ("a.csv.zip", "a.zip"):
        with pytest.raises(InvalidTable, match="zip"):
            format_of(name, write=True)


# --- CSV --------------------------------------------------------------------------------------


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_the_separator_is_recognised(separator: str) -> None:
    text = "a,b\n1,x\n2,y\n".replace(",", separator)
    assert read_csv(text) == ([["1", "x"], ["2", "y"]], {})


def test_one_column_of_texts_may_hold_every_separator() -> None:
    text = 'review\nGood, but long; a|b\n"Two\nlines, ""quoted"""\n'
    assert read_csv(text)[0] == [["Good, but long; a|b"], ['Two\nlines, "quoted"']]


def test_cells_stay_the_text_that_they_are() -> None:
    cells = ["007", "1.50", "1e5", " x ", "NA", "", "TRUE", "1,5"]
    text = ",".join("abcdefgh") + "\n" + ",".join(cells[:-1]) + ',"1,5"\n'
    assert read_csv(text)[0] == [cells]


@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("last", [True, False])
def test_every_kind_of_line_end_is_read_and_blank_lines_are_not_rows(ends: str, last: bool) -> None:
    text = ends.join(["a,b", "1,2", "", "3,4"]) + (ends if last else "")
    assert read_csv(text) == ([["1", "2"], ["3", "4"]], {})


def test_a_long_table_with_the_line_ends_of_old_macs_is_read_block_by_block(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(delimited, "BLOCK", 100)
    monkeypatch.setattr(delimited, "LONGEST_ROW", 1000)
    assert read_csv("a,b\r" + "1,2\r" * 1000) == ([["1", "2"]] * 1000, {})


def test_a_ragged_row_is_a_fault_at_its_place_and_keeps_its_cells() -> None:
    text = 'a,b,c\n1,2,3\n4,5\n6,7,8\n"9\n9",10,11,"x, y",z\n12,13,14\n'
    rows, faults = read_csv(text)
    assert rows == [
        ["1", "2", "3"],
        ["4", "5", ""],
        ["6", "7", "8"],
        ["9\n9", "10", "11"],
        ["12", "13", "14"],
    ]
    assert faults == {
        1: "got 2 cells, expected 3 cells",
        3: "got 5 cells ('x, y', 'z' too many), expected 3 cells",
    }


def test_a_table_of_ragged_rows_alone_is_read() -> None:
    assert read_csv("a,b\n1\n2\n") == (
        [["1", ""], ["2", ""]],
        dict.fromkeys((0, 1), "got 1 cell, expected 2 cells"),
    )


def test_a_quotation_mark_that_is_never_closed_is_a_fault_of_its_row() -> None:
    rows, faults = read_csv('a,b\n1,2\n3,"4\n5,6\n')
    assert rows == [["1", "2"], ["3", "4\n5,6\n\n"]]
    assert faults == {1: "got a quotation mark that is never closed, expected one that is"}


def test_a_nul_byte_and_a_long_cell_are_read() -> None:
    long = "word " * 40_000
    rows, faults = read_csv(f'a,b\n1\x00,"{long}"\n2,"{long}",3\n')
    assert rows == [["1\x00", long], ["2", long]]
    assert list(faults) == [1]


def test_a_row_that_is_longer_than_all_limits_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delimited, "BLOCK", 100)
    monkeypatch.setattr(delimited, "LONGEST_ROW", 1000)
    text = "a,b\n" + "1,2\n" * 10 + '3,"' + "4,5\n" * 1000
    with open_table(io.BytesIO(text.encode()), FileFormat("csv")) as table:
        chunks = table.chunks()
        assert next(chunks).batch.num_rows == 10
        with pytest.raises(InvalidTable, match=r"never closed.*begins with '3,") as caught:
            next(chunks)
    assert "1,000 bytes" in str(caught.value)


PIECES = st.lists(
    st.sampled_from(["a", ",", '"', '""', "\n", "\r\n", "é", " ", '","', '"\n"', "1"]), max_size=60
).map("".join)


@settings(deadline=None, max_examples=300)
@given(text=PIECES, block=st.integers(5, 40))
@example(text='5" nail,a\n"b\nc",d\n', block=6)
@example(text='"a""\n""b",c\n', block=5)
@pytest.mark.nightly
@pytest.mark.slow(14)
def test_where_blocks_are_cut_changes_nothing(text: str, block: int) -> None:
    data = b"x,y\n1,2\n" + text.encode()
    whole = read_csv(data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(delimited, "BLOCK", block)
        assert read_csv(data) == whole
        assert read(io.BufferedReader(Pipe(data)), FileFormat("csv")) == whole


@pytest.mark.slow
@settings(deadline=None)
@given(text=PIECES.map(lambda text: text.replace('"', "\r")), block=st.integers(5, 40))
@example(text="1,2\r3,4\n\n5,6\n", block=8)
@example(text="1,2\n\n5,6\n", block=8)
@example(text="=1,2\n3,-4\n", block=8)
def test_rows_are_written_the_same_with_or_without_their_lines(text: str, block: int) -> None:
    data = b"x,y\n1,2\n" + text.encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(delimited, "BLOCK", block)
        with open_table(io.BytesIO(data), FileFormat("csv")) as table:
            for chunk in table.chunks():
                more = pa.array([None, "=p"] * chunk.batch.num_rows).slice(1, chunk.batch.num_rows)
                batch = chunk.batch.append_column("z", more)
                chunk, without = replace(chunk, batch=batch), Chunk(batch, chunk.faults)
                for raw in (False, True):
                    written = write_chunk(FileFormat("csv"), chunk, 2, raw)
                    assert written == write_chunk(FileFormat("csv"), without, 2, raw)


def test_plain_rows_have_their_lines() -> None:
    data = b"x,y\n1,2\n" + b"3,4\r\n" * (1 << 17)
    with open_table(io.BytesIO(data), FileFormat("csv")) as table:
        chunks = list(table.chunks())
    assert [chunk.line_format for chunk in chunks] == [None, "csv", "csv"]
    assert chunks[1].lines is not None
    assert set(chunks[1].lines.to_pylist()) == {"3,4"}


@settings(deadline=None)
@given(
    rows=st.lists(
        st.lists(
            st.text(st.characters(codec="utf-8", exclude_characters="\x00")), min_size=2, max_size=2
        ),
        min_size=1,
    )
)
@pytest.mark.slow
def test_what_a_csv_writer_writes_is_read(rows: list[list[str]]) -> None:
    file = io.StringIO()
    csv.writer(file, quoting=csv.QUOTE_ALL).writerows([["a", "b"], *rows])
    assert read_csv(file.getvalue()) == (rows, {})


def test_quotes_that_only_alternate_and_stray_ones_give_the_same_row_ends() -> None:
    rows = b'"a","b\n""c"""\n1,2\n' * 50
    assert find_row_end(rows + b'3,"4', b",", b"\n") == (len(rows), True)
    assert find_row_end(b'5" nail,1\n' + rows + b'3,"4', b",", b"\n") == (len(rows) + 10, True)
    assert find_row_end(b'"a\nb', b",", b"\n") == (0, True)
    assert find_row_end(b'"a"\nb', b",", b"\n") == (4, False)


@pytest.mark.parametrize("is_file", [True, False])
def test_a_late_quotation_mark_of_tsv_is_a_character_if_it_encloses_no_cell(is_file: bool) -> None:
    cells = ["plain"] * 100_000 + ['"Late stray quote', "between", '"Another stray', "end"]
    data = "id\ttext\n" + "".join(f"{place}\t{cell}\n" for place, cell in enumerate(cells))
    stream = io.BytesIO(data.encode()) if is_file else io.BufferedReader(Pipe(data.encode()))
    rows, faults = read(stream, FileFormat("tsv"))
    assert faults == {}
    assert [row[1] for row in rows] == cells


@pytest.mark.parametrize("is_file", [True, False])
def test_a_late_quoted_cell_of_tsv_has_no_marks(is_file: bool) -> None:
    cells = ["plain"] * 100_000 + ["two\nlines\n", 'say "x"', "\ttab", "end"]
    file = io.StringIO()
    writer = csv.writer(file, delimiter="\t", lineterminator="\n")
    writer.writerows([["id", "text"], *enumerate(cells)])
    data = file.getvalue().encode()
    stream = io.BytesIO(data) if is_file else io.BufferedReader(Pipe(data))
    rows, faults = read(stream, FileFormat("tsv"))
    assert faults == {}
    assert [row[1] for row in rows] == cells


def test_a_last_mark_of_tsv_that_is_never_closed_is_a_character() -> None:
    assert read_csv('a\tb\n1\t"x\n2\ty\n', "tsv") == ([["1", '"x'], ["2", "y"]], {})
    rows, faults = read_csv('a\tb\n1\t"x"\n2\t"y', "tsv")
    assert rows[0] == ["1", "x"]
    assert list(faults) == [1]


def test_marks_of_a_single_column_of_tsv_may_be_characters() -> None:
    lines = ["A fine film", '"Unclosed start', "bad", 'terrible "really" film', "good"]
    assert read_csv("\n".join(["text", *lines, ""]), "tsv") == ([[line] for line in lines], {})


def test_the_rows_of_tsv_with_marks_are_read_again_from_what_is_written() -> None:
    notes = ["none"] * 20_000 + ['"Quoted" start', '"unclosed', 'a 5" nail'] * 10_000
    text = "id\tnote\n" + "".join(f"{place}\t{note}\n" for place, note in enumerate(notes))
    form = FileFormat("tsv")
    with open_table(io.BytesIO(text.encode()), form) as table:
        parts = [bytes(write_head(form, table.schema))]
        parts += [bytes(write_chunk(form, chunk, 2)) for chunk in table.chunks()]
    rows, faults = read_csv(b"".join(parts), "tsv")
    assert faults == {}
    assert [row[1] for row in rows] == notes


def test_excels_own_first_line_names_the_separator() -> None:
    assert read_csv("sep=;\r\na;b\r\n1,5;x\r\n") == ([["1,5", "x"]], {})
    assert read_csv("SEP=^\na^b\n1^x,y;z\n") == ([["1", "x,y;z"]], {})
    assert read(io.BufferedReader(Pipe(b"sep=,\na,b\n1,2\n")), FileFormat("tsv"))[0] == [["1", "2"]]
    assert read_csv("sep=ab\n1\n")[0] == [["1"]]


def test_a_spaced_cell_may_be_long() -> None:
    long = "word " * 40_000
    assert read_csv(f'a, "b"\n1, "{long}"\n') == ([["1", long]], {})


@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("held", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("block", [1, 2, 3, 1000])
def test_line_ends_in_spaced_quoted_cells_are_part_of_them(
    ends: str, held: str, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delimited, "BLOCK", block)
    rows = ["id,text", f'1, "good{held}film"', f'2, "bad{held}"']
    expected = [["1", f"good{held}film"], ["2", f"bad{held}"]]
    assert read_csv(ends.join([*rows, ""])) == (expected, {})
    assert read_csv(ends.join(rows)) == (expected, {})


@pytest.mark.parametrize("space", ["", " "])
def test_a_lone_return_outside_quotes_ends_a_row_whether_cells_are_spaced_or_not(
    space: str,
) -> None:
    rows, faults = read_csv(f'id,text\n1,{space}"good"\n2,ba\rd\n3,{space}"x"\n')
    assert rows == [["1", "good"], ["2", "ba"], ["d", ""], ["3", "x"]]
    assert list(faults) == [2]


@pytest.mark.parametrize(
    ("row", "cells"),
    [
        ('1,"Hello, "', ["1", "Hello, "]),
        ('1,"A good film.\n "', ["1", "A good film.\n "]),
        ('1, "', ["1", ' "']),
        ('1, 5" x', ["1", ' 5" x']),
    ],
)
def test_a_mark_that_opens_no_cell_does_not_take_the_spaces_of_others(
    row: str, cells: list[str]
) -> None:
    assert read_csv(f"id,text\n{row}\n2,  lead\n") == ([cells, ["2", "  lead"]], {})


def test_marks_in_quoted_cells_do_not_hide_that_others_are_spaced() -> None:
    rows, _ = read_csv('id,a,b\n1,"x, ", "y, z"\n2,"x", "a ""b"", c" \n')
    assert rows == [["1", "x, ", "y, z"], ["2", "x", 'a "b", c ']]


@pytest.mark.parametrize("columns", [1, 2])
@pytest.mark.parametrize("block", [1, 4, 9, 1000])
def test_a_byte_order_mark_within_a_file_is_part_of_its_cell(
    columns: int, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delimited, "BLOCK", block)
    cells = ["\ufeffx", "\ufeff", "\ufeff\ufeff", "y"]
    lines = [f"{cell},1"[: None if columns == 2 else len(cell)] for cell in cells]
    rows, faults = read_csv("\ufeff" + "\n".join(["a,b" if columns == 2 else "a", *lines]))
    assert [row[0] for row in rows] == cells
    assert faults == {}


def test_a_ragged_row_that_holds_only_a_byte_order_mark_is_a_fault() -> None:
    rows, faults = read_csv("a,b\n1,2\n\ufeff\n3,4\n")
    assert rows == [["1", "2"], ["\ufeff", ""], ["3", "4"]]
    assert faults == {1: "got 1 cell, expected 2 cells"}


def test_the_faults_of_many_slices_are_looked_up_once() -> None:
    class Counted(dict[int, Fault]):
        walked = 0

        def __iter__(self) -> Iterator[int]:
            for place in super().__iter__():
                Counted.walked += 1
                yield place

        def items(self) -> Any:
            return [(place, self[place]) for place in self]

    rows = 1000
    faults = Counted({place: Fault("row", str(place), "none") for place in reversed(range(rows))})
    chunk = Chunk(pa.RecordBatch.from_pydict({"a": ["x"] * rows}), faults)
    for start in range(0, rows, 10):
        found = chunk.slice(start, 10).faults
        assert {place: each.got for place, each in found.items()} == {
            place: str(start + place) for place in range(10)
        }
    assert Counted.walked == rows


# --- names ------------------------------------------------------------------------------------


def test_empty_and_repeated_names_are_reported() -> None:
    assert "no name for column 1, 3" in refusal(io.BytesIO(b",a, ,b\n1,2,3,4\n"), FileFormat("csv"))
    assert "several columns named 'a'" in refusal(io.BytesIO(b"a,b,a\n1,2,3\n"), FileFormat("csv"))


@pytest.mark.parametrize("format_", ["csv", "tsv", "jsonl"])
@pytest.mark.parametrize("data", [b"", b"\n \n", codecs.BOM_UTF8])
def test_an_empty_file_is_reported(format_: TableFormat, data: bytes) -> None:
    assert "is empty" in refusal(io.BytesIO(data), FileFormat(format_))


@pytest.mark.parametrize("data", [b"a,b", b"a,b\n", b"a,b\r\n\r\n", b'"a",b\n\n\n'])
def test_a_header_without_rows_is_reported(data: bytes) -> None:
    assert "has a header but no rows" in refusal(io.BytesIO(data), FileFormat("csv"))


def test_a_missing_file_is_reported(tmp_path: Path) -> None:
    assert "No such file" in refusal(tmp_path / "none.csv")
    (tmp_path / "folder.csv").mkdir()
    assert "Is a directory" in refusal(tmp_path / "folder.csv")


def test_a_header_without_an_end_is_reported() -> None:
    assert "its first row has more than" in refusal(
        io.BytesIO(b"a," * (1 << 20)), FileFormat("csv")
    )


# --- encodings --------------------------------------------------------------------------------

ACCENTS = "näme,wörd\n1,é€\n2,日本\n"


@pytest.mark.parametrize(
    ("mark", "encoding"),
    [
        (b"", "utf-8"),
        (codecs.BOM_UTF8, "utf-8"),
        (codecs.BOM_UTF16_LE, "utf-16-le"),
        (codecs.BOM_UTF16_BE, "utf-16-be"),
        (codecs.BOM_UTF32_LE, "utf-32-le"),
        (codecs.BOM_UTF32_BE, "utf-32-be"),
    ],
)
def test_a_byte_order_mark_says_the_encoding(mark: bytes, encoding: str) -> None:
    data = mark + ACCENTS.encode(encoding)
    for source in (io.BytesIO(data), io.BufferedReader(Pipe(data))):
        with open_table(source, FileFormat("csv")) as table:
            assert table.schema.names == ["näme", "wörd"]
            [chunk] = table.chunks()
        assert chunk.batch.column("wörd").to_pylist() == ["é€", "日本"]


@pytest.mark.parametrize("encoding", ["windows-1252", "utf-16-le", "shift-jis"])
def test_an_encoding_can_be_said(encoding: str) -> None:
    text = "a,b\n1,x\n" if encoding == "shift-jis" else "a,b\n1,é\n"
    rows, _ = read(io.BytesIO(text.encode(encoding)), FileFormat("csv", encoding=encoding))
    assert rows == [["1", text[-2]]]


def test_latin_1_in_the_last_row_is_reported_at_once_with_a_fix() -> None:
    data = b"a,b\n" + b"1,2\n" * 500_000 + "3,é\n".encode("latin-1")
    with pytest.raises(InvalidTable) as caught, open_table(io.BytesIO(data), FileFormat("csv")):
        pytest.fail("the file was opened")
    assert "not valid UTF-8: got byte 0xE9 in line 500,002" in str(caught.value)
    assert "the option encoding, such as windows-1252" in str(caught.value)


def test_latin_1_in_a_stream_is_reported_while_it_is_read() -> None:
    data = b"a,b\n" + b"1,2\n" * 500_000 + "3,é\n".encode("latin-1")
    with open_table(io.BufferedReader(Pipe(data)), FileFormat("csv")) as table:
        chunks = table.chunks()
        next(chunks)
        with pytest.raises(InvalidTable, match="byte 0xE9 in line 500,002"):
            list(chunks)


def test_utf_16_without_a_mark_is_reported() -> None:
    message = refusal(io.BytesIO("a,b\n1,2\n".encode("utf-16-le")), FileFormat("csv"))
    assert "NUL" in message
    assert "utf-16-le" in message


@pytest.mark.parametrize("encoding", ["klingon", "hex"])
def test_an_unknown_encoding_is_reported(encoding: str) -> None:
    message = refusal(io.BytesIO(b"a,b\n1,2\n"), FileFormat("csv", encoding=encoding))
    assert f"encoding: got '{encoding}'" in message


def test_a_text_cut_within_a_character_is_reported() -> None:
    assert "not valid UTF-8" in refusal(io.BytesIO(b"a,b\n1,\xc3"), FileFormat("csv"))


def test_a_read_that_ends_within_a_character_is_not_the_end() -> None:
    text = decoding.Text("x", io.BytesIO("éa".encode("utf-16-le")), encoding="utf-16-le")
    assert text.read(1) == "é".encode()
    assert text.read(1) == b"a"
    assert text.read(1) == b""


# --- archives ---------------------------------------------------------------------------------


def zipped(**members: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name.replace("_", "/", name.count("_")), content)
    return file.getvalue()


@pytest.mark.parametrize("member", ["rows.csv", "data/rows.tsv", "rows.TXT", "rows.data"])
def test_an_archive_named_zip_is_read_as_the_table_in_it(tmp_path: Path, member: str) -> None:
    content = "a\tb\n1\t2\n" if member.endswith("tsv") else "a,b\n1,2\n"
    (tmp_path / "rows.zip").write_bytes(zipped(**{member: content}))
    with open_table(tmp_path / "rows.zip") as table:
        assert table.schema.names == ["a", "b"]


@pytest.mark.parametrize(
    ("member", "advice"),
    [
        ("rows.parquet", "rows.zip holds rows.parquet, expected .csv, .tsv or .jsonl; unpack it"),
        ("rows.xlsx", "rows.zip holds rows.xlsx, expected .csv, .tsv or .jsonl; unpack it"),
    ],
)
def test_an_archive_named_zip_that_holds_no_text_says_what_to_do(
    tmp_path: Path, member: str, advice: str
) -> None:
    path = tmp_path / "rows.zip"
    path.write_bytes(zipped(**{member: "PAR1"}))
    assert advice in refusal(path)


@pytest.mark.parametrize(
    ("data", "reason"), [(b"PK\x03\x04x", "damaged"), (b"a,b\n", "is not a gz")]
)
def test_a_broken_archive_named_zip_is_reported(tmp_path: Path, data: bytes, reason: str) -> None:
    path = tmp_path / "rows.zip"
    path.write_bytes(data)
    assert reason in refusal(path)


def test_an_archive_named_zip_is_of_the_format_that_the_name_in_it_says(tmp_path: Path) -> None:
    path = tmp_path / "rows.zip"
    path.write_bytes(zipped(**{"data/rows.jsonl": '{"a": 1, "b": "x"}\n'}))
    assert read(path) == ([["1", "x"]], {})
    table, about = read_table(path)
    assert table.to_dict("list") == {"a": [1.0], "b": ["x"]}
    assert about.source == "rows.zip"
    path.write_bytes(zipped(**{"rows.tsv": "a;b\tc\n1;2\t3\n"}))
    assert read(path) == ([["1;2", "3"]], {})
    path.write_bytes(zipped(**{"rows.jsonl": "a,b\n1,2\n"}))
    assert read(path, FileFormat("csv")) == ([["1", "2"]], {})


def test_gzip_and_zip_are_unpacked_whatever_they_are_called(tmp_path: Path) -> None:
    packed = {"gz": gzip.compress(b"a,b\n1,2\n"), "zip": zipped(a="a,b\n1,2\n")}
    for suffix, data in packed.items():
        for name in (f"a.csv.{suffix}", "a.csv"):
            path = tmp_path / name
            path.write_bytes(data)
            assert read(path) == ([["1", "2"]], {})


def test_an_archive_of_several_files_is_reported_with_their_names() -> None:
    message = refusal(io.BytesIO(zipped(a="a,b\n1,2\n", b="x")), FileFormat("csv", compressed=True))
    assert "got 2 files (a, b), expected one" in message


@pytest.mark.slow
def test_a_broken_archive_is_reported_at_once() -> None:
    rows = "a,b\n" + "".join(f"{n},{n * 7919 % 10007}\n" for n in range(200_000))
    packed = gzip.compress(rows.encode())
    damaged = packed[:-6] + b"\x00" + packed[-5:]  # the checksum
    mangled = packed[:12] + b"\xff" * 20 + packed[32:]
    archives = [packed[:9999], damaged, mangled, zipped(a=rows)[:-30], b"no archive"]
    reported = [
        "ended before",
        "CRC check failed",
        "invalid",
        "not a zip file",
        "is not a gzip or zip",
    ]
    for data, message in zip(archives, reported, strict=True):
        with (
            pytest.raises(InvalidTable, match=message),
            open_table(io.BytesIO(data), FileFormat("csv", compressed=True)),
        ):
            pytest.fail("the archive was opened")


def test_a_damaged_byte_in_a_zip_is_reported_at_once() -> None:
    rows = "a,b\n" + "".join(f"{n},{n * 7919 % 10007}\n" for n in range(200_000))
    data = bytearray(zipped(a=rows))
    data[len(data) // 2] ^= 0xFF
    assert "damaged" in refusal(io.BytesIO(bytes(data)), FileFormat("csv", compressed=True))


def test_a_zip_with_a_password_is_reported(tmp_path: Path) -> None:
    data = bytearray(zipped(a="a,b\n1,2\n"))
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(signature) + offset] |= 1  # the flag of an encrypted member
    assert "password" in refusal(io.BytesIO(bytes(data)), FileFormat("csv", compressed=True))


@pytest.mark.parametrize("kind", ["gzip", "zip"])
def test_a_decompression_bomb_is_reported_before_it_fills_the_machine(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "FREE", 1 << 20)
    bomb = "a,b\n" + "1,2\n" * 2_000_000
    data = gzip.compress(bomb.encode()) if kind == "gzip" else zipped(a=bomb)
    assert "unpacks to more than 200 times its size" in refusal(
        io.BytesIO(data), FileFormat("csv", True)
    )


# --- JSON lines -------------------------------------------------------------------------------


def test_json_values_become_texts_and_lines_stay_as_they_are() -> None:
    lines = [
        '{"a": 1, "b": "x", "c": [1, {"d": 2}]}',
        '{"a": 2.50, "b": null, "e": true}',
        '{"a": 123456789012345678901234567890}',
        "{}",
    ]
    with open_table(io.BytesIO("\n".join([*lines, ""]).encode()), FileFormat("jsonl")) as table:
        assert table.schema.names == ["a", "b", "c", "e"]
        [chunk] = table.chunks()
    assert chunk.faults == {}
    assert chunk.batch.to_pydict() == {
        "a": ["1", "2.5", "123456789012345678901234567890", None],
        "b": ["x", None, None, None],
        "c": ['[1,{"d":2}]', None, None, None],
        "e": [None, "true", None, None],
    }
    assert chunk.lines is not None
    assert chunk.lines.to_pylist() == [line[:-1] + ("," if line != "{}" else "") for line in lines]


def test_a_line_that_is_not_an_object_is_a_fault() -> None:
    rows, faults = read_csv('{"a": 1}\n[1, 2]\n\n{"a": 01}\nnothing\n{"a": 4}', "jsonl")
    assert rows == [["1"], [None], [None], [None], ["4"]]
    assert faults == {
        1: "got '[1, 2]', expected one JSON object",
        2: "got '{\"a\": 01}', expected one JSON object",
        3: "got 'nothing', expected one JSON object",
    }


def test_half_of_a_surrogate_pair_is_read_as_a_replacement_character() -> None:
    lines = r'{"a": "x\ud83d"}' + "\n" + r'{"a": "\ude00", "b": 01}' + "\n" + r'{"a": ["\ud83d"]}'
    rows, faults = read_csv(lines, "jsonl")
    assert rows == [["x\ufffd"], [None], ['["\ufffd"]']]
    assert list(faults) == [1]


def test_a_large_whole_number_beside_a_key_with_half_a_surrogate_pair_is_read() -> None:
    line = r'{"text": "good", "big\ud83d": 100000000000000000000, "n": 200000000000000000000}'
    assert read_csv(line, "jsonl") == (
        [["good", "100000000000000000000", "200000000000000000000"]],
        {},
    )


def test_numbers_that_no_float_holds_are_values_of_their_rows() -> None:
    lines = [
        '{"a": 1e400, "b": 1}',
        '{"a": -Infinity, "b": 123456789012345678901234567890}',
        '{"a": NaN, "b": [200000000000000000000, "x"]}',
        f'{{"a": {"1" * 5000}, "b": "\\ud83d"}}',
    ]
    assert read_csv("\n".join(lines), "jsonl") == (
        [
            ["Infinity", "1"],
            ["-Infinity", "123456789012345678901234567890"],
            ["NaN", '[200000000000000000000,"x"]'],
            ["Infinity", "\ufffd"],
        ],
        {},
    )
    assert read_csv(lines[0], "jsonl") == ([["Infinity", "1"]], {})


def test_a_value_of_many_levels_is_read_or_a_fault_of_its_row() -> None:
    nested = ["[" * levels + "]" * levels for levels in (300, 1015, 5000)]
    rows, faults = read_csv("\n".join(f'{{"a": {each}, "b": 1}}' for each in nested), "jsonl")
    assert [rows[0], rows[2]] == [[nested[0], "1"], [None, None]]
    assert "expected one JSON object" in faults.pop(2)
    # How many levels can be written depends on the version of Python.
    fault = {1: "a: got a value of too many levels, expected one of fewer"}
    assert (rows[1], faults) in [([nested[1], "1"], {}), ([None, "1"], fault)]


def test_keys_of_the_last_line_are_columns_of_a_file_and_faults_of_a_stream(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(jsonlines, "HEAD", 100)
    data = b'{"a": 1}\n' * 1000 + b'{"a": 1, "b": 2}\n'
    rows, faults = read(io.BytesIO(data), FileFormat("jsonl"))
    assert rows[-1] == ["1", "2"]
    assert faults == {}
    rows, faults = read(io.BufferedReader(Pipe(data)), FileFormat("jsonl"))
    assert rows[-1] == ["1"]
    assert faults == {1000: "got the key 'b', expected only keys of the first rows"}


def test_json_that_is_not_json_lines_is_reported() -> None:
    assert "expected a JSON object in each line" in refusal(
        io.BytesIO(b"[1]\n"), FileFormat("jsonl")
    )


def test_a_line_that_is_longer_than_all_limits_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsonlines, "BLOCK", 100)
    monkeypatch.setattr(jsonlines, "LONGEST_LINE", 1000)
    data = b'{"a": 1}\n' * 100 + b'{"a": "' + b"x" * 5000 + b'"}'
    assert "a line of more than 1,000 bytes" in refusal(io.BytesIO(data), FileFormat("jsonl"))


# --- Parquet ----------------------------------------------------------------------------------


def write_parquet(path: Path, columns: dict[str, Any], **options: Any) -> Path:
    pq.write_table(pa.table(columns), path, **options)
    return path


def test_parquet_keeps_its_types(tmp_path: Path) -> None:
    columns = {
        "n": pa.array([1, None], pa.int16()),
        "d": pa.array([[1, 2], None], pa.list_(pa.int64())),
        "c": pa.array(["x", "y"]).dictionary_encode(),
        "t": pa.array(["x", None], pa.large_string()),
    }
    with open_table(write_parquet(tmp_path / "a.parquet", columns)) as table:
        assert table.schema.types == [pa.int16(), columns["d"].type, pa.string(), pa.string()]
        [chunk] = table.chunks()
    assert chunk.batch.to_pydict() == {name: each.to_pylist() for name, each in columns.items()}


@pytest.mark.slow
def test_parquet_with_long_texts_is_read_a_few_rows_at_a_time(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    texts = ["".join(map(chr, rng.integers(97, 123, 100_000))) for _ in range(100)]
    path = write_parquet(tmp_path / "a.parquet", {"t": texts})
    with open_table(path) as table:
        sizes = [chunk.batch.num_rows for chunk in table.chunks()]
    assert sum(sizes) == 100
    assert max(sizes) < 50


def test_parquet_that_is_damaged_or_empty_or_has_repeated_names_is_reported(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", {"a": [1, 2]})
    path.write_bytes(path.read_bytes()[:-9])
    assert "cannot be read, or is damaged" in refusal(path)
    assert "no rows" in refusal(write_parquet(path, {"a": pa.array([], pa.int64())}))
    pq.write_table(pa.Table.from_arrays([pa.array([1]), pa.array([2])], ["a", "a"]), path)
    assert "several columns named 'a'" in refusal(path)


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.list_(pa.string())])
@pytest.mark.parametrize("coded", [True, False])
def test_a_text_of_parquet_that_is_not_utf_8_is_reported(
    kind: pa.DataType, coded: bool, tmp_path: Path
) -> None:
    offset = np.int64 if kind == pa.large_string() else np.int32
    buffers = [None, pa.py_buffer(np.array([0, 1, 2], offset)), pa.py_buffer(b"a\xff")]
    texts = pa.Array.from_buffers(kind if kind == pa.large_string() else pa.string(), 2, buffers)
    column = pa.ListArray.from_arrays([0, 1, 2], texts) if pa.types.is_list(kind) else texts
    path = write_parquet(tmp_path / "a.parquet", {"bad": column}, use_dictionary=coded)
    assert re.search("column 'bad': .*Invalid UTF8", refusal(path))


def test_parquet_called_csv_is_reported(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", {"a": [1, 2]})
    assert "got Parquet, expected text" in refusal(path.rename(tmp_path / "a.csv"))


def test_parquet_from_a_pipe_is_reported() -> None:
    assert "read from files only" in refusal(
        io.BufferedReader(Pipe(b"PAR1")), FileFormat("parquet")
    )


# --- interrupted ------------------------------------------------------------------------------


def test_no_ctrl_c_is_lost_while_a_table_is_read() -> None:
    arrived = threading.Event()

    def interrupt() -> None:
        for _ in range(300):
            os.kill(os.getpid(), signal.SIGINT)
            if not arrived.wait(10):
                return
            arrived.clear()
            received.append(True)

    received: list[bool] = []
    before = signal.signal(signal.SIGINT, lambda *_: arrived.set())
    sender = threading.Thread(target=interrupt)
    try:
        sender.start()
        while sender.is_alive():
            with open_table(io.BytesIO(b"a,b\n" + 5000 * b"1,2\n"), FileFormat("csv")) as table:
                list(table.chunks())
    finally:
        sender.join()
        signal.signal(signal.SIGINT, before)
    assert len(received) == 300
