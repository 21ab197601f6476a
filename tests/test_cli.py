import subprocess
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mlapp.cli import main
from mlapp.cli.main import COMMANDS, Parser
from mlapp.loaders import load_regression
from mlapp.store import artifacts
from tests.conftest import ROOT, use_artifacts
from tests.test_promotion import publish
from training.regression import train


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    status = main(arguments)
    return status, *capsys.readouterr()


def misuse(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """Return what `mlapp predict` says of words that it cannot use."""
    with pytest.raises(SystemExit) as caught:
        main(["predict", *words])
    assert caught.value.code == 2
    return capsys.readouterr().err


def damage(folder: Path) -> None:
    (folder / "houses" / "1" / "model.joblib").write_bytes(b"broken")


@pytest.mark.slow
@pytest.mark.usefixtures("folder")
def test_models_lists_every_version(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "models")
    header, houses, regression = out.splitlines()
    assert status == 0
    assert header.split()[:3] == ["NAME", "VERSION", "TASK"]
    assert houses.split()[:3] == ["houses", "1", "regression"]
    assert "cross-validated R² 0.868" in regression
    assert regression.split()[-3:] == ["kB", "yes", "yes"]


@pytest.mark.slow
def test_models_says_which_version_cannot_be_opened_and_why(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damage(folder)
    status, out, _ = run(capsys, "models")
    assert status == 0
    assert out.splitlines()[1].split()[-2:] == ["no", "refused"]
    assert "model.joblib has 6 bytes" in out


def test_models_marks_the_version_that_is_really_served(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for candidate in (False, False, True):
        publish(folder, candidate=candidate)
    (folder / "houses" / "3" / "model.joblib").write_bytes(b"broken")
    _, out, _ = run(capsys, "models")
    ends = [line.split()[-2:] for line in out.splitlines()[1:5]]
    assert ends == [["kB", "yes"], ["yes", "yes"], ["no", "refused"], ["yes", "candidate"]]


@pytest.mark.parametrize("command", ["pin houses 1", "unpin houses", "remove houses 2"])
def test_a_command_names_the_version_that_is_served_from_then_on(
    folder: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        publish(folder, candidate=False)
    (folder / "houses" / "3" / "model.joblib").write_bytes(b"broken")
    served = 2 if command.startswith("unpin") else 1
    status, out, _ = run(capsys, *command.split())
    assert status == 0
    assert out.endswith(f"version {served} is served\n")


def test_pinning_a_damaged_version_says_that_nothing_is_served_and_why(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damage(folder)
    _, out, _ = run(capsys, "pin", "houses", "1")
    assert out.startswith("houses: nothing is served: ")
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


def test_verify_fails_for_a_damaged_model_and_continues(
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


MISTYPED = [
    "verify nope",
    "pin nope 1",
    "unpin nope",
    "remove nope 1",
    "rename nope other",
    "promote nope",
    "rollback nope",
    "history nope",
    "predict --model nope",
]


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("command", MISTYPED)
def test_a_mistyped_name_is_told_which_models_there_are(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status, _, err = run(capsys, *command.split())
    assert status == 1
    assert "'nope'" in err
    assert err.endswith("; the models there are 'houses', 'regression'\n")


@pytest.mark.usefixtures("empty_folder")
@pytest.mark.parametrize("command", ["verify", "unpin nope", "promote nope", "history nope"])
def test_where_there_are_no_models_a_command_says_how_to_train_one(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status, _, err = run(capsys, *command.split())
    assert status == 1
    assert "which has no models. To fix it: python -m training.regression" in err


def test_pin_and_unpin_hold_and_release_a_version(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(capsys, "pin", "houses", "1") == (0, "houses: version 1 is served\n", "")
    assert artifacts.pinned(folder, "houses") == 1
    assert "pinned" in run(capsys, "models")[1]
    assert run(capsys, "unpin", "houses") == (0, "houses: version 1 is served\n", "")
    assert artifacts.pinned(folder, "houses") is None


def test_unpin_says_where_nothing_is_served_any_more(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    artifacts.candidate_mark(folder, "houses", 1).touch()
    assert run(capsys, "pin", "houses", "1") == (0, "houses: version 1 is served\n", "")
    assert run(capsys, "unpin", "houses") == (0, "houses: nothing is served\n", "")
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
def test_predict_says_what_is_wrong_and_what_is_outside_the_range(
    capsys: pytest.CaptureFixture[str],
) -> None:
    status, _, err = run(capsys, "predict", "--var_1", "abc")
    assert status == 1
    assert "var_1: got 'abc', expected a finite number" in err
    assert "var_5: got nothing" in err
    assert "row 0" not in err
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


@pytest.fixture
def odd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An artifact folder with a model whose inputs have the names of options and columns."""
    names = ["model", "help", "m", "time", "version", "many_x", "a=b", "with space", "-x", "größe"]
    rng = np.random.default_rng(1)
    table = pd.DataFrame(rng.normal(size=(60, len(names))), columns=names)
    table["y"] = table.sum(axis=1) + rng.normal(size=60)
    table.to_csv(tmp_path / "odd.csv", index=False)
    root = tmp_path / "artifacts"
    train(tmp_path / "odd.csv", "y", "odd", root, say=lambda line: None)
    use_artifacts(root, monkeypatch)
    return root


@pytest.mark.usefixtures("odd")
def test_an_input_of_any_name_can_be_given(capsys: pytest.CaptureFixture[str]) -> None:
    names = ["--m", "--time", "--version", "--many_x", "--a=b", "--with space", "---x", "--größe"]
    row = [word for name in names for word in (name, "-1")]
    own = ["--set", "model=-1", "--set", "help=-1"]
    status, out, err = run(capsys, "predict", "--model", "odd", *row, *own)
    assert (status, err) == (0, "")
    joined = [f"{name}=-1" for name in names]
    assert run(capsys, "predict", "--model=odd", *joined, *own)[1] == out
    model = load_regression("odd")
    expected = model.predict([dict.fromkeys(model.schema.names, -1)])["prediction"].iloc[0]
    assert out.startswith(f"prediction: {expected}")


@pytest.mark.usefixtures("shipped")
@pytest.mark.parametrize("words", [["--m", "734"], ["--mod", "regression"], ["--var", "1"]])
def test_names_are_not_abbreviated(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    said = misuse(capsys, *words)
    assert f"there is no input {words[0].removeprefix('--')!r}; there are 'var_1', 'var_2'" in said


@pytest.mark.usefixtures("shipped")
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--var_9=1"], "there is no input 'var_9'; there are 'var_1'"),
        (["--var_1"], "--var_1 needs a value"),
        (["--var_1", "--var_2", "1"], "--var_1 needs a value"),
        (["--var_1", "1", "--var_1=2"], "the input 'var_1' has two values"),
        (["--var_1", "1", "2"], "got '2', expected --INPUT VALUE"),
        (["--set"], "--set needs INPUT=VALUE"),
        (["--set", "var_1"], "--set needs INPUT=VALUE"),
        (["--model", "regression", "good"], "regression takes inputs, not a text"),
        (["--model", "sentiment", "--var_1", "3"], "sentiment takes a text, not inputs"),
        (["two", "texts"], "sentiment takes one text, in quotes; got 2 words"),
    ],
)
def test_what_does_not_fit_the_model_is_a_usage_error(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert f"mlapp predict: error: {message}" in misuse(capsys, *words)


def test_a_wrong_command_line_exits_with_two() -> None:
    with pytest.raises(SystemExit) as caught:
        main(["pin", "houses", "newest"])
    assert caught.value.code == 2


@pytest.mark.usefixtures("shipped")
def test_a_text_that_begins_with_a_hyphen_comes_after_two_hyphens(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for words in (["--", "--great fun"], ["--model", "sentiment", "--", "-5 stars, awful"]):
        status, out, err = run(capsys, "predict", *words)
        assert (status, err) == (0, "")
        assert out.startswith("label: ")


@pytest.mark.parametrize(
    "words", ["models", "models --json", "verify", "predict great", "--help", "pin --help"]
)
@pytest.mark.slow
def test_an_output_that_cannot_be_written_is_an_error_of_one_line(words: str) -> None:
    with Path("/dev/full").open("w") as full:
        ran = subprocess.run(
            [sys.executable, "-m", "mlapp.cli", *words.split()],
            cwd=ROOT,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert ran.returncode == 1
    assert ran.stderr == "error: the output cannot be written: No space left on device\n"


@pytest.mark.parametrize(
    "words",
    ["models", "predict great", "quality regression", "log export", "log purge", "pin --help"],
)
@pytest.mark.slow
def test_a_command_with_results_needs_a_standard_output(words: str) -> None:
    ran = run_without_output(*words.split())
    assert ran.returncode == 1
    assert ran.stderr == "error: standard output cannot be written: it is closed\n"


@pytest.mark.slow
def test_a_file_is_scored_without_a_standard_output(tmp_path: Path) -> None:
    (tmp_path / "texts.csv").write_text("text\nA fine film\n")
    out = tmp_path / "scored.csv"
    ran = run_without_output(
        "score", str(tmp_path / "texts.csv"), "-o", str(out), "--text-column", "text"
    )
    assert ran.returncode == 0
    assert "A fine film" in out.read_text()


def run_without_output(*words: str) -> subprocess.CompletedProcess[str]:
    """Run a command whose standard output is closed."""
    closed = ["sh", "-c", 'exec "$@" >&-', "sh", sys.executable, "-m", "mlapp.cli"]
    return subprocess.run(
        [*closed, *words], cwd=ROOT, stderr=subprocess.PIPE, text=True, check=False
    )


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("reason", ["", "  "])
def test_an_empty_reason_to_promote_is_a_wrong_command_line(
    reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["promote", "houses", "--force", reason])
    assert exit_.value.code == 2
    assert f"argument --force: got {reason!r}, expected a reason" in capsys.readouterr().err


def test_a_file_that_cannot_be_used_is_an_error_of_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "houses" / "history.jsonl").mkdir()
    status, _, err = run(capsys, "history", "houses")
    assert status == 1
    assert err == f"error: {folder}/houses/history.jsonl: Is a directory\n"


def test_each_command_is_found_in_its_module() -> None:
    for module, names in COMMANDS.items():
        commands = Parser().add_subparsers()
        import_module(f"mlapp.cli.{module}").add_parsers(commands)
        assert tuple(commands.choices) == names


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["--help"])
    assert exit_.value.code == 0
    shown = capsys.readouterr().out
    assert all(f"\n    {name} " in shown for names in COMMANDS.values() for name in names)


@pytest.mark.parametrize("command", ["predict", "score"])
def test_processes_can_be_started_before_the_slow_imports(command: str) -> None:
    code = (
        "import sys; from mlapp.cli.main import make_parser; make_parser(sys.argv[1]);"
        "print({'numpy', 'pyarrow', 'pydantic', 'sqlalchemy'} & set(sys.modules))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, command], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert ran.stdout == "set()\n"


@pytest.mark.parametrize(
    ("replicas", "most"),
    [(["--replicas", "3"], "2"), (["--replicas=2"], "1")],
)
def test_the_most_replicas_are_no_fewer_than_the_replicas(
    replicas: list[str], most: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["serve", "--engine", "ray", *replicas, "--max-replicas", most])
    assert exit_.value.code == 2
    assert f"--max-replicas: got {most}, expected at least" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["export", "houses", "--to", "mlflow", "--out", ""], "got '', expected a path"),
        (["serve", "--api-only", "--workers", "-1"], "got '-1', expected a whole number from 1"),
        (["serve", "--port", "70000"], "got '70000', expected a port from 0 to 65535"),
        (["promote", "houses", "x"], "got 'x', expected a whole number from 1"),
        (["pin", "houses", "0"], "got '0', expected a whole number from 1"),
        (["remove", "houses", "-1"], "got '-1', expected a whole number from 1"),
        (["drift", "houses", "--days", "nan"], "got 'nan', expected a number of days"),
        (["drift", "houses", "--days", "-1"], "got '-1', expected a number of days"),
    ],
)
def test_a_number_that_makes_no_sense_is_refused(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert exit_.value.code == 2
    assert message in capsys.readouterr().err
