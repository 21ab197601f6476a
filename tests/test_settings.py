from pathlib import Path

import pytest

from mlapp.errors import InvalidSettings
from mlapp.settings import dashboard_script, read_settings

ROOT = Path(__file__).resolve().parents[1]


def test_the_artifact_folder_is_the_checkouts_by_default() -> None:
    assert read_settings({}).artifacts == ROOT / "artifacts"


def test_the_dashboard_is_the_checkouts() -> None:
    assert dashboard_script() == ROOT / "Home.py"


def test_the_artifact_folder_can_be_set() -> None:
    assert read_settings({"MLAPP_ARTIFACTS": "/srv/models"}).artifacts == Path("/srv/models")


def test_pins_are_read_by_name() -> None:
    pins = read_settings({"MLAPP_PINS": "regression=1, sentiment = 12"}).pins
    assert pins == {"regression": 1, "sentiment": 12}


def test_the_limits_are_whole_numbers() -> None:
    assert read_settings({}).max_file_bytes == 2 * 1024**3
    assert read_settings({"MLAPP_MAX_FILE_BYTES": "5"}).max_file_bytes == 5
    with pytest.raises(InvalidSettings, match="MLAPP_MAX_FILE_BYTES: got '2g', expected a whole"):
        read_settings({"MLAPP_MAX_FILE_BYTES": "2g"})
    with pytest.raises(InvalidSettings, match="at most 15 digits"):
        read_settings({"MLAPP_MAX_FILE_BYTES": "9" * 5_000})


@pytest.mark.parametrize(
    "text",
    ["regression", "regression=", "regression=0", "a=1;b=2", "=3", "a=1,a=2", f"a={'9' * 5_000}"],
)
def test_a_pin_that_cannot_be_read_is_named(text: str) -> None:
    with pytest.raises(InvalidSettings, match="MLAPP_PINS"):
        read_settings({"MLAPP_PINS": text})
