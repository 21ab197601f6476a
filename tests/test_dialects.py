"""What trains, scores: training and scoring read a table alike, however it is written."""

import csv
import gzip
import io
import json
import re
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import openpyxl
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mlapp import cli
from mlapp.dashboard.whole_files import template
from mlapp.errors import InvalidData, InvalidTable
from mlapp.families.regression import RegressionModel
from mlapp.schema import Number
from mlapp.scoring import files
from mlapp.service import create_app
from mlapp.tables.formats import FileFormat, format_of
from mlapp.tables.numbers import decimal_of
from mlapp.tables.reading import open_table
from tests.conftest import client_of, open_regression
from training import regression, texts
from training.rows import Source, read_training_rows
from training.tables import read_table

NAMES = ("área", "price", "rooms", "colour", "has garden")
COLOURS = ("red", "blue", "grün, or; so|on", 'dark "grey"')
ROWS = 60


def make_rows() -> list[list[Any]]:
    """Return rows of: a number in thousands, a fraction, a whole number, a text, a truth value."""
    rng = np.random.default_rng(0)
    return [
        [
            round(float(area), 2),
            round(float(area) * 1234.5 + 0.25, 3),
            int(rooms),
            COLOURS[place % len(COLOURS)],
            bool(place % 3),
        ]
        for place, (area, rooms) in enumerate(
            zip(rng.uniform(800, 9000, ROWS), rng.integers(1, 9, ROWS), strict=True)
        )
    ]


class Writing(NamedTuple):
    """How a table is written."""

    kind: str = "csv"
    separator: str = ","
    decimal: str = "."
    thousands: str = ""
    encoding: str = "utf-8"
    mark: bool = False
    quoting: Literal[0, 1, 2, 3] = csv.QUOTE_MINIMAL
    spaces: str = ""
    row_names: str = "none"
    compression: str = ""
    line_end: str = "\n"


WRITINGS = st.builds(
    Writing,
    kind=st.sampled_from(["csv", "csv", "csv", "jsonl", "parquet", "xlsx"]),
    separator=st.sampled_from([",", ";", "\t", "|"]),
    decimal=st.sampled_from([".", ","]),
    thousands=st.sampled_from(["", "other", " ", "\u00a0", "'"]),
    encoding=st.sampled_from(["utf-8", "utf-16-le", "utf-32", "windows-1252", "iso-8859-15"]),
    mark=st.booleans(),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]),
    spaces=st.sampled_from(["", " ", "  "]),
    row_names=st.sampled_from(["none", "pandas", "r", "names", "numbers"]),
    compression=st.sampled_from(["", "gz", "zip"]),
    line_end=st.sampled_from(["\n", "\r\n", "\r"]),
)


def write_number(value: float, how: Writing) -> str:
    thousands = {".": ",", ",": "."}[how.decimal] if how.thousands == "other" else how.thousands
    whole, _, fraction = (f"{value:,}" if thousands else f"{value}").partition(".")
    whole = whole.replace(",", thousands)
    return f"{whole}{how.decimal}{fraction}" if fraction else whole


def write_delimited(rows: list[list[Any]], how: Writing) -> bytes:
    """Return the rows as delimited text; `index` adds row names as pandas or R writes them."""
    header: list[str] = list(NAMES)
    cells = [
        [*(write_number(each, how) for each in row[:3]), row[3], str(row[4]).upper()]
        for row in rows
    ]
    if how.row_names != "none":
        names = [str(place) for place in range(1, len(rows) + 1)]
        if how.row_names == "names":
            names = [f"house {name}" for name in names]
        cells = [[name, *row] for name, row in zip(names, cells, strict=True)]
        if how.row_names != "r":
            header = ["", *header]
    file = io.StringIO(newline="")
    writer = csv.writer(
        file, delimiter=how.separator, quoting=how.quoting, lineterminator=how.line_end
    )
    writer.writerows([header, *cells])
    text = file.getvalue()
    if how.spaces:
        # As people and some programs do: a space behind every separator outside of quotes.
        parts = text.split('"')
        spaced = how.separator + how.spaces
        parts[::2] = [each.replace(how.separator, spaced) for each in parts[::2]]
        text = '"'.join(parts)
    mark = "\ufeff" if how.mark and how.encoding.startswith("utf") else ""
    return (mark + text).encode(how.encoding if how.encoding != "utf-32" else "utf-32-le")


def write_table(folder: Path, rows: list[list[Any]], how: Writing) -> tuple[Path, dict[str, Any]]:
    """Write a table, and return its path and the options that a person must give to read it."""
    if how.kind == "parquet":
        path = folder / "table.parquet"
        frame = pd.DataFrame(rows, columns=list(NAMES))
        if how.row_names != "none":
            frame.index = pd.Index([f"house {place}" for place in range(len(rows))])
        frame.to_parquet(path)
        return path, {}
    if how.kind == "xlsx":
        book = openpyxl.Workbook()
        sheet = book.worksheets[0]
        sheet.append(NAMES)
        for row in rows:
            sheet.append(row)
        book.save(folder / "table.xlsx")
        return folder / "table.xlsx", {}
    if how.kind == "jsonl":
        objects = [json.dumps(dict(zip(NAMES, row, strict=True))) for row in rows]
        data, suffix, options = "\n".join(objects).encode(), "jsonl", {}
    else:
        data, suffix = write_delimited(rows, how), "csv"
        marked = how.mark and how.encoding.startswith("utf")
        needed = how.encoding != "utf-8" and not marked
        named = "utf-32-le" if how.encoding == "utf-32" else how.encoding
        options = {"encoding": named} if needed else {}
    path = folder / f"table.{suffix}"
    if how.compression == "gz":
        data, path = gzip.compress(data), folder / f"table.{suffix}.gz"
    if how.compression == "zip":
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("table", data)
        data, path = packed.getvalue(), folder / f"table.{suffix}.zip"
    path.write_bytes(data)
    return path, options


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> tuple[RegressionModel, list[float]]:
    """A model trained on plain CSV, and its predictions for the rows."""
    folder = tmp_path_factory.mktemp("plain")
    path, _ = write_table(folder, make_rows(), Writing())
    model = RegressionModel(
        regression.train(path, "price", "houses", folder / "models", say=lambda _: None)
    )
    return model, predict(model, path, {})


def predict(model: RegressionModel, path: Path, options: dict[str, Any]) -> list[float]:
    """Score a file, of which no row may be refused, and return its predictions."""
    out = io.BytesIO()
    source_format = format_of(path.name).reading(**options)
    summary = files.score(
        model, path, out, source_format=source_format, target_format=FileFormat("parquet")
    )
    assert summary.refused == ()
    assert summary.counts.scored == ROWS
    return list(pq.read_table(pa.BufferReader(out.getvalue())).column("prediction").to_pylist())


@pytest.mark.slow(12)
@settings(deadline=None, max_examples=150)
@given(how=WRITINGS)
@example(how=Writing(separator=";", decimal=",", thousands="other", encoding="windows-1252"))
@example(how=Writing(decimal=",", thousands="other", row_names="r", quoting=csv.QUOTE_ALL))
@example(how=Writing(spaces=" ", row_names="names", quoting=csv.QUOTE_ALL, line_end="\r"))
@example(how=Writing(separator="\t", thousands="'", row_names="r"))
def test_training_and_scoring_read_the_same_table_however_it_is_written(
    how: Writing, plain: tuple[RegressionModel, list[float]], tmp_path_factory: Any
) -> None:
    model, expected = plain
    rows = make_rows()
    path, options = write_table(tmp_path_factory.mktemp("table"), rows, how)
    read, _ = read_table(path, **options)
    named = read[list(NAMES)]
    assert set(read) - set(NAMES) <= {""}
    for place, name in enumerate(NAMES[:3]):
        assert named[name].tolist() == [row[place] for row in rows]
    assert named["colour"].tolist() == [row[3] for row in rows]
    assert [str(each).lower() for each in named["has garden"]] == [
        str(row[4]).lower() for row in rows
    ]
    assert predict(model, path, options) == pytest.approx(expected, rel=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize(
    "how",
    [
        Writing(separator=";", decimal=",", thousands="other", encoding="windows-1252"),
        Writing(row_names="pandas"),
        Writing(row_names="r", quoting=csv.QUOTE_NONNUMERIC),
        Writing(kind="jsonl", compression="gz"),
        Writing(kind="xlsx"),
        Writing(kind="parquet", row_names="pandas"),
    ],
)
def test_what_the_command_trains_the_command_scores(
    how: Writing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, options = write_table(tmp_path, make_rows(), how)
    monkeypatch.setenv("MLAPP_ARTIFACTS", str(tmp_path / "models"))
    flags = [part for key, value in options.items() for part in (f"--{key}", value)]
    train = ["--data", str(path), "--target", "price", "--name", "houses", *flags]
    assert regression.main(train) == 0
    out = str(tmp_path / "out.csv")
    assert cli.main(["score", str(path), "-o", out, "--model", "houses", *flags]) == 0
    opened = open_regression(tmp_path / "models", "houses")
    assert set(opened.schema.names) == set(NAMES) - {"price"}
    assert " ".join(flags) in str(opened.manifest.training["command"])


# --- decimal marks ----------------------------------------------------------------------------


def numbers(tmp_path: Path, text: str, **options: Any) -> list[list[Any]]:
    path = tmp_path / "table.csv"
    path.write_text(text, encoding="utf-8")
    return [list(column) for _, column in read_table(path, **options)[0].items()]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a;b\n1,5;2\n", [[1.5], [2]]),
        ("a;b\n1,234;2\n", [[1.234], [2]]),  # semicolons are there since commas are decimal
        ('a,b\n"1,234",2\n', [[1234], [2]]),
        ('a,b\n"1,234","2,5"\n', [[1.234], [2.5]]),  # the table's other numbers decide
        ('a,b\n"1,234",2.5\n', [[1234], [2.5]]),
        ("a;b\n1.234;2,5\n", [[1234], [2.5]]),
        ("a;b\n1.234,5;2.5\n", [[1234.5], [2.5]]),  # each column may have a mark of its own
        ("a;b\n1.234.567;2\n", [[1234567], [2]]),
        ("a,b\n1 234.5,1'234\n", [[1234.5], [1234]]),
        ('a,b\n"12,34,567",1\n', [[1234567], [1]]),
        ("a;b\n-,5;+1e3\n", [[-0.5], [1000]]),
        ("a;b\n1.5;x, y\n", [[1.5], ["x, y"]]),
        ("a;b\n1,5;\nNA;3\n", [[1.5, None], [None, 3]]),
    ],
)
def test_decimal_and_thousands_marks_are_recognised(
    tmp_path: Path, text: str, expected: list[list[Any]]
) -> None:
    read = numbers(tmp_path, text)
    assert [[None if pd.isna(each) else each for each in column] for column in read] == expected


def test_a_number_below_one_has_no_thousands(tmp_path: Path) -> None:
    lines = [f"0.{row:03}\t{row},513\t0.{900 - row}" for row in range(100, 160)]
    rate, people, _ = numbers(tmp_path, "\n".join(["rate\tpop\ty", *lines]))
    assert (rate[0], people[0]) == (0.1, 100_513)


@pytest.mark.slow
@pytest.mark.parametrize("strange", ["", "?"])
@pytest.mark.parametrize("unit", ["", " €"])
def test_decimal_commas_are_recognised_beside_units_and_strange_cells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unit: str, strange: str
) -> None:
    """Each mark is that of the file: 6,253 is about 6, and 4.416 is over 4,000."""
    random = np.random.default_rng(0)
    weights, rents = random.uniform(2, 20, 200).round(3), random.integers(400, 9000, 200)
    lines = ["w;rent;y"]
    for row, (weight, rent) in enumerate(zip(weights.tolist(), rents.tolist(), strict=True)):
        w = strange if strange and row % 25 == 3 else f"{weight:.3f}".replace(".", ",")
        price = f"{rent:,}".replace(",", ".") + (unit if row % 2 else "")
        lines.append(f"{w};{price};" + f"{weight * 5 + rent / 100:.2f}".replace(".", ","))
    path = tmp_path / "wide.csv"
    path.write_text("\n".join(lines), encoding="utf-8")
    monkeypatch.setenv("MLAPP_ARTIFACTS", str(tmp_path / "models"))
    flags = ["--data", str(path), "--target", "y", "--name", "houses", "--model", "linear"]
    assert regression.main(flags) == 0
    out = tmp_path / "out.jsonl"
    assert cli.main(["score", str(path), "-o", str(out), "--model", "houses"]) == 0
    scored = [json.loads(line) for line in out.read_text().splitlines()]
    assert not any(row["notice"] for row in scored)
    weight, rent = open_regression(tmp_path / "models", "houses").schema.inputs
    assert isinstance(weight, Number)
    assert isinstance(rent, Number)
    assert (rent.minimum, rent.maximum) == (rents.min(), rents.max())
    assert 2 <= weight.minimum < weight.maximum <= 20


@pytest.mark.parametrize("unit", ["€ ", "€\u00a0", "£", "-€", "EUR ", "Rs. ", "US$ "])
@pytest.mark.parametrize("separator", [",", ";"])
def test_a_unit_before_the_number_does_not_hide_a_decimal_comma(unit: str, separator: str) -> None:
    text = separator.join(["price", "b"]) + "\n"
    for number in ["2,505", "250,50", "3,5"]:
        cell = f'"{unit}{number}"' if separator == "," else unit + number
        text += f"{cell}{separator}x\n"
    with open_table(io.BytesIO(text.encode()), FileFormat("csv")) as table:
        assert decimal_of(table.schema.field("price")) == ","


def test_a_decimal_mark_can_be_named(tmp_path: Path) -> None:
    text = "a;b\n1,234;x\n1,235;y\n"
    assert numbers(tmp_path, text)[0] == [1.234, 1.235]
    assert numbers(tmp_path, text, decimal=".")[0] == [1234, 1235]
    assert numbers(tmp_path, text.replace(",", "."), decimal=",")[0] == [1234, 1235]
    with pytest.raises(InvalidData, match=r"decimal: got ';', expected '\.' or ','"):
        numbers(tmp_path, text, decimal=";")


@pytest.fixture
def german(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Return what trains a model on German rents and returns their file."""
    monkeypatch.setenv("MLAPP_ARTIFACTS", str(tmp_path / "models"))

    def train(unit: str, kind: str = "csv", extra: tuple[str, ...] = ()) -> Path:
        random, rows = np.random.default_rng(0), []
        for place in range(120):
            rent = float(random.integers(1000, 9999)) if place % 2 else random.uniform(10, 9999)
            text = f"{rent:,.{0 if place % 2 else 1}f}{unit}"
            cell = text.translate(str.maketrans(",.", ".,"))
            rows.append((cell, str(random.integers(20, 200)), str(int(3 * rent))))
        rows += [(each, "50", "3000") for each in extra]
        path = write_rents(tmp_path / f"rents.{kind}", rows)
        flags = ["--data", str(path), "--target", "y", "--name", "rents", "--model", "linear"]
        assert regression.main(flags) == 0
        return path

    return train


def write_rents(path: Path, rows: Sequence[tuple[str, ...]]) -> Path:
    """Write rents, areas and targets in the format that the file's name says."""
    table = pd.DataFrame(rows, columns=["rent", "area", "y"])
    if path.suffix == ".jsonl":
        table.to_json(path, orient="records", lines=True)
    elif path.suffix == ".parquet":
        table.to_parquet(path)
    elif path.suffix == ".xlsx":
        table.to_excel(path, index=False)
    else:
        table.to_csv(path, index=False, sep=";" if path.suffix == ".csv" else "\t")
    return path


def predicted(path: Path) -> list[float]:
    """Return the predictions of the rents of a file; none is refused."""
    out = path.with_name("out.jsonl")
    assert cli.main(["score", str(path), "-o", str(out), "--model", "rents"]) == 0
    return [json.loads(line)["prediction"] for line in out.read_text().splitlines()]


@pytest.mark.slow
@pytest.mark.parametrize("unit", [" €", "", " Mio.", " sq.ft", " рублей"])
def test_a_file_that_does_not_say_its_decimal_mark_is_read_with_the_models(
    german: Callable[..., Path], tmp_path: Path, unit: str
) -> None:
    german(unit)
    few = write_rents(tmp_path / "few.csv", [(f"5.185{unit}", "70", "0")] * 5)
    said = write_rents(tmp_path / "said.csv", [(f"5185,0{unit}", "70", "0")] * 5)
    assert predicted(few) == predicted(said)


@pytest.mark.slow
@pytest.mark.parametrize("unit", [" €", ""])
def test_a_file_that_says_its_decimal_mark_is_read_with_it(
    german: Callable[..., Path], tmp_path: Path, unit: str
) -> None:
    german(unit)
    rows = [(f"5.185{unit}", "70", "0"), (f"12.5{unit}", "70", "0")]
    exact = [{"rent": 5.185, "area": 70}, {"rent": 12.5, "area": 70}]
    model = open_regression(tmp_path / "models", "rents")
    found = predicted(write_rents(tmp_path / "points.csv", rows))
    assert found == model.predict(exact)["prediction"].tolist()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "parquet", "xlsx"])
def test_texts_with_decimal_commas_are_the_same_numbers_in_training_and_everywhere_they_are_served(
    german: Callable[..., Path], tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = german(" €" if kind in ("csv", "tsv") else "", kind, extra=("2.493", "318.5", "7"))
    model = open_regression(tmp_path / "models", "rents")
    [rent] = [spec for spec in model.schema.inputs if spec.name == "rent"]
    checked = read_training_rows(Source(path, "y"), False, lambda _: None).checked
    trained = checked.values["rent"][-3:].tolist()
    assert trained == [2493, 318.5, 7]
    assert [rent.parse(text) for text in ("2.493", "318.5", "7")] == trained
    assert rent.parse(2.493) == 2.493
    exact = model.predict([{"rent": each, "area": 50} for each in trained])["prediction"].tolist()
    assert predicted(path)[-3:] == exact
    rows = [{"rent": "2.493", "area": 50}, {"rent": 2493, "area": 50}]
    answer = client_of(create_app()).post("/v1/models/rents:predict", json={"instances": rows})
    assert [each["prediction"] for each in answer.json["predictions"]] == [exact[0]] * 2
    capsys.readouterr()
    assert cli.main(["predict", "--model", "rents", "--rent", "2.493", "--area", "50"]) == 0
    assert f"prediction: {exact[0]}" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["jsonl", "xlsx"])
def test_numbers_of_a_file_are_themselves_also_for_a_model_of_texts_with_decimal_commas(
    german: Callable[..., Path], tmp_path: Path, kind: str
) -> None:
    german(" €")
    path = tmp_path / f"numbers.{kind}"
    table = pd.DataFrame([{"rent": each, "area": 70} for each in (2.493, 40, 7.5)])
    if kind == "jsonl":
        table.to_json(path, orient="records", lines=True)
    else:
        table.to_excel(path, index=False)
    model = open_regression(tmp_path / "models", "rents")
    assert predicted(path) == model.predict(table)["prediction"].tolist()


@pytest.mark.slow
@pytest.mark.parametrize("unit", [" €", ""])
def test_what_the_form_and_the_template_propose_is_read_as_the_typical_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unit: str
) -> None:
    monkeypatch.setenv("MLAPP_ARTIFACTS", str(tmp_path / "models"))
    random = np.random.default_rng(0)
    weights = [2.493] * 80 + [round(each, 2) for each in random.uniform(2, 2.9, 60)]
    cells = [f"{each}{unit}".replace(".", ",") for each in weights]
    rows = [(cell, str(place % 5), str(place % 7)) for place, cell in enumerate(cells)]
    path = write_rents(tmp_path / "weights.csv", rows)
    flags = ["--data", str(path), "--target", "y", "--name", "rents", "--model", "linear"]
    assert regression.main(flags) == 0
    model = open_regression(tmp_path / "models", "rents")
    assert model.schema.typical["rent"] == 2.493
    expected = model.predict([model.schema.typical])["prediction"].tolist()
    (tmp_path / "template.csv").write_text(template(model), encoding="utf-8")
    assert predicted(tmp_path / "template.csv") == expected
    client = client_of(create_app())
    page = client.get("/form?_model=rents").get_data(as_text=True)
    proposed = dict(re.findall(r'name="(rent|area)" value="([^"]*)"', page))
    assert model.predict([proposed])["prediction"].tolist() == expected


@pytest.mark.slow
@pytest.mark.parametrize("unit", [" рублей", " squaremetres", " Mio."])
def test_decimal_commas_in_quotes_are_recognised_before_every_unit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unit: str
) -> None:
    monkeypatch.setenv("MLAPP_ARTIFACTS", str(tmp_path / "models"))
    random = np.random.default_rng(0)
    lines = [
        f'"{price // 100},{price % 100:02}{unit}",5,{price}'
        for price in random.integers(100, 99999, 100)
    ]
    path = tmp_path / "rents.csv"
    path.write_text("\n".join(["rent,area,y", *lines]), encoding="utf-8")
    flags = ["--data", str(path), "--target", "y", "--name", "rents", "--model", "linear"]
    assert regression.main(flags) == 0
    assert len(predicted(path)) == 100


# --- headers ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "names"),
    [
        (" a , b\n1,2\n", ["a", "b"]),
        (",a,b\n0,1,2\n", ["", "a", "b"]),
        ('"a","b"\n"1",5,6\n', ["", "a", "b"]),
        ("a,b\nx,5,6\ny,7,8\n", ["", "a", "b"]),
        ("a,b,\n1,2,\n", ["a", "b", "Unnamed: 2"]),
        ("a,b\n1,2,\n3,4,\n", ["a", "b", "Unnamed: 2"]),
        ("name;price, EUR\nx;1,5\ny;2,5\n", ["name", "price, EUR"]),
    ],
)
def test_names_are_found_whatever_stands_around_them(
    tmp_path: Path, text: str, names: list[str]
) -> None:
    path = tmp_path / "table.csv"
    path.write_text(text, encoding="utf-8")
    read, about = read_table(path)
    assert list(read) == names
    assert about.rows == text.count("\n") - 1


def test_quotation_marks_of_a_tab_separated_text_may_be_characters(tmp_path: Path) -> None:
    moods = [("good", 'it was "fine"'), ("bad", '"Never" again\\"')] * 30
    lines = [f'{mood}\t"{text} {place}' for place, (mood, text) in enumerate(moods)]
    path = tmp_path / "reviews.tsv"
    path.write_text("\n".join(["mood\treview", *lines]), encoding="utf-8")
    read = texts.read_reviews(path, label_column="mood", say=lambda _: None)
    assert read.texts[0] == '"it was "fine" 0'
    assert len(read.texts) == 60


# --- Excel ------------------------------------------------------------------------------------


def book(tmp_path: Path, **sheets: list[list[Any]]) -> Path:
    made = openpyxl.Workbook()
    made.remove(made.worksheets[0])
    for title, rows in sheets.items():
        sheet = made.create_sheet(title)
        for row in rows:
            sheet.append(row)
    made.save(tmp_path / "table.xlsx")
    return tmp_path / "table.xlsx"


def test_a_sheet_is_chosen_by_name_or_number(tmp_path: Path) -> None:
    path = book(tmp_path, first=[["a"], [1]], second=[[], ["b", None], [2.5], [], ["#N/A"]])
    assert read_table(path)[0]["a"].tolist() == [1]
    for sheet in ("second", "2"):
        read = read_table(path, sheet=sheet)[0]["b"]
        assert read.isna().tolist() == [False, True]
        assert read[0] == 2.5
    for sheet in ("third", "0", "3"):
        with pytest.raises(InvalidData, match="expected one of 'first', 'second'"):
            read_table(path, sheet=sheet)
    with pytest.raises(InvalidTable, match=r"only \.xlsx has sheets"):
        format_of("a.csv").reading(sheet="first")


@pytest.mark.parametrize(
    "damage", [lambda data: b"PK\x03\x04 broken", lambda data: data[:-40], lambda data: b""]
)
def test_a_damaged_workbook_is_an_error(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    path = book(tmp_path, first=[["a"], [1]])
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(InvalidData, match=r"not an \.xlsx workbook, or is damaged"):
        read_table(path)


def test_a_workbook_called_csv_is_an_error_that_says_so(tmp_path: Path) -> None:
    path = book(tmp_path, first=[["a"], [1]]).rename(tmp_path / "a.csv")
    with pytest.raises(InvalidData, match="got an Excel workbook"):
        read_table(path)
