"""Large files of texts, scored in several processes."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import ModuleType

import pyarrow as pa
import pytest

from mlapp import families
from mlapp.families.contract import Model
from mlapp.manifest import Artifact
from mlapp.scoring.batch import Options, Plan, make_plan, score_batch
from mlapp.scoring.processes import Processes
from mlapp.store import artifacts
from tests.conftest import ROOT, wait_until

TEXTS = ["A wonderful film.", "", "Dull, and far too long!", "Не знаю", "A wonderful film. " * 500]
BATCH = pa.record_batch({"text": TEXTS})
COMMAND = [sys.executable, "-m", "mlapp.cli", "score"]


@pytest.fixture(scope="module")
def artifact(trained_texts: Path) -> Artifact:
    return artifacts.open(trained_texts, "sentiment")


@pytest.fixture(scope="module")
def model(artifact: Artifact) -> Model:
    return families.from_artifact(artifact)


@pytest.fixture(scope="module")
def plan(model: Model) -> Plan:
    return make_plan(model, BATCH.schema, Options(explain=True))


@pytest.fixture(autouse=True)
def no_script(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget the script that `AppTest` leaves as the main module, which new processes run again."""
    monkeypatch.setitem(sys.modules, "__main__", ModuleType("__main__"))


@pytest.fixture
def processes(artifact: Artifact) -> Iterator[Processes]:
    with Processes() as started:
        started.start(1)
        started.open(artifact)
        yield started


def the_process() -> BaseProcess:
    [process] = multiprocessing.active_children()
    return process


def wait_until_ready(processes: Processes) -> None:
    wait_until(processes.is_ready, "the process")


@pytest.mark.slow
def test_a_batch_is_scored_in_a_process_as_it_is_here(
    processes: Processes, model: Model, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = score_batch(model, plan, BATCH)
    wait_until_ready(processes)
    monkeypatch.setattr("mlapp.scoring.batch.score_batch", None)  # nothing is scored here
    scored = processes.score(model, plan, BATCH)
    assert scored.batch == expected.batch
    assert (scored.counts, scored.errors) == (expected.counts, expected.errors)
    assert scored.errors.keys() == {1}


@pytest.mark.slow
def test_a_batch_is_scored_here_before_the_process_is_ready_and_after_it_has_ended(
    processes: Processes, model: Model, plan: Plan
) -> None:
    expected = score_batch(model, plan, BATCH).batch
    assert processes.score(model, plan, BATCH).batch == expected
    wait_until_ready(processes)
    process = the_process()
    process.kill()
    process.join()
    for _ in range(2):
        assert processes.score(model, plan, BATCH).batch == expected
    assert not processes.is_ready()


@pytest.mark.slow
def test_an_error_in_the_process_is_raised_here(
    processes: Processes, model: Model, plan: Plan
) -> None:
    wait_until_ready(processes)
    with pytest.raises(KeyError, match="text"):
        processes.score(model, plan, BATCH.rename_columns(["other"]))
    assert processes.score(model, plan, BATCH).counts.rows == len(TEXTS)


@pytest.mark.slow
def test_the_processes_end_with_the_block(artifact: Artifact) -> None:
    with pytest.raises(ZeroDivisionError), Processes() as processes:
        processes.start(2)
        processes.open(artifact)  # which one of them may be reading when it ends
        processes.start(2)
        assert len(multiprocessing.active_children()) == 2
        raise ZeroDivisionError
    assert multiprocessing.active_children() == []


@pytest.mark.slow
def test_a_process_that_was_started_for_nothing_ends_with_the_block() -> None:
    with Processes() as processes:
        processes.start(1)
    assert multiprocessing.active_children() == []


def write_texts(path: Path, count: int) -> Path:
    lines = [json.dumps({"text": f"{place} " + "wonderful, dull. " * 60}) for place in range(count)]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


@pytest.mark.slow
def test_a_large_file_is_scored_to_the_same_bytes_with_one_process_and_with_several(
    trained_texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLAPP_ARTIFACTS", str(trained_texts))
    source, found = write_texts(tmp_path / "in.jsonl", 3000), []
    model, column = ["--model", "sentiment"], ["--text-column", "text"]
    for number, options in enumerate(
        ([*model, "--workers", "1"], [*model, "--workers", "3"], [*column, "--workers", "3"])
    ):
        target = tmp_path / f"{number}.jsonl"
        arguments = [str(source), "-o", str(target), *options]
        ran = subprocess.run([*COMMAND, *arguments], cwd=ROOT, capture_output=True, text=True)
        assert ran.returncode == 0, ran.stderr
        assert "3,000 rows, 3,000 scored" in ran.stderr
        found.append(target.read_bytes())
    assert found[0] == found[1] == found[2]


@pytest.mark.slow
def test_ctrl_c_in_a_terminal_ends_all_processes_with_one_line(
    trained_texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLAPP_ARTIFACTS", str(trained_texts))
    source, target = write_texts(tmp_path / "in.jsonl", 50_000), tmp_path / "out.jsonl"
    arguments = [str(source), "-o", str(target), "--model", "sentiment", "--workers", "2"]
    with subprocess.Popen(
        [*COMMAND, *arguments], cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as running:
        journal = target.with_name(f".{target.name}.journal")
        wait_until(journal.exists, "some texts to be scored")
        os.killpg(running.pid, signal.SIGINT)
        _, reported = running.communicate()  # until no process holds its end
    assert running.returncode == 130
    [line] = reported.splitlines()
    assert "--resume continues" in line
