"""What hostile clients, full disks and dying workers do to the service: nothing to others."""

import contextlib
import json
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import requests

from mlapp.service import create_app, gateway, run
from mlapp.settings import Settings
from tests.conftest import SHIPPED, Server, wait_until

pytestmark = pytest.mark.slow

ROW = {"var_1": 734.0, "var_2": 688.0, "var_3": 81.0, "var_4": 0.328, "var_5": 0.259}
PREDICT = "/v1/models/regression:predict"
SCORE = "/v1/models/regression:score"
TEXTS = "/v1/models/sentiment:predict"
KINDS = {"workers": ("--api-only", "--workers", "1"), "together": ()}
BODY = json.dumps({"instances": [ROW]}).encode()


@pytest.fixture(params=KINDS)
def hurried(
    request: pytest.FixtureRequest, models: Path, tmp_path: Path
) -> Iterator[Callable[..., Server]]:
    """Start a server of either form, which waits for clients for two seconds."""
    started = []

    def start(folder: Path = models, **environment: str) -> Server:
        log = tmp_path / "hurried.log"
        started.append(start_hurried(request.param, folder, log, **environment))
        return started[-1]

    yield start
    for each in started:
        each.stop()


@pytest.fixture(scope="module", params=KINDS)
def shared(
    request: pytest.FixtureRequest, models: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """The same, with the usual settings, for tests that need none of their own."""
    server = start_hurried(request.param, models, tmp_path_factory.mktemp("log") / "shared.log")
    yield server
    server.stop()


def start_hurried(kind: str, folder: Path, log: Path, **environment: str) -> Server:
    return Server(folder, log, *KINDS[kind], **{"MLAPP_READ_TIMEOUT": "2"} | environment)


def head_of(path: str, length: int) -> bytes:
    kind = "text/csv" if path == SCORE else "application/json"
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", f"Content-Type: {kind}"]
    return "\r\n".join([*lines, f"Content-Length: {length}", "", ""]).encode()


def connect(at: Server) -> socket.socket:
    return socket.create_connection(("127.0.0.1", at.port), timeout=60)


def read_all(connection: socket.socket) -> bytes:
    """Return what a server sends until it closes the connection."""
    parts = []
    with contextlib.suppress(ConnectionResetError):
        while part := connection.recv(1 << 16):
            parts.append(part)
    return b"".join(parts)


def predicts(at: Server) -> bool:
    answer = requests.post(at.address + PREDICT, json={"instances": [ROW]}, timeout=30)
    return answer.status_code == 200


# --- slow clients -------------------------------------------------------------------------------


def test_a_thousand_half_sent_requests_block_no_others_and_are_cut_off(
    hurried: Callable[..., Server],
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 4096)), hard))
    at = hurried(MLAPP_READ_TIMEOUT="20", COVERAGE_PROCESS_CONFIG="")  # tracing takes its time
    half = [
        head_of(PREDICT, 1000) + b"{",  # a body
        head_of(SCORE, 1 << 30) + b"a" * 70_000,  # a file, more than is kept in memory
        head_of(PREDICT, 10)[:-20],  # headers
        b"POST ",  # a line
    ]
    with contextlib.ExitStack() as stack:
        stuck = [stack.enter_context(connect(at)) for _ in range(1000)]
        for place, connection in enumerate(stuck):
            connection.sendall(half[place % 4])
        for _ in range(20):
            assert requests.get(f"{at.address}/livez", timeout=1).text == "ok"
            assert predicts(at)


@pytest.mark.parametrize(
    "half",
    [
        head_of(PREDICT, 1000) + b"{",
        head_of(SCORE, 1 << 20) + b"a" * 70_000,
        head_of(PREDICT, 10)[:-20],
        b"POST ",
    ],
    ids=["body", "file", "headers", "line"],
)
def test_a_half_sent_request_is_cut_off_with_408(half: bytes, shared: Server) -> None:
    with connect(shared) as connection:
        connection.sendall(half)
        assert read_all(connection).startswith(b"HTTP/1.1 408 Request Timeout\r\n")


def test_a_body_that_drips_is_cut_off_too(shared: Server) -> None:
    began = time.monotonic()
    with connect(shared) as connection:
        connection.settimeout(0.2)
        connection.sendall(head_of(PREDICT, 10_000))
        found = b""
        while not found and time.monotonic() < began + 30:
            connection.sendall(b" ")
            with contextlib.suppress(TimeoutError):
                found = connection.recv(1 << 16)
    assert found.startswith(b"HTTP/1.1 408 ")


def test_headers_without_end_are_refused(shared: Server) -> None:
    with connect(shared) as connection:
        connection.sendall(head_of(PREDICT, 10)[:-2] + b"X-Filler: ")
        with contextlib.suppress(ConnectionError):
            for _ in range(100):
                connection.sendall(b"a" * 10_000)
        assert read_all(connection).startswith(b"HTTP/1.1 431 ")


def test_a_large_body_does_not_count_as_headers_of_the_request_behind_it(shared: Server) -> None:
    body = BODY[:-1] + b" " * 100_000 + BODY[-1:]
    with connect(shared) as connection:
        connection.sendall(head_of(PREDICT, len(body)) + body + b"POST ")
        assert connection.recv(1 << 16).startswith(b"HTTP/1.1 200 ")


def test_a_request_behind_another_on_its_connection_has_time_of_its_own(
    shared: Server,
) -> None:
    with connect(shared) as connection, connection.makefile("rb") as answer:
        for _ in range(2):
            connection.sendall(head_of(PREDICT, len(BODY)) + BODY)
            assert answer.readline() == b"HTTP/1.1 200 OK\r\n"
            length = 0
            while (line := answer.readline()) != b"\r\n":
                if line.lower().startswith(b"content-length:"):
                    length = int(line.split(b":")[1])
            assert b"predictions" in answer.read(length)
        connection.sendall(b"POST ")
        assert read_all(connection).startswith(b"HTTP/1.1 408 ")


def test_an_answer_that_nobody_reads_is_cut_off(
    hurried: Callable[..., Server], tmp_path: Path
) -> None:
    at = hurried(MLAPP_MAX_CONCURRENT="1")
    rows = ",".join(ROW) + "\n" + (",".join(map(str, ROW.values())) + "\n") * 400_000
    with connect(at) as connection:
        connection.sendall(head_of(SCORE, len(rows)))
        connection.sendall(rows.encode())
        wait_until(lambda: ":score 200" in at.log.read_text(), "the answer to be given up")
        wait_until(lambda: predicts(at), "its place to be free")
        assert not read_all(connection).endswith(b"\r\n0\r\n\r\n")
    assert "Traceback" not in at.log.read_text()


def test_clients_that_read_nothing_take_no_place_from_others(
    hurried: Callable[..., Server],
) -> None:
    at = hurried(MLAPP_MAX_CONCURRENT="2")
    asked = b"GET /docs HTTP/1.1\r\nHost: localhost\r\n\r\n" * 400
    with contextlib.ExitStack() as stack:
        for _ in range(4):
            connection = stack.enter_context(socket.socket())
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.connect(("127.0.0.1", at.port))
            connection.sendall(asked)

        def is_free() -> bool:
            found = (requests.get(f"{at.address}/readyz", timeout=30) for _ in range(50))
            return all(answer.status_code == 200 for answer in found)

        wait_until(is_free, "all places to be free")


def test_what_follows_a_chunked_body_is_no_header_and_has_an_end(shared: Server) -> None:
    head = head_of(PREDICT, 0).replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
    body = b"%x\r\n%s\r\n0\r\n" % (len(BODY), BODY)
    with connect(shared) as connection:
        connection.sendall(head + body + b"Content-Encoding: br\r\nHost: evil.example\r\n\r\n")
        assert connection.recv(1 << 16).startswith(b"HTTP/1.1 200 ")
    with connect(shared) as connection:
        connection.sendall(head + body)
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            for _ in range(20_000):
                connection.sendall(b"X-More: " + b"x" * 1000 + b"\r\n")
    assert predicts(shared)


# --- other protocols ----------------------------------------------------------------------------

HTTP_2 = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n"


def read_answer(connection: socket.socket) -> tuple[bytes, Any]:
    """Return the status line of an answer, and its JSON."""
    with connection.makefile("rb") as file:
        status = file.readline().strip()
        length = 0
        while (line := file.readline().strip().lower()) != b"":
            name, _, value = line.partition(b": ")
            length = int(value) if name == b"content-length" else length
        return status, json.loads(file.read(length) or b"null")


@pytest.mark.parametrize("close", [b"", b"Connection: close\r\n"], ids=["kept", "closed"])
def test_an_offer_to_speak_http_2_is_ignored(close: bytes, shared: Server) -> None:
    head = head_of(PREDICT, len(BODY))[:-2] + close + HTTP_2
    chunked = head.replace(b"Content-Length: %d" % len(BODY), b"Transfer-Encoding: chunked")
    for request in (head + BODY, chunked + b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY)):
        with connect(shared) as connection:
            connection.sendall(request)
            status, answer = read_answer(connection)
            assert (status, len(answer["predictions"])) == (b"HTTP/1.1 200 OK", 1)


def test_a_body_that_comes_after_an_offer_to_speak_http_2_is_read(shared: Server) -> None:
    head = head_of(PREDICT, len(BODY))[:-2]
    with connect(shared) as connection:
        for _ in range(2):
            connection.sendall(head + b"Expect: 100-continue\r\n" + HTTP_2)
            assert read_answer(connection)[0] == b"HTTP/1.1 100 Continue"
            connection.sendall(BODY)
            status, answer = read_answer(connection)
            assert (status, len(answer["predictions"])) == (b"HTTP/1.1 200 OK", 1)
        connection.sendall(head + b"\r\n" + BODY)
        assert read_answer(connection)[0] == b"HTTP/1.1 200 OK"


def test_the_dashboard_has_its_websocket(models: Path, tmp_path: Path) -> None:
    at = start_hurried("together", models, tmp_path / "websocket.log")
    with contextlib.ExitStack() as stack:
        stack.callback(at.stop)
        connection = stack.enter_context(connect(at))
        connection.sendall(
            b"GET /_stcore/stream HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\n"
            b"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        assert connection.recv(100).startswith(b"HTTP/1.1 101 ")


# --- too many, and too much ---------------------------------------------------------------------


def test_requests_beyond_what_is_useful_are_refused_and_may_come_again(
    hurried: Callable[..., Server],
) -> None:
    at = hurried(MLAPP_MAX_CONCURRENT="4")
    body = {"instances": ["A wonderful film that I loved from its first minute. " * 20] * 200}

    def ask(_: int) -> requests.Response:
        return requests.post(at.address + TEXTS, json=body, timeout=120)

    with ThreadPoolExecutor(24) as pool:
        answers = pool.map(ask, range(24))
        health = [requests.get(f"{at.address}/livez", timeout=5).status_code for _ in range(20)]
        found = [(answer.status_code, answer.headers.get("Retry-After")) for answer in answers]
    assert set(health) == {200}
    assert set(found) == {(200, None), (429, "1")}
    assert requests.post(at.address + TEXTS, json={"instances": ["good"]}, timeout=30).ok


def test_long_requests_do_not_hold_up_short_ones(shared: Server) -> None:
    body = {"instances": ["A wonderful film that I loved from its first minute. " * 20] * 400}
    with ThreadPoolExecutor(6) as pool:
        long = [
            pool.submit(requests.post, shared.address + TEXTS, json=body, timeout=120)
            for _ in range(6)
        ]
        short = 0
        while not all(future.done() for future in long):
            short += predicts(shared)
        assert [future.result().status_code for future in long] == [200] * 6
    assert short > 10


@pytest.mark.parametrize("how", ["length", "chunked"])
def test_a_body_over_the_limit_is_refused_before_it_is_read(
    how: str, hurried: Callable[..., Server]
) -> None:
    at = hurried(MLAPP_MAX_BYTES="100000")
    body = b"[" + b" " * 300_000 + b"]"
    sent: Any = body if how == "length" else iter([body[:150_000], body[150_000:]])
    headers = {"Content-Type": "application/json"}
    answer = requests.post(at.address + PREDICT, data=sent, headers=headers, timeout=30)
    assert answer.status_code == 413
    assert answer.json()["detail"] == "The body is larger than 100,000 bytes"


def test_a_body_is_not_read_from_who_lacks_the_key(hurried: Callable[..., Server]) -> None:
    at = hurried(MLAPP_API_KEY="secret")
    with connect(at) as connection:
        connection.sendall(head_of(SCORE, 1 << 30))  # and nothing of it
        assert read_all(connection).startswith(b"HTTP/1.1 401 Unauthorized\r\n")


@pytest.mark.parametrize("path", [PREDICT, SCORE])
def test_a_damaged_chunk_is_a_bad_request(path: str, shared: Server) -> None:
    head = head_of(path, 0).replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
    with connect(shared) as connection:
        connection.sendall(head + b"5\r\n{....\r\nzz\r\n")
        assert read_all(connection).startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert "Traceback" not in shared.log.read_text()


def test_a_client_that_resets_half_way_leaves_no_traceback(hurried: Callable[..., Server]) -> None:
    at = hurried()
    for path in (PREDICT, SCORE):
        with connect(at) as connection:
            connection.sendall(head_of(path, 1000) + b"{")
            linger = b"\x01\x00\x00\x00\x00\x00\x00\x00"  # closing resets the connection
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        wait_until(partial(at.logged, f"{path.split(':')[1]} 400"), "the log")
    assert predicts(at)
    assert "Traceback" not in at.log.read_text()
    assert not re.search(r" 5\d\d \d", at.log.read_text())


# --- the host and the headers -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("LOCALHOST:8501", 200),
        ("127.0.0.1", 200),
        ("[::1]:80", 200),
        ("models.example.org", 200),
        ("models.example.org.:443", 200),
        ("evil.example", 421),
        ("localhost.evil.example", 421),
        ("localhost@evil.example", 421),
        ("[", 421),
        ("", 421),
    ],
)
def test_only_known_hosts_are_served(host: str, status: int) -> None:
    settings = Settings(Path(), {}, hosts=("models.example.org",))
    app = gateway.Gateway(create_app(settings), run.allowed_hosts("127.0.0.1", settings))
    scope = {"type": "http", "headers": [(b"host", host.encode())], "http_version": "1.1"}
    assert app.is_allowed_host(scope) == (status == 200)


def test_a_name_that_leads_here_from_elsewhere_is_not_served(
    shared: Server,
) -> None:
    upgrade = {
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version": "13",
    }
    for path in ("/livez", "/", "/_stcore/health", "/_stcore/stream"):
        for more in ({}, upgrade):
            headers = {"Host": "evil.example", **more}
            answer = requests.get(shared.address + path, headers=headers, timeout=30)
            assert answer.status_code in (403, 421), (path, more, answer.status_code)


def test_every_page_has_security_headers(shared: Server) -> None:
    for path in ("/", "/form", "/livez", "/nothing-here"):
        headers = requests.get(shared.address + path, timeout=30).headers
        assert headers["X-Content-Type-Options"] == "nosniff", path
        assert headers["X-Frame-Options"] == "DENY", path
        assert headers["Referrer-Policy"] == "no-referrer", path
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"], path


# --- stopping, and dying ------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_requests_of_several_seconds_complete_when_the_service_stops(
    number: signal.Signals, hurried: Callable[..., Server]
) -> None:
    check_that_requests_complete(hurried(SHIPPED), number)


def test_requests_complete_when_the_terminal_of_the_dashboard_is_closed(tmp_path: Path) -> None:
    usual = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup has it ignored
    at = start_hurried("together", SHIPPED, tmp_path / "hangup.log")
    signal.signal(signal.SIGHUP, usual)
    check_that_requests_complete(at, signal.SIGHUP)


def check_that_requests_complete(at: Server, number: signal.Signals) -> None:
    headers = {"Content-Type": "application/json"}
    texts = ["A wonderful film that I loved from its first minute. " * 40] * 300
    body = json.dumps({"instances": texts}).encode()
    with ThreadPoolExecutor(4) as pool:
        long = [
            pool.submit(requests.post, at.address + TEXTS, body, headers=headers, timeout=120)
            for _ in range(4)
        ]
        wait_until(lambda: bodies_received(at, len(body)) == 4, "the requests to be read")
        at.process.send_signal(number)
        found = [len(future.result().json()["predictions"]) for future in long]
    assert found == [300] * 4
    assert at.process.wait(timeout=60) in (0, -number, 128 + number)
    assert at.log.read_text().count(":predict 200") == 4


def bodies_received(at: Server, size: int) -> int:
    """Return how many bodies of so many bytes a server holds on disk, in files without a name."""
    count = 0
    for pid in (at.process.pid, *at.workers()):
        for each in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):
                count += "(deleted)" in str(each.readlink()) and each.stat().st_size == size
    return count


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGABRT, signal.SIGKILL, signal.SIGINT])
def test_any_worker_may_go_at_any_time_and_its_counts_stay(
    number: signal.Signals, own: Callable[..., Server]
) -> None:
    at = own("--workers", "2")
    asked = 0
    for _ in range(3):
        victim = min(at.workers())
        os.kill(victim, number)
        wait_until(partial(at.has_replaced, victim), "another worker")
        for _ in range(10):
            assert predicts(at)
            asked += 1
    found = requests.get(f"{at.address}/metrics", timeout=30).text
    total = re.search(r'mlapp_predictions_total\{model="regression",version="1"\} (\S+)', found)
    assert total is not None
    assert float(total[1]) == asked


def test_all_workers_are_replaced_on_sighup_without_a_failed_request(
    own: Callable[..., Server],
) -> None:
    at = own("--workers", "2")
    before = set(at.workers())
    at.process.send_signal(signal.SIGHUP)
    wait_until(
        lambda: predicts(at) and len(at.workers()) == 2 and not before & set(at.workers()),
        "new workers",
    )
    assert requests.get(f"{at.address}/metrics", timeout=30).ok


def test_a_connection_that_was_opened_before_the_end_still_has_its_request_answered(
    own: Callable[..., Server],
) -> None:
    at = own("--workers", "1")
    request = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with connect(at) as early, connect(at) as begun, connect(at) as silent, connect(at) as kept:
        begun.sendall(request[:20])
        kept.sendall(request)
        assert kept.recv(1 << 16).startswith(b"HTTP/1.1 200 ")  # so the others are accepted, too
        at.process.send_signal(signal.SIGTERM)
        read_all(kept)  # it is closed when the end begins
        early.sendall(request)
        begun.sendall(request[20:])
        for connection in (early, begun):
            assert read_all(connection).startswith(b"HTTP/1.1 200 ")
        assert read_all(silent) == b""
    assert at.process.wait(timeout=30) == 0


def test_the_metrics_of_processes_that_were_killed_are_removed(own: Callable[..., Server]) -> None:
    killed = own("--workers", "1")
    [worker] = killed.workers()
    maps = Path(f"/proc/{worker}/maps").read_text()
    found = re.search(r"(/\S*/mlapp-metrics-\w+)/", maps)
    assert found
    killed.process.kill()
    killed.process.wait(timeout=30)
    wait_until(lambda: not Path(f"/proc/{worker}/cwd").exists(), "the worker to end")
    assert Path(found[1]).exists()
    other = own("--workers", "1")
    assert not Path(found[1]).exists()
    assert requests.get(f"{other.address}/metrics", timeout=30).ok


def test_workers_do_not_outlive_their_parent(own: Callable[..., Server]) -> None:
    at = own("--workers", "2")
    workers = at.workers()
    at.process.kill()
    at.process.wait(timeout=30)
    wait_until(
        lambda: not any(Path(f"/proc/{pid}/cwd").exists() for pid in workers), "the workers to end"
    )


# --- a full disk --------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 8 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "mlapp-test", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, check=False).returncode != 0:
        pytest.skip("this account may not mount a disk")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_file_that_does_not_fit_on_the_disk_is_refused_and_does_no_harm(
    hurried: Callable[..., Server], small_disk: Path
) -> None:
    at = hurried(TMPDIR=str(small_disk))
    rows = ",".join(ROW) + "\n" + (",".join(map(str, ROW.values())) + "\n") * 400_000
    headers = {"Content-Type": "text/csv"}
    answer = requests.post(at.address + SCORE, data=rows, headers=headers, timeout=60)
    assert answer.status_code == 507
    assert "no space left on device" in answer.json()["detail"].lower()
    small = rows[: rows.index("\n", 100_000) + 1]
    assert requests.post(at.address + SCORE, data=small, headers=headers, timeout=60).ok
    (small_disk / "filled").write_bytes(bytes(shutil.disk_usage(small_disk).free))
    for _ in range(50):
        assert predicts(at)
    assert requests.get(f"{at.address}/metrics", timeout=30).ok
    assert not any("ended; starting" in line for line in at.log.read_text().splitlines())
