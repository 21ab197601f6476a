"""The service as it runs: real servers on loopback, real clients, real failures."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput
from tritonclient.utils import InferenceServerException

from tests.conftest import ROOT, Server, answers, open_regression, open_sentiment, wait_until
from training.regression import train

pytestmark = pytest.mark.slow(13)

ROW = {"var_1": 734.0, "var_2": 688.0, "var_3": 81.0, "var_4": 0.328, "var_5": 0.259}
GOOD = "The acting is wonderful and I loved every minute of it."
PREDICT = "/v1/models/regression:predict"
# Whether a truth is valid depends on the answer that `id` names, which no schema can say.
FEEDBACK = """
[[operations]]
include-path = "/v1/feedback"
checks.positive_data_acceptance.expected-statuses = ["2xx", 404, 409, 422, 429, "5xx"]
"""


# --- clients ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["workers", "together"])
def test_tritonclient_predicts_with_its_defaults(
    kind: str, models: Path, request: pytest.FixtureRequest
) -> None:
    server: Server = request.getfixturevalue(kind)
    with contextlib.closing(InferenceServerClient(f"127.0.0.1:{server.port}")) as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("regression")
        assert client.get_server_metadata()["name"] == "mlapp"
        assert client.get_model_metadata("houses")["inputs"][2]["datatype"] == "BYTES"
        rows = np.array([list(ROW.values())] * 3)
        tensor = InferInput("rows", list(rows.shape), "FP64")
        tensor.set_data_from_numpy(rows)
        answer = client.infer("regression", [tensor], request_id="7")
        expected = open_regression(models).predict([ROW] * 3)
        for name in ("prediction", "lower", "upper"):
            np.testing.assert_array_equal(answer.as_numpy(name), expected[name])
        assert answer.get_response()["id"] == "7"
        texts = InferInput("text", [2], "BYTES")
        texts.set_data_from_numpy(np.array([GOOD, "dull"], dtype=object))
        wanted = [InferRequestedOutput("label"), InferRequestedOutput("probability", False)]
        answer = client.infer("sentiment", [texts], "1", outputs=wanted)
        labels = open_sentiment(models).predict([GOOD, "dull"])["label"]
        assert [label.decode() for label in answer.as_numpy("label")] == list(labels)
        bad = InferInput("rows", [1, 5], "FP64")
        bad.set_data_from_numpy(np.array([[np.nan, 1, 1, 1, 1]]))
        with pytest.raises(InferenceServerException, match="var_1: got nan"):
            client.infer("regression", [bad])


def test_curl_predicts_as_the_readme_says(workers: Server) -> None:
    body = json.dumps({"instances": [ROW]})
    command = ["curl", "-s", "-H", "Content-Type: application/json", "-d", body]
    ran = subprocess.run(
        [*command, workers.address + PREDICT], capture_output=True, text=True, check=True
    )
    assert json.loads(ran.stdout)["predictions"][0]["prediction"] == pytest.approx(0.4011, abs=1e-4)


@pytest.mark.parametrize("kind", [pytest.param("workers", marks=pytest.mark.nightly), "together"])
def test_the_service_keeps_its_openapi_document_under_schemathesis(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    server: Server = request.getfixturevalue(kind)
    config = tmp_path / "schemathesis.toml"
    config.write_text(FEEDBACK)
    # Until the database is made, feedback on an unknown answer may get 503: it may be recorded yet.
    requests.post(server.address + PREDICT, json={"instances": [ROW]}, timeout=30)
    wait_until(lambda: has_written(server), "a record")
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(config)]
    command += ["--no-color", "run"]
    command += [f"{server.address}/openapi.json"]
    command += ["--checks", "all", "--mode", "all", "--max-examples", "8", "--seed", "1"]
    command += ["--exclude-path-regex", "chapter|moods", "--generation-database", "none"]
    command += ["--no-shrink", "--continue-on-failure", "--report-dir", str(tmp_path)]
    ran = subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | {"SCHEMATHESIS_HOOKS": "tests.schemathesis_hooks", "PYTHONPATH": "."},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout[-5000:] + ran.stderr[-2000:]
    counts = re.search(r"(\d+) generated, (\d+) passed", ran.stdout)
    assert counts is not None
    assert int(counts[1]) == int(counts[2]) > 1000


def has_written(server: Server) -> bool:
    metrics = requests.get(f"{server.address}/metrics", timeout=30).text
    return re.search(r'mlapp_records_total\{outcome="written"\} [1-9]', metrics) is not None


# --- together ---------------------------------------------------------------------------------


def test_dashboard_and_service_answer_at_one_port(together: Server) -> None:
    assert "streamlit" in requests.get(together.address, timeout=30).text.lower()
    assert "Predict output" in requests.get(f"{together.address}/form", timeout=30).text
    answer = requests.post(together.address + PREDICT, json={"instances": [ROW]}, timeout=30)
    assert answer.json()["predictions"][0]["prediction"] == pytest.approx(0.4011, abs=1e-4)
    assert requests.get(f"{together.address}/_stcore/health", timeout=30).text == "ok"


@pytest.mark.parametrize("kind", ["workers", "together"])
def test_every_model_has_a_form_without_a_script(kind: str, request: pytest.FixtureRequest) -> None:
    server: Server = request.getfixturevalue(kind)
    form = requests.get(f"{server.address}/form?_model=sentiment", timeout=30).text
    assert "<textarea" in form
    assert "<script" not in form
    action = re.search(r'<form method="post" action="([^"]+)"', form)
    assert action is not None
    answer = requests.post(server.address + action[1], data={"review": GOOD}, timeout=30).text
    assert "Probability" in answer
    assert "<script" not in answer


def test_without_a_key_it_says_at_the_start_whom_it_serves(together: Server) -> None:
    assert "this machine only" in together.log.read_text()


# --- workers ----------------------------------------------------------------------------------


def test_metrics_are_added_up_over_the_workers(own: Callable[..., Server]) -> None:
    server = own("--workers", "2")
    for _ in range(40):
        # A connection each: either worker may take it.
        requests.post(server.address + PREDICT, json={"instances": [ROW]}, timeout=30)
    found = requests.get(f"{server.address}/metrics", timeout=30).text
    total = re.search(r'mlapp_predictions_total\{model="regression",version="1"\} (\S+)', found)
    assert total is not None
    assert float(total[1]) == 40


def test_a_killed_worker_causes_no_wrong_answer_and_the_service_continues(
    own: Callable[..., Server],
) -> None:
    server = own("--workers", "2")
    stop = threading.Event()
    wrong: list[Any] = []
    good = [0]

    def ask() -> None:
        while not stop.is_set():
            try:
                answer = requests.post(
                    server.address + PREDICT, json={"instances": [ROW]}, timeout=30
                )
            except (requests.ConnectionError, requests.exceptions.ChunkedEncodingError):
                continue  # the connection died with its worker: no answer, or one cut short
            value = answer.json().get("predictions", [{}])[0].get("prediction")
            if answer.status_code != 200 or value != pytest.approx(0.40113548, abs=1e-7):
                wrong.append((answer.status_code, answer.text))
            good[0] += 1

    def good_reach(count: int) -> bool:
        return good[0] > count

    askers = [threading.Thread(target=ask) for _ in range(4)]
    for asker in askers:
        asker.start()
    for _ in range(3):
        before = good[0]
        victim = server.workers()[0]
        os.kill(victim, signal.SIGKILL)
        wait_until(partial(good_reach, before + 50), "answers after a worker was killed")
        wait_until(partial(server.has_replaced, victim), "a new worker")
    stop.set()
    for asker in askers:
        asker.join()
    assert not wrong


def test_ten_thousand_mixed_requests_get_their_right_status(workers: Server) -> None:
    post, get = "POST", "GET"
    kinds: list[tuple[str, str, dict[str, Any], int]] = [
        (post, PREDICT, {"json": {"instances": [ROW]}}, 200),
        (post, PREDICT, {"json": {"instances": [ROW | {"var_1": "x"}]}}, 422),
        (post, PREDICT, {"data": b"{", "headers": {"Content-Type": "application/json"}}, 400),
        (post, PREDICT, {"data": b"{}", "headers": {"Content-Type": "text/plain"}}, 415),
        (post, "/v1/models/flats:predict", {"json": {"instances": [ROW]}}, 404),
        (get, PREDICT, {}, 405),
        (post, "/v1/models/sentiment:predict", {"json": {"instances": [GOOD]}}, 200),
        (post, "/v1/models/sentiment:predict", {"json": {"instances": [" "]}}, 422),
        (post, "/v2/models/regression/infer", {"json": {"inputs": []}}, 400),
        (get, "/v2/models/houses", {}, 200),
    ]

    def ask(share: int) -> list[tuple[str, int, int]]:
        wrong = []
        with requests.Session() as session:
            for number in range(1250):
                method, path, given, status = kinds[(share + number) % len(kinds)]
                found = session.request(method, workers.address + path, timeout=60, **given)
                if found.status_code != status:
                    wrong.append((path, status, found.status_code))
        return wrong

    with ThreadPoolExecutor(8) as pool:
        assert [each for wrong in pool.map(ask, range(8)) for each in wrong] == []


def test_slow_and_half_sent_bodies_do_not_block_others(workers: Server) -> None:
    head = f"POST {PREDICT} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    stuck = []
    for text in (head, f"{head}Content-Length: 1000\r\n\r\n{{", "POST ") * 5:
        connection = socket.create_connection(("127.0.0.1", workers.port), timeout=30)
        connection.sendall(text.encode())
        stuck.append(connection)
    for _ in range(50):
        answer = requests.post(workers.address + PREDICT, json={"instances": [ROW]}, timeout=30)
        assert answer.status_code == 200
    for connection in stuck:
        connection.close()


def test_a_publish_after_another_under_load_drops_no_request(
    own: Callable[..., Server], houses_csv: Path, tmp_path: Path
) -> None:
    server = own("--workers", "2")
    stop = threading.Event()
    wrong: list[Any] = []
    house: dict[str, Any] = {"area": 100.0, "rooms": 3, "district": "west"}
    asked = [0]

    def ask() -> None:
        with requests.Session() as session:
            while not stop.is_set():
                answer = session.post(
                    f"{server.address}/v1/models/houses:predict",
                    json={"instances": [house]},
                    timeout=30,
                )
                if answer.status_code != 200:
                    wrong.append(answer.text)
                asked[0] += 1

    def asked_reach(count: int) -> bool:
        return asked[0] > count

    askers = [threading.Thread(target=ask) for _ in range(3)]
    for asker in askers:
        asker.start()
    for _ in range(4):
        train(houses_csv, "price", "houses", tmp_path / "artifacts", say=lambda line: None)
        before = asked[0]
        wait_until(partial(asked_reach, before + 100), "requests between two publishes")
    newest = f"{server.address}/v1/models/houses"
    wait_until(
        lambda: requests.get(newest, timeout=30).json()["version"] == 5, "the newest version"
    )
    stop.set()
    for asker in askers:
        asker.join()
    assert not wrong


@pytest.mark.parametrize("options", [("--api-only", "--workers", "2"), ()])
def test_sigterm_ends_the_service_in_order(
    models: Path, tmp_path: Path, options: tuple[str, ...]
) -> None:
    server = Server(models, tmp_path / "term.log", *options)
    head = (
        f"POST {PREDICT} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        "Connection: close\r\n"
    )
    body = json.dumps({"instances": [ROW]}).encode()
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
        connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body[:10])
        wait_until(lambda: answers(f"{server.address}/livez"), "the service")
        server.process.send_signal(signal.SIGTERM)
        connection.sendall(body[10:])
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert b"200 OK" in answer
    assert b'"prediction"' in answer
    assert server.process.wait(timeout=60) in (0, -signal.SIGTERM, 143)
