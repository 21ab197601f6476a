from pathlib import Path

import pytest

from mlapp import artifacts
from mlapp.cli import main


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    status = main(arguments)
    return status, *capsys.readouterr()


def damage(folder: Path) -> None:
    (folder / "houses" / "1" / "model.joblib").write_bytes(b"broken")


@pytest.mark.usefixtures("folder")
def test_models_lists_every_version(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "models")
    header, houses, regression = out.splitlines()
    assert status == 0
    assert header.split()[:3] == ["NAME", "VERSION", "TASK"]
    assert houses.split()[:3] == ["houses", "1", "regression"]
    assert "cross-validated R² 0.868" in regression
    assert regression.split()[-4:] == ["88", "kB", "yes", "yes"]


def test_models_tells_which_version_does_not_open_and_why(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damage(folder)
    status, out, _ = run(capsys, "models")
    assert status == 0
    assert out.splitlines()[1].split()[-2:] == ["no", "yes"]
    assert "model.joblib has 6 bytes" in out


@pytest.mark.usefixtures("empty_folder")
def test_models_says_how_to_train_where_there_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "models")
    assert status == 0
    assert "python -m training.regression" in out


@pytest.mark.usefixtures("folder")
def test_verify_finds_whole_models_good(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "verify") == (0, "houses 1: ok\nregression 1: ok\n", "")
    assert run(capsys, "verify", "houses") == (0, "houses 1: ok\n", "")


def test_verify_fails_for_a_damaged_model_and_goes_on(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damage(folder)
    status, out, _ = run(capsys, "verify")
    assert status == 1
    assert "houses 1: FAILED" in out
    assert "regression 1: ok" in out


@pytest.mark.usefixtures("folder")
def test_verify_fails_for_a_model_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    status, _, err = run(capsys, "verify", "nothing")
    assert status == 1
    assert "'nothing'" in err


def test_pin_and_unpin_hold_and_release_a_version(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(capsys, "pin", "houses", "1") == (0, "houses: version 1 is served\n", "")
    assert artifacts.pinned(folder, "houses") == 1
    assert "pinned" in run(capsys, "models")[1]
    assert run(capsys, "unpin", "houses") == (0, "houses: version 1 is served\n", "")
    assert artifacts.pinned(folder, "houses") is None


@pytest.mark.usefixtures("folder")
def test_pin_refuses_a_version_that_is_not_published(capsys: pytest.CaptureFixture[str]) -> None:
    status, _, err = run(capsys, "pin", "houses", "7")
    assert status == 1
    assert "version 7" in err


@pytest.mark.usefixtures("shipped")
def test_predict_answers_one_row_or_one_text(capsys: pytest.CaptureFixture[str]) -> None:
    row = ["--var_1", "734", "--var_2", "688", "--var_3=81", "--var_4", "0.328", "--var_5", "0.259"]
    status, out, _ = run(capsys, "predict", *row)
    assert status == 0
    assert out.startswith("prediction: 0.4011354763911")
    status, out, _ = run(capsys, "predict", "Movie was pathetic", "--model", "sentiment")
    assert status == 0
    assert out.startswith("label: Negative")


@pytest.mark.usefixtures("shipped")
def test_predict_tells_what_is_wrong_and_what_is_outside(
    capsys: pytest.CaptureFixture[str],
) -> None:
    status, _, err = run(capsys, "predict", "--var_1", "abc")
    assert status == 1
    assert "var_1: got 'abc', expected a finite number" in err
    assert "var_5: got nothing" in err
    assert run(capsys, "predict", "two", "texts")[0] == 1
    row = [
        "--var_1",
        "5000",
        "--var_2",
        "688",
        "--var_3",
        "81",
        "--var_4",
        "0.328",
        "--var_5",
        "0.259",
    ]
    assert "notice: var_1: 5000 lies outside" in run(capsys, "predict", *row)[2]


def test_a_wrong_command_line_exits_with_two() -> None:
    with pytest.raises(SystemExit) as caught:
        main(["pin", "houses", "newest"])
    assert caught.value.code == 2
