"""Shadow candidates: recorded with the served answers, and never in their way."""

import json
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from werkzeug.test import Client

from mlapp import loaders
from mlapp.cli import main
from mlapp.families.contract import replay
from mlapp.families.sentiment import SentimentModel
from mlapp.records import queries, shadow
from mlapp.records import writer as records
from mlapp.records.database import shadows
from mlapp.service import create_app
from mlapp.store import artifacts
from tests.conftest import client_of, make_houses, make_moods
from tests.test_pages_monitor import page
from training import sentiment
from training.regression import train

HOUSE = {"area": 100.5, "rooms": 3, "district": "north"}


@pytest.fixture
def shadowed(
    folder: Path, recording: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A folder where version 2 of `houses`, a candidate with other prices, is a shadow."""
    table = tmp_path / "dearer.csv"
    make_houses().assign(price=lambda houses: houses["price"] + 500).to_csv(table, index=False)
    train(root=folder, data=table, target="price", name="houses", say=lambda line: None)
    artifacts.candidate_mark(folder, "houses", 2).touch()
    monkeypatch.setenv("MLAPP_SHADOW", "houses=2")
    return folder


@pytest.fixture
def client(shadowed: Path) -> Client:
    return client_of(create_app())


def predict(client: Client, name: str, *instances: object) -> dict[str, Any]:
    answer = client.post(f"/v1/models/{name}:predict", json={"instances": list(instances)})
    assert answer.status_code == 200
    found: dict[str, Any] = answer.json  # type: ignore[assignment]
    return found


def exported(capfdbinary: pytest.CaptureFixture[bytes]) -> list[dict[str, Any]]:
    capfdbinary.readouterr()
    assert main(["log", "export"]) == 0
    return [json.loads(line) for line in capfdbinary.readouterr().out.splitlines()]


@pytest.mark.slow
def test_a_candidate_answers_along_and_the_served_version_is_served(
    client: Client, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    answer = predict(client, "houses", HOUSE, HOUSE | {"area": 80})
    records.close()  # the candidate's last answers are written, too
    first, second = exported(capfdbinary)
    assert first["version"] == second["version"] == 1
    assert [row["prediction"] for row in (first, second)] == [
        row["prediction"] for row in answer["predictions"]
    ]
    candidate = loaders.load_regression("houses", version=2)
    wanted = candidate.answer(candidate.check([HOUSE])).records()[0]["prediction"]
    assert first["shadow"] == {
        "version": 2,
        "prediction": pytest.approx(wanted),
        "label": None,
        "probability": None,
    }
    assert second["shadow"]["prediction"] - second["prediction"] == pytest.approx(500, abs=10)


@pytest.mark.slow
def test_a_request_that_a_candidate_refuses_is_logged_without_its_values(
    folder: Path,
    recording: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    houses = make_houses()
    table = tmp_path / "elsewhere.csv"
    houses[houses["district"] != "north"].to_csv(table, index=False)
    train(root=folder, data=table, target="price", name="houses", say=lambda line: None)
    artifacts.candidate_mark(folder, "houses", 2).touch()
    monkeypatch.setenv("MLAPP_SHADOW", "houses=2")
    client = client_of(create_app())
    for rows in (1, 2, 1):
        predict(client, "houses", *[HOUSE] * rows)
    records.close()
    message = "Version 2 of houses refuses requests in shadow mode: 'district'"
    assert [line for line in caplog.messages if "shadow" in line] == [message]
    assert "north" not in caplog.text


def test_a_candidate_that_is_not_published_or_is_served_is_named_at_the_start(
    folder: Path,
    recording: None,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    (folder / "gone" / "1").mkdir(parents=True)  # as `mlapp remove` may leave it
    monkeypatch.setenv("MLAPP_SHADOW", "houses=7,huoses=1,gone=1,regression=1")
    records.writer()
    assert [line.partition(": ")[2] for line in caplog.messages] == [
        "version 7 of houses is not published",
        "version 1 of huoses is not published",
        "version 1 of gone is not published",
        "version 1 of regression is served, so it does not run in shadow mode",
    ]


@pytest.mark.slow
def test_the_pages_and_the_metrics_say_how_often_a_candidate_differs(client: Client) -> None:
    predict(client, "houses", HOUSE, HOUSE | {"area": 80})
    records.close()
    assert 'mlapp_records_total{outcome="shadowed"} 2.0' in client.get("/metrics").text
    for name, key in (("monitor", "_monitor_model"), ("versions", "_versions_model")):
        app = page(name)
        app.selectbox(key=key).select("houses").run()
        assert not app.exception
        [table] = [each.value for each in app.dataframe if "candidate" in each.value]
        assert table[["candidate", "beside version", "answers", "differing"]].values.tolist() == [
            [2, 1, 2, 1.0]
        ]
        assert table["mean difference"][0] == pytest.approx(500, abs=10)


@pytest.mark.slow
def test_what_the_candidate_itself_is_asked_is_not_asked_again(
    client: Client, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    body = {"instances": [HOUSE]}
    assert client.post("/v1/models/houses/versions/2:predict", json=body).status_code == 200
    predict(client, "regression", {f"var_{place}": 1.0 for place in range(1, 6)})
    records.close()
    assert [row["shadow"] for row in exported(capfdbinary)] == [None, None]


@pytest.mark.slow
def test_labels_are_compared_too(
    client: Client, shadowed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_moods().to_csv(tmp_path / "moods.csv", index=False)
    where = ["--data", str(tmp_path / "moods.csv"), "--artifacts", str(shadowed)]
    assert sentiment.main([*where, "--name", "moods", "--model", "linear"]) == 0
    first = artifacts.open(shadowed, "moods")
    kept = ("task", "data", "training", "labels", "metrics", "golden")
    fields = {field: getattr(first.manifest, field) for field in kept}
    drafted = artifacts.draft("moods", first.files, tuple(first.manifest.libraries), **fields)
    artifacts.publish(shadowed, drafted, lambda each: replay(SentimentModel(each)), candidate=True)
    monkeypatch.setenv("MLAPP_SHADOW", "moods=2")
    records.close()
    predict(client, "moods", "a quiet sea", "we were furious")
    database = records.writer().database  # type: ignore[union-attr]
    records.close()
    [found] = queries.shadowed(database, "moods", 0)
    assert (found.candidate, found.rows, found.differing, found.mean) == (2, 2, 0, None)


@pytest.mark.slow
@pytest.mark.parametrize("harm", ["missing", "damaged", "slow", "raising"])
def test_a_candidate_that_cannot_answer_costs_no_answer_and_no_record(
    client: Client,
    shadowed: Path,
    harm: str,
    monkeypatch: pytest.MonkeyPatch,
    capfdbinary: pytest.CaptureFixture[bytes],
) -> None:
    if harm == "missing":
        monkeypatch.setenv("MLAPP_SHADOW", "houses=9")
    elif harm == "damaged":
        (shadowed / "houses" / "2" / "model.joblib").write_bytes(b"damaged")
    elif harm == "slow":
        monkeypatch.setattr(shadow, "MOST_ROWS", 0)
    else:
        monkeypatch.setattr(shadow, "_instances", lambda *_: 1 / 0)
    answer = predict(client, "houses", HOUSE)
    records.close()
    [row] = exported(capfdbinary)
    assert row["id"] == answer["id"]
    assert row["shadow"] is None
    assert 'mlapp_records_total{outcome="unshadowed"} 1.0' in client.get("/metrics").text
    assert 'mlapp_records_total{outcome="lost"} 0.0' in client.get("/metrics").text


@pytest.mark.slow
def test_purging_deletes_what_candidates_said(client: Client) -> None:
    predict(client, "houses", HOUSE)
    database = records.writer().database  # type: ignore[union-attr]
    records.close()
    with database.begin() as connection:
        assert len(connection.execute(select(shadows)).all()) == 1
    queries.purge(database, 0)
    with database.begin() as connection:
        assert connection.execute(select(shadows)).all() == []
