"""A table scored into a file or a stream, row by row in order."""

import time
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias, cast

from mlapp.errors import InvalidTable, OutputError
from mlapp.families.contract import Model
from mlapp.scoring.batch import Options, Origin, Part, Scorer, make_plan, score_table
from mlapp.scoring.outputs import FileOutput, Report, StreamOutput
from mlapp.scoring.summary import RefusedRow, Summary, describe_refused
from mlapp.tables.formats import FileFormat, format_of
from mlapp.tables.reading import open_table

# Called with the rows that are done, and the share of the input's bytes, None where it has no end.
Progress: TypeAlias = Callable[[int, float | None], None]


def score(
    model: Model,
    source: Path | BinaryIO,
    target: Path | BinaryIO,
    options: Options = Options(),  # noqa: B008  # frozen
    *,
    source_format: FileFormat | None = None,
    target_format: FileFormat | None = None,
    workers: int | None = None,
    strict: bool = False,
    resume: bool = False,
    progress: Progress | None = None,
    stop: Callable[[], bool] | None = None,
    origin: Origin | None = None,
    scorer: Scorer | None = None,
    report: Report = lambda _: None,
) -> Summary[RefusedRow]:
    """Score a table into a file or a stream, row by row in order.

    Args:
        model: any published model.
        source: a file, or an open stream of bytes, which stays open.
        target: a file, or an open stream of bytes, which stays open.
        options: see `Options`.
        source_format: that of the source; by default what its name says.
        target_format: that of the target; by default what its name says, and CSV for a stream.
        workers: threads, by default one for each core.
        strict: whether the first refused row ends the run; nothing is then written.
        resume: whether to resume a run from this file into the same file that was cut off, if there
            is one.
        progress: called after each chunk.
        stop: called after each chunk; if it returns true the run stops, and can be resumed.
        origin: as for `score_table`.
        scorer: a function to score batches instead of `score_batch`, with the same arguments.
        report: called with a line that the user should see.

    Raises:
        InvalidTable: the input cannot be read, or `strict` met a refused row; nothing is written.
        InvalidInput: it has no column for an input.
        OutputError: the output cannot be written, or the run not be resumed.
        KeyboardInterrupt: as it came; what is done can be resumed.
    """
    began = time.monotonic()
    if isinstance(target, Path):
        target_format = target_format or format_of(str(target), write=True)
        _refuse_same(source, target)
    written = target_format or FileFormat("csv")
    with open_table(source, source_format) as table:
        plan = make_plan(model, table.schema, options)
        made_of = _identify(source, model, options, table.format, written)
        with _open_output(target, written, made_of, resume, strict, report) as output:
            earlier = output.done.tally.counts.rows
            settings = options.raw, workers, output.done.parts, origin, scorer
            parts = score_table(model, table, plan, written, *settings)
            with closing(parts):
                complete = _write(parts, output, strict, progress, stop)
            if complete:
                output.finish()
            tally = output.done.tally
    return Summary(tally.counts, tally.refused, time.monotonic() - began, earlier, complete)


def _open_output(
    target: Path | BinaryIO,
    target_format: FileFormat,
    made_of: dict[str, Any] | None,
    resume: bool,
    strict: bool,
    report: Report,
) -> FileOutput | StreamOutput:
    if resume and made_of is None:
        raise OutputError("a run that reads a stream cannot be resumed, only one that reads a file")
    if isinstance(target, Path) and (target.is_file() or not target.exists()):
        return FileOutput(target, target_format, made_of, resume, report)
    if resume:
        raise OutputError("a stream cannot be resumed, only a file")
    return StreamOutput(target, target_format, whole=strict)


def _write(
    parts: Iterable[Part],
    output: FileOutput | StreamOutput,
    strict: bool,
    progress: Progress | None,
    stop: Callable[[], bool] | None,
) -> bool:
    """Write all parts; return whether all are written, else the run was stopped.

    Raises:
        InvalidTable: `strict` met a refused row.
    """
    for part in parts:
        if strict and part.errors:
            row = min(part.errors)
            number = output.done.tally.counts.rows + row + 1
            raise InvalidTable(describe_refused((number, part.errors[row])))
        output.write(part)
        if progress:
            progress(output.done.tally.counts.rows, part.share)
        if stop and stop():
            return False
    return True


def _refuse_same(source: Path | BinaryIO, target: Path) -> None:
    both = isinstance(source, Path) and source.exists() and target.exists()
    if both and target.samefile(cast(Path, source)):
        raise OutputError(f"{target} is the input; the output must be another file")


def _identify(
    source: Path | BinaryIO,
    model: Model,
    options: Options,
    source_format: FileFormat,
    target_format: FileFormat,
) -> dict[str, Any] | None:
    """Return what a run must have in common with the one that it resumes, None for a stream."""
    if not isinstance(source, Path) or not source.is_file():
        return None
    found = source.stat()
    # Unlike the time of the last change of the content, that of the last change cannot be set.
    made = [str(source.resolve()), found.st_size, found.st_ctime_ns]
    manifest = model.manifest
    return {
        "input": made,
        "model": [manifest.name, manifest.version, str(manifest.created)],
        "options": asdict(options),
        "formats": [asdict(source_format), asdict(target_format)],
    }
