"""Folds keep together what belongs together, and go forwards in time."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mlapp.dates import Date
from mlapp.errors import InvalidData
from mlapp.manifest import Artifact
from mlapp.schema import Schema
from mlapp.store import gate
from training import classification, table_models
from training.candidates import list_candidates, standard_error
from training.folds import (
    find_observations,
    forward_folds,
    group_rows,
    join_groups,
    number_rows,
    random_folds,
)
from training.regression import train
from training.rows import Source, read_training_rows


def quiet(line: str) -> None:
    """Say nothing."""


def test_each_row_is_held_out_once_and_groups_stay_whole() -> None:
    groups = np.random.default_rng(0).integers(0, 30, 200)
    folds = random_folds(groups, 5)
    assert sorted(np.concatenate([fold.test for fold in folds])) == list(range(200))
    for fold in folds:
        assert not set(groups[fold.train]) & set(groups[fold.test])


def test_each_fold_holds_its_share_of_a_rare_label() -> None:
    labels = np.array([0] * 190 + [1] * 10)
    folds = random_folds(np.arange(200), 5, labels)
    assert [int(labels[fold.test].sum()) for fold in folds] == [2] * 5


def test_rows_that_share_either_group_share_one() -> None:
    joined = join_groups(np.array([0, 0, 1, 2]), np.array([0, 1, 1, 2]))
    assert joined[0] == joined[1] == joined[2] != joined[3]


def observed(matrix: Any, target: Any) -> Any:
    """Return which rows are observations of their own, though their inputs may be equal."""
    return find_observations(number_rows(np.asarray(matrix, dtype=float)), np.asarray(target))


def test_rows_of_few_categories_are_observations_where_their_targets_differ() -> None:
    rng = np.random.default_rng(0)
    city = rng.integers(0, 30, 1000)
    assert observed(city[:, None], city + rng.normal(size=1000)).all()
    label = np.where(rng.random(1000) < 0.05, 1 - city % 2, city % 2)
    assert observed(city[:, None], label).all()


def test_rows_of_a_frequent_combination_are_observations_and_copies_of_others_are_not() -> None:
    rng = np.random.default_rng(0)
    bought = np.repeat(rng.normal(size=(70, 3)), 10, axis=0)  # each ten times
    matrix = np.vstack([np.zeros((1300, 3)), bought])
    assert observed(matrix, matrix.sum(axis=1)).tolist() == [True] * 1300 + [False] * 700
    groups = group_rows(matrix, matrix.sum(axis=1), 20, 2000, quiet)
    assert len(np.unique(groups)) == 1300 + 70


def test_ten_copies_of_each_row_are_no_observations() -> None:
    rows = np.repeat(np.random.default_rng(0).normal(size=(100, 2)), 10, axis=0)
    assert not observed(rows, rows.sum(axis=1)).any()


@pytest.mark.parametrize("moments", [11, 200])
def test_forward_folds_see_earlier_rows_alone(moments: int) -> None:
    times = np.random.default_rng(0).integers(0, moments, 500).astype(float)
    for fold in forward_folds(times, 10):
        assert len(fold.train)
        assert len(fold.test)
        assert times[fold.train].max() < times[fold.test].min()


def test_too_few_times_or_groups_are_refused() -> None:
    with pytest.raises(InvalidData, match="10 different times"):
        forward_folds(np.arange(100.0) % 10, 10)
    with pytest.raises(InvalidData, match="of 3 groups"):
        random_folds(np.arange(100) % 3, 5)


def make_patients() -> pd.DataFrame:
    """Return rows of which those of one patient are alike in what no column explains."""
    rng = np.random.default_rng(0)
    patient = np.repeat(np.arange(40), 10)
    weight = rng.normal(70, 10, 40)[patient] + rng.normal(0, 0.1, 400)
    return pd.DataFrame(
        {"patient": patient, "weight": weight, "output": rng.normal(size=40)[patient]}
    )


@pytest.mark.slow
def test_rows_of_a_group_are_predicted_from_other_groups(tmp_path: Path) -> None:
    make_patients().to_csv(tmp_path / "t.csv", index=False)
    options: dict[str, Any] = {"root": tmp_path, "say": quiet, "model": "boosted"}
    naive = train(tmp_path / "t.csv", drop=("patient",), **options).manifest
    honest = train(tmp_path / "t.csv", group="patient", **options).manifest
    assert float(str(naive.metrics["r2"])) > 0.5
    assert float(str(honest.metrics["r2"])) < 0.1
    assert honest.input_schema is not None
    assert honest.input_schema.names == ["weight"]
    assert "--group patient" in str(honest.training["command"])


@pytest.mark.slow
def test_rows_are_predicted_from_earlier_ones(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    table = pd.DataFrame(
        {"x": rng.normal(size=300), "when": pd.date_range("2024-01-01", periods=300)}
    )
    table["output"] = table["x"] + 0.1 * rng.normal(size=300)
    table.sample(frac=1, random_state=0).to_csv(tmp_path / "t.csv", index=False)
    options: dict[str, Any] = {"root": tmp_path, "say": quiet, "model": "linear"}
    found = train(tmp_path / "t.csv", time="when", **options).manifest
    assert float(str(found.metrics["r2"])) > 0.9
    assert "--time when" in str(found.training["command"])


def test_a_time_that_cannot_be_read_is_named_with_its_row(tmp_path: Path) -> None:
    table = pd.DataFrame({"x": np.arange(50) % 7, "output": np.arange(50.0)})
    table["when"] = ["2024-01-01"] * 49 + ["soon"]
    table.to_csv(tmp_path / "t.csv", index=False)
    with pytest.raises(InvalidData, match="'when' has no time in 1 rows, as row 50: 'soon'"):
        train(tmp_path / "t.csv", root=tmp_path, say=quiet, time="when")


def walk() -> pd.DataFrame:
    random = np.random.default_rng(0)
    days = pd.date_range("2022-01-01", periods=300)
    return pd.DataFrame(
        {
            "when": days.strftime("%d/%m/%Y"),
            "x": random.normal(size=300),
            "group": random.integers(0, 40, 300),
            "y": random.normal(size=300).cumsum(),
        }
    )


@pytest.mark.slow
def test_days_before_months_are_put_in_order(tmp_path: Path) -> None:
    table, path = walk(), tmp_path / "walk.csv"
    quality = []
    for written in ("%d/%m/%Y", "%Y-%m-%d"):
        days = pd.date_range("2022-01-01", periods=300).strftime(written)
        table.assign(when=days).to_csv(path, index=False)
        made = train(path, "y", root=tmp_path, time="when", model="linear", say=quiet)
        quality.append(made.manifest.metrics["r2"])
    assert quality[0] == pytest.approx(quality[1])


def test_groups_stay_whole_forwards_in_time_too(tmp_path: Path) -> None:
    path = tmp_path / "walk.csv"
    walk().to_csv(path, index=False)
    rows = read_training_rows(Source(path, "y", time="when", group="group"), False, quiet)
    found = table_models.split(rows, quiet)
    assert rows.groups is not None and rows.times is not None
    for fold in found.folds:
        assert rows.times[fold.train].max() < rows.times[fold.test].min()
        assert not set(rows.groups[fold.train]) & set(rows.groups[fold.test])
    walk().assign(group=np.arange(300) % 2).to_csv(path, index=False)
    rows = read_training_rows(Source(path, "y", time="when", group="group"), False, quiet)
    with pytest.raises(InvalidData, match="--group with --time"):
        table_models.split(rows, quiet)


@pytest.mark.slow
def test_the_standard_error_counts_a_group_as_one_observation(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    group, x = np.repeat(np.arange(40), 25), rng.normal(0, 1, 1000)
    y = 2 * x + rng.normal(0, 2, 40)[group] + rng.normal(0, 1, 1000)
    table = pd.DataFrame({"group": group, "x": x, "y": y})
    alone, _ = train_on(table, tmp_path, model="linear", drop=("group",))
    made, _ = train_on(table, tmp_path, model="linear", group="group")
    rows, groups = (published_of(each)["standard_error"] for each in (alone, made))
    assert groups > 2 * rows
    losses = json.loads(made.files["report.json"])["losses"]
    assert len(set(losses["groups"].values())) == 40
    assert losses["groups"].keys() == losses["values"].keys()
    assert gate.compare_held_out(made, made).groups == 40


def published_of(made: Artifact) -> dict[str, Any]:
    """Return what the report says of the model that is published."""
    compared = json.loads(made.files["report.json"])["compared"]
    [found] = [each for each in compared if each["published"]]
    assert isinstance(found, dict)
    return found


@pytest.mark.slow
def test_extra_rows_predict_no_past_and_are_learned_from_in_the_end(tmp_path: Path) -> None:
    rng, days = np.random.default_rng(0), np.arange(1300)
    y = np.where(days < 905, 0, 100) + rng.normal(0, 10, 1300)
    table = pd.DataFrame({"day": days, "x": rng.normal(0, 1, 1300), "y": y})
    table[1000:].to_csv(tmp_path / "extra.csv", index=False)
    alone, _ = train_on(table[:1000], tmp_path, model="boosted", time="day")
    options: dict[str, Any] = {"model": "boosted", "time": "day"}
    more, said = train_on(table[:1000], tmp_path, extra=[tmp_path / "extra.csv"], **options)
    assert r2_of(more) == pytest.approx(r2_of(alone), abs=0.01)
    assert more.manifest.training["rows_used"] == 1300
    assert any(line.startswith("300 more rows have no known time") for line in said)


@pytest.mark.slow
def test_extra_rows_whose_group_is_unknown_predict_no_held_out_group(tmp_path: Path) -> None:
    patients = make_patients().rename(columns={"output": "y"})
    visits = patients.drop(columns="patient")
    visits.assign(weight=visits.weight + 0.01).to_csv(tmp_path / "extra.csv", index=False)
    options: dict[str, Any] = {"model": "boosted", "group": "patient"}
    alone, _ = train_on(patients, tmp_path, **options)
    more, said = train_on(patients, tmp_path, extra=[tmp_path / "extra.csv"], **options)
    assert r2_of(more) == pytest.approx(r2_of(alone), abs=0.01)
    assert more.manifest.training["rows_used"] == 800
    assert any(line.startswith("400 more rows have no known group") for line in said)
    assert "no verdict" in str(gate.compare_held_out(alone, more))


def test_rows_of_several_files_are_learned_from_with_judged_answers(tmp_path: Path) -> None:
    table, said = make_noisy(100), list[str]()
    table.to_csv(tmp_path / "t.csv", index=False)
    names = ("a.csv", "b.csv", "judged.csv")
    for place, name in enumerate(names):
        table[place : place + 1 + place].assign(a=9 + place).to_csv(tmp_path / name, index=False)
    *extra, judged = (tmp_path / name for name in names)
    source = Source(tmp_path / "t.csv", "y", extra=extra, feedback=judged)
    rows = read_training_rows(source, False, said.append)
    assert rows.extra == 6
    assert f"Learning from 2 more rows of {extra[1]}; left out are 0 that" in "\n".join(said)
    assert "Learning from 3 judged answers; left out are 0 that" in "\n".join(said)


def test_judged_answers_without_an_input_of_the_data_are_counted_as_unusable(
    tmp_path: Path,
) -> None:
    table, said = make_noisy(100), list[str]()
    table[:9].to_csv(tmp_path / "more.csv", index=False)
    table.assign(age=np.arange(100) % 7).to_csv(tmp_path / "t.csv", index=False)
    source = Source(tmp_path / "t.csv", "y", feedback=tmp_path / "more.csv")
    assert read_training_rows(source, False, said.append).extra == 0
    assert "Judged answers have no value of 'age', which the data has" in said
    assert said[-1].endswith("and 9 whose values cannot be used")
    named = replace(source, extra=[tmp_path / "more.csv"], feedback=None)
    with pytest.raises(InvalidData, match=r"more\.csv has no column 'age'"):
        read_training_rows(named, False, quiet)


@pytest.mark.slow
def test_the_baseline_forwards_in_time_is_the_one_that_was_compared(tmp_path: Path) -> None:
    rng, days = np.random.default_rng(0), np.arange(300)
    table = pd.DataFrame({"day": days, "x": rng.normal(0, 1, 300), "y": 1000.0 + days})
    made, _ = train_on(table, tmp_path, model="linear", time="day")
    report = json.loads(made.files["report.json"])
    [figure] = [each["figure"] for each in report["compared"] if each["model"] == "baseline"]
    spread = np.var(report["held_out"]["actual"])
    rmse = float(str(made.manifest.metrics["baseline_rmse"]))
    assert 1 - rmse**2 / spread == pytest.approx(figure)


# --- copies -----------------------------------------------------------------------------------


def make_noisy(rows: int, seed: int = 0) -> pd.DataFrame:
    """Return rows whose target a model of them explains in half."""
    rng = np.random.default_rng(seed)
    table = pd.DataFrame(rng.normal(size=(rows, 4)), columns=list("abcd"))
    return table.assign(y=table.a + rng.normal(size=rows))


def train_on(table: pd.DataFrame, folder: Path, **options: Any) -> tuple[Artifact, list[str]]:
    path, said = folder / "table.csv", list[str]()
    table.to_csv(path, index=False)
    return train(path, "y", "noisy", folder, say=said.append, **options), said


def r2_of(artifact: Artifact) -> float:
    """Return what is said of the model's quality on held-out rows."""
    return float(str(artifact.manifest.metrics["r2"]))


@pytest.mark.slow
def test_extra_rows_with_the_inputs_of_a_held_out_row_do_not_predict_it(tmp_path: Path) -> None:
    table = make_noisy(300)
    table.assign(y=table.y + 1e-6).to_csv(tmp_path / "extra.csv", index=False)
    alone, _ = train_on(table, tmp_path, model="boosted")
    more, _ = train_on(table, tmp_path, model="boosted", extra=[tmp_path / "extra.csv"])
    assert more.manifest.training["rows_used"] == 600  # the model that is served learns from all
    assert r2_of(more) == pytest.approx(r2_of(alone), abs=0.1)


@pytest.mark.slow
def test_rows_that_repeat_but_for_their_time_stay_in_one_fold(tmp_path: Path) -> None:
    copies = pd.concat([make_noisy(100)] * 4).sample(frac=1, random_state=1)
    times = pd.date_range("2024-01-01", periods=400, freq="37min").astype(str)
    made, said = train_on(copies.assign(when=times), tmp_path, model="boosted")
    assert any(line.startswith("300 rows repeat another but for columns that") for line in said)
    assert r2_of(made) < 0.6


@pytest.mark.slow
def test_customers_who_bought_nothing_are_held_out_one_by_one(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(5, 1, size=(2000, 2)) * (rng.random(2000) < 0.35)[:, None]
    table = pd.DataFrame({"clicks": rows[:, 0], "visits": rows[:, 1]})
    made, said = train_on(table.assign(y=3 * rows[:, 0] + rng.normal(size=2000)), tmp_path)
    assert any("rows have frequent inputs" in line for line in said)
    assert r2_of(made) > 0.95
    assert float(str(made.manifest.metrics["coverage"])) == pytest.approx(0.9, abs=0.03)


@pytest.mark.slow
def test_an_earlier_copy_does_not_predict_a_row_forwards_in_time(tmp_path: Path) -> None:
    copies = pd.concat([make_noisy(200)] * 4).sample(frac=1, random_state=1)
    times = pd.date_range("2024-01-01", periods=800, freq="37min").astype(str)
    rng = np.random.default_rng(2)
    noise = dict(zip(copies["y"].unique(), rng.normal(size=200), strict=True))
    table = copies.assign(when=times, y=copies["y"].map(noise))
    made, said = train_on(table, tmp_path, model="boosted", time="when")
    assert any(line.startswith("600 rows repeat another but") for line in said)
    assert r2_of(made) < 0.1


@pytest.mark.slow
@pytest.mark.parametrize("labels", [False, True])
def test_a_column_that_is_empty_in_some_folds_trains(tmp_path: Path, labels: bool) -> None:
    table = make_noisy(300)
    table["rare"] = np.where(np.arange(300) == 7, 2.5, np.nan)
    table["y"] = np.where(table["y"] > table["y"].median(), "a", "b") if labels else table["y"]
    table.to_csv(tmp_path / "t.csv", index=False)
    fit = classification.train if labels else train
    made = fit(tmp_path / "t.csv", "y", "rare", tmp_path, model="boosted", say=quiet)
    assert made.manifest.version == 1


def test_a_constant_time_of_day_is_the_same_to_the_last_bit() -> None:
    days = np.arange(300.0) * 86_400 + 8 * 3_600
    spec = Date(
        name="when",
        minimum=0,
        maximum=days[-1],
        quantiles=(0, 1, 2, 3, 4),
        typical="1970-02-01",
        timed=True,
        parts=("hour",),
    )
    encoded = dict(zip(spec.terms, spec.encode(days).T, strict=True))
    assert len(np.unique(encoded["when sine of the day"])) == 1


def test_a_column_of_durations_says_which_rows_are_earlier(tmp_path: Path) -> None:
    table = make_noisy(300)
    table["after"] = pd.to_timedelta(np.arange(300), unit="h")
    table.to_parquet(tmp_path / "t.parquet")
    source = Source(tmp_path / "t.parquet", "y", time="after")
    found = read_training_rows(source, classifies=False, say=quiet)
    assert found.times is not None
    assert (np.diff(found.times) > 0).all()


@pytest.mark.slow
def test_rare_categories_of_a_small_table_do_not_end_the_training(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"x": rng.normal(size=40), "kind": ["usual"] * 33 + list("abcdefg")})
    made, _ = train_on(table.assign(y=3 * table["x"] + 0.1 * rng.normal(size=40)), tmp_path)
    assert r2_of(made) > 0.9


@pytest.mark.slow
def test_rows_of_one_shop_at_several_times_are_different_rows(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    shop, size = np.arange(400) % 40, rng.normal(size=40)
    times = pd.date_range("2024-01-01", periods=400, freq="37min").astype(str)
    table = pd.DataFrame({"shop": [f"s{each}" for each in shop], "size": size[shop], "when": times})
    made, said = train_on(table.assign(y=3 * size[shop] + rng.normal(size=400)), tmp_path)
    assert not any("repeat another but" in line for line in said)
    assert r2_of(made) > 0.8


@pytest.mark.slow
def test_a_category_that_says_the_label_makes_no_copies_of_its_rows(tmp_path: Path) -> None:
    rng, town = np.random.default_rng(0), np.arange(400) % 40
    table = pd.DataFrame({"town": [f"t{each}" for each in town], "noise": rng.normal(size=400)})
    said = list[str]()
    table.assign(y=np.where(town < 15, "north", "south")).to_csv(
        tmp_path / "towns.csv", index=False
    )
    made = classification.train(tmp_path / "towns.csv", "y", "towns", tmp_path, say=said.append)
    assert not any("repeat another but" in line for line in said)
    assert float(str(made.manifest.metrics["accuracy"])) > 0.95


@pytest.mark.slow
def test_what_is_compared_is_what_is_served(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    table = pd.DataFrame(rng.normal(size=(400, 2)), columns=list("ab"))
    rain = np.maximum(0, table.a + rng.normal(size=400) - 0.5)
    made, _ = train_on(table.assign(y=rain), tmp_path, model="linear")
    report = json.loads(made.files["report.json"])
    [published] = [each for each in report["compared"] if each["published"]]
    assert published["figure"] == pytest.approx(r2_of(made), abs=1e-6)


def test_copies_make_no_standard_error_smaller() -> None:
    values, groups = np.random.default_rng(0).normal(size=200), np.arange(200)
    once = standard_error(values, groups)
    assert once == pytest.approx(values.std(ddof=1) / np.sqrt(200))
    assert standard_error(np.tile(values, 4), np.tile(groups, 4)) == pytest.approx(once)


@pytest.mark.parametrize("unit", [1e-180, 1e190])
def test_a_standard_error_has_the_unit_of_its_values(unit: float) -> None:
    values, groups = np.random.default_rng(0).normal(size=40), np.arange(40)
    scaled = standard_error(unit * values, groups)
    assert scaled / unit == pytest.approx(standard_error(values, groups))


@pytest.mark.parametrize("labels", [0, 3])
def test_each_fold_fits_an_estimator_of_its_own(labels: int) -> None:
    """One that folds share would answer a fold by the fit of another, as threads happen to run."""
    schema = Schema(inputs=())
    for candidate in list_candidates("auto", schema, 100, labels, least_squares=True):
        assert candidate.make(10) is not candidate.make(10)
