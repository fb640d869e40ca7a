"""Arrays in and out of a request: JSON, or npy without pickle."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any
from urllib.parse import unquote

import numpy as np
from numpy.typing import NDArray

from corank.errors import CorankError
from corank.rollout.casting import DTYPES, cast

JSON, NPY = "application/json", "application/x-npy"
_KEYS = ("inputs", "dtype", "key", "request")
_MOST_DIMENSIONS = 8


class BodyError(CorankError):
    """A request's body is not what it should be; `code` is the HTTP status."""

    def __init__(self, message: str, code: int = 422) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class Asked:
    """One request: its array, whose it is, and its name."""

    inputs: NDArray[Any]
    key: str | None
    request: str | None


def read_request(body: bytes, kind: str, headers: Mapping[str, str], usual: str = "float32") -> Asked:
    """Read a body.

    Args:
        body: all of it.
        kind: its Content-Type: application/json, an object of `inputs` and perhaps `dtype`, `key` and
            `request`; or application/x-npy, with x-corank-key and x-corank-request as headers,
            percent-encoded.
        headers: by names in lower case.
        usual: the dtype of JSON that gives none.
    Raises: BodyError, for anything else.

    >>> read_request(b'{"inputs": [[1, 2]], "key": "me"}', "application/json", {}).inputs.shape
    (1, 2)
    """
    kind = kind.partition(";")[0].strip().lower()
    if kind == NPY:
        named = (_name(headers, "x-corank-key"), _name(headers, "x-corank-request"))
        return Asked(_finite(read_npy(body)), *named)
    if kind != JSON:
        raise BodyError(f"content-type: allowed are {JSON} and {NPY}, got {kind!r}.", 415)
    values = read_object(body, _KEYS)
    if "inputs" not in values:
        raise BodyError("body: inputs is missing: a number or nested lists of numbers.")
    dtype = values.get("dtype", usual)
    if dtype not in DTYPES:
        raise BodyError(f"dtype: allowed are {', '.join(DTYPES)}, got {str(dtype)[:50]!r}.")
    try:
        array = np.asarray(values["inputs"])
        if array.dtype.kind not in "fiub":
            raise ValueError(f"it holds {array.dtype}")
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise BodyError("inputs: allowed are nested lists of numbers, all of one length.") from error
    try:
        array = cast(array, dtype)
    except CorankError as error:
        raise BodyError(str(error)) from None
    return Asked(_finite(array), *(_text(values, name) for name in ("key", "request")))


def read_object(body: bytes, allowed: tuple[str, ...]) -> dict[str, Any]:
    """Read a JSON object with no other keys than those allowed.

    Raises: BodyError, when it is none.
    """
    try:
        values = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise BodyError("body: it is no JSON.") from error
    if not isinstance(values, dict):
        raise BodyError(f"body: allowed is an object, got a {type(values).__name__}.")
    for name in values:
        if name not in allowed:
            raise BodyError(f"body: unknown key {name[:50]!r}; allowed are {', '.join(allowed)}.")
    return values


def read_npy(body: bytes) -> NDArray[Any]:
    """Read an array from npy; no more memory is taken than the body has.

    Raises: BodyError, for what is none, or holds objects.

    >>> read_npy(write_npy(np.ones((2, 3), dtype=np.float32))).shape
    (2, 3)
    """
    file = io.BytesIO(body)
    try:
        version = np.lib.format.read_magic(file)
        readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        shape, fortran, dtype = readers[version](file)
    except Exception as error:  # the header is read as Python's source, which fails in many ways
        raise BodyError("body: it is no npy of version 1 or 2.") from error
    if dtype.hasobject or dtype.kind not in "fiub":
        raise BodyError(f"body: an npy of numbers is allowed, got {str(dtype)[:50]}.")
    rest = body[file.tell() :]
    if len(shape) > _MOST_DIMENSIONS or min(shape, default=0) < 0:
        raise BodyError(f"body: at most {_MOST_DIMENSIONS} dimensions are allowed, got {len(shape)}.")
    if prod(shape) * dtype.itemsize != len(rest):
        raise BodyError(f"body: the npy promises {prod(shape) * dtype.itemsize} bytes and has {len(rest)}.")
    array = np.frombuffer(bytearray(rest), dtype=dtype)  # a copy that may be written to
    array = array.astype(dtype.newbyteorder("="), copy=False)  # models take this machine's order of bytes
    return array.reshape(shape, order="F" if fortran else "C")


def write_npy(array: NDArray[Any]) -> bytes:
    """Write an array as npy."""
    file = io.BytesIO()
    np.save(file, array, allow_pickle=False)
    return file.getvalue()


def _finite(array: NDArray[Any]) -> NDArray[Any]:
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise BodyError("inputs: they are NaN or infinite.")
    return array


def _name(headers: Mapping[str, str], name: str) -> str | None:
    value = headers.get(name)
    try:
        return None if value is None else unquote(value.encode("ascii").decode(), errors="strict")
    except UnicodeError as error:
        raise BodyError(f"{name}: allowed is UTF-8, percent-encoded.") from error


def _text(values: Mapping[str, Any], name: str) -> str | None:
    value = values.get(name)
    if value is not None and not isinstance(value, str):
        raise BodyError(f"{name}: allowed is a text, got a {type(value).__name__}.")
    return value
