"""Downloads a file once, checked by its digest; what was cut off is resumed."""

import hashlib
import sys
import urllib.error
import urllib.request
from http import HTTPStatus
from pathlib import Path

from mlapp.errors import InvalidData
from training.progress import Progress
from training.tables import Say

TIMEOUT = 60  # seconds that a download may stand still
BLOCK = 1 << 18  # bytes read at a time


def download(url: str, sha256: str, folder: Path, say: Say = print) -> Path:
    """Return a file from the web, downloaded once; a download that was cut off is resumed.

    Args:
        url: where it is.
        sha256: what its content must have.
        folder: where it is kept; made if need be.
        say: called with a line about what happens.

    Raises:
        InvalidData: it cannot be had, or its content is another.
    """
    path = folder / url.rpartition("/")[2]
    if path.is_file() and _digest(path) == sha256:
        return path
    part = path.with_name(f"{path.name}.part")
    folder.mkdir(parents=True, exist_ok=True)
    say(f"Downloading {url} to {folder}")
    try:
        _fetch(url, part)
    except (OSError, urllib.error.URLError) as error:
        raise InvalidData(
            f"{url} cannot be downloaded: {error}. Run the command again to resume"
        ) from error
    found = _digest(part)
    if found != sha256:
        part.unlink()
        raise InvalidData(f"{url} has the SHA-256 {found}, expected {sha256}: it was removed")
    part.replace(path)
    return path


def _fetch(url: str, part: Path) -> None:
    done = part.stat().st_size if part.is_file() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={done}-"} if done else {})
    try:
        answer = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        with error:
            # The part is whole already: nothing lies behind its end.
            if done and error.code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                return
            raise
    with answer:
        # A server that knows no ranges sends everything.
        done = done if answer.status == HTTPStatus.PARTIAL_CONTENT else 0
        length = int(answer.headers.get("Content-Length") or 0)
        progress = Progress("download", done + length, done, sys.stderr)
        with part.open("ab" if done else "wb") as file:
            while block := answer.read(BLOCK):
                file.write(block)
                progress.advance(len(block))
        if length and part.stat().st_size < done + length:
            raise OSError("the connection was closed early")


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
