"""Structures in Thrift's compact protocol, in which Parquet writes the headers of its pages."""

import io
from typing import Any, BinaryIO

import pyarrow as pa

FIRST, LONGEST = 1 << 10, 1 << 24  # bytes that are tried first, and of the longest structure
DEEPEST, MOST_ITEMS = 16, 1 << 16

_STOP, _TRUE, _FALSE, _BYTE, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = (
    *(0, 1, 2, 3, 7, 8, 9, 10, 11, 12),
)


def read_struct(stream: BinaryIO) -> tuple[dict[int, Any], int]:
    """Read a structure where a stream stands.

    Returns:
        The values by their fields' numbers, without lists and maps; and how many bytes it has.

    Raises:
        ArrowInvalid: it is not one, or is longer than `LONGEST` bytes.
    """
    data = stream.read(FIRST)
    while True:
        held = io.BytesIO(data)
        try:
            return _struct(held, 0), held.tell()
        except EOFError:
            more = b"" if len(data) >= LONGEST else stream.read(15 * len(data))
            if not more:
                raise pa.ArrowInvalid("the header of a page is cut off") from None
            data += more


def _struct(data: io.BytesIO, depth: int) -> dict[int, Any]:
    if depth > DEEPEST:
        raise pa.ArrowInvalid("the header of a page is nested too deeply")
    found: dict[int, Any] = {}
    number = 0
    while (head := _byte(data)) != _STOP:
        step, kind = head >> 4, head & 15
        number = number + step if step else _integer(data)
        found[number] = kind == _TRUE if kind in (_TRUE, _FALSE) else _value(data, kind, depth)
    return found


def _value(data: io.BytesIO, kind: int, depth: int) -> Any:
    if kind in (_TRUE, _FALSE, _BYTE):  # in a list, a truth value has a byte of its own
        return _byte(data)
    if kind in (4, 5, 6):
        return _integer(data)
    if kind in (_DOUBLE, _BINARY):
        _skip(data, 8 if kind == _DOUBLE else _varint(data))
    elif kind in (_LIST, _SET):
        head = _byte(data)
        count = head >> 4 if head >> 4 < 15 else _varint(data)
        _items(data, [head & 15], count, depth)
    elif kind == _MAP:
        if count := _varint(data):
            kinds = _byte(data)
            _items(data, [kinds >> 4, kinds & 15], count, depth)
    elif kind == _STRUCT:
        return _struct(data, depth + 1)
    else:
        raise pa.ArrowInvalid("the header of a page is damaged")
    return None


def _items(data: io.BytesIO, kinds: list[int], count: int, depth: int) -> None:
    if count > MOST_ITEMS or depth > DEEPEST:
        raise pa.ArrowInvalid("the header of a page is damaged")
    for _ in range(count):
        for kind in kinds:
            _value(data, kind, depth + 1)


def _byte(data: io.BytesIO) -> int:
    if not (byte := data.read(1)):
        raise EOFError
    return byte[0]


def _skip(data: io.BytesIO, count: int) -> None:
    if count > LONGEST:
        raise pa.ArrowInvalid("the header of a page is damaged")
    if len(data.read(count)) < count:
        raise EOFError


def _varint(data: io.BytesIO) -> int:
    number = 0
    for shift in range(0, 70, 7):
        byte = _byte(data)
        number |= (byte & 127) << shift
        if byte < 128:
            return number
    raise pa.ArrowInvalid("the header of a page is damaged")


def _integer(data: io.BytesIO) -> int:
    number = _varint(data)
    return (number >> 1) ^ -(number & 1)
