"""Requests per second of the service, beside a bare Flask handler, in one run.

    python benchmarks/service.py [--seconds 4] [--rounds 8]

Method: both are served on loopback by gunicorn with the same settings (two workers of 32 threads
each), in turns, and asked by wrk over 16 kept connections, one row or one review of median length
(174 words) a request. The bare handler parses the JSON and runs the model; ours also checks every
value, computes the interval, counts metrics, writes the access log and sets security headers.
Every answer is compared with the expected one in wrk; one that differs ends the run. The rates are
the best of the rounds: whether the connections are spread over both workers or fall to one is
chance at each round, and the best is one where they were spread. Start-up (until the first answer)
and memory (the resident set of all processes after the load) are medians.
"""

import argparse
import json
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

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
}
SCRIPT = """
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
local file = io.open(os.getenv("BODY")); wrk.body = file:read("a"); file:close()
local expected = io.open(os.getenv("EXPECTED")); local answer = expected:read("a"); expected:close()
local threads = {}
function setup(thread) table.insert(threads, thread) end
function init() wrong = 0 end
function response(status, headers, body)
  if status ~= 200 or body ~= answer then wrong = wrong + 1 end
end
function done()
  local all = 0
  for _, thread in ipairs(threads) do all = all + thread:get("wrong") end
  print("wrong answers: " .. all)
end
"""


def start(kind: str) -> tuple[subprocess.Popen[bytes], str, float]:
    """Start a server; return it with its address and the seconds until it answered."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    if kind == "ours":
        command = ["-m", "mlapp.cli", "serve", "--api-only", "--workers", "2", "--port", str(port)]
    else:
        command = ["-m", "gunicorn", "-w", "2", "-k", "gthread", "--threads", "32"]
        command += ["--keep-alive", "15", "-b", f"127.0.0.1:{port}", "benchmarks.bare_service:app"]
    began = time.perf_counter()
    server = subprocess.Popen(
        [sys.executable, *command],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
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


def ask(address: str, body: object) -> bytes:
    """Post JSON and return the answer."""
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(address, json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=10) as answer:
        content: bytes = answer.read()
        return content


def load(address: str, body: object, seconds: int, folder: Path) -> float:
    """Return requests per second; fail if any answer was not the expected one."""
    (folder / "body").write_text(json.dumps(body))
    (folder / "expected").write_bytes(ask(address, body))
    (folder / "script.lua").write_text(SCRIPT)
    environment = os.environ | {"BODY": str(folder / "body")}
    environment["EXPECTED"] = str(folder / "expected")
    command = ["wrk", "-t1", "-c16", f"-d{seconds}s", "-s", str(folder / "script.lua"), address]
    out = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    if "wrong answers: 0" not in out.stdout or "Socket errors" in out.stdout:
        raise RuntimeError(out.stdout)
    return float(re.findall(r"Requests/sec:\s+([0-9.]+)", out.stdout)[0])


def resident(server: subprocess.Popen[bytes]) -> float:
    """Return the resident memory of a server and its workers in MB."""
    listed = subprocess.run(["pgrep", "-P", str(server.pid)], capture_output=True, text=True)
    total = 0
    for process in [str(server.pid), *listed.stdout.split()]:
        status = Path(f"/proc/{process}/status").read_text(encoding="ascii")
        total += int(re.findall(r"VmRSS:\s+([0-9]+) kB", status)[0])
    return total / 1000


def main() -> None:
    """Measure both in turns and print a table."""
    parser = argparse.ArgumentParser(description="Measure the service beside a bare handler.")
    parser.add_argument("--seconds", type=int, default=4, choices=range(1, 61))
    parser.add_argument("--rounds", type=int, default=8, choices=range(1, 21))
    options = parser.parse_args()
    found: dict[str, list[list[float]]] = {kind: [] for kind in PATHS}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(options.rounds):
            for kind, paths in PATHS.items():
                server, address, ready = start(kind)
                try:
                    rates = [
                        load(address + paths[body], BODIES[body], options.seconds, Path(folder))
                        for body in BODIES
                    ]
                    found[kind].append([*rates, ready, resident(server)])
                finally:
                    server.terminate()
                    server.wait()
    print(f"{'':6}  {'rows/s':>8}  {'reviews/s':>9}  {'start-up':>8}  {'resident':>9}")
    chosen = {}
    for kind, rounds in found.items():
        columns = list(zip(*rounds, strict=True))
        chosen[kind] = [*map(max, columns[:2]), *map(statistics.median, columns[2:])]
    for kind, (rows, reviews, ready, memory) in chosen.items():
        print(f"{kind:6}  {rows:8.0f}  {reviews:9.0f}  {ready:6.2f} s  {memory:6.0f} MB")
    ratios = [a / b for a, b in zip(chosen["ours"], chosen["bare"], strict=True)]
    print(f"{'ratio':6}  {ratios[0]:8.2f}  {ratios[1]:9.2f}  {ratios[2]:8.2f}  {ratios[3]:9.2f}")


if __name__ == "__main__":
    main()
