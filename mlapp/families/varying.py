"""How an answer varies as one input of a row does, for any model that takes a row."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from mlapp.families.contract import Labels, Model, RowInput
from mlapp.schema import Date, Number

if TYPE_CHECKING:  # takes longer to import than a row takes to predict
    import pandas as pd

POINTS = 81  # values that a number takes


def what_if(
    model: Model, row: Mapping[str, Any], name: str, points: int = POINTS
) -> "pd.DataFrame":
    """Move one input of a row across its range in training, the others held.

    Args:
        model: a model that takes a row.
        row: the row that is varied; the range is widened to hold its value.
        name: the input that moves. A category takes each of its values.
        points: how many values a number takes, 2 or more.

    Returns:
        The input's name, then prediction and, where the model has intervals, lower and upper; or
        the probability of each label, in a column of its name among the answers.

    Raises:
        InvalidInput: with every fault of the row.
    """
    import pandas as pd

    assert isinstance(model.takes, RowInput)  # as its kind says
    spec = model.takes.schema[name]
    if isinstance(spec, Number):
        current = model.check([row]).row(0)[name]
        ends = [spec.minimum, spec.maximum] + ([] if current is None else [current])
        moved: list[Any] = np.linspace(min(ends), max(ends), points).tolist()
    elif isinstance(spec, Date):
        between = np.linspace(spec.minimum, spec.maximum, points).tolist()
        moved = [spec.plain(each) for each in between]
    else:
        moved = list(spec.categories)
    answers = model.answer(model.check([{**row, name: value} for value in moved]))
    if isinstance(answers, Labels):
        columns = dict(zip(answers.output.columns.values(), answers.probabilities.T, strict=True))
    else:
        columns = answers.tensors()
    # Side by side, since the input may be called as a column of the answers is.
    return pd.concat([pd.Series(moved, name=name), pd.DataFrame(columns)], axis=1)
