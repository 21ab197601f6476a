"""Exported folders, loaded by the servers that they are for."""

import errno
import json
import os
import shlex
import shutil
import signal
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsRegressor
from sklearn.pipeline import make_pipeline

import mlapp
from mlapp import exported, store
from mlapp.cli import main
from mlapp.exporting import export
from mlapp.store import artifacts
from tests.conftest import ROOT, free_port, make_houses, wait_until
from tests.test_publish import INPUTS, prepared, quiet, regression

PROGRAMS = ROOT / ".venv-mlflow" / "bin"
MISSING = (
    "MLflow and MLServer are not installed: python3 -m venv .venv-mlflow &&"
    " .venv-mlflow/bin/pip install mlflow mlserver mlserver-mlflow onnxruntime skops"
)
ROWS: list[dict[str, Any]] = [
    {"area": 60.0, "rooms": 2.0, "district": "west"},
    {"area": 100.5, "rooms": 3.0, "district": "east"},
]


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An artifact folder: compiled, scikit-learn's own, a classifier, and the shipped models."""
    root = tmp_path_factory.mktemp("published")
    houses = make_houses(300)
    inputs, price = houses[INPUTS], houses["price"]
    cheap = np.where(price < 350, "cheap", "dear")
    bargains = make_pipeline(prepared(), LogisticRegression()).fit(inputs, cheap)
    mlapp.publish(regression(houses), inputs, price, name="houses", root=root, say=quiet)
    near = regression(houses, KNeighborsRegressor())
    mlapp.publish(near, inputs, price, name="near", root=root, say=quiet)
    mlapp.publish(bargains, inputs, cheap, name="bargains", root=root, say=quiet)
    return root


@contextmanager
def started(command: list[str], url: str, more: Mapping[str, str], log: Path) -> Iterator[None]:
    """Run a server until the block ends; it is ready when its address answers."""
    if not (PROGRAMS / command[0]).is_file():
        pytest.skip(MISSING)
    environment = {**os.environ, **more, "PATH": f"{PROGRAMS}:{os.environ['PATH']}"}
    with log.open("wb") as said:
        process = subprocess.Popen(
            [PROGRAMS / command[0], *command[1:]],
            cwd=log.parent,
            env=environment,
            stdout=said,
            stderr=said,
            start_new_session=True,
        )

    def answers() -> bool:
        assert process.poll() is None, log.read_text()
        try:
            with urllib.request.urlopen(url, timeout=5) as response:
                return bool(response.status == 200)
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return False

    try:
        wait_until(answers, f"{command[0]} at {url}")
        yield
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


def ask(url: str, content: Any) -> Any:
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(url, json.dumps(content).encode(), headers)
    with urllib.request.urlopen(request, timeout=30) as response:
        return json.load(response)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    ["houses", *(pytest.param(each, marks=pytest.mark.nightly) for each in ("near", "bargains"))],
)
def test_mlflow_serves_an_export_with_the_same_answers(
    name: str, published: Path, tmp_path: Path
) -> None:
    folder = export(published, name, None, "mlflow", tmp_path / "exported")
    port = free_port()
    command = ["mlflow", "models", "serve", "-m", str(folder), "--env-manager", "local"]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    address = f"http://127.0.0.1:{port}"
    with started(command, f"{address}/ping", {}, tmp_path / "log"):
        found = ask(f"{address}/invocations", {"dataframe_records": ROWS})["predictions"]
    assert_same(pd.DataFrame(found), published, name)


@pytest.mark.slow
def test_mlserver_serves_an_export_with_the_same_answers(published: Path, tmp_path: Path) -> None:
    folder = export(published, "houses", None, "mlserver", tmp_path / "exported")
    ports = {f"MLSERVER_{kind}_PORT": str(free_port()) for kind in ("HTTP", "GRPC", "METRICS")}
    settings = ports | {"MLSERVER_HOST": "127.0.0.1", "MLSERVER_PARALLEL_WORKERS": "0"}
    address = f"http://127.0.0.1:{ports['MLSERVER_HTTP_PORT']}/v2/models/houses"
    rows = pd.DataFrame(ROWS)
    inputs: list[dict[str, Any]] = [
        {"name": each, "shape": [2, 1], "datatype": "FP64", "data": rows[each].tolist()}
        for each in ("area", "rooms")
    ]
    texts = {"name": "district", "shape": [2, 1], "datatype": "BYTES"}
    inputs.append(
        texts | {"data": rows["district"].tolist(), "parameters": {"content_type": "str"}}
    )
    with started(
        ["mlserver", "start", str(folder)], f"{address}/ready", settings, tmp_path / "log"
    ):
        found = ask(f"{address}/infer", {"inputs": inputs})
    answers = {each["name"]: each["data"] for each in found["outputs"]}
    assert_same(pd.DataFrame(answers), published, "houses")


def assert_same(found: pd.DataFrame, root: Path, name: str) -> None:
    model = store.open_model(root, name)
    expected = pd.DataFrame(dict(model.answer(model.check(ROWS)).table()))
    assert list(found) == list(expected)
    for column in expected:
        ours, theirs = expected[column].tolist(), found[column].tolist()
        assert theirs == (pytest.approx(ours) if isinstance(ours[0], float) else ours)


def test_an_exported_folder_is_an_artifact_folder(
    published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLAPP_ARTIFACTS", str(published))
    out = tmp_path / "exported"
    assert main(["export", "houses", "1", "--to", "folder", "--out", str(out)]) == 0
    assert artifacts.names(out) == ["houses"]
    assert (
        store.open_model(out, "houses").manifest == store.open_model(published, "houses").manifest
    )


@pytest.mark.parametrize("target", ["mlflow", "mlserver", "folder"])
def test_the_command_that_serves_an_export_names_its_folder_whatever_that_is_called(
    target: str,
    published: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("MLAPP_ARTIFACTS", str(published))
    out = tmp_path / "my exp's"
    assert main(["export", "houses", "--to", target, "--out", str(out)]) == 0
    command = capsys.readouterr().out.partition("To serve it: ")[2]
    assert str(out) in [word.removeprefix("MLAPP_ARTIFACTS=") for word in shlex.split(command)]


def test_an_export_replaces_nothing_and_needs_a_version(
    published: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("MLAPP_ARTIFACTS", str(published))
    assert main(["export", "houses", "--to", "mlflow", "--out", str(tmp_path)]) == 1
    assert "already exists" in capsys.readouterr().err
    assert main(["export", "houses", "7", "--to", "mlflow", "--out", str(tmp_path / "a")]) == 1
    assert "no version 7" in capsys.readouterr().err
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("name", ["houses", "bargains"])
def test_what_mlflow_loads_answers_as_the_model_does(
    name: str, published: Path, tmp_path: Path
) -> None:
    root = tmp_path / "one"
    shutil.copytree(published / name, root / name)
    scorer = exported._load_pyfunc(str(root))
    model = store.open_model(published, name)
    found = scorer.predict(pd.DataFrame(ROWS))
    answers = model.answer(model.check(ROWS))
    for column, values in answers.table().items():
        np.testing.assert_array_equal(found[column], values)
    assert list(found.get("label", [])) == list(getattr(answers, "labels", []))


def test_what_mlflow_loads_is_a_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        exported._load_pyfunc(str(tmp_path / "absent"))


def test_nothing_is_left_of_an_export_that_fails(
    published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLAPP_ARTIFACTS", str(published))

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    command = ["export", "houses", "--to", "mlserver", "--out", str(tmp_path / "a")]
    with monkeypatch.context() as patch:
        patch.setattr("mlapp.exporting._write_json", fail)
        assert main(command) == 1
        assert not (tmp_path / "a").exists()
    assert main(command) == 0
