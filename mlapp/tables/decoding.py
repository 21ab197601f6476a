"""The bytes of a text file as UTF-8: decompressed, decoded, and bounded.

file -> gzip or zip -> encoding, byte-order mark -> UTF-8
"""

import codecs
import encodings
import encodings.aliases
import gzip
import io
import lzma
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa

from mlapp.disk import reason
from mlapp.errors import InvalidTable
from mlapp.tables.formats import SUFFIXES, TEXT_FORMATS, TableFormat

BLOCK = 1 << 18  # bytes that are read and parsed at once
RATIO, FREE = 200, 1 << 26  # an archive may unpack to RATIO times its size, or to FREE bytes

# Python's names of character sets. Its other codecs are not character sets, such as rot13 and
# base64, or are incomplete, such as idna.
_CHARACTER_SETS = frozenset(
    """ascii utf_8 utf_8_sig utf_16 utf_16_le utf_16_be utf_32 utf_32_le utf_32_be latin_1
    big5 big5hkscs gb18030 gb2312 gbk hz johab
    euc_jp euc_jis_2004 euc_jisx0213 euc_kr shift_jis shift_jis_2004 shift_jisx0213
    iso2022_jp iso2022_jp_1 iso2022_jp_2 iso2022_jp_3 iso2022_jp_2004 iso2022_jp_ext iso2022_kr
    iso8859_2 iso8859_3 iso8859_4 iso8859_5 iso8859_6 iso8859_7 iso8859_8 iso8859_9 iso8859_10
    iso8859_11 iso8859_13 iso8859_14 iso8859_15 iso8859_16
    koi8_r koi8_t koi8_u kz1048 ptcp154 tis_620 hp_roman8
    mac_cyrillic mac_greek mac_iceland mac_latin2 mac_roman mac_turkish
    cp437 cp720 cp737 cp775 cp850 cp852 cp855 cp856 cp857 cp858 cp860 cp861 cp862 cp863 cp864
    cp865 cp866 cp869 cp874 cp932 cp949 cp950 cp1006 cp1125
    cp1250 cp1251 cp1252 cp1253 cp1254 cp1255 cp1256 cp1257 cp1258""".split()  # noqa: SIM905
)
ENCODINGS = (
    "utf-8, utf-16 and utf-32 (also -le and -be), iso-8859-1 to -16, windows-1250 to -1258,"
    " shift-jis, euc-jp, iso-2022-jp, gb18030, gbk, big5, euc-kr, koi8-r, koi8-u, mac-roman or"
    " another character set"
)

_ZIP = b"PK\x03\x04"  # how an archive begins
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def find_encoding(name: str) -> str | None:
    """Return Python's name for a character set, None if it is not one, or is not known."""
    if not name.isascii() or len(name) > 40:
        return None
    plain = encodings.normalize_encoding(name).lower()
    found = encodings.aliases.aliases.get(plain, plain)
    return found if found in _CHARACTER_SETS else None


def open_text(
    name: str, stream: BinaryIO, compressed: bool = False, encoding: str | None = None
) -> "Text":
    """Open a text file, at its beginning if the stream is seekable; see `Text`."""
    if stream.seekable():
        stream.seek(0)
    return Text(name, stream, compressed, encoding)


class Text:
    """A text file as UTF-8 without byte-order mark, decompressed; the stream stays open."""

    def __init__(
        self, name: str, stream: BinaryIO, compressed: bool = False, encoding: str | None = None
    ) -> None:
        """Read the first bytes.

        Args:
            name: what messages call the file.
            stream: the file, which stays open.
            compressed: whether it must be gzipped or zipped; compression is always detected.
            encoding: its encoding; by default that of its byte-order mark, or UTF-8.

        Raises:
            InvalidTable: it is a broken archive, is not valid UTF-8, or the encoding is not known.
        """
        self.name, self._made, self._back = name, 0, b""
        counted = _Counted(stream)
        self._inner: Any = io.BufferedReader(counted, BLOCK)
        self.position: Callable[[], int] = lambda: counted.count
        with readable(name):
            magic = self._inner.peek(4)[:4]
            self._compressed = True
            if magic == b"PAR1":
                raise InvalidTable(f"{name}: got Parquet, expected text")
            if magic == _ZIP:
                member = _open_member(name, stream)
                self._inner, self.position = io.BufferedReader(member), stream.tell
            elif magic[:2] == b"\x1f\x8b":
                unpacked: Any = gzip.GzipFile(fileobj=self._inner)
                self._inner = io.BufferedReader(unpacked, BLOCK)
            elif compressed and magic:
                raise InvalidTable(f"{name} is not a gzip or zip archive, or is damaged")
            else:
                self._compressed = False
            start = self._inner.peek(4096)
        given = find_encoding(encoding or "utf-8")
        if given is None:
            raise InvalidTable(f"encoding: got {encoding!r}, expected {ENCODINGS}")
        marked = (each for mark, each in _MARKS if start.startswith(mark))
        self.encoding = next(marked, encoding or "utf-8")
        self._plain, self._lines = codecs.lookup(self.encoding).name == "utf-8", 0
        if self._plain and start.startswith(codecs.BOM_UTF8):
            self._inner.read(len(codecs.BOM_UTF8))
        if self._plain and start.count(0) > len(start) // 8:
            raise self.wrong("a NUL in more than every eighth byte, as in UTF-16")
        self._decoder: Any = codecs.getincrementaldecoder(self.encoding)()

    def read(self, size: int) -> bytes:
        """Return about `size` bytes; nothing at the end."""
        if self._back:
            data, self._back = self._back[:size], self._back[size:]
            return data
        with readable(self.name):
            data = self._decode(size)
        self._made += len(data)
        if self._compressed and self._made > max(FREE, RATIO * self.position()):
            raise refuse_bomb(self.name)
        return data

    def peek(self, size: int) -> bytes:
        """Return the next bytes, up to `size`, which `read` then returns again."""
        while len(self._back) < size:
            back, self._back = self._back, b""
            data = self.read(size - len(back))
            self._back = back + data
            if not data:
                break
        return self._back

    def check(self, see: Callable[[bytes], None]) -> None:
        """Read to the end, and call `see` with some complete lines at a time.

        Raises:
            InvalidTable: the file is damaged, or is not valid in its encoding.
        """
        rest: list[bytes] = []
        while data := self.read(BLOCK):
            whole, found, after = data.rpartition(b"\n")
            if not found:
                rest.append(data)  # joined once, however long the line is
                continue
            see(b"".join([*rest, whole]))
            rest = [after]
        see(b"".join(rest))

    def wrong(self, got: str) -> InvalidTable:
        """Return the error for text that is in another encoding."""
        return InvalidTable(
            f"{self.name} is not valid {self.encoding.upper()}: got {got}. Name its encoding with"
            " the option encoding, such as windows-1252 or utf-16-le, or save it as UTF-8"
        )

    def _decode(self, size: int) -> bytes:
        while True:
            raw: bytes = self._inner.read(size)
            try:
                text: str = self._decoder.decode(raw, final=not raw)
                data = raw if self._plain else text.encode()
            except UnicodeDecodeError as error:
                line = self._lines + error.object[: error.start].count(b"\n") + 1
                got = f"byte 0x{error.object[error.start]:02X} in line {line:,}"
                raise self.wrong(got) from error
            except UnicodeError as error:  # half a surrogate pair, as UTF-16 can hold
                raise self.wrong(f"{error} near line {self._lines + 1:,}") from error
            self._lines += raw.count(b"\n")
            if text or not raw:  # otherwise it is the first part of a character
                return data


def refuse_bomb(name: str, most: str = f"{RATIO} times its size") -> InvalidTable:
    """Return the error for an archive that unpacks to much more than its size."""
    return InvalidTable(
        f"{name} unpacks to more than {most}, like a decompression bomb; unpack it yourself if you"
        " trust it"
    )


class _Counted(io.RawIOBase):
    """A stream that counts the bytes that are read, and does not close the underlying stream."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream, self.count = stream, 0

    def readable(self) -> bool:
        """Return True: it can always be read."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read once from the stream into a buffer."""
        data = self._stream.read(len(buffer))
        buffer[: len(data)] = data
        self.count += len(data)
        return len(data)


def find_format_in_zip(name: str, stream: BinaryIO) -> TableFormat:
    """Return the format of the one file in a zip archive, by its name; CSV if that says none.

    Raises:
        InvalidTable: the archive is damaged, holds several files, or one that is not text.
    """
    if not stream.seekable() or stream.read(4) != _ZIP:
        return "csv"  # as which `Text` refuses it, or unpacks it otherwise
    with readable(name):
        _, info = _find_member(name, stream)
    found = SUFFIXES.get(Path(info.filename).suffix.lower(), "csv")
    if found not in TEXT_FORMATS:
        raise InvalidTable(
            f"{name} holds {info.filename}, expected .csv, .tsv or .jsonl; unpack it"
        )
    return found


def _open_member(name: str, stream: BinaryIO) -> Any:
    """Return the one file in a zip archive, opened."""
    archive, info = _find_member(name, stream)
    try:
        return archive.open(info)
    except (RuntimeError, NotImplementedError) as error:  # encrypted, or compressed otherwise
        raise InvalidTable(f"{name} cannot be unpacked: {error}") from error


def _find_member(name: str, stream: BinaryIO) -> tuple[zipfile.ZipFile, zipfile.ZipInfo]:
    """Return a zip archive, and the one file in it."""
    if not stream.seekable():
        raise InvalidTable(f"{name} is a stream, and zip can be read from files only")
    archive = zipfile.ZipFile(stream)
    files = [each for each in archive.infolist() if not each.is_dir()]
    files = [each for each in files if not each.filename.startswith("__MACOSX/")]
    if any(each.filename == "xl/workbook.xml" for each in files):
        raise InvalidTable(f"{name}: got an Excel workbook, expected text; name it .xlsx")
    if len(files) != 1:
        listed = ", ".join(each.filename for each in files[:5]) + (", ..." if files[5:] else "")
        raise InvalidTable(
            f"{name}: got {len(files)} files ({listed}), expected one in the archive"
        )
    return archive, files[0]


@contextmanager
def readable(name: str) -> Iterator[None]:
    """Turn what a damaged file raises into an InvalidTable that names the file."""
    try:
        yield
    except (
        EOFError,
        OSError,
        lzma.LZMAError,
        pa.ArrowException,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise InvalidTable(f"{name} cannot be read, or is damaged: {reason(error)}") from error
