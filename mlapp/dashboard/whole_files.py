"""The part "Many rows" of a page: files in, predictions out, by `mlapp.scoring.background`.

The part "Compare" has it, too: there a second version scores the same files.

Streamlit holds an upload in memory as long as its widget does. So what comes is copied to the
disk at once and let go, under a widget key that changes with every upload.
"""

import io
import re
from collections.abc import Sequence
from typing import Any

import pandas as pd
import pyarrow as pa
import streamlit as st
from streamlit import runtime
from streamlit.runtime.scriptrunner import get_script_run_ctx

from mlapp.dashboard import charts, differing, shared
from mlapp.dashboard.markup import literal
from mlapp.errors import Fault, InvalidInput, InvalidTable, MlappError
from mlapp.families.contract import Model
from mlapp.schema import TEXT
from mlapp.scoring.background import Desk, Job, Result, Upload
from mlapp.scoring.batch import Options, make_plan
from mlapp.scoring.comparison import plan_comparison
from mlapp.tables.formats import COMPRESSED, DECIMALS, SUFFIXES

UPLOADS = [suffix.removeprefix(".") for suffix in (*SUFFIXES, *COMPRESSED)]
ENCODINGS = ("utf-8", "windows-1252", "utf-16-le", "utf-16-be", "mac-roman", "shift-jis", "gb18030")
SWEEP = 20  # seconds between two looks whether Streamlit still holds a download


def show(model: Model, against: Model | None = None) -> None:
    """Show the part for a model.

    Its widgets' keys begin with `many_`.

    Args:
        model: what scores the files.
        against: another version to compare it with on the files.
    """
    state, key = st.session_state, f"_many_{model.manifest.name}"
    if key not in state:
        state[key] = Desk()
    _show(model, state[key], against)


@st.fragment
def _show(model: Model, desk: Desk, against: Model | None) -> None:
    entry, seen = st.columns([2, 3], gap="large")
    with entry:
        key = f"many_files_{desk.round}"
        st.file_uploader(
            f"Files of {model.takes.kind}s",
            type=UPLOADS,
            accept_multiple_files=True,
            key=key,
            on_change=_take,
            args=[desk, key],
            help="CSV, TSV or JSON lines, also gzipped or zipped; Parquet; the first sheet of an"
            " .xlsx workbook.",
        )
        busy = desk.job is not None and desk.job.running
        with st.container(horizontal=True):
            st.download_button(
                "Template",
                lambda: template(model),
                file_name=f"{model.manifest.name}-template.csv",
                mime="text/csv",
                key="many_template",
                icon=":material/table:",
                on_click="ignore",
                help="A CSV file with the columns that the model reads, and a typical row.",
            )
            encoding, decimal, options = _show_options(busy)
    with seen:
        ready, plan_options = _show_files(model, desk, encoding, options, busy, against)
    if desk.uploads:
        with entry:
            count = len(ready)
            act = "Score" if against is None else "Compare on"
            st.button(
                f"{act} the file" if count < 2 else f"{act} {count} files",
                key="many_start",
                type="secondary" if desk.job else "primary",
                icon=":material/play_arrow:",
                disabled=busy or not ready,
                on_click=desk.start,
                args=[model, ready, plan_options, encoding, decimal, against],
            )
    if desk.job and desk.job.running:
        st.fragment(_show_progress, run_every=1.0)(desk.job)
    elif desk.job:
        _show_results(desk.job)


def template(model: Model) -> str:
    """Return a table with the model's columns and a typical row, as CSV."""
    return pd.DataFrame([model.takes.typical]).to_csv(index=False)


def guess_columns(wanted: Sequence[str], names: Sequence[str]) -> dict[str, str | None]:
    """Guess which column is which input, by names that are alike but for case and punctuation.

    Returns:
        The column's name by the input's, None where there is no such column or no single one.
    """
    alike: dict[str, list[str]] = {}
    for each in names:
        alike.setdefault(_plain(each), []).append(each)
    found: dict[str, str | None] = {}
    for name in wanted:
        others = alike.get(_plain(name), [])
        found[name] = name if name in others else others[0] if len(others) == 1 else None
    return found


def _plain(name: str) -> str:
    return re.sub(r"[\W_]+", "", name).casefold()


def _take(desk: Desk, key: str) -> None:
    """Copy what was uploaded to the disk, and let Streamlit's memory of it go."""
    state = st.session_state
    if not state[key]:
        # A rerun while another tab is open empties the box; the files stay until others come.
        return
    try:
        desk.take([Upload(each.name, each) for each in state[key]])
        state.pop("_many_error", None)
    except MlappError as error:
        state["_many_error"] = str(error)
    context: Any = get_script_run_ctx()
    for each in state[key]:
        context.uploaded_file_mgr.remove_file(context.session_id, each.file_id)
        each.close()
    if runtime.exists():
        server, session = runtime.get_instance(), context.session_id
        desk.clear_when(lambda: not server.is_active_session(session))
    for name in [*state]:
        if str(name).startswith(("many_column_", "many_text_column", "many_result")):
            del state[name]


def _show_options(busy: bool) -> tuple[str | None, str | None, Options]:
    with st.popover("Options", icon=":material/tune:", key="many_options"):
        explain = st.checkbox(
            "Add the reasons to each row",
            key="many_explain",
            disabled=busy,
            help="What each input, or the strongest words, add to the prediction. It takes longer.",
            persist_state="session",
        )
        prefix = st.text_input(
            "Added columns begin with",
            key="many_prefix",
            disabled=busy,
            placeholder="nothing",
            help="For files that have a column of such a name already, as of an earlier result.",
            persist_state="session",
        )
        encoding = st.selectbox(
            "Encoding of text files",
            ENCODINGS,
            index=None,
            key="many_encoding",
            disabled=busy,
            placeholder="UTF-8, or as the file says",
            help="For files that were saved by an older program.",
            persist_state="session",
        )
        decimal = st.selectbox(
            "Decimal mark of CSV",
            DECIMALS,
            index=None,
            format_func=lambda mark: "point" if mark == "." else "comma",
            key="many_decimal",
            disabled=busy,
            placeholder="as the file says",
            help="For files whose numbers can be read in two ways, as 1.234 and 1,234.",
            persist_state="session",
        )
    return encoding, decimal, Options(explain=explain, prefix=prefix.strip())


def _show_files(
    model: Model,
    desk: Desk,
    encoding: str | None,
    options: Options,
    busy: bool,
    against: Model | None,
) -> tuple[list[Upload], Options]:
    """Show the files and their columns; return those that can be scored, and how."""
    if error := st.session_state.get("_many_error"):
        st.error(literal(error), title="The upload could not be kept")
    if not desk.uploads:
        both = (
            ""
            if against is None
            else " Both versions score it, and the column `difference` says how far apart they are."
        )
        st.markdown(
            "Bring a file, or several. Every row is scored, all its columns are kept, and the"
            " prediction's columns follow. A row that cannot be scored says why in the column"
            f" `error`; the others are scored.{both}"
        )
        st.caption("The columns that the model reads, under these names or others:")
        st.dataframe(
            pd.read_csv(io.StringIO(template(model)), dtype=str),
            hide_index=True,
            alt="The columns that the model reads",
        )
        st.caption("What you bring stays on this server until you bring another file or leave.")
    ready: list[Upload] = []
    for upload in desk.uploads:
        try:
            with st.spinner(f"Reading {literal(upload.name)} ..."):
                schema, first = desk.look(upload, encoding)
        except MlappError as error:
            st.error(literal(str(error)), title=f"{literal(upload.name)} cannot be read")
            continue
        try:
            if not ready:
                _show_head(upload, schema, first)
                options = _map_columns(model, schema, options, busy)
            make_plan(model, schema, options)
            if against is not None:
                plan_comparison(model, against, schema, options)
            ready.append(upload)
        except InvalidInput as error:
            shared.show_invalid(error, f"{upload.name} lacks a column")
        except MlappError as error:
            st.error(literal(str(error)), title=f"{literal(upload.name)} cannot be scored")
    if len(ready) > 1:
        others = ", ".join(f"{literal(each.name)} ({size(each.size)})" for each in ready[1:])
        st.caption(f"Scored likewise, by the same columns: {others}")
    return ready, options


def _show_head(upload: Upload, schema: pa.Schema, first: pd.DataFrame) -> None:
    st.markdown(f"**{literal(upload.name)}** · {size(upload.size)} · {len(schema):,} columns")
    st.dataframe(first, hide_index=True, alt=f"The first rows of {upload.name}")


def _map_columns(model: Model, schema: pa.Schema, options: Options, busy: bool) -> Options:
    """Show which column is which input, and return the options with what was chosen.

    Raises:
        InvalidInput: an input has no column.
        InvalidTable: a column is to be two inputs.
    """
    names, state = list(schema.names), st.session_state
    if model.takes.kind == "text":
        guess = None
        try:
            guess = make_plan(model, schema, options).inputs[TEXT]
        except MlappError:
            guess = guess_columns([TEXT], names)[TEXT]
        chosen = _choose("Column of the texts", names, guess, "many_text_column", busy)
        if chosen is None:
            raise InvalidInput([Fault(TEXT, "no column", "one of the file's; choose it above")])
        return Options(chosen, {}, options.explain, options.prefix, options.raw)
    guessed = guess_columns(model.takes.names, names)
    whole = all(
        state.get(f"many_column_{name}", column) is not None for name, column in guessed.items()
    )
    title = "Columns: each input has its own" if whole else "Columns: choose those of the inputs"
    columns: dict[str, str] = {}
    faults, twice = [], []
    entry = st.expander(title, icon=":material/view_column:", expanded=not whole)
    with entry, st.grid(3, min_column_width=140):
        for spec in model.takes.inputs:
            key = f"many_column_{spec.name}"
            heading = f"Column for {literal(spec.name)}"
            chosen = _choose(heading, names, guessed[spec.name], key, busy)
            if chosen is None:
                faults.append(Fault(spec.name, "no column", spec.allowed))
            elif chosen in columns:
                twice.append(f"{chosen!r} for {columns[chosen]} and {spec.name}")
            else:
                columns[chosen] = spec.name
    if twice:
        raise InvalidTable(f"got {', '.join(twice)}, expected a column of its own for each input")
    if faults:
        raise InvalidInput(faults)
    renamed = {theirs: ours for theirs, ours in columns.items() if theirs != ours}
    return Options(None, renamed, options.explain, options.prefix, options.raw)


def _choose(label: str, names: list[str], guess: str | None, key: str, busy: bool) -> str | None:
    state = st.session_state
    if key not in state or state[key] not in [*names, None]:
        state[key] = guess
    return st.selectbox(
        label,
        names,
        index=None,
        key=key,
        disabled=busy,
        placeholder="Choose a column",
        persist_state="session",
    )


def _show_progress(job: Job) -> None:
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


def _show_results(job: Job) -> None:
    st.subheader("Result")
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
            alt="What became of each file",
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
            f"{result.counts.rows:,} rows were scored until then. Only whole results are kept:"
            " start again when you like.",
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
            "Noticed",
            f"{counts.noticed:,}",
            border=True,
            help="Scored, with a notice in the column `notice`: the row is unlike those of the"
            " training.",
        )
        st.metric(
            "Refused", f"{counts.refused:,}", border=True, help="The column `error` says why."
        )
        st.metric("Seconds", f"{result.seconds:,.1f}", border=True)
    with st.container(horizontal=True, vertical_alignment="center"):
        for form, mime in (("csv", "text/csv"), ("parquet", "application/vnd.apache.parquet")):
            label = "CSV" if form == "csv" else "Parquet"
            st.download_button(
                f"{label}, {size(result.bytes_of(form))}",
                lambda form=form: result.read(form),  # type: ignore[misc]
                file_name=result.name_as(form),
                mime=mime,
                key=f"many_{form}",
                type="primary" if form == "csv" else "secondary",
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
        st.subheader("Refused rows")
        if not counts.refused:
            st.caption("None: every row is scored.")
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
                " the result has all."
            )


def _show_bars(model: Model, result: Result) -> None:
    st.subheader("Predictions")
    if not result.counts.scored:
        st.caption("No row is scored.")
    elif result.histogram:
        bars, outside = result.histogram.bars()
        name = model.gives.name
        st.altair_chart(
            charts.histogram(name, bars), alt=f"How many rows have which predicted {name}"
        )
        if outside:
            lie = "row lies" if outside == 1 else "rows lie"
            st.caption(f"{outside:,} {lie} far outside of this picture.")
    elif result.shares:
        shares = result.shares.bars()
        st.altair_chart(charts.label_shares(shares), alt="The share of each label")
        unsure = shares.loc[shares["answer"] == "unsure", "share"].sum()
        st.caption(f"{unsure:.1%} are unsure: no label is much the likeliest.")


def _sweep() -> None:
    """Do nothing: the end of a run is when Streamlit lets go of what was downloaded."""


def size(count: int) -> str:
    """Write a number of bytes as people do.

    >>> size(1_234_567)
    '1.2 MB'
    """
    for unit, power in (("GB", 9), ("MB", 6), ("kB", 3)):
        if count >= 10**power:
            return f"{count / 10**power:.1f} {unit}"
    return f"{count} bytes"
