"""Answers and their reasons on pages, for every kind of model."""

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from mlapp.dashboard import charts, label_charts, markup
from mlapp.dashboard.markup import bullets, literal
from mlapp.families.contract import (
    Answers,
    LabelOutput,
    Labels,
    Model,
    NumberOutput,
    Numbers,
    Reasons,
    RowReasons,
    TextReasons,
)
from mlapp.scoring.distributions import without_noise

DECIMALS = 2  # of a logit
ROOM = 20  # characters that are shown large; more would be cut off
SIGNIFICANT = st.column_config.NumberColumn(format="%.6g")  # six digits, also of small numbers


def as_percent(probability: float) -> str:
    """Return a probability as text that never claims certainty."""
    return "over 99%" if probability > 0.99 else f"{probability:.0%}"


def significant(table: pd.DataFrame) -> dict[str, Any]:
    """Return formats for the numbers of a table, by column; by default four decimals are shown."""
    return {
        str(name): st.column_config.NumberColumn(format=significant_format(column))
        for name, column in table.select_dtypes("float").items()
    }


def significant_format(numbers: Iterable[float]) -> str:
    """Return the format of a column: six digits, or more where two decimals need more."""
    most = max((abs(each) for each in numbers if math.isfinite(each)), default=0.0)
    digits = math.ceil(math.log10(most)) + 2 if 1 < most < 1e13 else 0
    return f"%.{max(6, digits)}g"


def show_value(title: str, value: str, hint: str | None = None) -> None:
    """Show a value under a title, large if it is short, else as text that wraps.

    Args:
        title: Markdown.
        value: any text.
        hint: Markdown, shown on request.
    """
    if len(value) <= ROOM:
        st.metric(title, literal(value), help=hint)
        return
    with st.container(width="content", gap="xsmall"):
        st.markdown(f":small[{title}]", help=hint)
        st.markdown(f"**{literal(value)}**")


def write_difference(ours: float, theirs: float, decimals: int) -> str:
    """Return the difference of two numbers as text, with more digits where it is small."""
    [found] = without_noise(np.array([ours - theirs]), np.array([ours]), np.array([theirs]))
    if not found:
        return f"{0:.{decimals}f}"
    shown = f"{found:+,.{decimals}f}"
    return shown if any(digit in shown for digit in "123456789") else f"{found:+.2g}"


def show_answer(answers: Answers, target: str | None = None) -> None:
    """Show the answer to one instance.

    Args:
        answers: a single one.
        target: what people call that which is predicted; by default its name in records.
    """
    title = f"Predicted {literal(target or answers.output.name)}"
    if isinstance(answers, Numbers):
        show_number(answers, title)
    else:
        show_labels(answers, title)


def show_number(answers: Numbers, title: str) -> None:
    """Show a predicted number, with its interval if the model has one."""
    output, [answer] = answers.output, answers.records()
    show_value(title, output.format(answer["prediction"]))
    if output.level is None:
        st.caption("This model gives no interval.")
    else:
        lower, upper = (output.format(answer[key]) for key in ("lower", "upper"))
        st.markdown(f"{output.level:.0%} interval: **{lower}** to **{upper}**")


def show_labels(answers: Labels, title: str) -> None:
    """Show the most likely label and the probability of each label."""
    output, [label] = answers.output, answers.labels
    with st.container(horizontal=True, vertical_alignment="bottom"):
        show_value(title, label)
        st.metric("Probability", as_percent(float(answers.probability[0])))
        if answers.unsure[0]:
            st.badge("Unsure", icon=":material/help:", color="orange")
    st.altair_chart(
        label_charts.probabilities(output.labels, answers.probabilities[0]),
        alt=f"The probability of each {output.name}",
    )


def show_meaning(answers: Answers) -> None:
    """Show how to read an answer, and that the page's address is a link to it."""
    output = answers.output
    said = "The address of this page holds the values: share it to share the prediction."
    if isinstance(output, NumberOutput) and output.level is not None:
        new = f"{output.level:.0%} of new values are expected to be in their interval"
    elif isinstance(output, NumberOutput):
        st.caption(said)
        return
    else:
        new = "Of a hundred answers with a probability of 80%, about eighty should be right"
    unlike = (
        " This row is unlike the training data, so that may not hold." if answers.notices else ""
    )
    st.caption(f"{new}.{unlike} {said}")


def show_notices(answers: Answers) -> None:
    """Show what is unusual about an instance and its answer."""
    if answers.notices:
        st.warning(
            bullets(notice.message for notice in answers.notices),
            title="Unlike the training data",
        )


def show_reasons(model: Model, reasons: Reasons) -> None:
    """Show the reasons of the answer to one instance."""
    if isinstance(reasons, RowReasons):
        show_row_reasons(model, reasons)
    elif isinstance(reasons, TextReasons):
        show_text_reasons(model, reasons)


def show_row_reasons(model: Model, reasons: RowReasons) -> None:
    """Show what each input adds to the answer to one row."""
    baseline, total = float(reasons.baseline[0]), float(reasons.totals[0])
    added = pd.Series({name: float(each[0]) for name, each in reasons.effects.items()})
    gives = model.gives
    if isinstance(gives, NumberOutput):
        name, decimals = gives.name, gives.decimals + 1
        said = (
            f"What each value adds, from the average prediction, {gives.format(baseline)}, to this"
            f" one, {gives.format(total)}."
        )
    else:
        assert reasons.labels is not None  # as the model gives labels
        [label] = reasons.labels
        name, decimals = f"logit of {label}", DECIMALS
        said = (
            f"What each value adds to the logit of {label}, from {baseline:+.2f} on average to"
            f" {total:+.2f}. What raises it makes {label} more likely."
        )
    st.altair_chart(
        charts.contributions(baseline, added, name, decimals),
        alt=f"What each input adds to the {name}",
    )
    precision = "The values are exact."
    if reasons.error is not None:
        precision = (
            f"The values are estimated, with a standard error of at most {reasons.error[0]:.2g};"
            " their sum is exact."
        )
    st.caption(literal(f"{said} {precision}"))


def show_text_reasons(model: Model, reasons: TextReasons) -> None:
    """Show which words decide the answer to one text."""
    assert isinstance(model.gives, LabelOutput)  # as its reasons say
    [text], [explained], labels = reasons.texts, reasons.explanations, model.gives.labels
    other = labels[0] if len(labels) == 2 else "another label"
    st.html(markup.mark(text, explained.spans))
    st.caption(
        literal(
            f"A solid underline supports {explained.label}, a dashed one {other}; a stronger colour"
            " means a larger weight."
        )
    )
    st.altair_chart(
        charts.words(text, explained, other),
        alt=f"The words that weigh most for {explained.label} and against it",
    )
    st.caption(
        literal(
            f"{reasons.method} The weights of all words and the bias, {explained.bias:+.2f}, sum"
            f" exactly to the logit of {explained.label}, {explained.logit:+.2f}."
        )
    )
