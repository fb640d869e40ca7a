"""Torch as it is, and with tensors of four and five dimensions in channels-last memory."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from corank.benchmarks.backends.runners import Runner
from corank.benchmarks.memory import peak_in_process
from corank.formats import map_tensors
from corank.inputs import CHANNELS_LAST, Example, call, tensors
from corank.layers import copy_network


def prepare(model: nn.Module, example: Example, threads: int, folder: Path) -> Runner:
    """Make a model ready in eager torch; the caller holds torch to the threads."""

    def run() -> object:
        with torch.inference_mode():
            return call(model, example)

    return Runner(run, {"torch": str(torch.__version__)}, lambda: peak_in_process(model, run))


def prepare_channels_last(model: nn.Module, example: Example, threads: int, folder: Path) -> Runner:
    """Make a copy of a model ready in eager torch, with maps of two and three dimensions channels-last."""
    moved = copy_network(model)
    for tensor in (*moved.parameters(), *moved.buffers()):
        tensor.data = _to_channels_last(tensor.data)  # not .to(), which takes one format for all
    notes = (
        ()
        if any(t.dim() in CHANNELS_LAST for t in tensors(example))
        else ("channels-last changes nothing: no input has 4 or 5 dimensions",)
    )
    runner = prepare(moved, map_tensors(example, _to_channels_last), threads, folder)
    return Runner(runner.run, runner.versions, runner.peak_memory, notes)


def _to_channels_last(tensor: Tensor) -> Tensor:
    layout = CHANNELS_LAST.get(tensor.dim())
    return tensor if layout is None else tensor.contiguous(memory_format=layout)
