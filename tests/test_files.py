import errno
import gzip
import io
import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import pandas as pd
import pyarrow.parquet as pq
import pytest

from mlapp.errors import InvalidInput, InvalidTable, OutputError
from mlapp.families.regression import RegressionModel
from mlapp.scoring import files, outputs
from mlapp.scoring.batch import Counts, Options
from mlapp.scoring.outputs import is_unfinished
from mlapp.scoring.summary import RefusedRow, Summary
from mlapp.store import artifacts, open_model
from mlapp.tables.formats import FileFormat
from tests.conftest import ROOT

DATA = ROOT / "data" / "linear_regression_dataset.csv"


@pytest.fixture(scope="module")
def model(trained: Path) -> RegressionModel:
    opened = open_model(trained, "regression")
    assert isinstance(opened, RegressionModel)
    return opened


@pytest.fixture(autouse=True)
def many_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut the shipped table into some forty chunks, and note each in the journal."""
    monkeypatch.setattr("mlapp.tables.delimited.BLOCK", 1000)
    monkeypatch.setattr("mlapp.tables.parquet.ROWS", 30)
    monkeypatch.setattr(outputs, "SAVE_EVERY", 0.0)


def read_back(path: Path) -> pd.DataFrame:
    """Read a table with every number exactly as it is written."""
    if path.suffix == ".parquet":
        return pd.read_parquet(path)
    if "jsonl" in path.name:
        content = path.read_bytes()
        text = gzip.decompress(content) if path.suffix == ".gz" else content
        return pd.DataFrame(map(json.loads, text.splitlines()))
    return pd.read_csv(path, sep="\t" if path.suffix == ".tsv" else ",", dtype=str)


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def journal(target: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(target.with_name(f".{target.name}.journal").read_text())
    return content


@pytest.mark.parametrize("suffix", ["csv", "tsv", "csv.gz", "jsonl", "jsonl.gz", "parquet"])
@pytest.mark.parametrize("start", ["csv", "jsonl", "parquet"])
def test_every_column_is_kept_and_predictions_follow(
    start: str, suffix: str, model: RegressionModel, tmp_path: Path
) -> None:
    table = pd.read_csv(DATA).head(200)
    source = tmp_path / f"in.{start}"
    if start == "csv":
        table.to_csv(source, index=False)
    elif start == "jsonl":
        table.to_json(source, orient="records", lines=True)
    else:
        table.to_parquet(source)
    target = tmp_path / f"out.{suffix}"
    summary = files.score(model, source, target)
    assert summary.counts == Counts(200, 200, 0, 0)
    assert summary.complete
    found = read_back(target)
    assert list(found.columns) == [*table, "prediction", "lower", "upper", "notice", "error"]
    expected = model.predict(table)
    for name in ("prediction", "lower", "upper"):
        assert found[name].astype(float).tolist() == expected[name].tolist()
    for name in table.columns:
        assert found[name].astype(float).tolist() == table[name].tolist()
    assert found["error"].isna().all()
    assert left(tmp_path) == sorted([source.name, target.name])


def test_json_lines_from_json_lines_keep_their_lines(
    model: RegressionModel, tmp_path: Path
) -> None:
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    line = '{"var_1" : 734.0, "id": 12345678901234567890123, "var_2":688, "x": {"y": [1]},'
    line += ' "var_3":81, "var_4":0.3280, "var_5":0.259 }'
    source.write_text(f"{line}\nbroken\n")
    files.score(model, source, target)
    first, second = target.read_text().splitlines()
    assert first.startswith(line[:-1] + ',"prediction":0.40113547639')
    assert json.loads(second)["error"] == "got 'broken', expected one JSON object"


def test_nested_parquet_is_kept_in_parquet_and_becomes_json_in_csv(
    model: RegressionModel, tmp_path: Path
) -> None:
    table = pd.read_csv(DATA).head(3)
    table["tags"] = pd.Series([["a", "b"], [], None])
    table.to_parquet(tmp_path / "in.parquet")
    for name in ("out.parquet", "out.csv"):
        files.score(model, tmp_path / "in.parquet", tmp_path / name)
    tags = pq.read_table(tmp_path / "out.parquet").column("tags").to_pylist()
    assert tags == [["a", "b"], [], None]
    assert pd.read_csv(tmp_path / "out.csv")["tags"].tolist()[:2] == ['["a","b"]', "[]"]


def bad_rows(path: Path, rows: int = 1232, bad: tuple[int, ...] = (5, 40, 1000)) -> Path:
    """Write the shipped table with some rows that cannot be scored, numbered from 1."""
    header, *lines = DATA.read_text().splitlines()[: rows + 1]
    for place in bad:
        lines[place - 1] = f"word{place},1,1,1,1,1"
    path.write_text("\n".join([header, *lines]) + "\n")
    return path


def test_refused_rows_are_counted_and_listed_by_number(
    model: RegressionModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mlapp.scoring.summary.SHOWN", 2)
    source = bad_rows(tmp_path / "in.csv")
    summary = files.score(model, source, tmp_path / "out.csv")
    assert summary.counts == Counts(1232, 1229, 0, 3)
    assert summary.refused == (
        (5, "var_1: got 'word5', expected a finite number"),
        (40, "var_1: got 'word40', expected a finite number"),
    )
    found = pd.read_csv(tmp_path / "out.csv")
    assert found["var_1"].tolist() == pd.read_csv(source)["var_1"].tolist()
    assert found.index[found["prediction"].isna()].tolist() == [4, 39, 999]
    assert found["error"][999] == "var_1: got 'word1000', expected a finite number"


def test_strict_stops_at_the_first_refused_row_and_leaves_nothing(
    model: RegressionModel, tmp_path: Path
) -> None:
    source = bad_rows(tmp_path / "in.csv")
    with pytest.raises(InvalidTable, match="row 5, var_1: got 'word5', expected a finite number"):
        files.score(model, source, tmp_path / "out.csv", strict=True)
    assert left(tmp_path) == ["in.csv"]


def test_an_error_before_the_first_row_leaves_an_older_output_unchanged(
    model: RegressionModel, tmp_path: Path
) -> None:
    (tmp_path / "in.csv").write_text("var_1,x\n1,2\n")
    (tmp_path / "out.csv").write_text("older")
    with pytest.raises(InvalidInput, match="there is no column for 4 inputs, 'var_2', "):
        files.score(model, tmp_path / "in.csv", tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_text() == "older"
    assert left(tmp_path) == ["in.csv", "out.csv"]


def test_a_stream_that_turns_out_damaged_leaves_nothing(
    model: RegressionModel, tmp_path: Path
) -> None:
    reader, writer = os.pipe()
    damaged = gzip.compress(DATA.read_bytes())[:-20]
    with os.fdopen(reader, "rb") as stream, os.fdopen(writer, "wb") as into:
        into.write(damaged)
        into.close()
        with pytest.raises(InvalidTable, match="ended before"):
            files.score(model, stream, tmp_path / "out.csv", source_format=FileFormat("csv"))
    assert left(tmp_path) == []


def test_streams_go_in_and_out(model: RegressionModel) -> None:
    for form in (FileFormat("csv"), FileFormat("parquet")):
        out = io.BytesIO()
        files.score(
            model,
            io.BytesIO(DATA.read_bytes()),
            out,
            source_format=FileFormat("csv"),
            target_format=form,
        )
        out.seek(0)
        found = pd.read_csv(out) if form.format == "csv" else pd.read_parquet(out)
        assert len(found) == 1232
    with pytest.raises(OutputError, match="a stream cannot be resumed"):
        files.score(model, DATA, io.BytesIO(), resume=True)


# --- stop and go on ---------------------------------------------------------------------------


def run(model: RegressionModel, source: Path, target: Path, **options: Any) -> Summary[RefusedRow]:
    return files.score(model, source, target, Options(explain=True), workers=2, **options)


@pytest.mark.parametrize("suffix", ["csv", "csv.gz", "jsonl", "parquet"])
def test_a_stopped_run_is_resumed_and_ends_with_the_same_bytes(
    suffix: str, model: RegressionModel, tmp_path: Path
) -> None:
    source = bad_rows(tmp_path / "in.csv")
    whole, target = tmp_path / f"whole.{suffix}", tmp_path / f"out.{suffix}"
    undisturbed = run(model, source, whole)
    steps = iter([False, False, False, True, False, True, *[False] * 100])
    first = run(model, source, target, stop=lambda: next(steps))
    assert not first.complete
    assert 0 < first.counts.rows < 1232
    assert is_unfinished(target)
    assert not target.exists()
    second = run(model, source, target, resume=True, stop=lambda: next(steps))
    assert first.counts.rows == second.earlier < second.counts.rows < 1232
    with target.with_name(f".{target.name}.part").open("ab") as part:
        part.write(b"what was written after the last note")
    last = run(model, source, target, resume=True, stop=lambda: next(steps))
    assert last.complete
    assert (last.counts, last.refused) == (undisturbed.counts, undisturbed.refused)
    assert target.read_bytes() == whole.read_bytes()
    assert left(tmp_path) == sorted(["in.csv", whole.name, target.name])


def test_resume_without_an_unfinished_run_starts_at_the_beginning(
    model: RegressionModel, tmp_path: Path
) -> None:
    assert run(model, DATA, tmp_path / "out.csv", resume=True).counts.rows == 1232


def test_a_new_run_replaces_what_a_stopped_one_left(model: RegressionModel, tmp_path: Path) -> None:
    target = tmp_path / "out.csv"
    run(model, DATA, target, stop=lambda: True)
    assert run(model, DATA, target).earlier == 0
    assert len(pd.read_csv(target)) == 1232
    assert left(tmp_path) == ["out.csv"]


@pytest.mark.parametrize("what", ["input", "model", "options", "formats"])
def test_another_run_is_not_gone_on_with(
    what: str, model: RegressionModel, trained: Path, tmp_path: Path
) -> None:
    source, target = bad_rows(tmp_path / "in.csv"), tmp_path / "out.csv"
    run(model, source, target, stop=lambda: True)
    kept = target.with_name(".out.csv.part").read_bytes()
    options, formats = Options(explain=True), FileFormat("csv")
    if what == "input":
        bad_rows(source, bad=(7,))
    elif what == "model":
        model = RegressionModel(_renamed(trained))
    elif what == "options":
        options = Options(explain=False)
    else:
        formats = FileFormat("tsv")
    with pytest.raises(OutputError, match=f"the {what} was .* start again without --resume"):
        files.score(model, source, target, options, target_format=formats, resume=True)
    assert target.with_name(".out.csv.part").read_bytes() == kept


def test_an_input_that_was_replaced_by_one_of_the_same_size_and_time_is_not_gone_on_with(
    model: RegressionModel, tmp_path: Path
) -> None:
    source, target = bad_rows(tmp_path / "in.csv", bad=(7,)), tmp_path / "out.csv"
    run(model, source, target, stop=lambda: True)
    then = source.stat()
    source.write_text(source.read_text().replace("word7", "word8"))
    os.utime(source, ns=(then.st_atime_ns, then.st_mtime_ns))
    assert source.stat().st_size == then.st_size
    with pytest.raises(OutputError, match=r"the input was .* start again without"):
        run(model, source, target, resume=True)


@pytest.mark.parametrize("kind", ["stream", "pipe"])
def test_a_run_that_reads_a_stream_keeps_nothing_and_cannot_be_resumed(
    kind: str, model: RegressionModel, tmp_path: Path
) -> None:
    target, csv = tmp_path / "out.csv", FileFormat("csv")
    steps = iter([False, True])
    with streamed(kind, tmp_path) as source:
        stopped = files.score(model, source, target, source_format=csv, stop=lambda: next(steps))
    assert 0 < stopped.counts.rows < 1232
    assert left(tmp_path) == []
    with (
        streamed(kind, tmp_path) as source,
        pytest.raises(OutputError, match="a run that reads a stream cannot be resumed"),
    ):
        files.score(model, source, target, source_format=csv, resume=True)
    assert left(tmp_path) == []


@contextmanager
def streamed(kind: str, folder: Path) -> Iterator[Path | BinaryIO]:
    """Yield the shipped table as a stream, or as a named pipe in a folder."""
    if kind == "stream":
        yield io.BytesIO(DATA.read_bytes())
        return
    pipe = folder / "pipe.csv"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=[DATA.read_bytes()])
    writer.start()
    yield pipe
    writer.join()
    pipe.unlink()


def test_a_full_disk_does_not_offer_to_resume_a_run_that_reads_a_stream(
    model: RegressionModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", fill)
        with pytest.raises(OutputError, match=r"No space left on device; free some space$"):
            source = io.BytesIO(DATA.read_bytes())
            files.score(model, source, tmp_path / "out.csv", source_format=FileFormat("csv"))
    assert left(tmp_path) == []


def _renamed(trained: Path) -> Any:
    opened = artifacts.open(trained, "regression")
    manifest = opened.manifest.model_copy(update={"version": 2})
    return replace(opened, manifest=manifest)


def test_a_part_that_is_shorter_than_its_journal_says_is_not_gone_on_with(
    model: RegressionModel, tmp_path: Path
) -> None:
    target = tmp_path / "out.csv"
    run(model, DATA, target, stop=lambda: True)
    os.truncate(target.with_name(".out.csv.part"), 1)
    with pytest.raises(OutputError, match="is damaged; start again"):
        run(model, DATA, target, resume=True)


def test_an_interrupted_run_keeps_what_is_done(model: RegressionModel, tmp_path: Path) -> None:
    target = tmp_path / "out.csv"

    def interrupt(rows: int, _: float | None) -> None:
        if rows > 500:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(model, DATA, target, progress=interrupt)
    noted = journal(target)["done"]
    assert noted["counts"][0] > 500
    assert noted["size"] == target.with_name(".out.csv.part").stat().st_size
    run(model, DATA, target, resume=True)
    run(model, DATA, tmp_path / "whole.csv")
    assert target.read_bytes() == (tmp_path / "whole.csv").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize(
    "content", [b"", b"{", b"\xff\x00", b"[]", b"{}", b'{"origin": {}, "done": {"parts": -1}}']
)
def test_a_run_with_an_empty_or_damaged_journal_starts_again_and_says_so(
    content: bytes, model: RegressionModel, tmp_path: Path
) -> None:
    target = tmp_path / "out.csv"
    steps = iter([False, True])
    assert not run(model, DATA, target, stop=lambda: next(steps)).complete
    target.with_name(".out.csv.journal").write_bytes(content)
    said: list[str] = []
    summary = run(model, DATA, target, resume=True, report=said.append)
    assert summary.earlier == 0
    assert summary.complete
    assert "journal is empty or damaged: the run starts again" in said[0]
    run(model, DATA, tmp_path / "whole.csv")
    assert target.read_bytes() == (tmp_path / "whole.csv").read_bytes()


def test_a_journal_is_on_the_disk_before_it_has_its_name(
    model: RegressionModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: set[str] = set()
    renamed: list[str] = []
    sync, replace = os.fsync, Path.replace

    def note_sync(descriptor: int) -> None:
        synced.add(Path(f"/proc/self/fd/{descriptor}").resolve().name)
        sync(descriptor)

    def note_replace(path: Path, target: Path) -> Path:
        if target.name.endswith(".journal"):
            assert path.name in synced
            synced.discard(tmp_path.name)
            renamed.append(target.name)
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(Path, "replace", note_replace)
    steps = iter([False, True])
    run(model, DATA, tmp_path / "out.csv", stop=lambda: next(steps))
    assert renamed
    assert tmp_path.name in synced
    assert left(tmp_path) == [".out.csv.journal", ".out.csv.part"]


# --- the output -------------------------------------------------------------------------------


def test_a_second_run_into_the_same_file_is_reported(
    model: RegressionModel, tmp_path: Path
) -> None:
    target = tmp_path / "out.csv"
    reported: list[object] = []

    def second(*_: object) -> None:
        if not reported:
            with pytest.raises(OutputError, match="another run is writing") as caught:
                run(model, DATA, target)
            reported.append(caught.value)

    run(model, DATA, target, progress=second)
    assert reported
    assert len(pd.read_csv(target)) == 1232


@pytest.mark.parametrize("link", ["itself", "symlink", "hardlink"])
def test_an_output_that_is_the_input_is_reported(
    link: str, model: RegressionModel, tmp_path: Path
) -> None:
    source = bad_rows(tmp_path / "in.csv")
    before = source.read_bytes()
    target = tmp_path / "out.csv" if link != "itself" else source
    if link == "symlink":
        target.symlink_to(source)
    elif link == "hardlink":
        target.hardlink_to(source)
    with pytest.raises(OutputError, match="is the input; the output must be another file"):
        files.score(model, source, target)
    assert source.read_bytes() == before


def test_a_link_to_the_output_is_kept(model: RegressionModel, tmp_path: Path) -> None:
    (tmp_path / "real.csv").write_text("older")
    (tmp_path / "out.csv").symlink_to("real.csv")
    files.score(model, DATA, tmp_path / "out.csv")
    assert (tmp_path / "out.csv").is_symlink()
    assert len(pd.read_csv(tmp_path / "real.csv")) == 1232


def test_a_folder_that_cannot_be_written_to_is_reported(
    model: RegressionModel, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder.csv").mkdir()
    for target, why in [
        (tmp_path / "none" / "out.csv", "No such file"),
        (tmp_path / "file" / "out.csv", "Not a directory"),
        (tmp_path / "folder.csv", "Is a directory"),
        (Path("/sys/out.csv"), "denied|not permitted|Read-only|No such"),
    ]:
        with pytest.raises(OutputError, match=why):
            files.score(model, DATA, target)


def test_a_device_that_is_full_is_reported(model: RegressionModel) -> None:
    with pytest.raises(OutputError, match="/dev/full cannot be written: No space left on device"):
        files.score(model, DATA, Path("/dev/full"), target_format=FileFormat("csv"))


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_disk_that_is_full_on_the_way_keeps_what_is_done(
    suffix: str, model: RegressionModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / f"out.{suffix}"
    write, written = os.write, []

    def fill(descriptor: int, data: Any) -> int:
        written.append(len(data))
        if len(written) == 10:
            return write(descriptor, data[: len(data) // 2])
        if len(written) > 10:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(descriptor, data)

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", fill)
        with pytest.raises(OutputError, match=r"No space left.*free some space.*--resume"):
            run(model, DATA, target)
    assert run(model, DATA, target, resume=True).earlier > 0
    run(model, DATA, tmp_path / f"whole.{suffix}")
    assert target.read_bytes() == (tmp_path / f"whole.{suffix}").read_bytes()


def test_a_disk_that_is_full_at_the_end_of_parquet_leaves_what_can_be_resumed(
    model: RegressionModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "out.parquet"

    def fill(_: object, file: Any) -> None:
        file.write(b"PAR1")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(outputs, "finish_parquet", fill)
        with pytest.raises(OutputError, match="No space left"):
            run(model, DATA, target)
    assert left(tmp_path) == [".out.parquet.journal", ".out.parquet.part"]
    assert run(model, DATA, target, resume=True).earlier == 1232
    assert len(pd.read_parquet(target)) == 1232


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["csv", "csv.gz", "jsonl", "parquet"])
def test_progress_gives_rows_and_the_share_of_the_input(
    suffix: str, model: RegressionModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mlapp.tables.decoding.BLOCK", 1000)
    monkeypatch.setattr("mlapp.tables.jsonlines.BLOCK", 1000)
    monkeypatch.setattr("mlapp.tables.jsonlines.HEAD", 1000)
    monkeypatch.setattr("mlapp.tables.delimited.HEAD", 1000)
    source = tmp_path / f"in.{suffix}"
    files.score(model, DATA, source, Options(prefix="old_"))
    reported: list[tuple[int, float | None]] = []
    files.score(model, source, tmp_path / "out.csv", progress=lambda *each: reported.append(each))
    rows = [row for row, _ in reported]
    assert rows == sorted(rows)
    assert rows[-1] == 1232
    shares = [share for _, share in reported[1:] if share is not None]
    assert len(shares) == len(reported) - 1
    assert shares == sorted(shares)
    assert shares[0] < 0.5
    assert shares[-1] == 1.0
    assert len(reported) > 20
