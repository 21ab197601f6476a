"""What the pages' charts and tables say: their data, texts and axes."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from streamlit.testing.v1 import AppTest

from mlapp.dashboard import answers, axes, charts, label_charts, monitor, quality
from mlapp.dates import Date
from mlapp.families.contract import Explanation, NumberOutput, Numbers, RowInput, Span
from mlapp.families.varying import what_if
from mlapp.records import bins, drift
from mlapp.schema import Category, Checked, Number, Rows, Schema
from mlapp.scoring.distributions import Differences

AREA = Number(
    name="area",
    minimum=0,
    maximum=100,
    quantiles=(5, 25, 50, 75, 95),
    typical=50,
    step=1,
    decimals=0,
)
BUILT = Date(
    name="built",
    minimum=0,
    maximum=86400 * 100,
    quantiles=(0, 0, 0, 0, 0),
    typical="1970-01-02",
)
TOWN = Category(name="town", categories=("east", "west"), typical="east")


def drawn(chart: charts.Drawn) -> dict[str, Any]:
    """Return a chart as Vega-Lite has it, each layer with its rows as `rows`."""
    spec: dict[str, Any] = json.loads(chart.to_json())
    for layer in spec.get("layer", [spec]):
        data = layer.get("data", spec.get("data", {}))
        layer["rows"] = spec["datasets"][data["name"]]
    return spec


def said(layer: dict[str, Any]) -> dict[str, Any]:
    """Return the tooltip of a layer's first row, by title."""
    shown = layer["encoding"]["tooltip"]
    return {each.get("title", each["field"]): layer["rows"][0][each["field"]] for each in shown}


# --- what if ----------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", [AREA, BUILT, TOWN], ids=lambda spec: str(spec.kind))
def test_the_band_of_a_what_if_says_the_prediction_and_the_interval(spec: Any) -> None:
    kinds: dict[str, list[Any]] = {
        "number": [1.0, 2.0],
        "date": ["2024-01-31", "2024-02-01"],
        "category": ["east", "west"],
    }
    values = kinds[spec.kind]
    moved = pd.DataFrame(
        {"v": values, "p": [1234567.8, 2.0], "l": [0.00000123456, 1], "u": [3.5, 3]}
    )
    band, line, _ = drawn(charts.what_if(spec, "price", moved, values[0], 1.5))["layer"]
    expected = {
        spec.name: charts.written(values)[0],
        "price": "1,234,568",
        "lower": "1.23456e-06",
        "upper": "3.5",
    }
    assert said(band) == said(line) == expected


def test_a_what_if_of_a_missing_value_lists_no_mark() -> None:
    moved = pd.DataFrame({"v": [1.0, 2.0], "p": [1.0, 2.0]})
    [line] = drawn(charts.what_if(AREA, "price", moved, None, 1.5))["layer"]
    assert line["encoding"]["color"]["scale"]["domain"] == ["prediction"]


@pytest.mark.parametrize(
    ("value", "drawn_as"),
    [
        ("2024-01-31", "2024-01-31T00:00:00Z"),
        ("2024-01-31 13:30:00", "2024-01-31T13:30:00Z"),
    ],
)
def test_dates_are_drawn_in_utc_wherever_they_are_read(value: str, drawn_as: str) -> None:
    moved = pd.DataFrame({"v": [value, value], "p": [0.25, 0.5], "q": [0.75, 0.5]})
    number = charts.what_if(BUILT, "price", moved.iloc[:, :2], value, 1.5)
    label = label_charts.what_if(BUILT, moved, {"a": "p", "b": "q"}, np.array([0.25, 0.75]), value)
    for chart in (number, label):
        layers = drawn(chart)["layer"]
        assert [layer["rows"][0]["value"] for layer in layers] == [drawn_as] * 2
        for layer in layers:
            assert layer["encoding"]["x"]["scale"] == {"type": "utc"}
        assert said(layers[0])["built"] == value


class Sum:
    """A model of rows: the number of days since 1970 and the area, added up."""

    takes = RowInput(Schema(inputs=(AREA, BUILT)))

    def check(self, rows: Rows) -> Checked:
        return self.takes.schema.check(rows)

    def answer(self, rows: Checked) -> Numbers:
        return Numbers(NumberOutput("sum", 0, None), rows.matrix @ np.array([[1.0], [1 / 86400]]))


@pytest.mark.parametrize(
    ("name", "value", "last"),
    [
        ("area", 33.3, 100.0),
        ("area", 0.1, 100.0),
        ("area", 250.0, 250.0),
        ("built", "1970-02-03", "1970-04-11"),
        ("built", "2030-05-05", "2030-05-05"),
    ],
)
def test_a_what_if_has_the_value_now_on_its_curve_and_reaches_it(
    name: str, value: Any, last: Any
) -> None:
    model: Any = Sum()
    row = {"area": 50.0, "built": "1970-01-02"} | {name: value}
    moved = what_if(model, row, name)
    assert len(moved) == 81
    assert moved[name].is_monotonic_increasing
    assert moved[name].iloc[-1] == last
    now = float(model.answer(model.check([row])).values[0, 0])
    assert now in [pytest.approx(each) for each in moved["prediction"][moved[name] == value]]


# --- numbers ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1234567.8, "1,234,568"),
        (12345.678, "12,345.7"),
        (3.3e-10, "3.3e-10"),
        (1e21, "1e+21"),
        (-0.0, "0"),
    ],
)
def test_a_number_is_written_with_the_digits_that_matter(value: float, text: str) -> None:
    assert axes.write(value) == text


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        ([0.0, 99_000.0], {}),
        ([0.0, 4e-10], {"labelExpr": "datum.value ? format(datum.value, '.4~e') : '0'"}),
        ([0.0, 1e20], {"labelExpr": "datum.value ? format(datum.value, '.4~e') : '0'"}),
        ([0.0, 1e12], {"labelExpr": "replace(format(datum.value, '.4~s'), 'G', 'B')"}),
        ([1e9, 1e9 + 1000], {"labelExpr": "replace(format(datum.value, '.10~s'), 'G', 'B')"}),
        ([], {}),
    ],
)
def test_the_labels_of_an_axis_are_short(values: list[float], labels: dict[str, str]) -> None:
    assert axes.number_axis(values).to_dict() == labels


def test_a_histogram_of_large_numbers_has_short_labels_and_whole_counts() -> None:
    bars = pd.DataFrame({"start": [0.0, 5e11], "end": [5e11, 1e12], "rows": [1, 2]})
    spec = drawn(charts.histogram("wealth", bars))
    assert "~s" in spec["encoding"]["x"]["axis"]["labelExpr"]
    assert spec["encoding"]["y"]["axis"] == {"tickMinStep": 1}
    assert spec["rows"][1]["from"] == "500,000,000,000"


def test_a_large_share_of_a_prediction_has_room_for_its_number() -> None:
    added = pd.Series({"a": 123_456_789.0, "b": 654_321.0, "c": -1.25})
    bars = drawn(charts.contributions(0.0, added, "wealth", 2))["layer"][0]
    assert [row["label"] for row in bars["rows"]] == ["+1.235e+08", "+654,321.00", "-1.25"]
    assert bars["encoding"]["x"]["scale"]["padding"] == 89


# --- names ------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 5])
def test_every_word_of_a_short_text_has_a_bar_that_can_be_read(count: int) -> None:
    text = " ".join("abcde"[:count])
    spans = tuple(Span(2 * place, 2 * place + 1, 1.0 + place) for place in range(count))
    spec = drawn(charts.words(text, Explanation("good", 1.0, 0.0, spans), "bad"))
    assert spec["height"] == {"step": 26}
    assert len(spec["rows"]) == count
    assert spec["encoding"]["color"]["legend"]["title"] is None


def test_a_bar_has_room_for_the_lines_of_its_name() -> None:
    assert axes.bar_height(["short"], 30) == 30
    assert axes.bar_height(["x" * 300], 30) > axes.bar_height(["x" * 30], 30) > 30


def test_names_that_differ_in_the_middle_do_not_become_the_same() -> None:
    first, last = "species number ", " with a rather long label"
    assert "> 30 ?" in axes.elided([first + "1" * 30 + last])
    assert "> 60 ?" in axes.elided([f"{first}{place}{last}" for place in range(30)])


@pytest.mark.parametrize(
    ("count", "layers", "step"), [(2, 2, 105), (10, 2, 28), (12, 2, 28), (20, 1, 28)]
)
def test_a_confusion_matrix_grows_with_its_labels(count: int, layers: int, step: int) -> None:
    counts = np.eye(count, dtype=int).tolist()
    spec = drawn(charts.confusion([f"{place}" for place in range(count)], counts, "rows"))
    assert (len(spec["layer"]), spec["height"]) == (layers, {"step": step})
    assert all("tooltip" in layer["encoding"] for layer in spec["layer"])


# --- drift ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("accuracy", "bottom"), [(0.9, 0.4), (0.52, 0.4), (0.478, 0.4), (0.21, 0.1), (0.0, 0.0)]
)
def test_the_lowest_point_of_a_reliability_diagram_is_off_the_edge(
    accuracy: float, bottom: float
) -> None:
    found = {"lower": 0.5, "confidence": 0.55, "accuracy": accuracy, "texts": 30}
    _, points = drawn(charts.reliability([found], "texts"))["layer"]
    assert points["encoding"]["y"]["scale"]["domain"] == [bottom, 1]
    assert points["encoding"]["size"]["legend"]["tickCount"] == 2  # which a phone has room for


def test_the_chart_of_drift_shows_what_was_refused() -> None:
    cut, before = bins.Binning(values=("refused", "south")), {0: 500, 1: 500}
    now = {0: 100, 1: 100, bins.REFUSED: 300}
    found = drift.compare(bins.Series("input", "x"), cut, before, now)
    assert found.bins == (("(refused)", 0.0, 0.6), ("refused", 0.5, 0.2), ("south", 0.5, 0.2))
    rows = drawn(monitor.distribution(found))["rows"]
    assert {"bin": "(refused)", "when": "now", "share": 0.6} in rows


# --- texts and tables -------------------------------------------------------------------------


def show_long_value() -> None:
    from mlapp.dashboard import answers

    answers.show_value("Predicted size", "short")
    answers.show_value("Predicted size", "a label of more than *twenty* characters", "help")


def test_a_long_label_is_shown_as_text_that_wraps() -> None:
    app = AppTest.from_function(show_long_value).run()
    assert not app.exception
    assert [metric.value for metric in app.metric] == ["short"]
    assert [each.value for each in app.markdown] == [
        ":small[Predicted size]",
        r"**a label of more than \*twenty\* characters**",
    ]


def ask_for_truths() -> None:
    from types import SimpleNamespace
    from typing import Any

    from mlapp.dashboard import feedback
    from mlapp.families.contract import LabelOutput, NumberOutput

    for gives in (LabelOutput(("*good*", "$bad$"), "kind"), NumberOutput("price", 2, None)):
        model: Any = SimpleNamespace(gives=gives)
        answered: Any = SimpleNamespace(id=gives.kind)
        feedback._show(model, answered)


def test_feedback_offers_labels_as_they_are_and_steps_as_fine_as_the_output() -> None:
    app = AppTest.from_function(ask_for_truths).run()
    assert not app.exception
    assert app.selectbox[0].options == ["*good*", "$bad$"]
    assert app.number_input[0].step == 0.01


def test_the_numbers_of_a_table_keep_the_digits_that_matter() -> None:
    table = pd.DataFrame(
        {"small": [3.3e-10, 0.5], "large": [12345678.91, 2.0], "count": [1, 2], "none": np.nan}
    )
    formats = {
        key: each["type_config"]["format"] for key, each in answers.significant(table).items()
    }
    assert formats == {"small": "%.6g", "large": "%.10g", "none": "%.6g"}


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("mae", 3.3e-10, "3.3e-10"),
        ("mae", 1.2345e12, "1.234e+12"),
        ("mae", 12.3, "12.30"),
        ("r2", 0.0, "0.000"),
        ("r2", -1e10, "-1e+10"),
        ("coverage", 0.0001, "0.0%"),
    ],
)
def test_a_very_small_or_large_metric_is_written_with_four_digits(
    key: str, value: float, text: str
) -> None:
    gives = NumberOutput("price", 2, 0.9)
    [metric] = [each for each in quality.of_numbers(gives) if each.key == key]
    assert quality.write_metric(metric, value) == text


# --- comparing --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ours", "theirs", "text"),
    [
        (0.1 + 0.2, 0.3, "0.000"),
        (1.0, 1.0004, "-0.0004"),
        (2.5, 1.0, "+1.500"),
        (3e-10, 1e-10, "+2e-10"),
    ],
)
def test_a_difference_is_neither_noise_nor_a_negative_zero(
    ours: float, theirs: float, text: str
) -> None:
    assert answers.write_difference(ours, theirs, 3) == text


def compare(**columns: list[Any]) -> Differences:
    found = Differences("", "v1_")
    empty: Callable[[], pa.Array] = lambda: pa.nulls(len(columns["difference"]), pa.string())  # noqa: E731
    found.add(pa.RecordBatch.from_pydict(columns | {"error": empty(), "v1_error": empty()}), 0)
    return found


def test_floating_point_noise_is_no_difference_of_two_versions() -> None:
    ours, theirs = [0.1 + 0.2, 5.0, 1e-17, 2e-9, None], [0.3, 4.0, -2e-17, 1e-9, 1.0]
    found = compare(
        prediction=ours,
        difference=[None if a is None else a - b for a, b in zip(ours, theirs, strict=True)],
        v1_prediction=theirs,
        v1_lower=theirs,
        v1_upper=theirs,
    )
    assert (found.compared, found.differing, found.changed) == (4, 2, 2)
    assert [number for number, _ in found.largest] == [2, 4]


def test_tiny_predictions_may_differ() -> None:
    found = compare(prediction=[3e-10], difference=[1e-10], v1_prediction=[2e-10])
    assert (found.differing, found.mean) == (1, 1e-10)


def test_floating_point_noise_is_no_difference_of_probabilities() -> None:
    found = compare(difference=[1e-16, 0.25], changed=[False, True])
    assert (found.compared, found.differing, found.changed) == (2, 1, 1)
