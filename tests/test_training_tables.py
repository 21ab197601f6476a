import gzip
import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mlapp.errors import InvalidData
from mlapp.schema import Category, Number
from training import classification, regression, sentiment
from training.tables import learn_schema, prepare, read_table, useful_decimals

CSV = "a,b,y\n1,red,2.5\n2,blue,3.5\n"
ROWS = 40


def quiet(line: str) -> None:
    """Say nothing."""


def write(tmp_path: Path, content: str | bytes, name: str = "table.csv") -> Path:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def zipped(*files: tuple[str, str]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, text in files:
            archive.writestr(name, text)
    return content.getvalue()


def table(**columns: object) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.DataFrame({"x": rng.normal(size=ROWS), "y": rng.normal(size=ROWS), **columns})


def test_a_typical_value_that_rounds_to_zero_has_no_sign() -> None:
    centred = np.linspace(-1000, 999.9998, ROWS + 1)
    inputs = pd.DataFrame({"centred": centred})
    schema = learn_schema(inputs, pd.Series(centred, name="y"))
    assert str(schema["centred"].typical) == "0.0"


# --- reading ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("table.csv", CSV.encode()),
        ("with-bom.csv", b"\xef\xbb\xbf" + CSV.encode()),
        ("windows.csv", CSV.replace("\n", "\r\n").encode()),
        ("blanks.csv", CSV.replace(",", ", ").encode()),
        ("tabs.tsv", CSV.replace(",", "\t").encode()),
        ("bars.txt", CSV.replace(",", "|").encode()),
        ("semicolons.csv", CSV.replace(",", ";").encode()),
        ("decimal-commas.csv", CSV.replace(",", ";").replace(".", ",").encode()),
        ("utf-16.csv", CSV.encode("utf-16")),
        ("table.csv.gz", gzip.compress(CSV.encode())),
        ("table.csv.zip", zipped(("table.csv", CSV))),
        ("in-a-folder.zip", zipped(("data/", ""), ("data/table.csv", CSV))),
    ],
)
def test_a_table_is_read_the_same_however_it_is_written(
    name: str, content: bytes, tmp_path: Path
) -> None:
    read, data = read_table(write(tmp_path, content, name))
    expected = pd.DataFrame({"a": [1, 2], "b": ["red", "blue"], "y": [2.5, 3.5]})
    pd.testing.assert_frame_equal(read, expected, check_dtype=False)
    assert (data.source, data.rows, data.columns) == (name, 2, 3)


def test_parquet_is_read(tmp_path: Path) -> None:
    pd.read_csv(io.StringIO(CSV)).to_parquet(tmp_path / "table.parquet")
    assert list(read_table(tmp_path / "table.parquet")[0]["a"]) == [1, 2]


def test_missing_values_are_read_as_missing(tmp_path: Path) -> None:
    read, _ = read_table(write(tmp_path, "a,b\n1,\n,None\nNA,nan\n"))
    assert read["a"].isna().tolist() == [False, True, True]
    assert read["b"].isna().tolist() == [True, False, True]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "is empty"),
        (b"\n", "is empty"),
        ("name\nJosé\n".encode("latin-1"), "is not valid UTF-8"),
        (b"a,b\n1,\0\n", "NUL"),
        (b"a,b,a\n1,2,3\n", "several columns named 'a'"),
        (b"a,b\n1,2,3\n", "cannot be read as a table"),
        (b"PK\x03\x04broken", "is damaged"),
        (b"\x1f\x8bbroken", "is damaged"),
        (zipped(("a.csv", CSV), ("b.csv", CSV)), "got 2 files"),
    ],
)
def test_a_file_that_cannot_be_read_says_why(content: bytes, told: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidData, match=told):
        read_table(write(tmp_path, content))


def test_a_file_that_is_not_there_says_so(tmp_path: Path) -> None:
    with pytest.raises(InvalidData, match="No such file"):
        read_table(tmp_path / "nothing.csv")


def test_broken_parquet_says_so(tmp_path: Path) -> None:
    with pytest.raises(InvalidData, match="Parquet"):
        read_table(write(tmp_path, b"PAR1 broken", "table.parquet"))


# --- preparing --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("column", "reason"),
    [
        ([3.0] * ROWS, r"constant \(3\.0\)"),
        (["same"] * ROWS, r"constant \('same'\)"),
        ([None] * ROWS, "every value is missing"),
        ([f"id-{row}" for row in range(ROWS)], "identifier"),
        ([1e-310 * (row % 7) for row in range(ROWS)], "differ by less than 1e-100"),
        (list(range(ROWS)), "counts the rows"),
        (list(range(1000, 1000 + ROWS)), "counts the rows"),
        (pd.to_timedelta(np.arange(ROWS) % 7, unit="D"), "durations"),
    ],
)
def test_a_column_that_teaches_nothing_is_left_out_by_name(column: object, reason: str) -> None:
    said: list[str] = []
    inputs, _ = prepare(table(odd=column), "y", said.append)
    assert list(inputs) == ["x"]
    assert said[0].startswith("Left out column odd: ")
    assert any(pd.Series(said).str.contains(reason))


def test_the_rare_of_too_many_categories_are_one() -> None:
    said: list[str] = []
    many = pd.DataFrame({"x": np.random.default_rng(0).normal(size=600)})
    many["y"] = many["x"]
    many["town"] = [f"town {row % 60 if row < 500 else row}" for row in range(600)]
    inputs, output = prepare(many, "y", said.append)
    assert "of 160 categories, the 60 most frequent are used" in said[0]
    town = learn_schema(inputs, output)["town"]
    assert isinstance(town, Category)
    assert (len(town.categories), town.other) == (61, "other")
    assert town.parse("a town that is not there") == town.parse("other")


def test_a_column_that_repeats_another_is_left_out() -> None:
    said: list[str] = []
    frame = table()
    prepare(frame.assign(again=frame["x"]), "y", said.append)
    assert said == ["Left out column again: it repeats x"]


def test_an_index_column_without_a_name_is_left_out(tmp_path: Path) -> None:
    frame = table()
    frame.index = frame.index + 0.5
    frame.to_csv(tmp_path / "table.csv")
    read, _ = read_table(tmp_path / "table.csv")
    inputs, _ = prepare(read, "y", quiet)
    assert list(inputs) == ["x"]


def test_rows_without_a_finite_target_are_left_out_and_counted() -> None:
    said: list[str] = []
    frame = table()
    frame.loc[[1, 2], "y"] = [np.nan, np.inf]
    inputs, output = prepare(frame, "y", said.append)
    assert len(inputs) == len(output) == ROWS - 2
    assert said == [
        "y: 1 cells are not finite numbers and count as missing: 'inf' in row 3",
        "Left out 2 rows: y is missing or not finite",
    ]


@pytest.mark.parametrize(
    ("target", "column", "told"),
    [
        ("z", [1.0] * ROWS, "There is no column 'z'; choose --target from x, y"),
        ("y", ["low"] * ROWS, "'y' must hold numbers; it holds 'low'"),
        ("y", [True, False] * (ROWS // 2), "must hold numbers"),
        ("y", [2.0] * ROWS, "'y' is constant or missing"),
        ("y", [1e-200, 2e-200] * (ROWS // 2), "differ by less than 1e-100"),
        ("y", [np.nan] * ROWS, "'y' is constant or missing"),
    ],
)
def test_a_target_that_cannot_be_learned_is_named(target: str, column: object, told: str) -> None:
    with pytest.raises(InvalidData, match=told):
        prepare(table(y=column), target, quiet)


@pytest.mark.parametrize("name", ["baseline", "lower", "predict", "prediction", "upper", "_model"])
def test_a_column_with_a_name_of_the_pages_is_to_be_renamed(name: str) -> None:
    frame = table()
    with pytest.raises(InvalidData, match=name):
        prepare(frame.assign(**{name: frame["x"] ** 2}), "y", quiet)


def test_a_table_with_nothing_but_its_target_is_refused() -> None:
    with pytest.raises(InvalidData, match=r"No column is left .*the table has no other column"):
        prepare(table()[["y"]], "y", quiet)


def test_a_table_of_columns_that_teach_nothing_is_refused_with_the_reason_for_each() -> None:
    frame = table()[["y"]].assign(one=1.0, row=np.arange(ROWS))
    with pytest.raises(InvalidData, match=r"\(one: it is constant .*; row: it counts the rows"):
        prepare(frame, "y", quiet)


# --- the schema -------------------------------------------------------------------------------


def test_the_schema_is_learned_from_the_data() -> None:
    frame = table(
        whole=np.arange(ROWS) % 7,
        gaps=np.where(np.arange(ROWS) % 5, np.arange(ROWS) / 8, np.nan),
        colour=["red", "blue", "blue", None] * (ROWS // 4),
        flag=[True, False] * (ROWS // 2),
    )
    schema = learn_schema(*prepare(frame, "y", quiet))
    whole, gaps, colour, flag = (schema[name] for name in ("whole", "gaps", "colour", "flag"))
    assert isinstance(whole, Number)
    assert isinstance(gaps, Number)
    assert (whole.minimum, whole.maximum, whole.typical, whole.decimals) == (0, 6, 3, 0)
    assert (whole.missing, gaps.missing) == (False, True)
    assert isinstance(colour, Category)
    assert (colour.categories, colour.typical, colour.missing) == (("blue", "red"), "blue", True)
    assert isinstance(flag, Category)
    assert flag.categories == ("False", "True")


@pytest.mark.parametrize(
    ("values", "decimals", "step"),
    [
        ([463, 715, 1009], 0, 1),
        ([0.277, 0.326, 0.373], 3, 0.001),
        ([20_000, 50_000, 250_000], 0, 200),
        ([0.123456789, 0.5, 0.987654321], 3, 0.001),
        ([1e-7, 2e-7, 3e-7], 7, 1e-7),
        ([0.5, 1.0, 1.5], 1, 0.1),
    ],
)
def test_decimals_and_step_suit_the_data(values: list[float], decimals: int, step: float) -> None:
    column = pd.Series(values, name="x", dtype=float)
    assert useful_decimals(column) == decimals
    spec = learn_schema(pd.DataFrame({"x": column}), column)["x"]
    assert isinstance(spec, Number)
    assert spec.step == pytest.approx(step)


def test_a_series_of_years_is_no_identifier() -> None:
    inputs, _ = prepare(table(odd=list(range(1900, 1900 + ROWS))), "y", quiet)
    assert list(inputs) == ["x", "odd"]


# --- the commands -----------------------------------------------------------------------------


@pytest.mark.parametrize("main", [regression.main, classification.main, sentiment.main])
def test_the_help_of_a_command_shows_its_usage_once_and_which_options_may_be_repeated(
    main: Callable[[list[str]], int], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    shown = capsys.readouterr().out
    assert shown.count("python -m training.") == 1
    options = " ".join(shown.split("options:")[1].split()).split(" --")
    for option in ("extra", "drop", "keep"):
        assert all("may be repeated" in each for each in options if each.startswith(f"{option} "))
