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


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_target_may_be_let_below_zero(tmp_path: Path) -> None:
    found = trained(tmp_path, minimum=-np.inf)
    assert found.predict([{"size": -100.0, "noise": 0.0}])["prediction"][0] < 0


@pytest.mark.slow
@pytest.mark.parametrize("model", ["linear", "boosted"])
def test_the_coverage_forwards_in_time_is_that_of_earlier_errors(
    model: str, tmp_path: Path
) -> None:
    rng, days = np.random.default_rng(0), np.arange(1900)
    table = pd.DataFrame({"day": days, "x": rng.normal(0, 1, 1900)})
    table["output"] = 100 + 3 * table.x + rng.normal(0, 1, 1900) * (1 + 6 * days / 1900)
    table.to_csv(tmp_path / "t.csv", index=False)
    options: dict[str, Any] = {"time": "day", "drop": ("day",), "say": lambda _: None}
    found = RegressionModel(train(tmp_path / "t.csv", root=tmp_path, model=model, **options))
    stated = float(str(found.manifest.metrics["coverage"]))
    assert 0.7 < stated < 0.87
    fifths = found.report["coverage_by_fifth"]
    rows = sum(each["rows"] for each in fifths)
    assert rows < len(found.report["held_out"]["actual"])  # the first fold has no earlier errors
    assert sum(each["coverage"] * each["rows"] for each in fifths) / rows == pytest.approx(stated)


def test_no_group_calibrates_its_own_intervals(tmp_path: Path) -> None:
    rng, group = np.random.default_rng(0), np.repeat(np.arange(20), 8)
    table = pd.DataFrame({"group": group, "x": rng.normal(0, 1, 160)})
    table["output"] = table.x + rng.normal(0, 2, 20)[group] + rng.normal(0, 1, 160)
    table.to_csv(tmp_path / "t.csv", index=False)
    options: dict[str, Any] = {"group": "group", "model": "linear", "say": lambda _: None}
    held = RegressionModel(train(tmp_path / "t.csv", root=tmp_path, **options)).report["held_out"]
    widths = pd.Series(np.subtract(held["upper"], held["lower"]).round(9))
    assert widths.nunique() == 2
    assert widths.groupby(group).nunique().max() == 1
