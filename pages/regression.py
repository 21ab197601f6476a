"""Regression page: a row of values in; a prediction, its interval and its reasons out.

Keys and address parameters are the inputs' names; what begins with `_` or `many_` is the page's.
"""

import pandas as pd
import streamlit as st

from mlapp import answering, loaders
from mlapp.answering import Answered
from mlapp.dashboard import charts, shared
from mlapp.dashboard.markup import bullets, literal
from mlapp.errors import InvalidInput
from mlapp.manifest import Kind
from mlapp.schema import Category, Number

shared.begin(__file__)
state = st.session_state


def forget_inputs() -> None:
    """Let the widgets of another model begin with its own typical values."""
    for key in ("_row", *state.get("_inputs_shown", ())):
        state.pop(key, None)


def can_show(spec: Number | Category, value: object) -> bool:
    """Return whether an input's widget can hold a value: another version may have left it."""
    if isinstance(spec, Number):
        return value is None or isinstance(value, float | int)
    return value in spec.categories or (value is None and spec.missing)


def as_text(value: float | str | None) -> str:
    """Write a value for the page's address, so that it reads back as the same value."""
    if isinstance(value, float):
        return repr(value).removesuffix(".0")
    return value or ""


st.title("Regression", icon=":material/show_chart:")
link = shared.read_link()
name = shared.choose_model(
    Kind("row", "number"), "regression", "_model_regression", link, forget_inputs
)
model = shared.open_model(name, loaders.load_regression)
schema, manifest, output = model.schema, model.manifest, model.gives.name

row = state.get("_row")
fresh = False
if linked := {key: link[key] for key in schema.names if key in link}:
    try:
        seeded = schema.check([schema.typical | linked])
        row = linked if len(linked) == len(schema.names) else None
        fresh = row is not None
    except InvalidInput as error:
        shared.show_invalid(error, "The link has values that cannot be used")
        linked = {key: linked[key] for key in linked.keys() - {f.input for f in error.faults}}
        seeded, row = schema.check([schema.typical | linked]), None
    state.update({shared.input_key(key): seeded.row(0)[key] for key in linked})
state["_inputs_shown"] = [shared.input_key(key) for key in schema.names]

predict_tab, many_tab, about_tab = st.tabs(
    ["Predict", "Many rows", "About this model"], key=f"_tabs_{name}", on_change="rerun"
)

with predict_tab:
    entry, reasons = st.columns([2, 3], gap="large")
    with entry, st.form("_form"):
        with st.grid(2, min_column_width=150):
            for spec in schema.inputs:
                key = shared.input_key(spec.name)
                if key not in state or not can_show(spec, state[key]):
                    state[key] = spec.typical
                if isinstance(spec, Number):
                    st.number_input(
                        literal(spec.name),
                        value=None,
                        step=spec.step,
                        format="%g",
                        key=key,
                        help=f"In training: {spec.minimum:.12g} to {spec.maximum:.12g}"
                        + (", or nothing" if spec.missing else ""),
                        persist_state="session",
                    )
                else:
                    st.selectbox(
                        literal(spec.name),
                        [*spec.categories, *([None] if spec.missing else [])],
                        format_func=lambda value: "not known" if value is None else value,
                        key=key,
                        help=f"{len(spec.categories)} categories were seen in training",
                        persist_state="session",
                    )
        if st.form_submit_button("Predict", key="predict", type="primary"):
            row, fresh = {key: state[shared.input_key(key)] for key in schema.names}, True

    checked = None
    if row is not None:
        try:
            checked = model.check([row])
        except InvalidInput as error:
            with entry:
                shared.show_invalid(error)
            row = None
    state["_row"] = row

    if checked is not None:
        values, asked = checked.row(0), (name, manifest.version, checked.matrix.tobytes())
        if fresh or state.get("_answered", (None,))[0] != asked:
            state["_answered"] = (asked, answering.answer(model, checked, "page"))
        answered: Answered = state["_answered"][1]
        [answer] = answered.answers.records()
        lower, prediction, upper = (
            model.gives.format(answer[key]) for key in ("lower", "prediction", "upper")
        )
        if fresh:
            shared.write_link(
                {key: as_text(value) for key, value in values.items()} | {"_model": name}
            )
            shared.remember(model, answered, values)
        with entry:
            with st.container(border=True):
                st.metric(f"Predicted {literal(output)}", prediction)
                st.markdown(f"{model.gives.level:.0%} interval: **{lower}** to **{upper}**")
                st.caption(
                    f"{model.gives.level:.0%} of new rows are expected to lie in their interval."
                    " The address of this page holds the values: share it to share the prediction."
                )
            if notices := answered.answers.notices:
                st.warning(
                    bullets(notice.message for notice in notices),
                    title="Unlike the training data",
                )
        with reasons:
            st.subheader("Why this prediction")
            explained = model.reasons(checked)
            mean = float(explained.baseline[0])
            added = pd.Series({key: float(part[0]) for key, part in explained.effects.items()})
            title = f"{output}, from the mean to the prediction"
            st.altair_chart(
                charts.contributions(mean, added, output, title, model.gives.decimals + 1),
                alt=f"What each input adds to the mean {output}",
            )
            st.caption(
                f"From the mean, {model.gives.format(mean)}, to {prediction}: what each value"
                " adds, exactly."
            )

            @st.fragment
            def show_what_if() -> None:
                """Let one input move, without running the rest of the page again."""
                moving = st.selectbox("Input to move", schema.names, key=f"_what_if_{name}")
                moved = model.what_if(values, moving)
                st.altair_chart(
                    charts.what_if(
                        schema[moving], output, moved, values[moving], answer["prediction"]
                    ),
                    alt=f"Predicted {output} as {moving} moves",
                )
                st.caption("The other inputs are held. The band is the interval.")

            st.subheader("What if")
            show_what_if()
    else:
        with reasons:
            st.caption("Enter a row and press Predict: the answer and its reasons appear here.")

    shown = st.column_config.NumberColumn(format=f"%.{model.gives.decimals}f")
    shared.show_history(name, dict.fromkeys(("prediction", "lower", "upper"), shown))

if many_tab.open:
    from mlapp.dashboard import whole_files  # nothing of it is loaded before

    with many_tab:
        whole_files.show(model)

if about_tab.open:
    with about_tab:
        metrics = {key: float(str(value)) for key, value in manifest.metrics.items()}
        st.subheader("How good it is")
        st.caption(
            f"On held-out rows: each row is predicted by a fit that did not see it"
            f" ({manifest.training['folds']}-fold cross-validation)."
        )
        with st.grid(4, min_column_width=170):
            st.metric(
                "R²",
                f"{metrics['r2']:.3f}",
                border=True,
                help="Share of the variance explained; 1 is perfect, 0 is no better than the mean.",
            )
            st.metric(
                "RMSE",
                model.gives.format(metrics["rmse"]),
                border=True,
                help="Root mean squared error, in the output's unit.",
            )
            st.metric(
                "MAE",
                model.gives.format(metrics["mae"]),
                border=True,
                help="Mean absolute error, in the output's unit.",
            )
            st.metric(
                "Interval coverage",
                f"{metrics['coverage']:.1%}",
                border=True,
                help=f"Share of held-out rows inside their {model.gives.level:.0%} interval.",
            )
        st.caption(f"R² on the rows it was trained on: {metrics['r2_in_sample']:.7f}")
        left, right = st.columns(2)
        with left:
            st.subheader("Predicted and actual")
            st.altair_chart(
                charts.predicted_against_actual(output, model.report["held_out"]),
                alt="Held-out rows, predicted against actual",
            )
        with right:
            st.subheader("Residuals")
            st.altair_chart(
                charts.residuals(model.report["held_out"]),
                alt="How far held-out rows lie from their predictions",
            )
        st.subheader("Coefficients")
        st.caption(f"In the inputs' own units, with {model.gives.level:.0%} intervals.")
        st.dataframe(
            pd.DataFrame(model.report["coefficients"]),
            hide_index=True,
            column_config=dict.fromkeys(
                ("estimate", "lower", "upper"), st.column_config.NumberColumn(format="%.6g")
            ),
            alt="The model's coefficients",
        )
        shared.show_origin(manifest, f"{manifest.describe_use()}, {manifest.data.columns} columns")
        ranges = [
            {"input": spec.name, "typical": str(spec.typical)}
            | (
                {"seen in training": f"{spec.minimum:.12g} to {spec.maximum:.12g}"}
                if isinstance(spec, Number)
                else {"seen in training": ", ".join(spec.categories)}
            )
            for spec in schema.inputs
        ]
        st.dataframe(pd.DataFrame(ranges), hide_index=True, alt="The inputs and their ranges")
