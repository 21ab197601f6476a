"""Feedback on an answer: what it should have been. Keys begin with `_feedback`."""

from typing import Any

import streamlit as st

from mlapp.answering import Answered
from mlapp.dashboard.markup import literal
from mlapp.errors import InvalidInput, MlappError
from mlapp.families.contract import Model
from mlapp.records import feedback
from mlapp.records import writer as records
from mlapp.records.feedback import LONGEST_NOTE, Given
from mlapp.settings import read_settings


def show(model: Model, answered: Answered) -> None:
    """Let the user say what the answer to one instance should have been.

    Nothing is shown if answers are not recorded.
    """
    if records.writer():
        st.fragment(_show)(model, answered)


def _show(model: Model, answered: Answered) -> None:
    """Ask, without running the rest of the page again."""
    name, gives = answered.id, model.gives
    with (
        st.expander("Was this right?", icon=":material/rate_review:"),
        st.form(f"_feedback_{name}", border=False),
    ):
        truth: Any
        if gives.kind == "number":
            truth = st.number_input(
                f"Correct {literal(gives.name)}",
                value=None,
                step=10.0**-gives.decimals,
                format="%g",
                key=f"_feedback_truth_{name}",
            )
        else:
            truth = st.selectbox(
                "Correct label",
                gives.labels,
                index=None,
                placeholder="Choose one",
                key=f"_feedback_truth_{name}",
            )
        note = st.text_input(
            "Note", max_chars=LONGEST_NOTE, key=f"_feedback_note_{name}", placeholder="Optional"
        )
        if st.form_submit_button("Send", key=f"_feedback_send_{name}"):
            if truth is None:
                st.warning("Please enter the correct value.")
            else:
                _give(Given(name, truth, note or None))


def _give(given: Given) -> None:
    """Record the feedback, and show that it is recorded."""
    log = records.writer()
    if log is None:
        return
    try:
        root = read_settings().artifacts
        [new] = feedback.give(log.database, root, [given], "page", is_behind=log.is_behind)
    except InvalidInput as error:
        st.error(literal("; ".join(fault.message for fault in error.faults)))
    except MlappError as error:
        st.error(literal(str(error)), title="This was not recorded")
    else:
        st.success(
            "Thank you, your feedback is recorded."
            if new
            else "Thank you, this feedback was already recorded."
        )
