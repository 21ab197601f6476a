"""What is recorded of a model, under another name."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import delete, literal, select, update

from mlapp.records.database import TABLES, Database, counts


@contextmanager
def renamed(database: Database, old: str, new: str) -> Iterator[None]:
    """Give the records of a model another name, if what is done in the block succeeds.

    Raises:
        RecordsUnavailable: the database cannot be written; nothing is changed.
    """
    if not database.exists:
        yield
        return
    same = [column for column in counts.columns if column is not counts.c.model]
    of_old = select(literal(new), *same).where(counts.c.model == old).order_by(*same)
    add = database.insert(counts).from_select([counts.c.model, *same], of_old)
    with database.begin() as connection:
        for table in TABLES:
            if table is not counts:
                changed = update(table).where(table.c.model == old).values(model=new)
                connection.execute(changed)
        # A model that had the new name before may have left counts in the same bins.
        total = {"count": counts.c.count + add.excluded.count}
        key = list(counts.primary_key.columns)
        connection.execute(add.on_conflict_do_update(index_elements=key, set_=total))
        connection.execute(delete(counts).where(counts.c.model == old))
        yield
