"""Bodies: reading a request's (type, size, encoding, JSON), and writing JSON."""

import io
import zlib
from tempfile import TemporaryFile
from typing import Any, BinaryIO, cast

import orjson
from flask import Response, request
from werkzeug.exceptions import (
    BadRequest,
    RequestEntityTooLarge,
    UnsupportedMediaType,
)

from mlapp.files import write_error

_WINDOWS = {"gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}


def answer(content: Any, status: int = 200, mimetype: str = "application/json") -> Response:
    """Return content as a JSON response."""
    return Response(orjson.dumps(content), status, content_type=mimetype)


def read_body(limit: int) -> bytes:
    """Return the body, unpacked where it is compressed.

    Args:
        limit: the largest body that is taken, in bytes.

    Raises:
        RequestEntityTooLarge: it is, or becomes, larger.
        UnsupportedMediaType: it is encoded otherwise than by gzip or deflate.
        BadRequest: it cannot be unpacked.
    """
    environ = request.environ
    length = environ.get("CONTENT_LENGTH", "")
    if length.isdecimal() and int(length) <= limit:
        raw: bytes = environ["wsgi.input"].read(int(length))
    else:
        raw = request.get_data(cache=False)  # chunked, or too large
    encoding = environ.get("HTTP_CONTENT_ENCODING", "").strip().lower()
    if encoding in ("", "identity"):
        return raw
    if encoding not in _WINDOWS:
        raise UnsupportedMediaType(f"Content-Encoding: got {encoding!r}, expected gzip or deflate")
    unpack = zlib.decompressobj(_WINDOWS[encoding])
    try:
        body = unpack.decompress(raw, limit + 1)
    except zlib.error as error:
        raise BadRequest(f"The body is no {encoding} data: {error}") from error
    if len(body) > limit:
        raise RequestEntityTooLarge(f"The unpacked body is larger than {limit:,} bytes")
    if not unpack.eof:
        raise BadRequest(f"The body's {encoding} data is cut off")
    return body


def make_spool(name: str) -> BinaryIO:
    """Return a file without a place of its own, that goes when it is closed, or the process ends.

    Args:
        name: what it is called in messages.

    Raises:
        OutputError: the disk does not take it; `DiskFull` where there is no room.
    """
    try:
        spool = cast(Any, TemporaryFile())  # noqa: SIM115  # the caller closes it
    except OSError as error:
        raise write_error(name, error) from error
    spool.raw.name = name
    return cast(BinaryIO, spool)


class Body(io.BytesIO):
    """A body in memory, with a name for messages."""

    name = "the body"


def file_body(limit: int) -> BinaryIO:
    """Return the body, as it came, as a file; the server has read it to its end.

    Args:
        limit: the largest body that is taken, in bytes.

    Raises:
        RequestEntityTooLarge: it is larger.
    """
    body: BinaryIO = request.environ["wsgi.input"]
    if isinstance(body, io.BytesIO):
        body = Body(body.getvalue())
    if body.seek(0, io.SEEK_END) > limit:
        raise RequestEntityTooLarge(f"The body is larger than {limit:,} bytes")
    body.seek(0)
    return body


def require_json() -> None:
    """Check that the body is said to be JSON.

    Raises:
        UnsupportedMediaType: it is not.
    """
    given = request.environ.get("CONTENT_TYPE")
    if given != "application/json" and request.mimetype != "application/json":
        raise UnsupportedMediaType(
            f"Content-Type: got {request.mimetype or 'nothing'!r}, expected application/json"
        )


def parse_json(body: bytes) -> dict[str, Any]:
    """Return a JSON object.

    Raises:
        BadRequest: it is no JSON, or no object; NaN, Infinity and lone surrogates are no JSON.
    """
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise BadRequest(f"The body is no JSON: {error}") from error
    if not isinstance(content, dict):
        raise BadRequest(f"The body is a JSON {type(content).__name__}, expected an object")
    return content


def check_rows(rows: int, limit: int) -> None:
    """Check the number of rows of a request.

    Raises:
        RequestEntityTooLarge: they are more than the limit.
    """
    if rows > limit:
        raise RequestEntityTooLarge(f"{rows:,} rows; at most {limit:,} are taken at once")
