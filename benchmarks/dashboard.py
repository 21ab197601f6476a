"""The latency of the regression page, compared with a minimal page.

    python benchmarks/dashboard.py [--starts 3] [--reruns 20]

Method: both pages are served on loopback by `streamlit run` and driven in one Chromium, in turns.
Start to first prediction: from the start of the server process until the answer to the chapter's
row stands on the page; the browser runs already, the server and its imports are cold. Rerun: from
the click on Predict, with one value changed, until the new answer stands there. Both are medians.
Resident memory is the server's after the reruns. The minimal page shows one number; ours shows the
interval, the reasons, a what-if curve and the history as well.
"""

import argparse
import re
import shutil
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from playwright.sync_api import Browser, expect, sync_playwright

ROOT = Path(__file__).resolve().parents[1]
ROW = {"var_1": "734", "var_2": "688", "var_3": "81", "var_4": "0.328", "var_5": "0.259"}
PAGES = {"ours": ("Home.py", "/regression"), "minimal": ("benchmarks/chapter_page.py", "/")}


def measure(browser: Browser, script: str, path: str, reruns: int) -> tuple[float, float, float]:
    """Return seconds to the first prediction, median seconds per rerun, and resident MB."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "streamlit", "run", script, f"--server.port={port}"]
    command += ["--server.headless=true", "--server.address=127.0.0.1"]
    began = time.perf_counter()
    server = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        wait_for(f"http://127.0.0.1:{port}/_stcore/health")
        page = browser.new_page()
        page.goto(f"http://127.0.0.1:{port}{path}")
        for name, value in ROW.items():
            page.get_by_label(name, exact=True).fill(value)
        shown = page.get_by_test_id("stMetricValue")
        page.get_by_role("button", name="Predict", exact=True).click()
        expect(shown).to_have_text("0.401", timeout=60_000)
        first = time.perf_counter() - began
        times = []
        for place in range(reruns):
            value, answer = (("900", "0.458"), ("734", "0.401"))[place % 2]
            page.get_by_label("var_1", exact=True).fill(value)
            clicked = time.perf_counter()
            page.get_by_role("button", name="Predict", exact=True).click()
            expect(shown).to_have_text(answer)
            times.append(time.perf_counter() - clicked)
        page.close()
        status = Path(f"/proc/{server.pid}/status").read_text(encoding="ascii")
        resident = int(re.findall(r"VmRSS:\s+([0-9]+) kB", status)[0]) / 1000
        return first, statistics.median(times), resident
    finally:
        server.terminate()
        server.wait()


def wait_for(address: str) -> None:
    """Return when a server answers; fail after a minute."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except OSError:
            time.sleep(0.02)
    raise TimeoutError(address)


def main() -> None:
    """Measure both pages in turns and print a table."""
    parser = argparse.ArgumentParser(description="Time the regression page in a browser.")
    parser.add_argument("--starts", type=int, default=3)
    parser.add_argument("--reruns", type=int, default=20)
    options = parser.parse_args()
    results: dict[str, list[tuple[float, float, float]]] = {name: [] for name in PAGES}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        for _ in range(options.starts):
            for name, (script, path) in PAGES.items():
                results[name].append(measure(browser, script, path, options.reruns))
        browser.close()
    print(f"{'':9}  start to first prediction  rerun    resident")
    middle = {}
    for name, runs in results.items():
        first, rerun, resident = middle[name] = [
            statistics.median(values) for values in zip(*runs, strict=True)
        ]
        print(f"{name:9}  {first:22.2f} s  {rerun * 1000:5.0f} ms  {resident:5.0f} MB")
    ratios = [
        ours / minimal for ours, minimal in zip(middle["ours"], middle["minimal"], strict=True)
    ]
    print(f"{'ratio':9}  {ratios[0]:24.2f}  {ratios[1]:8.2f}  {ratios[2]:8.2f}")


if __name__ == "__main__":
    main()
