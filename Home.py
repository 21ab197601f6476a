"""The dashboard's entry script: navigation, and the home page.

streamlit run Home.py
"""

from pathlib import Path

import streamlit as st

import mlapp
from mlapp import loaders
from mlapp.dashboard import shared
from mlapp.dashboard.markup import literal
from mlapp.errors import ArtifactError, InvalidSettings
from mlapp.families.contract import name_target
from mlapp.manifest import Kind
from mlapp.settings import read_settings
from mlapp.store import artifacts

ICON = Path(mlapp.__file__).with_name("icon.png")
REGRESSION = st.Page(
    "pages/regression.py",
    title="Regression",
    icon=":material/show_chart:",
    help="Enter a row of values; get a prediction with its interval, its reasons and a what-if.",
)
CLASSIFICATION = st.Page(
    "pages/classification.py",
    title="Classification",
    icon=":material/category:",
    help="Enter a row of values; get its most likely label, the reasons and a what-if.",
)
SENTIMENT = st.Page(
    "pages/sentiment.py",
    title="Sentiment",
    icon=":material/reviews:",
    help="Enter a text; get its label, its probability, and the words that decided.",
)
MONITOR = st.Page("pages/monitor.py", title="Monitor", icon=":material/monitor_heart:")
VERSIONS = st.Page("pages/versions.py", title="Versions", icon=":material/history:")
PAGES = {
    Kind("row", "number"): REGRESSION,
    Kind("row", "labels"): CLASSIFICATION,
    Kind("text", "labels"): SENTIMENT,
}


def home() -> None:
    """Show every served model: its quality and its page, or why it cannot be opened."""
    st.title("Models", icon=":material/deployed_code:")
    st.caption("Every served model, its quality on data that it was not trained on, and its page.")
    names, waiting = loaders.model_names(), loaders.waiting_names()
    if waiting:
        st.info(
            f"All versions of {literal(', '.join(waiting))} are candidates; see the page Versions.",
            title="Not served yet",
            icon=":material/hourglass_empty:",
        )
    elif not names:
        st.info(
            f"There are no models in `{read_settings().artifacts}` yet. Train one with"
            " `python -m training.regression`; it appears here without a restart.",
            title="No model is published",
            icon=":material/inventory_2:",
        )
    with st.grid(2, min_column_width=320):
        for name in names:
            with st.container(border=True, height="stretch", key=f"_card_{name}"):
                show_card(name)


def show_card(name: str) -> None:
    """Show one model."""
    try:
        model = loaders.load_model(name)
    except ArtifactError as error:
        st.header(name)
        shared.show_artifact_error(error, "This model cannot be opened")
        return
    manifest = model.manifest
    metric = model.headline
    with st.container(horizontal=True, vertical_alignment="center"):
        st.header(name)
        st.badge(f"version {manifest.version}")
        if artifacts.pinned(read_settings().artifacts, name) is not None:
            st.badge("pinned", icon=":material/keep:", color="orange")
    st.metric(metric.name[0].upper() + metric.name[1:], metric.value, help=metric.meaning)
    st.markdown(
        f"Predicts **{literal(name_target(model))}**. Trained on {manifest.describe_use('**')},"
        f" {manifest.created:%d %B %Y, %H:%M} UTC."
    )
    refusal = loaders.refused(name)
    if refusal:
        shared.show_artifact_error(
            refusal, f"Version {manifest.version} stays in use: a newer one cannot be opened"
        )
    st.space("stretch")
    if page := PAGES.get(manifest.kind):
        st.page_link(page, label=f"Use {name}", query_params={"_model": name})


st.session_state["_home"] = True
# Before the navigation, and a file of our own: the icon of a page would be fetched from a CDN.
st.set_page_config(page_title="mlapp", page_icon=str(ICON), layout="wide")
page = st.navigation(
    [
        st.Page(home, title="Home", icon=":material/home:", default=True),
        *PAGES.values(),
        MONITOR,
        VERSIONS,
    ],
    position="top",
)
title = getattr(page, "title", "Home")  # it has none where the script runs without a session
st.set_page_config(page_title="mlapp" if title == "Home" else f"{title} · mlapp")
try:
    page.run()
except InvalidSettings as error:
    st.error(literal(str(error)), title="A setting cannot be used")
