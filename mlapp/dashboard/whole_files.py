"""The tab for many rows or texts: files in, predictions out, by `mlapp.scoring.background`.

The tab "Compare" shows it too: there a second version scores the same files.

Streamlit keeps an upload in memory as long as its widget exists. So an upload is copied to the
disk at once and removed from Streamlit, and each upload gets a widget with another key.
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

from mlapp.dashboard import file_results, shared
from mlapp.dashboard.file_results import size
from mlapp.dashboard.markup import literal
from mlapp.errors import Fault, InvalidInput, InvalidTable, MlappError
from mlapp.families.contract import Model
from mlapp.schema import TEXT, Number
from mlapp.scoring.background import Upload
from mlapp.scoring.batch import Options, make_plan, trained_column
from mlapp.scoring.comparison import plan_comparison
from mlapp.scoring.workspace import Workspace
from mlapp.tables.formats import COMPRESSED, DECIMALS, SUFFIXES

UPLOADS = [suffix.removeprefix(".") for suffix in (*SUFFIXES, *COMPRESSED)]
ANY_COLUMN = "one of the file's; choose it above"
ENCODINGS = ("utf-8", "windows-1252", "utf-16-le", "utf-16-be", "mac-roman", "shift-jis", "gb18030")


def show(model: Model, against: Model | None = None) -> None:
    """Show the files of a model, and their results.

    The keys of the widgets begin with `many_`. Those of the columns name the model, the upload and
    the encoding, since what is chosen for one file means nothing for another.

    Args:
        model: scores the files.
        against: another version to compare it with on the files.
    """
    state, key = st.session_state, f"_many_{model.manifest.name}"
    if key not in state:
        state[key] = Workspace()
    _show(model, state[key], against)


@st.fragment
def _show(model: Model, workspace: Workspace, against: Model | None) -> None:
    entry, preview = st.columns([2, 3], gap="large")
    with entry:
        key = f"many_files_{workspace.round}"
        st.file_uploader(
            f"Files of {model.takes.kind}s",
            type=UPLOADS,
            accept_multiple_files=True,
            key=key,
            on_change=_take,
            args=[model.manifest.name, workspace, key],
            help="CSV, TSV or JSON lines, also gzipped or zipped; Parquet; the first sheet of an"
            " .xlsx workbook.",
        )
        busy = workspace.job is not None and workspace.job.running
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
    with preview:
        ready, plan_options = _show_files(model, workspace, encoding, options, busy, against)
    if workspace.uploads:
        with entry:
            count = len(ready)
            verb = "Score" if against is None else "Compare on"
            st.button(
                f"{verb} the file" if count < 2 else f"{verb} {count} files",
                key="many_start",
                type="secondary" if workspace.job else "primary",
                icon=":material/play_arrow:",
                disabled=busy or not ready,
                on_click=workspace.start,
                args=[model, ready, plan_options, encoding, decimal, against],
            )
    if workspace.job and workspace.job.running:
        st.fragment(file_results.show_progress, run_every=1.0)(workspace.job)
    elif workspace.job:
        file_results.show_results(workspace.job)


def template(model: Model) -> str:
    """Return a table with the model's columns and a typical row, as CSV."""
    row = {
        spec.name: spec.as_text(spec.typical).replace(".", spec.trained_mark or ".")
        if isinstance(spec, Number)
        else spec.typical
        for spec in model.takes.inputs
    }
    return pd.DataFrame([row]).to_csv(index=False)


def guess_columns(wanted: Sequence[str], names: Sequence[str]) -> dict[str, str | None]:
    """Guess which column is which input, by names that are equal but for case and punctuation.

    Returns:
        The column's name by the input's; None if no column, or more than one, has such a name.
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


def _take(name: str, workspace: Workspace, key: str) -> None:
    """Copy the uploads for a model to the disk, and remove them from Streamlit's memory."""
    state = st.session_state
    if not state[key]:
        # A rerun while another tab is open empties the widget; the files stay until others come.
        return
    try:
        workspace.replace_files([Upload(each.name, each) for each in state[key]])
        state.pop("_many_error", None)
    except MlappError as error:
        state["_many_error"] = str(error)
    context: Any = get_script_run_ctx()
    for each in state[key]:
        context.uploaded_file_mgr.remove_file(context.session_id, each.file_id)
        each.close()
    if runtime.exists():
        server, session = runtime.get_instance(), context.session_id
        workspace.clear_when(lambda: not server.is_active_session(session))
    for each in [*state]:
        if str(each).startswith((f"many_column_{name}/", "many_result")):
            del state[each]


def _show_options(busy: bool) -> tuple[str | None, str | None, Options]:
    with st.popover("Options", icon=":material/tune:", key="many_options"):
        explain = st.checkbox(
            "Add the reasons to each row",
            key="many_explain",
            disabled=busy,
            help="The contribution of each input, or of the strongest words. It takes longer.",
            persist_state="session",
        )
        prefix = st.text_input(
            "Prefix of added columns",
            key="many_prefix",
            disabled=busy,
            placeholder="nothing",
            help="For files that already have columns with these names, such as earlier results.",
            persist_state="session",
        )
        encoding = st.selectbox(
            "Encoding of text files",
            ENCODINGS,
            index=None,
            key="many_encoding",
            disabled=busy,
            placeholder="UTF-8, or detected",
            help="For files saved by older programs.",
            persist_state="session",
        )
        decimal = st.selectbox(
            "Decimal mark of CSV",
            DECIMALS,
            index=None,
            format_func=lambda mark: "point" if mark == "." else "comma",
            key="many_decimal",
            disabled=busy,
            placeholder="detected",
            help="For files with ambiguous numbers, such as 1.234 or 1,234.",
            persist_state="session",
        )
    return encoding, decimal, Options(explain=explain, prefix=prefix.strip())


def _show_files(
    model: Model,
    workspace: Workspace,
    encoding: str | None,
    options: Options,
    busy: bool,
    against: Model | None,
) -> tuple[list[Upload], Options]:
    """Show the files and their columns; return those that can be scored, and how."""
    if error := st.session_state.get("_many_error"):
        st.error(literal(error), title="The upload could not be saved")
    if not workspace.uploads:
        both = (
            ""
            if against is None
            else " Both versions score it; the column `difference` says how far they are apart."
        )
        st.markdown(
            "Upload one or more files. Every row is scored; all columns are kept, followed by"
            " the prediction columns. If a row cannot be scored, its column `error` says why, and"
            f" the others are scored.{both}"
        )
        st.caption("The columns that the model reads, under these names or others:")
        st.dataframe(
            pd.read_csv(io.StringIO(template(model)), dtype=str),
            hide_index=True,
            alt="The columns that the model reads",
        )
        st.caption("Uploads stay on this server until you upload other files or leave.")
    ready: list[Upload] = []
    for upload in workspace.uploads:
        try:
            with st.spinner(f"Reading {literal(upload.name)} ..."):
                schema, first = workspace.preview(upload, encoding)
        except MlappError as error:
            st.error(literal(str(error)), title=f"{literal(upload.name)} cannot be read")
            continue
        try:
            if not ready:
                _show_head(upload, schema, first)
                asked = f"{model.manifest.name}/{workspace.round}/{encoding or 'detected'}"
                options = _map_columns(model, schema, options, f"many_column_{asked}", busy)
            make_plan(model, schema, options)
            if against is not None:
                plan_comparison(model, against, schema, options)
            ready.append(upload)
        except InvalidInput as error:
            if len(error.faults) > 1:
                st.error(
                    literal(_sum_up(error, not ready)),
                    title=f"{literal(upload.name)} lacks columns",
                )
            else:
                shared.show_invalid(error, f"{upload.name} lacks a column")
        except MlappError as error:
            st.error(literal(str(error)), title=f"{literal(upload.name)} cannot be scored")
    if len(ready) > 1:
        others = ", ".join(f"{literal(each.name)} ({size(each.size)})" for each in ready[1:])
        st.caption(f"Scored with the same columns: {others}")
    return ready, options


def _sum_up(error: InvalidInput, choosable: bool) -> str:
    """Return a sentence about inputs without a column, which can be chosen for the first file."""
    names = [fault.input for fault in error.faults]
    said = f"There is no column for {len(names)} inputs: {', '.join(names)}."
    return f"{said} Choose them above." if choosable else said


def _show_head(upload: Upload, schema: pa.Schema, first: pd.DataFrame) -> None:
    st.markdown(f"**{literal(upload.name)}** · {size(upload.size)} · {len(schema):,} columns")
    said = f"The first rows of {upload.name}"
    st.dataframe(first, hide_index=True, placeholder="", alt=said)


def _map_columns(
    model: Model, schema: pa.Schema, options: Options, key: str, busy: bool
) -> Options:
    """Let the user choose which column is which input; return the options with the choice.

    Args:
        model: what its inputs are.
        schema: what the file's columns are.
        options: the other options.
        key: what the widgets' keys begin with.
        busy: whether the widgets are disabled.

    Raises:
        InvalidInput: an input has no column.
        InvalidTable: a column is chosen for two inputs.
    """
    names, state = list(schema.names), st.session_state
    if model.takes.kind == "text":
        guess = None
        try:
            guess = make_plan(model, schema, options).inputs[TEXT]
        except MlappError:
            own = trained_column(model) or TEXT
            guess = guess_columns([own], names)[own] or guess_columns([TEXT], names)[TEXT]
        chosen = _choose("Column of the texts", names, guess, f"{key}/{TEXT}", busy)
        if chosen is None:
            raise InvalidInput([Fault(TEXT, "no column", ANY_COLUMN)])
        return Options(chosen, {}, options.explain, options.prefix, options.raw)
    guessed = guess_columns(model.takes.names, names)
    whole = all(state.get(f"{key}/{name}", column) is not None for name, column in guessed.items())
    title = "Columns: each input has its own" if whole else "Columns: choose those of the inputs"
    columns: dict[str, str] = {}
    faults, twice = [], []
    entry = st.expander(title, icon=":material/view_column:", expanded=not whole)
    with entry, st.grid(3, min_column_width=140):
        for spec in model.takes.inputs:
            heading = f"Column for {literal(spec.name)}"
            chosen = _choose(heading, names, guessed[spec.name], f"{key}/{spec.name}", busy)
            if chosen is None:
                faults.append(Fault(spec.name, "no column", ANY_COLUMN))
            elif chosen in columns:
                twice.append(f"{chosen!r} for {columns[chosen]} and {spec.name}")
            else:
                columns[chosen] = spec.name
    if twice:
        raise InvalidTable(f"got {', '.join(twice)}, expected a different column for each input")
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
