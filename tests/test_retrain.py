"""Retraining with judged answers, the gate on them, and replay, through the command."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import RandomForestRegressor
from sklearn.linear_model import LinearRegression, LogisticRegression

import mlapp
from mlapp import answering, loaders
from mlapp.cli import main
from mlapp.errors import TrainingError
from mlapp.records import confirmed, feedback
from mlapp.records import writer as records
from mlapp.records.confirmed import Confirmed
from mlapp.records.feedback import Given
from mlapp.scoring import candidates
from mlapp.scoring.candidates import judge_confirmed
from mlapp.scoring.retraining import describe_replay, find_option, set_data
from mlapp.store import artifacts, promotion
from mlapp.store.learned import fingerprint, load_learned
from tests import stand_in_training
from tests.conftest import make_houses, make_moods, quiet, use_artifacts
from tests.test_pages_monitor import page
from training import regression, sentiment

NAME = "plots"


@pytest.fixture
def plots(
    houses_csv: Path, recording: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A folder with the model `plots`, whose answers are recorded with their inputs."""
    root, data = tmp_path / "artifacts", tmp_path / "houses.csv"
    shutil.copy(houses_csv, data)
    monkeypatch.setenv("MLAPP_LOG_INPUTS", "values")
    use_artifacts(root, monkeypatch)
    stand_in_training.main(
        ["--data", str(data), "--target", "price", "--name", NAME, "--artifacts", str(root)]
    )
    return root


def ask(name: str, instances: Sequence[object]) -> answering.Answered:
    model = loaders.load_model(name)
    answered = answering.answer(model, model.check(list(instances)), "v1")
    log = records.writer()
    assert log is not None
    assert log.flush()
    return answered


def judge(root: Path, answered: answering.Answered, truths: list[float] | list[str]) -> None:
    log = records.writer()
    assert log is not None
    given = [Given(f"{answered.id}-{place}", truth) for place, truth in enumerate(truths)]
    feedback.give(log.database, root, given, "v1")


def judge_plots(root: Path, shift: float, count: int = 150) -> None:
    """Ask about plots, and say that each is worth so much more than was answered."""
    rng = np.random.default_rng(2)
    rows = [{"area": float(a), "rooms": 3.0} for a in rng.uniform(40, 200, count).round(2)]
    answered = ask(NAME, rows)
    predicted = answered.answers.tensors()["prediction"] + rng.normal(0, 5, count)
    judge(root, answered, (predicted + shift).tolist())


@pytest.mark.slow
def test_a_candidate_learns_from_judged_answers_and_is_promoted_when_it_is_better(
    plots: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    judge_plots(plots, shift=80)
    assert main(["retrain", NAME]) == 0
    told = capfd.readouterr().out
    learned, held_back = (len(each) for each in sides())
    versions = [artifacts.open(plots, NAME, version) for version in (1, 2)]
    known = frozenset[str]().union(*map(load_learned, versions))
    judging = sum(fingerprint(each.inputs) not in known for each in sides()[1])
    assert learned + held_back == 150
    assert held_back - 2 <= judging <= held_back
    assert f"150 answers of {NAME} have feedback: {learned} for training, {held_back} held" in told
    assert artifacts.candidates(plots, NAME) == [2]
    assert "judged answers: better; mean squared error" in told
    assert f"on {judging} rows" in told
    assert "Of the last 150 recorded rows, 150 are answered differently" in told
    assert "instead of" in told
    assert loaders.load_model(NAME).manifest.version == 1
    app = page("versions")
    assert any(each.value.startswith("Better; mean squared error") for each in app.success)
    [table] = [each.value for each in app.dataframe if "candidate_difference" in each.value]
    assert len(table) == 100
    assert told.splitlines()[-1] == "To serve it: mlapp promote plots 2"
    assert main(["promote", NAME]) == 0
    assert loaders.load_model(NAME).manifest.version == 2
    [change] = promotion.history(plots, NAME)
    assert "held-out rows" in change.reason
    assert "judged answers: better" in change.reason


@pytest.mark.slow
def test_a_candidate_that_is_worse_on_judged_answers_is_refused_unless_forced(
    plots: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    judge_plots(plots, shift=0)  # and the command makes candidates that are 80 off
    assert main(["retrain", NAME]) == 0
    last = capfd.readouterr().out.splitlines()[-1]
    assert last == "It is worse. To serve it anyway: mlapp promote plots 2 --force WHY"
    assert main(["promote", NAME]) == 1
    assert "plots 2 is not promoted: judged answers: worse" in capfd.readouterr().err
    assert loaders.load_model(NAME).manifest.version == 1
    assert main(["promote", NAME, "--force", "prices rise on Monday"]) == 0
    [change] = promotion.history(plots, NAME)
    assert (change.forced, change.reason) == (True, "prices rise on Monday")


def test_one_question_judged_often_is_one_observation(plots: Path, tmp_path: Path) -> None:
    where = ["--data", str(tmp_path / "houses.csv"), "--artifacts", str(plots)]
    shifted = ["--target", "price", "--name", NAME, "--shift", "80", "--candidate"]
    stand_in_training.main([*where, *shifted])
    served, worse = loaders.load_model(NAME), loaders.load_model(NAME, version=2)
    rows = [{"area": area, "rooms": 3} for area in range(40, 80)]
    truths = ask(NAME, list(rows)).answers.tensors()["prediction"].tolist()
    once = [Confirmed(row, truth) for row, truth in zip(rows, truths, strict=True)]
    often = [Confirmed({"area": 40.0, "rooms": 3.0}, truths[0] + place) for place in range(40)]
    verdict = judge_confirmed(served, worse, often)
    assert (verdict.rows, verdict.worse) == (1, False)
    verdict = judge_confirmed(served, worse, [*once, *often])
    assert (verdict.rows, verdict.worse) == (40, True)


def sides() -> tuple[list[confirmed.Confirmed], list[confirmed.Confirmed]]:
    log = records.writer()
    assert log is not None
    found = confirmed.read(log.database, NAME)
    return found.learned, found.held_back


def test_what_judges_versions_is_never_learned_from(plots: Path) -> None:
    judge_plots(plots, shift=80, count=300)
    learned, held_back = sides()
    assert 70 <= len(held_back) <= 130
    judge_plots(plots, shift=80, count=300)  # the same questions again
    assert [len(each) for each in sides()] == [2 * len(learned), 2 * len(held_back)]
    asked = [{json.dumps(dict(each.inputs)) for each in side} for side in sides()]
    assert not asked[0] & asked[1]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["row", "text"])
def test_answers_about_what_a_version_learned_from_do_not_judge_it(
    kind: str, plots: Path, tmp_path: Path
) -> None:
    name, data = "known", tmp_path / "known.csv"
    table = make_houses(300) if kind == "row" else make_moods(300)
    table.iloc[:150].to_csv(data, index=False)
    for candidate in (False, True):
        options: dict[str, Any] = {"name": name, "root": plots, "say": quiet}
        options["candidate"] = candidate
        if kind == "row":
            regression.train(data, "price", model="linear", **options)
        else:
            sentiment.train(data, **options)
    # A text is known however its spaces and punctuation are.
    texts = table.get("review", pd.Series(dtype=object)) + " !\n"
    given = table.drop(columns="price").to_dict("records") if kind == "row" else texts
    target = table.price if kind == "row" else table.sentiment
    judge(plots, ask(name, list(given)), target.tolist())
    log = records.writer()
    assert log is not None
    _, verdict = candidates.judge(plots, log.database, name, 2)
    held_back = [place for place, each in enumerate(given) if confirmed.is_held_back(row_of(each))]
    assert verdict.rows == sum(place >= 150 for place in held_back)
    assert 30 < verdict.rows < len(held_back)


@pytest.mark.slow
def test_answers_are_known_to_versions_whose_data_spelled_them_otherwise(
    plots: Path, tmp_path: Path
) -> None:
    rng = np.random.default_rng(3)
    table = pd.DataFrame(
        {"x": rng.normal(size=400).round(5), "new": rng.choice([True, False], 400)}
    )
    table["y"] = (3 * table.x + 2 * table.new + rng.normal(size=400)).round(5)
    table[:300].to_csv(tmp_path / "first.csv", index=False)
    table.to_excel(tmp_path / "all.xlsx", index=False)
    options: dict[str, Any] = {"name": "known", "root": plots, "say": quiet, "model": "linear"}
    regression.train(tmp_path / "first.csv", "y", **options)
    regression.train(tmp_path / "all.xlsx", "y", candidate=True, **options)
    asked = table.drop(columns="y").assign(new=table.new.map(str)).to_dict("records")
    judge(plots, ask("known", list(asked)), table.y.tolist())
    log = records.writer()
    assert log is not None
    held_out, judged = candidates.judge(plots, log.database, "known", 2)
    assert (held_out.rows, judged.rows) == (300, 0)


def test_answers_about_rows_of_a_published_estimator_do_not_judge_it(plots: Path) -> None:
    table = make_houses(300)[["area", "rooms", "price"]].dropna()
    table = table.drop_duplicates(["area", "rooms"], ignore_index=True)
    inputs, known = table[["area", "rooms"]], len(table) // 2
    for rows, candidate in ((10, False), (known, True)):
        forest = RandomForestRegressor(5, random_state=0).fit(inputs[:rows], table.price[:rows])
        data = (inputs[:rows], table.price[:rows])
        mlapp.publish(forest, *data, "known", root=plots, candidate=candidate, say=quiet)
    given = [{"area": area, "rooms": rooms} for area, rooms in inputs.to_numpy().tolist()]
    judge(plots, ask("known", list(given)), table.price.tolist())
    log = records.writer()
    assert log is not None
    _, verdict = candidates.judge(plots, log.database, "known", 2)
    held_back = [place for place, each in enumerate(given) if confirmed.is_held_back(each)]
    assert verdict.rows == sum(place >= known for place in held_back)


def test_what_is_equal_is_on_one_side_however_it_is_written() -> None:
    texts = [f"A gloomy sea, seen {n} times" for n in range(100)]
    for text in texts:
        written = (text, f"{text}\n", text.replace(" ", "  ").lower(), f"{text}!")
        assert len({confirmed.is_held_back({"text": each}) for each in written}) == 1
    assert 15 < sum(confirmed.is_held_back({"text": text}) for text in texts) < 55
    for area in range(20):
        rows: list[dict[str, object]] = [
            {"area": float(area), "balance": 0.0, "new": "True"},
            {"area": float(area), "balance": -0.0, "new": "true"},
        ]
        assert len({confirmed.is_held_back(row) for row in rows}) == 1
        assert len({fingerprint(row) for row in rows}) == 1


def test_inputs_may_be_named_like_the_columns_of_a_candidate(plots: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    names = ["candidate_prediction", "candidate__difference"]
    inputs = pd.DataFrame(rng.normal(size=(300, 2)), columns=names)
    price = inputs.sum(axis=1) + rng.normal(size=300)
    for rows, candidate in ((20, False), (60, True)):
        fitted = LinearRegression().fit(inputs[:rows], price[:rows])
        data = (inputs[:rows], price[:rows])
        mlapp.publish(fitted, *data, "named", root=plots, candidate=candidate, say=quiet)
    judge(plots, ask("named", inputs[60:].to_dict("records")), price[60:].tolist())
    log = records.writer()
    assert log is not None
    assert candidates.judge(plots, log.database, "named", 2)[1].rows > 50
    served, waiting = loaders.load_model("named"), loaders.load_model("named", version=2)
    found = candidates.replay(log.database, served, waiting)
    assert found is not None
    assert found.compared == 240
    lines = list(describe_replay(found, served, waiting))
    assert "for candidate_prediction = " in lines[1]
    assert "candidate__difference = " in lines[1]


@pytest.mark.slow(4)
def test_rows_whose_labels_differ_most_are_listed_once_with_probabilities(plots: Path) -> None:
    inputs = pd.DataFrame({"area": np.arange(40.0, 100.0), "rooms": 3.0})
    for limit, candidate in ((60, False), (75, True)):
        labels = np.where(inputs.area < limit, "small", "large")
        fitted = LogisticRegression().fit(inputs, labels)
        mlapp.publish(fitted, inputs, labels, "sizes", root=plots, candidate=candidate, say=quiet)
    asked = [{"area": 67.0, "rooms": 3.0}] * 15 + [{"area": 80.0, "rooms": 3.0}]
    ask("sizes", asked)
    log = records.writer()
    assert log is not None
    served, waiting = loaders.load_model("sizes"), loaders.load_model("sizes", version=2)
    found = candidates.replay(log.database, served, waiting)
    lines = list(describe_replay(found, served, waiting))[1:]
    assert len(lines) == 2
    own, other = (model.answer(model.check(asked[:1])).records()[0] for model in (waiting, served))
    assert (own["label"], other["label"]) == ("small", "large")
    wanted = f": 'small' at {own['probability']:.1%} instead of 'large' at"
    assert f"{wanted} {other['probability']:.1%}, for area = 67.0, rooms = 3.0" in lines[0]


def test_answers_of_another_kind_are_left_out_and_counted(
    plots: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    judge_plots(plots, shift=80, count=30)
    inputs = pd.DataFrame({"area": np.arange(40.0, 100.0), "rooms": 3.0})
    labels = np.where(inputs.area < 70, "small", "large")
    fitted = LogisticRegression().fit(inputs, labels)
    command = (plots / NAME / "1" / artifacts.MANIFEST).read_text()
    mlapp.publish(
        fitted,
        inputs,
        labels,
        NAME,
        root=plots,
        command=json.loads(command)["training"]["command"],
        say=quiet,
    )
    judge(plots, ask(NAME, inputs.to_dict("records")), labels.tolist())
    capfd.readouterr()
    assert main(["retrain", NAME, "--dry-run"]) == 0
    told = capfd.readouterr().out
    assert "90 answers of plots have feedback" in told
    assert "30 left out, of versions with another kind of answer" in told


def row_of(given: object) -> dict[str, object]:
    """Return an instance as it is recorded."""
    if isinstance(given, str):
        return {"text": given}
    assert isinstance(given, dict)
    return {key: None if value != value else value for key, value in given.items()}


def test_a_renamed_model_is_trained_again_under_its_new_name(
    plots: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["rename", NAME, "lots"]) == 0
    data = str(plots.parent / "houses.csv")
    assert main(["retrain", "lots", "--data", data, "--dry-run"]) == 0
    [command] = [line for line in capfd.readouterr().out.splitlines() if "Running" in line]
    assert command.count("--name") == 1
    assert " --name lots " in command


def test_a_dry_run_says_what_would_be_done_and_does_nothing(
    plots: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    judge_plots(plots, shift=80, count=30)
    capfd.readouterr()
    assert main(["retrain", NAME, "--dry-run"]) == 0
    told = capfd.readouterr().out
    assert "Running python -m tests.stand_in_training --data" in told
    assert f"--candidate --artifacts {plots.resolve()} --feedback" in told
    assert artifacts.versions(plots, NAME) == [1]


def test_without_judged_answers_there_is_nothing_to_learn(
    plots: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["retrain", NAME]) == 1
    assert "There is nothing new to train plots on" in capfd.readouterr().err
    monkeypatch.setenv("MLAPP_LOG_INPUTS", "none")
    records.close()
    judge_plots(plots, shift=80, count=30)
    assert main(["retrain", NAME]) == 1
    told = capfd.readouterr()
    assert "0 for training, 0 held back to compare versions, 30 without their inputs" in told.out
    assert "(MLAPP_LOG_INPUTS=values keeps them)" in told.out
    assert "There is nothing new" in told.err


def test_data_that_are_gone_are_asked_for(plots: Path, capfd: pytest.CaptureFixture[str]) -> None:
    judge_plots(plots, shift=80, count=30)
    (plots.parent / "houses.csv").rename(plots.parent / "moved.csv")
    assert main(["retrain", NAME]) == 1
    assert "say where it is: --data FILE" in capfd.readouterr().err
    assert main(["retrain", NAME, "--data", "nowhere.csv"]) == 1
    assert "--data: there is no file nowhere.csv" in capfd.readouterr().err
    moved = str(plots.parent / "moved.csv")
    assert main(["retrain", NAME, "--data", moved, "--dry-run"]) == 0
    assert f"--data {moved}" in capfd.readouterr().out


@pytest.mark.slow
def test_a_training_that_fails_shows_its_last_lines(
    plots: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    set_command(plots, f"python -m tests.stand_in_training --data {plots} --target x --fail")
    judge_plots(plots, shift=80, count=30)
    assert main(["retrain", NAME]) == 1
    told = capfd.readouterr().err
    assert "The training failed with exit status 7. Its last lines:" in told
    assert "the disk of the stand-in is broken" in told
    assert artifacts.versions(plots, NAME) == [1]


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("", "has no command that trains it again"),
        ("mlapp publish plots.joblib --data x.csv", "was published as it was fitted"),
        ("make plots", "expected python -m MODULE"),
        ("python -m 'tests", "expected python -m MODULE"),
    ],
)
def test_a_version_without_a_training_command_says_so(
    plots: Path, command: str, said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    set_command(plots, command)
    assert main(["retrain", NAME]) == 1
    assert said in capfd.readouterr().err


def set_command(root: Path, command: str) -> None:
    """Let the manifest say another command."""
    file = root / NAME / "1" / artifacts.MANIFEST
    stated = json.loads(file.read_bytes())
    stated.pop("digest")
    stated["training"]["command"] = command
    artifacts.write_manifest(file, stated)


@pytest.mark.slow
def test_a_text_model_goes_round_the_whole_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from training import sentiment

    root, data = tmp_path / "artifacts", tmp_path / "moods.csv"
    make_moods().rename(columns={"review": "said", "sentiment": "mood"}).to_csv(data, index=False)
    monkeypatch.delenv("MLAPP_DATABASE_URL")
    monkeypatch.setenv("MLAPP_LOG_INPUTS", "values")
    use_artifacts(root, monkeypatch)
    records.close()
    columns = ["--text-column", "said", "--label-column", "mood", "--model", "linear"]
    where = ["--data", str(data), "--name", "moods", "--artifacts", str(root)]
    assert sentiment.main([*where, *columns]) == 0
    answered = ask("moods", [f"we saw a gloomy sea, twice\n{n}" for n in range(150)])
    judge(root, answered, ["angry"] * 150)
    assert main(["retrain", "moods"]) == 0
    told = capfd.readouterr().out
    assert "held-out rows: no different; mean log loss" in told
    assert "on 180 rows" in told
    assert "judged answers: better" in told
    assert main(["promote", "moods"]) == 0
    after = ask("moods", ["a gloomy sea"])
    assert after.answers.records()[0]["label"] == "angry"
    assert main(["rollback", "moods", "--because", "it is a drill"]) == 0
    before = ask("moods", ["a gloomy sea"])
    assert before.answers.records()[0]["label"] == answered.answers.records()[0]["label"]
    actions = [each.action for each in promotion.history(root, "moods")]
    assert actions == ["promoted", "rolled back"]
    records.close()


def test_options_are_found_in_both_spellings() -> None:
    words = ["training.x", "--data", "a.csv", "--seed=3"]
    assert (find_option(words, "--data"), find_option(words, "--seed")) == ("a.csv", "3")
    assert set_data(words, Path(__file__)) == ["training.x", "--seed=3", "--data", __file__]
    assert set_data(["training.x", "--data", "imdb"], None) == ["training.x", "--data", "imdb"]
    with pytest.raises(TrainingError, match="say where it is"):
        set_data(words, None)


@pytest.mark.parametrize(
    ("data", "kept"),
    [
        ("new.csv", ["--encoding=koi8-r", "--decimal", ","]),
        ("new.xlsx", ["--sheet", "second"]),
        ("new.parquet", []),
        ("texts", ["--encoding=koi8-r"]),
        ("unnamed.bin", ["--encoding=koi8-r", "--decimal", ",", "--sheet", "second"]),
    ],
)
def test_options_to_read_the_data_are_kept_where_they_apply_to_the_new_data(
    tmp_path: Path, data: str, kept: list[str]
) -> None:
    path = tmp_path / data
    if data == "texts":
        path.mkdir()
    else:
        path.touch()
    words = ["training.x", "--data", "a.csv", "--seed", "3"]
    reading = ["--encoding=koi8-r", "--decimal", ",", "--sheet", "second"]
    expected = ["training.x", "--seed", "3", *kept, "--data", str(path)]
    assert set_data([*words, *reading], path) == expected


def test_more_rows_of_the_training_are_looked_for_before_it_begins(tmp_path: Path) -> None:
    data, more = tmp_path / "data.csv", tmp_path / "more.csv"
    words = ["training.x", "--data", str(data), "--extra", str(more)]
    for path in (data, more):
        with pytest.raises(TrainingError, match=r"is not in"):
            set_data(words, None)
        path.touch()
    assert set_data(words, None) == words


@pytest.mark.slow
def test_a_model_is_trained_again_with_its_own_extra_rows_and_with_judged_answers(
    plots: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    table, data, more = make_houses(300), tmp_path / "data.csv", tmp_path / "more.csv"
    table[:200].to_csv(data, index=False)
    table[200:].to_csv(more, index=False)
    words = ["--data", str(data), "--target", "price", "--name", "houses", "--model", "linear"]
    assert regression.main([*words, "--extra", str(more), "--artifacts", str(plots)]) == 0
    given = table[:60].drop(columns="price")
    judge(plots, ask("houses", given.to_dict("records")), table.price[:60].add(1).tolist())
    assert main(["retrain", "houses"]) == 0
    told = capfd.readouterr().out
    assert f"more rows of {more}" in told
    assert "judged answers; left out are 0 that are held out" in told
    commands = [artifacts.open(plots, "houses", each).manifest.training for each in (1, 2)]
    assert commands[0]["command"] == commands[1]["command"]
    assert f"--extra {more}" in str(commands[1]["command"])
    assert [each.get("judged_answers") for each in commands] == [None, True]
