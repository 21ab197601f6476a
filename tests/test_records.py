"""What is recorded of answers, in SQLite: through the service, the pages and the command."""

import json
import math
import os
import shutil
import sqlite3
import subprocess
import sys
import time
import uuid
from contextlib import closing
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sqlalchemy import create_engine, select, text
from werkzeug.test import Client

from mlapp import answering, families, store
from mlapp.cli import main
from mlapp.errors import InvalidSettings, RecordsUnavailable
from mlapp.families.contract import Model
from mlapp.records import bins, queries
from mlapp.records import writer as records
from mlapp.records.bins import MISSING, REFUSED, Series
from mlapp.records.database import Database, answers, first_id, time_of
from mlapp.records.entries import Record
from mlapp.records.transactions import Run
from mlapp.records.writer import Writer
from mlapp.schema import Number
from mlapp.service import create_app
from mlapp.settings import read_settings
from mlapp.store import artifacts
from tests import test_drills
from tests.conftest import ROOT, client_of, run_python
from training.regression import train

cluster = test_drills.cluster  # a fixture
HOUSE = {"area": 100.5, "rooms": 3, "district": "north"}


@pytest.fixture
def client(fresh: Path) -> Client:
    return client_of(create_app())


def database() -> Database:
    """The records as written so far."""
    log = records.writer()
    assert log is not None
    assert log.flush()
    return log.database


def rows(where: Database) -> list[dict[str, Any]]:
    with where.begin() as connection:
        return [dict(row) for row in connection.execute(select(answers)).mappings()]


def predict(client: Client, name: str, *instances: object, **more: object) -> dict[str, Any]:
    body = {"instances": list(instances), **more}
    found: dict[str, Any] = client.post(f"/v1/models/{name}:predict", json=body).json  # type: ignore[assignment]
    return found


def test_an_answer_leaves_a_record_without_what_was_asked(client: Client) -> None:
    answer = predict(client, "houses", HOUSE)
    [row] = rows(database())
    assert row["id"] == answer["id"]
    assert (row["model"], row["version"], row["channel"]) == ("houses", 1, "v1")
    assert (row["place"], row["rows"], row["inputs"], row["key"]) == (0, 1, None, None)
    [predicted] = answer["predictions"]
    assert {name: row[name] for name in predicted} == predicted
    assert 0 < row["seconds"] < 10
    assert abs(row["time"] - queries.now()) < 60_000


def test_a_label_is_recorded_with_its_probability(client: Client) -> None:
    answer = predict(client, "moods", "we were furious", "a quiet sea")
    first, second = rows(database())
    assert [first["label"], second["label"]] == [p["label"] for p in answer["predictions"]]
    assert first["probability"] == answer["predictions"][0]["probability"]
    assert (first["id"], first["place"], second["place"]) == (answer["id"], 0, 1)
    assert first["prediction"] is None


@pytest.mark.slow
def test_every_way_in_is_named(client: Client, fresh: Path) -> None:
    predict(client, "houses", HOUSE)
    tensor = {"name": "text", "shape": [1], "datatype": "BYTES", "data": ["a quiet sea"]}
    client.post("/v2/models/moods/infer", json={"inputs": [tensor], "id": "order-17"})
    client.post("/predict?_model=houses", data=HOUSE)
    where = database()
    assert [(row["channel"], row["key"]) for row in rows(where)] == [
        ("v1", None),
        ("v2", "order-17"),
        ("form", None),
    ]
    command = [sys.executable, "-m", "mlapp.cli", "predict", "a quiet sea", "--model", "moods"]
    command = [*command[:4], "--model", "moods", "a quiet sea"]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    assert rows(where)[-1]["channel"] == "command"
    assert (fresh / "records.db").is_file()


def test_inputs_are_kept_where_the_settings_say_so(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLAPP_LOG_INPUTS", "values")
    predict(client, "houses", HOUSE | {"rooms": None})
    predict(client, "moods", "a quiet\u0000 sea")
    found = queries.latest(database(), "houses", 5, with_inputs=True)
    assert [row["inputs"] for row in found] == [HOUSE | {"rooms": None}]
    [row] = queries.latest(database(), "moods", 5, with_inputs=True)
    assert row["inputs"] == {"text": "a quiet\u0000 sea"}


@pytest.mark.slow
def test_a_category_that_training_did_not_see_is_kept_as_it_was_asked(
    folder: Path, recording: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLAPP_LOG_INPUTS", "values")
    towns = [f"town {place % 60 if place < 600 else place}" for place in range(700)]
    table = pd.DataFrame({"town": towns, "y": np.arange(700.0) % 60})
    table.to_csv(tmp_path / "towns.csv", index=False)
    train(tmp_path / "towns.csv", "y", "towns", folder, model="linear", say=lambda line: None)
    client = client_of(create_app())
    predict(client, "towns", {"town": "Newville"}, {"town": "town 7"}, {"town": "other"})
    columns = {"inputs": [{"name": "town", "shape": [1], "datatype": "BYTES", "data": ["Oldtown"]}]}
    assert client.post("/v2/models/towns/infer", json=columns).status_code == 200
    found = queries.latest(database(), "towns", 5, with_inputs=True)
    asked = {row["inputs"]["town"] for row in found}
    assert asked == {"Newville", "town 7", "other", "Oldtown"}


def test_without_inputs_no_value_and_no_word_reaches_the_disk(client: Client, fresh: Path) -> None:
    predict(client, "houses", HOUSE | {"area": 87.654321})
    predict(client, "moods", "xylophone we were furious")
    database().close()
    written = b"".join(path.read_bytes() for path in fresh.glob("records.db*"))
    assert b"furious" not in written
    assert b"xylophone" not in written
    with sqlite3.connect(fresh / "records.db") as connection:
        dumped = "\n".join(connection.iterdump())
    assert "87.65" not in dumped


def test_nothing_is_recorded_where_the_settings_say_so(
    client: Client, fresh: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLAPP_LOG_ANSWERS", "off")
    assert predict(client, "houses", HOUSE)["predictions"]
    assert records.writer() is None
    assert not (fresh / "records.db").exists()


def test_values_are_counted_by_hour_in_bins(client: Client) -> None:
    predict(client, "houses", HOUSE, HOUSE | {"rooms": None}, HOUSE | {"area": 5000})
    client.post("/v1/models/houses:predict", json={"instances": [HOUSE | {"district": "moon"}]})
    found = queries.totals(database(), "houses", 0)
    places = found[Series("input", "area")]
    model = store.open_model(read_settings().artifacts, "houses")
    binning = bins.binnings(model)[Series("input", "area")]
    assert places == {3: 2, len(binning) - 1: 1}
    assert found[Series("input", "rooms")][MISSING] == 1
    assert found[Series("input", "district")] == {1: 3, REFUSED: 1}
    assert sum(found[Series("answer", "price")].values()) == 3
    assert sum(found[Series("seconds", "v1")].values()) == 1
    assert found[Series("error", "v1")] == {422: 1}


def test_texts_are_counted_by_length_unknown_words_and_sureness(client: Client) -> None:
    predict(client, "moods", "we were furious", "furious rage zzz qqq")
    found = queries.totals(database(), "moods", 0)
    assert {series.kind for series in found} == {"extra", "answer", "unsure", "seconds"}
    assert sum(found[Series("extra", "unknown")].values()) == 2
    model = store.open_model(read_settings().artifacts, "moods")
    lengths = bins.binnings(model)[Series("extra", "tokens")]
    assert found[Series("extra", "tokens")] == lengths.count(np.array([3.0, 4.0]))
    assert sum(found[Series("unsure", "the label")].values()) == 2


@pytest.mark.parametrize(
    ("cuts", "value", "place"),
    [
        ((0, 1, 2), -0.1, 0),
        ((0, 1, 2), 0, 1),
        ((0, 1, 2), 1, 2),
        ((0, 1, 2), 2, 2),
        ((0, 1, 2), 2.1, 3),
        ((5, 5, 5), 4.9, 0),
        ((5, 5, 5), 5, 1),
        ((5, 5, 5), 5.1, 2),
        ((0, 1, 2), float("nan"), MISSING),
    ],
)
def test_a_value_falls_into_its_bin(cuts: tuple[float, ...], value: float, place: int) -> None:
    assert bins.between(cuts).count(np.array([value])) == {place: 1}


def test_versions_without_bins_of_their_own_keep_those_that_they_were_counted_in(
    fresh: Path,
) -> None:
    """Whatever is in the records of such a version would be in other bins otherwise."""
    found = {}
    for name in ("houses", "moods"):
        artifact = artifacts.open(fresh, name)
        assert artifact.manifest.bins
        bare = replace(artifact, manifest=artifact.manifest.model_copy(update={"bins": None}))
        found[name] = families.from_artifact(bare)
    cuts = bins.binnings(found["houses"])
    area = found["houses"].takes.inputs[0]
    assert isinstance(area, Number)
    edges = cuts[Series("input", "area")].edges
    assert edges == (area.minimum, *area.quantiles, math.nextafter(area.maximum, math.inf))
    assert len(cuts[Series("answer", "price")]) == bins.PARTS + 2
    cuts = bins.binnings(found["moods"])
    assert cuts[Series("extra", "tokens")] == bins.POWERS
    assert cuts[Series("extra", "unknown")] == bins.TENTHS


def test_identifiers_are_in_the_order_of_time() -> None:
    now = queries.now()
    assert time_of(first_id(now)) == now
    assert first_id(now) <= answering.new_id() < first_id(queries.now() + 1)


def test_identifiers_are_uuids_of_version_7_and_all_different() -> None:
    found = [uuid.UUID(answering.new_id()) for _ in range(1000)]
    assert {(each.version, each.variant) for each in found} == {(7, uuid.RFC_4122)}
    assert len(set(found)) == 1000


def test_a_forked_process_gives_other_identifiers_than_its_parent(tmp_path: Path) -> None:
    code = """
import json, os
from mlapp.answering import new_id

new_id()  # draws digits for more
reader, writer = os.pipe()
if not (child := os.fork()):
    os.write(writer, new_id().encode())
    os._exit(0)
os.waitpid(child, 0)
print(json.dumps([os.read(reader, 100).decode(), new_id()]))
"""
    child, parent = run_python(code, tmp_path)
    assert child[-12:] != parent[-12:]  # the digits before these also hold the time


def test_what_is_too_old_is_deleted(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = predict(client, "houses", HOUSE)
    where = database()
    assert client.post("/v1/feedback", json={"id": answer["id"], "truth": 300}).status_code == 200
    assert queries.purge(where, 1) == 0
    assert len(rows(where)) == 1
    monkeypatch.setattr(queries, "now", lambda: time.time_ns() // 1_000_000 + 2 * queries.DAY)
    assert queries.purge(where, 1) == 1
    assert rows(where) == []
    assert queries.totals(where, "houses", 0) == {}
    with where.begin() as connection:
        assert connection.execute(text("SELECT count(*) FROM feedback")).scalar() == 0


def test_the_writer_deletes_what_is_too_old_by_itself(
    client: Client, fresh: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predict(client, "houses", HOUSE)
    where = database()
    with where.begin() as connection:
        connection.execute(answers.update().values(id=first_id(queries.now() - 91 * queries.DAY)))
    monkeypatch.setattr(records, "WRITE_EVERY", 0.01)
    own = Writer(lambda: Database(read_settings()), days=90)
    model = store.open_model(fresh, "houses")
    batch = model.check([HOUSE])
    own.add(record(model, batch))
    own.close()
    own._purge()
    assert [row["id"] for row in rows(where)] != []
    assert len(rows(where)) == 1


def test_a_file_leaves_one_record_with_its_summary_and_its_values_are_counted(
    client: Client, fresh: Path, tmp_path: Path
) -> None:
    table = "area,rooms,district\n100.5,3,north\n90,,east\n80,2,moon\n"
    headers = {"Content-Type": "text/csv"}
    answer = client.post("/v1/models/houses:score", data=table, headers=headers)
    assert answer.data.count(b"\n") == 4
    where = database()
    [run] = queries.latest_runs(where, "houses", 5)
    assert run["id"] == answer.headers["Mlapp-Id"]
    assert [run[key] for key in ("channel", "rows", "scored", "refused")] == ["file", 3, 2, 1]
    assert run["complete"]
    assert rows(where) == []
    found = queries.totals(where, "houses", 0)
    assert found[Series("input", "rooms")][MISSING] == 1
    assert found[Series("input", "district")][REFUSED] == 1
    assert sum(found[Series("answer", "price")].values()) == 2
    (tmp_path / "houses.csv").write_text(table)
    command = ["score", str(tmp_path / "houses.csv"), "-o", str(tmp_path / "out.csv")]
    assert main([*command, "--model", "houses"]) == 3
    database()
    run = queries.latest_runs(where, None, 1)[0]
    assert [run[key] for key in ("channel", "rows", "scored")] == ["command", 3, 2]
    assert queries.totals(where, "houses", 0)[Series("input", "rooms")][MISSING] == 2


def test_the_log_is_exported_as_json_lines_and_purged_by_command(
    client: Client, fresh: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    answer = predict(client, "moods", "we were furious", "a quiet sea")
    told = {"id": f"{answer['id']}-1", "truth": "calm", "note": "said so"}
    assert client.post("/v1/feedback", json=told).status_code == 200
    predict(client, "houses", HOUSE)
    database()
    capfdbinary.readouterr()
    assert main(["log", "export", "--model", "moods"]) == 0
    first, second = map(json.loads, capfdbinary.readouterr().out.splitlines())
    assert (first["id"], first["place"], first["truth"]) == (answer["id"], 0, None)
    assert (second["label"], second["truth"], second["note"]) == ("calm", "calm", "said so")
    assert datetime.fromisoformat(first["time"]).tzinfo is not None
    assert main(["log", "export", "--until", "2001-02-03"]) == 0
    assert capfdbinary.readouterr().out == b""
    assert main(["log", "purge"]) == 0
    assert b"0 answers deleted" in capfdbinary.readouterr().out
    assert main(["log", "purge", "--days", "0", "--model", "moods"]) == 0
    assert b"2 answers deleted" in capfdbinary.readouterr().out
    assert [row["model"] for row in rows(database())] == ["houses"]


def test_scored_files_are_exported_among_the_answers_in_the_order_of_time(
    client: Client, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    first = predict(client, "houses", HOUSE)
    table = "area,rooms,district\n100.5,3,north\n80,2,moon\n"
    headers = {"Content-Type": "text/csv"}
    scored = client.post("/v1/models/houses:score", data=table, headers=headers)
    assert scored.data.count(b"\n") == 3
    last = predict(client, "moods", "a quiet sea")
    database()
    capfdbinary.readouterr()
    assert main(["log", "export"]) == 0
    found = [json.loads(line) for line in capfdbinary.readouterr().out.splitlines()]
    assert [(row["record"], row["id"]) for row in found] == [
        ("answer", first["id"]),
        ("file", scored.headers["Mlapp-Id"]),
        ("answer", last["id"]),
    ]
    file = found[1]
    assert [file[key] for key in ("model", "channel", "rows", "scored", "refused")] == [
        "houses",
        "file",
        2,
        1,
        1,
    ]
    assert datetime.fromisoformat(file["time"]).tzinfo is not None
    assert main(["log", "export", "--model", "moods"]) == 0
    assert capfdbinary.readouterr().out.count(b"\n") == 1
    assert main(["log", "export", "--since", "2100-01-01"]) == 0
    assert capfdbinary.readouterr().out == b""


def test_all_scored_files_are_exported_however_many_they_are(
    fresh: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queries, "AT_ONCE", 2)
    log = records.writer()
    assert log is not None
    for place in range(5):
        log.add_run(Run(first_id(place), place, "houses", 1, "file", 0.1, 9, 9, 0, 0, True))
    where = database()
    assert [row["time"] for row in queries.export_runs(where)] == [0, 1, 2, 3, 4]
    assert [row["time"] for row in queries.export_runs(where, since=1, until=3)] == [1, 2]


@pytest.mark.parametrize("days", ["1000000000000000000", "9" * 5000, "20001", "-1", "1.5", "x"])
def test_a_number_of_days_that_is_not_one_is_a_usage_error(
    days: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["log", "purge", "--days", days])
    assert stopped.value.code == 2
    assert "expected a whole number from 0 to 20000" in capsys.readouterr().err


def record(model: Model, batch: Any) -> Record:
    now = queries.now()
    return Record(answering.new_id(), now, model, "v1", 0.001, batch, model.answer(batch))


@pytest.mark.usefixtures("fresh")
def test_a_text_with_half_of_a_surrogate_pair_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLAPP_LOG_INPUTS", "values")
    model = store.open_model(read_settings().artifacts, "moods")
    answering.answer(model, model.check(["a quiet \udcff sea"]), "command")
    [row] = queries.latest(database(), "moods", 5, with_inputs=True)
    assert row["inputs"] == {"text": "a quiet \ufffd sea"}


@pytest.mark.parametrize("url", ["mysql://host/database", "oracle+oracledb://host/database"])
def test_a_database_of_another_kind_is_refused_by_its_kind(
    monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("MLAPP_DATABASE_URL", url)
    kind = url.partition("+")[0].partition(":")[0]
    with pytest.raises(InvalidSettings, match=f"got {kind}, expected postgresql://"):
        Database(read_settings())


@pytest.mark.parametrize("command", [["quality", "houses"], ["drift", "houses"], ["log", "export"]])
def test_a_folder_of_the_records_that_does_not_exist_is_named(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: list[str],
) -> None:
    path = tmp_path / "nowhere" / "records.db"
    monkeypatch.setenv("MLAPP_DATABASE_URL", f"sqlite:///{path}")
    assert main(command) == 1
    said = f"MLAPP_DATABASE_URL: got {path}, expected a file in a folder that exists"
    assert said in capsys.readouterr().err
    path.parent.mkdir()
    assert main(command) == 0


@pytest.mark.slow(5)
def test_commands_that_only_read_need_no_folder_that_can_be_written(
    client: Client, fresh: Path
) -> None:
    powers = "-dac_override,-dac_read_search"
    unprivileged = ["setpriv", f"--inh-caps={powers}", f"--bounding-set={powers}"]
    if os.getuid() == 0 and not shutil.which("setpriv"):
        pytest.skip("root can write everywhere, and there is no setpriv on this machine")
    answer = predict(client, "houses", HOUSE)
    assert client.post("/v1/feedback", json={"id": answer["id"], "truth": 300}).status_code == 200
    records.close()
    commands = [["quality", "houses"], ["drift", "houses"], ["log", "export"]]
    code = f"from mlapp.cli import main\nprint([main(each) for each in {commands}])"
    before = (fresh / "records.db").read_bytes()
    (fresh / "records.db").chmod(0o444)
    fresh.chmod(0o555)
    try:
        done = subprocess.run(
            [*(unprivileged if os.getuid() == 0 else []), sys.executable, "-c", code],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.stderr, done.returncode) == ("", 0)
        assert done.stdout.splitlines()[-1] == "[0, 0, 0]"
        assert "1 judged" in done.stdout
        assert answer["id"] in done.stdout
        assert not list(fresh.glob("records.db-*"))
        assert (fresh / "records.db").read_bytes() == before
    finally:
        fresh.chmod(0o755)


@pytest.mark.slow(5)
def test_a_database_that_cannot_hold_every_text_is_refused(
    cluster: test_drills.PostgreSQL, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = create_engine(
        cluster.url.replace("postgresql:", "postgresql+psycopg:"), isolation_level="AUTOCOMMIT"
    )
    with server.connect() as connection:
        for encoding in ("LATIN1", "SQL_ASCII"):
            options = f"ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0"
            connection.execute(text(f"CREATE DATABASE {encoding} {options}"))
    server.dispose()
    for encoding in ("LATIN1", "SQL_ASCII"):
        url = cluster.url.removesuffix("postgres") + encoding.lower()
        monkeypatch.setenv("MLAPP_DATABASE_URL", url)
        said = f"MLAPP_DATABASE_URL: got a database in {encoding}, expected UTF8"
        with closing(Database(read_settings())) as found:
            with pytest.raises(RecordsUnavailable) as raised, found.begin():
                pass
            assert str(raised.value) == said
    monkeypatch.setenv("MLAPP_DATABASE_URL", cluster.url)
    with closing(Database(read_settings())) as found, found.begin():
        pass
