"""The `mlapp` command: `main` names the subcommands, each in a file of its own.

main        the subcommands, and the exit status of errors
serve       the dashboard and the web service
predict     one row or one text
score, scoring    whole files: the arguments and the processes, and what they do
models      list, verify, pin, remove and rename published versions
publish, export   fitted estimators in, folders for other servers out
log, feedback, quality, drift     what was answered, whether it was right, whether inputs moved
retrain, promote  candidates: made, then served
"""

from mlapp.cli.main import main

__all__ = ["main"]
