"""`mlapp models`, `verify`, `pin` and `unpin`: published versions."""

from mlapp import store
from mlapp.errors import MlappError, ModelNotFound
from mlapp.families.contract import replay
from mlapp.settings import read_settings
from mlapp.store import artifacts


def list_models() -> int:
    """Print a line for each published version; those that do not open say why below."""
    root = read_settings().artifacts
    lines = [("NAME", "VERSION", "TASK", "CREATED (UTC)", "QUALITY", "SIZE", "OPENS", "SERVED")]
    troubles = []
    for name in artifacts.names(root):
        try:
            served = artifacts.served_version(root, name)
            held = artifacts.pinned(root, name) is not None
        except MlappError as error:
            served, held = 0, False
            troubles.append(str(error))
        for version in artifacts.versions(root, name):
            task = created = quality = size = "?"
            try:
                path = root / name / str(version)
                manifest = artifacts.read_manifest(path)
                task, created = manifest.task, f"{manifest.created:%Y-%m-%d %H:%M}"
                size = f"{sum(file.size for file in manifest.files.values()) / 1000:,.0f} kB"
                quality = " ".join(store.open_model(root, name, version).headline[:2])
                opens = "yes"
            except MlappError as error:
                opens = "no"
                troubles.append(str(error))
            mark = ("pinned" if held else "yes") if version == served else ""
            if not mark and version in artifacts.candidates(root, name):
                mark = "candidate"
            lines.append((name, str(version), task, created, quality, size, opens, mark))
    if len(lines) == 1:
        print(f"No models in {root}. Train one: python -m training.regression")
        return 0
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        print("  ".join(cells).rstrip())
    for trouble in troubles:
        print(trouble)
    return 0


def verify_models(name: str | None) -> int:
    """Open every version of a model, or of all, and replay its golden predictions.

    Raises:
        ModelNotFound: there is nothing to verify.
    """
    root = read_settings().artifacts
    chosen = [name] if name else artifacts.names(root)
    found = [(each, version) for each in chosen for version in artifacts.versions(root, each)]
    if not found:
        raise ModelNotFound(
            f"No complete version of {repr(name) if name else 'any model'} in {root}"
        )
    status = 0
    for each, version in found:
        try:
            replay(store.open_model(root, each, version))
            print(f"{each} {version}: ok")
        except MlappError as error:
            status = 1
            print(f"{each} {version}: FAILED: {error}")
    return status


def pin_version(name: str, version: int | None) -> int:
    """Hold a version of a model, or with None release it, and print which is served.

    Raises:
        ModelNotFound: there is no such version.
        InvalidSettings: the environment holds a version.
    """
    root = read_settings().artifacts
    if version is None:
        artifacts.unpin(root, name)
    else:
        artifacts.pin(root, name, version)
    print(f"{name}: version {artifacts.served_version(root, name)} is served")
    return 0
