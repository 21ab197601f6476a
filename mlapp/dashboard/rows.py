"""Parts of the pages of row models: the form, the answer, its reasons, the what-if curve.

The key of an input's widget is the input's name, and so is its address parameter.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd
import streamlit as st

from mlapp import answering
from mlapp.answering import Answered
from mlapp.dashboard import answers, charts, feedback, label_charts, shared
from mlapp.dashboard.markup import literal
from mlapp.errors import InvalidInput
from mlapp.families.contract import Model, Numbers, RowInput
from mlapp.families.varying import what_if
from mlapp.schema import Category, Input, Number, Schema

Row = Mapping[str, float | str | None]


@dataclass(frozen=True)
class Asked:
    """A row that was entered or linked, and its answer.

    Attributes:
        row: the parsed values, by input name.
        answered: the checked row and the answer.
    """

    row: Row
    answered: Answered


def show_predict(model: Model, link: Mapping[str, str], title: str) -> None:
    """Show the form, and next to it the answer, its reasons and the what-if curve.

    Args:
        model: a model that takes a row.
        link: the parameters of a link that was opened.
        title: of the reasons.
    """
    entry, reasons = st.columns([2, 3], gap="large")
    with entry:
        asked = ask(model, link)
    if asked:
        with entry:
            with st.container(border=True):
                answers.show_answer(asked.answered.answers)
                answers.show_meaning(asked.answered.answers)
            answers.show_notices(asked.answered.answers)
            feedback.show(model, asked.answered)
        with reasons:
            st.subheader(title)
            answers.show_reasons(model, model.reasons(asked.answered.batch))
            st.subheader("What if")
            show_what_if(model, asked)
    else:
        with reasons:
            st.caption("Enter a row and press Predict: the answer and its reasons appear here.")


def schema_of(model: Model) -> Schema:
    """Return the schema of a model that takes a row."""
    assert isinstance(model.takes, RowInput)  # as the loader's kind says
    return model.takes.schema


def last_row(model: Model) -> Row | None:
    """Return the row that a model of this name answered last in this session, if any."""
    found: Row | None = st.session_state.get("_rows", {}).get(model.manifest.name)
    return found


def ask(model: Model, link: Mapping[str, str]) -> Asked | None:
    """Show the form; return the row to show with its answer, None if there is none yet.

    A new answer is added to the history, and its row is put into the page's address.

    Args:
        model: a model that takes a row.
        link: the parameters of a link that was opened.
    """
    row = _restore_row(model)
    fresh = False
    if linked := {name: link[name] for name in schema_of(model).names if name in link}:
        row = _follow_link(model, linked)
        fresh = row is not None
    if (entered := _show_form(model)) is not None:
        row, fresh = entered, True
    asked = None
    if row is not None:
        try:
            asked = _answer(model, row, fresh)
        except InvalidInput as error:
            shared.show_invalid(error)
    st.session_state["_rows"][model.manifest.name] = None if asked is None else row
    return asked


def _restore_row(model: Model) -> dict[str, Any] | None:
    """Fill the widgets with a model's last row; return it if it still has the model's inputs."""
    state, schema, name = st.session_state, schema_of(model), model.manifest.name
    row = state.setdefault("_rows", {}).get(name)
    if state.get("_inputs_of") != name:
        for key in state.get("_inputs_shown", ()):
            state.pop(key, None)
        state.update({shared.input_key(key): value for key, value in (row or {}).items()})
    state["_inputs_of"] = name
    state["_inputs_shown"] = [shared.input_key(each) for each in schema.names]
    if row is None or not row.keys() >= set(schema.names):
        return None
    return {each: row[each] for each in schema.names}


def _follow_link(model: Model, linked: dict[str, str]) -> dict[str, Any] | None:
    """Fill in the values of a link; return the row if it is complete and valid."""
    schema, row = schema_of(model), None
    try:
        seeded = schema.check([schema.typical | linked])
        row = dict(linked) if len(linked) == len(schema.names) else None
    except InvalidInput as error:
        shared.show_invalid(error, "The link has values that cannot be used")
        refused = {fault.input for fault in error.faults}
        linked = {name: value for name, value in linked.items() if name not in refused}
        seeded = schema.check([schema.typical | linked])
    # A category that training did not see counts as another, which the widget has.
    values = zip(schema.inputs, seeded.matrix[0].tolist(), strict=True)
    st.session_state.update(
        {
            shared.input_key(spec.name): spec.plain(value)
            for spec, value in values
            if spec.name in linked
        }
    )
    return row


def _show_form(model: Model) -> dict[str, Any] | None:
    """Show the form; return its values if it was submitted."""
    schema = schema_of(model)
    with st.form("_form"):
        with st.grid(2, min_column_width=150):
            for spec in schema.inputs:
                _show_input(spec)
        sent = st.form_submit_button("Predict", key="predict", type="primary")
    if not sent:
        return None
    return {name: st.session_state[shared.input_key(name)] for name in schema.names}


def _show_input(spec: Input) -> None:
    state, key = st.session_state, shared.input_key(spec.name)
    if key not in state or not _can_show(spec, state[key]):
        state[key] = spec.typical
    if isinstance(spec, Number):
        st.number_input(
            literal(spec.name),
            value=None,
            step=spec.step,
            format="%g",
            key=key,
            help=f"In training: {spec.seen}" + (", or no value" if spec.missing else ""),
            persist_state="session",
        )
    elif isinstance(spec, Category):
        st.selectbox(
            literal(spec.name),
            [*spec.categories, *([None] if spec.missing else [])],
            format_func=lambda value: "not known" if value is None else value,
            key=key,
            help=f"Training saw {len(spec.categories)} categories",
            persist_state="session",
        )
    else:
        st.text_input(
            literal(spec.name),
            key=key,
            help=f"{spec.allowed}; in training: {spec.seen}",
            persist_state="session",
        )


def _can_show(spec: Input, value: object) -> bool:
    """Return whether an input's widget can hold a value, which may come from another version."""
    if isinstance(spec, Number):
        return value is None or isinstance(value, float | int)
    if not isinstance(spec, Category):
        return isinstance(value, str) or (value is None and spec.missing)
    return value in spec.categories or (value is None and spec.missing)


def _answer(model: Model, row: Mapping[str, Any], fresh: bool) -> Asked:
    """Answer a row, or return the kept answer if it is not asked again.

    Raises:
        InvalidInput: with every fault of the row.
    """
    state, manifest = st.session_state, model.manifest
    batch = model.check([row])
    values = batch.row(0)
    asked, key = (manifest.version, values), f"_answered_{manifest.name}"
    if fresh or key not in state or state[key][0] != asked:
        answered = answering.answer(model, batch, "page")
        state[key] = (asked, answered)
        shared.write_link(model, {name: _as_text(value) for name, value in values.items()})
        shared.remember(model, answered, values)
    return Asked(values, state[key][1])


def _as_text(value: float | str | None) -> str:
    """Return a value as text for the page's address, which parses to the same value."""
    if isinstance(value, float):
        return repr(value).removesuffix(".0")
    return value or ""


def show_what_if(model: Model, asked: Asked) -> None:
    """Show how the answer changes with one input, which the user chooses."""
    st.fragment(_show_what_if)(model, asked)


def _show_what_if(model: Model, asked: Asked) -> None:
    """Vary one input, without running the rest of the page again."""
    schema, gives = schema_of(model), model.gives
    moving = st.selectbox("Input to vary", schema.names, key=f"_what_if_{model.manifest.name}")
    moved, current = what_if(model, asked.row, moving), asked.row[moving]
    given = asked.answered.answers
    if isinstance(given, Numbers):
        prediction = float(given.values[0, 0])
        chart = charts.what_if(schema[moving], gives.name, moved, current, prediction)
        alt = f"Predicted {gives.name} as {moving} varies"
        category = isinstance(schema[moving], Category)
        band = " The lines are the intervals." if category else " The band is the interval."
    else:
        chart = label_charts.what_if(
            schema[moving], moved, given.output.columns, given.probabilities[0], current
        )
        alt, band = f"Probability of each {gives.name} as {moving} varies", ""
    st.altair_chart(chart, alt=alt)
    has_band = isinstance(given, Numbers) and given.output.level is not None
    st.caption("The other inputs stay as they are." + (band if has_band else ""))


def show_inputs(schema: Schema) -> None:
    """Show the inputs with their typical values and their ranges in training."""
    st.subheader("The inputs")
    ranges = [
        {"input": spec.name, "typical": str(spec.typical), "seen in training": spec.seen}
        for spec in schema.inputs
    ]
    st.dataframe(pd.DataFrame(ranges), hide_index=True, alt="The inputs and their ranges")
