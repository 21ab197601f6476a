"""Training: read data, fit, measure, publish. Nothing here is imported when serving.

Tables of rows:

regression, classification   the commands: a number or labels
table_models      what both share: options, the split, the fits, the command
tables, columns   files read, columns cleaned, the schema learned
rows              a table as it is trained on
folds             which rows are held out together
candidates        the models that are tried, and the choice
least_squares     the linear fit, its interval and its coefficients
intervals, scales     intervals of numbers, and how wide they are for a row
calibration       probabilities by one temperature, fitted on unseen rows
versions          a fitted model becomes a version

Fitted estimators of others:

publish           the command
estimators, foreign   read from files, and looked over; ONNX models of other tools
fitted_rows, asking   the rows that an estimator takes, and its answers to them
codes             columns of numbers that an estimator takes as codes
clones            how good it is, measured by clones, and whether it is as good as they
compile           what is served: ONNX where that gives the same answers
graph, graph_models, graph_steps, graph_trees   estimators as operators of ONNX

Texts:

sentiment         the command
texts, download   labelled and unlabelled texts; data sets fetched once
splits, plan      which texts teach, which choose, and which judge
text_candidates, text_choice   the classifiers that are tried, and the choice
text_linear       the linear model
text_network, network, export   the network: its training, its layers, its ONNX
recipes           the knobs
linear, vectors, phrases   what the network learns from besides: a teacher, word vectors, opinions
examples, judging     examples of the model's own texts, and what it says of unseen ones

All:

measures, losses  metrics and pictures, and what each held-out row cost
progress          what is said of progress, durations and counts
"""
