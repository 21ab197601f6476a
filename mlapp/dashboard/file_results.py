"""The progress and the results of a job on whole files, for `whole_files`."""

import pandas as pd
import streamlit as st

from mlapp.dashboard import charts, differing
from mlapp.dashboard.markup import literal
from mlapp.families.contract import Model
from mlapp.scoring.background import Job, Result

SWEEP = 20  # seconds between two runs of the script, at the end of which downloads are released


def show_progress(job: Job) -> None:
    """Show how far a running job is; meant for a fragment that runs again every second."""
    if not job.running:
        st.rerun()
    done, now = job.progress(), [each for each in job.results if each.state != "waiting"]
    with st.container(border=True):
        if job.stopping:
            text = "Stopping ..."
        elif not now:
            text = "Waiting for its turn: other files are being scored ..."
        elif now[-1].state == "finishing":
            text = f"{done.rows:,} rows scored; writing Parquet ..."
        else:
            text = f"{done.rows:,} rows · {done.rate:,.0f} rows/s"
            if done.left is not None:
                text += f" · {int(done.left) // 60}:{int(done.left) % 60:02} left"
        if now and len(job.results) > 1:
            text = f"File {len(now)} of {len(job.results)} · {text}"
        st.progress(done.share, text=text)
        st.button(
            "Stop",
            key="many_stop",
            icon=":material/stop:",
            disabled=job.stopping,
            on_click=job.stop,
        )


def show_results(job: Job) -> None:
    """Show the result of each file of a job that has ended, with downloads."""
    st.header("Result")
    result = job.results[0]
    if len(job.results) > 1:
        table = [
            {"file": each.name, "outcome": each.error or each.state}
            | each.counts._asdict()
            | {"seconds": each.seconds}
            for each in job.results
        ]
        st.dataframe(
            pd.DataFrame(table),
            hide_index=True,
            column_config={"seconds": st.column_config.NumberColumn(format="%.1f")},
            alt="The outcome of each file",
        )
        places = range(len(job.results))
        place = st.selectbox(
            "Show the result of",
            places,
            format_func=lambda place: job.results[place].name,
            key="many_result",
            width=320,
        )
        result = job.results[place]
    if result.state == "failed":
        st.error(literal(result.error), title=f"{literal(result.name)} was not scored")
    elif result.state == "stopped":
        st.info(
            f"{result.counts.rows:,} rows were scored until then. Only complete results are kept;"
            " you can start again.",
            title="Stopped",
            icon=":material/stop_circle:",
        )
    else:
        _show_result(job, result)


def _show_result(job: Job, result: Result) -> None:
    counts, manifest = result.counts, job.model.manifest
    with st.grid(5, min_column_width=130):
        st.metric("Rows", f"{counts.rows:,}", border=True)
        st.metric("Scored", f"{counts.scored:,}", border=True)
        st.metric(
            "With a notice",
            f"{counts.noticed:,}",
            border=True,
            help="Scored, but the row is outside the training range; the column `notice` says how.",
        )
        st.metric(
            "Refused", f"{counts.refused:,}", border=True, help="The column `error` says why."
        )
        st.metric("Seconds", f"{result.seconds:,.1f}", border=True)
    with st.container(horizontal=True, vertical_alignment="center"):
        for suffix, mime in (("csv", "text/csv"), ("parquet", "application/vnd.apache.parquet")):
            label = "CSV" if suffix == "csv" else "Parquet"
            st.download_button(
                f"{label}, {size(result.bytes_of(suffix))}",
                lambda suffix=suffix: result.read(suffix),  # type: ignore[misc]
                file_name=result.name_as(suffix),
                mime=mime,
                key=f"many_{suffix}",
                type="primary" if suffix == "csv" else "secondary",
                icon=":material/download:",
                on_click="ignore",
            )
        compared = ""
        if job.against is not None:
            compared = f" and compared with version {job.against.manifest.version}"
        st.caption(f"Scored by {manifest.name}, version {manifest.version}{compared}.")
    st.fragment(_sweep, run_every=SWEEP)()
    if job.against is not None and result.differences is not None:
        differing.show(job.model, job.against, result)
    left, right = st.columns(2, gap="large")
    with left:
        _show_bars(job.model, result)
    with right:
        st.header("Refused rows")
        if not counts.refused:
            st.caption("None. Every row was scored.")
            return
        st.dataframe(
            pd.DataFrame(result.refused, columns=["row", "why"]),
            hide_index=True,
            column_config={"row": st.column_config.NumberColumn(width="small", format="localized")},
            alt="The first refused rows and why",
        )
        if counts.refused > len(result.refused):
            st.caption(
                f"The first {len(result.refused):,} of {counts.refused:,}; the column `error` of"
                " the result lists all."
            )


def _show_bars(model: Model, result: Result) -> None:
    st.header("Predictions")
    if not result.counts.scored:
        st.caption("No row was scored.")
    elif result.histogram:
        bars, outside = result.histogram.bars()
        name = model.gives.name
        st.altair_chart(
            charts.histogram(name, bars), alt=f"The distribution of the predicted {name}"
        )
        if outside:
            are = "row is" if outside == 1 else "rows are"
            st.caption(f"{outside:,} {are} far outside the range of this chart.")
    elif result.shares:
        shares = result.shares.bars()
        st.altair_chart(charts.label_shares(shares), alt="The share of each label")
        unsure = shares.loc[shares["answer"] == "unsure", "share"].sum()
        st.caption(f"{unsure:.1%} are unsure: no label is clearly the most likely.")


def _sweep() -> None:
    """Do nothing: at the end of a run Streamlit releases what was downloaded."""


def size(count: int) -> str:
    """Return a number of bytes in a readable unit.

    >>> size(1_234_567)
    '1.2 MB'
    """
    for unit, power in (("GB", 9), ("MB", 6), ("kB", 3)):
        if count >= 10**power:
            return f"{count / 10**power:.1f} {unit}"
    return f"{count} bytes"
