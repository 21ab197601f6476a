"""How two versions differ on a file, for the tab "Compare"."""

import pandas as pd
import streamlit as st

from mlapp.dashboard import answers
from mlapp.dashboard.markup import literal
from mlapp.dashboard.shared import to_csv
from mlapp.families.contract import Model, NumberOutput
from mlapp.scoring.background import Result


def show(model: Model, other: Model, result: Result) -> None:
    """Show how many rows differ, and those that differ most.

    Args:
        model: scored the file.
        other: the version that it was compared with.
        result: of scoring the file.
    """
    found, gives, version = result.differences, model.gives, other.manifest.version
    assert found is not None  # since there are two versions
    st.header(f"Version {model.manifest.version} and version {version}")
    with st.grid(4, min_column_width=150):
        st.metric("Compared", f"{found.compared:,}", border=True, help="Rows that both answered.")
        st.metric("Different", f"{found.differing:,}", border=True, help="The answers differ.")
        if isinstance(gives, NumberOutput):
            if other.gives.kind == "number" and other.gives.level is not None:
                st.metric(
                    "Outside the interval",
                    f"{found.changed:,}",
                    border=True,
                    help=f"The prediction is outside the interval of version {version}.",
                )
            mean = answers.write_difference(found.mean, 0.0, gives.decimals + 1).removeprefix("+")
            meaning = "The mean absolute difference of the predictions."
        else:
            st.metric("Other label", f"{found.changed:,}", border=True, help="The labels differ.")
            mean = f"{found.mean:.1%}"
            meaning = (
                "The mean total variation distance of the probabilities: half the sum of their"
                " absolute differences, from 0% to 100%."
            )
        st.metric("Mean difference", mean, border=True, help=meaning)
    if found.alone:
        st.caption(f"Only one of the two versions answered {found.alone:,} rows.")
    if not found.differing:
        st.caption("Both versions give the same answer to every row.")
        return
    _show_rows(found.table(), version, result)


def _show_rows(table: pd.DataFrame, version: int, result: Result) -> None:
    """Show the rows that differ most from those of another version."""
    st.markdown("**The rows that differ most**")
    st.dataframe(
        table,
        hide_index=True,
        column_config=answers.significant(table),
        placeholder="",
        alt="The rows whose answers differ most",
    )
    st.download_button(
        "Download these rows as CSV",
        lambda: to_csv(table),
        file_name=result.name_as("csv").replace("-scored", "-differences"),
        mime="text/csv",
        key="many_differences",
        icon=":material/download:",
        on_click="ignore",
    )
    shown = f"These are the {len(table):,} rows" if len(table) > 1 else "This is the row"
    st.caption(
        literal(
            f"{shown} that differ most. The result above has all rows; the columns of version"
            f" {version} follow the column difference."
        )
    )
