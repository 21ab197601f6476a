"""The wheel, installed outside a checkout: it trains, predicts and serves from an empty folder."""

import os
import shutil
import site
import subprocess
import sys
import tomllib
import venv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from playwright.sync_api import Page, expect

from tests.conftest import answers, free_port, make_houses, wait_until

pytestmark = pytest.mark.slow(6)

ROOT = Path(__file__).resolve().parents[1]
HOUSE: dict[str, Any] = {"area": 100.0, "rooms": 3, "district": "west"}
TAKEN = ("Home.py", "LICENSE", "README.md", "pyproject.toml")
FOLDERS = (".streamlit", "data", "mlapp", "pages", "training")


class Installed:
    """A virtual environment with the wheel, and an empty folder to use it in."""

    def __init__(self, python: Path, folder: Path) -> None:
        self.python, self.folder = python, folder
        kept = {key: value for key, value in os.environ.items() if not key.startswith("MLAPP_")}
        self.environment = kept | {"PYTHONDONTWRITEBYTECODE": "1"}
        self.environment.pop("PYTHONPATH", None)
        self.at_first = self.files()

    def run(self, *words: str) -> str:
        """Run Python in the folder; return what it prints."""
        ran = subprocess.run(
            [self.python, *words],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr
        return ran.stdout

    def files(self) -> dict[Path, int]:
        """Return the packages' files, and when each was last written."""
        packages = next(self.python.parents[1].glob("lib/python*/site-packages"))
        return {
            path: path.stat().st_mtime_ns
            for package in ("mlapp", "training")
            for path in (packages / package).rglob("*")
        }


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """The wheel of this checkout, installed; its dependencies are those of the tests."""
    root = tmp_path_factory.mktemp("wheel")
    source = root / "source"  # builders leave files behind
    for name in FOLDERS:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in TAKEN:
        shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    build = ["wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(root), str(source)]
    subprocess.run([*pip, *build], check=True)
    [wheel] = root.glob("*.whl")
    venv.create(root / "venv", symlinks=True)
    python = root / "venv" / "bin" / "python"
    subprocess.run([*pip, "--python", str(python), "install", "--no-deps", str(wheel)], check=True)
    packages = next((root / "venv").glob("lib/python*/site-packages"))
    # Later on the path than the wheel, and without running the .pth of the editable install.
    (packages / "tests.pth").write_text("\n".join(site.getsitepackages()))
    shutil.rmtree(source)
    folder = root / "empty"
    folder.mkdir()
    return Installed(python, folder)


@pytest.fixture(scope="module")
def trained_there(installed: Installed) -> Installed:
    """The folder, with a model that was trained in it by the installed `training`."""
    make_houses().to_csv(installed.folder / "x.csv", index=False)
    said = installed.run("-m", "training.regression", "--data", "x.csv", "--target", "price")
    assert "Published artifacts/regression/1" in said
    return installed


@pytest.fixture(scope="module")
def address(trained_there: Installed) -> Iterator[str]:
    """`mlapp serve`, as the wheel installs it, in that folder."""
    port = free_port()
    server = subprocess.Popen(
        [trained_there.python.with_name("mlapp"), "serve", "--port", str(port)],
        cwd=trained_there.folder,
        env=trained_there.environment,
    )
    wait_until(lambda: answers(f"http://127.0.0.1:{port}/readyz"), "mlapp serve")
    yield f"http://127.0.0.1:{port}"
    server.terminate()
    server.wait(timeout=60)


def test_mlapp_is_imported_from_the_wheel(installed: Installed) -> None:
    where = installed.run("-c", "import mlapp, training; print(mlapp.__file__, training.__file__)")
    assert all(str(installed.python.parents[1]) in path for path in where.split())


def test_training_without_a_file_takes_the_table_that_ships(installed: Installed) -> None:
    said = installed.run("-m", "training.regression", "--name", "shipped", "--artifacts", "other")
    assert "Published other/shipped/1" in said


def test_the_command_line_predicts_with_what_was_trained_there(trained_there: Installed) -> None:
    words = [word for name, value in HOUSE.items() for word in (f"--{name}", str(value))]
    said = trained_there.run("-m", "mlapp.cli", "predict", *words)
    assert said.startswith("prediction: ")


def test_the_service_answers_for_what_was_trained_there(address: str) -> None:
    answer = requests.post(
        f"{address}/v1/models/regression:predict", json={"instances": [HOUSE]}, timeout=30
    )
    assert answer.status_code == 200
    assert 200 < answer.json()["predictions"][0]["prediction"] < 400


def test_a_person_predicts_on_the_dashboard_which_has_its_theme(address: str, page: Page) -> None:
    page.goto(address)
    theme = tomllib.loads((ROOT / ".streamlit" / "config.toml").read_text())["theme"]
    red, green, blue = bytes.fromhex(theme["light"]["textColor"].removeprefix("#"))
    heading = page.get_by_role("heading", name="Models")
    expect(heading).to_have_css("color", f"rgb({red}, {green}, {blue})")
    page.get_by_role("link", name="Use regression").click()
    page.get_by_role("button", name="Predict", exact=True).click()
    expect(page.get_by_text("90% interval")).to_be_visible()


@pytest.mark.usefixtures("address")
def test_serving_and_training_write_nothing_into_the_packages(
    installed: Installed,
) -> None:
    assert installed.files() == installed.at_first
