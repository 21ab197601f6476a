"""The settings, read from the environment variables that begin with MLAPP_."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mlapp.errors import InvalidSettings

RECORDS = "records.db"  # the file of the records in the folder of artifacts


@dataclass(frozen=True)
class Settings:
    """The settings of a process.

    Attributes:
        artifacts: the folder of published models (`MLAPP_ARTIFACTS`; without it the checkout's
            `artifacts`, or `./artifacts` when mlapp is installed without its checkout).
        pins: versions to serve, by model name (`MLAPP_PINS`, as in `regression=1,sentiment=3`).
            They take precedence over the pins that `mlapp pin` writes.
        api_key: the key that clients of the service must send (`MLAPP_API_KEY`), if any.
        hosts: names that a request's `Host` may have (`MLAPP_HOSTS`, as in `models.example.org`,
            separated by commas), besides those of this machine; None if it is not set.
        max_bytes: the largest body of a request, in bytes (`MLAPP_MAX_BYTES`).
        max_rows: the most rows or texts of a request (`MLAPP_MAX_ROWS`).
        max_file_bytes: the largest file that is scored whole, in bytes (`MLAPP_MAX_FILE_BYTES`). It
            is kept in the folder for temporary files while it is scored.
        max_concurrent: predictions that a worker makes at once (`MLAPP_MAX_CONCURRENT`).
        cache_bytes: about how much memory the opened models may take together, in bytes
            (`MLAPP_CACHE_BYTES`); the least recently used are closed first.
        read_timeout: seconds for the headers of a request, and then for its body, which gets more
            time with each part that arrives (`MLAPP_READ_TIMEOUT`).
        json_log: whether the access log is JSON (`MLAPP_LOG`, `text` or `json`).
        database_url: where answers are recorded (`MLAPP_DATABASE_URL`, as in
            `postgresql://user:password@host/database` or `sqlite:////srv/records.db`); None means
            `records.db` in the folder of artifacts.
        log_answers: whether answers are recorded at all (`MLAPP_LOG_ANSWERS`, `on` or `off`).
        log_inputs: whether a record holds the values of the inputs (`MLAPP_LOG_INPUTS`, `values`
            or `none`).
        log_days: days for which records and feedback are kept (`MLAPP_LOG_DAYS`).
        shadows: versions that run in shadow mode, by model name (`MLAPP_SHADOW`, as in
            `sentiment=4`).
        admin: whether the dashboard may promote and roll back (`MLAPP_ADMIN`, `on` or `off`).
    """

    artifacts: Path
    pins: Mapping[str, int]
    api_key: str | None = None
    hosts: tuple[str, ...] | None = None
    max_bytes: int = 16 * 1024 * 1024
    max_rows: int = 10_000
    max_file_bytes: int = 2 * 1024**3
    max_concurrent: int = 64
    cache_bytes: int = 2 * 1024**3
    read_timeout: int = 15
    json_log: bool = False
    database_url: str | None = None
    log_answers: bool = True
    log_inputs: bool = False
    log_days: int = 90
    shadows: Mapping[str, int] = field(default_factory=dict)
    admin: bool = False


def dashboard_script() -> Path:
    """Return the dashboard's entry script: the checkout's Home.py, or the wheel's copy of it.

    Its pages and its `.streamlit/config.toml` are in the same folder.
    """
    return (_checkout() or Path(__file__).resolve().with_name("_dashboard")) / "Home.py"


def _checkout() -> Path | None:
    """Return the checkout that mlapp runs from, or None if it was installed as a wheel."""
    folder = Path(__file__).resolve().parents[1]
    return folder if (folder / "pyproject.toml").is_file() else None


def read_settings(environ: Mapping[str, str] = os.environ) -> Settings:
    """Read the settings.

    Raises:
        InvalidSettings: a variable's value cannot be used; the message names it.
    """
    folder = environ.get("MLAPP_ARTIFACTS") or (_checkout() or Path()) / "artifacts"
    return Settings(
        artifacts=Path(folder),
        pins=_read_versions(environ, "MLAPP_PINS"),
        api_key=environ.get("MLAPP_API_KEY", "").strip() or None,
        hosts=_read_names(environ.get("MLAPP_HOSTS", "")) or None,
        max_bytes=_read_count(environ, "MLAPP_MAX_BYTES", Settings.max_bytes),
        max_rows=_read_count(environ, "MLAPP_MAX_ROWS", Settings.max_rows),
        max_file_bytes=_read_count(environ, "MLAPP_MAX_FILE_BYTES", Settings.max_file_bytes),
        max_concurrent=_read_count(environ, "MLAPP_MAX_CONCURRENT", Settings.max_concurrent),
        cache_bytes=_read_count(environ, "MLAPP_CACHE_BYTES", Settings.cache_bytes),
        read_timeout=_read_count(environ, "MLAPP_READ_TIMEOUT", Settings.read_timeout),
        json_log=_read_choice(environ, "MLAPP_LOG", ("text", "json")) == "json",
        database_url=environ.get("MLAPP_DATABASE_URL") or None,
        log_answers=_read_choice(environ, "MLAPP_LOG_ANSWERS", ("on", "off")) == "on",
        log_inputs=_read_choice(environ, "MLAPP_LOG_INPUTS", ("none", "values")) == "values",
        log_days=_read_count(environ, "MLAPP_LOG_DAYS", Settings.log_days),
        shadows=_read_versions(environ, "MLAPP_SHADOW"),
        admin=_read_choice(environ, "MLAPP_ADMIN", ("off", "on")) == "on",
    )


def _read_count(environ: Mapping[str, str], name: str, default: int) -> int:
    text = environ.get(name) or str(default)
    if not re.fullmatch(r"[1-9][0-9]{0,14}", text, re.ASCII):
        raise InvalidSettings(
            f"{name}: got {text[:80]!r}, expected a whole number from 1, of at most 15 digits"
        )
    return int(text)


def _read_choice(environ: Mapping[str, str], name: str, choices: tuple[str, str]) -> str:
    """Return one of two values; the first if the variable is not set."""
    text = environ.get(name) or choices[0]
    if text not in choices:
        raise InvalidSettings(f"{name}: got {text!r}, expected {' or '.join(choices)}")
    return text


def _read_names(text: str) -> tuple[str, ...]:
    return tuple(filter(None, map(str.strip, text.split(","))))


def _read_versions(environ: Mapping[str, str], name: str) -> dict[str, int]:
    """Return versions by model name."""
    found = {}
    for part in _read_names(environ.get(name, "")):
        match = re.fullmatch(r"([^=\s]+)\s*=\s*([1-9][0-9]{0,8})", part, re.ASCII)
        if not match:
            raise InvalidSettings(f"{name}: got {part[:80]!r}, expected NAME=VERSION")
        if match[1] in found:
            raise InvalidSettings(f"{name}: got {match[1]!r} twice, expected each name once")
        found[match[1]] = int(match[2])
    return found
