"""Was it right: feedback over HTTP, from files, and the live quality that follows from it."""

import json
import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sqlalchemy import select
from streamlit.testing.v1 import AppTest
from werkzeug.test import Client

from mlapp import answering, store
from mlapp.cli import main
from mlapp.errors import MlappError, OtherTruth
from mlapp.records import queries
from mlapp.records import writer as records
from mlapp.records.database import Database, answers, feedback
from mlapp.records.feedback import Given, give, read_truth
from mlapp.records.quality import bootstrap, measure, monday, r2, wilson
from mlapp.service import create_app
from mlapp.settings import read_settings
from mlapp.store import artifacts, changes
from tests.conftest import ROOT, client_of, make_once, quiet, use_artifacts
from training import regression
from training.classification import train

OLD = "0190a6a0-0000-7000-8000-000000000000"  # an identifier of the year 2024
HOUSE = {"area": 100.5, "rooms": 3, "district": "north"}


PLOT = {"zip": "777", "parcel": "9007199254740992", "size": 41.25, "sold": "1999-02-03"}


def train_plots(root: Path) -> None:
    """Train `plots` on codes that are equal as numbers, decimal commas and dates."""
    rng = np.random.default_rng(7)
    codes = rng.choice(["01234", "1234", "00777", "777"], 120)
    lines = ["zip;parcel;size;sold;price"]
    for place, code in enumerate(codes):
        parcel = 9007199254740992 + int(rng.integers(2))
        price = len(code) * 10 + parcel % 2 * 5 + place % 40 + rng.normal()
        row = f"{code};{parcel};{place % 40},25;{1 + place % 28:02}/02/1999;{price:.2f}"
        lines.append(row.replace(".", ","))
    root.mkdir()
    (root / "plots.csv").write_text("\n".join(lines))
    regression.train(root / "plots.csv", "price", "plots", root, model="linear", say=quiet)


@pytest.fixture(scope="module")
def trained_plots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_once("trained-plots", train_plots, tmp_path_factory)


@pytest.fixture
def plots(
    trained_plots: Path, tmp_path: Path, recording: None, monkeypatch: pytest.MonkeyPatch
) -> Client:
    """A service with `plots`, where answers are recorded with their inputs, from none on."""
    root = tmp_path / "artifacts"
    shutil.copytree(trained_plots, root)
    use_artifacts(root, monkeypatch)
    monkeypatch.setenv("MLAPP_LOG_INPUTS", "values")
    return client_of(create_app())


@pytest.fixture
def client(fresh: Path) -> Client:
    return client_of(create_app())


def predict(client: Client, name: str, *instances: object, **more: object) -> str:
    body = {"instances": list(instances), **more}
    identifier: str = client.post(f"/v1/models/{name}:predict", json=body).get_json()["id"]
    return identifier


def add_version(root: Path, name: str) -> None:
    """Publish what is served once more, as the next version."""
    served = artifacts.open(root, name)
    artifacts.publish(root, served, check=lambda _: None)


def kept() -> list[dict[str, Any]]:
    with Database(read_settings()).begin() as connection:
        return [dict(row) for row in connection.execute(select(feedback)).mappings()]


@pytest.mark.slow
def test_feedback_is_kept_when_it_is_acknowledged(client: Client) -> None:
    name = predict(client, "houses", HOUSE)
    answer = client.post("/v1/feedback", json={"id": name, "truth": 301, "note": "sold"})
    assert (answer.status_code, answer.get_json()) == (200, {"id": name, "new": True})
    [row] = kept()
    assert (row["id"], row["place"], row["number"], row["label"]) == (name, 0, 301.0, None)
    assert (row["model"], row["version"], row["note"]) == ("houses", 1, "sold")


def test_feedback_given_again_changes_nothing_and_another_truth_is_refused(
    client: Client,
) -> None:
    name = predict(client, "moods", "we were furious")
    assert client.post("/v1/feedback", json={"id": name, "truth": "angry"}).get_json()["new"]
    again = client.post("/v1/feedback", json={"id": f"{name}-0", "truth": "angry", "note": "x"})
    assert (again.status_code, again.get_json()["new"]) == (200, False)
    other = client.post("/v1/feedback", json={"id": name, "truth": "calm"})
    assert other.status_code == 409
    assert "Another truth" in other.get_json()["detail"]
    assert [(row["label"], row["note"]) for row in kept()] == [("angry", None)]


@pytest.mark.slow
def test_a_list_is_kept_whole_or_not_at_all(client: Client) -> None:
    name = predict(client, "houses", HOUSE, HOUSE)
    good = {"id": f"{name}-0", "truth": 300.5}
    unknown = {"id": f"{name}-7", "truth": 1}
    assert client.post("/v1/feedback", json=[good, unknown]).status_code == 404
    assert kept() == []
    both = [good, {"id": f"{name}-1", "truth": 310}]
    answer = client.post("/v1/feedback", json=both).get_json()
    assert answer == {"feedback": [{"id": each["id"], "new": True} for each in both]}
    assert len(kept()) == 2


def test_truths_of_a_list_that_contradict_each_other_are_refused_by_their_rows(
    client: Client,
) -> None:
    name = predict(client, "houses", HOUSE, HOUSE)
    other = {"id": f"{name}-1", "truth": 300}
    told = [{"id": f"{name}-0", "truth": 1}, other, {"id": f"{name}-0", "truth": 0}]
    answer = client.post("/v1/feedback", json=told)
    assert answer.status_code == 422
    [fault] = answer.get_json()["faults"]
    assert (fault["row"], fault["input"], fault["got"]) == (2, "truth", "0")
    assert fault["expected"] == "1, as row 0 says of the same answer"
    assert kept() == []
    assert client.post("/v1/feedback", json=[told[0], other, told[0]]).status_code == 200
    assert [row["number"] for row in kept()] == [1.0, 300.0]


def test_a_true_label_of_a_removed_version_is_one_of_the_other_versions(
    client: Client, fresh: Path
) -> None:
    name = predict(client, "moods", "we were furious")
    add_version(fresh, "moods")
    changes.remove(fresh, "moods", 1)
    [fault] = client.post("/v1/feedback", json={"id": name, "truth": "blue"}).get_json()["faults"]
    assert fault["expected"] == "one of 'angry', 'calm', 'glad'"
    assert client.post("/v1/feedback", json={"id": name, "truth": "angry"}).status_code == 200
    assert [(row["version"], row["label"]) for row in kept()] == [(1, "angry")]


def test_no_true_label_is_taken_where_no_version_says_which_there_are(
    client: Client, fresh: Path
) -> None:
    label = predict(client, "moods", "we were furious")
    number = predict(client, "houses", HOUSE)
    for model in ("moods", "houses"):
        changes.remove(fresh, model, 1)
    answer = client.post("/v1/feedback", json={"id": label, "truth": "angry"})
    assert answer.status_code == 404
    assert "says which labels there are" in answer.get_json()["detail"]
    assert client.post("/v1/feedback", json={"id": number, "truth": 300}).status_code == 200
    assert [row["model"] for row in kept()] == ["houses"]


@pytest.mark.slow
def test_an_answer_that_is_not_recorded_is_not_found(client: Client) -> None:
    for name in (answering.new_id(), OLD):
        answer = client.post("/v1/feedback", json={"id": name, "truth": 1})
        assert answer.status_code == 404
        assert name in answer.get_json()["detail"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "truth", "allowed"),
    [
        ("houses", "three", "a finite number"),
        ("houses", "300", "a finite number"),
        ("houses", True, "a finite number"),
        ("houses", [1], "a finite number"),
        ("houses", 10**400, "a finite number"),
        ("houses", 1e200, "a number from -1e100 to 1e100"),
        ("houses", None, "what turned out to be true"),
        ("moods", 1, "one of 'angry', 'calm', 'glad'"),
        ("moods", "Angry", "one of 'angry', 'calm', 'glad'"),
        ("moods", "", "one of 'angry', 'calm', 'glad'"),
    ],
)
def test_a_truth_of_the_wrong_type_is_named(
    client: Client, model: str, truth: object, allowed: str
) -> None:
    name = predict(client, model, HOUSE if model == "houses" else "a quiet sea")
    body = json.dumps({"id": name, "truth": truth})
    answer = client.post("/v1/feedback", data=body, content_type="application/json")
    assert answer.status_code in (400, 422) if truth == 10**400 else answer.status_code == 422
    if answer.status_code == 422:
        [fault] = answer.get_json()["faults"]
        assert (fault["input"], fault["expected"]) == ("truth", allowed)
    assert kept() == []


@pytest.mark.parametrize(
    ("body", "status", "input_name"),
    [
        ([], 422, "feedback"),
        (7, 422, "feedback"),
        ({"truth": 1}, 422, "id"),
        ({"id": "x", "truth": 1}, 422, "id"),
        ({"id": ["x"], "truth": 1}, 422, "id"),
        ({"id": OLD, "truth": 1, "more": 2}, 422, "more"),
        ({"id": OLD, "truth": 1, "note": 5}, 422, "note"),
        (
            {"id": OLD, "truth": 1, "note": "x" * 2001},
            422,
            "note",
        ),
        ([{}, {}], 422, "truth"),
    ],
)
def test_feedback_that_is_not_in_its_form_is_refused(
    client: Client, body: object, status: int, input_name: str
) -> None:
    answer = client.post("/v1/feedback", json=body)
    assert answer.status_code == status
    assert answer.get_json()["faults"][0]["input"] == input_name


def test_of_several_rows_one_must_be_named(client: Client) -> None:
    name = predict(client, "houses", HOUSE, HOUSE)
    [fault] = client.post("/v1/feedback", json={"id": name, "truth": 1}).get_json()["faults"]
    assert (fault["input"], fault["expected"]) == ("id", f"one of its rows, as in {name}-0")


def test_feedback_needs_the_key_and_a_log(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLAPP_API_KEY", "secret")
    client = client_of(create_app())
    body = {"id": answering.new_id(), "truth": 1}
    assert client.post("/v1/feedback", json=body).status_code == 401
    monkeypatch.setenv("MLAPP_LOG_ANSWERS", "off")
    answer = client.post("/v1/feedback", json=body, headers={"X-API-Key": "secret"})
    assert answer.status_code == 503


@pytest.mark.slow
@pytest.mark.parametrize("same", [True, False])
def test_sixteen_threads_that_judge_one_answer_leave_one_record(
    client: Client, fresh: Path, same: bool
) -> None:
    name = predict(client, "houses", HOUSE)
    outcomes: list[object] = []
    start = threading.Barrier(16)

    def judge(number: int) -> None:
        where = Database(read_settings())
        start.wait()
        try:
            outcomes.append(give(where, fresh, [Given(name, 300.0 if same else number)], "v1"))
        except MlappError as error:
            outcomes.append(error)
        where.close()

    threads = [threading.Thread(target=judge, args=[number]) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(kept()) == 1
    assert outcomes.count([True]) == 1
    if same:
        assert outcomes.count([False]) == 15
    else:
        assert sum(isinstance(each, OtherTruth) for each in outcomes) == 15


def test_outcomes_of_a_file_are_matched_by_id(
    client: Client, fresh: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = predict(client, "houses", *[HOUSE] * 4)
    path = tmp_path / "outcomes.csv"
    path.write_text(
        f"number;id;truth\n1;{name}-0;300,5\n2;{name}-1;310,25\n3;{name}-2;\n4;nobody;1\n"
        f"5;{name}-0;299\n"
    )
    assert main(["feedback", str(path)]) == 3
    reported = capsys.readouterr().err
    assert "2 rows recorded, 0 already recorded, 3 refused" in reported
    assert "row 3, truth: got nothing, expected a finite number" in reported
    assert f"row 5, Another truth of {name}-0 is recorded: 300.5" in reported
    assert sorted(row["number"] for row in kept()) == [300.5, 310.25]
    assert main(["feedback", str(path)]) == 3
    assert "0 rows recorded, 2 already recorded, 3 refused" in capsys.readouterr().err


def test_a_note_may_be_a_date_that_python_cannot_hold(
    client: Client, fresh: Path, tmp_path: Path
) -> None:
    name = predict(client, "houses", HOUSE)
    far = pa.array([5_000_000], pa.date32())
    columns = {"id": [name], "truth": [300.5], "note": far}
    pq.write_table(pa.table(columns), tmp_path / "outcomes.parquet")
    assert main(["feedback", str(tmp_path / "outcomes.parquet")]) == 0
    assert [row["note"] for row in kept()] == ["15659-07-15"]


def test_outcomes_of_a_file_are_matched_by_what_the_client_called_its_requests(
    client: Client, fresh: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    predict(client, "moods", "we were furious", key="mail-17")
    predict(client, "moods", "a quiet sea", "merry cheer", key="mails")
    path = tmp_path / "outcomes.jsonl"
    path.write_text(
        '{"mail": "mail-17", "mood": "angry"}\n{"mail": "mails-1", "mood": "glad"}\n'
        '{"mail": "mails-2", "mood": "calm"}\n'
    )
    records.close()
    assert main(["feedback", str(path), "--key", "mail", "--truth", "mood"]) == 3
    assert "row 3, No answer with the key 'mails-2' is recorded" in capsys.readouterr().err
    assert sorted(row["label"] for row in kept()) == ["angry", "glad"]


def test_outcomes_of_a_file_are_matched_by_an_input_where_inputs_are_kept(
    client: Client, fresh: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLAPP_LOG_INPUTS", "values")
    predict(client, "houses", HOUSE | {"area": 101}, HOUSE | {"area": 102})
    records.close()
    path = tmp_path / "outcomes.parquet"
    pd.DataFrame({"area": [101.0, 102.0], "price": [1.5, 2.5]}).to_parquet(path)
    options = ["--key", "area", "--truth", "price", "--model", "houses"]
    assert main(["feedback", str(path), *options]) == 0
    assert sorted((row["place"], row["number"]) for row in kept()) == [(0, 1.5), (1, 2.5)]


@pytest.mark.parametrize(
    ("name", "values", "text"),
    [
        ("zip", ["01234", "1234"], "zip,truth\n01234,10\n1234,20\n"),
        (
            "parcel",
            ["9007199254740992", "9007199254740993"],
            "parcel,truth\n9007199254740992,10\n9007199254740993,20\n",
        ),
        ("size", [41.25, 1041.5], "size;truth\n41,25;10,0\n1.041,50;20,0\n"),
        ("size", [41.25, 1041.5], "size,truth\n41.250,10\n1041.5,20\n"),
        ("sold", ["1999-02-03", "1999-02-04"], "sold,truth\n03/02/1999,10\n04/02/1999,20\n"),
        ("sold", ["1999-02-03", "1999-02-04"], "sold,truth\n1999-02-03,10\n1999-02-04,20\n"),
    ],
)
def test_the_values_of_an_input_in_a_file_of_outcomes_are_read_as_those_to_score(
    plots: Client, tmp_path: Path, name: str, values: list[object], text: str
) -> None:
    predict(plots, "plots", *[PLOT | {name: value} for value in values])
    records.close()
    path = tmp_path / "outcomes.csv"
    path.write_text(text)
    assert main(["feedback", str(path), "--key", name, "--model", "plots"]) == 0
    assert sorted((row["place"], row["number"]) for row in kept()) == [(0, 10.0), (1, 20.0)]


@pytest.mark.parametrize("suffix", ["parquet", "xlsx"])
def test_dates_of_any_format_match_the_answers_of_their_day(
    plots: Client, tmp_path: Path, suffix: str
) -> None:
    days = ["1999-02-03", "1999-02-04"]
    predict(plots, "plots", *[PLOT | {"sold": day} for day in days])
    records.close()
    path = tmp_path / f"outcomes.{suffix}"
    table = pd.DataFrame({"sold": pd.to_datetime(days), "truth": [10.0, 20.0]})
    table.to_parquet(path) if suffix == "parquet" else table.to_excel(path, index=False)
    assert main(["feedback", str(path), "--key", "sold", "--model", "plots"]) == 0
    assert sorted((row["place"], row["number"]) for row in kept()) == [(0, 10.0), (1, 20.0)]


def test_a_request_key_of_a_column_of_numbers_has_no_decimal_point(
    client: Client, tmp_path: Path
) -> None:
    for key in ("17", "18"):
        predict(client, "moods", "we were furious", key=key)
    records.close()
    path = tmp_path / "outcomes.parquet"
    table = pd.DataFrame({"mail": [17.0, 18.0, np.nan], "truth": ["angry", "calm", None]})
    table.to_parquet(path)
    assert main(["feedback", str(path), "--key", "mail"]) == 3
    assert sorted(row["label"] for row in kept()) == ["angry", "calm"]


def test_what_was_asked_of_a_removed_version_is_read_as_by_the_others(
    plots: Client, tmp_path: Path
) -> None:
    predict(plots, "plots", PLOT)
    records.close()
    root = read_settings().artifacts
    regression.train(root / "plots.csv", "price", "plots", root, model="linear", say=quiet)
    changes.remove(root, "plots", 1)
    path = tmp_path / "outcomes.csv"
    path.write_text("size;truth\n41,25;10,5\n")
    assert main(["feedback", str(path), "--key", "size", "--model", "plots"]) == 0
    assert [(row["version"], row["number"]) for row in kept()] == [(1, 10.5)]


@pytest.mark.slow
def test_categories_that_training_did_not_see_are_not_taken_for_each_other(
    empty_folder: Path,
    recording: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("MLAPP_LOG_INPUTS", "values")
    towns = [f"town {place % 60 if place < 600 else place}" for place in range(700)]
    table = pd.DataFrame({"town": towns, "price": np.arange(700.0) % 60})
    table.to_csv(tmp_path / "towns.csv", index=False)
    regression.train(
        tmp_path / "towns.csv", "price", "towns", empty_folder, model="linear", say=quiet
    )
    predict(client_of(create_app()), "towns", {"town": "Newville"}, {"town": "Oldtown"})
    records.close()
    path = tmp_path / "outcomes.csv"
    path.write_text("town,truth\nNewville,10\nOldtown,20\nNowhere,30\n")
    assert main(["feedback", str(path), "--key", "town", "--model", "towns"]) == 3
    assert "row 3, No answer with the key 'Nowhere' is recorded" in capsys.readouterr().err
    assert sorted((row["place"], row["number"]) for row in kept()) == [(0, 10.0), (1, 20.0)]


def test_a_row_of_several_answers_is_refused_by_its_number_in_the_file(
    plots: Client, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    predict(plots, "plots", PLOT, PLOT, PLOT | {"size": 2})
    records.close()
    path = tmp_path / "outcomes.csv"
    path.write_text("size,truth\n2,1\n41.25,abc\n")
    assert main(["feedback", str(path), "--key", "size", "--model", "plots"]) == 3
    refused = capsys.readouterr().err.splitlines()[1:]
    assert refused == ["row 2, truth: got 'abc', expected a finite number"]


@pytest.mark.parametrize(
    ("suffix", "truths"),
    [
        ("csv", ["$1,300", "240.5 kg"]),
        ("tsv", ["1.300,0 €", "240,5 €"]),
        ("csv", ["1300", "240.5"]),
    ],
)
def test_outcomes_of_a_file_may_have_units(
    client: Client, fresh: Path, tmp_path: Path, suffix: str, truths: list[str]
) -> None:
    name = predict(client, "houses", HOUSE | {"area": 101}, HOUSE | {"area": 102})
    records.close()
    path = tmp_path / f"outcomes.{suffix}"
    table = pd.DataFrame({"id": [f"{name}-0", f"{name}-1"], "truth": truths})
    table.to_csv(path, sep={"csv": ",", "tsv": "\t"}[suffix], index=False)
    assert main(["feedback", str(path)]) == 0
    assert sorted((row["place"], row["number"]) for row in kept()) == [(0, 1300.0), (1, 240.5)]


@pytest.mark.slow
def test_outcomes_of_a_file_may_have_the_labels_as_training_read_them(
    empty_folder: Path, recording: None, tmp_path: Path
) -> None:
    labels = ["01", "1,5", "2,50"]
    lines = [f"{place % 3},{place % 7};{labels[place % 3]}" for place in range(90)]
    (tmp_path / "table.csv").write_text("\n".join(["size;kind", *lines]))
    train(tmp_path / "table.csv", "kind", "kinds", empty_folder, model="linear", say=lambda _: None)
    name = predict(client_of(create_app()), "kinds", *[{"size": 1.5}] * 3)
    records.close()
    rows = [f"{name}-{place};{label}" for place, label in enumerate(labels)]
    (tmp_path / "outcomes.csv").write_text("\n".join(["id;truth", *rows]))
    assert main(["feedback", str(tmp_path / "outcomes.csv")]) == 0
    assert sorted(row["label"] for row in kept()) == labels


def test_a_file_without_the_column_is_refused(
    fresh: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "outcomes.csv"
    path.write_text("id,value\na,1\n")
    assert main(["feedback", str(path)]) == 1
    said = "--truth: got no column 'truth', expected it among 'id', 'value'"
    assert said in capsys.readouterr().err
    assert main(["feedback", str(path), "--truth", "value", "--key", "order"]) == 1
    assert "--key: got no column 'order'" in capsys.readouterr().err


def test_a_model_is_named_with_a_key_alone(
    fresh: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["feedback", str(tmp_path / "outcomes.csv"), "--model", "houses"])
    assert stopped.value.code == 2
    assert "--model goes with --key" in capsys.readouterr().err


def test_a_model_that_is_neither_published_nor_recorded_is_named_once(
    client: Client, fresh: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    predict(client, "houses", HOUSE, key="order-1")
    records.close()
    changes.remove(fresh, "houses", 1)
    path = tmp_path / "outcomes.csv"
    path.write_text("order,truth\norder-1,300\norder-2,310\n")
    options = [str(path), "--key", "order", "--model"]
    assert main(["feedback", *options, "huoses"]) == 1
    said = f"error: --model: 'huoses' is neither published in {fresh} nor recorded\n"
    assert capsys.readouterr().err == said
    assert main(["feedback", *options, "houses"]) == 3
    assert [row["number"] for row in kept()] == [300.0]


def test_a_file_of_which_nothing_is_recorded_is_a_failure(
    client: Client, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = predict(client, "houses", HOUSE)
    path = tmp_path / "outcomes.csv"
    path.write_text(f"id,truth\n{name},1e200\n")
    assert main(["feedback", str(path)]) == 1
    said = "row 1, truth: got '1e200', expected a number from -1e100 to 1e100"
    assert said in capsys.readouterr().err
    path.write_text(f"id,truth\n{name},300\nnobody,1\n")
    assert main(["feedback", str(path)]) == 3


# --- quality ---------------------------------------------------------------------------------


def test_live_quality_of_numbers_stands_beside_the_held_out_figures(client: Client) -> None:
    rng = np.random.default_rng(5)
    areas = rng.uniform(50, 180, 60).round(1).tolist()
    body = {"instances": [HOUSE | {"area": area} for area in areas]}
    answer = client.post("/v1/models/houses:predict", json=body).get_json()
    predicted = np.array([row["prediction"] for row in answer["predictions"]])
    truth = predicted + rng.normal(0, 12, 60)
    reported = [
        {"id": f"{answer['id']}-{place}", "truth": value} for place, value in enumerate(truth)
    ]
    assert client.post("/v1/feedback", json=reported).status_code == 200
    model = store.open_model(read_settings().artifacts, "houses")
    whole, week = measure(Database(read_settings()), "houses", [model.manifest])
    assert (whole.version, whole.week, whole.rows) == (1, None, 60)
    assert week.week == monday(queries.now())
    mae, r2, coverage = (whole.figures[name] for name in ("mae", "r2", "coverage"))
    assert mae.value == pytest.approx(np.abs(truth - predicted).mean())
    assert r2.value == pytest.approx(
        1 - ((truth - predicted) ** 2).sum() / ((truth - truth.mean()) ** 2).sum()
    )
    inside = [
        row["lower"] <= value <= row["upper"]
        for row, value in zip(answer["predictions"], truth, strict=True)
    ]
    assert coverage.value == pytest.approx(np.mean(inside))
    for figure, name in ((mae, "mae"), (r2, "r2"), (coverage, "coverage")):
        value, lower, upper, held_out = figure
        assert None not in figure
        assert lower is not None and value is not None and upper is not None
        assert lower < value < upper
        assert held_out == model.manifest.metrics[name]


def test_live_quality_of_labels_has_accuracy_and_calibration(client: Client) -> None:
    texts = ["we were furious", "a quiet sea", "merry cheer", "still rage"]
    answer = client.post("/v1/models/moods:predict", json={"instances": texts}).get_json()
    labels = [row["label"] for row in answer["predictions"]]
    wrong = next(each for each in ("angry", "calm", "glad") if each != labels[3])
    truths = [*labels[:3], wrong]
    reported = [
        {"id": f"{answer['id']}-{place}", "truth": truth} for place, truth in enumerate(truths)
    ]
    assert client.post("/v1/feedback", json=reported).status_code == 200
    whole = measure(Database(read_settings()), "moods")[0]
    assert whole.figures["accuracy"][:3] == (0.75, *wilson(3, 4))
    assert whole.figures["accuracy"].held_out is None
    assert sum(each.rows for each in whole.calibration) == 4
    ece = sum(
        each.rows / 4 * abs(each.probability - (each.right.value or 0))
        for each in whole.calibration
    )
    assert whole.figures["ece"].value == pytest.approx(ece)


def test_quality_is_measured_by_version_and_week(client: Client, fresh: Path) -> None:
    names = [predict(client, "houses", HOUSE) for _ in range(4)]
    reported = [{"id": name, "truth": 300 + place} for place, name in enumerate(names)]
    assert client.post("/v1/feedback", json=reported).status_code == 200
    where = Database(read_settings())
    with where.begin() as connection:
        for place, name in enumerate(names):
            changed = answers.update().where(answers.c.id == name)
            moved = {
                "time": answers.c.time - 7 * queries.DAY * (place % 2),
                "version": 1 + place // 2,
            }
            connection.execute(changed.values(moved))
    found = [(each.version, each.week is None, each.rows) for each in measure(where, "houses")]
    assert found == [(2, True, 2), (2, False, 1), (2, False, 1), (1, True, 2)] + [(1, False, 1)] * 2
    recent = measure(where, "houses", since=queries.now() - queries.DAY)
    assert [each.rows for each in recent] == [1, 1, 1, 1]
    assert measure(where, "nobody") == []


@pytest.mark.parametrize(
    ("right", "rows", "lower", "upper"),
    # Brown, Cai and DasGupta (2001) and R's prop.test without continuity correction.
    [(81, 263, 0.2553, 0.3662), (0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (1, 1, 0.2065, 1.0)],
)
def test_wilsons_interval_is_as_published(
    right: int, rows: int, lower: float, upper: float
) -> None:
    assert wilson(right, rows) == pytest.approx((lower, upper), abs=5e-5)


@pytest.mark.slow
def test_the_bootstrap_interval_holds_the_mean_as_often_as_it_says() -> None:
    rng = np.random.default_rng(11)
    held = 0
    for trial in range(200):
        lower, upper = bootstrap(lambda values: float(values.mean()), [rng.normal(3, 2, 60)], trial)
        assert lower is not None
        assert upper is not None
        held += lower <= 3 <= upper
    assert 178 <= held <= 198  # of 200 at 95 %


@pytest.mark.parametrize("value", [12.1, 0.1, 1 / 3, 1e9 + 0.1])
def test_no_share_of_a_variance_is_explained_where_the_truth_does_not_vary(value: float) -> None:
    assert r2(np.full(30, value), np.linspace(10, 13, 30)) is None


def test_a_calibration_error_has_no_interval_since_chance_alone_makes_one(client: Client) -> None:
    answer = client.post("/v1/models/moods:predict", json={"instances": ["merry cheer"] * 12})
    name = answer.get_json()["id"]
    reported = [{"id": f"{name}-{place}", "truth": "glad"} for place in range(12)]
    assert client.post("/v1/feedback", json=reported).status_code == 200
    error = measure(Database(read_settings()), "moods")[0].figures["ece"]
    assert (error.value is None, error.lower, error.upper) == (False, None, None)


@pytest.mark.parametrize(
    ("labels", "given", "kept_as"),
    [
        (["0", "1"], 0, "0"),
        (["0", "1"], 1.0, "1"),
        (["False", "True"], False, "False"),
        (["angry", "calm"], "calm", "calm"),
        (["angry", "calm"], 1, None),
        (["0", "1"], 2, None),
        ([], "calm", None),
    ],
)
def test_a_true_label_may_be_a_number_or_a_truth_value_where_labels_are(
    labels: list[str], given: object, kept_as: str | None
) -> None:
    assert read_truth(Given("", given), False, labels, False) == kept_as


def test_a_column_of_notes_that_is_not_there_is_refused(
    fresh: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "outcomes.csv"
    path.write_text("id,truth\na,1\n")
    assert main(["feedback", str(path), "--note", "nope"]) == 1
    assert "got no column 'nope', expected it among 'id', 'truth'" in capsys.readouterr().err


def test_a_figure_that_is_not_defined_has_no_interval(client: Client) -> None:
    name = predict(client, "houses", HOUSE)
    assert client.post("/v1/feedback", json={"id": name, "truth": 300}).status_code == 200
    whole = measure(Database(read_settings()), "houses")[0]
    assert whole.figures["r2"] == (None, None, None, None)
    assert whole.figures["mae"].lower is None


# --- the page --------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("page", "inputs", "truth"),
    [("regression.py", {}, 0.37), ("sentiment.py", {"review": "a quiet sea"}, "calm")],
)
def test_a_person_says_on_the_page_what_would_have_been_right(
    fresh: Path, page: str, inputs: dict[str, str], truth: float | str
) -> None:
    name = "regression" if page == "regression.py" else "moods"
    app = AppTest.from_file(str(ROOT / "Home.py"), default_timeout=60).run()
    app.switch_page(f"pages/{page}").run()
    if name == "moods":
        app.selectbox(key="_model_text-classification").set_value("moods").run()
    for key, value in inputs.items():
        app.text_area(key=key).set_value(value)
    app.button(key="predict").click().run()
    assert not app.exception
    [answer] = queries.latest(database(), name, 5)
    key = f"_feedback_truth_{answer['id']}"
    send = app.button(key=f"_feedback_send_{answer['id']}")
    app = send.click().run()
    assert [each.value for each in app.warning][-1] == "Please enter the correct value."
    assert kept() == []
    widget: Any = app.number_input if isinstance(truth, float) else app.selectbox
    widget(key=key).set_value(truth)
    app.text_input(key=f"_feedback_note_{answer['id']}").set_value("as measured")
    app.button(key=f"_feedback_send_{answer['id']}").click().run()
    assert [each.value for each in app.success] == ["Thank you, your feedback is recorded."]
    [row] = kept()
    assert (row["id"], row["channel"], row["note"]) == (answer["id"], "page", "as measured")
    assert truth == (row["number"] if row["label"] is None else row["label"])


@pytest.mark.slow
def test_the_page_asks_nothing_where_nothing_is_recorded(
    fresh: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLAPP_LOG_ANSWERS", "off")
    app = AppTest.from_file(str(ROOT / "Home.py"), default_timeout=60).run()
    app.switch_page("pages/regression.py").run()
    app.button(key="predict").click().run()
    assert app.metric
    assert not any("_feedback" in str(each.key) for each in app.button)


def database() -> Database:
    """The records as written so far."""
    log = records.writer()
    assert log is not None
    assert log.flush()
    return log.database
