"""What a hardware takes: a small file that narrows what is measured and planned for it."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from corank.errors import CorankError, FileError
from corank.layers import CONVS, TRANSPOSED_CONVS
from corank.methods import METHODS

OPERATIONS = tuple(kind.__name__ for kind in (*CONVS, *TRANSPOSED_CONVS, nn.Linear))
PRECISIONS = {
    "f32": "float32",
    "bf16": "bfloat16",
    "int8": "int8",
    "float32": "float32",
    "bfloat16": "bfloat16",
}


@dataclass(frozen=True, slots=True)
class Target:
    """The terms of one hardware; None leaves a thing open.

    Args:
        multiple: ranks are multiples of this.
        methods: the decompositions that may be used.
        operations: the layers that may be used, by their names in `torch.nn`, such as "Conv2d".
        grouped: whether convolutions may have groups.
        precision: f32, bf16 or int8.
        memory: bytes that one layer may take: its weights, its input and its output.
    """

    multiple: int = 8
    methods: tuple[str, ...] | None = None
    operations: tuple[str, ...] | None = None
    grouped: bool = True
    precision: str | None = None
    memory: int | None = None

    def __post_init__(self) -> None:
        if not _whole(self.multiple) or self.multiple < 1:
            raise CorankError(f"target: multiple is a whole number from 1, got {self.multiple!r}.")
        for name, allowed in (("methods", tuple(METHODS)), ("operations", OPERATIONS)):
            chosen = getattr(self, name)
            if chosen is None:
                continue
            if isinstance(chosen, str) or not isinstance(chosen, Sequence) or not chosen:
                raise CorankError(f"target: {name} is a list of names, got {chosen!r}.")
            unknown = [one for one in chosen if one not in allowed]
            if unknown:
                raise CorankError(
                    f"target: {name}: unknown {unknown[0]!r}; allowed are {', '.join(allowed)}."
                )
            object.__setattr__(self, name, tuple(chosen))
        if not isinstance(self.grouped, bool):
            raise CorankError(f"target: grouped is true or false, got {self.grouped!r}.")
        if self.precision is not None and self.precision not in PRECISIONS:
            raise CorankError(f"target: precision is f32, bf16 or int8, got {self.precision!r}.")
        if self.memory is not None and (not _whole(self.memory) or self.memory < 1):
            raise CorankError(f"target: memory is a number of bytes above 0, got {self.memory!r}.")

    @classmethod
    def read(cls, path: Path | str) -> Target:
        """Read a target from a .toml or .json file.

        Raises: FileError, for a file that cannot be read; CorankError, for a key that is unknown or a value
            that is not allowed.
        """
        path = Path(path)
        readers = {".toml": tomllib.loads, ".json": json.loads}
        if path.suffix not in readers:
            raise FileError(f"{path}: a target is a .toml or .json file. Rename it.")
        try:
            values: Any = readers[path.suffix](path.read_text(encoding="utf-8"))
        except OSError as error:
            raise FileError(f"{path}: cannot be read ({error.strerror}).") from error
        except (ValueError, RecursionError) as error:
            raise FileError(f"{path}: is not {path.suffix[1:].upper()} ({error}).") from error
        return cls.from_dict(values, str(path))

    @classmethod
    def from_dict(cls, values: Any, where: str = "target") -> Target:
        """Make a target from a dict.

        Raises: CorankError, for a key that is unknown or a value that is not allowed.

        >>> Target.from_dict({"multiple": 16, "methods": ["svd"]}).methods
        ('svd',)
        """
        known = [field.name for field in fields(cls)]
        if not isinstance(values, dict):
            raise CorankError(
                f"{where}: a target is a table of {', '.join(known)}; got {type(values).__name__}."
            )
        for key in values:
            if key not in known:
                raise CorankError(f"{where}: unknown key {key!r}; allowed are {', '.join(known)}.")
        return cls(**values)

    def refusal(self, structure: nn.Sequential, shape: tuple[int, ...]) -> str | None:
        """Say why a chain of layers on an input of this shape is not for this hardware; None where it is.

        Args:
            structure: the layers, on meta.
            shape: of the input, with its batch.

        >>> chain = nn.Sequential(nn.Linear(8, 8, device="meta"))
        >>> Target(memory=300).refusal(chain, (1, 8))
        'Linear takes 352 bytes, the target has 300'
        """
        x = torch.empty(shape, device="meta", dtype=next(structure.parameters()).dtype)
        for layer in structure:
            kind = type(layer).__name__
            if self.operations is not None and kind not in self.operations:
                return f"{kind} is not among the target's operations"
            if not self.grouped and getattr(layer, "groups", 1) != 1:
                return f"{kind} has {layer.groups} groups, and the target takes none"
            with torch.no_grad():
                y: Tensor = layer(x)
            taken = sum(_bytes(tensor) for tensor in (*layer.parameters(), x, y))
            if self.memory is not None and taken > self.memory:
                return f"{kind} takes {taken} bytes, the target has {self.memory}"
            x = y
        return None


def _bytes(tensor: Tensor) -> int:
    return prod(tensor.shape) * tensor.element_size()


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
