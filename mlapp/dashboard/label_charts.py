"""Charts of the probabilities of labels; see `charts`."""

from collections.abc import Mapping, Sequence

import altair as alt
import pandas as pd

from mlapp.dashboard.axes import bar_height, name_axis, name_legend, quiet_color
from mlapp.dashboard.charts import BARS, Drawn, as_drawn, varied_axis, written
from mlapp.schema import Category, Floats, Input

LONG = 20  # characters of a label from which the legend is a list
LINES = 6  # the most labels whose curves are drawn: the number of the theme's colours


def probabilities(labels: Sequence[str], values: Floats) -> Drawn:
    """Draw the probability of each label as a bar, the most likely first.

    Args:
        labels: the labels; if there are many, the least likely are summed up in one bar.
        values: their probabilities, (labels,).
    """
    ranked = sorted(zip(labels, values.tolist(), strict=True), key=lambda item: -item[1])
    if len(ranked) > BARS:
        rest = ranked[BARS - 1 :]
        ranked = [
            *ranked[: BARS - 1],
            (f"{len(rest)} other labels", sum(value for _, value in rest)),
        ]
    bars = pd.DataFrame(ranked, columns=["label", "probability"])
    bars["shown"] = [_write(value) for value in bars["probability"]]
    base = alt.Chart(bars).encode(
        x=alt.X(
            "probability:Q",
            title=None,
            scale=alt.Scale(domain=[0, 1]),
            axis=alt.Axis(format=".0%", tickCount=5),
        ),
        y=alt.Y(
            "label:N",
            sort=bars["label"].tolist(),
            title=None,
            axis=name_axis(bars["label"]),
        ),
        tooltip=["label:N", alt.Tooltip("probability:Q", format=".2%")],
    )
    text = base.mark_text(align="left", dx=5, fontSize=12, color=quiet_color())
    text = text.encode(text="shown:N")
    return alt.layer(base.mark_bar(height={"band": 0.6}), text).properties(
        height=alt.Step(bar_height(bars["label"], 30)), padding={"right": 44}
    )


def _write(probability: float) -> str:
    """Write a probability, never as certain."""
    rounded = f"{probability:.1%}"
    return {"100.0%": "> 99.9%", "0.0%": "< 0.1%"}.get(rounded, rounded)


def what_if(
    spec: Input,
    moved: pd.DataFrame,
    columns: Mapping[str, str],
    values: Floats,
    current: float | str | None,
) -> Drawn:
    """Draw the probabilities of labels as one input varies, and mark the current value.

    Args:
        spec: the input that varies.
        moved: what `what_if` returned for it.
        columns: the column of each label in it.
        values: the current probabilities, (labels,); the curves of the `LINES` largest are drawn.
        current: the input's current value; None if it is missing, then nothing is marked.
    """
    places = sorted(range(len(values)), key=lambda place: -values[place])[:LINES]
    labels = [label for place, label in enumerate(columns) if place in places]
    taken = moved.iloc[:, 0].tolist()
    parts = [
        pd.DataFrame(
            {"probability": moved.iloc[:, place + 1], "label": label}
            | {"value": as_drawn(spec, taken), "value text": written(taken)}
        )
        for place, label in enumerate(columns)
        if place in places
    ]
    number = not isinstance(spec, Category)
    x = varied_axis(spec, taken)
    lines = alt.Chart(pd.concat(parts)).encode(
        x=x,
        y=alt.Y("probability:Q", scale=alt.Scale(domain=[0, 1]), axis=alt.Axis(format=".0%")),
        color=alt.Color(
            "label:N",
            scale=alt.Scale(domain=labels),
            legend=name_legend(labels),
        ),
        tooltip=[
            alt.Tooltip("value text:N", title=spec.name),
            "label:N",
            alt.Tooltip("probability:Q", format=".1%"),
        ],
    )
    drawn = lines.mark_line() if number else lines.mark_point(filled=True, size=90)
    layers: list[alt.Chart] = [drawn]
    if current is not None:
        here = pd.DataFrame({"value": as_drawn(spec, [current])})
        rule = alt.Chart(here).mark_rule(strokeDash=[4, 4], color="gray")
        layers.append(rule.encode(x=x))
    listed = (
        bar_height(labels, 16) * len(labels) if max(map(len, labels)) > LONG else 0
    )  # the height of the legend
    return alt.layer(*layers).properties(height=300 + listed)
