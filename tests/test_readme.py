"""The commands and the code of the README do what it says; .ci/run runs its two set-ups."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import joblib
import pytest
from sklearn.linear_model import LinearRegression

from tests.conftest import SHIPPED, Server, make_houses, make_moods

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [README, *(page.read_text(encoding="utf-8") for page in sorted(ROOT.glob("docs/*.md")))]
BASH = re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
SHELL = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
PYTHON = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_ci_runs_the_two_set_up_commands_of_the_readme() -> None:
    assert "streamlit run Home.py" in BASH[0]
    assert ".[dev]" in BASH[1]
    assert "pytest" in BASH[1]
    ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert "$(block 1)" in ci
    assert "$(block 2)" in ci


def test_the_commit_hooks_check_what_ci_checks() -> None:
    hooks = (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    checks = re.findall(r"^\.venv/bin/((?:ruff|mypy|lint-imports).*)$", ci, re.MULTILINE)
    assert checks
    assert re.findall(r"entry: (.+)", hooks) == checks


def test_contributing_names_every_file_that_has_only_slow_tests() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    for path in (ROOT / "tests").glob("test_*.py"):
        if re.search(r"^pytestmark = .*slow", path.read_text(encoding="utf-8"), re.MULTILINE):
            assert path.name in text


@pytest.mark.slow(45)
def test_the_other_commands_run_as_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_houses().to_csv(tmp_path / "houses.csv", index=False)
    houses = make_houses().dropna()[["area", "rooms", "price"]]
    houses.to_csv(tmp_path / "train.csv", index=False)
    fitted = LinearRegression().fit(houses[["area", "rooms"]], houses["price"])
    joblib.dump(fitted, tmp_path / "model.joblib")
    moods = make_moods().rename(columns={"review": "text", "sentiment": "mood"})
    moods.to_csv(tmp_path / "reviews.csv", index=False)
    shutil.copytree(SHIPPED, tmp_path / "artifacts")
    scripts = Path(sys.executable).parent
    environment = os.environ | {
        "MLAPP_ARTIFACTS": str(tmp_path / "artifacts"),
        "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}",
    }
    blocks = [
        block for page in PAGES for block in re.findall(r"```bash\n(.*?)```", page, re.DOTALL)
    ]
    lines = dict.fromkeys(line for block in blocks[2:] for line in block.splitlines())
    commands = [line.partition("#")[0] for line in lines if line.strip()]
    assert len(commands) >= 5
    for command in commands:
        ran = subprocess.run(
            shlex.split(command), cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert ran.returncode == 0, f"{command}\n{ran.stdout}{ran.stderr}"


@pytest.mark.slow(8)
def test_the_services_start_as_printed_and_every_curl_line_is_answered(tmp_path: Path) -> None:
    starts = [line.partition("#")[0].split() for line in SHELL[0].splitlines()]
    assert [words[:2] for words in starts] == [["mlapp", "serve"], ["mlapp", "serve"]]
    for place, words in enumerate(starts):
        options = [word for word in words[2:] if word not in ("--port", "8080")]
        server = Server(SHIPPED, tmp_path / f"{place}.log", *options)
        try:
            lines = [line for line in SHELL[1].splitlines() if line.startswith("curl")]
            assert len(lines) == 9
            for line in lines:
                command = shlex.split(line.replace("http://127.0.0.1:8501", server.address))
                ran = subprocess.run(
                    [*command, "--fail", "-sS"],
                    cwd=ROOT,
                    capture_output=True,
                    text=True,
                    check=False,
                )
                assert ran.returncode == 0, line + ran.stderr
                if ":score" in line:
                    rows = (ROOT / "data" / "linear_regression_dataset.csv").read_text()
                    assert len(ran.stdout.splitlines()) == len(rows.splitlines())
                if "regression:predict" in line or "infer" in line:
                    assert "0.4011354763911" in ran.stdout
        finally:
            server.stop()


@pytest.mark.usefixtures("shipped")
def test_the_code_runs_as_printed() -> None:
    assert PYTHON
    for code in PYTHON:
        exec(code, {})


def test_the_files_that_the_readme_names_are_there() -> None:
    linked = re.findall(r"\]\(([^)#:]+)\)", README)
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    named = re.findall(r"`((?:mlapp|training|pages|benchmarks|data|\.ci)/[^`*<> ]*)`", text)
    assert linked
    assert named
    for path in [*linked, *named]:
        assert (ROOT / path).exists(), path
