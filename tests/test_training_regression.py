from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LinearRegression

from mlapp.errors import InvalidData
from mlapp.families.regression import RegressionModel
from mlapp.store import artifacts, open_model
from tests.conftest import open_regression
from training.folds import random_folds
from training.least_squares import coefficients, cross_validate, fit, invert
from training.measures import describe
from training.publish import publish
from training.regression import main, train
from training.table_models import bin_ranks, left_out_error

CHAPTER_R2 = 0.8692670151914198


def quiet(line: str) -> None:
    """Say nothing."""


def made(rows: int, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame({"a": rng.normal(size=rows), "b": rng.normal(size=rows)})
    return frame.assign(output=3 * frame["a"] - frame["b"] + rng.standard_t(3, size=rows))


def saved(frame: pd.DataFrame, tmp_path: Path) -> Path:
    frame.to_csv(tmp_path / "made.csv", index=False)
    return tmp_path / "made.csv"


@pytest.mark.slow
def test_the_defaults_make_the_shipped_model_again(
    empty_folder: Path, shipped: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--artifacts", str(empty_folder)]) == 0
    ours, theirs = (artifacts.open(root, "regression") for root in (empty_folder, shipped))
    assert ours.manifest.version == 1
    same = {"bins", "created", "files", "golden", "libraries", "metrics", "training", "version"}
    assert ours.manifest.model_dump(exclude=same) == theirs.manifest.model_dump(exclude=same)
    assert ours.manifest.bins is not None
    assert theirs.manifest.bins is not None
    for edges, others in zip(ours.manifest.bins, theirs.manifest.bins, strict=True):
        assert (edges.kind, edges.name) == (others.kind, others.name)
        # Those of predictions: sums of floats differ between processors.
        assert edges.edges == pytest.approx(others.edges, rel=1e-12)
    # What was trained then is trained now, and more is said of it.
    assert theirs.manifest.training.items() <= ours.manifest.training.items()
    metrics = {key: ours.manifest.metrics[key] for key in theirs.manifest.metrics}
    assert metrics == pytest.approx(theirs.manifest.metrics, rel=1e-9)
    for one, other in zip(ours.manifest.golden, theirs.manifest.golden, strict=True):
        assert one.input == other.input
        assert one.output == pytest.approx(other.output, rel=1e-9)
    assert "R² in sample        0.8692670" in capsys.readouterr().out


@pytest.mark.slow
def test_another_run_publishes_the_next_version(tmp_path: Path) -> None:
    data = saved(made(100), tmp_path)
    versions = [train(data, root=tmp_path, say=quiet).manifest.version for _ in range(2)]
    assert versions == [1, 2]


@pytest.mark.slow
def test_the_chapters_own_table_gives_the_chapters_figure(real_data: Path, tmp_path: Path) -> None:
    published = train(real_data / "Linear_regression_dataset.csv", root=tmp_path, say=quiet)
    assert published.manifest.metrics["r2_in_sample"] == pytest.approx(CHAPTER_R2, abs=1e-12)


@pytest.mark.slow
def test_the_report_says_what_was_read_dropped_measured_and_published(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = saved(made(100).assign(same=1), tmp_path)
    assert main(["--data", str(data), "--artifacts", str(tmp_path), "--name", "made"]) == 0
    out = capsys.readouterr().out
    for part in ("Read 100 rows", "Left out column same", "RMSE", "MAE", "90% interval", "made/1"):
        assert part in out


def test_publishing_says_how_good_a_model_is_in_the_words_of_training(tmp_path: Path) -> None:
    table = made(60)
    inputs, target = table[["a", "b"]], table["output"]
    said: list[str] = []
    model = LinearRegression().fit(inputs, target)
    published = publish(model, inputs, target, "made", root=tmp_path, say=said.append)
    figures = published.manifest.metrics
    shown = [line.strip() for line in said if line.startswith("  ")]
    assert shown == [
        f"R²                {figures['r2']:.4f}",
        f"RMSE              {figures['rmse']:.6g}",
        f"MAE               {figures['mae']:.6g}",
        f"90% interval      holds {figures['coverage']:.1%} of the rows",
    ]


def test_metrics_have_words_as_names() -> None:
    found = describe({"roc_auc": 0.5, "log_loss": 0.25, "ece_in_sample": 0.125}, 0.9)
    assert [" ".join(line.split()) for line in found] == [
        "ROC AUC 0.5000",
        "log loss 0.2500",
        "calibration error in sample 0.1250",
    ]


def test_bad_data_ends_with_status_one_and_publishes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--data", str(tmp_path / "nothing.csv"), "--artifacts", str(tmp_path)]) == 1
    assert "nothing.csv" in capsys.readouterr().err
    assert artifacts.names(tmp_path) == []


@pytest.mark.slow
def test_the_manifest_knows_how_it_was_trained(tmp_path: Path) -> None:
    data = saved(made(100), tmp_path)
    manifest = train(data, name="made", root=tmp_path, say=quiet).manifest
    assert (
        manifest.training["command"] == f"python -m training.regression --data {data} --name made"
    )
    assert manifest.training["rows_used"] == 100
    assert manifest.data.source == "made.csv"
    assert set(manifest.libraries) == {"mlapp", "numpy", "scikit-learn", "joblib"}


def test_the_interval_holds_its_share_of_held_out_rows_without_a_normal_distribution() -> None:
    frame = made(3000)
    encoded, output = frame[["a", "b"]].to_numpy(), frame["output"].to_numpy()
    prediction, lower, upper = cross_validate(encoded, output, random_folds(np.arange(3000), 10)).T
    assert np.mean((lower <= output) & (output <= upper)) == pytest.approx(0.9, abs=0.02)
    assert (lower < prediction).all()


def test_the_shipped_interval_holds_its_share_of_held_out_rows(shipped: Path) -> None:
    metrics = open_model(shipped, "regression").manifest.metrics
    assert metrics["coverage"] == pytest.approx(0.9, abs=0.02)


def test_leave_one_out_residuals_are_those_of_fits_without_the_row() -> None:
    frame = made(30)
    encoded, output = frame[["a", "b"]].to_numpy(), frame["output"].to_numpy()
    left_out = []
    for row in range(len(output)):
        others = np.arange(len(output)) != row
        without = fit(encoded[others], output[others])
        standardised = without.pipeline["scale"].transform(encoded[[row]])
        factor = np.sqrt(1 + without.interval.leverage(standardised)[0])
        left_out.append(abs(output[row] - without.predict(encoded[[row]])[0, 0]) / factor)
    rank = int(np.ceil(31 * 0.9))
    assert fit(encoded, output).interval.quantile == pytest.approx(np.sort(left_out)[rank - 1])


def test_a_row_that_the_fit_passes_through_does_not_narrow_the_interval() -> None:
    frame = made(60).assign(alone=0.0)
    frame.loc[0, "alone"] = 1.0
    with_it = fit(frame[["a", "b", "alone"]].to_numpy(), frame["output"].to_numpy())
    without = fit(frame[["a", "b"]].to_numpy()[1:], frame["output"].to_numpy()[1:])
    assert with_it.interval.quantile >= without.interval.quantile


@pytest.mark.slow
def test_coefficients_come_in_the_inputs_own_units_with_limits(tmp_path: Path) -> None:
    train(saved(made(2000), tmp_path), root=tmp_path, say=quiet)
    entries = open_regression(tmp_path).report["coefficients"]
    assert [entry["term"] for entry in entries] == ["(intercept)", "a", "b"]
    for entry, truth in zip(entries, [0, 3, -1], strict=True):
        assert entry["estimate"] == pytest.approx(truth, abs=0.2)
        assert entry["lower"] < entry["estimate"] < entry["upper"]


@pytest.mark.slow
def test_a_sum_of_other_columns_is_left_out(tmp_path: Path) -> None:
    frame = made(100)
    said: list[str] = []
    total = frame.assign(total=2 * frame["a"] + frame["b"] + 5)
    train(saved(total, tmp_path), root=tmp_path, say=said.append)
    assert any("Left out column total: it is a linear combination" in line for line in said)


def test_too_few_rows_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidData, match="12 usable rows, 12 of them different"):
        train(saved(made(12), tmp_path), root=tmp_path, say=quiet)


def test_a_refusal_for_few_rows_says_how_many_lack_the_target(tmp_path: Path) -> None:
    frame = made(100)
    frame.loc[12:, "output"] = np.nan
    with pytest.raises(InvalidData, match=r"12 usable rows \(the target is not usable in 88 more"):
        train(saved(frame, tmp_path), root=tmp_path, say=quiet)


@pytest.mark.slow
def test_a_perfect_fit_has_an_interval_of_no_width(tmp_path: Path) -> None:
    frame = made(100)
    train(saved(frame.assign(output=2 * frame["a"]), tmp_path), root=tmp_path, say=quiet)
    answer = open_regression(tmp_path).predict([{"a": 1.0, "b": 0.0}]).iloc[0]
    assert answer["prediction"] == pytest.approx(2)
    assert answer["upper"] - answer["lower"] == pytest.approx(0, abs=1e-9)


@pytest.mark.slow
def test_many_held_out_rows_are_sampled_for_the_report(tmp_path: Path) -> None:
    train(saved(made(2500), tmp_path), root=tmp_path, say=quiet)
    held_out = open_regression(tmp_path).report["held_out"]
    assert {len(values) for values in held_out.values()} == {2000}


def test_golden_rows_cover_categories_and_missing_values(trained: Path) -> None:
    golden = open_model(trained, "houses").manifest.golden
    assert {row.input["district"] for row in golden} == {"east", "north", "west"}
    assert any(row.input["rooms"] is None for row in golden)


# --- repeated and empty rows ------------------------------------------------------------------


def make_noise(rows: int, times: int) -> pd.DataFrame:
    """Return inputs that say nothing about the output, each row several times."""
    rng = np.random.default_rng(5)
    table = pd.DataFrame(rng.normal(size=(rows, 5)), columns=list("abcde"))
    table["output"] = rng.normal(size=rows)
    return pd.concat([table] * times)


@pytest.mark.slow
def test_copies_of_a_row_stay_together_so_that_noise_predicts_nothing(tmp_path: Path) -> None:
    lines: list[str] = []
    once = train(saved(make_noise(60, 1), tmp_path), name="once", root=tmp_path, say=quiet)
    copied = saved(make_noise(60, 5), tmp_path)
    five = train(copied, name="five", root=tmp_path, say=lines.append)
    metrics = five.manifest.metrics
    assert float(str(metrics["r2"])) < 0.02
    assert float(str(metrics["coverage"])) == pytest.approx(0.9, abs=0.05)
    # The copies add nothing: the interval is as wide as without them.
    half = float(str(once.manifest.metrics["half_width"]))
    assert float(str(metrics["half_width"])) == pytest.approx(half, rel=0.1)
    assert "240 rows repeat another; they are kept, and stay in one fold with it" in lines


def test_residuals_of_copies_are_those_of_fits_without_any_of_them() -> None:
    frame = make_noise(15, 2)
    encoded, output = frame[list("ab")].to_numpy(), frame["output"].to_numpy().copy()
    output[15:] += 0.5  # a second observation of the same inputs
    groups = np.tile(np.arange(15), 2)
    left_out = []
    for row, group in enumerate(groups):
        others = groups != group
        without = fit(encoded[others], output[others], groups=groups[others])
        # The leverage as the whole fit scales it, without the group.
        scaler = fit(encoded, output, groups=groups).pipeline["scale"]
        z = np.column_stack([np.ones(30), scaler.transform(encoded)])
        inverse = np.linalg.inv(z[others].T @ z[others])
        factor = np.sqrt(1 + z[row] @ inverse @ z[row])
        left_out.append(abs(output[row] - without.predict(encoded[[row]])[0, 0]) / factor)
    rank = int(np.ceil(16 * 0.9 * 2))
    found = fit(encoded, output, groups=groups).interval.quantile
    assert found == pytest.approx(np.sort(left_out)[rank - 1])


@pytest.mark.slow
def test_rows_that_share_few_combinations_are_different_observations(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    table = pd.DataFrame({"site": rng.choice(["east", "west", "north"], 200)})
    table["output"] = table["site"].map({"east": 1.0, "west": 5.0, "north": 9.0})
    table["output"] += rng.normal(size=200)
    metrics = train(saved(table, tmp_path), name="sites", root=tmp_path, say=quiet).manifest.metrics
    assert float(str(metrics["r2"])) > 0.8


def test_copies_of_few_rows_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidData, match="75 usable rows, 15 of them different"):
        train(saved(make_noise(15, 5), tmp_path), name="few", root=tmp_path, say=quiet)


def make_birds(rows: int) -> pd.DataFrame:
    """Return a table in the shape of the public one of penguins: some rows are nearly empty."""
    rng = np.random.default_rng(4)
    table = pd.DataFrame(
        {
            "species": rng.choice(["Adelie", "Chinstrap", "Gentoo"], rows),
            "island": rng.choice(["Biscoe", "Dream", "Torgersen"], rows),
            "bill_length_mm": rng.normal(44, 5, rows).round(1),
            "bill_depth_mm": rng.normal(17, 2, rows).round(1),
            "flipper_length_mm": rng.normal(200, 14, rows).round(),
            "output": rng.normal(4200, 800, rows).round(),
            "sex": rng.choice(["female", "male"], rows),
            "year": rng.choice([2007, 2008, 2009], rows),
        }
    )
    measured = ["bill_length_mm", "bill_depth_mm", "flipper_length_mm", "sex"]
    table.loc[3, measured] = None
    table.loc[rows - 5, [*measured, "output"]] = None
    table.loc[8:11, "sex"] = None
    return table


@pytest.mark.slow
@pytest.mark.parametrize("rows", [45, 344, 4000])
def test_rows_that_are_empty_in_several_columns_train(rows: int, tmp_path: Path) -> None:
    data = tmp_path / "made.csv"
    make_birds(rows).to_csv(data, index=False, na_rep="NA")
    model = RegressionModel(train(data, name="birds", root=tmp_path, say=quiet))
    empty = {spec.name: None if spec.missing else spec.typical for spec in model.schema.inputs}
    assert np.isfinite(model.predict([empty]).to_numpy()).all()
    checked = model.check(make_birds(rows).dropna(subset="output"))
    encoded = model.schema.encode(checked)
    output = make_birds(rows)["output"].dropna().to_numpy()
    entries = coefficients(fit(encoded, output), model.schema, encoded, output)
    limits = pd.DataFrame(entries)[["estimate", "lower", "upper"]]
    assert np.isfinite(limits.to_numpy()).all()


def test_directions_in_which_rows_do_not_differ_have_no_leverage() -> None:
    # Columns that are equal but for rounding, as indicators of the same few empty rows are.
    rng = np.random.default_rng(0)
    gram = np.ones((3, 3)) * 4000 + np.diag(rng.normal(size=3)) * 1e-11
    inverse = invert(gram)
    assert (np.linalg.eigvalsh(inverse) > -1e-12).all()
    assert np.abs(inverse).max() < 1e-3


@pytest.mark.slow
def test_a_number_that_gives_the_target_up_and_down_is_named(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"leak": rng.integers(-4, 5, 400), "noise": rng.normal(size=400)})
    frame["code"] = rng.permutation([f"c{place % 50}" for place in range(400)])
    frame["output"] = frame["leak"] ** 2 + 0.02 * frame["noise"]
    said: list[str] = []
    train(saved(frame, tmp_path), root=tmp_path, model="boosted", say=said.append)
    [warning] = [line for line in said if "too good to be true" in line]
    assert warning.endswith("leak")


def test_many_categories_are_not_closest_by_chance() -> None:
    rng = np.random.default_rng(0)
    target = rng.normal(size=80)
    hint = target + rng.normal(size=80)
    for size in (1, 2):
        codes = (rng.permutation(80) // size).astype(float)
        assert left_out_error(codes, [target]) > left_out_error(bin_ranks(hint), [target])
    assert np.bincount(bin_ranks(hint).astype(int)).tolist() == [0] + [10] * 8
    assert left_out_error(bin_ranks(np.full(80, np.nan)), [target]) > 0.99 * 80 * np.var(target)
