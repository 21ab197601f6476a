"""Scoring and serving on Ray: a real local Ray of two workers, beside the local engine."""

import gzip
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import requests

from mlapp import store
from mlapp.cli import main
from mlapp.errors import InvalidTable, OutputError
from mlapp.scoring import cluster, files
from mlapp.scoring.batch import Options
from mlapp.scoring.ray_connection import connect
from mlapp.scoring.sources import locate
from mlapp.scoring.summary import RefusedRowOfFile, Summary
from mlapp.service import create_app
from mlapp.store import artifacts
from tests.conftest import (
    ROOT,
    SHIPPED,
    Server,
    client_of,
    free_port,
    make_houses,
    use_artifacts,
    wait_until,
)

pytestmark = [
    pytest.mark.skipif(find_spec("ray") is None, reason="Ray comes with the extra scale"),
    pytest.mark.slow(8),
    pytest.mark.untraced,
    # Ray's own, when it fills in its settings
    pytest.mark.filterwarnings(r"ignore:.use_\w+. is deprecated:DeprecationWarning"),
]

IDENTIFIER = re.compile(rb"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
ROW = {"var_1": 734.0, "var_2": 688.0, "var_3": 81.0, "var_4": 0.328, "var_5": 0.259}


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a running cluster of one machine with two cores."""
    port = free_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "token")
        token = tmp_path_factory.mktemp("ray") / "token"
        token.write_text(secrets.token_hex(32))
        patch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        log = token.with_name("head.log").open("w+")
        options = ["--num-cpus=2", "--include-dashboard=false"]
        options += [f"--port={port}", "--object-store-memory=200000000"]
        started = subprocess.Popen(
            [Path(sys.executable).parent / "ray", "start", "--head", "--block", *options],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            wait_until(lambda: "Ray runtime started" in Path(log.name).read_text(), "Ray to start")
            yield port
        finally:
            os.killpg(started.pid, signal.SIGKILL)  # asked to stop, it would drain for 30 s
            started.wait()
            log.close()


@pytest.fixture(scope="module")
def ray() -> Iterator[None]:
    """A Ray of two workers, to which whatever scores in this process is connected."""
    with connect(workers=2):
        yield


@pytest.fixture(scope="module")
def every(trained: Path, trained_texts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all trained models; only to be read."""
    root = tmp_path_factory.mktemp("models")
    for source in (trained, trained_texts):
        shutil.copytree(source, root, dirs_exist_ok=True)
    return root


@pytest.fixture(scope="module")
def houses(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of houses in every form, with bad rows; the CSV makes several parts."""
    folder = tmp_path_factory.mktemp("houses")
    table = make_houses(30_000).drop(columns="price").assign(note='a "quoted"\nline, and more')
    table["area"] = table["area"].astype(object)
    table.loc[[3, 29_000], "area"] = "large"
    table.loc[7, "district"] = "south"
    table.loc[9, "area"] = 2_000.5  # outside the training's range: a notice
    text = table.to_csv(index=False)
    (folder / "b.csv").write_text(text)
    few = table.head(50)
    rows = few.to_csv(index=False).replace('"a ""quoted""\nline, and more"', "x").splitlines()
    rows[5] += ",one,too many"
    (folder / "a.tsv.gz").write_bytes(gzip.compress("\n".join(rows).replace(",", "\t").encode()))
    few.to_json(folder / "c.jsonl", orient="records", lines=True)
    make_houses(50).drop(columns="price").to_parquet(folder / "d.parquet")
    (folder / "_ignored.txt").write_text("no table")
    return folder


@pytest.fixture
def reviews(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Reviews that keep two workers busy for a while, in many parts."""
    monkeypatch.setattr(cluster, "SMALLEST", 1)
    rng = np.random.default_rng(5)
    words = ["the", "a", "film", "plot", "was", "good", "dull", "not", "very", "actor", "it"]
    texts = [" ".join(rng.choice(words, 250)) for _ in range(1_500)]
    path = tmp_path / "reviews.jsonl"
    pd.DataFrame({"review": texts}).to_json(path, orient="records", lines=True)
    return path


def run(
    root: Path, name: str, source: object, target: object, **options: Any
) -> Summary[RefusedRowOfFile]:
    options = {"workers": 2} | options
    return cluster.score(artifacts.open(root, name), str(source), str(target), **options)


def read_parts(folder: Path, number: int) -> pa.Table:
    """Return the parts of an input, in the order of their names."""
    return pa.concat_tables(map(pq.read_table, sorted(folder.glob(f"part-{number:05}-*"))))


def score_locally(root: Path, name: str, source: Path, target: Path, options: Options) -> pa.Table:
    files.score(store.open_model(root, name), source, target, options)
    return pq.read_table(target)


def mlapp(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "mlapp.cli", *arguments],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


# --- the same answers -------------------------------------------------------------------------


@pytest.mark.usefixtures("ray")
def test_a_folder_gets_the_local_answers_to_the_bit(
    every: Path, houses: Path, tmp_path: Path
) -> None:
    options = Options(explain=True)
    summary = run(every, "houses", houses, tmp_path / "out", options=options)
    inputs = sorted(path for path in houses.iterdir() if path.name[0] != "_")
    assert len(inputs) == 4
    for number, path in enumerate(inputs):
        local = score_locally(every, "houses", path, tmp_path / "local.parquet", options)
        assert read_parts(tmp_path / "out", number).equals(local), path
    parts = sorted(path.name for path in (tmp_path / "out").glob("*.parquet"))
    assert len(parts) == summary.parts > 4
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"_summary.json", *parts}


@pytest.mark.usefixtures("ray")
def test_texts_get_the_local_answers_to_the_bit(every: Path, tmp_path: Path) -> None:
    source = tmp_path / "reviews.csv"
    sample = pd.read_csv(ROOT / "data" / "reviews_sample.tsv", sep="\t").head(150)
    texts = sample.iloc[:, -1].rename("comment").to_frame().assign(number=range(150))
    texts.loc[4, "comment"] = ""
    texts.to_csv(source, index=False)
    options = Options(text_column="comment", explain=True, prefix="our_")
    summary = run(every, "sentiment", source, tmp_path / "out", options=options)
    local = score_locally(every, "sentiment", source, tmp_path / "local.parquet", options)
    assert read_parts(tmp_path / "out", 0).equals(local)
    assert summary.counts.refused == 1


@pytest.mark.usefixtures("ray")
def test_a_value_of_json_that_is_no_text_is_refused_as_locally(every: Path, tmp_path: Path) -> None:
    source = tmp_path / "reviews.jsonl"
    source.write_text('{"said": "a good film"}\n{"said": 5}\n{"said": "5"}\n{"said": ["good"]}\n')
    options = Options(text_column="said")
    summary = run(every, "sentiment", source, tmp_path / "out", options=options)
    local = score_locally(every, "sentiment", source, tmp_path / "local.parquet", options)
    assert read_parts(tmp_path / "out", 0).equals(local)
    assert [row for _, row, _ in summary.refused] == [2, 4]


@pytest.mark.usefixtures("ray")
def test_a_killed_worker_loses_nothing(reviews: Path, tmp_path: Path) -> None:
    killed: list[int] = []

    def kill(rows: int, share: float | None) -> None:
        if not killed:
            killed.append(rows)
            victim = scorers()[0]
            os.kill(victim, signal.SIGKILL)

    summary = run(SHIPPED, "sentiment", reviews, tmp_path / "out", progress=kill)
    assert 0 < killed[0] < 1_000
    assert summary.counts.scored == 1_500
    local = score_locally(SHIPPED, "sentiment", reviews, tmp_path / "local.parquet", Options())
    assert read_parts(tmp_path / "out", 0).equals(local)


def scorers() -> list[int]:
    """Return the processes that hold a model."""
    listed = subprocess.run(["ps", "-eo", "pid,ppid,args"], capture_output=True, text=True)
    return [
        int(line.split()[0]) for line in listed.stdout.splitlines() if "MapBatches(_Scorer)" in line
    ]


# --- errors ----------------------------------------------------------------------------------


@pytest.mark.usefixtures("ray")
def test_the_summary_counts_and_lists_the_first_refused_rows(
    every: Path, houses: Path, tmp_path: Path
) -> None:
    seen: list[tuple[int, float | None]] = []
    target = tmp_path / "out"
    summary = run(
        every, "houses", houses, target, progress=lambda rows, share: seen.append((rows, share))
    )
    assert summary.counts == (30_150, 30_142, 200, 8)
    first, *_, last = summary.refused
    assert first[:2] == (str(houses / "a.tsv.gz"), 4)
    assert "area: got 'large'" in first[2]
    assert last[:2] == (str(houses / "c.jsonl"), 8)
    assert [row for file, row, _ in summary.refused if file.endswith("b.csv")] == [4, 8, 29_001]
    assert seen[-1][0] == 30_150
    assert all(share is not None and 0 < share <= 1 for _, share in seen)
    assert len(seen) == summary.parts
    written = json.loads((target / "_summary.json").read_text())
    assert (written["rows"], written["refused"], written["parts"]) == (30_150, 8, summary.parts)
    assert written["files"][1] == str(houses / "b.csv")
    assert written["refused_first"][0] == dict(zip(("file", "row", "error"), first, strict=True))


@pytest.mark.nightly
@pytest.mark.usefixtures("ray")
def test_a_pattern_and_an_address_choose_the_files(
    every: Path, houses: Path, tmp_path: Path
) -> None:
    target = tmp_path / "out"
    summary = run(every, "houses", f"file://{houses}/[cd].*", f"file://{target}")
    assert summary.counts.rows == 100
    assert len(read_parts(target, 1)) == 50


@pytest.mark.nightly
@pytest.mark.usefixtures("ray")
def test_strict_ends_with_a_refused_row_and_writes_nothing(
    every: Path, houses: Path, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(InvalidTable, match=r"b.csv: row .*, (area|district): got"):
        run(every, "houses", houses / "b.csv", tmp_path / "out", strict=True)
    assert not list((tmp_path / "out").iterdir())
    with pytest.raises(InvalidTable):
        run(every, "houses", houses / "b.csv", tmp_path / "absent", strict=True)
    assert not (tmp_path / "absent").exists()


@pytest.mark.usefixtures("ray")
@pytest.mark.parametrize(
    ("name", "content", "reported"),
    [
        ("z.csv", b"area,rooms\n1,2\n", "z.csv: district: got no such column"),
        ("z.csv.gz", gzip.compress(b"area,rooms,district\n" * 9_000)[:-9], "z.csv.gz cannot be"),
        ("z.csv", b"area,rooms,district\n1,2,w\xe9st\n", "z.csv is not valid UTF-8"),
        ("z.parquet", b"PAR1 and no more", "z.parquet cannot be read, or is damaged"),
        ("z.xlsx", b"PK", "z.xlsx is not an .xlsx workbook, or is damaged"),
    ],
)
def test_a_bad_file_is_reported_before_anything_is_written(
    every: Path, houses: Path, tmp_path: Path, name: str, content: bytes, reported: str
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    shutil.copy(houses / "d.parquet", folder / "a.parquet")
    (folder / name).write_bytes(content)
    with pytest.raises(InvalidTable, match=reported):
        run(every, "houses", folder, tmp_path / "out", progress=lambda *_: pytest.fail("written"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("source", ["", "/*.csv", "/none.csv"])
def test_a_missing_file_is_reported(every: Path, tmp_path: Path, source: str) -> None:
    (tmp_path / "in").mkdir()
    with pytest.raises(InvalidTable, match="no file is there"):
        run(every, "houses", f"{tmp_path}/in{source}", tmp_path / "out")


def test_a_target_that_is_not_an_empty_folder_is_refused(
    every: Path, houses: Path, tmp_path: Path
) -> None:
    (tmp_path / "kept.txt").write_text("kept")
    with pytest.raises(OutputError, match="is not empty"):
        run(every, "houses", houses, tmp_path)
    with pytest.raises(OutputError, match="is a file, expected a folder"):
        run(every, "houses", houses, tmp_path / "kept.txt")
    assert (tmp_path / "kept.txt").read_text() == "kept"


@pytest.mark.usefixtures("ray")
def test_a_target_that_cannot_be_written_is_reported(every: Path, houses: Path) -> None:
    with pytest.raises(OutputError, match="/proc/none/out cannot be written"):
        run(every, "houses", houses / "d.parquet", "/proc/none/out")


@pytest.mark.nightly
@pytest.mark.usefixtures("ray")
def test_a_target_that_is_deleted_during_the_run_is_reported(reviews: Path, tmp_path: Path) -> None:
    target = tmp_path / "out"
    with pytest.raises(OutputError, match=r"out cannot be written: [^\n]*$"):
        run(
            SHIPPED,
            "sentiment",
            reviews,
            target,
            progress=lambda *_: shutil.rmtree(target, ignore_errors=True),
        )
    assert not target.exists()


def test_parts_on_the_disks_of_other_machines_are_missed(tmp_path: Path) -> None:
    (tmp_path / "part-1.parquet").touch()
    where, folder = locate(str(tmp_path))
    with pytest.raises(OutputError, match="1 of 2 parts are on other machines"):
        cluster._refuse_scattered(where, folder, {"part-1.parquet", "part-2.parquet"}, "out")


# --- the command ------------------------------------------------------------------------------


def test_the_command_starts_a_ray_of_its_own_and_stops_it(
    every: Path, houses: Path, tmp_path: Path
) -> None:
    options = ["--engine", "ray", "--workers", "1", "--model", "houses"]
    target = str(tmp_path / "out")
    ran = mlapp("score", *options, str(houses), "-o", target, MLAPP_ARTIFACTS=str(every))
    assert ran.returncode == 3, ran.stderr
    assert "30,150 rows, 30,142 scored (200 of them with a notice), 8 refused" in ran.stderr
    assert f"{houses}/a.tsv.gz: row 4, area: got 'large'" in ran.stderr
    assert (tmp_path / "out" / "_summary.json").exists()


def test_the_command_works_on_a_running_cluster(
    every: Path, houses: Path, tmp_path: Path, head: int
) -> None:
    options = ["--engine", "ray", "--address", f"127.0.0.1:{head}", "--model", "houses"]
    source, target = str(houses / "a.tsv.gz"), str(tmp_path / "out")
    ran = mlapp("score", *options, source, "-o", target, MLAPP_ARTIFACTS=str(every))
    assert ran.returncode == 3, ran.stderr
    assert "50 rows, 47 scored" in ran.stderr
    assert read_parts(tmp_path / "out", 0).num_rows == 50
    ran = mlapp("score", *options, source, "-o", target, MLAPP_ARTIFACTS=str(every))
    assert ran.returncode == 1
    assert ran.stderr.splitlines()[-1].startswith(f"error: {target} is not empty")
    assert "Traceback" not in ran.stderr


@pytest.mark.parametrize(
    ("options", "reported"),
    [
        (["--engine", "ray", "--address", "127.0.0.1:1"], "No Ray cluster answers at 127.0.0.1:1"),
        (["--engine", "ray", "--resume"], "cannot resume"),
        (["--engine", "ray", "--to", "csv"], "writes a folder of Parquet"),
        (["--address", "auto"], "--address requires --engine ray"),
    ],
)
def test_the_command_says_what_is_wrong_with_its_options(
    every: Path, houses: Path, tmp_path: Path, options: list[str], reported: str
) -> None:
    target = tmp_path / "out"
    ran = mlapp(
        "score", "--model", "houses", *options, str(houses), "-o", str(target),
        MLAPP_ARTIFACTS=str(every),
    )  # fmt: skip
    assert ran.returncode == 1
    assert reported in ran.stderr
    assert "Traceback" not in ran.stderr
    assert not target.exists()


def test_without_ray_the_extra_is_named(
    every: Path, houses: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    use_artifacts(every, monkeypatch)
    monkeypatch.setitem(sys.modules, "ray", None)
    options = ["--engine", "ray", "--model", "houses", "-o", str(tmp_path / "out")]
    assert main(["score", *options, str(houses)]) == 1
    assert "pip install 'mlapp[scale]'" in capsys.readouterr().err


# --- the service ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def replicas(every: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The service on two replicas."""
    log = tmp_path_factory.mktemp("log") / "replicas.log"
    server = Server(every, log, "--engine", "ray", "--replicas", "2", MLAPP_API_KEY="secret")
    yield server
    server.stop()


@pytest.mark.parametrize(
    ("method", "path", "body", "identifiers"),
    [
        ("post", "/v1/models/regression:predict", {"json": {"instances": [ROW]}}, 1),
        ("post", "/v1/models/sentiment:explain", {"json": {"instances": ["A fine film"]}}, 1),
        ("post", "/v1/models/regression:predict", {"json": {"instances": [{"var_1": "x"}]}}, 0),
        ("post", "/predict", {"data": ROW}, 0),
        ("get", "/v2/models/regression", {}, 0),
        ("get", "/no/such/page", {}, 0),
    ],
)
def test_replicas_answer_as_the_service_does(
    replicas: Server, every: Path, monkeypatch: pytest.MonkeyPatch,
    method: str, path: str, body: dict[str, Any], identifiers: int,
) -> None:  # fmt: skip
    use_artifacts(every, monkeypatch)
    monkeypatch.setenv("MLAPP_API_KEY", "secret")
    key = {"X-API-Key": "secret"}
    answer = getattr(requests, method)(replicas.address + path, headers=key, timeout=30, **body)
    expected = getattr(client_of(create_app()), method)(path, headers=key, **body)
    content, found = IDENTIFIER.subn(b"ID", answer.content)
    assert (answer.status_code, content) == (
        expected.status_code,
        IDENTIFIER.sub(b"ID", expected.data),
    )
    assert found == identifiers
    assert answer.headers["Content-Type"] == expected.headers["Content-Type"]


def test_replicas_ask_for_the_key(replicas: Server) -> None:
    answer = requests.post(replicas.address + "/v1/models/regression:predict", timeout=30)
    assert answer.status_code == 401


def test_replicas_stop_on_sigterm(replicas: Server) -> None:
    replicas.process.terminate()
    assert replicas.process.wait(60) == 0
    with pytest.raises(requests.ConnectionError):
        requests.get(replicas.address + "/livez", timeout=5)


def test_a_key_is_wanted_before_others_are_served(every: Path) -> None:
    ran = mlapp(
        "serve",
        "--engine",
        "ray",
        "--host",
        "0.0.0.0",
        MLAPP_ARTIFACTS=str(every),
        MLAPP_API_KEY="",
    )
    assert ran.returncode == 1
    assert "MLAPP_API_KEY: got nothing" in ran.stderr


def test_options_of_the_other_engine_are_refused(every: Path) -> None:
    ran = mlapp("serve", "--replicas", "2")
    assert (ran.returncode, "go with --engine ray" in ran.stderr) == (2, True)
    ran = mlapp("serve", "--engine", "ray", "--workers", "2")
    assert (ran.returncode, "use --replicas" in ran.stderr) == (2, True)
