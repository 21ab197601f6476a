"""What the pages share; with the pages, all that knows Streamlit.

shared       links, the choice of a model, faults, the history
whole_files  the tab "Many rows"
charts       the charts
markup       a text with its decisive words marked
"""
