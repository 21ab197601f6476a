"""One row gets the same answer, or the same faults, through every door."""

import json
import re
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from streamlit.testing.v1 import AppTest

from mlapp.errors import InvalidInput
from mlapp.loaders import load_regression, load_sentiment
from mlapp.scoring.batch import Options, make_plan, score_batch
from mlapp.service import create_app
from mlapp.service.v2 import HEADER
from mlapp.store import open_model
from mlapp.tables.reading import open_table
from tests.conftest import ROOT, Client, client_of

ROW = {"var_1": 734.0, "var_2": 688.0, "var_3": 81.0, "var_4": 0.328, "var_5": 0.259}
ROWS: list[dict[str, Any]] = [
    ROW,
    ROW | {"var_1": 2000.0},
    ROW | {"var_2": None},
    ROW | {"var_1": 1e308, "var_4": None},
    dict.fromkeys(ROW),
]
TEXTS = ["The acting is wonderful and I loved every minute.", "dull", " ", "?!", "xyzzy plugh"]

NDJSON, PARQUET = "application/x-ndjson", "application/vnd.apache.parquet"

Answer = dict[str, float] | list[str]


@pytest.fixture
def client(every_model: Path) -> Client:
    return client_of(create_app())


def faults(found: list[dict[str, Any]]) -> list[str]:
    return [f"{each['input']}: got {each['got']}, expected {each['expected']}" for each in found]


def by_loader(row: dict[str, Any]) -> Answer:
    try:
        [found] = load_regression().predict([row]).to_dict("records")
    except InvalidInput as error:
        return [fault.message for fault in error.faults]
    return {str(key): value for key, value in found.items()}


def by_page(row: dict[str, Any]) -> Answer:
    app = AppTest.from_file(ROOT / "Home.py", default_timeout=30).run()
    app.switch_page("pages/regression.py").run()
    app.selectbox(key="_model_regression").select("regression").run()
    for name, value in row.items():
        app.number_input(key=name).set_value(value)
    app.button(key="predict").click()
    app.run()
    assert not app.exception
    if app.error:
        return [line.removeprefix("- ") for line in str(app.error[0].value).splitlines()]
    shown = app.dataframe[0].value.iloc[0]
    return {key: float(shown[key]) for key in ("prediction", "lower", "upper")}


def by_form(client: Client, row: dict[str, Any]) -> Answer:
    typed = {name: "" if value is None else repr(value) for name, value in row.items()}
    page = client.post("/predict", data=typed)
    if page.status_code == 422:
        found = re.findall(r'id="fault-(\d+)">(.*?)</span>', page.text)
        return [f"{list(row)[int(place) - 1]}: {text}" for place, text in found]
    texts = re.findall(r"<output>(.*?)</output>|<strong>([-0-9.,]+)</strong>", page.text)
    return dict(
        zip(("prediction", "lower", "upper"), (float(a or b) for a, b in texts), strict=True)
    )


def by_v1(client: Client, row: dict[str, Any]) -> Answer:
    found = client.post("/v1/models/regression:predict", json={"instances": [row]}).json
    return faults(found["faults"]) if "faults" in found else found["predictions"][0]


def by_v2(client: Client, row: dict[str, Any]) -> Answer:
    data = [[value] for value in row.values()]
    inputs = [
        {"name": name, "shape": [1], "datatype": "FP64", "data": value}
        for name, value in zip(row, data, strict=True)
    ]
    found = client.post("/v2/models/regression/infer", json={"inputs": inputs}).json
    if "faults" in found:
        return faults(found["faults"])
    return {output["name"]: output["data"][0] for output in found["outputs"]}


def by_binary(client: Client, row: dict[str, Any]) -> Answer:
    values = np.array([[np.nan if v is None else v for v in row.values()]], dtype="<f8")
    entry = {"name": "x", "datatype": "FP64", "shape": [1, 5]}
    header = json.dumps(
        {
            "inputs": [entry | {"parameters": {"binary_data_size": values.nbytes}}],
            "parameters": {"binary_data_output": True},
        }
    ).encode()
    answer = client.post(
        "/v2/models/regression/infer",
        data=header + values.tobytes(),
        headers={HEADER: str(len(header))},
    )
    if answer.status_code == 422:
        # A binary tensor has no null: its missing value is a NaN, and is reported as one.
        return [text.replace("got nan", "got nothing") for text in faults(answer.json["faults"])]
    return dict(
        zip(
            ("prediction", "lower", "upper"),
            struct.unpack("<3d", answer.data[int(answer.headers[HEADER]) :]),
            strict=True,
        )
    )


def command(*arguments: str) -> tuple[int, str, str]:
    ran = subprocess.run(
        [sys.executable, "-m", "mlapp.cli", "predict", *arguments], capture_output=True, text=True
    )
    return ran.returncode, ran.stdout, ran.stderr


def by_command(row: dict[str, Any]) -> Answer:
    given = [f"--{name}={value!r}" for name, value in row.items() if value is not None]
    status, out, err = command(*given)
    if status:
        return [
            re.sub(r"^row 0, ", "", text)
            for text in err.removeprefix("error: ").strip().split("; ")
        ]
    return {key: float(value) for key, value in re.findall(r"(\w+): (\S+)", out)}


@pytest.mark.parametrize("row", ROWS)
@pytest.mark.slow(6)
def test_a_row_gets_the_same_answer_or_faults_through_every_door(
    row: dict[str, Any], client: Client
) -> None:
    expected = by_loader(row)
    for found in (by_page(row), by_v1(client, row), by_v2(client, row), by_binary(client, row)):
        assert found == expected
    # These are typed as text, so that a fault shows the text; the form shows what it supports.
    typed = {name: value if value is None else repr(value) for name, value in row.items()}
    assert by_command(row) == by_loader(typed)
    shown = by_form(client, row)
    if isinstance(expected, dict):
        assert shown == {key: round(value, 3) for key, value in expected.items()}
    else:
        assert [text.replace("&#39;", "'") for text in shown] == by_loader(typed)


def post(client: Client, model: str, file: Path, kind: str, accept: str) -> bytes:
    headers = {"Content-Type": kind, "Accept": accept}
    path = f"/v1/models/{model}:score?explain=true"
    answer = client.post(path, data=file.read_bytes(), headers=headers, buffered=True)
    assert answer.status_code == 200
    return bytes(answer.data)


def score(model: str, file: Path, suffix: str) -> bytes:
    target = file.with_suffix(suffix)
    command = [sys.executable, "-m", "mlapp.cli", "score", str(file), "-o", str(target)]
    ran = subprocess.run([*command, "--model", model, "--explain"], capture_output=True, text=True)
    assert ran.returncode in (0, 3), ran.stderr
    return target.read_bytes()


def by_batch(folder: Path, model: str, file: Path) -> list[dict[str, Any]]:
    opened = open_model(folder, model)
    with open_table(file) as table:
        plan = make_plan(opened, table.schema, Options(explain=True))
        [chunk] = table.chunks()
        return list(score_batch(opened, plan, chunk.batch, chunk.faults).batch.to_pylist())


@pytest.mark.slow
def test_a_file_of_rows_gets_the_same_answers_through_service_command_and_batch(
    client: Client, every_model: Path, tmp_path: Path
) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in ROWS))
    lines = post(client, "regression", file, NDJSON, NDJSON)
    assert lines == score("regression", file, ".out.jsonl")
    table = post(client, "regression", file, NDJSON, PARQUET)
    assert table == score("regression", file, ".parquet")
    rows = pq.read_table(pa.BufferReader(table)).to_pylist()
    assert rows == by_batch(every_model, "regression", file)
    for row, line, found in zip(ROWS, lines.splitlines(), rows, strict=True):
        # A file's cells are text, so that a fault shows the text.
        typed = {name: value if value is None else json.dumps(value) for name, value in row.items()}
        expected = by_loader(typed)
        for each in (orjson.loads(line), found):
            if isinstance(expected, dict):
                assert {name: each[name] for name in expected} == expected
                assert each["error"] is None
            else:
                assert each["error"] == "; ".join(expected)


@pytest.mark.slow
def test_a_file_of_texts_gets_the_same_answers_through_service_command_and_batch(
    client: Client, every_model: Path, tmp_path: Path
) -> None:
    file = tmp_path / "texts.csv"
    pd.DataFrame({"text": TEXTS}).to_csv(file, index=False)
    assert post(client, "sentiment", file, "text/csv", "text/csv") == score(
        "sentiment", file, ".out.csv"
    )
    table = pq.read_table(pa.BufferReader(post(client, "sentiment", file, "text/csv", PARQUET)))
    rows = table.to_pylist()
    assert rows == by_batch(every_model, "sentiment", file)
    for text, found in zip(TEXTS, rows, strict=True):
        try:
            expected = load_sentiment().predict([text]).to_dict("records")[0]
        except InvalidInput as error:
            assert found["error"] == error.faults[0].message
        else:
            assert found["label"] == expected["label"]
            assert found["probability"] == expected["probability"]


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.slow(6)
def test_a_text_gets_the_same_answer_or_fault_through_every_door(text: str, client: Client) -> None:
    v1 = client.post("/v1/models/sentiment:predict", json={"instances": [text]}).json
    tensor = {"name": "text", "shape": [1], "datatype": "BYTES", "data": [text]}
    v2 = client.post("/v2/models/sentiment/infer", json={"inputs": [tensor]}).json
    form = client.post("/sentiment", data={"review": text})
    app = AppTest.from_file(ROOT / "Home.py", default_timeout=30).run()
    app.switch_page("pages/sentiment.py").run()
    app.selectbox(key="_model_text-classification").select("sentiment").run()
    app.text_area(key="review").set_value(text)
    app.button(key="predict").click()
    app.run()
    status, out, err = command(text)
    try:
        expected = load_sentiment().predict([text]).to_dict("records")[0]
    except InvalidInput as error:
        [fault] = error.faults
        assert faults(v1["faults"]) == faults(v2["faults"]) == [fault.message]
        assert app.error[0].value == "- Review" + fault.message.removeprefix("text")
        assert form.status_code == 422
        assert status == 1
        assert fault.message in err
    else:
        assert v1["predictions"] == [expected]
        assert v2["outputs"][0]["data"] == [expected["label"]]
        assert v2["outputs"][1]["data"] == [expected["probability"]]
        assert f"<output>{expected['label']}</output>" in form.text
        assert app.dataframe[0].value["probability"][0] == expected["probability"]
        assert f"probability: {expected['probability']}" in out
