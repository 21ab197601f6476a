"""Everything that is read from the environment, in one typed object."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mlapp.errors import InvalidSettings


@dataclass(frozen=True)
class Settings:
    """What the environment says.

    Attributes:
        artifacts: the folder of published models (`MLAPP_ARTIFACTS`; without it the checkout's
            `artifacts`, or `./artifacts` when mlapp is installed without its checkout).
        pins: versions to hold, by model name (`MLAPP_PINS`, as in `regression=1,sentiment=3`).
            They go before the pins that `mlapp pin` writes.
    """

    artifacts: Path
    pins: Mapping[str, int]


def read_settings(environ: Mapping[str, str] = os.environ) -> Settings:
    """Read the settings.

    Raises:
        InvalidSettings: a variable's value cannot be used; the message names it.
    """
    checkout = Path(__file__).resolve().parents[1]
    home = checkout if (checkout / "pyproject.toml").is_file() else Path()
    folder = environ.get("MLAPP_ARTIFACTS") or home / "artifacts"
    return Settings(artifacts=Path(folder), pins=_read_pins(environ.get("MLAPP_PINS", "")))


def _read_pins(text: str) -> dict[str, int]:
    pins = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        match = re.fullmatch(r"([^=\s]+)\s*=\s*([1-9][0-9]*)", part, re.ASCII)
        if not match:
            raise InvalidSettings(f"MLAPP_PINS: got {part!r}, expected NAME=VERSION")
        pins[match[1]] = int(match[2])
    return pins
