"""The engines that a model can be timed in, one file each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from torch import nn

from corank.benchmarks.backends import onnxruntime, openvino, torch_compiled, torch_cuda, torch_eager
from corank.benchmarks.backends.runners import Runner
from corank.errors import CorankError
from corank.inputs import Example

__all__ = ["BACKENDS", "Prepare", "Runner", "find_backend"]

Prepare: TypeAlias = Callable[
    [nn.Module, Example, int, Path], Runner
]  # model, example, threads, empty folder

BACKENDS: dict[str, Prepare] = {
    "torch": torch_eager.prepare,
    "torch_channels_last": torch_eager.prepare_channels_last,
    "torch_compile": torch_compiled.prepare,
    "torch_cuda": torch_cuda.prepare,
    "onnxruntime": onnxruntime.prepare,
    "openvino": openvino.prepare,
}


def find_backend(name: str) -> Prepare:
    """Return the function that makes a model ready in an engine.

    Raises: CorankError, for an unknown name.
    """
    if name not in BACKENDS:
        raise CorankError(f"backend: allowed are {', '.join(BACKENDS)}; got {name!r}.")
    return BACKENDS[name]
