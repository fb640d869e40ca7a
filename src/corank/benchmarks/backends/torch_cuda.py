"""Eager torch on a CUDA device, each run waited for."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from corank.benchmarks.backends.runners import Runner
from corank.errors import CorankError
from corank.formats import map_tensors
from corank.inputs import Example, call
from corank.layers import copy_network


def prepare(model: nn.Module, example: Example, threads: int, folder: Path) -> Runner:
    """Make a copy of a model ready on the current CUDA device; the model itself stays where it is.

    Raises: CorankError, where torch sees no such device.
    """
    if not torch.cuda.is_available():
        raise CorankError(
            f"torch_cuda: torch {torch.__version__} sees no CUDA device here. Choose another backend, or "
            "run this where there is one."
        )
    moved = copy_network(model).cuda()
    inputs = map_tensors(example, lambda tensor: tensor.cuda())

    def run() -> object:
        with torch.inference_mode():
            output = call(moved, inputs)
            torch.cuda.synchronize()  # a kernel is queued, not done, when its call returns
        return output

    def peak_memory() -> int:
        torch.cuda.reset_peak_memory_stats()
        run()
        return torch.cuda.max_memory_allocated()

    device = torch.cuda.get_device_name()
    return Runner(run, {"torch": str(torch.__version__)}, peak_memory, (f"on {device}",))
