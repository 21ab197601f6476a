import io
import json
import math
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mlapp.dates import parse_moment
from mlapp.errors import ROW as WHOLE_ROW
from mlapp.errors import Fault, InvalidInput, InvalidTable
from mlapp.families.regression import COLUMNS, RegressionModel
from mlapp.families.sentiment import SentimentModel
from mlapp.schema import LARGEST, MISSING, Category, Number
from mlapp.scoring.batch import (
    Counts,
    Options,
    Scored,
    make_plan,
    parse_column,
    score_batch,
    score_table,
)
from mlapp.store import open_model
from mlapp.tables.formats import FileFormat
from mlapp.tables.reading import open_table
from tests.conftest import ROOT, make_houses

ROW = {"var_1": 734.0, "var_2": 688.0, "var_3": 81.0, "var_4": 0.328, "var_5": 0.259}


@pytest.fixture(scope="module")
def regression(trained: Path) -> RegressionModel:
    model = open_model(trained, "regression")
    assert isinstance(model, RegressionModel)
    return model


@pytest.fixture(scope="module")
def houses(trained: Path) -> RegressionModel:
    model = open_model(trained, "houses")
    assert isinstance(model, RegressionModel)
    return model


@pytest.fixture(scope="module")
def sentiment(trained_texts: Path) -> SentimentModel:
    model = open_model(trained_texts, "sentiment")
    assert isinstance(model, SentimentModel)
    return model


def score(model: Any, table: dict[str, Any], **options: Any) -> Scored:
    batch = pa.RecordBatch.from_pydict(table)
    return score_batch(model, make_plan(model, batch.schema, Options(**options)), batch)


def texts(rows: list[dict[str, Any]]) -> dict[str, list[str]]:
    return {name: [str(row[name]) for row in rows] for name in rows[0]}


# --- the plan ---------------------------------------------------------------------------------


def test_a_missing_column_is_reported_with_the_columns_that_exist(
    regression: RegressionModel,
) -> None:
    with pytest.raises(InvalidInput) as caught:
        score(regression, {"var_1": ["1"], "VAR_2": ["1"]})
    assert [fault.input for fault in caught.value.faults] == ["var_2", "var_3", "var_4", "var_5"]
    assert "no such column among 'var_1', 'VAR_2'" in caught.value.faults[0].got
    assert str(caught.value) == (
        "there is no column for 4 inputs, 'var_2', 'var_3', 'var_4', 'var_5'; the columns are"
        " 'var_1', 'VAR_2'"
    )


def test_columns_are_found_in_any_order_and_by_other_names(regression: RegressionModel) -> None:
    expected = regression.predict([ROW]).iloc[0].tolist()
    columns: dict[str, Any] = {"id": ["x"], "Fifth": ["0.259"], " var_4 ": ["0.328"]}
    columns |= {name: [str(ROW[name])] for name in ("var_3", "var_2", "var_1")}
    found = score(regression, columns, columns={"Fifth": "var_5"}).batch
    assert found.schema.names == [*columns, "prediction", "lower", "upper", "notice", "error"]
    assert [found.column(name)[0].as_py() for name in COLUMNS] == expected


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            {"nothing": "var_1"},
            "^columns: got 'nothing', expected one of the columns 'var_1', 'var_2'",
        ),
        ({"var_1": "var_9"}, "^columns: var_1 = 'var_9': expected one of the inputs 'var_1'"),
        ({"var_1": "var_5", "var_2": "var_5"}, "several columns for 'var_5'"),
    ],
)
def test_a_wrong_mapping_is_reported(
    columns: dict[str, str], message: str, regression: RegressionModel
) -> None:
    with pytest.raises(InvalidTable, match=message):
        score(regression, texts([ROW]), columns=columns)


def test_a_prediction_does_not_overwrite_a_column(regression: RegressionModel) -> None:
    columns = texts([ROW]) | {"lower": ["kept"], "error": ["kept"]}
    with pytest.raises(InvalidTable, match=r"already has columns 'lower', 'error'; give.* prefix"):
        score(regression, columns)
    found = score(regression, columns, prefix="new_").batch
    assert found.schema.names[-5:] == [f"new_{n}" for n in (*COLUMNS, "notice", "error")]
    assert found.column("lower").to_pylist() == ["kept"]


@pytest.mark.parametrize("names", [["text", "x"], ["x", "review"], ["n", "only"]])
def test_the_column_of_texts_is_found(names: list[str], sentiment: SentimentModel) -> None:
    values = [[1] if name == "n" else ["a good film"] for name in names]
    found = score(sentiment, dict(zip(names, values, strict=True))).batch
    assert found.column("label").to_pylist() == sentiment.predict(["a good film"])["label"].tolist()


def test_the_column_that_a_model_was_trained_on_is_read_before_others(
    sentiment: SentimentModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sentiment, "report", {"columns": {"text": "message", "label": "mood"}})
    columns = {"by": ["Ann"], "text": ["?"], "message": ["a good film"]}
    assert score(sentiment, columns).counts.scored == 1
    assert score(sentiment, columns, text_column="text").counts.scored == 0
    del columns["message"]
    assert score(sentiment, columns).counts.scored == 0
    del columns["text"]
    assert score(sentiment, columns).counts.scored == 1
    with pytest.raises(InvalidInput, match="no column is called 'text', 'review' or 'message': "):
        score(sentiment, {"a": ["x"], "b": ["y"]})


def test_a_column_of_texts_that_cannot_be_guessed_must_be_named(sentiment: SentimentModel) -> None:
    columns = {"a": ["good"], "b": ["bad"]}
    said = (
        r"^no column is called 'text' or 'review': name the column of texts with --text-column"
        r" \(text_column in a request\)$"
    )
    with pytest.raises(InvalidInput, match=said) as caught:
        score(sentiment, columns)
    assert [fault.input for fault in caught.value.faults] == ["text"]
    assert score(sentiment, columns, text_column="b").counts.scored == 1
    assert score(sentiment, columns, columns={"b": "text"}).counts.scored == 1
    with pytest.raises(
        InvalidTable, match=r"^text_column: got 'c', expected one of the columns 'a', 'b'"
    ):
        score(sentiment, columns, text_column="c")


def test_a_column_of_texts_is_refused_by_a_model_of_rows(regression: RegressionModel) -> None:
    with pytest.raises(
        InvalidTable, match="text_column: got 'var_1', expected none: this model ta"
    ):
        score(regression, texts([ROW]), text_column="var_1")


def test_an_input_whose_column_is_used_for_another_is_reported_as_that(
    regression: RegressionModel,
) -> None:
    with pytest.raises(InvalidInput) as caught:
        score(regression, texts([ROW]), columns={"var_1": "var_2"})
    assert str(caught.value) == (
        "var_1: got no column, since 'var_1' is used for 'var_2', expected another one"
    )


# --- the fast check is the one check -----------------------------------------------------------

NUMBER = Number(
    name="n",
    minimum=0,
    maximum=1,
    quantiles=(0, 0, 0, 0, 0),
    typical=0,
    step=1,
    decimals=0,
)
CATEGORY = Category(name="c", categories=("1", "3", "east", "inf"), typical="1")
MARKS = "0123456789.eE+-_ xX\t\u00a0\u0661\x00naif"
CELLS = st.one_of(
    st.sampled_from(
        [*MISSING, "inf", "-Infinity", "1e100", "1.01e100", "0x10", " 5 ", "1_0", "+3"]
    ),
    st.text(st.sampled_from(MARKS), max_size=8),
    st.floats().map(repr),
    st.integers().map(str),
    st.none(),
)


def same(found: float, expected: float) -> bool:
    return found.hex() == expected.hex() or (math.isnan(found) and math.isnan(expected))


@settings(deadline=None, max_examples=500)
@given(cells=st.lists(CELLS, min_size=1, max_size=20), missing=st.booleans())
@example(cells=["1e309", "-0", ".5", "5.", "1e-400", "٣"], missing=True)
@pytest.mark.slow
def test_numbers_in_texts_are_parsed_as_one_by_one(cells: list[str | None], missing: bool) -> None:
    spec = NUMBER.model_copy(update={"missing": missing})
    values, bad = parse_column(spec, pa.array(cells, pa.string()))
    expected = [spec.parse(cell) for cell in cells]
    assert bad == [place for place, value in enumerate(expected) if value is None]
    for found, value in zip(values.tolist(), expected, strict=True):
        assert value is None or same(found, value)


@pytest.mark.parametrize("missing", [True, False])
@pytest.mark.parametrize(
    "column",
    [
        pa.array([1, None, -3], pa.int32()),
        pa.array([2**63, 5], pa.uint64()),
        pa.array([0.1, None, math.nan, math.inf, 1e101, LARGEST]),
        pa.array([0.1, 3.0], pa.float32()),
        pa.array([1.5, 3.0], pa.float16()),
        pa.array([Decimal("1.50"), None]),
        pa.array([True, False, None]),
        pa.array([None, None]),
        pa.array([[1], [2]]),
        pa.array([{"a": [1]}, None]),
        pa.array([[("a", 1)], []], pa.map_(pa.string(), pa.int64())),
        pa.ExtensionArray.from_storage(pa.uuid(), pa.array([b"0" * 16, None], pa.binary(16))),
        pa.array(["east", " 3 ", "", None, "west", "3.0"]),
        pa.array(["east", "x"]).dictionary_encode().cast(pa.string()),
        pa.array([pd.Timestamp("2024-01-01")]),
    ],
    ids=lambda value: str(getattr(value, "type", value)),
)
@pytest.mark.parametrize("spec", [NUMBER, CATEGORY], ids=["number", "category"])
def test_columns_of_every_type_are_parsed_as_one_by_one(
    spec: Number | Category, column: pa.Array, missing: bool
) -> None:
    spec = spec.model_copy(update={"missing": missing})
    for part in (column, column.slice(1)):
        values, bad = parse_column(spec, part)
        expected = [spec.parse(value) for value in part.to_pylist()]
        assert bad == [place for place, value in enumerate(expected) if value is None]
        for found, value in zip(values.tolist(), expected, strict=True):
            assert value is None or same(found, value)


@pytest.mark.parametrize(
    "moment",
    [
        np.datetime64(10**14, "s"),
        np.datetime64("15659-02-10"),
        pd.Timestamp(np.datetime64(10**14, "s")),
        pd.Timestamp(np.datetime64(10**14, "s")).tz_localize("UTC"),
    ],
)
def test_a_moment_that_python_cannot_hold_is_no_date(moment: Any) -> None:
    assert parse_moment(moment) is None
    assert parse_moment(np.datetime64("2024-01-31T00:00:00.000000000")) == 1_706_659_200


def test_errors_and_notices_are_in_the_words_of_the_check(houses: RegressionModel) -> None:
    rows = [
        {"area": "100", "rooms": "3", "district": "east"},
        {"area": "abc", "rooms": "", "district": "south"},
        {"area": "1000", "rooms": "99", "district": "west"},
        {"area": "", "rooms": "NA", "district": "north"},
    ]
    found = score(houses, texts(rows))
    for place, row in enumerate(rows):
        error, notice = (found.batch.column(name)[place].as_py() for name in ("error", "notice"))
        answer = [found.batch.column(name)[place].as_py() for name in COLUMNS]
        try:
            checked = houses.check([row])
        except InvalidInput as refused:
            assert error == "; ".join(fault.message for fault in refused.faults)
            assert answer == [None] * 3
            assert notice is None
        else:
            assert error is None
            notices = houses.notices(checked, houses.predict_array(checked))
            assert answer == houses.predict(checked).iloc[0].tolist()
            assert notice == ("; ".join(each.message for each in notices) or None)
    assert found.counts == Counts(4, 2, 1, 2)
    assert sorted(found.errors) == [1, 3]


def test_a_row_that_could_not_be_read_is_refused_for_that(regression: RegressionModel) -> None:
    batch = pa.RecordBatch.from_pydict(texts([ROW, ROW]))
    plan = make_plan(regression, batch.schema, Options())
    found = score_batch(regression, plan, batch, {1: Fault(WHOLE_ROW, "2 cells", "5 cells")})
    assert found.batch.column("error").to_pylist() == [None, "got 2 cells, expected 5 cells"]
    assert found.batch.column("prediction")[1].as_py() is None
    assert found.counts == Counts(2, 1, 0, 1)


# --- the same bits ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["regression", "houses"])
def test_an_answer_is_the_same_to_the_bit_whatever_rows_come_with_it(
    name: str, request: pytest.FixtureRequest
) -> None:
    model: RegressionModel = request.getfixturevalue(name)
    source = ROOT / "data" / "linear_regression_dataset.csv"
    table = pd.read_csv(source, dtype=str) if name == "regression" else make_houses().astype(str)
    columns = {each: table[each].fillna("").tolist() for each in model.schema.names}
    whole = score(model, columns, explain=True).batch
    added = whole.schema.names[len(columns) :]
    for start, end in [(0, 1), (1, 3), (3, 20), (20, 99), (99, len(table))]:
        part = score(model, {k: v[start:end] for k, v in columns.items()}, explain=True).batch
        assert part.equals(whole.slice(start, end - start))
    rows = [{key: columns[key][place] for key in columns} for place in range(len(table))]
    alone = np.array([model.predict([row]).to_numpy()[0] for row in rows])
    assert (alone == np.array([whole.column(each) for each in added[:3]]).T).all()
    reasons = np.array([model.explain([row]).to_numpy()[0] for row in rows])
    assert (reasons == np.array([whole.column(each) for each in added[3:-2]]).T).all()
    assert added[3:5] == ["effect_baseline", f"effect_{model.schema.names[0]}"]


def test_a_text_is_answered_the_same_to_the_bit_whatever_texts_come_with_it(
    sentiment: SentimentModel,
) -> None:
    reviews = pd.read_csv(ROOT / "data" / "reviews_sample.tsv", sep="\t")["review"].tolist()[:40]
    whole = score(sentiment, {"text": reviews}).batch
    assert score(sentiment, {"text": reviews[7:9]}).batch.equals(whole.slice(7, 2))
    together = sentiment.predict(reviews)
    assert whole.column("label").to_pylist() == together["label"].tolist()
    assert whole.column("probability").to_pylist() == together["probability"].tolist()
    assert whole.column("p_Negative").to_pylist() == together["Negative"].tolist()
    assert whole.column("unknown").to_pylist() == together["unknown"].tolist()
    assert [sentiment.predict([each])["probability"][0] for each in reviews] == together[
        "probability"
    ].tolist()


# --- texts ------------------------------------------------------------------------------------


def test_texts_without_words_are_refused_in_the_words_of_the_check(
    sentiment: SentimentModel,
) -> None:
    given = ["a good film", "", None, "!!!", " \t "]
    found = score(sentiment, {"text": pa.array(given)})
    for place, text in enumerate(given[1:], 1):
        with pytest.raises(InvalidInput) as caught:
            sentiment.predict([text])  # type: ignore[list-item]
        assert found.batch.column("error")[place].as_py() == caught.value.faults[0].message
        assert found.batch.column("label")[place].as_py() is None
        assert found.batch.column("unsure")[place].as_py() is None
    assert found.counts == Counts(5, 1, 0, 4)


def test_a_column_that_holds_no_texts_is_refused_row_by_row(sentiment: SentimentModel) -> None:
    found = score(sentiment, {"text": [1, 2]})
    assert (
        found.batch.column("error")[1].as_py().startswith("text: got the number 2, expected a text")
    )


def test_a_text_of_mostly_unknown_words_has_a_notice(sentiment: SentimentModel) -> None:
    found = score(sentiment, {"text": ["film qqqq zzzz vvvv", "a good film"]})
    assert found.batch.column("notice").to_pylist() == [
        "text: the model knows only 25% of the words",
        None,
    ]
    assert found.counts == Counts(2, 2, 1, 0)


def test_an_explained_text_names_its_strongest_words(sentiment: SentimentModel) -> None:
    text = "The film was wonderful and the music was clever, but the story is boring."
    found = score(sentiment, {"text": [text, ""]}, explain=True).batch
    words = json.loads(found.column("words")[0].as_py())
    spans = sorted(sentiment.explain(text).spans, key=lambda span: -abs(span.weight))[:10]
    assert words == [[text[each.start : each.end], round(each.weight, 6)] for each in spans]
    assert found.column("words")[1].as_py() is None


def test_three_labels_have_a_probability_each(trained_texts: Path) -> None:
    found = score(open_model(trained_texts, "moods"), {"review": ["quiet sea"]}, explain=True).batch
    names = ["label", "probability", "p_angry", "p_calm", "p_glad", "unknown", "unsure", "words"]
    assert found.schema.names == ["review", *names, "notice", "error"]
    assert sum(found.column(f"p_{each}")[0].as_py() for each in ("angry", "calm", "glad")) == (
        pytest.approx(1)
    )


# --- whole tables -----------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 3])
def test_a_table_is_scored_in_order_and_may_be_continued(
    workers: int, regression: RegressionModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mlapp.tables.delimited.BLOCK", 1000)
    source = (ROOT / "data" / "linear_regression_dataset.csv").read_bytes()

    def parts(skip: int) -> list[Any]:
        with open_table(io.BytesIO(source), FileFormat("csv")) as table:
            plan = make_plan(regression, table.schema, Options())
            return list(
                score_table(regression, table, plan, FileFormat("csv"), False, workers, skip)
            )

    whole = parts(0)
    assert len(whole) > 20
    lines = b"".join(part.data for part in whole).decode().splitlines()
    assert [line.rsplit(",", 5)[0] for line in lines] == source.decode().splitlines()
    assert sum((part.counts for part in whole), Counts()) == Counts(1232, 1232, 0, 0)
    assert [part.data for part in parts(7)] == [part.data for part in whole[7:]]
    shares = [part.share for part in whole[1:]]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


def test_few_chunks_are_in_hand_at_a_time(
    regression: RegressionModel,
) -> None:
    header, _, rows = (
        (ROOT / "data" / "linear_regression_dataset.csv").read_bytes().partition(b"\n")
    )
    with open_table(io.BytesIO(header + b"\n" + 600 * rows), FileFormat("csv")) as table:
        plan = make_plan(regression, table.schema, Options())
        parts = score_table(regression, table, plan, FileFormat("csv"), workers=2)
        next(parts)
        next(parts)
        assert table.size is not None
        assert 0 < table.position() < table.size / 2
        parts.close()
