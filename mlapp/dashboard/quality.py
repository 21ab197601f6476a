"""How good a model is: the parts of the tab "About this model".

A family's report says what there is to show; a part without its figures is left out.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import streamlit as st

from mlapp.dashboard import answers, charts
from mlapp.dashboard.file_results import size as size_text
from mlapp.families.contract import Gives, Model, NumberOutput
from mlapp.manifest import Manifest

IN_SAMPLE = "_in_sample"  # ends the metrics of a model's own training rows
BASELINE = "baseline_"  # begins the metrics of the baseline
MOST_DRAWN = 20  # labels of a confusion matrix that can be read
MOST_CONFUSED = 20  # pairs of labels that are listed instead
PERCENT = st.column_config.NumberColumn(format="percent")
SCORE = st.column_config.NumberColumn(format="%.4f")
# The columns of the models that were compared, where they are not called by their key.
COMPARED = {"behind_best": "shortfall", "behind_error": "its standard error"}
SCORES = ("figure", "standard error", "log loss", *COMPARED.values())


class Metric(NamedTuple):
    """A metric of the manifest: its key, what it is called, how it is written, what it means."""

    key: str
    label: str
    write: Callable[[float], str]
    help: str


def of_numbers(gives: NumberOutput) -> list[Metric]:
    """Return the metrics of a model that gives a number, the most telling first."""
    found = [
        Metric(
            "r2",
            "R²",
            "{:.3f}".format,
            "Share of the variance explained; 1 is perfect, 0 is no better than the mean.",
        ),
        Metric("rmse", "RMSE", gives.format, "Root mean squared error, in the output's unit."),
        Metric("mae", "MAE", gives.format, "Mean absolute error, in the output's unit."),
    ]
    if gives.level is not None:
        inside = f"Share of held-out rows inside their {gives.level:.0%} interval."
        found.append(Metric("coverage", "Interval coverage", "{:.1%}".format, inside))
    return found


def of_labels() -> list[Metric]:
    """Return the metrics of a model that gives labels, the most telling first."""
    return [
        Metric("accuracy", "Accuracy", "{:.1%}".format, "Share classified correctly."),
        Metric(
            "balanced_accuracy",
            "Balanced accuracy",
            "{:.1%}".format,
            "The share that gets its own label, averaged over the labels: rare labels count as"
            " much as frequent ones.",
        ),
        Metric(
            "ece",
            "Calibration error",
            "{:.1%}".format,
            "The average gap between a probability and the share of answers that are right.",
        ),
        Metric(
            "log_loss",
            "Log loss",
            "{:.3f}".format,
            "Penalises confident wrong answers; 0 is perfect. Of two equally frequent labels, 0.693"
            " is a coin toss.",
        ),
        Metric(
            "roc_auc",
            "ROC AUC",
            "{:.3f}".format,
            "How often a row with the second label gets a higher probability of it than a row"
            " with the first; 0.5 is a coin toss.",
        ),
    ]


def metrics_of(gives: Gives) -> list[Metric]:
    """Return the metrics of a model by what it gives, the most telling first."""
    return of_numbers(gives) if gives.kind == "number" else of_labels()


def write_metric(metric: Metric, value: float) -> str:
    """Return a metric's value as text, with four digits where it is very small or large."""
    shown = metric.write(value)
    small = 0 < abs(value) < 1e-3 and not shown.endswith("%")
    return f"{value:.4g}" if small or abs(value) >= 1e9 else shown


def show_metrics(model: Model, metrics: Sequence[Metric], size: bool = False) -> None:
    """Show those of some metrics that the manifest has, and what they were measured on.

    Args:
        model: the model.
        metrics: what may be shown.
        size: whether the size of the model's files is shown, too.
    """
    numbers = model.manifest.metrics.items()
    there = {key: float(value) for key, value in numbers if isinstance(value, int | float)}
    shown = [each for each in metrics if each.key in there]
    own = not shown
    if own:
        there = {key.removesuffix(IN_SAMPLE): value for key, value in there.items()}
        shown = [each for each in metrics if each.key in there]
    st.header("How good it is")
    if not shown:
        st.caption("Nothing was measured.")
        return
    if own:
        st.warning(
            "These figures are from the rows that the model was trained on. Expect worse on new"
            " rows.",
            title="Not measured on held-out rows",
        )
    else:
        st.caption(_how_measured(model.manifest, there))
    with st.grid(len(shown) + size, min_column_width=150):
        for each in shown:
            value = write_metric(each, there[each.key])
            st.metric(each.label, value, border=True, help=each.help)
        if size:
            st.metric("Size", size_text(model.size), border=True, help="All its files.")
    if not own and "r2_in_sample" in there:
        st.caption(f"R² on the rows it was trained on: {there['r2_in_sample']:.7f}")
    baselines = [
        f"{each.label} {write_metric(each, there[BASELINE + each.key])}"
        for each in shown
        if BASELINE + each.key in there
    ]
    if baselines:
        st.caption(f"A baseline that ignores the inputs: {', '.join(baselines)}.")


def _how_measured(manifest: Manifest, metrics: Mapping[str, float]) -> str:
    unit = f"{manifest.kind.takes}s"
    if isinstance(folds := manifest.training.get("folds"), int):
        return (
            f"On held-out {unit}: each is predicted by a fit that it was not part of ({folds}-fold"
            " cross-validation)."
        )
    count = f"{metrics['held_out']:,.0f} " if "held_out" in metrics else ""
    return f"On {count}held-out {unit}, which were not used for fitting."


def show_compared(model: Model, report: Mapping[str, Any]) -> None:
    """Show the models that were compared on the same data, with their errors.

    Args:
        model: the one that was published.
        report: its own.
    """
    if not (compared := report.get("compared")):
        return
    st.header("Models that were compared")
    table = pd.DataFrame(compared).rename(
        columns=lambda name: COMPARED.get(str(name), str(name).replace("_", " "))
    )
    shares = ("accuracy", "standard error") if "accuracy" in table else ()
    st.dataframe(
        table,
        hide_index=True,
        column_config=answers.significant(table)
        | dict.fromkeys(SCORES, SCORE)
        | dict.fromkeys(shares, PERCENT),
        placeholder="",
        alt="The models that were compared, with errors",
    )
    meaning = (
        "The shortfall is how far a model is behind the best. " if "shortfall" in table else ""
    )
    st.caption(
        f"All were measured on {_compared_on(model.manifest)}, which they were not trained on."
        f" {meaning}The simplest and fastest within one standard error of the best is published; a"
        " model that is no better than the baseline has learned nothing."
    )


def _compared_on(manifest: Manifest) -> str:
    """Return on which data models were compared."""
    if isinstance(folds := manifest.training.get("folds"), int):
        return f"the same {manifest.kind.takes}s, those of the {folds}-fold cross-validation"
    if "calibration" in manifest.training:
        return "the same texts, the calibration part rather than the held-out one"
    return "the same data"


def show_coverage(report: Mapping[str, Any]) -> None:
    """Show how many held-out rows lie in their intervals, by how large the prediction is."""
    if not (fifths := report.get("coverage_by_fifth")):
        return
    st.header("Where the intervals hold")
    table = pd.DataFrame(fifths)
    st.dataframe(
        table,
        hide_index=True,
        column_config=answers.significant(table) | {"coverage": PERCENT},
        alt="The share of rows in their interval, by fifths of the predictions",
    )
    st.caption("Held-out rows, from the lowest fifth of the predictions to the highest.")


def show_coefficients(report: Mapping[str, Any]) -> None:
    """Show the coefficients of a linear model."""
    if not (coefficients := report.get("coefficients")):
        return
    st.header("Coefficients")
    st.caption("In the inputs' own units, with their intervals.")
    st.dataframe(
        pd.DataFrame(coefficients),
        hide_index=True,
        column_config=dict.fromkeys(("estimate", "lower", "upper"), answers.SIGNIFICANT),
        alt="The model's coefficients",
    )


def _list_confused(labels: Sequence[str], counts: Sequence[Sequence[int]], unit: str) -> None:
    """List the labels that are confused most often; a matrix of so many cannot be read."""
    wrong = np.array(counts)
    np.fill_diagonal(wrong, 0)
    first = np.argsort(-wrong, axis=None, kind="stable")[:MOST_CONFUSED]
    pairs = [divmod(place, len(labels)) for place in first.tolist()]
    rows = [(labels[a], labels[b], int(wrong[a, b])) for a, b in pairs if wrong[a, b]]
    st.dataframe(
        pd.DataFrame(rows, columns=["true label", "predicted label", unit]),
        hide_index=True,
        alt="The labels that are confused most often",
    )
    st.caption(f"Of {len(labels)} labels, those that were confused most often.")


def show_mistakes(labels: Sequence[str], report: Mapping[str, Any], unit: str) -> None:
    """Show which labels are mixed up, and how far the probabilities can be trusted.

    Args:
        labels: what the model distinguishes.
        report: the model's.
        unit: what was labelled, in the plural.
    """
    left, right = st.columns(2)
    if confusion := report.get("confusion"):
        with left:
            st.header("Confusion matrix")
            if len(labels) <= MOST_DRAWN:
                st.altair_chart(
                    charts.confusion(list(labels), confusion, unit),
                    alt=f"Held-out {unit} by true and predicted label",
                )
            else:
                _list_confused(labels, confusion, unit)
    if per_class := report.get("per_class"):
        with left:
            st.dataframe(
                pd.DataFrame(per_class).rename(columns={"texts": unit}),
                hide_index=True,
                column_config=dict.fromkeys(("precision", "recall"), PERCENT),
                alt="Precision and recall of each label",
            )
            st.caption(
                f"Precision: of the {unit} given a label, the share that has it. Recall: of the"
                f" {unit} that have it, the share given it."
            )
    if reliability := report.get("reliability"):
        with right:
            st.header("How far its probabilities can be trusted")
            st.altair_chart(
                charts.reliability(reliability, unit),
                alt="How often predictions are right, by their probability",
            )
            st.caption("On the dashed line, a probability of 80% is right eight times in ten.")
