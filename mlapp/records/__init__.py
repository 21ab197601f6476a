"""What was answered, and whether it was right.

answering -> `writer` (a thread) -> `process` -> `database` <- `feedback`
                                                     |
                                 `queries`, `quality`, `drift`: figures, export, purge

bins       how values are counted for drift, without being kept
database   the tables, in SQLite or PostgreSQL
file       SQLite's file, as `process` writes it
entries    what the writer is given
writer     records off the path of requests
collecting     what it keeps of requests
transactions   what it writes at once
process    another process, which writes for a service
shadow     candidates in shadow mode, off the path of requests too
feedback   what turned out to be true
quality    live figures with confidence intervals
confirmed  judged answers that versions learn from, or are judged by
reference  what a model saw in training, counted in bins
drift      whether what comes in still looks like it
queries    counts by hour, export, purge
deleting   what purge does
renaming   records under another name
"""
