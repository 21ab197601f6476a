"""The protocols v1 and v2, as clients of other projects use and misuse them."""

import gzip
import io
import json
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema_rs import Draft202012Validator

from mlapp.schema import describe
from mlapp.service import create_app
from mlapp.service.tensors import TYPES
from mlapp.service.v2 import HEADER
from mlapp.settings import read_settings
from mlapp.store import artifacts
from tests.conftest import Client, client_of, open_regression
from tests.small_networks import TINY
from training.regression import train
from training.sentiment import train as train_texts

ROW = {"var_1": 734, "var_2": 688, "var_3": 81, "var_4": 0.328, "var_5": 0.259}
VALUES = list(ROW.values())
HOUSE = {"area": 100.0, "rooms": 3, "district": "west"}
GOOD = "The acting is wonderful and I loved every minute of it."
PREDICT = "/v1/models/regression:predict"
EXPLAIN = "/v1/models/regression:explain"
INFER = "/v2/models/regression/infer"
HOUSES = "/v2/models/houses/infer"


@pytest.fixture
def client(every_model: Path) -> Client:
    return client_of(create_app())


def tensor(name: str, datatype: str, shape: list[int], data: Any) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": shape, "data": data}


def house(**changed: Any) -> dict[str, Any]:
    """Return a request of one house; a change of None leaves the tensor out."""
    inputs = {
        "area": tensor("area", "FP64", [1], [100.0]),
        "rooms": tensor("rooms", "FP64", [1], [3]),
        "district": tensor("district", "BYTES", [1], ["west"]),
    } | changed
    return {"inputs": [each for each in inputs.values() if each]}


def answers(response: Any) -> dict[str, Any]:
    """Return an answer without its identifier."""
    content = {key: value for key, value in response.json.items() if key != "id"}
    content.get("parameters", {}).pop("mlapp_id", None)
    return content


# --- v1: rows and columns ---------------------------------------------------------------------


@pytest.mark.parametrize("path", [PREDICT, EXPLAIN])
def test_instances_may_be_rows_of_values_in_the_order_of_the_schema(
    client: Client, path: str
) -> None:
    by_list = client.post(path, json={"instances": [VALUES, ROW]})
    by_name = client.post(path, json={"instances": [ROW, ROW]})
    assert by_list.status_code == 200
    assert answers(by_list) == answers(by_name)


def test_categories_and_missing_values_may_stand_in_a_row_of_values(client: Client) -> None:
    path = "/v1/models/houses:predict"
    by_list = client.post(path, json={"instances": [[100.0, None, "west"]]})
    by_name = client.post(path, json={"instances": [HOUSE | {"rooms": None}]})
    assert answers(by_list) == answers(by_name)


def test_a_row_of_another_length_is_refused_with_the_names_in_their_order(
    client: Client,
) -> None:
    answer = client.post(PREDICT, json={"instances": [VALUES, VALUES[:4], [*VALUES, 1]]})
    assert answer.status_code == 422
    expected = "5 values, in this order: 'var_1', 'var_2', 'var_3', 'var_4', 'var_5'"
    assert answer.json["faults"] == [
        {"row": 1, "input": "row", "got": "a list of 4 values", "expected": expected},
        {"row": 2, "input": "row", "got": "a list of 6 values", "expected": expected},
    ]


@pytest.mark.parametrize("path", [PREDICT, EXPLAIN])
def test_inputs_may_be_columns_by_name(client: Client, path: str) -> None:
    columns = {name: [value, value] for name, value in ROW.items()}
    by_column = client.post(path, json={"inputs": columns})
    by_row = client.post(path, json={"instances": [ROW, ROW]})
    assert by_column.status_code == 200
    assert answers(by_column) | answers(by_row) == answers(by_column)


def test_columns_are_answered_by_column_too(client: Client) -> None:
    columns = {name: [value, value] for name, value in ROW.items()}
    answer = client.post(PREDICT, json={"inputs": columns}).json
    rows = answer["predictions"]
    assert answer["outputs"] == {key: [row[key] for row in rows] for key in rows[0]}


@pytest.mark.parametrize("inputs", [[GOOD, "dull"], {"text": [GOOD, "dull"]}])
@pytest.mark.parametrize("verb", ["predict", "explain"])
def test_inputs_of_a_text_model_are_texts(client: Client, inputs: Any, verb: str) -> None:
    path = f"/v1/models/sentiment:{verb}"
    by_column = client.post(path, json={"inputs": inputs})
    by_row = client.post(path, json={"instances": [GOOD, "dull"]})
    assert by_column.status_code == 200
    assert answers(by_column) | answers(by_row) == answers(by_column)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"inputs": {"var_1": 1}}, "var_1: got 1, expected a list of values"),
        ({"inputs": {"var_1": [1, 2], "var_2": [1]}}, "'var_1' of 2, 'var_2' of 1"),
        ({"inputs": {}}, "inputs: got {}"),
        ({"inputs": None}, "inputs: got nothing"),
        ({"inputs": []}, "inputs: got an empty list"),
        ({"inputs": [VALUES], "instances": [VALUES]}, "both instances and inputs"),
        ({"inputs": {"var_1": [[1]] * 2}}, "row 0, var_1: got [1]"),
    ],
)
def test_faults_of_columns_are_named(client: Client, body: Any, words: str) -> None:
    answer = client.post(PREDICT, json=body)
    assert answer.status_code == 422
    assert words in answer.json["detail"]


def test_columns_that_a_text_model_does_not_have_are_refused(client: Client) -> None:
    answer = client.post("/v1/models/sentiment:predict", json={"inputs": {"review": [GOOD]}})
    assert answer.status_code == 422
    assert "'review'" in answer.json["detail"]


def test_too_many_rows_are_refused_in_every_form(every_model: Path) -> None:
    client = client_of(create_app(replace(read_settings(), max_rows=2)))
    for body in (
        {"instances": [VALUES] * 3},
        {"inputs": [VALUES] * 3},
        {"inputs": {name: [value] * 3 for name, value in ROW.items()}},
    ):
        assert client.post(PREDICT, json=body).status_code == 413


@pytest.mark.parametrize("verb", ["predict", "explain"])
@pytest.mark.parametrize("instance", [{"text": GOOD}, [GOOD]])
def test_a_text_may_be_a_row_of_its_one_input(client: Client, instance: Any, verb: str) -> None:
    path = f"/v1/models/sentiment:{verb}"
    by_row = client.post(path, json={"instances": [instance, "dull"]})
    assert by_row.status_code == 200, by_row.text
    assert answers(by_row) == answers(client.post(path, json={"instances": [GOOD, "dull"]}))


@pytest.mark.parametrize(
    ("instance", "got"),
    [
        ({"review": GOOD}, "an object with 'review'"),
        ({"text": GOOD, "stars": 5}, "an object with 'stars', 'text'"),
        ({}, "an object with nothing"),
        ([], "a list of 0 values"),
        ([GOOD, GOOD], "a list of 2 values"),
        ({"text": 5}, "5"),
        ([[GOOD]], f"[{GOOD!r}]"),
    ],
)
def test_a_row_that_is_not_a_text_alone_is_refused_by_what_it_is(
    client: Client, instance: Any, got: str
) -> None:
    answer = client.post("/v1/models/sentiment:predict", json={"instances": [GOOD, instance]})
    assert answer.status_code == 422
    [fault] = answer.json["faults"]
    assert (fault["row"], fault["input"]) == (1, "text")
    assert got in fault["got"]
    assert "a text" in fault["expected"]


def test_a_label_to_explain_is_refused_and_not_ignored(client: Client) -> None:
    body = {"instances": [GOOD], "label": "negative"}
    answer = client.post("/v1/models/sentiment:explain", json=body)
    assert answer.status_code == 422
    assert "label: got 'negative', expected none" in answer.json["detail"]
    assert client.post("/v1/models/sentiment:explain", json=body | {"label": None}).json["id"]
    assert client.post("/v1/models/sentiment:predict", json=body).status_code == 200


# --- notices of names -------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["predict", "explain"])
@pytest.mark.parametrize(
    "body",
    [
        {"instances": [{"area": 100, "district": "west", "colour": "red"}]},
        {"inputs": {"area": [100], "district": ["west"], "colour": ["red"]}},
    ],
)
def test_v1_says_which_inputs_are_missing_or_unknown(
    client: Client, body: dict[str, Any], verb: str
) -> None:
    notices = client.post(f"/v1/models/houses:{verb}", json=body).json["notices"]
    assert any("rooms: not given" in notice for notice in notices)
    assert any("colour: not an input of this model" in notice for notice in notices)


def test_v2_says_which_inputs_are_missing_or_unknown(client: Client) -> None:
    body = house(rooms=None, colour=tensor("colour", "BYTES", [1], ["red"]))
    answer = client.post(HOUSES, json=body)
    assert answer.status_code == 200
    notices = answer.json["parameters"]["notices"]
    assert any("rooms: not given" in notice for notice in notices)
    assert any("colour: not an input of this model" in notice for notice in notices)
    row = {"area": 100, "district": "west", "rooms": None}
    by_row = client.post("/v1/models/houses:predict", json={"instances": [row]}).json
    assert answer.json["outputs"][0]["data"] == [by_row["predictions"][0]["prediction"]]


def test_v2_says_which_tensors_a_text_model_does_not_know(client: Client) -> None:
    texts = tensor("text", "BYTES", [1], ["we were furious"])
    body = {"inputs": [texts, tensor("stars", "FP64", [1], [5.0])]}
    answer = client.post("/v2/models/moods/infer", json=body)
    assert answer.status_code == 200
    notices = answer.json["parameters"]["notices"]
    assert any("stars: not an input of this model; it has 'text'" in each for each in notices)


def test_v2_refuses_a_request_without_a_tensor_that_is_needed(client: Client) -> None:
    answer = client.post(INFER, json={"inputs": [tensor("var_1", "FP64", [1], [734])]})
    assert answer.status_code == 400
    assert "no tensor for 'var_2', 'var_3', 'var_4', 'var_5'" in answer.json["error"]


# --- v2: values and their datatypes -----------------------------------------------------------


@pytest.mark.parametrize(
    ("datatype", "value", "allowed"),
    [
        ("INT8", 734.9, "a whole number from -128 to 127"),
        ("INT8", 128, "a whole number from -128 to 127"),
        ("INT64", 0.5, "a whole number"),
        ("INT64", 2**63, "a whole number"),
        ("UINT8", -1, "a whole number from 0 to 255"),
        ("UINT8", 300, "a whole number from 0 to 255"),
        ("UINT64", -1, "a whole number from 0"),
        ("INT32", "7", "a whole number"),
        ("INT32", True, "a whole number"),
        ("BOOL", 2, "true or false"),
        ("BOOL", "true", "true or false"),
        ("FP16", 70000, "a number from -65504 to 65504"),
        ("FP32", 1e39, "a number from"),
        ("FP64", "734", "a number from"),
        ("FP64", "abc", "a number from"),
        ("FP64", False, "a number from"),
        ("FP64", {"a": 1}, "a number from"),
        ("BYTES", 5, "a text"),
        ("BYTES", True, "a text"),
    ],
)
@pytest.mark.parametrize("beside", [[], [None]])
def test_a_value_that_is_not_of_its_datatype_is_refused_by_name(
    client: Client, datatype: str, value: Any, allowed: str, beside: list[None]
) -> None:
    data = [value, *beside]
    answer = client.post(INFER, json={"inputs": [tensor("var_1", datatype, [len(data)], data)]})
    assert answer.status_code == 400
    got = f"var_1: got {describe(value)} as a value of {datatype}, expected {allowed}"
    assert got in answer.json["error"]


def test_whole_numbers_may_be_written_with_a_point(client: Client) -> None:
    by_float = client.post(HOUSES, json=house(rooms=tensor("rooms", "INT8", [1], [3.0])))
    by_int = client.post(HOUSES, json=house(rooms=tensor("rooms", "INT8", [1], [3])))
    assert answers(by_float) == answers(by_int) == answers(client.post(HOUSES, json=house()))


def test_a_missing_value_has_any_datatype(client: Client) -> None:
    missing = client.post(HOUSES, json=house(rooms=tensor("rooms", "INT8", [1], [None])))
    nan = {"rooms": tensor("rooms", "FP32", [1], [None])}
    assert answers(client.post(HOUSES, json=house(**nan))) == answers(missing)


def test_a_byte_that_is_not_true_or_false_is_refused_in_binary(client: Client) -> None:
    entry = {"name": "var_1", "datatype": "BOOL", "shape": [3]} | {
        "parameters": {"binary_data_size": 3}
    }
    header = json.dumps({"inputs": [entry]}).encode()
    body = header + b"\0\1\2"
    answer = client.post(INFER, data=body, headers={HEADER: str(len(header))})
    assert answer.status_code == 400
    assert "got 2 as a value of BOOL" in answer.json["error"]


@pytest.mark.parametrize("given_id", [7, 1.5, True, ["a"], {"a": 1}])
def test_an_id_that_is_not_a_text_is_refused(client: Client, given_id: Any) -> None:
    answer = client.post(HOUSES, json=house() | {"id": given_id})
    assert answer.status_code == 400
    assert answer.json["error"].startswith("id: got")


def test_optional_fields_may_be_null(client: Client) -> None:
    body = house() | {"id": None, "parameters": None, "outputs": None}
    for entry in body["inputs"]:
        entry["parameters"] = None
    answer = client.post(HOUSES, json=body)
    assert answer.status_code == 200
    assert answer.json["id"] == answer.json["parameters"]["mlapp_id"] == answer.headers["Mlapp-Id"]


@pytest.mark.parametrize(
    "changed",
    [
        {"outputs": ["prediction"]},
        {"outputs": [["prediction"]]},
        {"outputs": [{"name": ["prediction"]}]},
        {"outputs": [{}]},
        {"outputs": {"name": "prediction"}},
        {"outputs": [{"name": "prediction", "parameters": 1}]},
        {"outputs": [{"name": "prediction", "parameters": {"binary_data": "yes"}}]},
        {"parameters": []},
        {"parameters": {"binary_data_output": 1}},
        {"inputs": [tensor("x", "FP64", [2147483647, 5, 0], [])]},
        {"inputs": [tensor("x", "FP64", [2**63 - 1, 0], [])]},
        {"inputs": [tensor("x", "FP64", [0, 2**40, 2**40], [])]},
        {"inputs": [tensor("x", "FP64", [1] * 9, [1])]},
        {"inputs": [tensor("x", "FP64", [1.0, 5], VALUES)]},  # type: ignore[list-item]
        {"inputs": [tensor("x", ["FP64"], [1, 5], VALUES)]},  # type: ignore[arg-type]
        {"inputs": [tensor("x", "FP64", [1, 5], [[VALUES]])]},
        {"inputs": [tensor("x", "FP64", [2, 5], [VALUES, VALUES[:4] + [[1]]])]},
        {"inputs": [tensor("x", "FP64", [2, 5], [VALUES[:4], [*VALUES, 1]])]},
        {"inputs": [tensor("x", "FP64", [1, 5], VALUES) | {"parameters": "none"}]},
        {"inputs": [tensor("x", "FP64", [1, 5], VALUES) | {"parameters": {"binary_data_size": 0}}]},
        {"inputs": {"x": VALUES}},
    ],
)
def test_a_malformed_request_is_400_under_v2(client: Client, changed: dict[str, Any]) -> None:
    answer = client.post(INFER, json={"inputs": [tensor("x", "FP64", [1, 5], VALUES)]} | changed)
    assert answer.status_code == 400
    assert isinstance(answer.json["error"], str)
    assert len(answer.json["error"]) < 1000


@pytest.mark.parametrize("binary", [False, True])
def test_probabilities_name_their_labels_in_order(client: Client, binary: bool) -> None:
    labels = client.get("/v1/models/moods").json["labels"]
    metadata = client.get("/v2/models/moods").json["outputs"]
    named = {each["name"]: each["parameters"] for each in metadata if "parameters" in each}
    assert named.keys() == {"probabilities"}
    assert json.loads(named["probabilities"]["labels"]) == labels
    body = {"inputs": [tensor("text", "BYTES", [1], ["we were furious"])]}
    answer = client.post(
        "/v2/models/moods/infer", json=body | {"parameters": {"binary_data_output": binary}}
    )
    outputs = json.loads(answer.data[: int(answer.headers.get(HEADER, len(answer.data)))])[
        "outputs"
    ]
    for output in outputs:
        parameters = output.get("parameters", {})
        assert ("labels" in parameters) == (output["name"] == "probabilities")
        assert all(type(value) in (str, int, bool) for value in parameters.values())
        if "labels" in parameters:
            assert json.loads(parameters["labels"]) == labels


def test_numbers_name_no_labels(client: Client) -> None:
    assert "parameters" not in client.get("/v2/models/houses").json["outputs"][0]
    assert "parameters" not in client.post(HOUSES, json=house()).json["outputs"][0]


# --- v2: the index of the repository ----------------------------------------------------------


def test_the_index_lists_every_model_with_its_version_and_state(client: Client) -> None:
    found = client.post("/v2/repository/index").json
    assert {each["name"] for each in found} >= {"regression", "houses", "sentiment"}
    assert {"name": "houses", "version": "1", "state": "READY", "reason": ""} in found


@pytest.mark.slow
def test_the_index_says_what_does_not_open_unless_only_the_ready_are_asked_for(
    every_model: Path, houses_csv: Path
) -> None:
    train(houses_csv, "price", "houses", every_model, say=lambda line: None)
    for version in ("houses/2", "moods/1"):
        (every_model / version / "manifest.json").write_bytes(b"broken")
    client = client_of(create_app())

    def ask(body: dict[str, Any]) -> list[tuple[str, str, str]]:
        answer = client.post("/v2/repository/index", json=body)
        assert str(every_model) not in answer.text
        return [(each["name"], each["version"], each["state"]) for each in answer.json]

    found = ask({})
    assert ("houses", "1", "READY") in found
    assert ("houses", "2", "UNAVAILABLE") in found
    assert ("moods", "1", "UNAVAILABLE") in found
    assert ask({"ready": False}) == found
    assert ask({"ready": True}) == [each for each in found if each[2] == "READY"]


@pytest.mark.parametrize("body", [b"[]", b"{", b'{"ready": "yes"}', b'{"ready": 1}'])
def test_a_malformed_question_for_the_index_is_400(client: Client, body: bytes) -> None:
    answer = client.post("/v2/repository/index", data=body)
    assert answer.status_code == 400
    assert answer.json["error"]


# --- deep and hostile JSON --------------------------------------------------------------------


def nest(depth: int, values: int) -> bytes:
    """Return a list of values, some of them nested."""
    inner = b"[" * depth + b"1" + b"]" * depth
    return b"[" + b",".join([b"1"] * values + [inner]) + b"]"


@pytest.mark.parametrize("depth", [1, 8, 400, 1000])
@pytest.mark.parametrize(
    ("path", "body"),
    [
        (PREDICT, '{"instances": %s}'),
        (PREDICT, '{"instances": [%s]}'),
        (PREDICT, '{"instances": [{"var_1": %s}]}'),
        (PREDICT, '{"inputs": %s}'),
        (PREDICT, '{"inputs": {"var_1": %s}}'),
        (PREDICT, '{"instances": {"a": %s}}'),
        ("/v1/models/sentiment:predict", '{"instances": [%s]}'),
        (INFER, '{"inputs": %s}'),
        (INFER, '{"id": %s}'),
        (INFER, '{"inputs": [{"name": "x", "datatype": %s}]}'),
        (INFER, '{"inputs": [{"name": "x", "datatype": "FP64", "shape": %s}]}'),
        (INFER, '{"inputs": [{"name":"x","datatype":"FP64","shape":[40001],"data": %s}]}'),
        (INFER, '{"inputs": [{"name":"x","datatype":"FP64","shape":[1],"data": {"a": %s}}]}'),
        (INFER, '{"inputs": [{"name":"x","datatype":"FP64","shape":[1],"parameters": %s}]}'),
        (INFER, '{"inputs": [{"name":"x"}], "parameters": %s}'),
        (INFER, '{"inputs": [{"name":"x"}], "outputs": %s}'),
        ("/v2/repository/index", '{"ready": %s}'),
    ],
)
def test_nested_values_are_refused_in_a_few_words(
    client: Client, path: str, body: str, depth: int
) -> None:
    data = body.encode() % nest(depth, 40_000)
    answer = client.post(path, data=data, content_type="application/json")
    assert answer.status_code in (400, 413, 422)
    assert len(answer.data) < 3000


def test_only_the_beginning_of_a_nested_value_is_described() -> None:
    value: list[Any] = []
    for _ in range(5000):
        value = [value, *range(100)]
    assert describe(value).startswith("[[[[...]")
    assert len(describe({str(place): value for place in range(1000)})) <= 80


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5)
    | st.sampled_from(["FP64", "BYTES", "prediction", "x", "var_1", GOOD]),
    lambda inner: (
        st.lists(inner, max_size=6)
        | st.dictionaries(
            st.sampled_from(
                ["name", "datatype", "shape", "data", "parameters", "binary_data", "text"]
                + ["binary_data_size", "binary_data_output", "var_1", "id"]
            ),
            inner,
            max_size=6,
        )
    ),
    max_leaves=25,
)
TENSOR = st.fixed_dictionaries(
    {
        "name": JSON | st.sampled_from(["x", "text", *ROW]),
        "datatype": st.sampled_from([*TYPES, "BYTES"]) | JSON,
        "shape": st.lists(st.integers(-1, 6) | st.sampled_from([2**31 - 1, 2**62]), max_size=4)
        | JSON,
        "data": st.lists(JSON, max_size=6) | JSON,
    },
    optional={"parameters": JSON},
)
INFERENCE = st.fixed_dictionaries(
    {"inputs": st.lists(TENSOR, max_size=6) | JSON},
    optional={"id": JSON, "outputs": JSON | st.lists(JSON, max_size=3), "parameters": JSON},
)
SHORT = st.fixed_dictionaries({}, optional={"instances": JSON, "inputs": JSON})


@pytest.fixture(scope="module")
def fuzzed(models: Path) -> Client:
    return client_of(create_app(replace(read_settings(), artifacts=models)))


FUZZ = settings(
    max_examples=150,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)


@pytest.mark.slow
@FUZZ
@given(body=INFERENCE | JSON, model=st.sampled_from(["regression", "houses", "sentiment"]))
def test_no_request_under_v2_is_a_server_error(fuzzed: Client, body: Any, model: str) -> None:
    answer = fuzzed.post(f"/v2/models/{model}/infer", json=body)
    assert answer.status_code < 500, answer.text
    assert answer.status_code == 200 or isinstance(answer.json["error"], str)


@pytest.mark.slow
@FUZZ
@given(
    body=SHORT | JSON,
    model=st.sampled_from(["regression", "houses", "sentiment"]),
    verb=st.sampled_from(["predict", "explain"]),
)
def test_no_request_under_v1_is_a_server_error(
    fuzzed: Client, body: Any, model: str, verb: str
) -> None:
    answer = fuzzed.post(f"/v1/models/{model}:{verb}", json=body)
    assert answer.status_code < 500, answer.text
    assert answer.status_code == 200 or answer.json["detail"]


@FUZZ
@given(data=st.data())
def test_no_binary_tensor_is_a_server_error(fuzzed: Client, data: st.DataObject) -> None:
    binary = data.draw(st.binary(max_size=60))
    entry = {
        "name": "x",
        "datatype": data.draw(st.sampled_from([*TYPES, "BYTES"])),
        "shape": data.draw(st.lists(st.integers(0, 5), max_size=3)),
        "parameters": {"binary_data_size": data.draw(st.sampled_from([len(binary), 0, 5, -1]))},
    }
    header = json.dumps({"inputs": [entry]}).encode()
    length = len(header) + data.draw(st.sampled_from([0, 0, 0, -1, 1, 100]))
    model = data.draw(st.sampled_from(["regression", "sentiment"]))
    answer = fuzzed.post(
        f"/v2/models/{model}/infer", data=header + binary, headers={HEADER: str(length)}
    )
    assert answer.status_code < 500, answer.text


# --- bodies -----------------------------------------------------------------------------------

GOOD_BODY = json.dumps({"instances": [ROW]}).encode()


def deflate_raw(data: bytes) -> bytes:
    pack = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return pack.compress(data) + pack.flush()


def send(client: Client, body: bytes, encoding: str) -> int:
    headers = {"Content-Type": "application/json", "Content-Encoding": encoding}
    return client.post(PREDICT, data=body, headers=headers).status_code


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("gzip", gzip.compress(GOOD_BODY)),
        ("GZIP", gzip.compress(GOOD_BODY)),
        ("x-gzip", gzip.compress(GOOD_BODY)),
        ("gzip", gzip.compress(GOOD_BODY[:20]) + gzip.compress(GOOD_BODY[20:])),
        ("gzip", b"".join(gzip.compress(GOOD_BODY[i : i + 1]) for i in range(len(GOOD_BODY)))),
        ("gzip", gzip.compress(b"") + gzip.compress(GOOD_BODY)),
        ("deflate", zlib.compress(GOOD_BODY)),
        ("deflate", deflate_raw(GOOD_BODY)),
        ("identity", GOOD_BODY),
    ],
)
def test_every_kind_of_compressed_body_is_read(client: Client, encoding: str, body: bytes) -> None:
    assert send(client, body, encoding) == 200


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("gzip", gzip.compress(GOOD_BODY) + b"junk"),
        ("gzip", gzip.compress(GOOD_BODY) + b"\0"),
        ("gzip", gzip.compress(GOOD_BODY) + gzip.compress(b" ")[:-1]),
        ("gzip", gzip.compress(GOOD_BODY)[:-1]),
        ("gzip", gzip.compress(GOOD_BODY)[:-8] + bytes(8)),
        ("gzip", b""),
        ("gzip", gzip.compress(b"") * 1001 + gzip.compress(GOOD_BODY)),
        ("deflate", zlib.compress(GOOD_BODY) + b"junk"),
        ("deflate", deflate_raw(GOOD_BODY) + b"junk"),
        ("deflate", zlib.compress(GOOD_BODY)[:-1]),
        ("deflate", deflate_raw(GOOD_BODY)[:-1]),
        ("deflate", b"x"),
        ("deflate", b""),
    ],
)
def test_a_damaged_compressed_body_is_400(client: Client, encoding: str, body: bytes) -> None:
    assert send(client, body, encoding) == 400


@pytest.mark.parametrize(
    ("encoding", "pack"),
    [
        ("gzip", gzip.compress),
        ("gzip", lambda data: b"".join(gzip.compress(data[: len(data) // 50]) for _ in range(50))),
        ("deflate", zlib.compress),
        ("deflate", deflate_raw),
    ],
)
def test_a_body_that_unpacks_beyond_the_limit_is_413(
    every_model: Path, encoding: str, pack: Callable[[bytes], bytes]
) -> None:
    limit = 100_000
    client = client_of(create_app(replace(read_settings(), max_bytes=limit)))
    padded = GOOD_BODY.ljust(limit)
    assert send(client, zlib.compress(padded), "deflate") == 200
    assert send(client, pack(b" " * (limit + 50)), encoding) == 413


class Chunks:
    """A chunked body, as a server hands it on; it may break off with an error."""

    def __init__(self, data: bytes, error: OSError | None = None) -> None:
        self.rest, self.error = io.BytesIO(data), error

    def read(self, size: int = -1) -> bytes:
        data = self.rest.read(size)
        if not data and self.error:
            raise self.error
        return data


def send_chunks(client: Client, path: str, body: Chunks, kind: str) -> int:
    environ = {
        "wsgi.input": body,
        "wsgi.input_terminated": True,
        "HTTP_TRANSFER_ENCODING": "chunked",
        "CONTENT_LENGTH": "",
    }
    return client.post(path, content_type=kind, environ_overrides=environ).status_code


def test_a_chunked_body_is_read_to_its_end(client: Client) -> None:
    assert send_chunks(client, PREDICT, Chunks(GOOD_BODY), "application/json") == 200


def test_a_chunked_body_beyond_the_limit_is_413(every_model: Path) -> None:
    client = client_of(create_app(replace(read_settings(), max_bytes=1000)))
    body = GOOD_BODY.ljust(1000)
    assert send_chunks(client, PREDICT, Chunks(body), "application/json") == 200
    assert send_chunks(client, PREDICT, Chunks(body + b" "), "application/json") == 413
    assert send_chunks(client, INFER, Chunks(body + b" "), "application/json") == 413


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        (PREDICT, "application/json"),
        (INFER, "application/json"),
        ("/v2/repository/index", "application/json"),
        ("/predict", "application/x-www-form-urlencoded"),
        ("/sentiment", "application/x-www-form-urlencoded"),
        ("/sentiment", "multipart/form-data; boundary=x"),
    ],
)
def test_a_body_with_a_damaged_chunk_is_400(client: Client, path: str, kind: str) -> None:
    broken = Chunks(b"--x\r\n", OSError("a damaged chunk"))
    assert send_chunks(client, path, broken, kind) == 400


# --- pages and health checks ------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/", "/form", "/sentiment", "/docs", "/v1/models", "/v2"])
def test_head_is_answered_as_get_without_a_body(client: Client, path: str) -> None:
    head, get = client.head(path), client.get(path)
    assert (head.status_code, head.mimetype) == (get.status_code, get.mimetype) != (422, "")
    assert head.status_code == 200
    assert head.data == b""


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("*/*", "application/json"),
        ("application/json", "application/json"),
        ("text/html,application/xhtml+xml,*/*;q=0.8", "text/html"),
        ("text/html", "text/html"),
        (None, "text/html"),
    ],
)
def test_the_root_is_the_form_for_browsers_and_the_health_check_of_kserve_v1_for_programs(
    client: Client, accept: str | None, kind: str
) -> None:
    answer = client.get("/", headers={"Accept": accept} if accept else {})
    assert (answer.status_code, answer.mimetype) == (200, kind)
    if kind == "application/json":
        assert answer.json == {"status": "alive"}


# --- names ------------------------------------------------------------------------------------

LABELS = ("unknown", "label", "probability", "probabilities", "tokens")


def test_labels_may_be_called_as_the_fields_of_an_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = ["text,mood"]
    words = dict(zip(LABELS, ["furious", "quiet", "merry", "weary", "bold"], strict=True))
    for place in range(150):
        label = LABELS[place % 5]
        lines.append(f"we said {words[label]} again n{place},{label}")
    data = tmp_path / "moods.csv"
    data.write_text("\n".join(lines))
    train_texts(
        data,
        text_column="text",
        label_column="mood",
        name="odd",
        root=tmp_path,
        recipe=TINY,
        say=lambda line: None,
    )
    monkeypatch.setenv("MLAPP_ARTIFACTS", str(tmp_path))
    client = client_of(create_app())
    text = "we said quiet again"
    [row] = client.post("/v1/models/odd:predict", json={"instances": [text]}).json["predictions"]
    body = {"inputs": [tensor("text", "BYTES", [1], [text])]}
    outputs = {
        each["name"]: each["data"]
        for each in client.post("/v2/models/odd/infer", json=body).json["outputs"]
    }
    labels = client.get("/v1/models/odd").json["labels"]
    assert set(labels) == set(LABELS)
    assert row["label"] == outputs["label"][0] in LABELS
    own = [row[f"p_{label}"] for label in labels]
    assert sum(own) == pytest.approx(1)
    assert own == outputs["probabilities"]
    assert row["probability"] == max(own) == outputs["probability"][0]
    assert (row["tokens"], row["unknown"]) == (4, outputs["unknown"][0])


def test_inputs_may_be_called_as_the_fields_of_a_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["inputs", "instances", "name", "row", "id", "text", "data", "outputs"]
    rng = np.random.default_rng(1)
    table = rng.normal(size=(60, len(names)))
    lines = [",".join([*names, "price"])]
    lines += [
        ",".join(map(str, [*row, 2 * row.sum()]))
        for row in table.tolist()
        for row in [np.array(row)]
    ]
    data = tmp_path / "odd.csv"
    data.write_text("\n".join(lines))
    train(data, "price", "odd", tmp_path, say=lambda line: None)
    monkeypatch.setenv("MLAPP_ARTIFACTS", str(tmp_path))
    client = client_of(create_app())
    row = dict(zip(names, table[0].tolist(), strict=True))
    [expected] = open_regression(tmp_path, "odd").predict([row]).to_dict("records")
    columns = {name: [value] for name, value in row.items()}
    for body in ({"instances": [row]}, {"inputs": columns}, {"instances": [list(row.values())]}):
        answer = client.post("/v1/models/odd:predict", json=body)
        assert answer.json["predictions"] == [expected], answer.text
        assert "notices" not in answer.json
    tensors = [tensor(name, "FP64", [1], values) for name, values in columns.items()]
    answer = client.post("/v2/models/odd/infer", json={"inputs": tensors}).json
    assert answer["outputs"][0]["data"] == [expected["prediction"]]
    [explained] = client.post("/v1/models/odd:explain", json={"instances": [row]}).json[
        "explanations"
    ]
    assert set(explained) == {"baseline", *names}
    assert artifacts.names(tmp_path) == ["odd"]


# --- the OpenAPI document ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def described(models: Path) -> tuple[Client, dict[str, Any]]:
    """A client, and the document that it gets."""
    found = client_of(create_app(replace(read_settings(), artifacts=models)))
    return found, found.get("/openapi.json").json


def close_objects(schema: Any) -> Any:
    """Return a schema that allows only the members that it describes."""
    if isinstance(schema, list):
        return [close_objects(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: close_objects(value) for key, value in schema.items()}
    is_object = closed.get("type") == "object" and "properties" in closed
    return closed | ({"additionalProperties": False} if is_object else {})


def check_answer(document: dict[str, Any], path: str, answer: Any, method: str = "post") -> None:
    """Check an answer against the document, which must describe each of its members."""
    described = document["paths"][path][method]["responses"]
    response = described.get(str(answer.status_code), described["default"])
    schema = close_objects(response["content"][answer.mimetype]["schema"])
    assert schema != {"type": "object"}
    components = {"schemas": close_objects(document["components"]["schemas"])}
    Draft202012Validator(schema | {"components": components}).validate(answer.json)


@pytest.mark.parametrize("model", ["regression", "houses", "moods", "topics"])
@pytest.mark.parametrize("verb", ["v1:predict", "v1:explain", "v2/infer"])
def test_answers_are_what_the_openapi_document_describes(
    described: tuple[Client, dict[str, Any]], model: str, verb: str
) -> None:
    client, document = described
    path = f"/{verb[:2]}/models/{model}{verb[2:]}"
    body = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["example"]
    answer = client.post(path, json=body)
    assert answer.status_code == 200
    check_answer(document, path, answer)
    schema = document["paths"][path]["post"]["responses"]["200"]
    content = schema["content"]["application/json"]["schema"]
    assert set(content["required"]) <= answer.json.keys() > {"id"}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (PREDICT, {"inputs": {name: [value, value] for name, value in ROW.items()}}),
        (PREDICT, {"instances": [ROW | {"var_1": 1e6}]}),
        (PREDICT, {"instances": [ROW | {"var_1": "many"}]}),
        (PREDICT, {}),
        ("/v1/models/topics:predict", {"inputs": ["zzyzx qwrtp"]}),
        (HOUSES, house(rooms=None)),
        (HOUSES, house(district=tensor("district", "BYTES", [1], ["nowhere"]))),
        (HOUSES, {"inputs": []}),
        ("/v2/repository/index", {}),
    ],
)
def test_notices_faults_and_columns_are_described(
    described: tuple[Client, dict[str, Any]], path: str, body: dict[str, Any]
) -> None:
    client, document = described
    check_answer(document, path, client.post(path, json=body))


def test_what_is_read_is_described(described: tuple[Client, dict[str, Any]]) -> None:
    client, document = described
    checked = 0
    for path, operations in document["paths"].items():
        if "get" in operations:
            answer = client.get(path)
            assert answer.status_code == 200
            if answer.is_json:
                check_answer(document, path, answer, "get")
                checked += 1
    assert checked == 4 + 6 * 3


def test_a_server_that_is_not_ready_is_described(every_model: Path) -> None:
    (every_model / "houses" / "1" / "model.joblib").write_bytes(b"broken")
    client = client_of(create_app())
    document = client.get("/openapi.json").json
    answer = client.get("/v2/health/ready")
    assert answer.status_code == 503
    check_answer(document, "/v2/health/ready", answer, "get")
    check_answer(document, "/v1/models", client.get("/v1/models"), "get")


@pytest.mark.parametrize(
    ("path", "body", "is_valid"),
    [
        (PREDICT, {"instances": [ROW]}, True),
        (PREDICT, {"inputs": [VALUES]}, True),
        (PREDICT, {"inputs": {name: [value] * 2 for name, value in ROW.items()}}, True),
        (PREDICT, {"inputs": {name: [value] for name, value in ROW.items()} | {"x": [1]}}, True),
        (PREDICT, {"instances": [ROW], "inputs": [ROW]}, False),
        (PREDICT, {"inputs": {"var_1": [1]}}, False),
        (PREDICT, {}, False),
        ("/v1/models/topics:predict", {"inputs": {"text": ["calm"] * 3}}, True),
        ("/v1/models/topics:predict", {"inputs": {"text": ["calm"], "x": [1]}}, False),
        ("/v1/models/topics:predict", {"instances": ["calm", {"text": "calm"}, ["calm"]]}, True),
        ("/v1/models/topics:predict", {"instances": [{"text": "calm", "x": 1}]}, False),
        ("/v1/models/topics:predict", {"instances": [["calm", "calm"]]}, False),
    ],
)
def test_the_short_form_is_described_in_each_of_its_forms(
    described: tuple[Client, dict[str, Any]], path: str, body: dict[str, Any], is_valid: bool
) -> None:
    client, document = described
    content = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]
    assert Draft202012Validator(content["schema"]).is_valid(body) == is_valid
    assert client.post(path, json=body).status_code == (200 if is_valid else 422)


@pytest.mark.parametrize(
    ("model", "words"), [("sentiment", "always the second"), ("moods", "that of the answer")]
)
def test_the_document_says_of_which_label_the_logit_is_explained(
    described: tuple[Client, dict[str, Any]], model: str, words: str
) -> None:
    client, document = described
    path = f"/v1/models/{model}:explain"
    good = document["paths"][path]["post"]["responses"]["200"]
    item = good["content"]["application/json"]["schema"]["properties"]["explanations"]["items"]
    assert words in item["properties"]["label"]["description"]
    labels = client.get(f"/v1/models/{model}").json["labels"]
    texts = {"instances": ["terrible, dull and sad", GOOD]}
    explained = client.post(path, json=texts).json["explanations"]
    answered = client.post(path.replace("explain", "predict"), json=texts).json["predictions"]
    expected = [labels[1] if len(labels) == 2 else each["label"] for each in answered]
    assert [each["label"] for each in explained] == expected


def test_each_count_of_a_file_is_described_in_its_own_words(
    described: tuple[Client, dict[str, Any]],
) -> None:
    score = described[1]["paths"]["/v1/models/regression:score"]["post"]
    headers = score["responses"]["200"]["headers"]
    assert list(headers) == ["Mlapp-Rows", "Mlapp-Scored", "Mlapp-Noticed", "Mlapp-Refused"]
    found = {each["description"] for each in headers.values()}
    assert len(found) == 4
    assert all("HTTP/1.0" in each for each in found)
