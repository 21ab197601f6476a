"""Parts of all pages: links, the choice of a model and a version, faults, the history.

Session keys and address parameters that begin with `_` are the pages' own; all others are inputs.
"""

import runpy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import pandas as pd
import pyarrow as pa
import streamlit as st

from mlapp import loaders
from mlapp.answering import Answered
from mlapp.dashboard.markup import bullets, literal
from mlapp.errors import ArtifactError, InvalidInput
from mlapp.families.contract import Model
from mlapp.manifest import Kind, Manifest, command_of
from mlapp.schema import name_columns, quote
from mlapp.tables.writing import guard

M = TypeVar("M", bound=Model)

SERVED = "served"  # the choice of whichever version is served
RENAMED = "_input_"  # begins keys and address parameters of inputs whose names are reserved
EMBEDDING = ("embed", "embed_options")  # Streamlit's own address parameters
KEPT = 1000  # predictions in the history of a session


def begin(page: str) -> None:
    """Run Home.py instead if it has not run before this page.

    Streamlit runs a page alone, without its navigation, when a process's first visitor opens the
    page by its address.

    Args:
        page: the page's `__file__`.
    """
    if "_home" not in st.session_state:
        runpy.run_path(str(Path(page).parents[1] / "Home.py"))
        st.stop()


def read_link() -> dict[str, str]:
    """Return the address's parameters if a link was opened or the browser went back, else nothing.

    An address that `write_link` wrote is not a link.

    Returns:
        Values by the input's name, and the page's own parameters.
    """
    address = st.query_params.to_dict()
    arrived = address != st.session_state.get("_address")
    st.session_state["_address"] = address
    return {key.removeprefix(RENAMED): each for key, each in address.items()} if arrived else {}


def write_link(model: Model, values: Mapping[str, str]) -> None:
    """Put values into the page's address, with the model and its version."""
    manifest = model.manifest
    address = {_parameter(name): value for name, value in values.items()}
    address |= {"_model": manifest.name, "_version": str(manifest.version)}
    st.query_params.from_dict(address)
    st.session_state["_address"] = address


def _parameter(name: str) -> str:
    """Return the address parameter of an input: its name, unless Streamlit reserves that."""
    return f"{RENAMED}{name}" if name.lower() in EMBEDDING else name


def choose(
    kind: Kind,
    default: str,
    key: str,
    link: Mapping[str, str],
    load: Callable[[str, int | None], M],
) -> M:
    """Return the chosen version of the chosen model; stop the page if there is no model.

    Args:
        kind: of the models to choose from; a widget appears when there are several.
        default: the name of the first choice, if it is published.
        key: the key of the widget with the models.
        link: its `_model` and `_version` are chosen.
        load: the loader of the kind.
    """
    with st.container(horizontal=True):
        name = _choose_model(kind, default, key, link)
        version = _choose_version(name, link)
    return _open_model(name, load, version)


def _choose_model(kind: Kind, default: str, key: str, link: Mapping[str, str]) -> str:
    names, state = loaders.model_names(*kind), st.session_state
    if not names:
        st.info(
            f"Train a model: `python -m training.{default} --help` says how. It appears here"
            " without a restart.",
            title="No model is published",
            icon=":material/inventory_2:",
        )
        st.stop()
    usual = default if default in names else names[0]
    asked = str(link.get("_model", state.get(key, usual)))
    if asked not in names:
        if asked == link.get("_model"):
            st.error(
                literal(f"The link asks for {asked!r}. Published: {quote(names)}."),
                title="This model is not available",
            )
            _offer_usual(usual, key)
            st.stop()
        asked = names[0]
    state[key] = asked
    if names == [default]:  # which the page's title names
        return asked
    return str(st.selectbox("Model", names, key=key, persist_state="session", width=320))


def _offer_usual(name: str, key: str) -> None:
    def follow() -> None:
        st.query_params.clear()
        st.session_state.pop(key, None)

    st.button(literal(f"Open {name}"), key="_use_usual", type="primary", on_click=follow)


def _choose_version(name: str, link: Mapping[str, str]) -> int | None:
    """Return the chosen version, None for whichever version is served."""
    state, versions = st.session_state, loaders.model_versions(name)
    # Each model has its own choice, but the widget's key is the same for all.
    chosen: dict[str, int | str] = state.setdefault("_versions", {})
    if link:
        chosen[name] = link.get("_version", SERVED)
    elif state.get("_version_of") == name and "_version" in state:
        chosen[name] = state["_version"]
    asked = str(chosen.get(name, SERVED))
    if asked != SERVED and asked not in map(str, versions):
        there = ", ".join(map(str, versions))
        st.error(
            literal(f"Version {asked!r} of {name} is not published. Published: {there}."),
            title="This version is not available",
        )
        _offer_served(name)
        st.stop()
    state["_version_of"] = name
    state["_version"] = asked if asked == SERVED else int(asked)
    options: list[int | str] = [SERVED, *reversed(versions)]
    found = st.selectbox(
        "Version",
        options,
        format_func=lambda each: "Served" if each == SERVED else f"Version {each}",
        key="_version",
        help="Served: the pinned version, or else the newest that is not a candidate. The page"
        " follows it.",
        persist_state="session",
        width=160,
    )
    chosen[name] = found
    return None if found == SERVED else int(found)


def _offer_served(name: str) -> None:
    def follow() -> None:
        st.session_state["_versions"][name] = SERVED
        st.session_state.pop("_version", None)
        # This changes the address, so its values are read again.
        st.query_params.pop("_version", None)

    st.button("Use the served version", key="_use_served", type="primary", on_click=follow)


def _open_model(name: str, load: Callable[[str, int | None], M], version: int | None) -> M:
    """Return a model, and show a note if it is not the version that should be served."""
    try:
        model = load(name, version)
    except ArtifactError as error:
        which = f"The model {name}" if version is None else f"Version {version} of {name}"
        show_artifact_error(error, f"{which} cannot be opened")
        if version is not None:
            _offer_served(name)
        st.stop()
    shown = model.manifest.version
    if version is not None and (served := _served_version(name)) not in (None, shown):
        st.caption(f"You are looking at version {shown}. Version {served} is served.")
    elif refusal := loaders.refused(name):
        st.warning(literal(str(refusal)), title=f"Version {shown} stays in use")
    return model


def _served_version(name: str) -> int | None:
    try:
        return loaders.load_model(name).manifest.version
    except ArtifactError:
        return None


def read_report(model: Model) -> Mapping[str, Any]:
    """Return what training measured, for charts; empty if the family keeps no report."""
    report: Mapping[str, Any] = getattr(model, "report", {})
    return report


def show_tabs(model: Model) -> Sequence[Any]:
    """Show the tabs of a page; each runs only while it is open.

    Returns:
        The tabs for one prediction, for many, for two versions, and about the model.
    """
    labels = ["Predict", f"Many {model.takes.kind}s", "Compare", "About this model"]
    return st.tabs(labels, key=f"_tabs_{model.manifest.name}", on_change="rerun")


def show_origin(manifest: Manifest) -> None:
    """Show what a model was trained on, when, and with which libraries."""
    size = manifest.describe_use()
    if manifest.kind.takes == "row":
        size += f", {manifest.data.columns} columns"
    st.header("What it was trained on")
    st.markdown(
        f"**{literal(manifest.data.source)}**: {size}. Trained on"
        f" {manifest.created:%d %B %Y, %H:%M} UTC; this is version {manifest.version}."
    )
    made_with = ", ".join(f"{library} {found}" for library, found in manifest.libraries.items())
    st.caption(literal(f"SHA-256 of the data {manifest.data.sha256}. Made with {made_with}."))
    if command := command_of(manifest):
        st.code(command, language="bash", wrap_lines=True)


def show_artifact_error(error: ArtifactError, title: str) -> None:
    """Show why a version cannot be opened, and the command that fixes it."""
    st.error(literal(error.message), title=title, icon=":material/broken_image:")
    if error.fix:
        st.caption("To fix it:")
        st.code(error.fix, language="bash", wrap_lines=True)


def show_invalid(
    error: InvalidInput,
    title: str = "Please enter valid values",
    labels: Mapping[str, str] | None = None,
) -> None:
    """List what is wrong with the values.

    Args:
        error: what is wrong.
        title: of the list.
        labels: what an input is called on the page, where that is not its name.
    """
    called = labels or {}
    named = (replace(each, input=called.get(each.input, each.input)) for each in error.faults)
    st.error(bullets(fault.message for fault in named), title=literal(title))


class Prediction(NamedTuple):
    """A prediction of the session: its time, its version, and its values and answer by column."""

    time: datetime
    model: str
    version: int
    id: str
    entry: Mapping[Any, Any]


def input_key(name: str) -> str:
    """Return the session key of an input's widget: its name, unless the page reserves that."""
    return f"{RENAMED}{name}" if name.startswith("many_") else name


def remember(model: Model, answered: Answered, values: Mapping[str, Any]) -> None:
    """Add the one answer of a batch to the session's history.

    Args:
        model: the model that answered.
        answered: the answer.
        values: the input values, by column.
    """
    manifest, [answer] = model.manifest, answered.answers.records()
    # An input or a label may have the name of a column of the answer.
    columns = name_columns(list(values), answer, "input_")
    entry = {columns[name]: value for name, value in values.items()} | answer
    prediction = Prediction(datetime.now(UTC), manifest.name, manifest.version, answered.id, entry)
    past = st.session_state.get("_history", [])
    st.session_state["_history"] = [*past, prediction][-KEPT:]


def show_history(name: str, formats: Mapping[str, Any]) -> None:
    """Show a model's predictions in this session, newest first, with a download as CSV.

    Args:
        name: the model's name.
        formats: column configurations of `st.dataframe`, by column.
    """
    past = [each for each in st.session_state.get("_history", []) if each.model == name][::-1]
    if not past:
        return
    st.header("This session's predictions")
    table = pd.DataFrame([each.entry for each in past])
    in_full = st.column_config.NumberColumn(format="%g")  # by default 4 decimals are left
    numbers = dict.fromkeys(table.select_dtypes("number").columns, in_full)
    stamps = name_columns(("time", "model", "version", "id"), table.columns)
    for key, column in stamps.items():
        table[column] = [getattr(each, key) for each in past]
    first = list(stamps.values())[:3]
    table = table[first + [column for column in table if column not in first]]
    label = f"{stamps['time']} (UTC)"
    clock = st.column_config.DatetimeColumn(label, format="HH:mm:ss", timezone="UTC")
    st.dataframe(
        table.drop(columns=[stamps["model"], stamps["id"]]),
        hide_index=True,
        column_config={stamps["time"]: clock, **numbers, **formats},
        placeholder="",
        alt="The predictions of this session, the newest first",
    )
    st.download_button(
        "Download as CSV",
        lambda: to_csv(table),
        file_name=f"{name}-predictions.csv",
        mime="text/csv",
        key="_download",
        icon=":material/download:",
        on_click="ignore",
    )


def to_csv(table: pd.DataFrame) -> str:
    """Return a table as CSV; texts that a spreadsheet would run as formulas are guarded."""
    guarded = {}
    for name, column in table.items():
        values = column.tolist()
        texts = pa.array([each if isinstance(each, str) else None for each in values], pa.string())
        safe = guard(texts).to_pylist()
        pairs = zip(values, safe, strict=True)
        guarded[name] = [each if text is None else text for each, text in pairs]
    return pd.DataFrame(guarded, table.index).to_csv(index=False)
