"""The pages' charts: data in, Altair chart out. Colours and fonts come from the app's theme."""

import math
from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

import altair as alt
import pandas as pd

from mlapp.dashboard.axes import (
    COUNTS,
    bar_height,
    elided,
    name_axis,
    name_legend,
    number_axis,
    quiet_color,
    write,
)
from mlapp.families.contract import Explanation
from mlapp.schema import Category, Input

Drawn: TypeAlias = alt.Chart | alt.LayerChart | alt.FacetChart

BARS = 12  # the most bars; the last one sums up all further inputs
MOST_COUNTED = 12  # labels of a confusion matrix whose cells have room for their counts
ACROSS = 40  # characters that have room below half a page


def contributions(baseline: float, effects: "pd.Series[float]", name: str, decimals: int) -> Drawn:
    """Draw how the inputs lead from the baseline to the prediction, the largest first.

    Args:
        baseline: where the sum begins.
        effects: what each input adds, by its name.
        name: the name of the sum.
        decimals: of the numbers next to the bars.
    """
    added = effects.sort_values(key=abs, ascending=False)
    if len(added) > BARS:
        rest = added.iloc[BARS - 1 :]
        added = added.iloc[: BARS - 1].copy()
        added[f"{len(rest)} other inputs"] = rest.sum()
    ends = baseline + added.cumsum()
    bars = pd.DataFrame(
        {
            "input": added.index,
            "start": ends - added,
            "end": ends,
            "effect": ["raises" if value >= 0 else "lowers" for value in added],
            "label": [_write_added(value, decimals) for value in added],
        }
    )
    bars["right"] = bars[["start", "end"]].max(axis=1)
    room = 12 + 7 * max(6, bars["label"].str.len().max())  # for the numbers
    scale = alt.Scale(zero=False, nice=False, padding=room)
    base = alt.Chart(bars).encode(
        # An order by name: without one, Vega keeps that of the answer before.
        y=alt.Y("input:N", sort=[*added.index], title=None, axis=name_axis(added.index))
    )
    drawn = base.mark_bar(height={"band": 0.6}).encode(
        x=alt.X(
            "start:Q",
            scale=scale,
            axis=number_axis([*bars["start"], *bars["end"]], tickCount=8),
            title=name,
        ),
        x2="end:Q",
        color=alt.Color(
            "effect:N",
            scale=alt.Scale(domain=["raises", "lowers"]),
            legend=alt.Legend(orient="top", title=None),
        ),
        tooltip=[alt.Tooltip("input:N"), alt.Tooltip("label:N", title=f"added to {name}")],
    )
    text = base.mark_text(align="left", dx=6, fontSize=12, color=quiet_color()).encode(
        x=alt.X("right:Q", scale=scale), text="label:N"
    )
    return alt.layer(drawn, text).properties(height=alt.Step(bar_height(bars["input"], 32)))


def _write_added(value: float, decimals: int) -> str:
    shown = f"{value:+,.{decimals}f}"
    return shown if len(shown) <= 12 else f"{value:+.4g}"


def what_if(
    spec: Input,
    output: str,
    moved: pd.DataFrame,
    current: float | str | None,
    prediction: float,
) -> Drawn:
    """Draw the prediction and its interval as one input varies, and mark the current value.

    Args:
        spec: the input that varies.
        output: the target's name.
        moved: what `what_if` returned for it; a band is drawn if it has intervals.
        current: the input's current value; None if it is missing, then nothing is marked.
        prediction: the current prediction.
    """
    # By position, since the input may have the name of a column of the answers.
    columns = ["prediction", "lower", "upper"][: moved.shape[1] - 1]
    banded, number = len(columns) > 1, not isinstance(spec, Category)
    data = moved.set_axis(["value", *columns], axis=1)
    data = _prepare(spec, data.assign(series="prediction"), columns)
    here = pd.DataFrame({"value": [current], "prediction": [prediction], "series": ["now"]})
    here = _prepare(spec, here, columns[:1])
    x = varied_axis(spec, moved.iloc[:, 0])
    axis = number_axis(data[columns].to_numpy().ravel().tolist())
    y = alt.Y("prediction:Q", title=output, scale=alt.Scale(zero=False), axis=axis)
    titles = {"value": spec.name, "prediction": output, "lower": "lower", "upper": "upper"}
    tooltip = [alt.Tooltip(f"{name} text:N", title=title) for name, title in titles.items()]
    color = alt.Color(
        "series:N",
        scale=alt.Scale(domain=["prediction", "now"][: 1 if current is None else 2]),
        legend=alt.Legend(orient="top", title=None),
    )
    line = alt.Chart(data).encode(x=x, y=y, color=color, tooltip=tooltip[: 1 + len(columns)])
    layers = []
    if banded:
        # Its tooltip is the line's: by default it would call the lower end the prediction.
        lower = alt.Y("lower:Q", title=output, axis=axis)
        band = alt.Chart(data).encode(x=x, y=lower, y2="upper:Q", tooltip=tooltip)
        layers.append(
            band.mark_area(opacity=0.18) if number else band.mark_rule(strokeWidth=2, color="gray")
        )
    layers.append(line.mark_line() if number else line.mark_point(filled=True, size=50))
    if current is not None:
        point = alt.Chart(here).mark_point(filled=True, size=140, opacity=1)
        layers.append(point.encode(x=x, y=y, color=color, tooltip=tooltip[:2]))
    return alt.layer(*layers).properties(height=300)


def _prepare(spec: Input, data: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """Add the texts of the tooltips, and the values as Vega reads them."""
    texts = {f"{name} text": [write(value) for value in data[name]] for name in columns}
    texts["value text"] = written(data["value"])
    return data.assign(value=as_drawn(spec, data["value"]), **texts)


def written(values: Iterable[float | str | None]) -> list[str]:
    """Return values of an input as texts."""
    return [write(value) if isinstance(value, float | int) else str(value) for value in values]


def as_drawn(spec: Input, values: Iterable[Any]) -> list[Any]:
    """Return values of an input as Vega reads them: dates with their zone, UTC.

    Vega takes a date without a zone for UTC, and a time without one for local time.
    """
    if spec.kind != "date":
        return [*values]
    full = (str(value).replace(" ", "T") for value in values)
    return [value + ("Z" if "T" in value else "T00:00:00Z") for value in full]


def varied_axis(spec: Input, values: Iterable[Any]) -> alt.X:
    """Return the axis of an input that varies, of the values that `as_drawn` returned.

    Args:
        spec: the input.
        values: those that it takes.
    """
    if spec.kind == "number":
        scale, axis = alt.Scale(zero=False, nice=False), number_axis(values)
        return alt.X("value:Q", title=spec.name, scale=scale, axis=axis)
    if spec.kind == "date":  # in UTC, since local time may be on another day
        return alt.X("value:T", title=spec.name, scale=alt.Scale(type="utc"))
    return alt.X("value:N", title=spec.name, axis=alt.Axis(labelLimit=0, labelExpr=elided(values)))


def predicted_against_actual(name: str, held_out: dict[str, list[float]]) -> Drawn:
    """Draw the predictions of held-out rows against the actual values.

    Args:
        name: the target's.
        held_out: lists `actual` and `prediction`.
    """
    data = pd.DataFrame(held_out)
    ends = data[["actual", "prediction"]]
    low, high = float(ends.min().min()), float(ends.max().max())
    scale = alt.Scale(domain=[low, high], nice=True)
    axis = number_axis([low, high])
    for column in ("prediction", "actual"):
        data[f"{column} text"] = [write(value) for value in data[column]]
    points = (
        alt.Chart(data)
        .mark_circle(size=18, opacity=0.45)
        .encode(
            x=alt.X("prediction:Q", title=f"predicted {name}", scale=scale, axis=axis),
            y=alt.Y("actual:Q", title=f"actual {name}", scale=scale, axis=axis),
            tooltip=[
                alt.Tooltip("prediction text:N", title="prediction"),
                alt.Tooltip("actual text:N", title="actual"),
            ],
        )
    )
    diagonal = pd.DataFrame({"prediction": [low, high], "actual": [low, high]})
    line = alt.Chart(diagonal).mark_line(strokeDash=[4, 4], color="gray")
    return alt.layer(points, line.encode(x="prediction:Q", y="actual:Q")).properties(height=320)


def residuals(held_out: dict[str, list[float]]) -> Drawn:
    """Draw a histogram of the residuals of held-out rows.

    Args:
        held_out: lists `actual` and `prediction`.
    """
    data = pd.DataFrame(held_out)
    data["residual"] = data["actual"] - data["prediction"]
    drawn: alt.Chart = (
        alt.Chart(data)
        .mark_bar()
        .encode(
            x=alt.X(
                "residual:Q",
                bin=alt.Bin(maxbins=40),
                title="actual minus predicted",
                axis=number_axis(data["residual"]),
            ),
            y=alt.Y("count():Q", title="rows", axis=COUNTS),
            tooltip=[alt.Tooltip("count():Q", title="rows")],
        )
        .properties(height=320)
    )
    return drawn


def words(text: str, explanation: Explanation, other: str) -> Drawn:
    """Draw the words with the largest weights; the weights of all occurrences of a word are summed.

    Args:
        text: the text.
        explanation: why the model labels it as it does.
        other: what negative weights speak for.
    """
    added: dict[str, float] = {}
    for span in explanation.spans:
        word = text[span.start : span.end].casefold()
        added[word] = added.get(word, 0.0) + span.weight
    heaviest = sorted(added.items(), key=lambda item: -abs(item[1]))[:BARS]
    bars = pd.DataFrame([item for item in heaviest if item[1]], columns=["word", "weight"])
    bars["supports"] = [explanation.label if weight > 0 else other for weight in bars["weight"]]
    drawn: alt.Chart = (
        alt.Chart(bars)
        .mark_bar()
        .encode(
            x=alt.X("weight:Q", title="added to the logit"),
            y=alt.Y("word:N", sort=bars["word"].tolist(), title=None, axis=name_axis(bars["word"])),
            color=alt.Color(
                "supports:N",
                scale=alt.Scale(domain=[explanation.label, other]),
                legend=name_legend([explanation.label, other]),
            ),
            tooltip=["word:N", alt.Tooltip("weight:Q", format="+.3f"), "supports:N"],
        )
        .properties(height=alt.Step(bar_height(bars["word"], 26)))
    )
    return drawn


def confusion(labels: list[str], counts: list[list[int]], unit: str) -> Drawn:
    """Draw the confusion matrix of held-out instances.

    Args:
        labels: the n labels.
        counts: n rows, one per true label, of n counts, one per predicted label.
        unit: what was labelled, in the plural.
    """
    data = pd.DataFrame(
        [
            {"true label": true, "predicted label": predicted, "count": counts[row][column]}
            for row, true in enumerate(labels)
            for column, predicted in enumerate(labels)
        ]
    )
    slanted = len(labels) * max(len(label) for label in labels) > ACROSS
    many = len(labels) > MOST_COUNTED
    x_axis = alt.Axis(
        labelAngle=-90 if many else -45 if slanted else 0,
        labelOverlap="parity" if many else False,
        labelLimit=0,
        labelExpr=elided(labels),
    )
    base = alt.Chart(data).encode(
        x=alt.X("predicted label:N", sort=labels, axis=x_axis),
        y=alt.Y("true label:N", sort=labels, axis=name_axis(labels)),
        tooltip=[
            "true label:N",
            "predicted label:N",
            alt.Tooltip("count:Q", format=",", title=unit),
        ],
    )
    most = int(data["count"].max())
    layers = [
        base.mark_rect().encode(
            color=alt.Color("count:Q", scale=alt.Scale(scheme="teals"), legend=None)
        )
    ]
    if not many:
        dark = alt.datum["count"] > most / 2
        layers.append(
            base.mark_text(fontSize=15 if len(labels) <= MOST_COUNTED // 2 else 11).encode(
                text=alt.Text("count:Q", format=","),
                color=alt.condition(dark, alt.value("white"), alt.value("black")),
            )
        )
    step = max(bar_height(labels, 28), 210 // len(labels))
    return alt.layer(*layers).properties(height=alt.Step(step))


def reliability(bins: list[dict[str, float]], unit: str) -> Drawn:
    """Draw the reliability diagram of held-out instances: accuracy by predicted probability.

    Args:
        bins: of the probability: lower, confidence, accuracy, and the count `texts` of instances.
        unit: what was labelled, in the plural.
    """
    data = pd.DataFrame(bins).rename(columns={"texts": "count"})
    low = float(data["lower"].min())
    # A tenth with room for the lowest point, which would lie on the edge otherwise.
    bottom = max(0.0, math.floor(10 * min(low, float(data["accuracy"].min())) - 0.3) / 10)
    percent = alt.Axis(format=".0%")
    x = alt.X(
        "confidence:Q",
        scale=alt.Scale(domain=[low, 1], nice=False),
        axis=percent,
        title="probability of the label",
    )
    y = alt.Y(
        "accuracy:Q",
        scale=alt.Scale(domain=[bottom, 1], nice=False),
        axis=percent,
        title="accuracy",
    )
    points = (
        alt.Chart(data)
        .mark_circle(opacity=0.9)
        .encode(
            x=x,
            y=y,
            size=alt.Size("count:Q", title=unit, legend=alt.Legend(orient="top", tickCount=2)),
            tooltip=[
                alt.Tooltip("confidence:Q", format=".1%"),
                alt.Tooltip("accuracy:Q", format=".1%"),
                alt.Tooltip("count:Q", format=",", title=unit),
            ],
        )
    )
    ends = pd.DataFrame({"confidence": [low, 1], "accuracy": [low, 1]})
    line = alt.Chart(ends).mark_line(strokeDash=[4, 4], color="gray").encode(x=x, y=y)
    return alt.layer(line, points).properties(height=300)


def learning_curve(curve: list[dict[str, float]]) -> Drawn:
    """Draw the accuracy after each epoch, on what was trained on and on the calibration part."""
    data = pd.DataFrame(curve)
    data["epoch"] = data.index + 1
    names = {"accuracy": "training", "accuracy_calibration": "calibration part"}
    long = data.rename(columns=names).melt("epoch", list(names.values()), "part", "accuracy")
    drawn: alt.Chart = (
        alt.Chart(long)
        .mark_line(point=True)
        .encode(
            x=alt.X("epoch:O", axis=alt.Axis(labelAngle=0)),
            y=alt.Y("accuracy:Q", scale=alt.Scale(zero=False), axis=alt.Axis(format=".0%")),
            color=alt.Color("part:N", sort=None, legend=alt.Legend(orient="top", title=None)),
            tooltip=["epoch:O", "part:N", alt.Tooltip("accuracy:Q", format=".2%")],
        )
        .properties(height=300)
    )
    return drawn


def histogram(name: str, bars: pd.DataFrame) -> Drawn:
    """Draw how many rows have which prediction.

    Args:
        name: the output's.
        bars: what `distributions.Histogram.bars` returned: columns start, end, rows.
    """
    ends = {"from": bars["start"], "to": bars["end"]}
    axis = number_axis([*bars["start"], *bars["end"]], tickCount=8)
    drawn: alt.Chart = (
        alt.Chart(bars.assign(**{key: written(values) for key, values in ends.items()}))
        .mark_bar()
        .encode(
            x=alt.X("start:Q", bin="binned", title=f"predicted {name}", axis=axis),
            x2="end:Q",
            y=alt.Y("rows:Q", title="rows", axis=COUNTS),
            tooltip=[
                "from:N",
                "to:N",
                alt.Tooltip("rows:Q", format=","),
            ],
        )
        .properties(height=300)
    )
    return drawn


def label_shares(bars: pd.DataFrame) -> Drawn:
    """Draw the share of each label, with the unsure ones apart.

    Args:
        bars: what `distributions.Shares.bars` returned: columns label, answer, rows, share.
    """
    drawn: alt.Chart = (
        alt.Chart(bars)
        .mark_bar()
        .encode(
            x=alt.X(
                "sum(share):Q",
                title="share of all",
                axis=alt.Axis(format=".0%", tickCount=5),
            ),
            y=alt.Y(
                "label:N", sort=bars["label"].tolist(), title=None, axis=name_axis(bars["label"])
            ),
            color=alt.Color(
                "answer:N",
                scale=alt.Scale(domain=["sure", "unsure"]),
                legend=alt.Legend(orient="top", title=None),
            ),
            tooltip=[
                "label:N",
                "answer:N",
                alt.Tooltip("rows:Q", format=",", title="count"),
                alt.Tooltip("share:Q", format=".1%"),
            ],
        )
        .properties(height=alt.Step(bar_height(bars["label"], 44)))
    )
    return drawn
