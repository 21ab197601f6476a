"""`mlapp models`, `verify`, `pin`, `unpin`, `remove` and `rename`: published versions."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from mlapp import store
from mlapp.cli.score import parse_count
from mlapp.errors import MlappError, ModelNotFound, RecordsUnavailable
from mlapp.families.contract import replay
from mlapp.settings import read_settings
from mlapp.store import artifacts, changes


def add_parsers(commands: "argparse._SubParsersAction[Any]") -> None:
    """Add the commands' options."""
    listed = commands.add_parser("models", help="list every published version")
    listed.add_argument("--json", action="store_true", help="as JSON, for programs")
    listed.set_defaults(run=lambda options: print_models() if options.json else list_models())
    verify = commands.add_parser("verify", help="check digests and replay golden predictions")
    verify.add_argument("name", nargs="?", metavar="NAME", help="a model (default: all)")
    verify.set_defaults(run=lambda options: verify_models(options.name))
    pin = commands.add_parser("pin", help="serve a version even if newer ones are published")
    pin.add_argument("name", metavar="NAME")
    pin.add_argument("version", metavar="VERSION", type=parse_count)
    pin.set_defaults(run=lambda options: pin_version(options.name, options.version))
    unpin = commands.add_parser("unpin", help="serve the newest version, except candidates")
    unpin.add_argument("name", metavar="NAME")
    unpin.set_defaults(run=lambda options: pin_version(options.name, None))
    rename = commands.add_parser("rename", help="give a model another name")
    rename.add_argument("old", metavar="OLD")
    rename.add_argument("new", metavar="NEW")
    rename.set_defaults(run=lambda options: rename_model(options.old, options.new))
    remove = commands.add_parser("remove", help="delete a published version")
    remove.add_argument("name", metavar="NAME")
    remove.add_argument("version", metavar="VERSION", type=parse_count)
    remove.set_defaults(run=lambda options: remove_version(options.name, options.version))


def list_models() -> int:
    """Print a line for each published version, then why some cannot be opened."""
    root = read_settings().artifacts
    lines = [("NAME", "VERSION", "TASK", "CREATED (UTC)", "QUALITY", "SIZE", "OPENS", "SERVED")]
    found, troubles = describe_models(root)
    for each in found:
        size = "?" if each["bytes"] is None else f"{each['bytes'] / 1000:,.0f} kB"
        created = "?" if each["created"] is None else each["created"][:16].replace("T", " ")
        quality = "?" if each["quality"] is None else " ".join(each["quality"].values())
        mark = "" if each["state"] == "old" else {"served": "yes"}.get(each["state"], each["state"])
        opens = "yes" if each["opens"] else "no"
        version, task = str(each["version"]), each["task"] or "?"
        lines.append((each["name"], version, task, created, quality, size, opens, mark))
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


def print_models() -> int:
    """Print every published version as a JSON array; see `describe_models`."""
    found, troubles = describe_models(read_settings().artifacts)
    print(json.dumps(found, indent=1, ensure_ascii=False))
    for trouble in troubles:
        print(trouble, file=sys.stderr)
    return 0


def describe_models(root: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """Return a description of each published version, and the errors that were found.

    A version has: name, version, task, takes, gives, created, bytes, metrics, quality, opens, fault
    (why it cannot be opened) and state: `served`, `pinned` (and served, if it opens), `candidate`,
    `refused` (it would be served if it opened) or `old`. Unknown values are None.
    """
    found, troubles = [], []
    for name in artifacts.names(root):
        try:
            wanted = artifacts.servable(root, name)
            held = artifacts.pinned(root, name) is not None
        except MlappError as error:
            wanted, held = [], False
            troubles.append(str(error))
        numbers, waiting = artifacts.versions(root, name), artifacts.candidates(root, name)
        listed = {version: describe_version(root, name, version) for version in numbers}
        served = next((each for each in wanted if each in listed and listed[each]["opens"]), 0)
        for version, each in listed.items():
            state = "candidate" if version in waiting else "old"
            if version in wanted and version >= served:
                state = "pinned" if held else "served" if version == served else "refused"
            found.append(each | {"state": state})
            troubles += [each["fault"]] if each["fault"] else []
    return found, troubles


def describe_version(root: Path, name: str, version: int) -> dict[str, Any]:
    """Return the description of a version without its state; see `describe_models`."""
    described: dict[str, Any] = {"name": name, "version": version}
    keys = ("task", "takes", "gives", "created", "bytes", "metrics", "quality", "fault")
    described |= dict.fromkeys(keys) | {"opens": False}
    try:
        manifest = artifacts.read_manifest(root / name / str(version))
        described |= {
            "task": manifest.task,
            "takes": manifest.kind.takes,
            "gives": manifest.kind.gives,
            "created": manifest.created.isoformat(),
            "bytes": sum(file.size for file in manifest.files.values()),
            "metrics": dict(manifest.metrics),
        }
        headline = store.open_model(root, name, version).headline
        described["quality"] = {"name": headline.name, "value": headline.value}
        described["opens"] = True
    except MlappError as error:
        described["fault"] = str(error)
    return described


def remove_version(name: str, version: int) -> int:
    """Delete a version, and print which one is served now.

    Raises:
        ModelNotFound: there is no such version.
        InvalidSettings: it is pinned.
        OutputError: the folder of the model cannot be written to.
    """
    root = read_settings().artifacts
    changes.remove(root, name, version)
    print(f"{name}: version {version} is removed; {_describe_served(root, name)}")
    return 0


def _describe_served(root: Path, name: str) -> str:
    """Return which version of a model is served, or why none is."""
    try:
        return f"version {store.open_model(root, name).manifest.version} is served"
    except ModelNotFound:
        return "nothing is served"
    except MlappError as error:
        return f"nothing is served: {error}"


def rename_model(old: str, new: str) -> int:
    """Give a model another name.

    Raises:
        ModelNotFound: nothing is published under the old name.
        ArtifactError: the new name is taken or cannot be used.
        OutputError: the folder of the models cannot be written to.
        RecordsUnavailable: what is recorded of it cannot be renamed, so nothing is.
    """
    from mlapp.records.database import Database  # take longer to import than other commands run
    from mlapp.records.renaming import renamed

    settings = read_settings()
    try:
        records = renamed(Database(settings), old, new)
        changes.rename(settings.artifacts, old, new, records)
    except RecordsUnavailable as error:
        raise RecordsUnavailable(f"{error}; {old} is not renamed") from error
    print(f"{old} is now {new}")
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
        raise artifacts.no_model(root, repr(name) if name else "any model")
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
    """Pin a version of a model, or unpin it if None, and print which one is served.

    Raises:
        ModelNotFound: there is no such version.
        InvalidSettings: the environment pins a version.
        OutputError: the folder of the model cannot be written to.
    """
    root = read_settings().artifacts
    if version is None:
        artifacts.unpin(root, name)
    else:
        artifacts.pin(root, name, version)
    print(f"{name}: {_describe_served(root, name)}")
    return 0
