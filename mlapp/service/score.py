"""Whole files: a table of rows or texts in, the same table with its predictions out.

    POST /v1/models/{name}:score  CSV, TSV, JSON lines, Parquet  ->  the one that `Accept` asks for

    body -> a file on the disk -> checked to its end -> scored chunk by chunk -> response

The whole body is on the disk before the response begins. So a client that sends everything before
it reads cannot deadlock with a server that responds while it reads; Parquet can be read from its
end; and damage in the last row of a text still gets an error status. Memory holds a few chunks.

CSV and JSON lines are sent while later rows are scored. If the file turns out to be damaged, the
connection is closed, so that the response is visibly incomplete. Parquet is written from its end,
a `strict` response must wait for the last row, and HTTP/1.0 cannot signal an incomplete response:
these are made on the disk first, and have the counts of rows in headers.
"""

import errno
import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from functools import partial
from itertools import chain
from typing import BinaryIO

from flask import Blueprint, Response, request
from werkzeug.datastructures import MIMEAccept
from werkzeug.exceptions import ClientDisconnected, NotAcceptable, UnsupportedMediaType

from mlapp import answering
from mlapp.disk import temporary_file
from mlapp.errors import Fault, InvalidInput, InvalidTable
from mlapp.families.contract import Model
from mlapp.schema import describe
from mlapp.scoring import files
from mlapp.scoring.batch import Counts, Options, Origin, make_plan, parse_columns, score_table
from mlapp.service.bodies import file_body
from mlapp.service.state import state
from mlapp.tables.decoding import BLOCK, ENCODINGS, find_encoding
from mlapp.tables.formats import DECIMALS, MEDIA_TYPES, TEXT_FORMATS, WRITABLE, FileFormat
from mlapp.tables.reading import open_table

blueprint = Blueprint("score", __name__, url_prefix="/v1")

PARAMETERS = {
    "text_column": "the column that a text classifier reads; by default the one that it was"
    " trained on, text, review or the only",
    "columns": "columns whose names differ from the model's inputs: theirs=ours,...",
    "explain": "whether the contribution of each input or word is added",
    "strict": "whether the first refused row refuses the whole file",
    "prefix": "what the names of the prediction's columns begin with",
    "raw": "whether texts that a spreadsheet would run as formulas are written unchanged to CSV",
    "encoding": "of a text; by default Content-Type's charset, a byte-order mark's, or UTF-8",
    "decimal": "the decimal mark of CSV and TSV, . or ,; by default detected for each column",
    "sheet": "of an Excel workbook, its name or its number from 1; by default the first",
}
FLAGS = ("explain", "strict", "raw")
ANSWERS = tuple(kind for kind, format_ in MEDIA_TYPES.items() if format_ in WRITABLE)
COUNTS = tuple(f"Mlapp-{name.title()}" for name in Counts._fields)
THREADS = 2  # for each file, so that one file does not block others

_log = logging.getLogger(__name__)


@blueprint.post("/models/<model:name>:score")
@blueprint.post("/models/<model:name>/versions/<int:version>:score")
def score(name: str, version: int | None = None) -> Response:
    """Score a file."""
    here, environ = state(), request.environ
    model = here.model(environ, name, version)
    options = _read_options(model)
    source, kind = _source_format(), _target_type()
    target, strict = FileFormat(MEDIA_TYPES[kind]), request.args.get("strict") == "true"
    gone: Callable[[], bool] = environ.get("mlapp.gone", lambda: False)
    body = file_body(here.settings.max_file_bytes)
    origin = Origin(answering.new_id(), "file")
    environ["mlapp.id"] = origin.id
    with ExitStack() as stack:
        if target.format == "parquet" or strict or environ["SERVER_PROTOCOL"] == "HTTP/1.0":
            answer = stack.enter_context(temporary_file("the answer"))
            summary = files.score(
                model,
                body,
                answer,
                options,
                source_format=source,
                target_format=target,
                workers=THREADS,
                strict=strict,
                stop=gone,
                origin=origin,
            )
            here.count_file(model, summary.counts, environ)
            if not summary.complete:
                raise ClientDisconnected
            headers: dict[str, str] = {"Content-Length": str(answer.tell())}
            headers |= zip(COUNTS, map(str, summary.counts), strict=True)
            answer.seek(0)
            stream = iter(partial(answer.read, BLOCK), b"")
        else:
            headers = {}
            stream = _score(model, body, source, target, options, gone, stack, origin)
        held = stack.pop_all()
    environ["mlapp.stream"] = response = Response(_hold(held, stream), mimetype=kind)
    response.headers.update(headers)
    response.call_on_close(held.close)
    return response


def _hold(held: ExitStack, stream: Iterator[bytes]) -> Iterator[bytes]:
    """Yield a stream; at its end close its resources, even if the response is never closed."""
    with held:
        yield from stream


def _score(
    model: Model,
    body: BinaryIO,
    source: FileFormat,
    target: FileFormat,
    options: Options,
    gone: Callable[[], bool],
    stack: ExitStack,
    origin: Origin,
) -> Iterator[bytes]:
    """Open a file, score its first rows, and return the scored file.

    Args:
        model: any published model.
        body: the file.
        source: its format.
        target: the format of the response; not Parquet.
        options: see `Options`.
        gone: returns whether the client has disconnected.
        stack: what must be closed after the response is added to it; closing it counts the rows.
        origin: as for `score_table`.

    Raises:
        InvalidTable, InvalidInput: as `open_table` and `make_plan`.
        ConnectionResetError: while it is read, when the file turns out to be damaged.
    """
    here, environ, counts = state(), request.environ, Counts()
    stack.callback(lambda: here.count_file(model, counts, environ))
    table = stack.enter_context(open_table(body, source))
    plan = make_plan(model, table.schema, options)
    parts = score_table(model, table, plan, target, options.raw, THREADS, origin=origin)
    stack.enter_context(closing(parts))
    first = [next(parts), next(parts)]  # head and rows: errors here still get a status

    def flow() -> Iterator[bytes]:
        nonlocal counts
        try:
            for part in chain(first, parts):
                counts += part.counts
                yield bytes(part.data)
                if gone():
                    break
            else:
                return
        except InvalidTable:
            # The error's message may quote the file, and the log must not.
            _log.warning("%s: a file is damaged after row %d", model.manifest.name, counts.rows)
        except Exception:
            _log.exception("unexpected error after row %d of a file", counts.rows)
        # Servers then close the connection, without logging it.
        raise ConnectionResetError(errno.ECONNRESET, "the response is incomplete")

    return flow()


def _read_options(model: Model) -> Options:
    """Read the parameters of the URL for a model.

    Raises:
        InvalidInput: some are unknown, are repeated, or have values that are not allowed.
    """
    given, faults, columns = request.args, [], {}
    for name, values in given.lists():
        got = describe(values[0])
        if name not in PARAMETERS:
            faults.append(Fault(name, "an unknown parameter", f"one of {', '.join(PARAMETERS)}"))
        elif len(values) > 1:
            faults.append(Fault(name, f"{len(values)} values", "one"))
        elif name in FLAGS and values[0] not in ("true", "false"):
            faults.append(Fault(name, got, "true or false"))
        elif name == "decimal" and values[0] not in DECIMALS:
            faults.append(Fault(name, got, "'.' or ','"))
        elif name == "columns":
            try:
                columns = parse_columns(values[0], model.takes.names)
            except InvalidTable:
                faults.append(Fault(name, got, "theirs=ours,..."))
    if faults:
        raise InvalidInput(faults)
    return Options(
        text_column=given.get("text_column") or None,
        columns=columns,
        explain=given.get("explain") == "true",
        prefix=given.get("prefix", ""),
        raw=given.get("raw") == "true",
    )


def _source_format() -> FileFormat:
    """Return the body's format, from its headers and the parameters.

    Raises:
        UnsupportedMediaType: the headers have no type, or one that cannot be read.
        InvalidInput: the encoding is unknown, or a sheet is named for another format than .xlsx.
    """
    kind = request.mimetype
    if kind not in MEDIA_TYPES:
        got, allowed = repr(kind or "nothing"), ", ".join(MEDIA_TYPES)
        raise UnsupportedMediaType(f"Content-Type: got {got}, expected one of {allowed}")
    is_text = MEDIA_TYPES[kind] in TEXT_FORMATS
    coding = request.headers.get("Content-Encoding", "").strip().lower()
    coding = "gzip" if coding == "x-gzip" else coding  # RFC 9110, section 8.4.1.3
    if coding not in ("", "identity") and (coding != "gzip" or not is_text):
        allowed = "gzip or none" if is_text else "none"
        raise UnsupportedMediaType(f"Content-Encoding: got {coding!r}, expected {allowed}")
    encoding = request.args.get("encoding") or request.mimetype_params.get("charset")
    if encoding is not None and find_encoding(encoding) is None:
        raise InvalidInput([Fault("encoding", describe(encoding), ENCODINGS)])
    sheet = request.args.get("sheet")
    if sheet is not None and MEDIA_TYPES[kind] != "xlsx":
        raise InvalidInput([Fault("sheet", describe(sheet), "none: only .xlsx has sheets")])
    file_format = FileFormat(MEDIA_TYPES[kind], coding == "gzip")
    return file_format.reading(encoding, request.args.get("decimal"), sheet)


def _target_type() -> str:
    """Return the accepted media type; by default that of the request, or CSV.

    Raises:
        NotAcceptable: none of the accepted types can be written.
    """
    kinds = [kind for kind in (request.mimetype, *ANSWERS) if kind in ANSWERS]
    if not request.accept_mimetypes:
        return kinds[0]
    # A type's parameters, such as charset, are for the answer to say.
    accepted = [(each.partition(";")[0].strip(), liked) for each, liked in request.accept_mimetypes]
    kind = MIMEAccept(accepted).best_match(kinds)
    if kind is None:
        got, allowed = describe(request.headers["Accept"]), ", ".join(ANSWERS)
        raise NotAcceptable(f"Accept: got {got}, expected one of {allowed}")
    return kind
