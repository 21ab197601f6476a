"""What the pages share; with the pages, all that knows Streamlit.

shared       links, the choice of a model, faults, the history
rows         the form of a row, its answer, its reasons, the what-if curve
answers      answers and their reasons, for every kind of model
wording      the name of a model as a title
feedback     what the answer should have been
whole_files, file_results     the tab "Many rows" or "Many texts", and its results
versions, differing   the tab "Compare"
quality      the tab "About this model"
monitor      the parts of the page Monitor
promotions   the parts of the page Versions
charts, label_charts  the charts
axes         axes and legends: numbers of any size, names of any length
markup       text from outside, made safe to show
"""
