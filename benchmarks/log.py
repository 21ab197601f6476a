"""What the log costs the service, what a killed worker loses, and how Monitor opens.

    python -m benchmarks.log [--seconds 4] [--rounds 8] [--records 20000] [--million 1000000]

Method. Throughput: the service on two workers with and without the log, in turns, asked by wrk as
`benchmarks/service.py` does; medians of the rounds, and of the ratios in each, which other work on
the machine moves less: many short rounds show more than a few long ones. Counts: sixteen clients
get so many answers from two workers, while this process answers along as a page does; then all are
counted. Kill -9: the same, and a worker is killed half-way; lost are the answers that a client has
and the log has not. Monitor: a week of so many records is written, and the page is opened in
Chromium, beside the same page without records; seconds from the address to the last part of it,
medians of five.
"""

import argparse
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import requests
from playwright.sync_api import Page, sync_playwright
from sqlalchemy import select

from benchmarks import dashboard, service
from mlapp import answering, loaders
from mlapp.records import queries
from mlapp.records import writer as records
from mlapp.records.database import Database, answers, first_id, time_of
from mlapp.records.entries import Record
from mlapp.records.writer import Writer
from mlapp.settings import read_settings

CLIENTS = 16
DAYS = 7
AT_ONCE = 500  # rows of a record of the million


def main() -> None:
    """Measure all, and print it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=int, default=4, choices=range(1, 61))
    parser.add_argument("--rounds", type=int, default=8, choices=range(0, 61))
    parser.add_argument("--records", type=int, default=20_000)
    parser.add_argument("--million", type=int, default=1_000_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(service.ROOT / "artifacts", Path(folder) / "artifacts")
        os.environ["MLAPP_ARTIFACTS"] = str(Path(folder) / "artifacts")
        if options.rounds:
            compare_throughput(options.seconds, options.rounds, Path(folder))
        if options.records:
            count_records(options.records)
            kill_worker(options.records)
        if options.million:
            open_monitor(options.million)


# --- throughput ------------------------------------------------------------------------------


def compare_throughput(seconds: int, rounds: int, folder: Path) -> None:
    """Print requests per second, and processor time of each, with and without the log."""
    servers = {}
    for log in ("on", "off"):
        os.environ["MLAPP_LOG_ANSWERS"] = log
        servers[log] = service.start("ours", "")[:2]
    found: dict[str, list[list[float]]] = {log: [] for log in servers}
    try:
        for _ in range(rounds):
            for log, (server, address) in servers.items():
                figures: list[float] = []
                for name, body in service.BODIES.items():
                    path = address + service.PATHS["ours"][name]
                    rate, _, _, spent = service.load(server, path, body, seconds, folder)
                    figures += [rate, spent]
                found[log].append(figures)
    except RuntimeError as error:  # on a busy machine one worker may take all connections
        print(f"stopped after {len(found['off'])} rounds: {error}")
    finally:
        for server, _ in servers.values():
            stop(server)
    os.environ["MLAPP_LOG_ANSWERS"] = "on"
    clear()
    print(f"{'log':8}" + "".join(f"{name + '/s':>12}{'us each':>12}" for name in service.BODIES))
    middle = {
        log: [statistics.median(column) for column in zip(*rates, strict=True)]
        for log, rates in found.items()
    }
    for log, row in middle.items():
        print(f"{log:8}" + "".join(f"{figure:12.0f}" for figure in row))
    pairs = [
        [on / off for on, off in zip(one, other, strict=True)]
        for one, other in zip(found["on"], found["off"], strict=True)
    ]
    ratios = [statistics.median(column) for column in zip(*pairs, strict=True)]
    print(f"{'on/off':8}" + "".join(f"{ratio:12.3f}" for ratio in ratios))


def stop(server: subprocess.Popen[bytes]) -> None:
    """End a server, and wait until it is gone."""
    os.killpg(server.pid, signal.SIGTERM)
    server.wait()


def clear() -> None:
    """Delete the records."""
    records.close()
    for file in read_settings().artifacts.glob("records.db*"):
        file.unlink()


# --- counts ----------------------------------------------------------------------------------


@contextmanager
def asking(address: str, count: int, answered: list[str]) -> Iterator[None]:
    """Let clients ask meanwhile; each answer's identifier is added."""

    def ask() -> None:
        with requests.Session() as session:
            for _ in range(count // CLIENTS):
                try:
                    body = {"instances": [service.ROW]}
                    answered.append(session.post(address, json=body, timeout=30).json()["id"])
                except requests.RequestException:
                    continue  # its worker was killed

    threads = [threading.Thread(target=ask) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    yield
    for thread in threads:
        thread.join()


def recorded() -> set[str]:
    """Return the identifiers of all records."""
    with Database(read_settings()).begin() as connection:
        return set(connection.execute(select(answers.c.id)).scalars())


def count_records(count: int) -> None:
    """Print how many of the answers of two workers and a page are recorded."""
    server, address, _ = service.start("ours", "")
    clear()
    answered: list[str] = []
    model, own = loaders.load_model("regression"), list[str]()
    with asking(address + service.PATHS["ours"]["rows"], count * 9 // 10, answered):
        for _ in range(count // 10):
            own.append(answering.answer(model, model.check([service.ROW]), "page").id)
    stop(server)
    records.close()
    found = recorded()  # and the answer that showed that the server is there
    print(
        f"{len(answered):,} answers of two workers and {len(own):,} of a page:"
        f" {len(found & {*answered, *own}):,} recorded"
    )
    clear()


def kill_worker(count: int) -> None:
    """Print what a worker that is killed has lost."""
    server, address, _ = service.start("ours", "")
    clear()
    answered: list[str] = []
    with asking(address + service.PATHS["ours"]["rows"], count, answered):
        while len(answered) < count // 2:
            time.sleep(0.01)
        os.kill(int(service.workers(server)[0]), signal.SIGKILL)
        killed = queries.now()
    stop(server)
    lost = set(answered) - recorded()
    oldest = killed - min((time_of(each) for each in lost), default=killed)
    print(
        f"kill -9 of one of two workers: {len(answered):,} answers arrived, {len(lost):,} of them"
        f" are not recorded, the oldest given {oldest} ms before"
    )
    clear()


# --- Monitor ---------------------------------------------------------------------------------


def write_week(count: int) -> None:
    """Write records that are spread over a week."""
    model, now = loaders.load_model("regression"), queries.now()
    log = Writer(lambda: Database(read_settings()))
    typical, random = model.takes.typical, np.random.default_rng(0)
    for place in range(0, count, AT_ONCE):
        moment = now - DAYS * queries.DAY + int(DAYS * queries.DAY * place / count)
        rows = [
            {name: value * random.uniform(0.8, 1.2) for name, value in typical.items()}
            for _ in range(AT_ONCE)
        ]
        batch = model.check(rows)
        identifier = f"{first_id(moment)[:24]}{random.integers(1 << 48):012x}"
        log.add(Record(identifier, moment, model, "v1", 0.001, batch, model.answer(batch)))
        if place % (AT_ONCE * 100) == 0:
            log.flush()
    log.close()


def open_monitor(count: int) -> None:
    """Print how long Monitor takes to open, with many records and with none."""
    clear()
    empty = time_page()
    began = time.perf_counter()
    write_week(count)
    size = sum(file.stat().st_size for file in read_settings().artifacts.glob("records.db*"))
    print(
        f"{count:,} records, {size / 1e6:,.0f} MB, written in {time.perf_counter() - began:.0f} s"
    )
    full = time_page()
    print(f"Monitor opens in {full:.2f} s with them, in {empty:.2f} s without any")


def time_page() -> float:
    """Return the median seconds until Monitor is whole in Chromium."""
    port = str(service.free_port())
    command = [sys.executable, "-m", "streamlit", "run", "Home.py", "--server.port", port]
    command += ["--server.headless=true", "--server.address=127.0.0.1"]
    server = subprocess.Popen(
        command, cwd=service.ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    address = f"http://127.0.0.1:{port}"
    try:
        dashboard.wait_for(f"{address}/_stcore/health")
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
            )
            page = browser.new_page()
            wait_for_monitor(page, address)  # the first visitor waits for imports, too
            times = []
            for _ in range(5):
                began = time.perf_counter()
                wait_for_monitor(page, address)
                times.append(time.perf_counter() - began)
            browser.close()
        return statistics.median(times)
    finally:
        server.terminate()
        server.wait()


def wait_for_monitor(page: Page, address: str) -> None:
    """Open Monitor, and return when the script behind it has ended."""
    page.goto(f"{address}/monitor")
    page.get_by_text("Was it right?").wait_for(timeout=60_000)
    page.locator("[data-test-script-state=notRunning]").wait_for(timeout=60_000)


if __name__ == "__main__":
    main()
