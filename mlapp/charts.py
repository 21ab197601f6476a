"""The pages' charts: data in, Altair chart out. Colours and fonts are the app's theme."""

from typing import TypeAlias

import altair as alt
import pandas as pd

from mlapp.regression import RegressionModel
from mlapp.schema import Number

Drawn: TypeAlias = alt.Chart | alt.LayerChart | alt.FacetChart

BARS = 12  # more inputs than this are summed up in one bar


def contributions(model: RegressionModel, explained: "pd.Series[float]") -> Drawn:
    """Draw how the inputs lead from the mean output to the prediction, the largest first.

    Args:
        model: gives the output's name and number format.
        explained: a row of `RegressionModel.explain`.
    """
    added = explained.drop("baseline").sort_values(key=abs, ascending=False)
    if len(added) > BARS:
        rest = added.iloc[BARS - 1 :]
        added = added.iloc[: BARS - 1].copy()
        added[f"{len(rest)} other inputs"] = rest.sum()
    ends = float(explained["baseline"]) + added.cumsum()
    bars = pd.DataFrame(
        {
            "input": added.index,
            "start": ends - added,
            "end": ends,
            "effect": ["raises" if value >= 0 else "lowers" for value in added],
            "label": [f"{value:+,.{model.decimals + 1}f}" for value in added],
        }
    )
    bars["right"] = bars[["start", "end"]].max(axis=1)
    scale = alt.Scale(zero=False, nice=False, padding=56)  # the padding holds the labels
    name = model.schema.output.name
    base = alt.Chart(bars).encode(
        y=alt.Y("input:N", sort=None, title=None, axis=alt.Axis(labelOverlap=False))
    )
    drawn = base.mark_bar(height={"band": 0.6}).encode(
        x=alt.X(
            "start:Q",
            scale=scale,
            axis=alt.Axis(tickCount=8),
            title=f"{name}, from the mean to the prediction",
        ),
        x2="end:Q",
        color=alt.Color(
            "effect:N",
            scale=alt.Scale(domain=["raises", "lowers"]),
            legend=alt.Legend(orient="top", title=None),
        ),
        tooltip=[alt.Tooltip("input:N"), alt.Tooltip("label:N", title=f"added to {name}")],
    )
    text = base.mark_text(align="left", dx=6, fontSize=12, color="gray").encode(
        x=alt.X("right:Q", scale=scale), text="label:N"
    )
    return alt.layer(drawn, text).properties(height=120 + 32 * len(bars))


def what_if(
    model: RegressionModel, moved: pd.DataFrame, current: float | str | None, prediction: float
) -> Drawn:
    """Draw the prediction and its interval as one input moves, and mark where it is now.

    Args:
        model: gives the names.
        moved: what `RegressionModel.what_if` returned.
        current: the input's value now, or None where it is missing; then nothing is marked.
        prediction: the prediction now.
    """
    name, output = str(moved.columns[0]), model.schema.output.name
    data = moved.rename(columns={name: "value"}).assign(series="prediction")
    here = pd.DataFrame({"value": [current], "prediction": [prediction], "series": ["now"]})
    number = isinstance(model.schema[name], Number)
    value = "value:Q" if number else "value:N"
    x = alt.X(value, title=name, scale=alt.Scale(zero=False, nice=False) if number else alt.Scale())
    y = alt.Y("prediction:Q", title=output, scale=alt.Scale(zero=False))
    tooltip = [
        alt.Tooltip(value, title=name),
        alt.Tooltip("prediction:Q", format=".4~g", title=output),
    ]
    color = alt.Color(
        "series:N",
        scale=alt.Scale(domain=["prediction", "now"]),
        legend=alt.Legend(orient="top", title=None),
    )
    band = alt.Chart(data).encode(x=x, y=alt.Y("lower:Q", title=output), y2="upper:Q")
    line = alt.Chart(data).encode(x=x, y=y, color=color, tooltip=tooltip)
    point = alt.Chart(here).mark_point(filled=True, size=140, opacity=1)
    point = point.encode(x=x, y=y, color=color, tooltip=tooltip)
    if number:
        layers = [band.mark_area(opacity=0.18), line.mark_line()]
    else:
        layers = [band.mark_rule(strokeWidth=2), line.mark_point(filled=True, size=50)]
    if current is not None:
        layers.append(point)
    return alt.layer(*layers).properties(height=300)


def predicted_against_actual(model: RegressionModel) -> Drawn:
    """Draw held-out rows' predictions against what they really were."""
    data = pd.DataFrame(model.report["held_out"])
    name = model.schema.output.name
    ends = data[["actual", "prediction"]]
    low, high = float(ends.min().min()), float(ends.max().max())
    scale = alt.Scale(domain=[low, high], nice=True)
    points = (
        alt.Chart(data)
        .mark_circle(size=18, opacity=0.45)
        .encode(
            x=alt.X("prediction:Q", title=f"predicted {name}", scale=scale),
            y=alt.Y("actual:Q", title=f"actual {name}", scale=scale),
            tooltip=[
                alt.Tooltip("prediction:Q", format=".4~g"),
                alt.Tooltip("actual:Q", format=".4~g"),
            ],
        )
    )
    diagonal = pd.DataFrame({"prediction": [low, high], "actual": [low, high]})
    line = alt.Chart(diagonal).mark_line(strokeDash=[4, 4], color="gray")
    return alt.layer(points, line.encode(x="prediction:Q", y="actual:Q")).properties(height=320)


def residuals(model: RegressionModel) -> Drawn:
    """Draw how far held-out rows lie from their predictions, as a histogram."""
    held_out = model.report["held_out"]
    data = pd.DataFrame(held_out)
    data["residual"] = data["actual"] - data["prediction"]
    drawn: alt.Chart = (
        alt.Chart(data)
        .mark_bar()
        .encode(
            x=alt.X("residual:Q", bin=alt.Bin(maxbins=40), title="actual minus predicted"),
            y=alt.Y("count():Q", title="rows"),
            tooltip=[alt.Tooltip("count():Q", title="rows")],
        )
        .properties(height=320)
    )
    return drawn
