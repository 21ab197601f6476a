"""The manifest of a published version, and the opened version."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, JsonValue

from mlapp.schema import Schema

NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")
_FILE_NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$"  # without separators: in the version's folder


class Kind(NamedTuple):
    """What a model takes and gives; see `mlapp.families.contract`."""

    takes: Literal["row", "text"]
    gives: Literal["number", "labels"]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Data(_Strict):
    """The data that a model was trained on: its source, its size, and the SHA-256 of its file."""

    source: str
    rows: int
    columns: int
    sha256: str


class File(_Strict):
    """A file of a version: its size in bytes and its SHA-256."""

    size: int
    sha256: str


class Edges(_Strict):
    """The edges of the bins in which values are counted, ascending; see `mlapp.records.bins`."""

    kind: Literal["input", "extra", "answer"]
    name: str
    edges: tuple[float, ...] = Field(min_length=1)


class Golden(_Strict):
    """An input with the version's prediction for it at the time of publication."""

    input: dict[str, JsonValue]
    output: dict[str, JsonValue]


class Manifest(_Strict):
    """What a version is, how it was made, how good it is, and which files it has.

    `training` holds every option and seed, and under `command` the command that trains it again.
    `bins` has the bins of each number that is counted; None in older versions.
    """

    format: Literal[1] = 1
    name: str = Field(pattern=rf"^{NAME.pattern}$")
    task: str = Field(pattern=r"^[a-z][a-z0-9-]{0,63}$")
    version: int = Field(ge=1)
    created: AwareDatetime
    libraries: dict[str, str]
    data: Data
    training: dict[str, JsonValue]
    input_schema: Schema | None = None
    labels: tuple[str, ...] | None = None
    metrics: dict[str, JsonValue]
    bins: tuple[Edges, ...] | None = None
    golden: tuple[Golden, ...]
    files: dict[Annotated[str, Field(pattern=_FILE_NAME)], File]

    @property
    def kind(self) -> Kind:
        """What the model takes and gives."""
        return Kind(
            "row" if self.input_schema else "text", "number" if self.labels is None else "labels"
        )

    def describe_use(self, emphasis: str = "") -> str:
        """Return how many rows or texts of the data were used, as in "990 of 1,000 rows".

        Args:
            emphasis: what is put around the first number, as Markdown.
        """
        total, unit = self.data.rows, f"{self.kind.takes}s"
        used = self.training.get(f"{unit}_used")
        used = used if isinstance(used, int) else total
        if used > total:
            return f"{emphasis}{total:,}{emphasis} {unit} and {used - total:,} more"
        return f"{emphasis}{used:,}{emphasis} {f'of {total:,} ' if used != total else ''}{unit}"


@dataclass(frozen=True)
class Artifact:
    """An opened version: its manifest and the bytes of its files, with all digests checked."""

    path: Path
    manifest: Manifest
    files: Mapping[str, bytes]

    @property
    def size(self) -> int:
        """The size of the version's files in bytes, without the manifest."""
        return sum(file.size for file in self.manifest.files.values())


def command_of(manifest: Manifest) -> str | None:
    """Return the command that trained a version, if its manifest says one."""
    command = manifest.training.get("command")
    return command if isinstance(command, str) and command else None
