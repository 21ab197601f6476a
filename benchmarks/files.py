"""Whole files: `mlapp score` compared with pandas, and with the bare model on all cores.

    python benchmarks/files.py [--rows 10000000] [--reviews 8000] [--rounds 3] [--folder FOLDER]

Rows: a CSV of rows drawn from the shipped table is scored by `mlapp score`, and by a script that
reads it whole with `pandas.read_csv`, calls `predict` of the scikit-learn pipeline and writes it
with `to_csv`. Ours also checks every value, adds the interval and columns for notices and errors,
and waits until the output lies on the disk. Both are fresh processes, in turns, timed from start to
end; memory is the peak of the resident set, libraries included. The least time of the rounds
counts, and the largest peak. Ours is also run on ten thousand rows, to see how its memory grows.

Reviews: a CSV of texts of known words, with lengths as film reviews have them (log-normal, median
174 words), is scored by `mlapp score`. Bare is a process that has the same texts in memory and
gives them to the tokenizer and the network one by one, on as many threads as there are cores,
without any check. Loading the model is timed in neither; ours includes reading the file through,
reading it, checks, probabilities, writing and waiting for the disk. Halves is the same command on
each half of the file at once, with one worker each; it and "ours, whole run" are timed from start
to end. The best rates of the rounds count.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from mlapp.families.network import Network
from mlapp.store import artifacts

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT / "data" / "linear_regression_dataset.csv"
MEDIAN = 174  # words of a review
SCORE = [sys.executable, "-m", "mlapp.cli", "score"]
PANDAS = """
import sys
import joblib, pandas
model = joblib.load(sys.argv[3])
table = pandas.read_csv(sys.argv[1])
inputs = ["var_1", "var_2", "var_3", "var_4", "var_5"]
table["prediction"] = model.predict(table[inputs].to_numpy())
table.to_csv(sys.argv[2], index=False)
"""
HALVES = """
import subprocess, sys
running = [subprocess.Popen([*sys.argv[3:], f"{sys.argv[1]}.{half}", "-o", f"{sys.argv[2]}.{half}",
           "--from", "csv", "--to", "csv", "--workers", "1"]) for half in "12"]
sys.exit(max(each.wait() for each in running))
"""
BARE = """
import os, sys, time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
import pandas
from mlapp.families.network import Network
from mlapp.store import artifacts
network = Network(artifacts.open(Path(sys.argv[2]), "sentiment").files)
texts = pandas.read_csv(sys.argv[1])["review"].tolist()
classify = lambda text: network.scores([network.vocabulary.read(text)])
with ThreadPoolExecutor(os.cpu_count()) as pool:
    began = time.perf_counter()
    list(pool.map(classify, texts))
    print(len(texts) / (time.perf_counter() - began))
"""


def write_rows(path: Path, count: int) -> None:
    """Write a CSV of rows drawn from the shipped table."""
    header, *lines = DATA.read_text(encoding="utf-8").splitlines(keepends=True)
    random = np.random.default_rng(0)
    with path.open("w", encoding="utf-8") as file:
        file.write(header)
        for start in range(0, count, 100_000):
            places = random.integers(len(lines), size=min(100_000, count - start))
            file.writelines(lines[place] for place in places)


def write_reviews(path: Path, count: int) -> None:
    """Write a CSV of texts of words that the shipped model knows."""
    words = Network(artifacts.open(ROOT / "artifacts", "sentiment").files).vocabulary.words
    known = [word for word in words[2:] if word.isalpha()]
    random = np.random.default_rng(0)
    lengths = np.clip(MEDIAN * np.exp(random.normal(0, 0.6, count)), 10, 2000).astype(int)
    texts = [" ".join(random.choice(known, length)) + "." for length in lengths]
    pd.DataFrame({"id": range(count), "review": texts}).to_csv(path, index=False)


def run(command: list[str]) -> tuple[float, float, str]:
    """Run a command; return its seconds, its peak of resident memory in MB, and what it printed."""
    environment = os.environ | {"MLAPP_ARTIFACTS": str(ROOT / "artifacts")}
    began = time.perf_counter()
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert process.stdout is not None
    printed = process.stdout.read().decode()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise RuntimeError(printed)
    return seconds, usage.ru_maxrss / 1000, printed


def measure_rows(folder: Path, rows: int, rounds: int) -> None:
    """Print what rows cost."""
    few, many = folder / "few.csv", folder / "many.csv"
    write_rows(few, 10_000)
    write_rows(many, rows)
    model = str(ROOT / "artifacts" / "regression" / "1" / "model.joblib")
    commands = {
        "pandas": [sys.executable, "-c", PANDAS, str(many), str(folder / "pandas.csv"), model],
        "ours": [*SCORE, str(many), "-o", str(folder / "ours.csv")],
        "ours, 10,000 rows": [*SCORE, str(few), "-o", str(folder / "few-ours.csv")],
    }
    found: dict[str, list[tuple[float, float, str]]] = {name: [] for name in commands}
    for _ in range(rounds):
        for name, command in commands.items():
            found[name].append(run(command))
    print(f"{rows:,} rows of CSV    seconds    rows/s    peak MB")
    best = {}
    for name, results in found.items():
        seconds, peak = min(each[0] for each in results), max(each[1] for each in results)
        best[name] = (seconds, peak)
        count = 10_000 if "," in name else rows
        print(f"{name:20} {seconds:10.2f} {count / seconds:9.0f} {peak:10.0f}")
    pandas, ours, small = best.values()
    print(f"ours is {pandas[0] / ours[0]:.1f} times as fast, in {ours[1] / pandas[1]:.3f} of the")
    print(f"memory; {ours[1] / small[1]:.2f} times that for 10,000 rows")


def measure_reviews(folder: Path, reviews: int, rounds: int) -> None:
    """Print what reviews cost."""
    source = folder / "reviews.csv"
    write_reviews(source, reviews)
    bare = [sys.executable, "-c", BARE, str(source), str(ROOT / "artifacts")]
    target, command = str(folder / "scored.csv"), [*SCORE, "--text-column", "review"]
    ours = [*command, str(source), "-o", target]
    halves = [sys.executable, "-c", HALVES, str(source), target, *command]
    header, *lines = source.read_text(encoding="utf-8").splitlines(keepends=True)
    for half, some in (("1", lines[::2]), ("2", lines[1::2])):
        source.with_name(f"{source.name}.{half}").write_text("".join([header, *some]), "utf-8")
    rates: dict[str, list[float]] = {
        name: [] for name in ("bare", "ours", "ours, whole run", "halves")
    }
    for _ in range(rounds):
        rates["bare"].append(float(run(bare)[2]))
        seconds, _, printed = run(ours)
        rates["ours"].append(float(re.findall(r"([0-9,]+) rows/s$", printed)[0].replace(",", "")))
        rates["ours, whole run"].append(reviews / seconds)
        rates["halves"].append(reviews / run(halves)[0])
    best = {name: max(each) for name, each in rates.items()}
    print(f"\n{reviews:,} reviews, {os.cpu_count()} cores    reviews/s")
    for name, rate in best.items():
        print(f"{name:20} {rate:10.0f}   all rounds: {', '.join(f'{r:.0f}' for r in rates[name])}")
    print(f"ours has {best['ours'] / best['bare']:.3f} of the bare rate, the whole run")
    print(f"{best['ours, whole run'] / best['halves']:.3f} of the halves'")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Compare `mlapp score` with pandas.")
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--reviews", type=int, default=8_000)
    parser.add_argument("--rounds", type=int, default=3, choices=range(1, 21))
    parser.add_argument("--folder", type=Path, help="for temporary files (2 GB)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        if options.rows:
            measure_rows(Path(folder), options.rows, options.rounds)
        if options.reviews:
            measure_reviews(Path(folder), options.reviews, options.rounds)


if __name__ == "__main__":
    main()
