"""Whole tables through a model.

batch       a table's plan, and its rows through a model; every engine calls `score_batch`
files       a file scored into a file: whole or not there, and resumable
background  the dashboard's files, scored by a thread
tallies     running counts of predictions, for charts
cluster     folders of tables on Ray
"""
