"""Whole tables through a model.

batch           a table's plan, and its rows through a model; every engine calls `score_batch`
comparison      the same table through two versions
candidates      a candidate compared with the served version, and promoted
retraining      a version trained again with the feedback on its answers
summary         what became of the rows, for every engine
distributions   running counts of predictions, for charts
files, outputs  a file scored into a file that is whole or absent, and resumable
background      files scored by a thread, from temporary files into temporary files
processes       large files of texts scored in several processes
workspace       the files of a session of the dashboard, and the job on them
cluster         folders of tables on Ray, found and read by `sources` over `ray_connection`
"""
