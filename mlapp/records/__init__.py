"""What was answered, and whether it was right.

answering -> `writer` (a thread) -> `database` <- `feedback`
|
`queries`, `quality`: figures, export, purge

bins       how values are counted for drift, without being kept
database   the tables, in SQLite or PostgreSQL
writer     records off the path of requests
feedback   what turned out to be true
quality    live figures with confidence intervals
queries    counts by hour, export, purge
"""
