"""Requests per second of the service, a bare Flask handler and LitServe, in one run.

    python benchmarks/service.py [--seconds 4] [--rounds 8] [--litserve PYTHON]

Method: ours and the bare handler run on the same server, with two workers each, in turns, and are
asked by wrk over 16 kept connections, one row or one review of median length (174 words) a request.
The bare handler parses the JSON and runs the model; ours also checks every value, computes the
interval, counts metrics, writes the access log and sets security headers. LitServe serves rows with
two workers and two API servers, where `--litserve` names the Python of an environment that has it.
Before each run wrk compares every answer of a second with the expected one, but for its
identifier, and one that differs ends the run. In the run itself it only counts errors: wrk shares
the two cores, and comparing takes it as long as a tenth of a request. The kernel
leaves it to chance which worker takes a connection, and one worker with all of them is twice as
slow, whatever it serves: a run of ours or the bare handler in which a worker did more than 60 % of
the work is made again with new connections, at most ten times. All figures are medians of the
rounds: requests per second, the median and the 99th percentile of the time to an answer, start-up
(until the first answer) and memory (the resident set of all processes after the load).
"""

import argparse
import contextlib
import json
import math
import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")  # of a second of processor time
ROOT = Path(__file__).resolve().parents[1]
ROW = {"var_1": 734, "var_2": 688, "var_3": 81, "var_4": 0.328, "var_5": 0.259}
SENTENCES = (
    "The story begins slowly, and for a while I was not sure that it would lead anywhere.",
    "Then the second half brings everything together, and I did not look at the clock once.",
    "The two leads are wonderful, the music is quiet and exactly right, and the ending stays.",
)
REVIEW = " ".join(SENTENCES * 4)[:900]
BODIES = {"rows": {"instances": [ROW]}, "reviews": {"instances": [REVIEW]}}
PATHS = {
    "bare": {"rows": "/rows", "reviews": "/reviews"},
    "ours": {"rows": "/v1/models/regression:predict", "reviews": "/v1/models/sentiment:predict"},
    "litserve": {"rows": "/predict"},
}
ASK = """
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
local file = io.open(os.getenv("BODY")); wrk.body = file:read("a"); file:close()
"""
COMPARE = """
local expected = io.open(os.getenv("EXPECTED")); local answer = expected:read("a"); expected:close()
-- The identifier before the predictions is another for each answer, of the same length.
local start = string.find(answer, '"predictions"') or 1
answer = string.sub(answer, start)
local threads = {}
function setup(thread) table.insert(threads, thread) end
function init() wrong = 0 end
function response(status, headers, body)
  if status ~= 200 or string.sub(body, start) ~= answer then wrong = wrong + 1 end
end
function done()
  local all = 0
  for _, thread in ipairs(threads) do all = all + thread:get("wrong") end
  print("wrong answers: " .. all)
end
"""


def start(kind: str, litserve: str) -> tuple[subprocess.Popen[bytes], str, float]:
    """Start a server; return it with its address and the seconds until it answered."""
    port = free_port()
    command = {
        "ours": [sys.executable, "-m", "mlapp.cli", "serve", "--api-only", "--workers", "2"],
        "bare": [sys.executable, "benchmarks/bare_service.py"],
        "litserve": [litserve, "benchmarks/litserve_service.py"],
    }[kind]
    command += ["--port", str(port)] if kind == "ours" else [str(port)]
    began = time.perf_counter()
    server = subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    address = f"http://127.0.0.1:{port}"
    end = time.monotonic() + 60
    while time.monotonic() < end:
        try:
            ask(address + PATHS[kind]["rows"], BODIES["rows"])
        except OSError:
            time.sleep(0.02)
        else:
            return server, address, time.perf_counter() - began
    raise TimeoutError(kind)


def free_port() -> int:
    """Return a port of loopback that nothing listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def ask(address: str, body: object) -> bytes:
    """Post JSON and return the answer."""
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(address, json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=10) as answer:
        content: bytes = answer.read()
        return content


def load(
    server: subprocess.Popen[bytes], address: str, body: object, seconds: int, folder: Path
) -> tuple[float, float, float, float]:
    """Return requests per second, and what a request takes.

    That is the median and the 99th percentile of the time to an answer, in milliseconds, and the
    workers' processor time, in microseconds. Both workers are busy. It fails if any answer was not
    the expected.
    """
    (folder / "body").write_text(json.dumps(body))
    (folder / "expected").write_bytes(ask(address, body))
    (folder / "ask.lua").write_text(ASK)
    (folder / "compare.lua").write_text(ASK + COMPARE)
    environment = os.environ | {"BODY": str(folder / "body")}
    environment["EXPECTED"] = str(folder / "expected")
    command = ["wrk", "-t1", "-c16", address, "-s"]
    compared = [*command, str(folder / "compare.lua"), "-d1s"]
    timed = [*command, str(folder / "ask.lua"), "--latency", f"-d{seconds}s"]
    if "wrong answers: 0" not in run(compared, environment):
        raise RuntimeError(f"{address} gives wrong answers")
    for _ in range(10):
        before = spent(server)
        printed = run(timed, environment)
        used = [after - then for after, then in zip(spent(server), before, strict=True)]
        if len(used) != 2 or max(used) <= 0.6 * sum(used):
            rate = float(re.findall(r"Requests/sec:\s+([0-9.]+)", printed)[0])
            spent_each = 1e6 * sum(used) / TICKS / (rate * seconds)
            return rate, percentile(printed, 50), percentile(printed, 99), spent_each
    raise RuntimeError("ten times one worker took most of the connections")


def run(command: list[str], environment: dict[str, str]) -> str:
    """Return what wrk prints; it fails if a request does."""
    out = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    if "Socket errors" in out.stdout or "Non-2xx" in out.stdout:
        raise RuntimeError(out.stdout)
    return out.stdout


def percentile(printed: str, share: int) -> float:
    """Return a percentile that wrk printed, in milliseconds."""
    [(value, unit)] = re.findall(rf"\s{share}%\s+([0-9.]+)(us|ms|s)\n", printed)
    return float(value) * {"us": 1e-3, "ms": 1.0, "s": 1e3}[unit]


def workers(server: subprocess.Popen[bytes]) -> list[str]:
    """Return the process numbers of a server's workers."""
    listed = subprocess.run(["pgrep", "-P", str(server.pid)], capture_output=True, text=True)
    return listed.stdout.split()


def spent(server: subprocess.Popen[bytes]) -> list[int]:
    """Return the processor time of each worker so far, in clock ticks."""
    found = []
    for process in workers(server):
        fields = Path(f"/proc/{process}/stat").read_text(encoding="ascii").split()
        found.append(int(fields[13]) + int(fields[14]))
    return found


def resident(server: subprocess.Popen[bytes]) -> float:
    """Return the resident memory of a server, its workers and their processes in MB."""
    listed = subprocess.run(["pgrep", "-s", str(server.pid)], capture_output=True, text=True)
    total = 0
    for process in listed.stdout.split():
        status = Path(f"/proc/{process}/status").read_text(encoding="ascii")
        total += int(re.findall(r"VmRSS:\s+([0-9]+) kB", status)[0])
    return total / 1000


def measure(kind: str, seconds: int, litserve: str, folder: Path) -> list[float]:
    """Return a server's rates, percentiles, start-up and memory; NaN for what it does not serve."""
    server, address, ready = start(kind, litserve)
    try:
        found: list[float] = []
        for name, body in BODIES.items():
            if path := PATHS[kind].get(name):
                found += load(server, address + path, body, seconds, folder)[:3]
            else:
                found += [math.nan] * 3
        return [*found, ready, resident(server)]
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)  # LitServe leaves processes behind


def main() -> None:
    """Measure all in turns and print a table."""
    parser = argparse.ArgumentParser(description="Compare the service with a bare handler.")
    parser.add_argument("--seconds", type=int, default=4, choices=range(1, 61))
    parser.add_argument("--rounds", type=int, default=8, choices=range(1, 21))
    parser.add_argument("--litserve", default="", help="the Python of an environment with LitServe")
    options = parser.parse_args()
    kinds = [kind for kind in PATHS if kind != "litserve" or options.litserve]
    rounds: dict[str, list[list[float]]] = {kind: [] for kind in kinds}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(options.rounds):
            for kind in kinds:
                rounds[kind].append(measure(kind, options.seconds, options.litserve, Path(folder)))
    columns = ("rows/s", "p50 ms", "p99 ms", "reviews/s", "p50 ms", "p99 ms", "start s", "MB")
    print(" " * 14 + "".join(f"{column:>11}" for column in columns))
    found = {
        kind: [statistics.median(column) for column in zip(*each, strict=True)]
        for kind, each in rounds.items()
    }
    for kind, figures in found.items():
        print(f"{kind:14}" + "".join(f"{figure:11.2f}" for figure in figures))
    for kind in kinds:
        if kind != "ours":
            ratios = [a / b for a, b in zip(found["ours"], found[kind], strict=True)]
            print(f"ours/{kind}".ljust(14) + "".join(f"{ratio:11.2f}" for ratio in ratios))


if __name__ == "__main__":
    main()
