"""The bytes of a text file as UTF-8: unpacked, decoded, and bounded.

file -> gzip or zip -> encoding, byte-order mark -> UTF-8
"""

import codecs
import gzip
import io
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

import pyarrow as pa

from mlapp.errors import InvalidTable

BLOCK = 1 << 20  # bytes that are read at once
RATIO, FREE = 200, 1 << 26  # an archive unpacks to RATIO times its size, or to FREE bytes

_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


class Text:
    """A text file as UTF-8 without byte-order mark, unpacked; the file beneath stays open."""

    def __init__(
        self, name: str, stream: BinaryIO, packed: bool = False, encoding: str | None = None
    ) -> None:
        """Look at the first bytes.

        Args:
            name: what the file is called in messages.
            stream: the file, which stays open.
            packed: whether it must be gzipped or zipped; that is seen otherwise.
            encoding: what it is encoded in; by default UTF-8, or what its byte-order mark says.

        Raises:
            InvalidTable: it is a broken archive, or looks like no UTF-8.
        """
        self.name, self._made, self._back = name, 0, b""
        counted = _Counted(stream)
        self._inner: Any = io.BufferedReader(counted, BLOCK)
        self.position: Callable[[], int] = lambda: counted.count
        with told(name):
            magic = self._inner.peek(4)[:4]
            self._packed = True
            if magic == b"PK\x03\x04":
                self._inner, self.position = io.BufferedReader(_member(name, stream)), stream.tell
            elif magic[:2] == b"\x1f\x8b":
                unpacked: Any = gzip.GzipFile(fileobj=self._inner)
                self._inner = io.BufferedReader(unpacked, BLOCK)
            elif packed and magic:
                raise InvalidTable(f"{name} is no gzip or zip archive, or a broken one")
            else:
                self._packed = False
            start = self._inner.peek(4096)
        self.encoding = next(
            (encoding for mark, encoding in _MARKS if start.startswith(mark)),
            encoding or "utf-8",
        )
        try:
            codec = codecs.lookup(self.encoding)
        except LookupError:
            raise InvalidTable(
                f"encoding: got {self.encoding!r}, expected one that Python knows, as windows-1252"
            ) from None
        plain = codec.name == "utf-8"
        if plain and start.startswith(codecs.BOM_UTF8):
            self._inner.read(len(codecs.BOM_UTF8))
        if plain and start.count(0) > len(start) // 8:
            raise self.wrong("UTF-8", "a NUL in more than every eighth byte, as in UTF-16")
        self._decoder = None if plain else codec.incrementaldecoder()

    def read(self, size: int) -> bytes:
        """Return at most so many bytes; nothing at the end."""
        if self._back:
            data, self._back = self._back[:size], self._back[size:]
            return data
        with told(self.name):
            data = self._decode(size)
        self._made += len(data)
        if self._packed and self._made > max(FREE, RATIO * self.position()):
            raise InvalidTable(
                f"{self.name} unpacks to more than {RATIO} times its size, as archives do that are"
                " made to fill a machine; unpack it yourself if you trust it"
            )
        return data

    def peek(self, size: int) -> bytes:
        """Return the first bytes, up to `size`, which `read` then returns again."""
        while len(self._back) < size:
            back, self._back = self._back, b""
            data = self.read(size - len(back))
            self._back = back + data
            if not data:
                break
        return self._back

    def check(self, see: Callable[[bytes], None]) -> None:
        """Read to the end, and show every line, with those around it, to `see`.

        Raises:
            InvalidTable: the file is damaged, or no UTF-8.
        """
        decoder, lines, rest = codecs.getincrementaldecoder("utf-8")(), 0, b""
        while data := self.read(BLOCK):
            try:
                decoder.decode(data)
            except UnicodeDecodeError as error:
                line = lines + error.object[: error.start].count(b"\n") + 1
                got = f"byte 0x{error.object[error.start]:02X} in line {line:,}"
                raise self.wrong("UTF-8", got) from error
            lines += data.count(b"\n")
            whole, _, rest = (rest + data).rpartition(b"\n")
            see(whole)
        if decoder.getstate()[0]:
            raise self.wrong("UTF-8", "the end of the file within a character")
        see(rest)

    def wrong(self, expected: str, got: str) -> InvalidTable:
        """Return what to tell of text that is in another encoding."""
        return InvalidTable(
            f"{self.name} is not {expected}: got {got}. Name its encoding, as in --encoding"
            " windows-1252 (or utf-16-le), or save it as UTF-8"
        )

    def _decode(self, size: int) -> bytes:
        if self._decoder is None:
            data: bytes = self._inner.read(size)
            return data
        while True:
            raw = self._inner.read(max(1, size // 3 - 8))  # a byte becomes 3 at most
            try:
                text = self._decoder.decode(raw, final=not raw)
            except UnicodeDecodeError as error:
                raise self.wrong(self.encoding, error.reason) from error
            if text or not raw:
                return text.encode()


class _Counted(io.RawIOBase):
    """A stream that counts what is read, and leaves the stream beneath open."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream, self.count = stream, 0

    def readable(self) -> bool:
        """Tell that this can be read."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer as far as the stream does."""
        data = self._stream.read(len(buffer))
        buffer[: len(data)] = data
        self.count += len(data)
        return len(data)


def _member(name: str, stream: BinaryIO) -> Any:
    """Return the one file in a zip archive."""
    if not stream.seekable():
        raise InvalidTable(f"{name} is a stream, and zip can be read from files only")
    archive = zipfile.ZipFile(stream)
    files = [each for each in archive.infolist() if not each.is_dir()]
    files = [each for each in files if not each.filename.startswith("__MACOSX/")]
    if len(files) != 1:
        listed = ", ".join(each.filename for each in files[:5]) + (", ..." if files[5:] else "")
        raise InvalidTable(
            f"{name}: got {len(files)} files ({listed}), expected one in the archive"
        )
    return archive.open(files[0])


@contextmanager
def told(name: str) -> Iterator[None]:
    """Turn what a damaged file raises into words."""
    try:
        yield
    except (
        EOFError,
        OSError,
        NotImplementedError,
        RuntimeError,
        pa.ArrowException,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise InvalidTable(f"{name} cannot be read, or is damaged: {why}") from error
