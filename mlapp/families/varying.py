"""How an answer varies with one input, for any model that takes a row."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mlapp.errors import InvalidInput
from mlapp.families.contract import Answers, Labels, Model, RowInput
from mlapp.schema import Date, Number

if TYPE_CHECKING:  # takes longer to import than a row takes to predict
    import pandas as pd

POINTS = 81  # values that a number takes


def what_if(
    model: Model, row: Mapping[str, Any], name: str, points: int = POINTS
) -> "pd.DataFrame":
    """Vary one input of a row over its training range, with the other inputs unchanged.

    Args:
        model: a model that takes a row.
        row: the row that is varied; the range is widened to include its value.
        name: the input that varies. A category takes each of its values.
        points: how many values a number or a date takes, 2 or more; with 3 or more, the row's
            own is one of them.

    Returns:
        A column of the input's name, then prediction and, if the model has intervals, lower and
        upper; or the probability of each label, in the column that answers have for it. A value
        that the model has no answer to has NaN there.

    Raises:
        InvalidInput: with every fault of the row.
    """
    import pandas as pd

    assert isinstance(model.takes, RowInput)  # as its kind says
    spec = model.takes.schema[name]
    moved: list[Any]
    if isinstance(spec, Number | Date):
        current = spec.parse(model.check([row]).row(0)[name])
        known = None if current is None or math.isnan(current) else current
        moved = _spread(spec, known, points)
        if isinstance(spec, Date):
            moved = [spec.plain(each) for each in moved]
    else:
        moved = list(spec.categories)
    answers, places = _answer([{**row, name: value} for value in moved], model)
    if isinstance(answers, Labels):
        columns = dict(zip(answers.output.columns.values(), answers.probabilities.T, strict=True))
    else:
        columns = answers.tensors()
    # Concatenated, since the input may have the name of a column of the answers.
    found = pd.DataFrame(columns, index=places)
    return pd.concat([pd.Series(moved, name=name), found.reindex(range(len(moved)))], axis=1)


def _answer(rows: Sequence[Mapping[str, Any]], model: Model) -> tuple[Answers, list[int]]:
    """Return the answers to the rows that have one, and the places of these rows.

    Raises:
        InvalidInput: no row has one.
    """
    places = list(range(len(rows)))
    try:
        return model.answer(model.check(rows)), places
    except InvalidInput as error:
        refused = {fault.row for fault in error.faults}
        places = [place for place in places if place not in refused]
        if not places or len(places) == len(rows):
            raise
    return model.answer(model.check([rows[place] for place in places])), places


def _spread(spec: Number | Date, current: float | None, points: int) -> list[float]:
    """Return values from the lowest to the highest of the training range and the current value."""
    ends = [spec.minimum, spec.maximum] + ([] if current is None else [current])
    moved: list[float] = np.linspace(min(ends), max(ends), points).tolist()
    inside = range(1, points - 1)
    if current is not None and current not in moved and inside:
        # So that the mark of the current value lies on the curve.
        moved[min(inside, key=lambda place: abs(moved[place] - current))] = current
    return moved
