"""Ray with two workers compared with the local engine, on the same file, to the same Parquet.

    python benchmarks/cluster.py                        # rows, texts, requests
    python benchmarks/cluster.py --rows 0 --seconds 0   # texts only

Each engine runs in a process of its own, in turns, and its best time counts. Ray's start-up is
counted apart: until Ray is there, and what a table of one row then takes, which is the start of
the workers. Both engines should have the machine to themselves; sizes are such that the local one
takes a minute or more on two cores.

Then the service, on one worker of gunicorn and on one replica of Ray Serve (behind its own proxy,
and behind HAProxy), is asked by wrk over 16 kept connections for one row or one review a request.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

ROOT = Path(__file__).resolve().parents[1]
TARGET = 1.5  # times the local engine's seconds, start-up apart
REVIEW = (
    "The story begins slowly, and for a while I was not sure that it would lead anywhere. Then the"
    " second half brings everything together, and I did not look at the clock once. "
)
BODIES = {
    "/v1/models/regression:predict": {
        "instances": [{"var_1": 734, "var_2": 688, "var_3": 81, "var_4": 0.328, "var_5": 0.259}]
    },
    "/v1/models/sentiment:predict": {"instances": [REVIEW * 5]},
}
RUN = """
import json, sys
from pathlib import Path
from mlapp import families, store
from mlapp.scoring import cluster, files
from mlapp.store import artifacts
engine, name, source, target, workers = sys.argv[1:]
artifact = artifacts.open(Path("artifacts"), name)
if engine == "ray":
    done = cluster.score(artifact, source, target, workers=int(workers))
    print(json.dumps([done.counts.scored, done.seconds, done.starting]))
else:
    model = families.from_artifact(artifact)
    done = files.score(model, Path(source), Path(target), workers=int(workers))
    print(json.dumps([done.counts.scored, done.seconds, 0]))
"""


def write_rows(path: Path, count: int) -> None:
    """Write rows drawn from the shipped table, as CSV."""
    table = pd.read_csv(ROOT / "data" / "linear_regression_dataset.csv").drop(columns="output")
    lines = np.array(table.to_csv(index=False).splitlines(keepends=True), dtype=object)
    rng = np.random.default_rng(1)
    with path.open("w", encoding="utf-8") as file:
        file.write(lines[0])
        for start in range(0, count, 1_000_000):
            file.writelines(rng.choice(lines[1:], min(1_000_000, count - start)))


def write_texts(path: Path, count: int) -> None:
    """Write texts as long as film reviews, 1.3 kB, each of 12 of the shipped sample, as CSV."""
    sample = pd.read_csv(ROOT / "data" / "reviews_sample.tsv", sep="\t")["review"].to_numpy()
    places = np.random.default_rng(1).integers(0, len(sample), (count, 12))
    texts = [" ".join(sample[each]) for each in places]
    pd.DataFrame({"review": texts}).to_csv(path, index=False)


def run(engine: str, name: str, source: Path, workers: int) -> tuple[int, float, float]:
    """Score a file in a fresh process; return rows, seconds, and seconds of start-up before."""
    with tempfile.TemporaryDirectory(dir=source.parent) as folder:
        target = Path(folder) / ("out" if engine == "ray" else "out.parquet")
        command = [sys.executable, "-c", RUN, engine, name, str(source), str(target), str(workers)]
        ran = subprocess.run(
            command,
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT), "RAY_worker_niceness": "0"},
            stdout=subprocess.PIPE,
            check=True,
        )
    count, seconds, starting = json.loads(ran.stdout.splitlines()[-1])
    return count, seconds, starting


def compare(name: str, source: Path, one: Path, workers: int, rounds: int) -> None:
    """Print both engines' times and their ratio."""
    best = {"local": float("inf"), "ray": float("inf")}
    starts, firsts = [], []
    for _ in range(rounds):
        for engine in best:
            count, seconds, starting = run(engine, name, source, workers)
            best[engine] = min(best[engine], seconds)
        starts.append(starting)
        firsts.append(run("ray", name, one, workers)[1])
    start, first = min(starts), min(firsts)
    local, ray = best["local"], best["ray"] - first
    print(f"{name}: {count:,} rows of {source.stat().st_size / 1e6:,.0f} MB, {workers} workers")
    print(f"  local     {local:8.1f} s  {count / local:12,.0f} rows/s")
    print(f"  ray       {ray:8.1f} s  {count / ray:12,.0f} rows/s")
    print(f"  start-up  {start:8.1f} s for Ray, {first:.1f} s for its workers")
    within = "reached" if ray / local <= TARGET else "MISSED"
    print(f"  ratio     {ray / local:8.2f}    (at most {TARGET}: {within};", end=" ")
    print(f"{(ray + start + first) / local:.2f} with the start-up)", flush=True)


def ask(seconds: int) -> None:
    """Print how many requests per second one process answers, by either engine."""
    address = "http://127.0.0.1:8599"
    on_ray = ["--engine", "ray"]
    engines: list[tuple[str, list[str], dict[str, str]]] = [
        ("gunicorn", ["--api-only"], {}),
        ("Ray Serve", on_ray, {}),
        ("  with HAProxy", on_ray, {"RAY_SERVE_ENABLE_HA_PROXY": "1"}),
    ]
    for engine, chosen, variables in engines:
        command = [sys.executable, "-m", "mlapp.cli", "serve", "--port", "8599", *chosen]
        environment = os.environ | {"PYTHONPATH": str(ROOT), "RAY_worker_niceness": "0"}
        quiet = subprocess.DEVNULL
        server = subprocess.Popen(
            command, cwd=ROOT, env=environment | variables, stdout=quiet, stderr=quiet
        )
        try:
            while subprocess.run(["curl", "-sfo", os.devnull, f"{address}/readyz"]).returncode:
                time.sleep(0.1)
            rates = [load(f"{address}{path}", body, seconds) for path, body in BODIES.items()]
        finally:
            server.terminate()
            server.wait()
        print(f"{engine:14}  {rates[0]:8,.0f} rows/s  {rates[1]:8,.0f} reviews/s", flush=True)


def load(address: str, body: object, seconds: int) -> float:
    """Return requests per second; fail if any answer is an error."""
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write('wrk.method = "POST"\nwrk.headers["Content-Type"] = "application/json"\n')
        script.write(f"wrk.body = [==[{json.dumps(body)}]==]\n")
        script.flush()
        command = ["wrk", "-t1", "-c16", f"-d{seconds}s", "-s", script.name, address]
        ran = subprocess.run(command, capture_output=True, text=True, check=True)
    if "Non-2xx" in ran.stdout or "Socket errors" in ran.stdout:
        raise RuntimeError(ran.stdout)
    return float(re.findall(r"Requests/sec:\s+([0-9.]+)", ran.stdout)[0])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Compare Ray with the local engine.")
    parser.add_argument("--rows", type=int, default=100_000_000, help="of numbers")
    parser.add_argument("--texts", type=int, default=60_000)
    parser.add_argument("--seconds", type=int, default=10, help="of requests")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=1, choices=range(1, 10))
    options = parser.parse_args()
    cases = [
        ("regression", write_rows, options.rows),
        ("sentiment", write_texts, options.texts),
    ]
    for name, write, count in cases:
        if count:
            with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR", "/var/tmp")) as folder:
                source, one = Path(folder) / "in.csv", Path(folder) / "one.csv"
                write(source, count)
                write(one, 1)
                compare(name, source, one, options.workers, options.rounds)
    if options.seconds:
        ask(options.seconds)


if __name__ == "__main__":
    main()
