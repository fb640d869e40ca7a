"""Safetensors files: written whole or not at all, read tensor by tensor."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from corank.errors import FileError
from corank.files import replacing

HEADER, CHECKSUM = "corank", "corank.sha256"  # the keys in the metadata of a file
MAX_HEADER = 32 * 2**20
_PART = 16 * 2**20  # bytes read at a time for the checksum
DTYPES: dict[str, torch.dtype] = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "U16": torch.uint16,
    "I16": torch.int16,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "U32": torch.uint32,
    "I32": torch.int32,
    "F32": torch.float32,
    "U64": torch.uint64,
    "I64": torch.int64,
    "F64": torch.float64,
    "C64": torch.complex64,
}
_CODES = {dtype: code for code, dtype in DTYPES.items()}


class Checksum:
    """The sha256 over the header's text and every tensor's name, dtype, shape and bytes, in order of name."""

    def __init__(self, text: str) -> None:
        self._hash = hashlib.sha256(text.encode())

    def add(self, name: str, tensor: Tensor) -> None:
        """Add one tensor; call it in order of name."""
        self.begin(name, tensor)
        self.go_on(_as_bytes(tensor))

    def begin(self, name: str, tensor: Tensor) -> None:
        """Add what a tensor is; its bytes follow."""
        self._hash.update(f"\0{name}\0{_CODES[tensor.dtype]}\0{list(tensor.shape)}\0".encode())

    def go_on(self, part: bytes | memoryview) -> None:
        """Add some of a tensor's bytes."""
        self._hash.update(part)

    def __str__(self) -> str:
        return self._hash.hexdigest()


def _as_bytes(tensor: Tensor) -> memoryview:
    tensor = tensor.detach().resolve_conj().resolve_neg().cpu().contiguous().reshape(-1)
    if sys.byteorder == "big" and tensor.element_size() > 1:
        raise FileError("safetensors files are little-endian, and this machine is not.")
    return tensor.view(torch.uint8).numpy().data


def write(path: Path, tensors: Mapping[str, Tensor], text: str) -> None:
    """Write tensors and a header's text to a safetensors file.

    It is not safetensors' own writer, which gives every file the mode 0600, whatever the umask, and which
    is not flushed to the disk.

    Raises: FileError, when it cannot be written; what stood at `path` before is then untouched.
    """
    write_in_parts(path, tensors, text, tensors.items())


def write_in_parts(
    path: Path, tensors: Mapping[str, Tensor], text: str, parts: Iterable[tuple[str, Tensor]]
) -> None:
    """Write a safetensors file of tensors that need not exist at the same time.

    Args:
        path: the file.
        tensors: what there will be, by name; only shapes and dtypes are looked at.
        text: the header's.
        parts: each name with its values, in any order.
    Raises: FileError, when it cannot be written; what `parts` raises. What stood at `path` is then untouched.
    """
    for name, tensor in tensors.items():
        if tensor.dtype not in _CODES:
            raise FileError(f"{path}: {name}: safetensors cannot hold {tensor.dtype}.")
    # wide dtypes first, so that every tensor begins at a multiple of its element's size
    names = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    unknown = "0" * len(str(Checksum("")))  # it is as long as the checksum, which comes last
    head, places = _file_header(tensors, names, {HEADER: text, CHECKSUM: unknown})
    if len(head) > MAX_HEADER:
        raise FileError(f"{path}: the header has {len(head)} bytes; at most {MAX_HEADER} are read again.")
    data = 8 + len(head)
    with replacing(path) as temporary, temporary.open("w+b") as file:
        file.write(len(head).to_bytes(8, "little"))
        file.write(head)
        for name, tensor in parts:
            file.seek(data + places[name][0])
            file.write(_as_bytes(tensor))
        checksum = Checksum(text)
        for name in sorted(tensors):
            checksum.begin(name, tensors[name])
            begin, end = places[name]
            file.seek(data + begin)
            for start in range(begin, end, _PART):
                checksum.go_on(file.read(min(_PART, end - start)))
        head, _ = _file_header(tensors, names, {HEADER: text, CHECKSUM: str(checksum)})
        file.seek(8)
        file.write(head)


def _file_header(
    tensors: Mapping[str, Tensor], names: list[str], metadata: dict[str, str]
) -> tuple[bytes, dict[str, tuple[int, int]]]:
    """Return the header, and the stretch of the data that each tensor takes."""
    values: dict[str, Any] = {"__metadata__": metadata}
    places = {}
    end = 0
    for name in names:
        tensor = tensors[name]
        begin, end = end, end + tensor.numel() * tensor.element_size()
        values[name] = {
            "dtype": _CODES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [begin, end],
        }
        places[name] = (begin, end)
    head = json.dumps(values, separators=(",", ":")).encode()
    return head + b" " * (-len(head) % 8), places


class Reader:
    """An open safetensors file: `text` of the header, `checksum`, and `tensors` with shape and dtype."""

    def __init__(self, path: Path) -> None:
        reject_other_files(path)
        try:
            handle: Any = safe_open(path, framework="pt", device="cpu")
            self._file = handle
            metadata = handle.metadata() or {}
            slices = {name: handle.get_slice(name) for name in handle.keys()}  # noqa: SIM118
            shapes = {name: (torch.Size(s.get_shape()), s.get_dtype()) for name, s in slices.items()}
        except (SafetensorError, OSError, OverflowError, RuntimeError, TypeError, ValueError) as error:
            raise FileError(f"it is no safetensors file, or damaged: {str(error)[:200]}.") from error
        if HEADER not in metadata or CHECKSUM not in metadata:
            raise FileError(
                "it is a safetensors file of plain weights, without corank's header. "
                "Load it with model.load_state_dict(safetensors.torch.load_file(path))."
            )
        self.text: str = metadata[HEADER]
        self.checksum: str = metadata[CHECKSUM]
        self.tensors: dict[str, tuple[torch.Size, torch.dtype]] = {}
        for name, (shape, code) in shapes.items():
            if code not in DTYPES:
                raise FileError(f"{name:.80}: it has dtype {code!r:.20}, which corank does not read.")
            self.tensors[name] = (shape, DTYPES[code])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.__exit__(kind, error, trace)

    def read(self, name: str) -> Tensor:
        """Return one tensor, as a view of the file: copy it before the file is closed or changed.

        Raises: FileError, when its bytes cannot be read.
        """
        try:
            tensor: Tensor = self._file.get_tensor(name)
        except (SafetensorError, OSError, OverflowError, RuntimeError, TypeError, ValueError) as error:
            raise FileError(f"{name:.80}: it cannot be read: {str(error)[:200]}.") from error
        return tensor


def reject_other_files(path: Path) -> None:
    try:
        if not path.is_file():
            what = "a folder" if path.is_dir() else "no file" if not path.exists() else "no regular file"
            raise FileError(f"there is {what} at that path.")
        with path.open("rb") as file:
            start = file.read(8)
    except OSError as error:
        raise FileError(f"it cannot be opened: {error.strerror or error}.") from error
    # A header of 640 bytes begins like a pickle of protocol 2, but a length ends in zeros and no pickle does.
    pickled = start[:1] == b"\x80" and start[1:2] in b"\x02\x03\x04\x05" and start[2:] != bytes(6)
    if start[:4] == b"PK\x03\x04" or pickled:
        raise FileError(
            "it looks like a pickle, as torch.save writes, and corank never loads one. Convert it: "
            "weights = torch.load(path, weights_only=True); safetensors.torch.save_file(weights, new_path)."
        )
    if len(start) < 8:
        raise FileError(f"it has only {len(start)} bytes, which is no safetensors file.")
    length = int.from_bytes(start, "little")
    if length > MAX_HEADER:
        raise FileError(f"it is no safetensors file, or its header is too long ({length} bytes).")
