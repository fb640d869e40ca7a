"""Plain weights in safetensors files, whole or in shards, read one tensor at a time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from corank.errors import FileError
from corank.store.files import DTYPES, reject_other_files

_BROKEN = (SafetensorError, OSError, OverflowError, RuntimeError, TypeError, ValueError)


class WeightFiles:
    """The tensors of one safetensors file, or of all that a `model.safetensors.index.json` names.

    A file is opened anew for every tensor: what was read then takes no memory any more.
    """

    def __init__(self, path: Path) -> None:
        self._place: dict[str, Path] = {}
        self.tensors: dict[str, tuple[torch.Size, torch.dtype]] = {}
        shards = _shards(path) if path.suffix == ".json" else [path]
        for shard in shards:
            try:
                reject_other_files(shard)
                self._list(shard)
            except FileError as error:
                raise FileError(f"{shard}: {error}") from error

    def _list(self, shard: Path) -> None:
        try:
            with safe_open(shard, framework="pt", device="cpu") as file:
                handle: Any = file
                slices = {name: handle.get_slice(name) for name in handle.keys()}  # noqa: SIM118
                found = {name: (torch.Size(one.get_shape()), one.get_dtype()) for name, one in slices.items()}
        except _BROKEN as error:
            raise FileError(f"it is no safetensors file, or damaged: {str(error)[:200]}.") from error
        for name, (shape, code) in found.items():
            if name in self._place:
                raise FileError(f"{name:.80}: it is in {self._place[name].name} too.")
            if code not in DTYPES:
                raise FileError(f"{name:.80}: it has dtype {code!r:.20}, which corank does not read.")
            self._place[name] = shard
            self.tensors[name] = shape, DTYPES[code]

    def read(self, name: str) -> Tensor:
        """Return a copy of one tensor.

        Raises: FileError, when its bytes cannot be read.
        """
        try:
            with safe_open(self._place[name], framework="pt", device="cpu") as file:
                handle: Any = file
                tensor: Tensor = handle.get_tensor(name).clone()
        except _BROKEN as error:
            raise FileError(
                f"{self._place[name]}: {name:.80}: it cannot be read: {str(error)[:200]}."
            ) from error
        return tensor


def _shards(index: Path) -> list[Path]:
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except OSError as error:
        raise FileError(f"{index}: it cannot be opened: {error.strerror or error}.") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise FileError(
            f"{index}: it is no index of safetensors files. Give model.safetensors, or its index.json."
        ) from error
    if bad := [name for name in names if not isinstance(name, str) or Path(name).name != name]:
        raise FileError(f"{index}: shards lie beside their index, got {bad[0]!r:.80}.")
    return [index.with_name(name) for name in names]
