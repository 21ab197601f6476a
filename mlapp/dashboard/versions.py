"""The tab "Compare" of a page: two versions of a model, on one instance and on a file."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
import streamlit as st

from mlapp import loaders
from mlapp.dashboard import answers, shared, whole_files
from mlapp.dashboard.markup import literal
from mlapp.errors import ArtifactError, InvalidInput
from mlapp.families.contract import (
    Answers,
    Labels,
    Model,
    Numbers,
    Reasons,
    RowReasons,
    name_target,
)
from mlapp.scoring.distributions import without_noise

Instance = Mapping[str, Any] | str


def show(model: Model, instance: Instance | None) -> None:
    """Show the tab.

    Args:
        model: the version that the page shows.
        instance: the row or the text that was answered last; None if there is none.
    """
    other = _choose_other(model)
    if other is None:
        return
    kind = model.takes.kind
    st.header(f"One {kind}")
    if instance is None:
        st.caption(f"A typical {kind}; enter your own under Predict.")
        typical = model.takes.typical
        instance = typical if kind == "row" else str(next(iter(typical.values())))
    else:
        st.caption(f"The {kind} that you entered under Predict.")
    _show_instance(model, other, instance)
    st.header("A file")
    whole_files.show(model, other)


def _choose_other(model: Model) -> Model | None:
    """Return the other version; if there is none to compare with, say why and return None."""
    name, shown = model.manifest.name, model.manifest.version
    others = [each for each in reversed(loaders.model_versions(name)) if each != shown]
    if not others:
        st.info(
            f"Version {shown} is the only one of {name}. Train it again under the same name, and"
            " compare the two here.",
            title="There is only one version",
            icon=":material/difference:",
        )
        return None
    key = f"_against_{name}"
    if st.session_state.get(key) not in others:
        st.session_state[key] = others[0]
    version = st.selectbox(
        f"Compare version {shown} with",
        others,
        format_func=lambda each: f"Version {each}",
        key=key,
        width=320,
        persist_state="session",
    )
    try:
        other = loaders.load_model(name, version)
    except ArtifactError as error:
        shared.show_artifact_error(error, f"Version {version} of {name} cannot be opened")
        return None
    if other.manifest.kind != model.manifest.kind:
        st.error(
            f"Version {version} takes a {other.takes.kind} and gives {other.gives.kind}; their"
            " answers cannot be compared.",
            title="The two versions cannot be compared",
        )
        return None
    return other


def _show_instance(model: Model, other: Model, instance: Instance) -> None:
    summary = st.container()
    found = []
    for each, column in zip((model, other), st.columns(2, gap="large"), strict=True):
        with column, st.container(border=True):
            manifest = each.manifest
            st.markdown(f"**Version {manifest.version}**, {manifest.created:%d %B %Y, %H:%M} UTC")
            try:
                given, reasons = _answer(each, instance)
            except InvalidInput as error:
                shared.show_invalid(error, f"Version {manifest.version} cannot answer this")
                continue
            answers.show_answer(given, name_target(each))
            answers.show_notices(given)
            answers.show_reasons(each, reasons)
            found.append((each, given, reasons))
    if len(found) == 2:
        with summary:
            _show_difference(*found)


def _answer(model: Model, instance: Instance) -> tuple[Answers, Reasons]:
    """Return an answer and its reasons, which are kept for each version and instance.

    A comparison is no request: it is not recorded.

    Raises:
        InvalidInput: with every fault of the instance.
    """
    state, manifest = st.session_state, model.manifest
    asked, key = (manifest.name, instance), f"_compared_{manifest.version}"
    if key not in state or state[key][0] != asked:
        own = instance
        if not isinstance(instance, str):
            own = {name: instance[name] for name in model.takes.names if name in instance}
        batch = model.check([own])
        state[key] = (asked, model.answer(batch), model.reasons(batch))
    _, given, reasons = state[key]
    return given, reasons


Found = tuple[Model, Answers, Reasons]


def _show_difference(ours: Found, theirs: Found) -> None:
    (model, given, reasons), (other, before, reasons_before) = ours, theirs
    names = [f"version {each.manifest.version}" for each in (model, other)]
    if isinstance(given, Numbers) and isinstance(before, Numbers):
        values = (float(given.values[0, 0]), float(before.values[0, 0]))
        st.metric(
            f"{given.output.name}: {names[0]} minus {names[1]}",
            answers.write_difference(*values, given.output.decimals),
        )
    elif isinstance(given, Labels) and isinstance(before, Labels):
        _show_label_difference(given, before, names)
    if isinstance(reasons, RowReasons) and isinstance(reasons_before, RowReasons):
        _show_reasons_difference(reasons, reasons_before, names)


def _show_label_difference(given: Labels, before: Labels, names: list[str]) -> None:
    [label], [label_before] = given.labels, before.labels
    same = label == label_before
    text = f"Both say {label}." if same else f"{names[0]} says {label}, {names[1]} {label_before}."
    st.markdown(literal(text[0].upper() + text[1:]))
    table = pd.DataFrame(
        {
            name: dict(zip(each.output.labels, each.probabilities[0].tolist(), strict=True))
            for name, each in zip(names, (given, before), strict=True)
        }
    )
    percent = st.column_config.NumberColumn(format="percent")
    _show_table(table, "label", names, dict.fromkeys([*names, "difference"], percent))


def _show_reasons_difference(reasons: RowReasons, before: RowReasons, names: list[str]) -> None:
    labels = [each.labels[0] if each.labels else None for each in (reasons, before)]
    if labels[0] != labels[1]:
        st.caption("The reasons are for different labels, so their difference has no meaning.")
        return
    table = pd.DataFrame(
        {
            name: {"baseline": float(each.baseline[0])}
            | {key: float(effect[0]) for key, effect in each.effects.items()}
            for name, each in zip(names, (reasons, before), strict=True)
        }
    )
    number = st.column_config.NumberColumn(format="%.4g")
    with st.expander("What each input adds, in both versions", icon=":material/difference:"):
        _show_table(table, "input", names, dict.fromkeys([*names, "difference"], number))


def _show_table(
    table: pd.DataFrame, first: str, names: list[str], formats: Mapping[str, Any]
) -> None:
    """Show values of both versions and their difference, largest first."""
    ours, theirs = (table[name].fillna(0).to_numpy() for name in names)
    table["difference"] = without_noise(ours - theirs, ours, theirs)
    table = table.sort_values("difference", key=abs, ascending=False)
    st.dataframe(
        table.rename_axis(first).reset_index(),
        hide_index=True,
        column_config=formats,
        alt=f"Both versions, by {first}",
    )
