import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlapp.cli import main
from mlapp.errors import InvalidInput
from mlapp.store import open_model
from tests.conftest import ROOT, SHIPPED, run_python, wait_until
from training.regression import train

DATA = ROOT / "data" / "linear_regression_dataset.csv"
COMMAND = [sys.executable, "-m", "mlapp.cli", "score"]


@pytest.fixture
def place(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for files, with the trained regressions in the settings."""
    monkeypatch.setenv("MLAPP_ARTIFACTS", str(trained))
    return tmp_path


def score(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run the real command."""
    command = [*COMMAND, *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, **options)


def score_here(
    source: Path, target: Path, model: str, *options: str, status: int = 0
) -> list[dict[str, Any]]:
    """Score a file into JSON lines in this process, and return the lines."""
    assert main(["score", str(source), "-o", str(target), "--model", model, *options]) == status
    return [json.loads(line) for line in target.read_text().splitlines()]


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def many_rows(path: Path, times: int = 1500) -> Path:
    """Write the shipped rows again and again: 1,232 rows each time."""
    header, _, rows = DATA.read_bytes().partition(b"\n")
    path.write_bytes(header + b"\n" + times * rows)
    return path


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
@pytest.mark.slow
def test_scoring_a_file_of_texts_does_not_wait_for_pandas(tmp_path: Path, suffix: str) -> None:
    root = tmp_path / "artifacts"
    shutil.copytree(SHIPPED / "regression", root / "regression")
    source, target = tmp_path / f"in.{suffix}", tmp_path / f"out.{suffix}"
    rows = pd.read_csv(DATA).head(20)
    if suffix == "csv":
        rows.to_csv(source, index=False)
    else:
        rows.to_json(source, orient="records", lines=True)
    code = f"""import json, sys
from mlapp.cli import main
status = main(["score", {str(source)!r}, "-o", {str(target)!r}, "--model", "regression"])
import pyarrow as pa
heavy = "pandas" in sys.modules
import pandas as pd
print(json.dumps([status, heavy, pa.table({{"n": [1]}}).to_pandas().n.tolist()]))"""
    assert run_python(code, root) == [0, False, [1]]
    assert len(target.read_text().splitlines()) == (21 if suffix == "csv" else 20)


@pytest.mark.slow
def test_a_file_is_scored_and_summarised(place: Path) -> None:
    ran = score(DATA, "-o", place / "out.csv")
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == ""
    assert "out.csv: 1,232 rows, 1,232 scored (0 of them with a notice), 0 refused" in ran.stderr
    assert "\r" not in ran.stderr
    assert pd.read_csv(place / "out.csv")["prediction"].notna().all()


@pytest.mark.slow
def test_refused_rows_give_status_3_and_are_reported(place: Path) -> None:
    lines = "area,rooms,district\n100,3,east\nabc,3,east\n100,3,south\n1,2\n"
    ran = score("-", "-o", "-", "--model", "houses", "--to", "jsonl", input=lines)
    assert ran.returncode == 3
    errors = [json.loads(line)["error"] for line in ran.stdout.splitlines()]
    assert errors[0] is None
    assert errors[1:] == [
        "area: got 'abc', expected a finite number",
        "district: got 'south', expected one of 'east', 'north', 'west'",
        "got 2 cells, expected 3 cells",
    ]
    assert "4 rows, 1 scored (0 of them with a notice), 3 refused" in ran.stderr
    assert [line for line in ran.stderr.splitlines() if line.startswith("row")] == [
        f"row {row}, {error}" for row, error in enumerate(errors[1:], 2)
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.csv", "-o", "out.csv"], "none.csv cannot be read"),
        ([DATA, "-o", "out.xlsx"], "got '.xlsx', expected .csv, .tsv or .jsonl"),
        (
            [DATA, "-o", "out.csv", "--model", "houses"],
            "error: there is no column for 3 inputs, 'area'",
        ),
        ([DATA, "-o", "out.csv", "--model", "nothing"], "'nothing'"),
        ([DATA, "-o", "out.csv", "--columns", "x"], "columns: got 'x', expected THEIRS=OURS"),
        (
            [DATA, "-o", "out.csv", "--columns", "x=var_1"],
            "error: columns: got 'x', expected one of the columns",
        ),
        (
            [DATA, "-o", "out.csv", "--columns", '"x=var_1'],
            "expected THEIRS=OURS,...: unexpected end",
        ),
        (
            [DATA, "-o", "out.csv", "--text-column", "var_1", "--model", "regression"],
            "text_column: got 'var_1', expected none: this model takes no texts",
        ),
        ([DATA, "-o", "out.csv.zip"], "got '.csv.zip', expected .csv, .tsv or .jsonl"),
        ([DATA, "-o", "out.csv.zip", "--to", "csv"], "got '.zip', expected .csv, .tsv or .jsonl"),
        ([DATA, "-o", "none/out.csv"], "cannot be written: No such file"),
        ([DATA, "-o", "/dev/full", "--to", "csv"], "No space left on device"),
    ],
)
def test_what_cannot_be_done_gives_status_1_and_nothing_is_written(
    arguments: list[object],
    message: str,
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(place)
    assert main(["score", *map(str, arguments)]) == 1
    reported = capsys.readouterr().err
    assert reported.startswith("error: ")
    assert message in reported
    assert left(place) == []


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        ([], 2),
        (["in.csv"], 2),
        (["in.csv", "-o", "x.csv", "--from", "excel"], 2),
        (["in.csv", "-o", "x.csv", "--workers", "0"], 2),
        (["in.csv", "-o", "x.csv", "--prefix", "\udce9"], 2),
        (["--help"], 0),
    ],
)
def test_a_wrong_command_line_gives_status_2(arguments: list[str], status: int) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["score", *arguments])
    assert caught.value.code == status


def test_help_documents_the_statuses(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["score", "--help"])
    reported = " ".join(capsys.readouterr().out.split())
    statuses = "0 all rows scored; 3 some or all rows refused, any others scored; 1 nothing done"
    assert statuses in reported


@pytest.mark.parametrize(
    ("arguments", "closed", "message"),
    [
        ("- -o -", "<&-", "standard input cannot be read: it is closed"),
        (f"{DATA} -o -", ">&-", "standard output cannot be written: it is closed"),
    ],
)
@pytest.mark.slow
def test_a_closed_stream_is_reported(
    arguments: str, closed: str, message: str, place: Path
) -> None:
    line = f"exec {' '.join(COMMAND)} {arguments} {closed}"
    ran = subprocess.run(
        line, shell=True, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    assert (ran.returncode, ran.stderr) == (1, f"error: {message}\n")


@pytest.mark.slow
def test_without_a_standard_error_messages_do_not_go_among_the_rows(place: Path) -> None:
    line = f"exec {' '.join(COMMAND)} {DATA} -o - 2>&-"
    ran = subprocess.run(
        line, shell=True, cwd=ROOT, stdout=subprocess.PIPE, text=True, timeout=300, check=False
    )
    assert (ran.returncode, len(ran.stdout.splitlines())) == (0, 1233)


@pytest.mark.slow
def test_standard_input_cannot_be_resumed(place: Path) -> None:
    ran = score("-", "-o", place / "out.csv", "--resume", input=DATA.read_text())
    assert (ran.returncode, left(place)) == (1, [])
    assert ran.stderr == (
        "error: a run that reads a stream cannot be resumed, only one that reads a file\n"
    )


@pytest.mark.parametrize("wanted", ["csv", "parquet"])
def test_strict_writes_nothing_to_standard_output_if_a_row_is_refused(
    wanted: str, place: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    good, bad = place / "good.csv", place / "bad.csv"
    header, *rows = DATA.read_text().splitlines()[:200]
    good.write_text("\n".join([header, *rows]))
    bad.write_text("\n".join([header, *rows, "x,1,1,1,1,1"]))
    options = ["-o", "-", "--to", wanted, "--strict"]
    assert main(["score", str(bad), *options]) == 1
    out, err = capfdbinary.readouterr()
    assert (out, err) == (b"", b"error: row 200, var_1: got 'x', expected a finite number\n")
    assert main(["score", str(good), *options]) == 0
    whole = capfdbinary.readouterr().out
    assert main(["score", str(good), *options[:-1]]) == 0
    assert capfdbinary.readouterr().out == whole != b""


@pytest.mark.slow
def test_strict_stops_at_the_first_refused_row(place: Path) -> None:
    (place / "in.csv").write_text(DATA.read_text() + "x,1,1,1,1,1\n")
    ran = score(place / "in.csv", "-o", place / "out.csv", "--strict")
    assert ran.returncode == 1
    assert ran.stderr == "error: row 1,233, var_1: got 'x', expected a finite number\n"
    assert left(place) == ["in.csv"]


@pytest.mark.slow
def test_columns_are_mapped_and_explained(place: Path) -> None:
    table = pd.read_csv(DATA).rename(columns={"var_1": "eins", "var_2": "zwei"})
    table.to_csv(place / "in.tsv", index=False, sep="\t")
    columns = ["--columns", "eins=var_1, zwei=var_2", "--explain", "--prefix", "p_"]
    assert score(place / "in.tsv", "-o", place / "out.parquet", *columns).returncode == 0
    found = pd.read_parquet(place / "out.parquet")
    assert found["eins"].astype(int).tolist() == table["eins"].tolist()
    effects = found.filter(like="p_effect_")
    assert effects.shape == (1232, 6)
    assert (effects.sum(axis=1) - found["p_prediction"]).abs().max() < 1e-9


# --- columns of other kinds and names -----------------------------------------------------------


@pytest.fixture(scope="module")
def unusual(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models of dollars with points, of euros with commas, of days, and of odd names."""
    root, rng = tmp_path_factory.mktemp("unusual"), np.random.default_rng(0)
    prices = rng.uniform(1000, 5000, 60).round(2)
    euros = [f"€ {price / 10:.2f}".replace(".", ",") for price in prices]
    columns: dict[str, dict[str, Any]] = {
        "dollars": {"price": [f"${price:,.2f}" for price in prices]},
        "euros": {"price": euros},
        "days": {"day": [f"2024-{1 + n % 12:02}-{1 + n % 28:02}" for n in range(60)]},
        "odd": {"x,y": rng.normal(size=60), "a=b": prices, "b": rng.normal(size=60)},
    }
    for name, inputs in columns.items():
        table = pd.DataFrame(inputs | {"m2": range(60, 120), "y": (prices / 100).round() + 1})
        file = root / f"{name}.csv"
        table.to_csv(file, index=False, sep=";" if name == "euros" else ",")
        train(file, "y", name, root / "artifacts", model="linear", say=lambda line: None)
    return root / "artifacts"


@pytest.mark.parametrize(
    ("model", "cells", "decimal"),
    [
        ("dollars", ["1,234 $", "1,234"], ["--decimal", ","]),
        ("dollars", ["$1.234,5", "1234,5"], []),
        ("euros", ["€ 123.45", "123.45"], []),
        ("euros", ["1.234 €", "1.234"], ["--decimal", "."]),
    ],
)
@pytest.mark.slow
def test_the_decimal_mark_of_a_file_holds_for_numbers_with_a_unit_too(
    model: str,
    cells: list[str],
    decimal: list[str],
    unusual: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLAPP_ARTIFACTS", str(unusual))
    source, target = tmp_path / "in.csv", tmp_path / "out.jsonl"
    source.write_text("".join(f"{line};60\n" for line in ["price", *cells]).replace("60", "m2", 1))
    with_unit, plain = score_here(source, target, model, *decimal)
    assert (with_unit["prediction"], with_unit["notice"]) == (plain["prediction"], plain["notice"])


@pytest.mark.slow
def test_where_a_file_says_no_decimal_mark_that_of_the_training_holds(
    unusual: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLAPP_ARTIFACTS", str(unusual))
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text('{"price": "€ 123,45", "m2": 60}\n{"price": 123.45, "m2": 60}\n')
    with_unit, plain = score_here(source, target, "euros")
    assert with_unit["prediction"] == plain["prediction"]


@pytest.mark.parametrize("kind", [pa.timestamp("us"), pa.timestamp("us", "UTC"), pa.date32()])
@pytest.mark.slow
def test_a_date_that_no_calendar_has_is_a_refused_row(
    kind: pa.DataType, unusual: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLAPP_ARTIFACTS", str(unusual))
    source, target = tmp_path / "in.parquet", tmp_path / "out.jsonl"
    days = pa.array([0, 2**30 if kind == pa.date32() else 2**60], kind)
    for model, column in (("days", "day"), ("dollars", "price")):
        pq.write_table(pa.table({column: days, "m2": [60, 60]}), source)
        first, last = score_here(source, target, model, status=3)
        assert (first["prediction"] is not None) == (model == "days")
        assert last["prediction"] is None
        assert re.match(rf"{column}: got '[^']+', expected a ", last["error"])


def extended(values: list[bytes]) -> pa.Array:
    return pa.ExtensionArray.from_storage(pa.uuid(), pa.array(values, pa.binary(16)))


@pytest.mark.parametrize(
    "column",
    [
        pa.array([["a"], ["a", "b"], []]),
        pa.array([{"of": ["a"]}, {"of": ["a", "b"]}, {"of": None}]),
        pa.array([[("a", 1)], [("b", 1)], []], pa.map_(pa.string(), pa.int64())),
        pa.array([0, 18_000, 5_000_000], pa.int32()).cast(pa.date32()),
        pa.array([0, 10**9, 10**14]).cast(pa.timestamp("s")),
        pa.array([{"at": 0}, {"at": 1}, {"at": 10**14}], pa.struct([("at", pa.timestamp("s"))])),
        pa.array([10**9, 2 * 10**9, 3 * 10**9 + 1]).cast(pa.time64("ns")),
        pa.array([0, 10**9, 2 * 10**9]).cast(pa.timestamp("s", "Mars/Base")),
        pa.array([0, 10**9, 2 * 10**9]).cast(pa.timestamp("s", "+05:00")),
        extended([b"0" * 16, b"1" * 16, b"2" * 16]),
        pa.array([b"a", b"b", b"\xff"]),
    ],
    ids=lambda column: str(column.type),
)
@pytest.mark.slow
def test_a_column_of_parquet_that_trains_is_scored_as_in_training(
    column: pa.Array, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLAPP_ARTIFACTS", str(tmp_path / "artifacts"))
    source, target = tmp_path / "in.parquet", tmp_path / "out.jsonl"
    places = np.arange(60) % 3
    column = pa.concat_arrays([column.slice(place, 1) for place in places.tolist()])
    y = places * 50.0 + np.arange(60) % 2
    z = np.random.default_rng(0).normal(size=60)
    pq.write_table(pa.table({"c": column, "z": z, "y": y}), source)
    train(source, "y", tmp_path.name, tmp_path / "artifacts", model="linear", say=lambda line: None)
    lines = score_here(source, target, tmp_path.name)
    found = np.array([line["prediction"] for line in lines])
    assert abs(found - y).max() < 2
    assert not any(line["error"] or line["notice"] for line in lines)


@pytest.mark.slow
def test_a_few_dates_that_python_cannot_hold_are_missing_in_training_and_in_rows_to_score(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLAPP_ARTIFACTS", str(tmp_path / "artifacts"))
    source, target = tmp_path / "in.parquet", tmp_path / "out.jsonl"
    days = [5_000_000 if place == 7 else place * 40 for place in range(60)]
    dates = pa.array(days, pa.int32()).cast(pa.date32())
    z = np.random.default_rng(0).normal(size=60)
    pq.write_table(
        pa.table({"day": dates, "z": z, "y": [float(each % 9) for each in days]}), source
    )
    said: list[str] = []
    train(source, "y", tmp_path.name, tmp_path / "artifacts", model="linear", say=said.append)
    count = "day: 1 cells are not dates and count as missing: '15659-07-15' in row 8"
    assert count in said
    assert score_here(source, target, tmp_path.name)[7]["error"] is None


@pytest.mark.parametrize("value", ["1e400", "-1e400", "NaN", "Infinity"])
@pytest.mark.slow
def test_a_number_of_json_that_no_float_holds_is_refused_and_its_row_is_kept(
    value: str, unusual: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLAPP_ARTIFACTS", str(unusual))
    source, target = tmp_path / "in.jsonl", tmp_path / "out.csv"
    source.write_text(f'{{"id": "x7", "m2": 70, "price": {value}}}\n')
    assert main(["score", str(source), "-o", str(target), "--model", "dollars"]) == 3
    [row] = pd.read_csv(target, dtype=str).to_dict("records")
    assert (row["id"], row["m2"]) == ("x7", "70")
    assert re.fullmatch(r"price: got .*, expected a finite number", row["error"])


@pytest.mark.parametrize(
    ("header", "columns"),
    [
        ("w,v,u,m2", '"w=x,y",v=a=b,u=b'),
        ("w,v,u,m2", ' u = b, "w = x,y", v = a=b '),
        ('"p,q",v=,b,m2', '"p,q=x,y",v==a=b'),
    ],
)
@pytest.mark.slow
def test_inputs_with_commas_and_equals_signs_can_be_mapped(
    header: str,
    columns: str,
    unusual: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLAPP_ARTIFACTS", str(unusual))
    source, target = tmp_path / "in.csv", tmp_path / "out.csv"
    predicted = []
    for names, options in (('"x,y",a=b,b,m2', []), (header, ["--columns", columns])):
        source.write_text(f"{names}\n1,2000,3,70\n")
        assert main(["score", str(source), "-o", str(target), "--model", "odd", *options]) == 0
        predicted.append(pd.read_csv(target)["prediction"][0])
    assert predicted[0] == predicted[1]


@pytest.mark.parametrize(
    "value", [["good"], {"a": 1}, 5, -0.5, True, False, None, "", "!", np.inf, -np.inf, np.nan]
)
@pytest.mark.parametrize("target", ["out.jsonl", "out.csv"])
def test_a_value_of_json_that_is_no_text_is_refused_as_by_the_check(
    value: Any,
    target: str,
    trained_topics: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLAPP_ARTIFACTS", str(trained_topics))
    with pytest.raises(InvalidInput) as caught:
        open_model(trained_topics, "topics").check([value])
    cut_off = {"text": value, "id": "\ud83d"}
    texts = [{"text": text} for text in ("[1]", "true", "5 loud songs")]
    source = tmp_path / "in.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in [{"text": value}, cut_off, *texts]))
    assert main(["score", str(source), "-o", str(tmp_path / target), "--model", "topics"]) == 3
    if target == "out.csv":
        errors = pd.read_csv(tmp_path / target, keep_default_na=False)["error"].tolist()
    else:
        lines = (tmp_path / target).read_text().splitlines()
        errors = [json.loads(line)["error"] or "" for line in lines]
    assert errors == [caught.value.faults[0].message] * 2 + [""] * 3


def test_a_text_of_digits_in_csv_is_a_text(
    trained_topics: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLAPP_ARTIFACTS", str(trained_topics))
    source, target = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_text("text\n5\ntrue\n[1]\n")
    assert main(["score", str(source), "-o", str(target), "--model", "topics"]) == 0


@pytest.mark.slow
def test_a_number_column_that_turns_into_text_in_row_900_000_is_one_refused_row(
    place: Path,
) -> None:
    header, *rows = DATA.read_text().splitlines()
    rows = (rows * 900)[:1_000_000]
    rows[899_999] = "n/k" + rows[899_999][3:]
    (place / "in.csv").write_text("\n".join([header, *rows]) + "\n")
    ran = score(place / "in.csv", "-o", place / "out.csv")
    assert ran.returncode == 3
    assert "1,000,000 rows, 999,999 scored (0 of them with a notice), 1 refused" in ran.stderr
    assert "row 900,000, var_1: got 'n/k', expected a finite number" in ran.stderr
    with (place / "out.csv").open() as lines:
        found = next(line for number, line in enumerate(lines) if number == 900_000)
    assert found.startswith(rows[899_999] + ",,,,,")


@pytest.mark.slow
def test_long_reviews_in_quotes_are_scored(
    trained_texts: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLAPP_ARTIFACTS", str(trained_texts))
    review = 'A wonderful film,\nsaid "everyone".\n' * 3000
    pd.DataFrame({"id": range(12), "words": [review] * 12}).to_csv(place / "in.csv", index=False)
    ran = score(place / "in.csv", "-o", place / "out.csv", "--text-column", "words")
    assert ran.returncode == 0, ran.stderr
    found = pd.read_csv(place / "out.csv")
    assert found["words"].tolist() == [review] * 12
    assert found["label"].notna().all()


# --- cut off ----------------------------------------------------------------------------------


class Running:
    """The real command on many rows, with its journal."""

    def __init__(self, place: Path, suffix: str) -> None:
        self.source, self.target = place / "in.csv", place / f"out.{suffix}"
        many_rows(self.source)
        self.arguments = [self.source, "-o", self.target, "--explain"]
        self.process = subprocess.Popen(
            [*COMMAND, *map(str, self.arguments)], cwd=ROOT, stderr=subprocess.PIPE, text=True
        )

    def parts(self) -> int:
        """Return how many parts the journal notes."""
        assert self.process.poll() is None, "the run ended before it could be cut off"
        try:
            noted = json.loads(self.target.with_name(f".{self.target.name}.journal").read_text())
        except FileNotFoundError:
            return 0
        return int(noted["done"]["parts"])

    def until_under_way(self) -> None:
        wait_until(lambda: self.parts() > 3, "some chunks to be noted")


@pytest.fixture
def running(place: Path, request: pytest.FixtureRequest) -> Iterator[Running]:
    started = Running(place, request.param)
    yield started
    started.process.kill()
    started.process.wait()
    assert started.process.stderr is not None
    started.process.stderr.close()


@pytest.mark.parametrize(
    "running", ["csv", pytest.param("parquet", marks=pytest.mark.nightly)], indirect=True
)
@pytest.mark.slow(15)
def test_a_killed_run_is_resumed_and_ends_with_the_same_bytes(running: Running) -> None:
    running.until_under_way()
    running.process.send_signal(signal.SIGKILL)
    running.process.communicate()
    assert running.process.returncode == -signal.SIGKILL
    assert not running.target.exists()
    ran = score(*running.arguments, "--resume")
    assert ran.returncode == 0, ran.stderr
    assert "1,848,000 rows, 1,848,000 scored" in ran.stderr
    whole = running.target.with_stem("whole")
    assert score(running.source, "-o", whole, "--explain").returncode == 0
    assert running.target.read_bytes() == whole.read_bytes()
    assert left(whole.parent) == sorted(["in.csv", running.target.name, whole.name])


@pytest.mark.parametrize("running", ["csv"], indirect=True)
@pytest.mark.slow
def test_ctrl_c_keeps_what_is_done_and_says_how_to_continue(running: Running) -> None:
    running.until_under_way()
    running.process.send_signal(signal.SIGINT)
    _, reported = running.process.communicate()
    assert running.process.returncode == 130
    [line] = reported.splitlines()
    assert line.startswith("interrupted after ")
    assert "--resume continues" in line
    assert not running.target.exists()
    assert score(*running.arguments, "--resume").returncode == 0


@pytest.mark.parametrize("running", ["csv"], indirect=True)
@pytest.mark.slow
def test_a_second_run_into_the_same_file_is_reported(running: Running) -> None:
    running.until_under_way()
    running.process.send_signal(signal.SIGSTOP)
    ran = score(DATA, "-o", running.target)
    running.process.send_signal(signal.SIGCONT)
    assert ran.returncode == 1
    assert "another run is writing" in ran.stderr
    assert running.process.wait() == 0
    assert running.target.read_bytes().count(b"\n") == 1_848_001


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
@pytest.mark.slow
def test_a_full_disk_is_reported_and_what_is_done_can_be_resumed(suffix: str, place: Path) -> None:
    many_rows(place / "in.csv", 200)
    target = place / f"out.{suffix}"
    arguments = [str(place / "in.csv"), "-o", str(target)]
    limit = 'ulimit -f 8000; exec "$@"'  # kilobytes that a file may have
    command = ["bash", "-c", limit, "bash", *COMMAND, *arguments]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 1
    assert "cannot be written: File too large; what is done is kept" in ran.stderr
    assert "then use --resume" in ran.stderr
    assert not target.exists()
    assert score(*arguments, "--resume").returncode == 0
    found = pd.read_csv(target) if suffix == "csv" else pd.read_parquet(target)
    assert len(found) == 246_400
    assert left(place) == ["in.csv", target.name]


# --- progress ---------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_terminal_shows_a_bar(place: Path) -> None:
    many_rows(place / "in.csv", 600)
    outer, inner = pty.openpty()
    command = [*COMMAND, str(place / "in.csv"), "-o", str(place / "out.csv")]
    process = subprocess.Popen(command, cwd=ROOT, stderr=inner)
    os.close(inner)
    reported = b""
    try:
        while data := os.read(outer, 4096):
            reported += data
    except OSError:
        pass  # so a terminal ends on Linux
    os.close(outer)
    assert process.wait() == 0
    bars = [each for each in reported.decode().split("\r\x1b[K") if each.startswith("[")]
    assert bars
    assert all("rows/s" in each and each.rstrip().endswith("left") for each in bars)
    assert reported.decode().rstrip().endswith("rows/s")
