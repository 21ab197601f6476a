"""A family of another distribution, defined here alone, is served everywhere.

It takes a row and gives a label: a threshold on one number decides.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import requests
from openapi_spec_validator import validate
from streamlit.testing.v1 import AppTest

from mlapp import families
from mlapp.families.contract import (
    Family,
    Headline,
    LabelOutput,
    Labels,
    Model,
    RowInput,
    RowReasons,
    replay,
)
from mlapp.manifest import Artifact, Data
from mlapp.schema import Category, Checked, Column, Number, Schema
from mlapp.scoring import cluster
from mlapp.scoring.batch import Options
from mlapp.service import create_app
from mlapp.store import artifacts, open_model
from tests.conftest import ROOT, Server, client_of, use_artifacts

SIZES = ("small", "large")
ROW: dict[str, Any] = {"height": 1.5, "colour": "red"}


class Sizes:
    """Tells small from large by height; red things look larger."""

    platform = "toy"
    tolerance = 1e-12

    def __init__(self, artifact: Artifact) -> None:
        self.manifest, self.size = artifact.manifest, artifact.size
        assert artifact.manifest.input_schema is not None
        self.schema = artifact.manifest.input_schema
        self.takes = RowInput(self.schema)
        self.gives = LabelOutput(SIZES, "size")
        self._threshold = float(artifact.files["threshold.txt"])

    @property
    def headline(self) -> Headline:
        return Headline("held-out accuracy", "99.0%", "Made up.")

    def check(self, instances: Any) -> Checked:
        return self.schema.check(instances)

    def check_columns(self, columns: Mapping[str, Column]) -> Checked:
        return self.schema.check_some(columns)

    def answer(self, batch: Checked) -> Labels:
        large = 1 / (1 + np.exp(-self.reasons(batch).totals))
        return Labels(self.gives, np.column_stack([1 - large, large]), {}, batch.notices)

    def reasons(self, batch: Checked) -> RowReasons:
        height, colour = batch.matrix.T
        effects = {"height": height - self._threshold, "colour": np.where(colour == 1, 0.25, 0.0)}
        labels = [SIZES[1]] * len(batch)
        return RowReasons(self.takes, np.zeros(len(batch)), effects, labels)


def publish_sizes(root: Path, name: str = "sizes", threshold: float = 1.0) -> None:
    quantiles = (0.1, 0.5, 1.0, 1.5, 1.9)
    height = Number(
        name="height", minimum=0, maximum=2, quantiles=quantiles, typical=1, step=0.1, decimals=1
    )
    colour = Category(name="colour", categories=("blue", "red"), typical="blue")
    fields: dict[str, Any] = {
        "task": "toy-sizes",
        "data": Data(source="none", rows=9, columns=3, sha256="0" * 64),
        "training": {"command": "python -m toy"},
        "input_schema": Schema(inputs=(height, colour)),
        "labels": SIZES,
        "metrics": {},
    }
    files = {"threshold.txt": str(threshold).encode()}
    first = Sizes(artifacts.draft(name, files, ("mlapp",), golden=(), **fields))
    [answer] = first.answer(first.check([ROW])).records()
    golden = [{"input": ROW, "output": answer}]
    drafted = artifacts.draft(name, files, ("mlapp",), golden=golden, **fields)
    artifacts.publish(root, drafted, lambda artifact: replay(families.from_artifact(artifact)))


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the metadata of a distribution that brings the family."""
    folder = tmp_path_factory.mktemp("site")
    info = folder / "toy_sizes-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-sizes\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        f"[{families.GROUP}]\ntoy-sizes = tests.test_other_families:Sizes\n"
    )
    return folder


@pytest.fixture
def root(installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The artifact folder in use, with the model; processes that are started know the family."""
    monkeypatch.syspath_prepend(str(installed))
    path = os.pathsep.join([str(installed), str(ROOT), os.environ.get("PYTHONPATH", "")])
    monkeypatch.setenv("PYTHONPATH", path)
    folder = tmp_path / "artifacts"
    publish_sizes(folder)
    use_artifacts(folder, monkeypatch)
    return folder


def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "mlapp.cli", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_it_is_a_family_as_the_contract_says(root: Path) -> None:
    family: Family = Sizes
    model: Model = family(artifacts.open(root, "sizes"))
    assert (model.manifest.kind.takes, model.manifest.kind.gives) == ("row", "labels")


def test_the_short_form_predicts_and_explains(root: Path) -> None:
    client = client_of(create_app())
    answer = client.post("/v1/models/sizes:predict", json={"instances": [ROW, [0.2, "blue"]]}).json
    large = 1 / (1 + np.exp(-0.75))
    assert answer["predictions"][0] == {
        "label": "large",
        "probability": pytest.approx(large),
        "small": pytest.approx(1 - large),
        "large": pytest.approx(large),
    }
    assert answer["predictions"][1]["label"] == "small"
    [why] = client.post("/v1/models/sizes:explain", json={"instances": [ROW]}).json["explanations"]
    assert why == {
        "label": "large",
        "logit": pytest.approx(0.75),
        "baseline": 0.0,
        "height": 0.5,
        "colour": 0.25,
    }
    bad = client.post("/v1/models/sizes:predict", json={"instances": [{"height": "tall"}]})
    assert [fault["input"] for fault in bad.json["faults"]] == ["height", "colour"]
    assert client.get("/v1/models/sizes").json["labels"] == list(SIZES)


def test_the_open_inference_protocol_predicts(root: Path) -> None:
    client = client_of(create_app())
    metadata = client.get("/v2/models/sizes").json
    assert metadata["platform"] == "toy"
    assert [(each["name"], each["datatype"]) for each in metadata["inputs"]] == [
        ("height", "FP64"),
        ("colour", "BYTES"),
    ]
    assert metadata["outputs"][2] == {
        "name": "probabilities",
        "datatype": "FP64",
        "shape": [-1, 2],
        "parameters": {"labels": '["small","large"]'},
    }
    tensors = [
        {"name": "height", "datatype": "FP64", "shape": [1], "data": [1.5]},
        {"name": "colour", "datatype": "BYTES", "shape": [1], "data": ["red"]},
    ]
    answer = client.post("/v2/models/sizes/infer", json={"inputs": tensors}).json
    assert {each["name"]: each["data"][0] for each in answer["outputs"]}["label"] == "large"


def test_documents_and_forms_show_it(root: Path) -> None:
    client = client_of(create_app())
    document = client.get("/openapi.json").json
    validate(document)
    assert "/v1/models/sizes:predict" in document["paths"]
    assert "sizes" in client.get("/docs").text
    assert 'name="height"' in client.get("/form?_model=sizes").text
    shown = client.post("/predict?_model=sizes", data={"height": "1.5", "colour": "red"})
    assert "<output>large</output>" in shown.text
    refused = client.post("/predict?_model=sizes", data={"height": "tall", "colour": "red"})
    assert refused.status_code == 422
    assert "Please enter valid values" in refused.text


@pytest.mark.slow(30)
def test_the_command_lists_verifies_predicts_and_scores(root: Path, tmp_path: Path) -> None:
    assert "held-out accuracy 99.0%" in run("models").stdout
    assert run("verify").stdout == "sizes 1: ok\n"
    said = run("predict", "--model", "sizes", "--height", "1.5", "--colour", "red")
    assert said.stdout.splitlines()[0] == "label: large"
    source, target = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_text("height,colour\n1.5,red\ntall,red\n0.2,blue\n9,blue\n")
    done = run("score", str(source), "-o", str(target), "--model", "sizes", "--explain")
    assert done.returncode == 3, done.stderr
    scored = pd.read_csv(target)
    assert list(scored.columns[2:]) == [
        "label",
        "probability",
        "p_small",
        "p_large",
        "unsure",
        "effect_baseline",
        "effect_height",
        "effect_colour",
        "notice",
        "error",
    ]
    assert scored["label"].fillna("").tolist() == ["large", "", "small", "large"]
    assert "height: got 'tall'" in scored["error"][1]
    assert "outside the range" in scored["notice"][3]


@pytest.mark.slow
def test_the_home_page_and_the_part_for_files_show_it(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = AppTest.from_file(str(ROOT / "Home.py"), default_timeout=30).run()
    assert not home.exception
    assert home.metric[0].value == "99.0%"

    def part() -> None:
        from mlapp import loaders
        from mlapp.dashboard import whole_files

        whole_files.show(loaders.load_model("sizes"))

    app = AppTest.from_function(part, default_timeout=30).run()
    assert not app.exception
    assert list(app.dataframe[0].value.columns) == ["height", "colour"]


@pytest.mark.slow
def test_a_server_and_its_workers_serve_it(root: Path, tmp_path: Path) -> None:
    server = Server(root, tmp_path / "log", "--api-only", "--workers", "2")
    try:
        predict = f"{server.address}/v1/models/sizes:predict"
        answer = requests.post(predict, json={"instances": [ROW]}, timeout=30)
        assert answer.json()["predictions"][0]["label"] == "large"
        assert answer.headers["Mlapp-Id"] == answer.json()["id"]
        score = f"{server.address}/v1/models/sizes:score"
        lines = json.dumps(ROW).encode() + b"\n"
        kind = {"Content-Type": "application/x-ndjson"}
        scored = requests.post(score, data=lines, headers=kind, timeout=30)
        assert json.loads(scored.text)["label"] == "large"
    finally:
        server.stop()


@pytest.mark.nightly
@pytest.mark.slow(60)
@pytest.mark.filterwarnings(r"ignore:.use_\w+. is deprecated:DeprecationWarning")  # Ray's own
def test_a_cluster_scores_with_it(root: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    source = tmp_path / "in.csv"
    source.write_text("height,colour\n1.5,red\n0.2,blue\n")
    opened = artifacts.open(root, "sizes")
    summary = cluster.score(opened, str(source), str(tmp_path / "out"), Options(), workers=1)
    assert summary.counts.scored == 2
    assert list(pd.read_parquet(tmp_path / "out")["label"]) == ["large", "small"]
    assert open_model(root, "sizes").manifest.name == "sizes"
