"""The parts of the page Versions: metrics side by side, candidates, the history, the model card."""

from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from mlapp import loaders
from mlapp.dashboard import answers, monitor, quality
from mlapp.dashboard.markup import literal
from mlapp.errors import ArtifactError, GateRefused, MlappError
from mlapp.manifest import Kind, Manifest
from mlapp.model_card import write_card
from mlapp.records import drift, queries, reference
from mlapp.records.database import Database
from mlapp.scoring import candidates
from mlapp.settings import read_settings
from mlapp.store import artifacts, promotion
from mlapp.store.gate import Verdict

# The page of each kind of model, which compares its versions.
PAGES = {
    Kind("row", "number"): "pages/regression.py",
    Kind("row", "labels"): "pages/classification.py",
    Kind("text", "labels"): "pages/sentiment.py",
}


def show_versions(name: str) -> None:
    """Show every version of a model with its metrics, and offer the model cards."""
    root = read_settings().artifacts
    served = _show_served(name)
    refused = [each for each in _servable(name) if each > served]
    waiting, metrics = artifacts.candidates(root, name), _metrics(name)
    rows, manifests = [], dict[int, Manifest]()
    for version in reversed(artifacts.versions(root, name)):
        try:
            manifest = artifacts.read_manifest(root / name / str(version))
        except ArtifactError as error:
            rows.append({"version": version, "state": f"damaged: {error.message}"})
            continue
        manifests[version] = manifest
        state = "served" if version == served else "candidate" if version in waiting else "older"
        state = "cannot be opened" if version in refused else state
        rows.append(
            {"version": version, "state": state, "created": manifest.created}
            | {"trained on": manifest.describe_use()}
            | {key: value for key, value in manifest.metrics.items() if key in metrics}
        )
    table = pd.DataFrame(rows)
    config: dict[str, Any] = {
        "version": "Version",
        "state": "State",
        "created": _clock("Created"),
        "trained on": "Trained on",
    } | {
        metric.key: st.column_config.NumberColumn(
            metric.label,
            format="percent"
            if metric.write(0).endswith("%")
            else answers.significant_format(table[metric.key]),
            help=metric.help,
        )
        for metric in metrics.values()
        if metric.key in table
    }
    st.dataframe(
        table, hide_index=True, column_config=config, alt="All versions with their metrics"
    )
    first = served if served in manifests else next(iter(manifests), 0)
    with st.container(horizontal=True):
        for version, manifest in manifests.items():
            if version == first or version in waiting:
                _offer_card(manifest)


def _clock(label: str) -> Any:
    """Return the configuration of a column of times."""
    return st.column_config.DatetimeColumn(label, format="YYYY-MM-DD HH:mm")


def _show_served(name: str) -> int:
    """Return the version that is served, or 0; say why none is, or why a newer one is not."""
    try:
        served = loaders.load_model(name).manifest.version
    except ArtifactError as error:
        st.warning(literal(str(error)), title="Nothing is served")
        return 0
    if refusal := loaders.refused(name):
        st.warning(literal(str(refusal)), title=f"Version {served} stays in use")
    return served


def _servable(name: str) -> list[int]:
    """Return the versions that may be served, best first; none where the pinned one is missing."""
    try:
        return artifacts.servable(read_settings().artifacts, name)
    except ArtifactError:
        return []


def _offer_card(manifest: Manifest) -> None:
    st.download_button(
        f"Model card of version {manifest.version}",
        lambda: write_card(manifest, _describe_drift(manifest)),
        file_name=f"{manifest.name}-{manifest.version}.html",
        mime="text/html",
        key=f"_model_card_{manifest.version}",
        icon=":material/description:",
        on_click="ignore",
    )


def _metrics(name: str) -> dict[str, quality.Metric]:
    """Return the metrics of a model by their keys; none while it cannot be opened."""
    try:
        return {each.key: each for each in quality.metrics_of(loaders.load_model(name).gives)}
    except ArtifactError:
        return {}


def _describe_drift(manifest: Manifest) -> dict[str, str]:
    """Return a text about the drift of each series over the last week, without unknown ones."""
    settings = read_settings()
    try:
        model = loaders.load_model(manifest.name, manifest.version)
        known = reference.read(settings.artifacts, manifest.name, manifest.version)
        found = drift.measure(model, known, Database(settings))
    except MlappError:
        return {}
    return {
        f"{each.series.name} ({each.series.kind})": f"{each.state}, population stability index"
        f" {each.psi:.3f} on {each.rows:,} values"
        for each in found
        if each.psi is not None
    }


def show_shadows(name: str) -> None:
    """Show how often the answers of a shadow candidate differ from those that were served."""
    settings = read_settings()
    try:
        since = queries.now() - settings.log_days * queries.DAY
        monitor.show_shadows(Database(settings), name, since)
    except MlappError as error:
        st.error(literal(str(error)), title="The records cannot be read")


def show_candidate(name: str, version: int) -> None:
    """Show how a candidate compares with the served version."""
    st.header(f"Candidate {version}")
    root = read_settings().artifacts
    if not artifacts.is_served(root, name):
        st.caption("No version is served, so there is none to compare it with.")
        return
    try:
        served = loaders.load_model(name).manifest.version
        verdicts, differing = _compare(root, name, served, version)
    except MlappError as error:
        st.error(literal(str(error)), title="It cannot be compared")
        return
    for verdict in verdicts:
        show = st.error if verdict.worse else st.success if verdict.better else st.info
        outcome = verdict.outcome[0].upper() + verdict.outcome[1:]
        show(literal(outcome), title=verdict.source.capitalize())
    if differing is not None:
        with st.expander("Where the answers differ", icon=":material/difference:"):
            st.caption(
                f"The last {candidates.REPLAYED:,} recorded rows, largest differences first."
            )
            st.dataframe(
                differing,
                hide_index=True,
                column_config=answers.significant(differing),
                alt="The rows whose answers differ most",
            )
    _link_comparison(name, served, version)


def _link_comparison(name: str, served: int, version: int) -> None:
    """Link to the page that shows the reasons of a candidate beside those of the served version."""
    kinds = {loaders.load_model(name, each).manifest.kind for each in (served, version)}
    page = PAGES.get(kinds.pop())
    if kinds or page is None:
        return  # they cannot be compared
    st.session_state[f"_against_{name}"] = served  # what the tab compares with
    st.page_link(
        page,
        label=f"Compare the reasons of versions {version} and {served}",
        icon=":material/compare_arrows:",
        help=f"Opens version {version}; the tab Compare sets version {served} beside it.",
        query_params={"_model": name, "_version": str(version)},
    )


@st.cache_data(ttl=60, max_entries=20, show_spinner="Comparing the candidate")
def _compare(
    root: Path, name: str, served: int, version: int
) -> tuple[list[Verdict], pd.DataFrame | None]:
    """Return the verdicts on a candidate, and the rows that it answers most differently, if any."""
    database = Database(read_settings())
    verdicts = candidates.judge(root, database, name, version)
    models = [loaders.load_model(name, each) for each in (served, version)]
    found = candidates.replay(database, *models)
    return verdicts, found.table() if found and found.largest else None


def show_controls(name: str) -> None:
    """Offer to promote a candidate and to roll back, if `MLAPP_ADMIN` allows it."""
    settings = read_settings()
    waiting = artifacts.candidates(settings.artifacts, name)
    for version in reversed(waiting):
        show_candidate(name, version)
    if not settings.admin:
        st.caption(
            "Set `MLAPP_ADMIN=on` to promote and roll back on this page. The commands `mlapp"
            " promote` and `mlapp rollback` always work."
        )
        return
    state = st.session_state
    if state.get("_reason_for") != name:  # what was typed for another model is not for this one
        _clear(name)
    if done := state.pop("_promoted", None):
        st.success(literal(done))
    reason = st.text_input("Reason", key="_why", placeholder="For the history")
    force = bool(waiting) and st.checkbox("Promote it even if it is worse", key="_force")
    with st.container(horizontal=True):
        for version in reversed(waiting):
            st.button(
                f"Promote version {version}",
                key=f"_promote_{version}",
                type="primary",
                on_click=_promote,
                args=[name, version, reason, force],
            )
        hindrance = _find_hindrance(name)
        st.button(
            "Roll back",
            key="_rollback",
            on_click=_roll_back,
            args=[name, reason],
            icon=":material/undo:",
            disabled=hindrance is not None,
            help=hindrance,
        )
    if refusal := st.session_state.pop("_promotion_error", None):
        st.error(literal(refusal), title="Nothing was changed")


def _find_hindrance(name: str) -> str | None:
    """Return why a model cannot be rolled back, None if there is a version to try."""
    root = read_settings().artifacts
    try:
        if (held := artifacts.pinned(root, name)) is not None:
            return f"Version {held} is pinned."
        served = loaders.load_model(name).manifest.version
    except ArtifactError:
        return "Nothing is served."
    if not any(each < served for each in _servable(name)):
        return f"There is no version before {served} to serve."
    return None


def _promote(name: str, version: int, reason: str, force: bool) -> None:
    settings = read_settings()
    root, database = settings.artifacts, Database(settings)
    try:
        candidates.promote(root, database, name, version, reason, force=force, by="dashboard")
        _finish(name, f"Version {version} of {name} is served now.")
    except GateRefused as error:
        hint = "To promote it anyway, tick the box and give a reason."
        st.session_state["_promotion_error"] = f"{error}. {hint}"
    except MlappError as error:
        st.session_state["_promotion_error"] = str(error)


def _finish(name: str, done: str) -> None:
    """Say what was done, and clear what it was done for."""
    _clear(name)
    st.session_state["_promoted"] = done


def _clear(name: str) -> None:
    st.session_state.update({"_why": "", "_force": False, "_reason_for": name})


def _roll_back(name: str, reason: str) -> None:
    try:
        change = promotion.roll_back(read_settings().artifacts, name, reason, by="dashboard")
        _finish(name, f"Version {change.version} of {name} is served again.")
    except MlappError as error:
        st.session_state["_promotion_error"] = str(error)


def show_history(name: str) -> None:
    """Show who promoted or rolled back what, when and why."""
    changes = promotion.history(read_settings().artifacts, name)
    st.header("History")
    if not changes:
        st.caption("Nothing has been promoted or rolled back yet.")
        return
    st.dataframe(
        pd.DataFrame([change.model_dump() for change in reversed(changes)]),
        hide_index=True,
        column_config={field: field.capitalize() for field in promotion.Change.model_fields}
        | {"time": _clock("Time")},
        alt="Promotions and rollbacks, the newest first",
    )
