"""Clients of other projects, as they are, against a running server."""

import asyncio
import json
import subprocess
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput
from tritonclient.http import aio as triton_aio

from tests.conftest import ROOT, Server, open_regression, open_sentiment

pytestmark = pytest.mark.slow

ROW = {"var_1": 734.0, "var_2": 688.0, "var_3": 81.0, "var_4": 0.328, "var_5": 0.259}
GOOD = "The acting is wonderful and I loved every minute of it."
KSERVE = ROOT / ".venv-kserve" / "bin" / "python"


@pytest.fixture(params=["workers", "together"])
def server(request: pytest.FixtureRequest) -> Server:
    found: Server = request.getfixturevalue(request.param)
    return found


def rows_tensor(binary: bool, kind: Any = InferInput) -> Any:
    rows = np.array([list(ROW.values())] * 2)
    tensor = kind("rows", list(rows.shape), "FP64")
    tensor.set_data_from_numpy(rows, binary_data=binary)
    return tensor


@pytest.mark.parametrize("binary_in", [False, True])
@pytest.mark.parametrize("binary_out", [False, True])
@pytest.mark.parametrize("compression", [None, "gzip", "deflate"])
def test_tritonclient_predicts_in_json_and_binary_compressed_or_not(
    server: Server, models: Path, binary_in: bool, binary_out: bool, compression: str | None
) -> None:
    expected = open_regression(models).predict([ROW] * 2)["prediction"]
    with closing(InferenceServerClient(f"127.0.0.1:{server.port}")) as client:
        answer = client.infer(
            "regression",
            [rows_tensor(binary_in)],
            outputs=[InferRequestedOutput("prediction", binary_data=binary_out)],
            request_compression_algorithm=compression,
        )
    np.testing.assert_array_equal(answer.as_numpy("prediction"), expected)


def test_tritonclient_lists_the_models(server: Server) -> None:
    with closing(InferenceServerClient(f"127.0.0.1:{server.port}")) as client:
        found = client.get_model_repository_index()
    assert {"name": "regression", "version": "1", "state": "READY", "reason": ""} in found


@pytest.mark.parametrize("binary", [False, True])
def test_tritonclient_predicts_with_asyncio(server: Server, models: Path, binary: bool) -> None:
    async def ask() -> tuple[Any, Any]:
        async with triton_aio.InferenceServerClient(f"127.0.0.1:{server.port}") as client:
            assert await client.is_server_live()
            assert await client.is_server_ready()
            assert await client.is_model_ready("sentiment")
            texts = triton_aio.InferInput("text", [1], "BYTES")
            texts.set_data_from_numpy(np.array([GOOD], dtype=object), binary_data=binary)
            return await asyncio.gather(
                client.infer("regression", [rows_tensor(binary, triton_aio.InferInput)]),
                client.infer("sentiment", [texts]),
            )

    rows, texts = asyncio.run(ask())
    expected = open_regression(models).predict([ROW] * 2)["prediction"]
    np.testing.assert_array_equal(rows.as_numpy("prediction"), expected)
    [label] = open_sentiment(models).predict([GOOD])["label"]
    assert texts.as_numpy("label")[0].decode() == label


def test_the_client_of_kserve_is_answered_by_v1_and_v2(workers: Server, models: Path) -> None:
    if not KSERVE.exists():
        pytest.skip(
            "KServe's client needs an environment of its own, since it wants older pandas and"
            " protobuf: python3 -m venv .venv-kserve && .venv-kserve/bin/pip install kserve"
        )
    ran = subprocess.run(
        [KSERVE, "-W", "ignore", "tests/kserve_client.py", workers.address],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    reported = json.loads(ran.stdout)
    expected = open_regression(models).predict([ROW] * 2)["prediction"].tolist()
    [label] = open_sentiment(models).predict([GOOD])["label"]
    for key, value in reported.items():
        if "live" in key or "ready" in key:
            assert value is True, key
        elif "label" in key:
            assert value == label, key
        elif " id " in key:
            assert value == "7", key
        else:
            assert value == pytest.approx(expected), key
