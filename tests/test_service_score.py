"""Whole files over HTTP: every form in and out, what is refused, and what a file leaves behind."""

import contextlib
import csv
import gzip
import io
import json
import logging
import re
import resource
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import requests

from mlapp.scoring import files
from mlapp.scoring.batch import Options
from mlapp.service import create_app
from mlapp.settings import read_settings
from mlapp.store import open_model
from mlapp.tables.formats import FileFormat, TableFormat
from tests.conftest import Client, Server, client_of, make_houses, wait_until

SCORE, PREDICT = "/v1/models/regression:score", "/v1/models/regression:predict"
TEXTS = "/v1/models/sentiment:score"
ROW = {"var_1": 734.0, "var_2": 688.0, "var_3": 81.0, "var_4": 0.328, "var_5": 0.259}
CSV = {"Content-Type": "text/csv"}
ROWS = "id,var_1,var_2,var_3,var_4,var_5\n7,734,688,81,0.328,0.259\n8,x,688,81,0.328,0.259\n"
TYPES: dict[str, TableFormat] = {
    "text/csv": "csv",
    "text/tab-separated-values": "tsv",
    "application/x-ndjson": "jsonl",
    "application/vnd.apache.parquet": "parquet",
}
PARQUET = "application/vnd.apache.parquet"


@pytest.fixture
def client(every_model: Path) -> Client:
    return client_of(create_app())


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of 300,000 rows; its answer is longer than what sockets hold."""
    return write_rows(tmp_path_factory.mktemp("many") / "many.csv", 300_000)


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Parquet file of 60 row groups, of which one in the middle is damaged."""
    path = tmp_path_factory.mktemp("damaged") / "damaged.parquet"
    table = pa.table({name: [value] * 600_000 for name, value in ROW.items()})
    pq.write_table(table, path, row_group_size=10_000, compression="none", use_dictionary=False)
    at = pq.ParquetFile(path).metadata.row_group(40).column(2).data_page_offset
    with path.open("r+b") as file:
        file.seek(at)
        file.write(b"\xff" * 64)
    return path


def write_rows(path: Path, rows: int) -> Path:
    """Write a CSV file with so many rows, a multiple of 20,000."""
    lines = (f"{600 + place % 200},{600 + place % 199},81,0.328,0.2" for place in range(20_000))
    block = "\n".join(lines) + "\n"
    with path.open("w") as file:
        file.write(",".join(ROW) + "\n")
        file.writelines([block] * (rows // 20_000))
    return path


def write_houses(form: TableFormat) -> bytes:
    """Return houses with a value out of range and, but in Parquet, a bad one."""
    houses = make_houses(40).drop(columns="price")
    houses.loc[3, "area"] = 5000.0
    if form == "parquet":
        file = io.BytesIO()
        houses.to_parquet(file, index=False)
        return file.getvalue()
    houses = houses.astype({"area": object})
    houses.loc[5, "area"] = "wide"
    if form == "jsonl":
        return str(houses.to_json(orient="records", lines=True)).encode()
    return str(houses.to_csv(index=False, sep="\t" if form == "tsv" else ",")).encode()


def by_files(
    folder: Path, name: str, body: bytes, source: TableFormat, target: TableFormat, **options: Any
) -> bytes:
    """Score a file as the command line does."""
    answer = io.BytesIO()
    files.score(
        open_model(folder, name),
        io.BytesIO(body),
        answer,
        Options(**options),
        source_format=FileFormat(source),
        target_format=FileFormat(target),
    )
    return answer.getvalue()


def post(client: Client, path: str, **given: Any) -> Any:
    """Post a file, and take the whole answer."""
    return client.post(path, buffered=True, **given)


# --- forms ------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", TYPES)
@pytest.mark.parametrize("target", TYPES)
def test_every_form_comes_back_in_every_form_as_the_command_line_writes_it(
    client: Client, every_model: Path, source: str, target: str
) -> None:
    body = write_houses(TYPES[source])
    headers = {"Content-Type": source, "Accept": target}
    answer = post(client, "/v1/models/houses:score", data=body, headers=headers)
    assert (answer.status_code, answer.mimetype) == (200, target)
    assert answer.data == by_files(every_model, "houses", body, TYPES[source], TYPES[target])


def test_texts_are_scored_from_the_column_that_is_named(client: Client, every_model: Path) -> None:
    body = b"id,said,note\n1,a wonderful film,x\n2,,y\n"
    answer = post(client, f"{TEXTS}?text_column=said&explain=true", data=body, headers=CSV)
    expected = by_files(
        every_model, "sentiment", body, "csv", "csv", text_column="said", explain=True
    )
    assert answer.data == expected
    assert b"text: got nothing" in answer.data


def test_a_version_is_named_by_its_number(client: Client) -> None:
    path = "/v1/models/regression/versions/%d:score"
    assert post(client, path % 1, data=ROWS, headers=CSV).status_code == 200
    assert post(client, path % 9, data=ROWS, headers=CSV).status_code == 404


def test_a_gzipped_body_is_unpacked(client: Client) -> None:
    plain = post(client, SCORE, data=ROWS, headers=CSV).data
    packed, headers = gzip.compress(ROWS.encode()), CSV | {"Content-Encoding": "x-gzip"}
    assert post(client, SCORE, data=packed, headers=headers).data == plain
    headers = CSV | {"Content-Encoding": "gzip"}
    assert post(client, SCORE, data=packed, headers=headers).data == plain
    assert post(client, SCORE, data=packed[:-5], headers=headers).status_code == 422
    assert post(client, SCORE, data=ROWS, headers=headers).status_code == 422


@pytest.mark.parametrize(
    ("query", "kind"),
    [
        ("", "text/csv; charset=iso-8859-1"),
        ("?encoding=latin-1", "text/csv"),
        ("?encoding=latin-1", "text/csv; charset=utf-8"),
    ],
)
def test_an_encoding_is_named_by_the_content_type_or_the_address(
    client: Client, query: str, kind: str
) -> None:
    body = ROWS.replace("id", "café").encode("latin-1")
    answer = post(client, SCORE + query, data=body, content_type=kind)
    assert "café,var_1" in answer.text
    assert post(client, SCORE, data=body, headers=CSV).status_code == 422


EXCEL = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"


def test_a_sheet_of_a_workbook_and_decimal_commas_are_scored_as_plain_rows(
    client: Client,
) -> None:
    expected = post(client, SCORE, data=ROWS, headers=CSV).text.splitlines()
    book, file = openpyxl.Workbook(), io.BytesIO()
    sheet = book.create_sheet("houses")
    for row in csv.reader(ROWS.splitlines()):
        sheet.append([float(cell) if cell[0].isdigit() else cell for cell in row])
    book.save(file)
    accept = {"Content-Type": EXCEL, "Accept": "text/csv"}
    for query in ("?sheet=houses", "?sheet=2"):
        answer = post(client, SCORE + query, data=file.getvalue(), headers=accept)
        assert answer.text.splitlines() == expected
    answer = post(client, f"{SCORE}?sheet=none", data=file.getvalue(), headers=accept)
    assert answer.status_code == 422
    assert "expected one of 'Sheet', 'houses'" in answer.json["detail"]
    commas = ROWS.replace(",", ";").replace(".", ",")
    for query in ("", "?decimal=,"):
        answer = post(client, SCORE + query, data=commas, headers=CSV)
        rows = list(csv.DictReader(answer.text.splitlines()))
        assert [row["prediction"] for row in rows] == [
            row["prediction"] for row in csv.DictReader(expected)
        ]
    answer = post(client, SCORE, data=file.getvalue(), content_type=EXCEL)
    assert answer.status_code == 422  # the first sheet is empty


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        (None, "text/csv"),
        ("*/*", "text/csv"),
        ("text/*", "text/csv"),
        ("application/jsonl", "application/jsonl"),
        ("text/csv;q=0.5, application/x-ndjson", "application/x-ndjson"),
        (
            "application/x-ndjson;q=0.2, text/tab-separated-values;q=0.3",
            "text/tab-separated-values",
        ),
        ("text/csv;q=0, text/*", "text/tab-separated-values"),
        ("image/png, */*;q=0.1", "text/csv"),
        (PARQUET, PARQUET),
        ("text/csv; charset=utf-8", "text/csv"),
        ("text/csv;header=present;q=0.4, application/jsonl;q=0.3", "text/csv"),
        ('application/x-ndjson;profile="a;b"', "application/x-ndjson"),
    ],
)
def test_the_answer_has_the_form_that_is_liked_best(
    client: Client, accept: str | None, kind: str
) -> None:
    headers = CSV | ({"Accept": accept} if accept else {})
    answer = post(client, SCORE, data=ROWS, headers=headers)
    assert (answer.status_code, answer.mimetype) == (200, kind)


# --- what is refused --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "body", "headers", "status", "detail"),
    [
        (SCORE, b"\n", CSV, 422, "the body is empty"),
        (SCORE, b"var_1,var_2\n", CSV, 422, "the body has a header but no rows"),
        (
            SCORE,
            b"a,b\n1,2\n",
            CSV,
            422,
            "for 5 inputs, 'var_1', 'var_2', 'var_3', 'var_4', 'var_5'; the columns are 'a', 'b'",
        ),
        (SCORE, b"a,a\n1,2\n", CSV, 422, "several columns named 'a'"),
        (SCORE, b"a,b\n1,\xff\n", CSV, 422, "the body is not valid UTF-8"),
        (SCORE, b"a,b\n1,\xff\n", CSV, 422, "Name its encoding with the option encoding, such as"),
        (SCORE, b"PAR1", {"Content-Type": PARQUET}, 422, "the body cannot be read, or is damaged"),
        (SCORE, ROWS, {"Content-Type": "application/x-ndjson"}, 422, "a JSON object in each line"),
        (SCORE, ROWS, {"Content-Type": "text/plain"}, 415, "Content-Type: got 'text/plain'"),
        (SCORE, ROWS, {}, 415, "Content-Type: got 'nothing'"),
        (SCORE, ROWS, CSV | {"Content-Encoding": "br"}, 415, "Content-Encoding: got 'br'"),
        (
            SCORE,
            ROWS,
            {"Content-Type": PARQUET, "Content-Encoding": "gzip"},
            415,
            "Content-Encoding: got 'gzip', expected none",
        ),
        (SCORE, ROWS, CSV | {"Accept": "image/png"}, 406, "Accept: got 'image/png'"),
        (SCORE, ROWS, CSV | {"Accept": "text/csv;q=0"}, 406, "Accept"),
        (SCORE, ROWS, CSV | {"Accept": "text/html; charset=utf-8"}, 406, "got 'text/html; charset"),
        ("/v1/models/flats:score", ROWS, CSV, 404, "No model 'flats'"),
        (f"{SCORE}?strict=true", ROWS, CSV, 422, "row 2, var_1: got 'x', expected a finite number"),
        (f"{SCORE}?strict=yes", ROWS, CSV, 422, "strict: got 'yes', expected true or false"),
        (f"{SCORE}?model=x", ROWS, CSV, 422, "model: got an unknown parameter, expected one of"),
        (f"{SCORE}?raw=true&raw=true", ROWS, CSV, 422, "raw: got 2 values, expected one"),
        (f"{SCORE}?columns=id", ROWS, CSV, 422, "columns: got 'id', expected theirs=ours"),
        (f"{SCORE}?columns=no=var_1", ROWS, CSV, 422, "got 'no', expected one of the columns"),
        (f"{SCORE}?columns=var_1=var_2", ROWS, CSV, 422, "since 'var_1' is used for 'var_2'"),
        (f"{SCORE}?text_column=id", ROWS, CSV, 422, "text_column: got 'id', expected none"),
        (f"{SCORE}?encoding=zip", ROWS, CSV, 422, "encoding: got 'zip'"),
        (f"{SCORE}?encoding=%00", ROWS, CSV, 422, "encoding: got"),
        (f"{SCORE}?encoding=idna", ROWS, CSV, 422, "encoding: got 'idna'"),
        (f"{SCORE}?encoding=utf-7", ROWS, CSV, 422, "expected utf-8, utf-16"),
        (f"{SCORE}?encoding=unicode_escape", ROWS, CSV, 422, "expected utf-8, utf-16"),
        (f"{SCORE}?encoding=utf-16", ROWS, CSV, 422, "not valid UTF-16"),
        (f"{SCORE}?decimal=;", ROWS, CSV, 422, "decimal: got ';', expected '.' or ','"),
        (f"{SCORE}?sheet=1", ROWS, CSV, 422, "sheet: got '1', expected none"),
        (SCORE, ROWS, {"Content-Type": "text/csv; charset=x"}, 422, "encoding: got 'x', expected"),
        (SCORE, ROWS.replace("id", "lower"), CSV, 422, "already has columns 'lower'"),
        (
            TEXTS,
            b"a,b\nx,y\n",
            CSV,
            422,
            "no column is called 'text' or 'review': name the column of texts with --text-column"
            " (text_column in a request)",
        ),
    ],
)
def test_what_is_wrong_before_the_first_row_is_a_problem(
    client: Client,
    path: str,
    body: bytes | str,
    headers: dict[str, str],
    status: int,
    detail: str,
) -> None:
    answer = post(client, path, data=body, headers=headers)
    assert (answer.status_code, answer.mimetype) == (status, "application/problem+json")
    assert detail in answer.json["detail"]


def test_a_file_may_be_larger_than_a_request_but_has_a_limit(every_model: Path) -> None:
    settings = replace(read_settings(), max_bytes=10, max_file_bytes=len(ROWS))
    client = client_of(create_app(settings))
    assert post(client, SCORE, data=ROWS, headers=CSV).status_code == 200
    answer = post(client, SCORE, data=ROWS + "\n", headers=CSV)
    assert answer.status_code == 413
    assert f"larger than {len(ROWS):,} bytes" in answer.json["detail"]


@pytest.mark.slow
def test_an_answer_that_does_not_fit_on_the_disk_is_refused(client: Client, tmp_path: Path) -> None:
    body = write_rows(tmp_path / "rows.csv", 20_000).read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(body), hard))
        answer = post(client, SCORE, data=body, headers=CSV | {"Accept": PARQUET})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert answer.status_code == 507
    full = "the output cannot be written: File too large; free some space"
    assert answer.json["detail"] == full


def test_the_key_is_asked_for(every_model: Path) -> None:
    client = client_of(create_app(replace(read_settings(), api_key="secret")))
    assert post(client, SCORE, data=ROWS, headers=CSV).status_code == 401
    headers = CSV | {"X-API-Key": "secret"}
    assert post(client, SCORE, data=ROWS, headers=headers).status_code == 200


# --- rows and counts --------------------------------------------------------------------------


def test_a_refused_row_says_why_in_its_column_and_the_rest_is_scored(client: Client) -> None:
    answer = post(client, SCORE, data=ROWS, headers=CSV)
    good, bad = answer.text.splitlines()[1:]
    predicted = client.post(PREDICT, json={"instances": [ROW]}).json["predictions"][0]
    assert good.split(",")[6:] == [*map(str, predicted.values()), "", ""]
    assert bad == "8,x,688,81,0.328,0.259,,,,,\"var_1: got 'x', expected a finite number\""


def test_options_do_as_on_the_command_line(client: Client, every_model: Path) -> None:
    body = ROWS.replace("var_1", "height").replace("id", "=id")
    query = "?prefix=new_&columns=height%3Dvar_1&explain=true&raw=true"
    answer = post(client, SCORE + query, data=body, headers=CSV)
    options: Any = {"prefix": "new_", "columns": {"height": "var_1"}, "explain": True, "raw": True}
    assert answer.data == by_files(
        every_model, "regression", body.encode(), "csv", "csv", **options
    )
    assert answer.text.startswith("=id,height,")
    assert "new_effect_var_1" in answer.text


@pytest.mark.parametrize(
    ("query", "headers", "version"),
    [
        ("", CSV | {"Accept": PARQUET}, "HTTP/1.1"),
        ("", CSV, "HTTP/1.0"),
        ("?strict=true", CSV, "HTTP/1.1"),
    ],
)
def test_an_answer_that_is_made_whole_says_its_length_and_counts(
    client: Client, query: str, headers: dict[str, str], version: str
) -> None:
    body = ROWS.replace("x,", "2000,")
    answer = post(
        client,
        SCORE + query,
        data=body,
        headers=headers,
        environ_overrides={"SERVER_PROTOCOL": version},
    )
    assert answer.status_code == 200
    assert answer.headers["Content-Length"] == str(len(answer.data))
    counts = [answer.headers[f"Mlapp-{name}"] for name in ("Rows", "Scored", "Noticed", "Refused")]
    assert counts == ["2", "2", "1", "0"]


@pytest.mark.parametrize("accept", ["text/csv", PARQUET])
def test_rows_are_counted_when_the_answer_has_left(
    every_model: Path, caplog: pytest.LogCaptureFixture, accept: str
) -> None:
    client = client_of(create_app(replace(read_settings(), json_log=True)))
    body = ROWS + "9,2000,688,81,0.328,0.259\n"
    with caplog.at_level(logging.INFO, logger="mlapp.access"):
        with client.post(SCORE, data=body, headers=CSV | {"Accept": accept}) as answer:
            assert not caplog.records
            assert answer.data
        [line] = [json.loads(record.message) for record in caplog.records]
    assert (line["status"], line["model"], line["rows"]) == (200, "regression", 2)
    metrics = client.get("/metrics").text
    labels = 'model="regression",%sversion="1"'
    assert f"mlapp_predictions_total{{{labels % ''}}} 2.0" in metrics
    for outcome, rows in {"scored": 2, "noticed": 1, "refused": 1}.items():
        outcome = f'outcome="{outcome}",'
        assert f"mlapp_file_rows_total{{{labels % outcome}}} {rows}.0" in metrics
    assert re.search(r"mlapp_request_seconds_count\{.*:score.*\} 1.0", metrics)


# --- real servers -----------------------------------------------------------------------------

KINDS = {"workers": ("--api-only", "--workers", "1"), "together": ()}


@pytest.fixture(params=KINDS)
def alone(request: pytest.FixtureRequest, trained: Path, tmp_path: Path) -> Iterator[Server]:
    """A server of the test's own, which makes one prediction at once, of each kind."""
    spools = tmp_path / "spools"
    spools.mkdir()
    environment = {"MLAPP_MAX_CONCURRENT": "1", "TMPDIR": str(spools)}
    server = Server(trained, tmp_path / "alone.log", *KINDS[request.param], **environment)
    yield server
    server.stop()


def spools(server: Server) -> list[str]:
    """Return the files without a name that a server holds open."""
    found = []
    for process in (server.process.pid, *server.workers()):
        for entry in Path(f"/proc/{process}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):
                target = str(entry.readlink())
                if "/spools/" in target and target.endswith("(deleted)"):
                    found.append(target)
    return found


def is_free(server: Server) -> bool:
    """Return whether a prediction finds a place."""
    answer = requests.post(server.address + PREDICT, json={"instances": [ROW]}, timeout=30)
    return answer.status_code == 200


def curl(*arguments: str, kind: str = "text/csv") -> subprocess.CompletedProcess[bytes]:
    command = ["curl", "-sS", "--max-time", "120", "-H", f"Content-Type: {kind}", *arguments]
    return subprocess.run(command, capture_output=True, check=False)


def ask(server: Server, path: Path, *more: str) -> socket.socket:
    """Send a file by hand, and leave the answer where it is."""
    head = [f"POST {SCORE} HTTP/1.1", "Host: localhost", "Content-Type: text/csv", *more]
    head.append(f"Content-Length: {path.stat().st_size}")
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=120)
    connection.sendall("\r\n".join([*head, "", ""]).encode())
    return connection


@pytest.mark.parametrize("kind", ["workers", "together"])
@pytest.mark.parametrize(
    "how",
    [
        ("--data-binary", "@rows.csv"),
        ("-X", "POST", "-T", "rows.csv"),
        ("-X", "POST", "-T", "rows.csv", "-H", "Transfer-Encoding: chunked"),
        ("--data-binary", "@rows.csv.gz", "-H", "Content-Encoding: gzip"),
        ("--data-binary", "@rows.csv", "--http1.0"),
        ("--data-binary", "@rows.csv", "--compressed"),
    ],
)
@pytest.mark.slow
def test_curl_gets_a_file_back_however_it_sends_it(
    kind: str,
    how: tuple[str, ...],
    models: Path,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server: Server = request.getfixturevalue(kind)
    monkeypatch.chdir(tmp_path)
    body = write_rows(Path("rows.csv"), 20_000).read_bytes()
    Path("rows.csv.gz").write_bytes(gzip.compress(body))
    ran = curl("--fail", *how, server.address + SCORE)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == by_files(models, "regression", body, "csv", "csv")


@pytest.mark.parametrize("kind", ["workers", "together"])
@pytest.mark.slow
def test_a_client_that_sends_all_before_it_reads_gets_its_answer(
    kind: str, many: Path, request: pytest.FixtureRequest
) -> None:
    server: Server = request.getfixturevalue(kind)
    with many.open("rb") as file:
        parts = iter(lambda: file.read(100_000), b"")
        answer = requests.post(server.address + SCORE, data=parts, headers=CSV, timeout=120)
    assert answer.status_code == 200
    assert answer.text.count("\n") == 300_001


@pytest.mark.slow
def test_the_first_rows_leave_before_the_last_are_scored_and_hold_a_place_until_then(
    alone: Server, many: Path
) -> None:
    closing = ask(alone, many, "Connection: close")
    with closing as connection, connection.makefile("rb") as answer:
        connection.sendall(many.read_bytes())
        assert answer.readline() == b"HTTP/1.1 200 OK\r\n"
        wait_until(lambda: not is_free(alone), "the place to be taken")
        assert ":score 200" not in alone.log.read_text()
        ends = iter(lambda: answer.read(1 << 16), b"")
        assert any(b"\r\n0\r\n\r\n" in end for end in ends)
    wait_until(lambda: ":score 200" in alone.log.read_text(), "the line in the log")
    assert is_free(alone)
    assert not spools(alone)


@pytest.mark.slow
def test_a_file_that_is_half_sent_holds_no_place_and_goes_with_its_client(
    alone: Server, many: Path
) -> None:
    with ask(alone, many) as connection:
        connection.sendall(many.read_bytes()[:500_000])
        wait_until(lambda: len(spools(alone)) == 1, "the file")
        assert is_free(alone)
    wait_until(lambda: not spools(alone), "the file to go")
    wait_until(lambda: ":score 400" in alone.log.read_text(), "the line in the log")


@pytest.mark.slow
def test_a_chunked_file_that_breaks_off_is_not_taken_for_whole(alone: Server) -> None:
    head = f"POST {SCORE} HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/csv\r\n"
    head += "Transfer-Encoding: chunked\r\n\r\n"
    with socket.create_connection(("127.0.0.1", alone.port), timeout=60) as connection:
        rows = ROWS * 1000  # more than is kept in memory
        connection.sendall(f"{head}{len(rows):x}\r\n{rows}\r\n".encode())
        wait_until(lambda: len(spools(alone)) == 1, "the file")
    wait_until(lambda: ":score 400" in alone.log.read_text(), "the line in the log")
    assert not spools(alone)


@pytest.mark.parametrize("accept", ["text/csv", PARQUET])
@pytest.mark.slow
def test_nothing_is_left_of_a_client_that_goes_away_half_way(
    alone: Server, many: Path, accept: str
) -> None:
    with ask(alone, many, f"Accept: {accept}") as connection:
        connection.sendall(many.read_bytes())
        if accept == "text/csv":
            assert connection.recv(12) == b"HTTP/1.1 200"
        else:
            wait_until(lambda: len(spools(alone)) >= 2, "the file of the answer")
        assert not is_free(alone)
    wait_until(lambda: not spools(alone), "the files to go")
    line = r":score (\d+) .* (\d+)\n"
    wait_until(lambda: bool(re.search(line, alone.log.read_text())), "the line in the log")
    if accept == "text/csv":
        [(_, rows)] = re.findall(line, alone.log.read_text())
        assert int(rows) < 300_000
    assert is_free(alone)
    assert "Traceback" not in alone.log.read_text()


@pytest.mark.slow
def test_an_answer_breaks_off_where_the_file_is_damaged(alone: Server, damaged: Path) -> None:
    given = ("-H", "Accept: application/x-ndjson", "--data-binary", f"@{damaged}")
    ran = curl(*given, alone.address + SCORE, kind=PARQUET)
    assert ran.returncode == 18, ran.stderr  # a part of the answer is missing
    assert 10_000 < ran.stdout.count(b'"prediction":') < 600_000
    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        requests.post(
            alone.address + SCORE,
            data=damaged.read_bytes(),
            headers={"Content-Type": PARQUET, "Accept": "text/csv"},
            timeout=60,
        )
    whole = curl(*given, "--http1.0", alone.address + SCORE, kind=PARQUET)
    assert json.loads(whole.stdout)["status"] == 422
    wait_until(lambda: "a file is damaged after row" in alone.log.read_text(), "the log")
    assert "Traceback" not in alone.log.read_text()
    assert is_free(alone)
    assert not spools(alone)


@pytest.mark.slow(30)
def test_memory_does_not_grow_with_the_file(alone: Server, tmp_path: Path) -> None:
    process = (alone.workers() or [alone.process.pid])[0]

    def peak(rows: int) -> int:
        path = write_rows(tmp_path / f"{rows}.csv", rows)
        Path(f"/proc/{process}/clear_refs").write_text("5")
        ran = curl("--fail", "-o", "/dev/null", "--data-binary", f"@{path}", alone.address + SCORE)
        assert ran.returncode == 0, ran.stderr
        found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{process}/status").read_text())
        assert found is not None
        return int(found[1]) * 1024

    peak(20_000)
    small, large = peak(20_000), peak(2_000_000)
    # The file has 46 MB, its answer 250 MB; a few chunks of either are in hand.
    assert large - small < 150e6
