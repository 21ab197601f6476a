"""Versions page: all versions of a model side by side; candidates promoted, and rolled back."""

import streamlit as st

from mlapp.dashboard import promotions, shared
from mlapp.settings import read_settings
from mlapp.store import artifacts

shared.begin(__file__)

st.title("Versions", icon=":material/history:")
names = artifacts.names(read_settings().artifacts)
if not names:
    st.info("Train a model; it appears here without a restart.", title="No model is published")
    st.stop()
name = str(st.selectbox("Model", names, key="_versions_model", width=320))
promotions.show_versions(name)
promotions.show_shadows(name)
promotions.show_controls(name)
promotions.show_history(name)
