"""The least a Streamlit page over a pickled regression can be, to compare ours with.

It loads its model at every rerun, as the usual first page does. `dashboard.py` runs it.
"""

import joblib
import streamlit as st

model = joblib.load("artifacts/regression/1/model.joblib")
row = [st.number_input(f"var_{place}", format="%.3f") for place in range(1, 6)]
if st.button("Predict"):
    st.metric("Prediction", f"{model.predict([row])[0]:.3f}")
