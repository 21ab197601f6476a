"""Columns are read as what they hold, in training and wherever rows are served."""

import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mlapp.cli import main as mlapp
from mlapp.dates import parse_moment, take_apart
from mlapp.errors import InvalidData, InvalidInput
from mlapp.families.regression import RegressionModel
from mlapp.schema import Date, Number
from mlapp.service import create_app
from mlapp.tables.formats import format_of
from mlapp.tables.reading import open_table
from tests.conftest import client_of
from training.columns import read_column
from training.regression import train
from training.rows import Source, read_training_rows
from training.tables import learn_schema, prepare, read_table

ROWS = 120


def quiet(line: str) -> None:
    """Say nothing."""


def read(values: list[Any]) -> tuple[pd.Series, dict[str, Any], list[str]]:
    said: list[str] = []
    return *read_column("odd", pd.Series(values, dtype=object), said.append), said


@pytest.mark.parametrize(
    ("texts", "numbers", "unit"),
    [
        (["5,850", "12,000", "900"], [5850, 12000, 900], ""),
        (["$42,000", "$1,500.50", "-$3"], [42000, 1500.5, -3], "$"),
        (["12 %", "7.5%", "100 %"], [12, 7.5, 100], "%"),
        (["70 kg", "81.5 kg", "64"], [70, 81.5, 64], "kg"),
        (["1.234,50 €", "2.000,00 €", "7,25 €"], [1234.5, 2000, 7.25], "€"),
        (["EUR 5", "EUR 1,000", "EUR 7"], [5, 1000, 7], "EUR"),
    ],
)
def test_marked_numbers_are_numbers(texts: list[str], numbers: list[float], unit: str) -> None:
    column, how, said = read(texts)
    assert column.tolist() == numbers
    assert how["unit"] == unit
    assert "are read as numbers" in said[0]


@pytest.mark.slow
def test_infinities_of_a_table_count_as_missing_in_training_and_in_scoring(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, said = tmp_path / "ratios.parquet", list[str]()
    random = np.random.default_rng(0)
    ratios = random.normal(5, 1, ROWS)
    table = pd.DataFrame({"ratio": ratios, "y": 3 * ratios + random.normal(size=ROWS)})
    table.loc[[3, 9, 11], "ratio"] = [np.inf, -np.inf, 1e200]
    table.to_parquet(file)
    model = RegressionModel(train(file, "y", name="ratios", root=tmp_path, say=said.append))
    assert any("'-inf', '1e+200', 'inf' in rows 4, 10, 12" in line for line in said)
    absent = model.predict([{"ratio": None}]).iloc[0].tolist()
    for given in ([{"ratio": np.inf}], table[["ratio"]].iloc[[11]]):
        assert model.predict(given).iloc[0].tolist() == absent
    with pytest.raises(InvalidInput, match="got 1e\\+300"):
        model.predict(pd.DataFrame({"ratio": [1e300]}))
    monkeypatch.setenv("MLAPP_ARTIFACTS", str(tmp_path))
    assert mlapp(["score", str(file), "-o", str(tmp_path / "out.csv"), "--model", "ratios"]) == 0


def test_a_target_with_a_unit_is_read_with_the_files_decimal_mark(tmp_path: Path) -> None:
    file = tmp_path / "houses.csv"
    lines = [f"{size},5;{3 * size}.000 €" for size in (40, 90, 55, 120, 70) * 20]
    file.write_text("\n".join(["size;price", *lines]), encoding="utf-8")
    inputs, target = prepare(read_table(file)[0], "price", quiet)
    assert (inputs["size"].iloc[0], target.iloc[0]) == (40.5, 120_000)


@pytest.mark.parametrize(
    "codes",
    [["01234", "1234", "02134"], ["007", "010"], ["100000000000000000", "100000000000000001"]],
)
@pytest.mark.parametrize("odd", [[], ["?"]])
def test_codes_of_digits_are_categories_in_every_file(
    codes: list[str], odd: list[str], tmp_path: Path
) -> None:
    said: list[str] = []
    cells = ((codes * ROWS)[: ROWS - len(odd)]) + odd
    x = np.random.default_rng(0).normal(size=ROWS)
    table = pd.DataFrame({"code": cells, "x": x, "y": x + np.arange(ROWS) % 7})
    files = [tmp_path / f"table.{kind}" for kind in ("csv", "parquet", "jsonl")]
    table.to_csv(files[0], index=False)
    table.to_parquet(files[1])
    table.to_json(files[2], orient="records", lines=True)
    for file in files:
        said.clear()
        checked = read_training_rows(Source(file, "y"), False, said.append).checked
        assert [checked.schema["code"].plain(value) for value in checked.values["code"]] == cells
        assert any("code: read as texts" in line for line in said)
        with open_table(file, format_of(file.name)) as opened:
            served = [value for chunk in opened.chunks() for value in chunk.batch["code"]]
        parsed = [checked.schema["code"].parse(value.as_py()) for value in served]
        assert parsed == checked.values["code"].tolist()


def test_numbers_with_decimals_that_zeros_fill_up_are_numbers() -> None:
    texts = [f"{number / 4:06.2f}" for number in range(100)]
    column, _ = read_column("odd", pd.Series(texts, dtype=object), quiet, codes=True)
    assert column.tolist() == [number / 4 for number in range(100)]


def test_a_target_with_leading_zeros_is_a_number(tmp_path: Path) -> None:
    lines = [f"{size},{3 * size:05}" for size in (40, 90, 55, 120, 70) * 20]
    (tmp_path / "table.csv").write_text("\n".join(["size,price", *lines]))
    rows = read_training_rows(Source(tmp_path / "table.csv", "price"), False, quiet)
    assert rows.target[0] == 120


@pytest.mark.parametrize("texts", [["town 1", "town 2"], ["A12", "B7"], ["1st", "2nd", "3rd"]])
def test_texts_with_digits_are_no_numbers(texts: list[str]) -> None:
    column, how, _ = read(texts * 20)
    assert column.dtype == object
    assert how == {}


def test_a_few_unreadable_cells_are_missing_and_their_rows_are_said() -> None:
    column, how, said = read([*map(str, range(50)), "unknown", "?"])
    assert column.isna().sum() == 2
    assert how == {"placeholders": ("?", "unknown")}
    assert said == [
        "odd: 2 cells are not numbers and count as missing: '?', 'unknown' in rows 51, 52"
    ]


@pytest.mark.slow
def test_what_stood_for_missing_values_in_training_does_so_in_rows_to_predict(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLAPP_ARTIFACTS", str(tmp_path / "artifacts"))
    table = pd.DataFrame({"power": map(str, range(ROWS)), "day": "2024-03-05"})
    table["day"] = pd.date_range("2024-01-01", periods=ROWS).strftime("%d.%m.%Y")
    table["cost"] = np.arange(ROWS) * 2.0
    table.loc[7, "power"], table.loc[9, "day"] = " ? ", "soon"
    table.to_csv(tmp_path / "cars.csv", index=False)
    train(tmp_path / "cars.csv", "cost", "cars", say=quiet)
    source, target = str(tmp_path / "cars.csv"), str(tmp_path / "scored.csv")
    assert mlapp(["score", source, "-o", target, "--model", "cars"]) == 0
    assert mlapp(["predict", "--model", "cars", "--power", "?", "--day", "soon"]) == 0
    assert mlapp(["predict", "--model", "cars", "--power", "high", "--day", "soon"]) == 1
    assert "power: got 'high'" in capsys.readouterr().err


def test_all_texts_that_counted_as_missing_in_training_do_so_in_rows_to_predict() -> None:
    strange = [f"<{place}" for place in range(50)]
    _, how, _ = read([*map(str, range(600)), *strange])
    assert set(how["placeholders"]) == set(strange)


def test_texts_that_are_too_many_to_be_kept_are_said_to_be_refused_later() -> None:
    strange = [f"<{place} {'long ' * 100}" for place in range(500)]
    _, how, said = read([*map(str, range(6000)), *strange, *strange[:2]])
    kept = how["placeholders"]
    assert {each.strip() for each in strange[:2]} < set(kept)
    assert len(kept) < 500
    assert said[1] == (
        f"odd: of 500 such cells that differ, the {len(kept)} most frequent count as missing in"
        " rows to predict, too; rows with another are refused"
    )


@pytest.mark.parametrize("rare", ["5.0", "2024-01-05 00:00:00"])
def test_a_rare_spelling_of_a_category_counts_as_it_does_in_a_row_to_predict(
    tmp_path: Path, rare: str
) -> None:
    usual = rare.removesuffix(".0").removesuffix(" 00:00:00")
    towns = [f"t{place % 60}" for place in range(360)] + [f"x{place}" for place in range(9)]
    cells = [*towns, *[usual] * 9, rare]
    lines = [f"{cell},{place % 7},{place % 11}" for place, cell in enumerate(cells)]
    file = tmp_path / "towns.csv"
    file.write_text("\n".join(["town,x,y", *lines]))
    checked = read_training_rows(Source(file, "y"), False, quiet).checked
    trained = checked.values["town"].tolist()
    assert [checked.schema["town"].parse(cell) for cell in cells] == trained
    assert trained[-1] == trained[-2]


def test_a_boolean_written_ten_ways_is_one() -> None:
    column, _, said = read(["Yes", "y", "TRUE", "t", "1", "No", "n", "false", "F", "0"] * 3)
    assert column.tolist() == (["True"] * 5 + ["False"] * 5) * 3
    assert "read as True and False" in said[0]


@pytest.mark.parametrize(
    ("texts", "first"),
    [
        (["2024-01-31", "2024-02-01"], "2024-01-31"),
        (["2024-01-31T13:30:00Z", "2024-02-01T00:00:00Z"], "2024-01-31 13:30"),
        (["31/01/2024", "01/02/2024"], "2024-01-31"),
        (["01/31/2024", "02/01/2024"], "2024-01-31"),
        (["31.01.2024 13:30", "01.02.2024 09:15"], "2024-01-31 13:30"),
        (["Jan 31, 2024", "Feb 1, 2024"], "2024-01-31"),
        ([datetime.date(2024, 1, 31), datetime.date(2024, 2, 1)], "2024-01-31"),
    ],
)
def test_dates_are_read_however_they_are_written(texts: list[Any], first: str) -> None:
    column, how, _ = read(texts)
    assert column.iloc[0] == pd.Timestamp(first)
    assert "pattern" in how


def test_dates_out_of_range_are_missing_and_their_rows_are_said() -> None:
    texts = [f"2024-{1 + place % 12:02}-15" for place in range(40)]
    column, _, said = read([*texts, "2024-02-31", "99999-01-01"])
    assert column.isna().sum() == 2
    assert any("rows 41, 42" in line for line in said)


def test_parts_of_dates_are_those_of_the_calendar() -> None:
    moments = pd.date_range("1899-12-25 05:30", periods=900, freq="50D")
    seconds = np.array([parse_moment(each) for each in moments], dtype=float)
    found = take_apart(seconds, ["year", "month", "day", "weekday", "hour"])
    expected = [moments.year, moments.month, moments.day, moments.day_of_week]
    assert (found[:, :4] == np.array(expected).T).all()
    assert (found[:, 4] == 5.5).all()


# --- served -----------------------------------------------------------------------------------


def make_sales(rows: int = ROWS) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    days = pd.date_range("2023-01-01", periods=rows, freq="3D")
    price = rng.integers(900, 9000, rows)
    return pd.DataFrame(
        {
            "sold": days.strftime("%d/%m/%Y"),
            "price": [f"${each:,}" for each in price],
            "town": rng.choice([f"town {place}" for place in range(70)], rows),
            "member": rng.choice(["Yes", "Y", "true", "no", "N", "FALSE"], rows),
            "output": price / 100 + 20 * (days.day_of_week >= 5) + rng.normal(size=rows),
        }
    )


ROW = {"sold": "05/02/2024", "price": "$5,850", "town": "nowhere", "member": "y"}


@pytest.fixture(scope="module", params=["linear", "boosted"])
def sales(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("sales")
    make_sales(400).to_csv(root / "sales.csv", index=False)
    train(root / "sales.csv", name="regression", root=root / "a", say=quiet, model=request.param)
    return root


@pytest.fixture
def served(sales: Path, monkeypatch: pytest.MonkeyPatch) -> RegressionModel:
    from mlapp.store import open_model
    from tests.conftest import use_artifacts

    use_artifacts(sales / "a", monkeypatch)
    model = open_model(sales / "a", "regression")
    assert isinstance(model, RegressionModel)
    return model


@pytest.mark.slow
def test_dates_marks_and_rare_categories_are_learned_from(served: RegressionModel) -> None:
    assert float(str(served.manifest.metrics["r2"])) > 0.85
    assert [spec.kind for spec in served.schema.inputs] == [
        "date",
        "number",
        "category",
        "category",
    ]


@pytest.mark.slow
def test_a_row_is_answered_alike_however_it_is_written(served: RegressionModel) -> None:
    other = {"sold": "2024-02-05", "price": 5850, "town": "other", "member": True}
    moment = other | {"sold": datetime.datetime(2024, 2, 5)}
    answers = served.predict([ROW, other, moment])
    assert answers.nunique().tolist() == [1, 1, 1]
    reasons = served.explain([ROW])
    assert reasons.sum(axis=1)[0] == pytest.approx(answers["prediction"][0])
    assert len(served.what_if(ROW, "sold")) == 81


@pytest.mark.slow
def test_every_door_reads_rows_as_they_are_written_in_training(
    served: RegressionModel, sales: Path, tmp_path: Path
) -> None:
    expected = served.predict([ROW])["prediction"][0]
    client = client_of(create_app())
    [answer] = client.post("/v1/models/regression:predict", json={"instances": [ROW]}).json[
        "predictions"
    ]
    assert answer["prediction"] == pytest.approx(expected)
    form = client.post("/predict", data=ROW)
    assert form.status_code == 200
    pd.DataFrame([ROW] * 3).to_csv(tmp_path / "rows.csv", index=False)
    command = ["score", str(tmp_path / "rows.csv"), "-o", str(tmp_path / "out.csv")]
    assert mlapp(command) == 0
    scored = pd.read_csv(tmp_path / "out.csv")
    assert scored["prediction"].tolist() == pytest.approx([expected] * 3)


@pytest.mark.parametrize("text", ["2024-02-31", "soon", "99999-01-01"])
def test_a_date_that_is_none_is_refused_with_what_is_allowed(
    text: str, served: RegressionModel
) -> None:
    with pytest.raises(InvalidInput, match="a date such as 2024-01-31 or 31/01/2024"):
        served.predict([ROW | {"sold": text}])


def test_a_date_outside_the_range_of_training_is_noticed(served: RegressionModel) -> None:
    [notice] = served.check([ROW | {"sold": "1999-01-01"}]).notices
    assert "1999-01-01 lies outside the range seen in training, 2023-01-01 to" in notice.detail


def test_the_schema_knows_how_columns_were_written() -> None:
    schema = learn_schema(*prepare(make_sales(), "output", quiet))
    sold, price = schema["sold"], schema["price"]
    assert isinstance(sold, Date)
    assert isinstance(price, Number)
    assert (sold.pattern, sold.timed) == ("%d/%m/%Y", False)
    assert (price.unit, price.mark) == ("$", ".")


# --- what cannot be learned from --------------------------------------------------------------


@pytest.mark.slow
def test_a_million_categories_are_left_out() -> None:
    said: list[str] = []
    rows = 1_000_000
    column = pd.Series([f"c{place // 2}" for place in range(rows)], dtype=object)
    table = pd.DataFrame({"x": np.arange(rows) % 97, "many": column, "y": np.arange(rows) % 89})
    inputs, _ = prepare(table, "y", said.append)
    assert list(inputs) == ["x"]
    assert any("many" in line and "categories" in line for line in said)


@pytest.mark.slow
def test_more_columns_than_a_table_may_have_are_refused(tmp_path: Path) -> None:
    table = pd.DataFrame(np.zeros((30, 20_000)), columns=[f"c{place}" for place in range(20_000)])
    table.to_csv(tmp_path / "wide.csv", index=False)
    with pytest.raises(InvalidData, match="columns"):
        train(tmp_path / "wide.csv", "c0", root=tmp_path, say=quiet)


@pytest.mark.parametrize(
    ("given", "day"),
    [
        ("9999-12-31T23:59:59.999", "9999-12-31"),
        ("0001-01-01", "0001-01-01"),
        ("0001-01-01T00:00:00+14:00", None),
        ("9999-12-31T23:59:59-01:00", None),
        ("iso", None),
        ("", None),
    ],
)
def test_a_date_is_one_of_the_years_1_to_9999(given: str, day: str | None) -> None:
    column = Date(name="day", minimum=0, maximum=1, quantiles=(0, 0, 0, 0, 1), typical="1970-01-01")
    parsed = column.parse(given)
    assert (None if parsed is None else column.plain(parsed)) == day
