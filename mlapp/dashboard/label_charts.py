"""Charts of the probabilities of labels; see `charts`."""

from collections.abc import Mapping, Sequence

import altair as alt
import pandas as pd

from mlapp.dashboard.charts import BARS, Drawn
from mlapp.schema import Category, Floats, Input

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
            axis=alt.Axis(labelOverlap=False, labelLimit=140),
        ),
        tooltip=["label:N", alt.Tooltip("probability:Q", format=".2%")],
    )
    text = base.mark_text(align="left", dx=5, fontSize=12, color="gray")
    text = text.encode(text="shown:N")
    return alt.layer(base.mark_bar(height={"band": 0.6}), text).properties(
        height=50 + 30 * len(bars), padding={"right": 44}
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
    parts = [
        pd.DataFrame(
            {"value": moved.iloc[:, 0], "probability": moved.iloc[:, place + 1], "label": label}
        )
        for place, label in enumerate(columns)
        if place in places
    ]
    here = pd.DataFrame({"value": [current]})
    number = not isinstance(spec, Category)
    value = {"number": "value:Q", "date": "value:T"}.get(spec.kind, "value:N")
    x = alt.X(
        value,
        title=spec.name,
        scale=alt.Scale(zero=False, nice=False) if spec.kind == "number" else alt.Scale(),
    )
    lines = alt.Chart(pd.concat(parts)).encode(
        x=x,
        y=alt.Y("probability:Q", scale=alt.Scale(domain=[0, 1]), axis=alt.Axis(format=".0%")),
        color=alt.Color(
            "label:N",
            scale=alt.Scale(domain=labels),
            legend=alt.Legend(orient="top", title=None, columns=3, labelLimit=140),
        ),
        tooltip=[
            alt.Tooltip(value, title=spec.name),
            "label:N",
            alt.Tooltip("probability:Q", format=".1%"),
        ],
    )
    drawn = lines.mark_line() if number else lines.mark_point(filled=True, size=90)
    layers: list[alt.Chart] = [drawn]
    if current is not None:
        rule = alt.Chart(here).mark_rule(strokeDash=[4, 4], color="gray")
        layers.append(rule.encode(x=x))
    return alt.layer(*layers).properties(height=300)
