"""Nested plain values and tensors in one safetensors file, bit for bit; no pickle is involved."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from corank.errors import CorankError, FileError
from corank.store.files import Checksum, Reader, write

_TENSOR, _PAIRS, _TUPLE = "tensor:", "pairs:", "tuple:"  # keys that JSON itself has no type for
_TAGS = {_TENSOR, _PAIRS, _TUPLE}


def write_state(path: Path | str, state: Any) -> Path:
    """Write dicts, lists, tuples, numbers, texts, None and tensors, so that `read_state` gives them back.

    Args:
        path: the file; it is whole, or what stood there before is.
        state: the values; keys of dicts may be of any of these types.
    Returns: the path.
    Raises: FileError, when it cannot be written; CorankError, for a value of another type.
    """
    tensors: dict[str, Tensor] = {}
    text = json.dumps(_strip(state, tensors, "state"))
    write(Path(path), tensors, text)
    return Path(path)


def read_state(path: Path | str) -> Any:
    """Read what `write_state` wrote.

    Raises: FileError, when the file is absent, damaged, or none of these.

    >>> import tempfile, torch
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     read_state(write_state(f"{folder}/a", {0: (torch.ones(1), None)}))
    {0: (tensor([1.]), None)}
    """
    try:
        with Reader(Path(path)) as file:
            checksum, tensors = Checksum(file.text), {}
            for name in sorted(file.tensors):
                tensors[name] = file.read(name).clone()  # the file may be replaced
                checksum.add(name, tensors[name])
            if str(checksum) != file.checksum:
                raise FileError("its checksum does not match: it was damaged or changed")
            return _fill(json.loads(file.text), tensors)
    except (OSError, FileError, KeyError, ValueError, TypeError, RecursionError) as error:
        raise FileError(f"{path}: cannot be read as a state ({error}).") from error


def _strip(value: Any, tensors: dict[str, Tensor], where: str) -> Any:
    if isinstance(value, dict):
        if all(isinstance(key, str) and key not in _TAGS for key in value):
            return {key: _strip(one, tensors, f"{where}.{key}") for key, one in value.items()}
        pairs = value.items()
        return {_PAIRS: [[_strip(k, tensors, where), _strip(v, tensors, f"{where}.{k}")] for k, v in pairs]}
    if isinstance(value, list):
        return [_strip(one, tensors, where) for one in value]
    if isinstance(value, tuple):
        return {_TUPLE: [_strip(one, tensors, where) for one in value]}
    if isinstance(value, Tensor):
        # Tensors may share memory, and a file holds each on its own.
        tensors[str(len(tensors))] = value.detach().cpu().contiguous()
        return {_TENSOR: str(len(tensors) - 1), "stride": None if value.is_contiguous() else value.stride()}
    if value is None or isinstance(value, str | int | float):
        return value
    raise CorankError(
        f"{where}: allowed in a checkpoint are plain values and tensors, got a {type(value).__name__}."
    )


def _fill(value: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, list):
        return [_fill(one, tensors) for one in value]
    if not isinstance(value, dict):
        return value
    if value.keys() == {_TENSOR, "stride"}:
        return _lay_out(tensors[value[_TENSOR]], value["stride"])
    if value.keys() == {_PAIRS}:
        return {_fill(key, tensors): _fill(one, tensors) for key, one in value[_PAIRS]}
    if value.keys() == {_TUPLE}:
        return tuple(_fill(one, tensors) for one in value[_TUPLE])
    return {key: _fill(one, tensors) for key, one in value.items()}


def _lay_out(tensor: Tensor, stride: list[int] | None) -> Tensor:
    """Give a tensor the strides that it had: a matrix product of other strides rounds otherwise."""
    if stride is None or 0 in stride:
        return tensor
    return torch.empty_strided(tensor.shape, stride, dtype=tensor.dtype).copy_(tensor)
