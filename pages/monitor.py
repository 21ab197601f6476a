"""Monitor page: a model's traffic, and whether it still looks like the training data."""

import streamlit as st

from mlapp import loaders
from mlapp.dashboard import monitor, shared
from mlapp.dashboard.markup import literal
from mlapp.errors import ArtifactError, RecordsUnavailable
from mlapp.records import queries
from mlapp.records.database import Database
from mlapp.settings import read_settings

shared.begin(__file__)

WINDOWS = {"Last day": 1, "Last 7 days": 7, "Last 30 days": 30, "Last 90 days": 90}

st.title("Monitor", icon=":material/monitor_heart:")
settings, names = read_settings(), loaders.model_names()
if not names:
    st.info("Train a model; it appears here without a restart.", title="No model is published")
    st.stop()
if not settings.log_answers:
    st.info("`MLAPP_LOG_ANSWERS=off`: answers are not recorded.", title="The log is off")
    st.stop()
with st.container(horizontal=True):
    name = str(st.selectbox("Model", names, key="_monitor_model", width=320))
    window = str(st.selectbox("Window", list(WINDOWS), index=1, key="_monitor_window", width=200))
try:
    model = loaders.load_model(name)
except ArtifactError as error:
    shared.show_artifact_error(error, f"The model {name} cannot be opened")
    st.stop()
version, since = model.manifest.version, queries.now() - WINDOWS[window] * queries.DAY
st.caption(
    f"Version {version}, which is served. `mlapp drift` and `mlapp quality` print the same figures,"
    " and `/metrics` has those of drift for Prometheus. Answers appear within a second."
)
database = Database(settings)
try:
    counts = queries.totals(database, name, since, version)
    monitor.show_traffic(counts, queries.count_runs(database, name, since, version))
    monitor.show_drift(settings.artifacts, model, database, since)
    monitor.show_quality(settings.artifacts, database, name, since)
    monitor.show_shadows(database, name, since)
    monitor.show_latest(database, name)
    monitor.show_files(database, name, since)
except RecordsUnavailable as error:
    st.error(literal(str(error)), title="The records cannot be read")
