"""Records that are deleted; few imports, for the process that writes."""

from sqlalchemy import Table, delete, select, tuple_

from mlapp.records.database import (
    Database,
    answers,
    counts,
    feedback,
    first_id,
    hour_of,
    runs,
    shadows,
)

AT_ONCE = 5_000  # rows of a transaction


def delete_before(database: Database, before: int | None, model: str | None = None) -> int:
    """Delete records with their feedback, and counts.

    Args:
        database: the records.
        before: the time in milliseconds since 1970 from which they are kept; None deletes all.
        model: by default of all models.

    Returns:
        How many answers were deleted.

    Raises:
        RecordsUnavailable: the database cannot be written.
    """
    if not database.exists:
        return 0
    if before is None:
        limit, hour = "g", 1 << 53  # after every identifier, and every hour
    else:
        limit, hour = first_id(before), hour_of(before)
    for table in (feedback, runs, shadows):
        _delete(database, table, limit, model)
    gone = _delete(database, answers, limit, model)
    old = delete(counts).where(counts.c.hour < hour)
    with database.begin() as connection:
        connection.execute(old if model is None else old.where(counts.c.model == model))
    return gone


def _delete(database: Database, table: Table, limit: str, model: str | None) -> int:
    """Delete the rows with identifiers before `limit`, in batches that do not block writers."""
    key = list(table.primary_key.columns)
    where = [table.c.id < limit, *([] if model is None else [table.c.model == model])]
    # In the same order everywhere, so that two processes cannot deadlock.
    last = select(*key).where(*where).order_by(*key).limit(AT_ONCE)
    gone = 0
    while True:
        with database.begin() as connection:
            rows = connection.execute(last).all()
            if rows:
                upto = tuple_(*key) <= tuple_(*rows[-1])
                connection.execute(delete(table).where(*where, upto))
        gone += len(rows)
        if len(rows) < AT_ONCE:
            return gone
