"""Tensors of the Open Inference Protocol: in JSON, or as binary data that follows the JSON.

A tensor in JSON has its values in one list, or in lists nested by its shape. Every value must be
one of its datatype, or null for a missing one. In binary data the length of a BYTES value precedes
it.
"""

import math
import struct
from contextlib import suppress
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
from werkzeug.exceptions import BadRequest

from mlapp.schema import describe

MOST_DIMENSIONS = 8
TYPES: dict[str, Any] = {
    "BOOL": np.bool_,
    "UINT8": np.uint8,
    "UINT16": np.uint16,
    "UINT32": np.uint32,
    "UINT64": np.uint64,
    "INT8": np.int8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
    "FP16": np.float16,
    "FP32": np.float32,
    "FP64": np.float64,
}


def read_tensor(entry: Any, binary: bytes) -> tuple[str, npt.NDArray[Any], bytes]:
    """Return a tensor's name and content, and the rest of the binary data.

    Numbers become an array of floats or of the datatype; texts, and numbers with nulls, an array of
    objects.

    Args:
        entry: the JSON of the tensor.
        binary: the binary data of this tensor and those that follow.

    Raises:
        BadRequest: it is not a tensor of the protocol; the message says why.
    """
    if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
        raise BadRequest("inputs: expected objects with name, datatype, shape and data")
    name, datatype, shape = entry["name"], entry.get("datatype"), entry.get("shape")
    label = name[:80]  # in messages
    if not isinstance(datatype, str) or datatype not in (*TYPES, "BYTES"):
        allowed = ", ".join([*TYPES, "BYTES"])
        raise BadRequest(f"{label}: got datatype {describe(datatype)}, expected one of {allowed}")
    shape = _read_shape(label, shape)
    size = _read_parameters(label, entry).get("binary_data_size")
    if size is None:
        tensor = _from_json(label, datatype, shape, entry.get("data"))
        return name, tensor.reshape(shape), binary
    if "data" in entry:
        raise BadRequest(f"{label}: got both data and binary_data_size, expected one of them")
    if type(size) is not int or not 0 <= size <= len(binary):
        raise BadRequest(
            f"{label}: got binary_data_size {describe(size)}, expected at most {len(binary):,}"
        )
    tensor = _from_binary(label, datatype, shape, binary[:size])
    return name, tensor.reshape(shape), binary[size:]


def _read_shape(name: str, shape: Any) -> list[int]:
    if (
        not isinstance(shape, list)
        or not 1 <= len(shape) <= MOST_DIMENSIONS
        or any(type(size) is not int or size < 0 for size in shape)
    ):
        allowed = f"a list of 1 to {MOST_DIMENSIONS} whole numbers"
        raise BadRequest(f"{name}: got shape {describe(shape)}, expected {allowed}")
    # The other dimensions of an empty array count too.
    if math.prod(filter(None, shape)) >= 2**31:
        raise BadRequest(f"{name}: got shape {shape}, expected fewer than {2**31:,} values")
    return shape


def _read_parameters(name: str, entry: dict[str, Any]) -> dict[str, Any]:
    """Return the parameters of a request, a tensor or an output."""
    parameters = entry.get("parameters")
    if parameters is None:
        return {}
    if not isinstance(parameters, dict):
        raise BadRequest(f"{name}: got parameters {describe(parameters)}, expected an object")
    return parameters


def _from_json(name: str, datatype: str, shape: list[int], data: Any) -> npt.NDArray[Any]:
    """Return the values of a tensor as one array (count,); null stays None."""
    if not isinstance(data, list):
        raise BadRequest(f"{name}: got data {describe(data)}, expected a list")
    flat, count = _flatten(name, shape, data), math.prod(shape)
    if len(flat) != count:
        raise BadRequest(
            f"{name}: got {len(flat):,} values of data, expected {count:,} for shape {shape}"
        )
    kinds = set(map(type, flat))
    if kinds <= {int, float} and datatype.startswith("FP"):
        numbers = np.array(flat, dtype=np.float64)
        if np.abs(numbers).max(initial=0.0) <= np.finfo(TYPES[datatype]).max:
            return numbers
    elif kinds == {int} and datatype in TYPES and datatype != "BOOL":
        with suppress(OverflowError):
            return np.array(flat, dtype=TYPES[datatype])
    for value in flat:
        if value is not None and not _fits(datatype, value):
            allowed = _describe_type(datatype)
            raise BadRequest(
                f"{name}: got {describe(value)} as a value of {datatype}, expected {allowed}"
            )
    tensor = np.empty(count, dtype=object)
    tensor[:] = (
        [bool(value) if value in (0, 1) else value for value in flat]
        if (datatype == "BOOL")
        else flat
    )
    return tensor


def _fits(datatype: str, value: object) -> bool:
    """Return whether a JSON value is valid for a datatype."""
    if datatype == "BYTES":
        return isinstance(value, str)
    if datatype == "BOOL":
        return value in (0, 1)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    if datatype.startswith("FP"):
        return abs(value) <= float(np.finfo(TYPES[datatype]).max)
    limits = np.iinfo(TYPES[datatype])
    return value == int(value) and limits.min <= value <= limits.max


def _describe_type(datatype: str) -> str:
    """Return the allowed values of a datatype, for messages."""
    if datatype in ("BYTES", "BOOL"):
        return {"BYTES": "a text", "BOOL": "true or false"}[datatype]
    if datatype.startswith("FP"):
        most = float(np.finfo(TYPES[datatype]).max)
        return f"a number from {-most:.6g} to {most:.6g}"
    limits = np.iinfo(TYPES[datatype])
    return f"a whole number from {limits.min} to {limits.max}"


def _flatten(name: str, shape: list[int], data: list[Any]) -> list[Any]:
    """Return the values of a tensor in one list; they may be nested by the shape."""
    if list not in set(map(type, data)):
        return data
    wrong = BadRequest(f"{name}: got data whose nesting does not match its shape {shape}")
    if len(data) != shape[0]:
        raise wrong
    for size in shape[1:]:
        if any(type(inner) is not list or len(inner) != size for inner in data):
            raise wrong
        data = list(chain.from_iterable(data))
    if list in set(map(type, data)):
        raise wrong
    return data


def _from_binary(name: str, datatype: str, shape: list[int], data: bytes) -> npt.NDArray[Any]:
    """Return the values of a tensor as one array (count,)."""
    count = math.prod(shape)
    if datatype != "BYTES":
        dtype = np.dtype(TYPES[datatype]).newbyteorder("<")
        if len(data) != count * dtype.itemsize:
            expected = count * dtype.itemsize
            raise BadRequest(
                f"{name}: got {len(data):,} bytes, expected {expected:,} for shape {shape}"
            )
        if datatype == "BOOL" and data.strip(b"\0\1"):
            wrong = data.strip(b"\0\1")[0]
            raise BadRequest(f"{name}: got {wrong} as a value of BOOL, expected 0 or 1")
        return np.frombuffer(data, dtype)
    values: list[str | None] = []
    place = 0
    while place < len(data):
        if place + 4 > len(data):
            raise BadRequest(f"{name}: its BYTES are cut off")
        [length] = struct.unpack_from("<I", data, place)
        value = data[place + 4 : place + 4 + length]
        if len(value) != length:
            raise BadRequest(f"{name}: its BYTES are cut off")
        try:
            values.append(value.decode())
        except UnicodeDecodeError as error:
            raise BadRequest(f"{name}: its BYTES are not valid UTF-8: {error.reason}") from error
        place += 4 + length
    if len(values) != count:
        raise BadRequest(
            f"{name}: got {len(values):,} values, expected {count:,} for shape {shape}"
        )
    tensor = np.empty(count, dtype=object)
    tensor[:] = values
    return tensor


def read_flag(where: str, entry: dict[str, Any], flag: str, default: bool) -> bool:
    """Return a boolean parameter of a request or an output.

    Args:
        where: what it belongs to, for messages.
        entry: the request or the output.
        flag: the parameter's name.
        default: its value if it is not given.

    Raises:
        BadRequest: it is not true or false.
    """
    value = _read_parameters(where, entry).get(flag)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise BadRequest(f"{where}: got {flag} {describe(value)}, expected true or false")
    return value


def name_datatype(tensor: npt.NDArray[Any]) -> str:
    """Return the datatype of a tensor of an answer."""
    return {"f": "FP64", "i": "INT64"}.get(tensor.dtype.kind, "BYTES")


def to_binary(tensor: npt.NDArray[Any]) -> bytes:
    """Return a tensor as binary data."""
    if tensor.dtype != object:
        return tensor.astype(tensor.dtype.newbyteorder("<")).tobytes()
    values = [str(value).encode() for value in tensor.reshape(-1)]
    return b"".join(struct.pack("<I", len(value)) + value for value in values)
