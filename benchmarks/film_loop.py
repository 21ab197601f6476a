"""The whole loop once, on film reviews: requests, a drift, feedback, retrain, gate, promote, back.

    python -m benchmarks.film_loop REVIEWS [--requests 2000]

Method: a linear model is trained on a table of film reviews (columns review and sentiment) and
served by two workers. The first half of the requests are reviews that were taken out of that table
before; the second half are notes about restaurants, of our own writing, whose labels are known.
Every command's output is printed as it is. Drift is printed after each half, the second time for
that half alone, as if days lay between them.
"""

import argparse
import itertools
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import requests

from benchmarks import service
from mlapp.records import queries
from mlapp.records.database import Database, counts
from mlapp.settings import read_settings
from training.tables import read_table

NAME = "films"
GOOD = (
    "the soup came hot and tasted of real herbs",
    "our waiter was quick and kind",
    "the bread was warm and the butter salted",
    "we got a table at once, by the window",
    "the bill was smaller than we had feared",
    "the fish fell off the bone",
    "they remembered our names",
    "dessert was worth the walk across town",
    "the kitchen cooked something off the menu for our child",
    "the wine went well with everything",
)
BAD = (
    "the soup was cold and so was the reception",
    "we waited an hour for two salads",
    "the bread was yesterday's",
    "they lost our booking and shrugged",
    "the bill had a bottle on it that we never ordered",
    "the fish smelled of the harbour",
    "nobody cleared the table next to us all evening",
    "dessert came frozen in the middle",
    "the music was so loud that we ate in silence",
    "the plates were chipped and the forks sticky",
)
TABLES = ("table four", "the terrace", "the bar", "the back room", "the counter", "the garden")
DAYS = ("on Monday", "last night", "at noon", "on my birthday", "after the market", "in the rain")


def main() -> None:
    """Go round the loop and print it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("reviews", type=Path)
    parser.add_argument("--requests", type=int, default=2000)
    options = parser.parse_args()
    half = options.requests // 2
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {"MLAPP_ARTIFACTS": folder, "MLAPP_LOG_INPUTS": "values"}
        films = read_table(options.reviews)[0].sample(frac=1, random_state=1)
        films[half:].to_parquet(Path(folder) / "reviews.parquet", index=False)
        data = ["--data", str(Path(folder) / "reviews.parquet")]
        labels = ["--labels", "Negative,Positive", "--model", "linear", "--name", NAME]
        run("-m", "training.sentiment", *data, *labels)
        port = service.free_port()
        command = [sys.executable, "-m", "mlapp.cli", "serve", "--api-only", "--workers", "2"]
        server = subprocess.Popen(
            [*command, "--port", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        address = f"http://127.0.0.1:{port}"
        try:
            wait_for(address)
            ask(address, films["review"][:half].tolist())
            mlapp("drift", NAME)
            move_counts()
            notes = restaurants(half)
            given = ask(address, list(notes))
            mlapp("drift", NAME, "--days", "1")
            judge(address, given, list(notes.values()))
            mlapp("quality", NAME)
            mlapp("retrain", NAME)
            mlapp("promote", NAME)
            print("served:", version(address, 2))
            mlapp("rollback", NAME, "--because", "the drill is over")
            print("served:", version(address, 1))
            mlapp("history", NAME)
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait()


def run(*arguments: str) -> None:
    """Run Python, and print the command and its output."""
    print("$ python", *arguments, flush=True)
    subprocess.run([sys.executable, *arguments], cwd=service.ROOT, check=False)


def mlapp(*arguments: str) -> None:
    """Run a command of `mlapp`."""
    run("-m", "mlapp.cli", *arguments)


def wait_for(address: str) -> None:
    """Return when the service is ready; fail after a minute."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        try:
            if requests.get(f"{address}/readyz", timeout=5).ok:
                return
        except requests.ConnectionError:
            time.sleep(0.05)
    raise TimeoutError(address)


def ask(address: str, texts: Sequence[str]) -> list[str]:
    """Ask about each text in a request of its own; return the answers' identifiers."""
    print(f"{len(texts):,} requests, as: {texts[0][:70]}", flush=True)
    with requests.Session() as session:
        found = []
        for text in texts:
            body = {"instances": [text]}
            answer = session.post(f"{address}/v1/models/{NAME}:predict", json=body, timeout=30)
            answer.raise_for_status()
            found.append(answer.json()["id"])
    time.sleep(1)  # until all of it is recorded
    return found


def judge(address: str, given: Sequence[str], truths: Sequence[str]) -> None:
    """Say what was true of each answer."""
    told = [{"id": name, "truth": truth} for name, truth in zip(given, truths, strict=True)]
    answer = requests.post(f"{address}/v1/feedback", json=told, timeout=60)
    answer.raise_for_status()
    print(f"feedback on {len(told):,} answers: {answer.status_code}", flush=True)


def version(address: str, wanted: int) -> int:
    """Return the version that is served; wait until it is the wanted one."""
    found = 0
    end = time.monotonic() + 10
    while found != wanted and time.monotonic() < end:
        found = requests.get(f"{address}/v1/models/{NAME}", timeout=10).json()["version"]
    return found


def move_counts() -> None:
    """Let what was counted so far be three days old."""
    time.sleep(1)
    with Database(read_settings()).begin() as connection:
        days = 3 * queries.DAY // 3_600_000
        connection.execute(counts.update().values(hour=counts.c.hour - days))


def restaurants(count: int) -> dict[str, str]:
    """Return notes about restaurants with their labels."""
    made = {
        f"At {table} {day} {first}, and {second}.": label
        for label, parts in (("Positive", GOOD), ("Negative", BAD))
        for first, second in itertools.permutations(parts, 2)
        for table in TABLES
        for day in DAYS
    }
    return dict(random.Random(0).sample(sorted(made.items()), count))


if __name__ == "__main__":
    main()
