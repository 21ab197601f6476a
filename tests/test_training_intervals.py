"""Intervals hold their share everywhere, and end where the target does."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mlapp.errors import InvalidData
from mlapp.families.regression import RegressionModel
from training.regression import train


def make_prices(rows: int = 1500, seed: int = 0) -> pd.DataFrame:
    """Return prices that are the less certain the higher they are, and never negative."""
    rng = np.random.default_rng(seed)
    size = rng.uniform(0, 10, rows)
    price = np.maximum(10 * size + size * rng.normal(0, 4, rows), 0)
    return pd.DataFrame({"size": size, "noise": rng.normal(size=rows), "output": price})


def trained(folder: Path, **options: Any) -> RegressionModel:
    make_prices().to_csv(folder / "t.csv", index=False)
    given: dict[str, Any] = {"root": folder, "say": lambda _: None, "model": "linear"} | options
    return RegressionModel(train(folder / "t.csv", **given))


@pytest.mark.slow
@pytest.mark.parametrize("model", ["linear", "boosted"])
def test_intervals_hold_their_share_in_every_fifth_of_new_rows(model: str, tmp_path: Path) -> None:
    found = trained(tmp_path, model=model)
    new = make_prices(5000, seed=1)
    prediction, lower, upper = found.predict_array(found.check(new)).T
    inside = (lower <= new["output"]) & (new["output"] <= upper)
    for part in np.array_split(np.argsort(prediction), 5):
        assert 0.85 <= inside.to_numpy()[part].mean() <= 0.95
    assert lower.min() >= 0
    assert found.platform == "onnx"
    for each in found.report["coverage_by_fifth"]:
        assert 0.84 <= each["coverage"] <= 0.96


def test_predictions_end_where_they_are_told_to_and_reasons_sum_to_them(tmp_path: Path) -> None:
    found = trained(tmp_path, maximum=200.0)
    rows = [{"size": 100.0, "noise": 0.0}, {"size": -100.0, "noise": 0.0}]
    answers = found.predict(rows)
    assert answers["prediction"].tolist() == [200, 0]
    assert answers["lower"].min() >= 0
    assert answers["upper"].max() <= 200
    assert found.explain(rows).sum(axis=1).tolist() == pytest.approx([200, 0])
    assert "--maximum 200" in str(found.manifest.training["command"])


def test_a_range_that_the_target_leaves_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidData, match="--minimum is 5, and the target 'output' was"):
        trained(tmp_path, minimum=5.0)


def test_a_target_may_be_let_below_zero(tmp_path: Path) -> None:
    found = trained(tmp_path, minimum=-np.inf)
    assert found.predict([{"size": -100.0, "noise": 0.0}])["prediction"][0] < 0
