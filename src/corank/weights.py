"""Trained weights from a safetensors file into the user's own network, checked name by name."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from corank import store
from corank.errors import FileError
from corank.layers import clean_name
from corank.store.files import HEADER

_SHOWN = 3


def load_weights(make: Callable[[], nn.Module], path: Path | str) -> nn.Module:
    """Build a network and load its weights; a file that `corank.save` wrote may hold a decomposed one.

    Names that DistributedDataParallel or torch.compile put before others are stripped. What old files leave
    out, `num_batches_tracked`, may be absent.

    Args:
        make: builds the network.
        path: a safetensors file.
    Returns: the network, in eval mode.
    Raises: FileError, for a pickle, with the conversion; for a file that is absent or damaged; for names or
        shapes that do not fit, the first few listed.
    """
    path = Path(path)
    weights, ours = _read(path)
    if ours:
        return store.load(path, make).eval()
    model = make()
    _require_fit(path, model.state_dict(), weights)
    model.load_state_dict(weights, strict=False)  # what may differ was looked at
    return model.eval()


def file_digest(path: Path | str) -> str:
    """Return a short hash of a file, which tells one set of weights from another."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def _read(path: Path) -> tuple[dict[str, Tensor], bool]:
    if not path.is_file():
        raise FileError(f"{path}: there is no such file. Give a safetensors file of weights.")
    with path.open("rb") as file:
        start = file.read(4)
    pickled = start == b"PK\x03\x04" or (start[:1] == b"\x80" and start[1:2] in b"\x02\x03\x04\x05")
    if pickled and not _is_safetensors(path):  # a header may have a length that begins like a pickle
        raise FileError(_conversion(path))
    try:
        with safe_open(str(path), framework="pt") as file:
            ours = HEADER in (file.metadata() or {})
            return {clean_name(name): file.get_tensor(name) for name in file.keys()}, ours  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise FileError(f"{path}: is no safetensors file, or damaged ({str(error)[:120]}).") from error


def _is_safetensors(path: Path) -> bool:
    try:
        with safe_open(str(path), framework="pt"):
            return True
    except (SafetensorError, OSError, ValueError, RuntimeError):
        return False


def _conversion(path: Path) -> str:
    new = path.with_suffix(".safetensors")
    code = (
        "import torch; from safetensors.torch import save_file; "
        f"w = torch.load({str(path)!r}, map_location='cpu', weights_only=True); "
        f"save_file({{k: v.contiguous() for k, v in w.get('state_dict', w).items()}}, {str(new)!r})"
    )
    return (
        f"{path}: is a pickle, which can run code when it is loaded, and corank never loads one. "
        f"Convert it once: python -c {shlex.quote(code)}"
    )


def _require_fit(path: Path, wanted: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> None:
    tied = {tensor.data_ptr() for name, tensor in wanted.items() if name in given}
    needed = {
        name
        for name, tensor in wanted.items()
        if not name.endswith("num_batches_tracked") and tensor.data_ptr() not in tied
    }
    problems = [f"{name} is not in the file" for name in wanted if name in needed - set(given)]
    problems += [f"the network has no {name}" for name in given if name not in wanted]
    problems += [
        f"{name} is {tuple(given[name].shape)} in the file and {tuple(tensor.shape)} in the network"
        for name, tensor in wanted.items()
        if name in given and given[name].shape != tensor.shape
    ]
    bad = [n for n, one in given.items() if one.is_floating_point() and not torch.isfinite(one).all()]
    problems += [f"{name} has NaN or infinite values" for name in bad]
    if problems:
        more = f", and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise FileError(f"{path}: does not fit the network: {'; '.join(problems[:_SHOWN])}{more}.")
