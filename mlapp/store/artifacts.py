"""Published versions of models on disk: publish, open, pin.

    artifacts/<name>/<version>/manifest.json and the files it names
    artifacts/<name>/pinned       the pinned version, if there is one
    artifacts/<name>/candidate-<version>   marks a version that is not served; see `promotion`

Versions are whole numbers from 1, as in the model repositories of TensorFlow Serving and Triton;
the newest that is not a candidate is served, unless one is pinned. A version appears by one rename,
so it is complete or absent. Nothing is deserialized before its SHA-256 is checked. That protects
against damage, not against malice: anyone who can write to the folder can change what is served.
"""

import hashlib
import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version as library_version
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from mlapp.disk import reason, sync_folder, writing
from mlapp.errors import ArtifactError, InvalidSettings, ModelNotFound, quote
from mlapp.manifest import NAME, Artifact, File, Kind, Manifest, command_of
from mlapp.settings import RECORDS, read_settings

FORMAT = 1
MANIFEST = "manifest.json"
PIN = "pinned"
LARGEST_VERSION = 10**9
_VERSION = re.compile(r"[1-9][0-9]{0,8}", re.ASCII)
TEMPORARY = ".publishing-"
LISTED = 10  # the most models that a message names

_STALE_SECONDS = 24 * 3600


# --- finding ---------------------------------------------------------------------------------


def names(root: Path) -> list[str]:
    """Return the names of the models with a published version, sorted."""
    return [name for name in _folders(root) if versions(root, name)]


def served_names(root: Path) -> list[str]:
    """Return the names of the models with a version to serve, sorted; see `is_served`."""
    return [name for name in _folders(root) if is_served(root, name)]


def _folders(root: Path) -> list[str]:
    """Return the names of what is in the folder of artifacts, sorted."""
    return sorted(path.name for path in root.iterdir()) if root.is_dir() else []


def is_served(root: Path, name: str) -> bool:
    """Return whether a model has a version to serve: a pinned one, or one that is no candidate.

    Whether it can be opened is another question. A model that has only candidates is not served.
    """
    found = versions(root, name)
    if any(not candidate_mark(root, name, each).exists() for each in reversed(found)):
        return True
    try:
        return bool(found) and pinned(root, name) is not None
    except ArtifactError:  # the pin cannot be read, which opening the model reports
        return True


def versions(root: Path, name: str) -> list[int]:
    """Return the complete versions of a model, oldest first; none for an unknown name."""
    return [
        number
        for number in _numbers(root / name)
        if (root / name / str(number) / MANIFEST).is_file()
    ]


def require_model(root: Path, name: str) -> list[int]:
    """Return the complete versions of a model, oldest first.

    Raises:
        ModelNotFound: there are none; the message names the models that there are.
    """
    found = versions(root, name)
    if not found:
        raise no_model(root, repr(name))
    return found


def no_model(root: Path, wanted: str) -> ModelNotFound:
    """Return the error for a model that is not published, which says what is.

    Args:
        root: the artifact folder.
        wanted: the model, in words.
    """
    message, there = f"No complete version of {wanted} in {root}", names(root)
    if there:
        return ModelNotFound(f"{message}; the models there are {quote(there, LISTED)}")
    return ModelNotFound(f"{message}, which has no models", "python -m training.regression")


def pinned(root: Path, name: str) -> int | None:
    """Return the pinned version, or None; `MLAPP_PINS` takes precedence over `mlapp pin`."""
    held = read_settings().pins.get(name)
    if held is not None:
        return held
    try:
        text = (root / name / PIN).read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise ArtifactError(
            f"{root / name / PIN} cannot be read: {error}", f"mlapp unpin {name}"
        ) from error
    if not _VERSION.fullmatch(text):
        raise ArtifactError(
            f"{root / name / PIN}: got {text!r}, expected a version number", f"mlapp unpin {name}"
        )
    return int(text)


def served_version(root: Path, name: str) -> int:
    """Return the pinned version, or else the newest that is not a candidate.

    If it cannot be opened, an older one is served instead; see `store.open_served`.

    Raises:
        ModelNotFound: nothing but candidates is published under the name, or the pinned version
            is missing.
    """
    found = require_model(root, name)
    held = pinned(root, name)
    if held is None:
        waiting = candidates(root, name)
        served = [number for number in found if number not in waiting]
        if not served:
            raise ModelNotFound(
                f"All versions of {name!r} in {root} are candidates", f"mlapp promote {name}"
            )
        return served[-1]
    if held not in found:
        there = ", ".join(map(str, found))
        raise ModelNotFound(
            f"{name} is pinned to version {held}; published are {there}", how_to_unpin(name)
        )
    return held


def how_to_unpin(name: str) -> str:
    """Return what releases a pinned model: a command, or a change of the settings."""
    in_settings = name in read_settings().pins
    return f"change MLAPP_PINS, which holds {name}" if in_settings else f"mlapp unpin {name}"


def servable(root: Path, name: str) -> list[int]:
    """Return the versions that may be served, best first: the pinned one, or all, newest first.

    Raises:
        ModelNotFound: as `served_version`.
    """
    first = served_version(root, name)
    if pinned(root, name) is not None:
        return [first]
    waiting = candidates(root, name)
    found = (number for number in reversed(versions(root, name)) if number not in waiting)
    return [number for number in found if number <= first]


def candidates(root: Path, name: str) -> list[int]:
    """Return the complete versions that are not served by default, oldest first."""
    return [each for each in versions(root, name) if candidate_mark(root, name, each).exists()]


def candidate_mark(root: Path, name: str, version: int) -> Path:
    """Return the file whose presence makes a version a candidate."""
    return root / name / f"candidate-{version}"


def fingerprint(root: Path, name: str, version: int) -> tuple[tuple[str, int, int, int], ...]:
    """Return the name, size and times of modification and change of each file of a version."""
    try:
        with os.scandir(root / name / str(version)) as entries:
            found = [(entry.name, entry.stat()) for entry in entries]
    except OSError:
        return ()
    times = ((file, each.st_size, each.st_mtime_ns, each.st_ctime_ns) for file, each in found)
    return tuple(sorted(times))


def kind(root: Path, name: str) -> Kind | None:
    """Return what a model takes and gives, from its newest intact manifest, if there is one."""
    for number in reversed(versions(root, name)):
        try:
            return read_manifest(root / name / str(number)).kind
        except ArtifactError:
            continue
    return None


def readable_manifests(root: Path, name: str) -> list[Manifest]:
    """Return the manifests of a model's versions, oldest first, without those that are damaged."""
    found = []
    for number in versions(root, name):
        try:
            found.append(read_manifest(root / name / str(number)))
        except ArtifactError:
            continue
    return found


def train_command(path: Path) -> str | None:
    """Return the command that makes a version anew: for a candidate, as a candidate.

    It is that of the version's manifest. If that is damaged, it is that of the newest intact
    manifest of the same model, or None.
    """
    command = _find_command(path)
    root, name = path.parent.parent, path.parent.name
    is_version = _VERSION.fullmatch(path.name)  # while it is published, it has no number
    if not (command and is_version and candidate_mark(root, name, int(path.name)).exists()):
        return command
    can_retrain = is_served(root, name) and not command.startswith("mlapp publish ")
    return f"mlapp retrain {name}" if can_retrain else f"{command} --candidate"


def _find_command(path: Path) -> str | None:
    numbers = sorted(_numbers(path.parent), reverse=True)
    for folder in (path, *(path.parent / str(number) for number in numbers)):
        try:
            if command := command_of(_parse_manifest(folder / MANIFEST)):
                return command
        except ArtifactError:
            continue
    return None


# --- opening ---------------------------------------------------------------------------------


def open(root: Path, name: str, version: int | None = None) -> Artifact:  # noqa: A001
    """Open a version, by default the one that is served.

    Raises:
        ModelNotFound: there is no such version.
        ArtifactError: it is damaged or has another format; the message names the file.
    """
    version = served_version(root, name) if version is None else version
    path = root / name / str(version)
    if not (path / MANIFEST).is_file():
        raise ModelNotFound(f"There is no version {version} of {name!r} in {root}")
    return _read(path, name, version)


def read_manifest(path: Path) -> Manifest:
    """Read the manifest in a version's folder, and check its digest.

    Raises:
        ArtifactError: it is missing, damaged or has another format.
    """
    try:
        return _parse_manifest(path / MANIFEST)
    except ArtifactError as error:
        raise ArtifactError(error.message, error.fix or train_command(path)) from error


def _parse_manifest(file: Path) -> Manifest:
    try:
        raw = file.read_bytes()
        content = json.loads(raw)
        found = content["format"]
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise ArtifactError(f"{file} cannot be read as a manifest: {error!r}") from error
    if found != FORMAT:
        raise ArtifactError(
            f"{file} has format {found!r}; this mlapp reads format {FORMAT}", "upgrade mlapp"
        )
    digest = content.pop("digest", None)
    if raw != _serialize({**content, "digest": digest}) or digest != _sha256(_serialize(content)):
        raise ArtifactError(f"{file} is damaged: its digest does not match")
    try:
        return Manifest.model_validate_json(_serialize(content))
    except ValidationError as error:
        raise ArtifactError(f"{file} is not a valid manifest: {error}") from error


def _read(path: Path, name: str, version: int) -> Artifact:
    manifest = read_manifest(path)
    fix = train_command(path)
    if (manifest.name, manifest.version) != (name, version):
        raise ArtifactError(
            f"{path} is version {manifest.version} of {manifest.name!r}: it was moved here", fix
        )
    extra = sorted({entry.name for entry in path.iterdir()} - {MANIFEST, *manifest.files})
    if extra:
        raise ArtifactError(
            f"{path} has files that its manifest does not list: {', '.join(extra)}", fix
        )
    files = {}
    for file, entry in manifest.files.items():
        if (path / file).is_symlink():
            raise ArtifactError(f"{path / file} is a link, expected a file", fix)
        try:
            content = (path / file).read_bytes()
        except OSError as error:
            raise ArtifactError(f"{path / file} cannot be read: {reason(error)}", fix) from error
        if len(content) != entry.size:
            raise ArtifactError(
                f"{path / file} has {len(content)} bytes, expected {entry.size}", fix
            )
        if _sha256(content) != entry.sha256:
            raise ArtifactError(f"{path / file} is damaged: its digest does not match", fix)
        files[file] = content
    return Artifact(path, manifest, files)


# --- publishing ------------------------------------------------------------------------------


def require_name(name: str) -> None:
    """Refuse a name that no model can have.

    Raises:
        ArtifactError: it cannot be used.
    """
    if not NAME.fullmatch(name):
        raise ArtifactError(
            f"The name {name!r} cannot be used: expected at most 64 lower-case letters,"
            " digits, '-', '_' and '.', beginning with a letter or digit"
        )
    if name.startswith(RECORDS):  # SQLite has more files, whose names begin so
        raise ArtifactError(f"The name {name!r} cannot be used: the file of the records has it")


def choose_root(root: Path | None, name: str) -> Path:
    """Return the artifact folder that a model can be published to, before there is a model.

    Args:
        root: by default that of the settings.
        name: the model's name.

    Raises:
        ArtifactError: the name or the folder cannot be used.
    """
    require_name(name)
    root = read_settings().artifacts if root is None else root
    folder = root / name
    nearest = next(each for each in (folder, *folder.parents) if each.exists())
    if not (nearest.is_dir() and os.access(nearest, os.W_OK)):
        raise ArtifactError(f"Nothing can be published to {root}: {nearest} cannot be written to")
    return root


def draft(
    name: str, files: Mapping[str, bytes], libraries: tuple[str, ...], **fields: Any
) -> Artifact:
    """Return an unpublished artifact with version 1.

    Args:
        name: the model's name.
        files: content by file name.
        libraries: the distributions whose versions are recorded.
        fields: of the manifest: task, data, training, metrics, golden, and input_schema or labels.

    Raises:
        ArtifactError: the name cannot be used.
    """
    require_name(name)
    manifest = Manifest(
        name=name,
        version=1,
        created=datetime.now(UTC).replace(microsecond=0),
        libraries={library: library_version(library) for library in libraries},
        files={file: File(size=len(data), sha256=_sha256(data)) for file, data in files.items()},
        **fields,
    )
    return Artifact(Path(), manifest, dict(files))


def publish(
    root: Path, drafted: Artifact, check: Callable[[Artifact], None], *, candidate: bool = False
) -> Artifact:
    """Publish a draft as the next version, and return it as read back from disk.

    The files are written to a temporary folder, read back and passed to `check`, and become
    visible by one rename. If the process is killed, the served version is unchanged. If two
    processes publish at once, the later one takes the next number.

    Args:
        root: the artifact folder; it is created if necessary.
        drafted: what `draft` returned.
        check: opens the model and replays its golden predictions; raises if anything is wrong.
        candidate: whether the version waits for `promotion.promote` before it is served.

    Raises:
        OutputError: the folder cannot be written to; `DiskFull` where the disk is full.
        ArtifactError: `check` says so.
    """
    with writing(str(root / drafted.manifest.name)):
        return _publish(root, drafted, check, candidate)


def _publish(
    root: Path, drafted: Artifact, check: Callable[[Artifact], None], candidate: bool
) -> Artifact:
    name = drafted.manifest.name
    parent = root / name
    parent.mkdir(parents=True, exist_ok=True)
    _remove_stale(parent)
    temporary = parent / f"{TEMPORARY}{secrets.token_hex(8)}"
    temporary.mkdir()
    try:
        for file, content in drafted.files.items():
            _write(temporary / file, content)
        number = 0
        while True:
            number = max([number, *_numbers(parent)]) + 1
            manifest = drafted.manifest.model_copy(update={"version": number})
            write_manifest(temporary / MANIFEST, manifest.model_dump(mode="json"))
            check(_read(temporary, name, number))
            sync_folder(temporary)
            if _take_number(temporary, number, candidate):
                break
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    sync_folder(parent)
    return _read(parent / str(number), name, number)


def write_manifest(file: Path, stated: Mapping[str, Any]) -> None:
    """Write a manifest's content with its digest."""
    _write(file, _serialize({**stated, "digest": _sha256(_serialize(stated))}))


def _take_number(temporary: Path, number: int, candidate: bool) -> bool:
    """Rename a folder to its number, and return whether the number was free."""
    parent = temporary.parent
    mark = candidate_mark(parent.parent, parent.name, number)
    with locked(parent):
        if (parent / str(number)).exists():
            return False
        if candidate:
            mark.touch()  # before the version is visible
        else:
            mark.unlink(missing_ok=True)  # of a publication that was killed here
        try:
            temporary.rename(parent / str(number))
        except OSError:
            mark.unlink(missing_ok=True)
            raise
    return True


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the exclusive lock of a model's folder, between processes; on Windows there is none."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def pin(root: Path, name: str, version: int) -> None:
    """Pin a version: it is served even if newer ones are published.

    Raises:
        ModelNotFound: there is no such version.
        OutputError: the folder cannot be written to.
    """
    _require_no_setting(name)
    require_version(root, name, version)
    temporary = root / name / f"{TEMPORARY}{secrets.token_hex(8)}"
    with writing(str(root / name / PIN)):
        _write(temporary, f"{version}\n".encode())
        temporary.replace(root / name / PIN)


def require_version(root: Path, name: str, version: int) -> None:
    """Check that a version is published.

    Raises:
        ModelNotFound: it is not; the message lists those that are.
    """
    found = versions(root, name)
    if version not in found:
        there = names(root)
        others = "" if found or not there else f"; the models there are {quote(there, LISTED)}"
        published = ", ".join(map(str, found)) or "none"
        raise ModelNotFound(
            f"There is no version {version} of {name!r} in {root}; published: {published}{others}"
        )


def unpin(root: Path, name: str) -> None:
    """Unpin the version, if one is pinned: the newest that is not a candidate is served again.

    Raises:
        ModelNotFound: nothing is published under the name.
        OutputError: the folder cannot be written to.
    """
    _require_no_setting(name)
    require_model(root, name)
    with writing(str(root / name / PIN)):
        (root / name / PIN).unlink(missing_ok=True)


def _require_no_setting(name: str) -> None:
    if name in read_settings().pins:
        raise InvalidSettings(f"MLAPP_PINS holds a version of {name}: change it there")


# --- files -----------------------------------------------------------------------------------


def _numbers(folder: Path) -> list[int]:
    """Return the whole numbers from 1 that name folders inside, ascending."""
    if not NAME.fullmatch(folder.name) or not folder.is_dir():
        return []
    try:
        found = [entry.name for entry in folder.iterdir() if entry.is_dir()]
    except OSError:  # the other models are served
        return []
    return sorted(int(entry) for entry in found if _VERSION.fullmatch(entry))


def _serialize(content: Mapping[str, Any]) -> bytes:
    text = json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return text.encode() + b"\n"


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _remove_stale(folder: Path) -> None:
    """Remove temporary folders of processes that were killed a day ago or earlier."""
    for entry in folder.glob(f"{TEMPORARY}*"):
        if time.time() - entry.stat().st_mtime > _STALE_SECONDS:
            shutil.rmtree(entry, ignore_errors=True) if entry.is_dir() else entry.unlink()
