import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LinearRegression

DATA = Path(__file__).resolve().parents[1] / "data"
SHIPPED = DATA / "linear_regression_dataset.csv"


@pytest.mark.nightly
@pytest.mark.slow(13)
def test_the_shipped_table_is_made_again_bit_for_bit(tmp_path: Path) -> None:
    made = tmp_path / "made.csv"
    command = [sys.executable, str(DATA / "make_linear_regression_dataset.py"), str(made)]
    subprocess.run(command, check=True, capture_output=True)
    assert made.read_bytes() == SHIPPED.read_bytes()


def test_the_shipped_reviews_are_made_again_bit_for_bit(tmp_path: Path) -> None:
    made = tmp_path / "made.tsv"
    command = [sys.executable, str(DATA / "make_reviews_sample.py"), str(made)]
    subprocess.run(command, check=True, capture_output=True)
    assert made.read_bytes() == (DATA / "reviews_sample.tsv").read_bytes()


@pytest.mark.slow
def test_the_shipped_reviews_are_a_few_hundred_of_either_label_and_none_of_the_real_ones(
    real_data: Path,
) -> None:
    ours = pd.read_csv(DATA / "reviews_sample.tsv", sep="\t", quoting=3)
    assert ours["sentiment"].value_counts().to_dict() == {"Negative": 240, "Positive": 240}
    assert ours["review"].is_unique
    theirs = pd.read_csv(real_data / "reviews_dataset.tsv.zip", sep="\t", quoting=3)
    assert not set(ours["review"]) & set(theirs["review"].str.strip('"'))


def test_a_fit_on_the_shipped_table_has_the_chapters_figures() -> None:
    table = pd.read_csv(SHIPPED)
    inputs, output = table.drop(columns="output"), table["output"]
    fitted = LinearRegression().fit(inputs, output)
    assert table.shape == (1232, 6)
    assert fitted.score(inputs, output) == pytest.approx(0.8692670151914198, abs=1e-12)
    coefficients = [3.40469932e-04, 5.28843636e-05, 1.88543327e-04, -6.57578433e-01, 4.97636500e-01]
    np.testing.assert_allclose(fitted.coef_, coefficients, rtol=1e-8)
    assert fitted.intercept_ == pytest.approx(0.1863719666706, abs=1e-12)


def test_the_shipped_table_has_the_moments_of_the_chapters_and_none_of_its_rows(
    real_data: Path,
) -> None:
    ours = pd.read_csv(SHIPPED)
    theirs = pd.read_csv(real_data / "Linear_regression_dataset.csv", encoding="utf-8-sig")
    np.testing.assert_allclose(ours.mean(), theirs.mean(), rtol=1e-14)
    np.testing.assert_allclose(ours.cov(), theirs.cov(), rtol=1e-10)
    assert len(ours.merge(theirs)) == 0
