"""The service without a server: every door, every status."""

import gzip
import json
import logging
import re
import shutil
import struct
import zlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import numpy as np
import pandas as pd
import pytest
from openapi_spec_validator import validate
from sklearn.linear_model import Ridge
from werkzeug.test import encode_multipart

import mlapp
from mlapp.service import create_app
from mlapp.service.run import check_exposure
from mlapp.service.v2 import HEADER
from mlapp.settings import Settings, read_settings
from mlapp.store import artifacts
from tests.conftest import Client, client_of, open_regression, open_sentiment
from training.regression import train

ROW = {"var_1": 734, "var_2": 688, "var_3": 81, "var_4": 0.328, "var_5": 0.259}
HOUSE = {"area": 100.0, "rooms": None, "district": "west"}
GOOD = "The acting is wonderful and I loved every minute of it."
PREDICT = "/v1/models/regression:predict"
INFER = "/v2/models/regression/infer"
FORM = "application/x-www-form-urlencoded"


@pytest.fixture
def folder(every_model: Path) -> Path:
    return every_model


@pytest.fixture
def client(folder: Path) -> Client:
    return client_of(create_app())


def with_settings(folder: Path, **changed: Any) -> Client:
    return client_of(create_app(replace(read_settings(), **changed)))


def tensor(name: str, datatype: str, shape: list[int], data: list[Any]) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": shape, "data": data}


def one_tensor(rows: list[list[Any]]) -> dict[str, Any]:
    return {"inputs": [tensor("input", "FP64", [len(rows), 5], [v for row in rows for v in row])]}


# --- a path that was asked before, which skips Flask -------------------------------------------


@pytest.mark.parametrize(
    "sent",
    [
        {"path": PREDICT, "json": {"instances": [ROW]}},
        {"path": PREDICT, "json": {"instances": [ROW | {"var_1": 1e6, "unknown": 1}]}},
        {"path": PREDICT, "json": {"instances": [ROW | {"var_1": "many"}]}},
        {"path": PREDICT, "json": {"instances": [ROW] * 10_001}},
        {"path": PREDICT, "data": b"{", "content_type": "application/json"},
        {"path": PREDICT, "data": b"{}", "content_type": "text/plain"},
        {"path": f"/{PREDICT}", "json": {"instances": [ROW]}},
        {"path": f"{PREDICT}?x=1", "json": {"instances": [ROW]}},
        {"path": PREDICT, "method": "OPTIONS"},
        {"path": PREDICT, "method": "GET"},
        {"path": PREDICT.replace(":predict", ":explain"), "json": {"instances": [ROW]}},
        {"path": PREDICT.replace(":", "/versions/1:"), "json": {"instances": [ROW]}},
        {"path": PREDICT.replace(":", "/versions/9:"), "json": {"instances": [ROW]}},
        {"path": "/v1/models/größe:predict", "json": {"instances": [ROW]}},
        {"path": "/v1/models/gr\u00c3\u00b6\u00c3\u009fe:predict", "json": {"instances": [ROW]}},
        {"path": INFER, "json": one_tensor([[734, 688, 81, 0.328, 0.259]])},
        {"path": INFER, "json": one_tensor([[734, 688]])},
        {"path": INFER, "json": {"inputs": []}},
    ],
)
def test_a_path_is_answered_the_same_the_first_time_and_later(
    client: Client, sent: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "mlapp.access")
    found = []
    for _ in range(3):
        answer = client.open(**{"method": "POST"} | sent)
        headers = {name: text for name, text in answer.headers if name != "Mlapp-Id"}
        identifier = answer.headers.get("Mlapp-Id", "none")
        found.append((answer.status_code, headers, answer.text.replace(identifier, "id")))
    assert found[0] == found[1] == found[2]
    lines = [re.sub(r"^\S+|\d+\.\d+(?= \S+ \d+ \d+$)", "", line) for line in caplog.messages]
    assert len(lines) == 3
    assert len(set(lines)) == 1


# --- the form ---------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/", "/form"])
def test_the_form_has_a_field_for_each_input_with_its_typical_value(
    client: Client, path: str
) -> None:
    page = client.get(path)
    assert page.status_code == 200
    for name, value in {"var_1": "716", "var_4": "0.326"}.items():
        assert f'name="{name}" value="{value}"' in page.text


def test_the_result_shows_the_prediction_with_its_interval(client: Client) -> None:
    page = client.post("/predict", data=ROW)
    assert page.status_code == 200
    assert "<output>0.401</output>" in page.text
    assert "90% interval: <strong>0.381</strong> to <strong>0.421</strong>" in page.text
    assert "beyond" not in page.text


def test_a_value_outside_the_training_range_is_predicted_with_a_notice(client: Client) -> None:
    page = client.post("/predict", data=ROW | {"var_1": "2000"})
    assert "var_1: 2000 lies outside the range seen in training" in page.text


def test_bad_values_give_the_form_again_filled_as_it_was(client: Client) -> None:
    page = client.post("/predict", data=ROW | {"var_1": '"><script>', "var_3": ""})
    assert page.status_code == 422
    assert "Please enter valid values" in page.text
    assert "expected a finite number" in page.text
    assert page.text.count("aria-invalid") == 2
    assert 'name="var_2" value="688"' in page.text
    assert "<script" not in page.text


def test_get_predict_leads_back_to_the_form(client: Client) -> None:
    answer = client.get("/predict")
    assert (answer.status_code, answer.location) == (302, "/form")
    assert client.get("/predict?_model=moods").location == "/form?_model=moods"


def test_another_model_is_named_in_the_address(client: Client) -> None:
    assert "<option" in client.get("/form?_model=houses").text
    page = client.post("/predict?_model=houses", data={"area": "100", "district": "west"})
    assert "Predicted price" in page.text
    assert client.get("/form?_model=flats").status_code == 404


@pytest.mark.parametrize("kind", [FORM, "multipart/form-data"])
def test_another_model_may_be_named_in_the_form(client: Client, kind: str) -> None:
    house = {"area": "100", "district": "west", "_model": "houses"}
    page = client.post("/predict", **encode_form(house, kind))
    assert page.status_code == 200
    assert "Predicted price" in page.text
    also = client.post("/predict?_model=houses", **encode_form(house, kind))
    assert "Predicted price" in also.text
    mood = {"review": GOOD, "_model": "moods"}
    assert "Probability" in client.post("/sentiment", **encode_form(mood, kind)).text


def test_a_form_that_names_no_published_model_is_not_answered_by_another(client: Client) -> None:
    row = {name: str(value) for name, value in ROW.items()}
    for path in ("/predict", "/sentiment"):
        page = client.post(path, data=row | {"_model": "nosuch", "review": GOOD})
        assert page.status_code == 404
        assert "nosuch" in page.text
    differ = client.post("/predict?_model=houses", data=row | {"_model": "regression"})
    assert differ.status_code == 422
    expected = "_model: got &#39;houses&#39;, &#39;regression&#39;, expected one name"
    assert expected in differ.text
    assert client.get("/form?_model=houses&_model=moods").status_code == 422


def test_a_form_is_answered_by_the_model_it_names_if_the_default_does_not_open(
    client: Client, folder: Path
) -> None:
    (folder / "regression" / "1" / "model.joblib").write_bytes(b"broken")
    house = {"area": "100", "district": "west"}
    assert client.post("/predict", data=house).status_code == 503
    assert "Predicted price" in client.post("/predict", data=house | {"_model": "houses"}).text


@pytest.mark.parametrize(
    ("form", "action"),
    [("/form?_model=sentiment", "/predict?_model=sentiment"), ("/sentiment", "/sentiment")],
)
def test_a_text_classifier_has_a_form_too(client: Client, form: str, action: str) -> None:
    assert 'action="/predict?_model=sentiment"' in client.get(form).text
    page = client.post(action, data={"review": GOOD})
    assert "Probability" in page.text
    refused = client.post(action, data={"review": " "})
    assert refused.status_code == 422
    assert "Please enter valid values" in refused.text


def test_every_page_leads_to_the_form_of_every_model(client: Client, folder: Path) -> None:
    for path in ("/form", "/form?_model=flats", "/docs"):
        links = re.findall(r'href="(/form[^"]*)"', client.get(path).text)
        assert {f"/form?_model={name}" for name in artifacts.names(folder)} <= set(links)
    for link in links:
        assert "<form" in client.get(link).text


def test_the_form_is_that_of_a_text_classifier_where_there_is_no_other(
    client: Client, folder: Path
) -> None:
    for name in set(artifacts.names(folder)) - {"moods"}:
        shutil.rmtree(folder / name)
    assert "<textarea" in client.get("/form").text


def test_the_form_says_where_no_model_is_published(client: Client, folder: Path) -> None:
    for name in artifacts.names(folder):
        shutil.rmtree(folder / name)
    page = client.get("/form")
    assert page.status_code == 404
    assert "No model is published" in page.text


def test_the_sentiment_page_answers_a_review_and_refuses_nothing(client: Client) -> None:
    assert client.get("/sentiment").status_code == 200
    page = client.post("/sentiment", data={"review": GOOD})
    assert "Probability" in page.text
    assert GOOD in page.text
    refused = client.post("/sentiment", data={"review": " "})
    assert refused.status_code == 422
    assert "Please enter valid values" in refused.text


def test_pages_load_nothing_from_elsewhere_and_need_no_script(client: Client) -> None:
    for path in ("/form", "/sentiment", "/docs"):
        page = client.get(path)
        assert "http://" not in page.text
        assert "https://" not in page.text
        assert "<script" not in page.text
        assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    with client.get("/service-static/style.css") as style:
        assert style.status_code == 200


@pytest.mark.parametrize(
    ("encoding", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress)]
)
def test_a_compressed_form_is_read(
    client: Client, encoding: str, pack: Callable[[bytes], bytes]
) -> None:
    body = pack(urlencode(ROW).encode())
    headers = {"Content-Encoding": encoding, "Content-Type": FORM}
    page = client.post("/predict", data=body, headers=headers)
    assert "<output>0.401</output>" in page.text
    assert client.post("/predict", data=b"plain", headers=headers).status_code == 400
    headers["Content-Encoding"] = "br"
    assert client.post("/predict", data=body, headers=headers).status_code == 415


def encode_form(fields: Mapping[str, str], kind: str) -> dict[str, Any]:
    """Return the body and the type of a form, for a client."""
    if kind == FORM:
        return {"data": urlencode(fields), "content_type": FORM}
    boundary, body = encode_multipart(fields)
    return {"data": body, "content_type": f"{kind}; boundary={boundary}"}


@pytest.mark.slow
@pytest.mark.parametrize("kind", [FORM, "multipart/form-data"])
def test_a_field_of_a_form_may_be_as_large_as_a_body(folder: Path, kind: str) -> None:
    sent = encode_form({"review": GOOD * 20_000}, kind)  # more than a megabyte
    assert client_of(create_app()).post("/sentiment", **sent).status_code == 200
    assert with_settings(folder, max_bytes=1_000_000).post("/sentiment", **sent).status_code == 413


@pytest.mark.slow
def test_a_form_may_have_as_many_fields_as_the_model_has_inputs(folder: Path) -> None:
    row = publish_wide(folder, 1_100)
    more = {f"unknown_{place}": "1" for place in range(2_000)}
    client = client_of(create_app())
    for kind in (FORM, "multipart/form-data"):
        page = client.post("/predict?_model=wide", **encode_form(row, kind))
        assert page.status_code == 200
        assert "Predicted y" in page.text
        refused = client.post("/predict?_model=wide", **encode_form(row | more, kind))
        assert refused.status_code == 413


def publish_wide(root: Path, inputs: int) -> dict[str, str]:
    """Publish the model `wide` of many inputs; return a row for it."""
    rng = np.random.default_rng(1)
    names = [f"x_{place}" for place in range(inputs)]
    table = pd.DataFrame(rng.normal(size=(40, inputs)), columns=names)
    target = table.sum(axis=1)
    fitted = Ridge().fit(table, target)
    mlapp.publish(fitted, table, target.rename("y"), "wide", root=root, say=lambda line: None)
    return dict.fromkeys(names, "0.5")


# --- v1 ---------------------------------------------------------------------------------------


def test_the_short_form_predicts_as_the_model_does(client: Client, folder: Path) -> None:
    answer = client.post(PREDICT, json={"instances": [ROW, ROW | {"var_1": 800}]})
    assert answer.status_code == 200
    expected = open_regression(folder).predict([ROW, ROW | {"var_1": 800}])
    assert answer.json["predictions"] == expected.to_dict("records")
    assert "notices" not in answer.json


def test_the_short_form_classifies_texts(client: Client, folder: Path) -> None:
    answer = client.post("/v1/models/sentiment:predict", json={"instances": [GOOD]})
    expected = open_sentiment(folder).predict([GOOD]).to_dict("records")
    assert answer.json["predictions"] == expected


def test_a_category_and_a_missing_value_are_taken(client: Client) -> None:
    answer = client.post("/v1/models/houses:predict", json={"instances": [HOUSE]})
    assert answer.status_code == 200


def test_notices_come_with_the_predictions(client: Client) -> None:
    answer = client.post(PREDICT, json={"instances": [ROW | {"var_1": 2000}]})
    assert "row 0, var_1: 2000 lies outside" in answer.json["notices"][0]


def test_explanations_sum_to_the_prediction(client: Client) -> None:
    explained = client.post("/v1/models/regression:explain", json={"instances": [ROW]}).json
    predicted = client.post(PREDICT, json={"instances": [ROW]}).json
    total = sum(explained["explanations"][0].values())
    assert total == pytest.approx(predicted["predictions"][0]["prediction"])


def test_explanations_of_a_text_sum_to_its_logit(client: Client) -> None:
    answer = client.post("/v1/models/sentiment:explain", json={"instances": [GOOD]})
    [explained] = answer.json["explanations"]
    total = explained["bias"] + sum(span["weight"] for span in explained["spans"])
    assert total == pytest.approx(explained["logit"], abs=1e-4)


def test_models_are_listed_and_shown_with_their_inputs(client: Client) -> None:
    listed = {model["name"] for model in client.get("/v1/models").json["models"]}
    assert listed == {"chapter", "houses", "moods", "regression", "sentiment", "topics"}
    shown = client.get("/v1/models/houses").json
    assert [each["name"] for each in shown["inputs"]] == ["area", "rooms", "district"]
    assert shown["versions"] == [1]
    assert client.get("/v1/models/moods").json["labels"] == ["angry", "calm", "glad"]


@pytest.mark.slow
def test_every_published_version_answers_by_its_number(
    client: Client, folder: Path, houses_csv: Path
) -> None:
    train(houses_csv, "price", "houses", folder, say=lambda line: None)
    artifacts.pin(folder, "houses", 1)
    for version in (1, 2):
        path = f"/v1/models/houses/versions/{version}"
        assert client.get(path).json["version"] == version
        assert client.post(f"{path}:predict", json={"instances": [HOUSE]}).status_code == 200
    assert client.get("/v1/models/houses").json["version"] == 1
    assert client.get("/v1/models/houses/versions/3").status_code == 404


def test_a_version_that_is_not_published_is_named(client: Client) -> None:
    for path in ("/v1/models/regression/versions/9", "/v2/models/regression/versions/9/ready"):
        answer = client.get(path)
        assert answer.status_code == 404
        detail = answer.json.get("detail") or answer.json["error"]
        assert detail == "Version 9 of 'regression' is not published"
    detail = client.get("/v1/models/flats/versions/9").json["detail"]
    assert detail == "No model 'flats' is published; /v1/models lists all"


@pytest.mark.parametrize("version", ["01", "\u0661", "1" * 5000])
def test_the_number_of_a_version_has_one_spelling(client: Client, version: str) -> None:
    assert client.get(f"/v1/models/regression/versions/{version}").status_code == 404
    assert client.get(f"/v2/models/regression/versions/{version}/ready").status_code == 404
    path = f"/v1/models/regression/versions/{version}:predict"
    assert client.post(path, json={"instances": [ROW]}).status_code == 404


@pytest.mark.parametrize(
    ("path", "detail"),
    [
        ("/nothing", "Nothing is at '/nothing'; /docs lists the routes"),
        ("/v1/<b>", "Nothing is at '/v1/<b>'; /docs lists the routes"),
        (
            "/v1/models/regression:frob",
            "Method of a model: got 'frob', expected predict, explain or score",
        ),
        (
            "/v1/models/regression/versions/1:",
            "Method of a model: got nothing, expected predict, explain or score",
        ),
    ],
)
def test_a_path_without_a_route_is_refused_in_own_words(
    client: Client, path: str, detail: str
) -> None:
    for method in ("GET", "POST"):
        answer: Any = client.open(path, method=method)
        assert (answer.status_code, answer.json["detail"]) == (404, detail)


def test_a_path_is_quoted_in_a_few_words(client: Client) -> None:
    assert len(client.get(f"/v2/{'x' * 5000}").json["error"]) < 150


def test_a_method_that_a_route_does_not_take_is_named_with_those_it_does(client: Client) -> None:
    answer = client.get(PREDICT)
    expected = f"Method: got 'GET', expected one of OPTIONS, POST for '{PREDICT}'"
    assert (answer.status_code, answer.json["detail"]) == (405, expected)


def test_faults_are_problem_details_that_name_row_input_got_and_expected(
    client: Client,
) -> None:
    rows = [ROW, ROW | {"var_1": "abc"}, ROW | {"var_2": None}]
    answer = client.post(PREDICT, json={"instances": rows})
    assert answer.status_code == 422
    assert answer.mimetype == "application/problem+json"
    assert answer.json["faults"] == [
        {"row": 1, "input": "var_1", "got": "'abc'", "expected": "a finite number"},
        {"row": 2, "input": "var_2", "got": "nothing", "expected": "a finite number"},
    ]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"\xff", 400),
        (b"[1]", 400),
        (b'{"instances": [{"var_1": NaN}]}', 400),
        (b'{"instances": ' + b"[" * 100_000, 400),
        (b'{"instances": [{"var_1": 1' + b"0" * 5000 + b"}]}", 400),
        (b"{}", 422),
        (b'{"instances": []}', 422),
        (b'{"instances": {}}', 422),
        (b'{"instances": [1]}', 422),
        (b'{"instances": [{"var_1": 1e999}]}', 400),
        (b'{"instances": [{"var_1": "\\ud800"}]}', 400),
    ],
)
def test_a_bad_body_is_distinguished_from_bad_values(
    client: Client, body: bytes, status: int
) -> None:
    answer = client.post(PREDICT, data=body, content_type="application/json")
    assert answer.status_code == status
    assert answer.mimetype == "application/problem+json"
    assert answer.json["detail"]


@pytest.mark.parametrize(
    ("method", "path", "content_type", "status"),
    [
        ("GET", "/nothing", None, 404),
        ("GET", "/v1/models/flats", None, 404),
        ("POST", "/v1/models/flats:predict", "application/json", 404),
        ("GET", "/v1/models/..%2f..%2fetc", None, 404),
        ("GET", PREDICT, None, 405),
        ("POST", "/v1/models", "application/json", 405),
        ("POST", PREDICT, "text/plain", 415),
        ("POST", PREDICT, None, 415),
    ],
)
def test_what_is_not_there_or_not_taken_has_its_own_status(
    client: Client, method: str, path: str, content_type: str | None, status: int
) -> None:
    answer = client.open(path, method=method, data=b"{}", content_type=content_type)
    assert answer.status_code == status
    assert answer.mimetype == "application/problem+json"
    if status == 405:
        assert "Allow" in answer.headers


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ("null", "null"),
        ("[]", "array"),
        ("true", "boolean"),
        ("1", "number"),
        ("1.5", "number"),
        ('"text"', "string"),
    ],
)
def test_a_body_that_is_no_object_is_called_what_json_calls_it(
    client: Client, body: str, kind: str
) -> None:
    answer = client.post(PREDICT, data=body, content_type="application/json")
    assert answer.status_code == 400
    assert answer.json["detail"] == f"The body is a JSON {kind}, expected an object"


def test_a_body_or_a_batch_that_is_too_large_is_refused(folder: Path) -> None:
    client = with_settings(folder, max_bytes=2000, max_rows=3)
    assert client.post(PREDICT, json={"instances": [ROW] * 4}).status_code == 413
    assert client.post(PREDICT, json={"instances": [ROW] * 100}).status_code == 413
    bomb = gzip.compress(b" " * 1_000_000)
    headers = {"Content-Encoding": "gzip", "Content-Type": "application/json"}
    assert client.post(PREDICT, data=bomb, headers=headers).status_code == 413


@pytest.mark.parametrize(
    ("encoding", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress)]
)
def test_a_compressed_body_is_read(
    client: Client, encoding: str, pack: Callable[[bytes], bytes]
) -> None:
    body = pack(json.dumps({"instances": [ROW]}).encode())
    headers = {"Content-Encoding": encoding, "Content-Type": "application/json"}
    assert client.post(PREDICT, data=body, headers=headers).status_code == 200
    assert client.post(PREDICT, data=body[:-3], headers=headers).status_code == 400
    assert client.post(PREDICT, data=b"plain", headers=headers).status_code == 400
    headers["Content-Encoding"] = "br"
    assert client.post(PREDICT, data=body, headers=headers).status_code == 415


def test_a_model_that_cannot_be_opened_is_503_without_its_path_and_the_others_work(
    folder: Path,
) -> None:
    (folder / "houses" / "1" / "model.joblib").write_bytes(b"broken")
    client = client_of(create_app())
    answer = client.post("/v1/models/houses:predict", json={"instances": [HOUSE]})
    assert answer.status_code == 503
    assert str(folder) not in answer.text
    assert {"name": "houses", "ready": False} in client.get("/v1/models").json["models"]
    assert client.get("/v2/models/houses/ready").status_code == 503
    assert client.post(PREDICT, json={"instances": [ROW]}).status_code == 200
    assert client.get("/readyz").status_code == 503  # all models, as the protocol has it


def test_a_model_whose_pinned_version_is_missing_is_503_and_not_unknown(folder: Path) -> None:
    (folder / "houses" / "pinned").write_text("7")
    client = client_of(create_app())
    answer = client.post("/v1/models/houses:predict", json={"instances": [HOUSE]})
    assert answer.status_code == 503
    assert client.get("/v1/models/house").status_code == 404


@pytest.mark.parametrize("kind", ["application/json", "text/plain"])
def test_a_form_of_another_type_is_refused(client: Client, kind: str) -> None:
    answer = client.post("/predict", data="{}", content_type=kind)
    assert answer.status_code == 415
    assert f"got &#39;{kind}&#39;, expected application/x-www-form-urlencoded" in answer.text


def test_an_unexpected_error_is_a_problem_without_its_text(
    client: Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from mlapp.families.regression import RegressionModel

    def fail(*_: Any) -> None:
        raise RuntimeError("secret")

    monkeypatch.setattr(RegressionModel, "predict_array", fail)
    for path, body in ((PREDICT, {"instances": [ROW]}), (INFER, one_tensor([[1] * 5]))):
        answer = client.post(path, json=body)
        assert answer.status_code == 500
        assert "secret" not in answer.text
        assert answer.is_json or answer.mimetype == "application/problem+json"
    assert "secret" in caplog.text


# --- v2 ---------------------------------------------------------------------------------------


def test_the_server_and_its_models_describe_themselves(client: Client) -> None:
    server = client.get("/v2").json
    assert (server["name"], server["extensions"]) == ("mlapp", ["binary_tensor_data"])
    assert client.get("/v2/health/live").json == {"live": True}
    assert client.get("/v2/health/ready").json == {"ready": True}
    houses = client.get("/v2/models/houses").json
    assert houses["versions"] == ["1"]
    assert houses["inputs"][2] == {"name": "district", "datatype": "BYTES", "shape": [-1]}
    assert client.get("/v2/models/houses/versions/1/ready").json["ready"] is True
    assert client.get("/v2/models/moods").json["outputs"][2]["shape"] == [-1, 3]


def test_a_table_is_taken_as_one_tensor_or_one_per_input(client: Client, folder: Path) -> None:
    rows = [list(ROW.values()), list((ROW | {"var_1": 800}).values())]
    one = client.post(INFER, json=one_tensor(rows) | {"id": "42"}).json
    nested = {"inputs": [tensor("x", "FP32", [2, 5], rows)]}
    named = {
        "inputs": [
            tensor(name, "FP64", [2] if place else [2, 1], [row[place] for row in rows])
            for place, name in reversed(list(enumerate(ROW)))
        ]
    }
    expected = open_regression(folder).predict([ROW, ROW | {"var_1": 800}])
    assert (one["id"], one["model_name"], one["model_version"]) == ("42", "regression", "1")
    for answer in (one, *(client.post(INFER, json=body).json for body in (nested, named))):
        for output in answer["outputs"]:
            assert output["data"] == pytest.approx(expected[output["name"]].tolist())
            assert (output["datatype"], output["shape"]) == ("FP64", [2])


def test_categories_and_missing_values_are_taken_as_bytes_and_null(client: Client) -> None:
    body = {
        "inputs": [
            tensor("area", "FP64", [1], [100]),
            tensor("rooms", "FP64", [1], [None]),
            tensor("district", "BYTES", [1], ["west"]),
        ]
    }
    by_tensor = client.post("/v2/models/houses/infer", json=body).json["outputs"][0]["data"]
    by_row = client.post("/v1/models/houses:predict", json={"instances": [HOUSE]}).json
    assert by_tensor == [by_row["predictions"][0]["prediction"]]


def test_texts_are_classified_from_bytes(client: Client, folder: Path) -> None:
    body = {"inputs": [tensor("text", "BYTES", [2, 1], [GOOD, "A dull mess."])]}
    outputs = {
        output["name"]: output
        for output in client.post("/v2/models/sentiment/infer", json=body).json["outputs"]
    }
    expected = open_sentiment(folder).predict([GOOD, "A dull mess."])
    assert outputs["label"]["data"] == list(expected["label"])
    assert outputs["probabilities"]["shape"] == [2, 2]
    assert outputs["probability"]["data"] == pytest.approx(expected["probability"].tolist())


def test_only_the_requested_outputs_are_sent(client: Client) -> None:
    body = one_tensor([list(ROW.values())]) | {"outputs": [{"name": "upper"}]}
    answer = client.post(INFER, json=body).json
    assert [output["name"] for output in answer["outputs"]] == ["upper"]


def test_binary_tensors_go_in_and_out(client: Client, folder: Path) -> None:
    values = np.array([list(ROW.values())] * 3, dtype="<f4")
    header = json.dumps(
        {
            "inputs": [
                {
                    "name": "x",
                    "datatype": "FP32",
                    "shape": [3, 5],
                    "parameters": {"binary_data_size": values.nbytes},
                }
            ],
            "outputs": [
                {"name": "prediction", "parameters": {"binary_data": True}},
                {"name": "lower"},
            ],
        }
    ).encode()
    answer = client.post(INFER, data=header + values.tobytes(), headers={HEADER: str(len(header))})
    length = int(answer.headers[HEADER])
    prediction, lower = json.loads(answer.data[:length])["outputs"]
    assert prediction["parameters"] == {"binary_data_size": 24}
    expected = open_regression(folder).predict([ROW] * 3)
    np.testing.assert_allclose(
        np.frombuffer(answer.data[length:], "<f8"), expected["prediction"], rtol=1e-6
    )
    assert lower["data"] == pytest.approx(expected["lower"].tolist(), rel=1e-6)


def test_faults_of_tensors_are_those_of_rows(client: Client) -> None:
    rows: list[list[str | None]] = [
        ["734", "688", "81", "0.328", "0.259"],
        [None, "abc", "81", "0.328", "0.259"],
    ]
    values = [value for row in rows for value in row]
    by_tensor = client.post(INFER, json={"inputs": [tensor("rows", "BYTES", [2, 5], values)]})
    row = dict(zip(ROW, rows[1], strict=True))
    by_row = client.post(PREDICT, json={"instances": [ROW, row]})
    assert by_tensor.status_code == by_row.status_code == 422
    assert by_tensor.json["faults"] == by_row.json["faults"]
    assert by_tensor.json["error"] == by_row.json["detail"]


def binary(size: int, data: bytes, datatype: str = "BYTES") -> tuple[bytes, bytes]:
    entry = {"name": "text", "datatype": datatype, "shape": [1]}
    return (
        json.dumps({"inputs": [entry | {"parameters": {"binary_data_size": size}}]}).encode(),
        data,
    )


@pytest.mark.parametrize(
    ("header", "data"),
    [
        binary(100, b"\x05\0\0\0hello"),
        binary(9, b"\xff\0\0\0hello"),
        binary(3, b"\x05\0\0"),
        binary(8, b"\x04\0\0\0\xff\xff\xff\xff"),
        binary(18, b"\x05\0\0\0hello\x05\0\0\0hello"),
        binary(9, b"\x05\0\0\0hellomore"),
        binary(9, b"\x05\0\0\0hello", "FP64"),
        binary(-1, b""),
    ],
)
def test_broken_binary_tensors_are_refused(client: Client, header: bytes, data: bytes) -> None:
    answer = client.post(
        "/v2/models/sentiment/infer", data=header + data, headers={HEADER: str(len(header))}
    )
    assert answer.status_code == 400
    assert answer.json["error"]


@pytest.mark.parametrize("length", ["-1", "abc", "99999999", "١"])
def test_a_wrong_header_length_is_refused(client: Client, length: str) -> None:
    answer = client.post(INFER, data=b"{}", headers={HEADER: length.encode().decode("latin-1")})
    assert answer.status_code == 400


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"inputs": []},
        {"inputs": [1]},
        {"inputs": [tensor("x", "FP8", [1, 5], [1] * 5)]},
        {"inputs": [tensor("x", "FP64", [1, 5], [1] * 4)]},
        {"inputs": [tensor("x", "FP64", [2, 4], [1] * 8)]},
        {"inputs": [tensor("x", "FP64", [-1, 5], [1] * 5)]},
        {"inputs": [tensor("x", "FP64", [], [1])]},
        {"inputs": [tensor("x", "FP64", [True, 5], [1] * 5)]},
        {"inputs": [tensor("x", "FP64", [1, 5], "12345")]},  # type: ignore[arg-type]
        {"inputs": [tensor("var_1", "FP64", [1], [1])] * 2},
        {"inputs": [tensor("var_1", "FP64", [2], [1, 2]), tensor("var_2", "FP64", [1], [1])]},
        {"inputs": [tensor("var_1", "FP64", [1, 2], [1, 2])]},
        one_tensor([[1] * 5]) | {"outputs": [{"name": "median"}]},
        one_tensor([[1] * 5]) | {"outputs": "prediction!"},
    ],
)
def test_requests_that_break_the_protocol_are_400_with_an_error(
    client: Client, body: dict[str, Any]
) -> None:
    answer = client.post(INFER, json=body)
    assert answer.status_code == 400
    assert isinstance(answer.json["error"], str)


def test_errors_of_the_protocol_have_its_form_at_every_status(client: Client) -> None:
    assert client.get("/v2/models/flats").status_code == 404
    assert "flats" in client.get("/v2/models/flats").json["error"]
    assert client.get(INFER).status_code == 405
    assert "error" in client.get(INFER).json
    assert "error" in client.get("/v2/nothing").json


def test_bytes_of_many_texts_go_in_binary(client: Client) -> None:
    texts = [GOOD, "dull", "wonderful \u00e9"]
    data = b"".join(struct.pack("<I", len(t.encode())) + t.encode() for t in texts)
    entry = {"name": "text", "datatype": "BYTES", "shape": [3]}
    header = json.dumps(
        {
            "inputs": [entry | {"parameters": {"binary_data_size": len(data)}}],
            "parameters": {"binary_data_output": True},
        }
    ).encode()
    answer = client.post(
        "/v2/models/sentiment/infer", data=header + data, headers={HEADER: str(len(header))}
    )
    outputs = json.loads(answer.data[: int(answer.headers[HEADER])])["outputs"]
    assert all("binary_data_size" in output["parameters"] for output in outputs)


# --- OpenAPI, metrics, keys -------------------------------------------------------------------


@pytest.mark.slow
def test_the_openapi_document_is_valid_and_its_examples_work(client: Client) -> None:
    document = client.get("/openapi.json").json
    validate(document)
    tried = 0
    for path, operations in document["paths"].items():
        if "post" in operations:
            for kind, body in operations["post"]["requestBody"]["content"].items():
                if "example" in body:
                    example = body["example"]
                    if path == "/v1/feedback":  # of an answer that was given here
                        asked = client.post(PREDICT, json={"instances": [ROW]})
                        example = example | {"id": asked.json["id"]}
                    data = example if isinstance(example, str) else json.dumps(example)
                    answer = client.post(path, data=data, content_type=kind, buffered=True)
                    assert answer.status_code == 200, (path, answer.text)
                    tried += 1
    assert tried == 1 + 6 * 3 + 6 * 4


def test_operations_have_names_of_their_own(folder: Path) -> None:
    for name in ("a-b", "a.b", "a_b"):
        shutil.copytree(folder / "houses", folder / name)
    paths = client_of(create_app()).get("/openapi.json").json["paths"]
    names = [each["operationId"] for path in paths.values() for each in path.values()]
    assert len(names) == len(set(names)) > 3 * 7


def test_docs_show_every_operation(client: Client) -> None:
    page = client.get("/docs").text
    assert "POST /v1/models/regression:predict" in page
    assert "POST /v2/models/sentiment/infer" in page


def test_docs_show_code_and_no_marks_of_it(client: Client) -> None:
    page = client.get("/docs").text
    assert "`" not in page
    assert "has <code>/versions/N</code> after" in page
    assert "its column <code>error</code> says why" in page


def test_metrics_count_requests_and_predictions_by_model_and_version(client: Client) -> None:
    client.post(PREDICT, json={"instances": [ROW] * 3})
    client.post(PREDICT, json={})
    found = client.get("/metrics").text
    assert 'mlapp_predictions_total{model="regression",version="1"} 3.0' in found
    labels = 'route="/v1/models/{name}:predict",status="%d",model="regression",version="1"'
    labels = ",".join(sorted(labels.split(",")))
    for status in (200, 422):
        assert f"mlapp_request_seconds_count{{{labels % status}}} 1.0" in found
    assert 'mlapp_model_refused{model="houses"} 0.0' in found


@pytest.mark.slow
def test_a_newer_version_that_does_not_open_changes_nothing_but_a_log_line_and_a_metric(
    folder: Path, houses_csv: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mlapp.service.state.FRESH", 0.0)
    client = client_of(create_app())
    path = "/v1/models/houses:predict"
    before = client.post(path, json={"instances": [HOUSE]}).json["predictions"]
    train(houses_csv, "price", "houses", folder, say=lambda line: None)
    (folder / "houses" / "2" / "model.joblib").write_bytes(b"broken")
    assert client.post(path, json={"instances": [HOUSE]}).json["predictions"] == before
    assert 'mlapp_model_refused{model="houses"} 1.0' in client.get("/metrics").text
    train(houses_csv, "price", "houses", folder, say=lambda line: None)
    client.post(path, json={"instances": [HOUSE]})
    assert client.get("/v1/models/houses").json["version"] == 3


@pytest.mark.parametrize("headers", [{}, {"X-API-Key": "wrong"}, {"Authorization": "Bearer no"}])
def test_without_the_key_programs_are_refused(folder: Path, headers: dict[str, str]) -> None:
    client = with_settings(folder, api_key="secret")
    for path in ("/v1/models", "/v2", "/v2/models/regression", "/metrics"):
        answer = client.get(path, headers=headers)
        assert answer.status_code == 401
        assert "WWW-Authenticate" in answer.headers
    for path in ("/livez", "/readyz", "/v2/health/live", "/v2/health/ready"):
        assert client.get(path, headers=headers).status_code == 200


def test_the_openapi_document_says_which_routes_need_the_key(folder: Path) -> None:
    client = with_settings(folder, api_key="secret")
    document = client.get("/openapi.json").json
    opened = set()
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            status = client.open(path, method=method.upper(), json={}).status_code
            needs_key = operation.get("security", document["security"]) != []
            assert (status == 401) == needs_key == ("401" in operation["responses"]), path
            opened |= set() if needs_key else {path}
    assert opened == {"/livez", "/readyz", "/v2/health/live", "/v2/health/ready"}
    without = with_settings(folder).get("/openapi.json").json
    assert not any("401" in each["get"]["responses"] for each in [without["paths"]["/v2"]])


def test_the_parameters_of_a_challenge_are_quoted(folder: Path) -> None:
    client = with_settings(folder, api_key="secret")
    missing = client.get("/v2").headers["WWW-Authenticate"]
    assert missing == 'Bearer realm="mlapp"'
    wrong = client.get("/v2", headers={"X-API-Key": "no"}).headers["WWW-Authenticate"]
    assert wrong == 'Bearer realm="mlapp", error="invalid_token"'


@pytest.mark.parametrize("headers", [{"X-API-Key": "secret"}, {"Authorization": "Bearer secret"}])
def test_with_the_key_programs_are_answered(folder: Path, headers: dict[str, str]) -> None:
    client = with_settings(folder, api_key="secret")
    assert client.get("/v1/models", headers=headers).status_code == 200
    assert "security" in client.get("/openapi.json").json


def test_without_a_key_only_this_machine_is_served_unless_it_is_said_twice(
    capsys: pytest.CaptureFixture[str],
) -> None:
    from mlapp.errors import InvalidSettings

    none, key = Settings(Path(), {}), Settings(Path(), {}, api_key="secret")
    for host in ("127.0.0.1", "localhost", "::1"):
        check_exposure(host, none, open_to_all=False)
    assert "this machine only" in capsys.readouterr().out
    for host in ("0.0.0.0", "::", "example.org", "192.0.2.1"):
        with pytest.raises(InvalidSettings, match="MLAPP_API_KEY"):
            check_exposure(host, none, open_to_all=False)
        check_exposure(host, key, open_to_all=False)
        check_exposure(host, none, open_to_all=True)


# --- headers and the log ----------------------------------------------------------------------


def test_every_answer_has_the_security_headers(client: Client) -> None:
    for path in ("/form", "/v1/models", "/v2", "/nothing", "/metrics"):
        headers = client.get(path).headers
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert headers["X-Frame-Options"] == "DENY"


@pytest.mark.parametrize("as_json", [False, True])
def test_the_access_log_has_a_line_a_request_without_texts_or_values(
    folder: Path, caplog: pytest.LogCaptureFixture, as_json: bool
) -> None:
    client = with_settings(folder, json_log=as_json)
    with caplog.at_level(logging.INFO, logger="mlapp.access"):
        client.post("/v1/models/sentiment:predict", json={"instances": [GOOD]})
        client.post("/v1/models/sentiment:predict?secret=1", json={"instances": [""]})
        client.get("/secret-path")
    lines = [record.message for record in caplog.records if record.name == "mlapp.access"]
    assert len(lines) == 3
    assert "secret" not in "".join(lines)
    assert "acting" not in "".join(lines)
    if as_json:
        line = json.loads(lines[0])
        assert (line["status"], line["model"], line["version"], line["rows"]) == (
            200,
            "sentiment",
            1,
            1,
        )
    else:
        assert "POST /v1/models/{name}:predict 200" in lines[0]
