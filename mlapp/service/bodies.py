"""Request bodies (type, size, encoding, JSON) and JSON responses."""

import functools
import io
import zlib
from collections.abc import Iterable
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, BinaryIO

import orjson
from flask import request
from werkzeug.datastructures import MultiDict
from werkzeug.exceptions import (
    BadRequest,
    RequestEntityTooLarge,
    UnsupportedMediaType,
)
from werkzeug.formparser import FormDataParser
from werkzeug.http import parse_options_header

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

_PIECE = 1 << 16  # bytes that are decompressed at once
FORMS = ("application/x-www-form-urlencoded", "multipart/form-data")
MOST_OTHERS = 1000  # fields of a form besides those that are asked for
JSON_NAMES = {
    type(None): "null",
    bool: "boolean",
    int: "number",
    float: "number",
    str: "string",
    list: "array",
}
MOST_MEMBERS = 1000  # of a gzip body; each costs a new decompressor


class JsonResponse:
    """A JSON response as a WSGI application, much quicker to create than a response of Flask.

    Attributes:
        status: the status code.
        headers: by name.
    """

    def __init__(self, content: Any, status: int = 200, mimetype: str = "application/json") -> None:
        self._data = orjson.dumps(content)
        self.status = status
        self.headers = {"Content-Type": mimetype, "Content-Length": str(len(self._data))}

    def __call__(
        self, environ: "WSGIEnvironment", start_response: "StartResponse"
    ) -> Iterable[bytes]:
        """Answer a request."""
        start_response(_status_line(self.status), list(self.headers.items()))
        return () if environ["REQUEST_METHOD"] == "HEAD" else (self._data,)


@functools.cache
def _status_line(status: int) -> str:
    return f"{status} {HTTPStatus(status).phrase}"


def read_body(environ: "WSGIEnvironment", limit: int) -> bytes:
    """Return the body, decompressed if it is compressed.

    Args:
        environ: of the request.
        limit: the largest body, in bytes, compressed and decompressed.

    Raises:
        RequestEntityTooLarge: it is larger, before or after decompression.
        UnsupportedMediaType: its encoding is neither gzip nor deflate.
        BadRequest: it is cut off, or cannot be decompressed.
    """
    raw = _read_raw(environ, limit)
    encoding = environ.get("HTTP_CONTENT_ENCODING", "").strip().lower()
    if encoding in ("", "identity"):
        return raw
    if encoding in ("gzip", "x-gzip"):
        return _unpack_gzip(raw, limit)
    if encoding == "deflate":
        return _unpack_deflate(raw, limit)
    raise UnsupportedMediaType(f"Content-Encoding: got {encoding!r}, expected gzip or deflate")


def _read_raw(environ: "WSGIEnvironment", limit: int) -> bytes:
    """Return the body as it arrived."""
    given = environ.get("CONTENT_LENGTH", "")
    length = int(given) if given.isdecimal() else None
    if length is None and not environ.get("wsgi.input_terminated"):
        return b""  # neither a length nor chunks: there is no body
    wanted = limit + 1 if length is None else length
    if length is not None and length > limit:
        raise RequestEntityTooLarge(f"The body is larger than {limit:,} bytes")
    parts, left = [], wanted
    while left and (data := _read_some(environ, left)):
        parts.append(data)
        left -= len(data)
    if wanted - left > limit:
        raise RequestEntityTooLarge(f"The body is larger than {limit:,} bytes")
    if length is not None and left:
        raise BadRequest(f"The body is cut off: got {length - left:,} bytes, expected {length:,}")
    return b"".join(parts)


def _read_some(environ: "WSGIEnvironment", size: int) -> bytes:
    try:
        data: bytes = environ["wsgi.input"].read(size)
    except OSError as error:  # of a connection or a chunk that is cut off
        raise BadRequest("The body is cut off") from error
    return data


def _unpack_gzip(raw: bytes, limit: int) -> bytes:
    """Decompress gzip data, which is one or more members in sequence (RFC 1952, section 2.2)."""
    body, place = bytearray(), 0
    for _ in range(MOST_MEMBERS):
        data, place = _unpack_stream(raw, place, 16 + zlib.MAX_WBITS, "gzip", limit - len(body))
        body += data
        if place == len(raw):
            return bytes(body)
    raise BadRequest(f"The body has more than {MOST_MEMBERS:,} gzip members")


def _unpack_deflate(raw: bytes, limit: int) -> bytes:
    """Decompress deflate data, with the zlib header that the standard requires, or without."""
    wrapped = len(raw) >= 2 and raw[0] & 15 == 8 and (raw[0] * 256 + raw[1]) % 31 == 0
    window = zlib.MAX_WBITS if wrapped else -zlib.MAX_WBITS
    body, end = _unpack_stream(raw, 0, window, "deflate", limit)
    if end < len(raw):
        raise BadRequest(f"The body has {len(raw) - end:,} bytes after its deflate data")
    return body


def _unpack_stream(
    raw: bytes, start: int, window: int, encoding: str, limit: int
) -> tuple[bytes, int]:
    """Decompress one stream; return its content, and where it ends."""
    unpack = zlib.decompressobj(window)
    parts, size = [], 0
    # In pieces, since zlib copies what follows the stream.
    for place in range(start, len(raw), _PIECE):
        piece = raw[place : place + _PIECE]
        try:
            parts.append(unpack.decompress(piece, limit + 1 - size))
        except zlib.error as error:
            raise BadRequest(f"The body is not valid {encoding} data: {error}") from error
        size += len(parts[-1])
        if size > limit:
            raise RequestEntityTooLarge("The decompressed body is larger than allowed")
        if unpack.eof:
            return b"".join(parts), place + len(piece) - len(unpack.unused_data)
    raise BadRequest(f"The body's {encoding} data is cut off")


class Body(io.BytesIO):
    """A body in memory, with a name for messages."""

    name = "the body"


def file_body(limit: int) -> BinaryIO:
    """Return the body, as it arrived, as a file; the server has read it to its end.

    Args:
        limit: the largest body that is accepted, in bytes.

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


def require_json(environ: "WSGIEnvironment") -> None:
    """Check that the body's declared type is JSON.

    Raises:
        UnsupportedMediaType: it is another, or missing.
    """
    given = environ.get("CONTENT_TYPE", "")
    if given == "application/json":
        return
    kind = parse_options_header(given)[0].lower()
    if kind != "application/json":
        raise UnsupportedMediaType(
            f"Content-Type: got {kind or 'nothing'!r}, expected application/json"
        )


def load_json(body: bytes) -> Any:
    """Return a JSON value.

    Raises:
        BadRequest: it is not valid JSON; NaN, Infinity and lone surrogates are not.
    """
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise BadRequest(f"The body is not valid JSON: {error}") from error


def parse_json(body: bytes) -> dict[str, Any]:
    """Return a JSON object.

    Raises:
        BadRequest: it is not valid JSON, or not an object.
    """
    content = load_json(body)
    if not isinstance(content, dict):
        raise BadRequest(f"The body is a JSON {JSON_NAMES[type(content)]}, expected an object")
    return content


def read_form(environ: "WSGIEnvironment", limit: int, inputs: int) -> MultiDict[str, str]:
    """Return the fields of a form.

    Args:
        environ: of the request.
        limit: the largest body, as for `read_body`, and the largest field.
        inputs: how many fields are asked for; there may be `MOST_OTHERS` more.

    Raises:
        RequestEntityTooLarge: it is larger, or has more fields.
        UnsupportedMediaType: there is a body, but it is not a form, or its encoding is not known.
        BadRequest: it is cut off, or cannot be decompressed.
    """
    body = read_body(environ, limit)
    kind, options = parse_options_header(environ.get("CONTENT_TYPE", ""))
    kind = kind.lower()
    if body and kind not in FORMS:
        raise UnsupportedMediaType(
            f"Content-Type: got {kind or 'nothing'!r}, expected {' or '.join(FORMS)}"
        )
    most = inputs + MOST_OTHERS
    if kind == FORMS[0] and body.count(b"&") >= most:
        raise RequestEntityTooLarge(f"The form has more than {most:,} fields")
    parser = FormDataParser(
        stream_factory=lambda *_, **__: io.BytesIO(),  # of files, which no form asks for
        max_form_memory_size=limit,
        max_form_parts=most,
    )
    _, form, _ = parser.parse(io.BytesIO(body), kind, len(body), options)
    return form


def check_rows(rows: int, limit: int) -> None:
    """Check the number of rows of a request.

    Raises:
        RequestEntityTooLarge: there are more than the limit.
    """
    if rows > limit:
        raise RequestEntityTooLarge(f"got {rows:,} rows, expected at most {limit:,}")
