"""Headers of Parquet's pages: structures in Thrift's compact protocol, whole and damaged."""

import io

import pyarrow as pa
import pytest

from mlapp.tables import thrift
from mlapp.tables.thrift import read_struct

STOP = b"\x00"


def field(kind: int, content: bytes = b"", step: int = 1) -> bytes:
    """Return a field: how far its number is from the one before, its kind, its content."""
    return bytes([step << 4 | kind]) + content


def read(content: bytes) -> tuple[dict[int, object], int]:
    return read_struct(io.BytesIO(content))


def test_numbers_and_truth_values_are_read_and_others_skipped() -> None:
    content = b"".join(
        [
            field(1),  # true
            field(2),  # false
            field(3, b"\x07"),  # a byte
            field(5, b"\x95\x9a\xef\x3a"),  # -61728395 in zigzag
            field(7, bytes(8)),  # a double
            field(8, b"\x03abc"),  # a text
            field(9, b"\x35\x02\x04\x06"),  # a list of three numbers
            field(10, b"\x21\x01\x02"),  # a set of two truth values
            field(11, b"\x01\x58\x02\x01z"),  # a map of a number to a text
            field(11, b"\x00"),  # an empty map
            field(12, field(5, b"\x02") + STOP),  # a structure
            bytes([5]) + b"\x80\x02" + b"\x0a",  # a field with its own number, 128
            STOP,
        ]
    )
    found, size = read(content + b"the page")
    assert size == len(content)
    assert {place: value for place, value in found.items() if value is not None} == {
        1: True,
        2: False,
        3: 7,
        4: -61728395,
        11: {1: 1},
        128: 5,
    }


def test_a_long_header_is_read_in_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thrift, "FIRST", 4)
    content = field(8, b"\xc8\x01" + bytes(200)) + field(5, b"\x08") + STOP
    assert read(content)[0] == {1: None, 2: 4}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (field(5, b"\x80"), "cut off"),
        (field(8, b"\x7fabc"), "cut off"),
        (field(13), "damaged"),
        (field(9, b"\xf5\xff\xff\xff\x7f"), "damaged"),
        (field(12) * 200, "nested too deeply"),
        (field(9, b"\x19") + b"\x19" * 200, "damaged"),
        (field(5, b"\xff" * 20), "damaged"),
    ],
)
def test_a_damaged_header_is_refused(content: bytes, message: str) -> None:
    with pytest.raises(pa.ArrowInvalid, match=message):
        read(content)
