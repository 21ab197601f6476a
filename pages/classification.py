"""Classification page: a row of values in; the probabilities of labels and their reasons out.

Keys and address parameters are the names of inputs; the page reserves those that begin with `_` or
`many_`.
"""

import streamlit as st

from mlapp import loaders
from mlapp.dashboard import quality, rows, shared
from mlapp.families.contract import LabelOutput
from mlapp.manifest import Kind

shared.begin(__file__)

st.title("Classification", icon=":material/category:")
link = shared.read_link()
model = shared.choose(
    Kind("row", "labels"),
    "classification",
    "_model_classification",
    link,
    loaders.load_classification,
)
name, gives = model.manifest.name, model.gives
assert isinstance(gives, LabelOutput)  # as the loader's kind says
predict_tab, many_tab, compare_tab, about_tab = shared.show_tabs(model)

with predict_tab:
    rows.show_predict(model, link, "Why this label")
    percent = st.column_config.NumberColumn(format="percent")
    shared.show_history(name, dict.fromkeys(("probability", *gives.columns.values()), percent))

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
        quality.show_metrics(model, quality.of_labels())
        quality.show_compared(model, report)
        quality.show_mistakes(gives.labels, report, "rows")
        shared.show_origin(model.manifest)
        rows.show_inputs(rows.schema_of(model))
