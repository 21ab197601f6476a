"""Classifiers of rows are trained on any table, measured honestly, and served."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_iris

from mlapp.errors import InvalidData
from mlapp.families.classification import ClassificationModel
from mlapp.records import reference
from mlapp.service import create_app
from mlapp.store import artifacts, open_model
from tests.conftest import client_of
from training.classification import main, train
from training.rows import Source, read_training_rows


def quiet(line: str) -> None:
    """Say nothing."""


def make_rings(rows: int = 400, seed: int = 0) -> pd.DataFrame:
    """Return points that no line separates: inside a ring, or outside."""
    rng = np.random.default_rng(seed)
    table = pd.DataFrame(rng.normal(size=(rows, 2)), columns=["x", "y"])
    inside = np.hypot(table["x"], table["y"]) + rng.normal(0, 0.2, rows) < 1.1
    return table.assign(place=np.where(inside, "inside", "outside"))


def make_blobs(rows: int = 300, seed: int = 1) -> pd.DataFrame:
    """Return three labels that lines separate, one of them rare."""
    rng = np.random.default_rng(seed)
    kind = rng.choice(["ash", "birch", "cedar"], rows, p=[0.6, 0.3, 0.1])
    centre = pd.Series(kind).map({"ash": 0.0, "birch": 2.0, "cedar": 4.0}).to_numpy()
    table = pd.DataFrame({"height": centre + rng.normal(size=rows), "width": rng.normal(size=rows)})
    table["soil"] = rng.choice(np.array(["clay", "sand", None]), rows)
    return table.assign(kind=kind)


def save(table: pd.DataFrame, folder: Path) -> Path:
    table.to_csv(folder / "table.csv", index=False)
    return folder / "table.csv"


def trained(table: pd.DataFrame, target: str, folder: Path, **options: Any) -> ClassificationModel:
    given: dict[str, Any] = {"root": folder / "artifacts", "say": quiet} | options
    return ClassificationModel(train(save(table, folder), target, **given))


@pytest.mark.slow
def test_labels_that_no_line_separates_are_told_apart_by_boosted_trees(tmp_path: Path) -> None:
    model = trained(make_rings(), "place", tmp_path)
    compared = {each["model"]: each for each in model.report["compared"]}
    assert list(compared) == ["baseline", "linear", "boosted"]
    assert [name for name, each in compared.items() if each["published"]] == ["boosted"]
    assert compared["boosted"]["figure"] < 0.4 < 0.6 < compared["linear"]["figure"]
    answers = model.predict([{"x": 0.0, "y": 0.0}, {"x": 3.0, "y": 0.0}])
    assert answers["label"].tolist() == ["inside", "outside"]
    assert model.platform == "onnx"


@pytest.mark.slow
@pytest.mark.parametrize("labels", [2, 3])
@pytest.mark.parametrize("scale", [1.0, 1000.0])
def test_reasons_of_a_linear_model_sum_to_the_logit_however_sure_it_is(
    tmp_path: Path, labels: int, scale: float
) -> None:
    iris = load_iris(as_frame=True).frame.rename(columns=lambda name: name.split(" (")[0])
    iris["kind"] = iris.pop("target").map({0: "setosa", 1: "versicolor", 2: "virginica"})
    iris = iris[iris["kind"].isin(["setosa", "versicolor", "virginica"][3 - labels :])]
    iris.to_csv(tmp_path / "iris.csv", index=False)
    artifact = train(
        tmp_path / "iris.csv", "kind", "iris", root=tmp_path, model="linear", say=quiet
    )
    model = ClassificationModel(artifact)
    rows = iris.drop(columns="kind") * scale
    answers, reasons = model.predict(rows), model.explain(rows)
    logs = np.log(np.maximum(answers[list(model.labels)].to_numpy(), 1e-300))
    if labels == 2:
        logits = logs[:, 1] - logs[:, 0]
    else:
        places = logs.argmax(axis=1)
        logits = logs[np.arange(len(logs)), places] - logs.mean(axis=1)
    summed = reasons[["baseline", *rows.columns]].sum(axis=1)
    assert summed.to_numpy() == pytest.approx(logits, abs=1e-4)


@pytest.mark.slow
def test_a_batch_without_a_row_has_no_reasons(tmp_path: Path) -> None:
    make_blobs().to_csv(tmp_path / "trees.csv", index=False)
    file = tmp_path / "trees.csv"
    model = ClassificationModel(
        train(file, "kind", "trees", root=tmp_path, model="linear", say=quiet)
    )
    empty = model.check(make_blobs().drop(columns="kind")[:0])
    assert len(model.reasons(empty).totals) == 0


@pytest.mark.slow
def test_the_simplest_model_that_is_as_good_is_published(tmp_path: Path) -> None:
    said: list[str] = []
    model = trained(make_blobs(), "kind", tmp_path, say=said.append)
    chosen = [each["model"] for each in model.report["compared"] if each["published"]]
    assert chosen == ["linear"]
    metrics = model.manifest.metrics
    for key in ("log_loss", "balanced_accuracy", "accuracy", "baseline_accuracy", "ece"):
        assert key in metrics
    assert np.sum(model.report["confusion"]) == 300
    assert any("baseline" in line and "log loss" in line for line in said)


@pytest.mark.slow
def test_probabilities_of_held_out_rows_are_calibrated(tmp_path: Path) -> None:
    metrics = trained(make_rings(1500), "place", tmp_path).manifest.metrics
    assert float(str(metrics["ece"])) < 0.06
    assert float(str(metrics["roc_auc"])) > 0.85


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        ([True, False], ("False", "True")),
        ([1, 0], ("0", "1")),
        ([10, 9], ("9", "10")),
        (["ja", "nein"], ("ja", "nein")),
    ],
)
def test_texts_truth_values_and_whole_numbers_are_labels(
    values: list[Any], labels: tuple[str, ...], tmp_path: Path
) -> None:
    table = make_rings(100)
    table["place"] = np.where(table["place"] == "inside", *values)
    assert trained(table, "place", tmp_path, model="linear").labels == labels


@pytest.mark.parametrize(
    ("written", "labels"),
    [
        (["01", "1", "10"], ("01", "1", "10")),
        (["1.10", "1.1", "1.2"], ("1.1", "1.10", "1.2")),
        (["100000000000000000", "100000000000000001"], None),
        (["1e5", "2e5"], ("1e5", "2e5")),
        (["1.0", "2.0", "1"], ("1", "2")),
        (["1.0", "new", "1"], ("1", "new")),
        (["2024-01-02", "2024-03-04", "2024-01-02 00:00:00"], ("2024-01-02", "2024-03-04")),
    ],
)
@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_labels_stay_as_the_file_writes_them_but_for_whole_numbers(
    written: list[str], labels: tuple[str, ...] | None, suffix: str, tmp_path: Path
) -> None:
    table, file = make_rings(120), tmp_path / f"table{suffix}"
    table["place"] = (written * 120)[:120]
    table.to_csv(file, index=False) if suffix == ".csv" else table.to_parquet(file)
    rows = read_training_rows(Source(file, "place"), True, quiet)
    assert rows.labels == (labels or tuple(written))


@pytest.mark.slow
def test_a_trained_classifier_answers_over_http(tmp_path: Path, empty_folder: Path) -> None:
    model = trained(make_blobs(), "kind", tmp_path, root=empty_folder, name="trees")
    row = {"height": 0.0, "width": 0.0, "soil": None}
    client = client_of(create_app())
    [answer] = client.post("/v1/models/trees:predict", json={"instances": [row]}).json[
        "predictions"
    ]
    assert answer["label"] == "ash"
    assert sum(answer[label] for label in model.labels) == pytest.approx(1)


@pytest.mark.slow
def test_a_version_carries_its_losses_and_its_reference(tmp_path: Path) -> None:
    root = tmp_path / "artifacts"
    model = trained(make_blobs(), "kind", tmp_path, name="trees")
    losses = model.report["losses"]
    assert losses["metric"] == "log loss"
    assert len(losses["values"]) == 300
    mean = np.mean(list(losses["values"].values()))
    assert mean == pytest.approx(model.manifest.metrics["log_loss"], rel=1e-6)
    assert reference.read(root, "trees", 1)


@pytest.mark.slow
def test_a_candidate_is_published_but_not_served(tmp_path: Path) -> None:
    root = tmp_path / "artifacts"
    trained(make_blobs(), "kind", tmp_path, name="trees", model="linear")
    command = ["--data", str(tmp_path / "table.csv"), "--target", "kind", "--name", "trees"]
    assert main([*command, "--model", "linear", "--candidate", "--artifacts", str(root)]) == 0
    assert artifacts.candidates(root, "trees") == [2]
    assert open_model(root, "trees").manifest.version == 1
    again = artifacts.open(root, "trees", 2).manifest.training["command"]
    assert again == f"python -m training.classification {' '.join(command)} --model linear"


@pytest.mark.slow
def test_training_again_gives_the_same_answers(tmp_path: Path) -> None:
    one, other = (trained(make_rings(200), "place", tmp_path) for _ in range(2))
    row = [{"x": 0.5, "y": 0.5}]
    assert one.predict(row).equals(other.predict(row))
    assert json.dumps(one.report) == json.dumps(other.report)


@pytest.mark.slow
def test_noise_is_no_better_than_the_baseline_and_a_warning_says_so(tmp_path: Path) -> None:
    table = make_rings(300)
    table["place"] = np.random.default_rng(0).choice(["heads", "tails"], 300)
    said: list[str] = []
    trained(table, "place", tmp_path, say=said.append)
    assert any("no better than the baseline" in line for line in said)


@pytest.mark.slow
def test_a_column_that_holds_the_target_is_named(tmp_path: Path) -> None:
    table = make_blobs().assign(answer=lambda each: each["kind"].str.upper())
    said: list[str] = []
    trained(table, "kind", tmp_path, say=said.append, model="linear")
    [warning] = [line for line in said if "too good to be true" in line]
    assert warning.endswith("answer")


def test_a_category_that_holds_the_target_in_another_order_is_named(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"one": rng.normal(size=200), "two": rng.normal(size=200)})
    kind = pd.Series(list("wxyz") * 50)
    table["leak"] = kind.map({"w": "B", "x": "D", "y": "A", "z": "C"})
    said: list[str] = []
    trained(table.assign(kind=kind), "kind", tmp_path, say=said.append, model="linear")
    [warning] = [line for line in said if "too good to be true" in line]
    assert warning.endswith("leak")


# --- what cannot be learned -------------------------------------------------------------------


def test_a_target_with_one_label_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidData, match=r"'place' has fewer than two labels.*'here \(60 rows\)'"):
        trained(make_rings(60).assign(place="here"), "place", tmp_path)


def test_a_label_of_one_row_is_left_out_and_named(tmp_path: Path) -> None:
    table = make_rings(80)
    table.loc[7, "place"] = "on the line"
    said: list[str] = []
    model = trained(table, "place", tmp_path, say=said.append, model="linear")
    assert model.labels == ("inside", "outside")
    assert any("'on the line'" in line for line in said)


def test_rare_labels_are_left_out_in_one_line(tmp_path: Path) -> None:
    table, said = make_rings(80), list[str]()
    table.loc[[3, 7, 9], "place"] = ["on the line", "elsewhere", "elsewhere"]
    read_training_rows(Source(save(table, tmp_path), "place"), True, said.append)
    [line] = [line for line in said if line.startswith("Left out")]
    assert line.startswith("Left out 3 rows: the 2 labels have so few ('elsewhere', 'on the line')")


def test_the_target_is_no_group_and_no_time(tmp_path: Path) -> None:
    for option in ("group", "time"):
        with pytest.raises(InvalidData, match=f"--{option}: 'place' is the target"):
            trained(make_rings(60), "place", tmp_path, **{option: "place"})


def test_a_target_of_measured_numbers_is_sent_to_the_regression(tmp_path: Path) -> None:
    with pytest.raises(InvalidData, match=r"'x' has 200 different labels.*training\.regression"):
        trained(make_rings(200), "x", tmp_path)


def test_a_table_without_rows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidData, match="has a header but no rows"):
        trained(make_rings(0), "place", tmp_path)


def test_a_column_that_is_not_there_is_named_with_those_that_are(tmp_path: Path) -> None:
    for option in ("drop", "keep"):
        with pytest.raises(InvalidData, match=rf"--{option}: no column 'z'; there are 'x'"):
            trained(make_rings(60), "place", tmp_path, **{option: ("z",)})
    for option in ("group", "time"):
        with pytest.raises(InvalidData, match=rf"no column 'z'; choose --{option} from 'x'"):
            trained(make_rings(60), "place", tmp_path, **{option: "z"})


# --- more rows --------------------------------------------------------------------------------


def learn_from_more(table: pd.DataFrame, more: pd.DataFrame, target: str, folder: Path) -> str:
    """Return what is said of the rows of --extra."""
    said: list[str] = []
    more.to_csv(folder / "more.csv", index=False)
    source = Source(save(table, folder), target, extra=[folder / "more.csv"])
    read_training_rows(source, True, said.append)
    return next(line for line in said if line.startswith("Learning from"))


def test_more_rows_may_hold_only_categories_and_labels_that_look_like_numbers(
    tmp_path: Path,
) -> None:
    table, more = make_rings(120), make_rings(40, seed=9)
    table["zone"] = (["0012", "2.50", "north"] * 40)[:120]
    table["place"] = np.where(table["place"] == "inside", "2.50", "out")
    for zone in ("0012", "2.50"):
        line = learn_from_more(table, more.assign(zone=zone, place="2.50"), "place", tmp_path)
        assert line.startswith("Learning from 40 more rows")


def test_more_rows_are_observations_of_their_own_where_the_inputs_have_few_combinations(
    tmp_path: Path,
) -> None:
    rng = np.random.default_rng(0)

    def ask(count: int) -> pd.DataFrame:
        chosen = {"city": list("abcd"), "plan": list("sml"), "new": ["yes", "no"]}
        answers = {name: rng.choice(values, count) for name, values in chosen.items()}
        return pd.DataFrame(answers | {"churn": rng.choice(["left", "stayed"], count)})

    line = learn_from_more(ask(800), ask(900), "churn", tmp_path)
    assert line.startswith("Learning from 900 more rows")


@pytest.mark.slow
def test_labels_of_more_rows_may_be_written_otherwise(tmp_path: Path) -> None:
    table, more = make_rings(120), make_rings(100, seed=9)
    sides = {place: side for side, place in enumerate(sorted(table["place"].unique()))}
    for each, written in ((table, str), (more, float)):
        each["place"] = [written(sides[place]) for place in each["place"]]
    more.to_csv(tmp_path / "more.csv", index=False)
    said: list[str] = []
    options: dict[str, Any] = {"model": "linear", "extra": [tmp_path / "more.csv"]}
    trained(table, "place", tmp_path, **options, say=said.append)
    assert any("Learning from 100 more rows" in line for line in said)


@pytest.mark.slow
def test_more_rows_are_learned_from_and_never_held_out(tmp_path: Path) -> None:
    table, more = make_rings(120), make_rings(500, seed=9)
    before = trained(table, "place", tmp_path, model="boosted")
    more.loc[0, "place"] = None
    more.loc[1] = table.loc[0]  # which is held out
    more.to_csv(tmp_path / "more.csv", index=False)
    said: list[str] = []
    options: dict[str, Any] = {
        "model": "boosted",
        "extra": [tmp_path / "more.csv"],
        "say": said.append,
    }
    after = trained(table, "place", tmp_path, **options)
    assert any("Learning from 498 more rows" in line for line in said)
    assert any("left out are 1 that are held out, and 1 whose" in line for line in said)
    assert after.report["losses"]["values"].keys() == before.report["losses"]["values"].keys()
    assert float(str(after.manifest.metrics["log_loss"])) < float(
        str(before.manifest.metrics["log_loss"])
    )
    assert f"--extra {tmp_path / 'more.csv'}" in str(after.manifest.training["command"])
