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
from mlapp.dashboard.markup import bullets, literal
from mlapp.errors import InvalidInput
from mlapp.families.contract import Model, Numbers, Reasons, RowInput
from mlapp.families.varying import what_if
from mlapp.schema import Category, Input, Number, Schema, describe

Row = Mapping[str, float | str | None]

# Two inputs side by side are narrower than 180 px, from which on Streamlit's hint covers a number.
ENTRY_WIDTH = 400
NOT_KNOWN = ""  # a missing category in its widget, for which None means that nothing is chosen


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
    with st.container(horizontal=True, gap="large"):
        entry = st.container(width=ENTRY_WIDTH)
        reasons = st.container()
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
            st.header(title)
            try:
                answers.show_reasons(model, _explain(model, asked.answered))
            except InvalidInput as error:
                shared.show_invalid(error, "This answer has no reasons")
            st.header("What if")
            show_what_if(model, asked)
    else:
        with reasons:
            st.caption("Enter a row and press Predict: the answer and its reasons appear here.")


def _explain(model: Model, answered: Answered) -> Reasons:
    """Return the reasons of an answer, which are kept beside it."""
    state, key = st.session_state, f"_explained_{model.manifest.name}"
    if key not in state or state[key][0] != answered.id:
        with st.spinner("Finding the reasons ..."):
            state[key] = (answered.id, model.reasons(answered.batch))
    reasons: Reasons = state[key][1]
    return reasons


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
        _fill(schema, row or {})
    state["_inputs_of"] = name
    state["_inputs_shown"] = [shared.input_key(each) for each in schema.names]
    if row is None or not row.keys() >= set(schema.names):
        return None
    return {each: row[each] for each in schema.names}


def _follow_link(model: Model, linked: dict[str, str]) -> dict[str, Any] | None:
    """Fill in the values of a link; return the row if it is complete and valid."""
    schema, row = schema_of(model), None
    try:
        schema.check([schema.typical | linked])
        row = dict(linked) if len(linked) == len(schema.names) else None
    except InvalidInput as error:
        shared.show_invalid(error, "The link has values that cannot be used")
        refused = {fault.input for fault in error.faults}
        linked = {name: value for name, value in linked.items() if name not in refused}
    _fill(schema, linked)
    return row


def _fill(schema: Schema, given: Mapping[str, Any]) -> None:
    """Put values into the widgets of their inputs, as numbers and categories."""
    for spec in schema.inputs:
        if spec.name in given:
            value = given[spec.name]
            parsed = spec.parse(value)
            # A category that training did not see counts as another, which the widget has.
            plain = value if parsed is None else spec.plain(parsed)
            st.session_state[shared.input_key(spec.name)] = plain


def _show_form(model: Model) -> dict[str, Any] | None:
    """Show the form; return its values if it was submitted."""
    schema, said = schema_of(model), st.container()
    replaced = _replace_unknown(model)
    with st.form("_form"):
        with st.grid(2, min_column_width=110):
            for spec in schema.inputs:
                _show_input(spec)
        sent = st.form_submit_button("Predict", key="predict", type="primary")
    if sent:
        replaced.clear()
        return {spec.name: _entered(spec) for spec in schema.inputs}
    if replaced:
        title = f"Version {model.manifest.version} cannot take these values"
        said.warning(bullets(replaced.values()), title=title)
    return None


def _replace_unknown(model: Model) -> dict[str, str]:
    """Give widgets typical values where there are none, or those of a version that knew others.

    Returns:
        What was replaced, in words by input, since the last answer; it is kept until the next one.
    """
    state, manifest = st.session_state, model.manifest
    shown = (manifest.name, manifest.version)
    kept: dict[Any, dict[str, str]] = state.setdefault("_replaced", {})
    replaced = kept.setdefault(shown, {})
    for spec in schema_of(model).inputs:
        key = shared.input_key(spec.name)
        if isinstance(spec, Category) and key in state and state[key] is None:
            state[key] = NOT_KNOWN
        if key not in state:
            state[key] = spec.typical
        elif not _can_show(spec, state[key]):
            was = "not known" if state[key] == NOT_KNOWN else describe(state[key])
            replaced[spec.name] = f"{spec.name}: was {was}, now {describe(spec.typical)}"
            state[key] = spec.typical
    return replaced


def _entered(spec: Input) -> Any:
    """Return what was entered for an input."""
    value = st.session_state[shared.input_key(spec.name)]
    return None if isinstance(spec, Category) and value == NOT_KNOWN else value


def _show_input(spec: Input) -> None:
    key = shared.input_key(spec.name)
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
        missing = "(not known)" if "not known" in spec.categories else "not known"
        st.selectbox(
            literal(spec.name),
            [*spec.categories, *([NOT_KNOWN] if spec.missing else [])],
            format_func=lambda value: missing if value == NOT_KNOWN else value,
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
    return value in spec.categories or (value == NOT_KNOWN and spec.missing)


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
        schema = schema_of(model)
        shared.write_link(model, {name: _as_text(schema[name], values[name]) for name in values})
        shared.remember(model, answered, values)
    return Asked(values, state[key][1])


def _as_text(spec: Input, value: float | str | None) -> str:
    """Return a value as text for the page's address, which parses to the same value."""
    if isinstance(spec, Number) and isinstance(value, float):
        return spec.as_text(value)
    return str(value or "")


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


def typical_text(spec: Input) -> str:
    """Return an input's typical value as text."""
    return spec.as_text(spec.typical) if isinstance(spec, Number) else spec.typical


def show_inputs(schema: Schema) -> None:
    """Show the inputs with their typical values and their ranges in training."""
    st.header("The inputs")
    ranges = [
        {"input": spec.name, "typical": typical_text(spec), "seen in training": spec.seen}
        for spec in schema.inputs
    ]
    st.dataframe(pd.DataFrame(ranges), hide_index=True, alt="The inputs and their ranges")
