"""Regression page: a row of values in; a prediction, its interval and its reasons out.

Keys and address parameters are the names of inputs; the page reserves those that begin with `_` or
`many_`.
"""

import streamlit as st

from mlapp import loaders
from mlapp.dashboard import charts, quality, rows, shared
from mlapp.manifest import Kind

shared.begin(__file__)

st.title("Regression", icon=":material/show_chart:")
link = shared.read_link()
model = shared.choose(
    Kind("row", "number"), "regression", "_model_regression", link, loaders.load_regression
)
name, gives = model.manifest.name, model.gives
predict_tab, many_tab, compare_tab, about_tab = shared.show_tabs(model)

with predict_tab:
    rows.show_predict(model, link, "Why this prediction")
    shown = st.column_config.NumberColumn(format=f"%.{gives.decimals}f")
    shared.show_history(name, dict.fromkeys(("prediction", "lower", "upper"), shown))

if many_tab.open:
    from mlapp.dashboard import whole_files  # not needed before

    with many_tab:
        whole_files.show(model)

if compare_tab.open:
    from mlapp.dashboard import versions

    with compare_tab:
        versions.show(model, rows.last_row(model))

if about_tab.open:
    with about_tab:
        report = shared.read_report(model)
        quality.show_metrics(model, quality.of_numbers(gives))
        quality.show_compared(model, report)
        if held_out := report.get("held_out"):
            left, right = st.columns(2)
            with left:
                st.header("Predicted and actual")
                st.altair_chart(
                    charts.predicted_against_actual(gives.name, held_out),
                    alt="Held-out rows, predicted against actual",
                )
            with right:
                st.header("Residuals")
                st.altair_chart(
                    charts.residuals(held_out),
                    alt="Histogram of the residuals of held-out rows",
                )
        quality.show_coverage(report)
        quality.show_coefficients(report)
        shared.show_origin(model.manifest)
        rows.show_inputs(rows.schema_of(model))
