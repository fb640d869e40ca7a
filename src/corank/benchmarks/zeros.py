"""What sparsity buys: zeros, bytes and measured time side by side, and a plain word where it buys none."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from corank.benchmarks.comparison import bench
from corank.benchmarks.results import BenchResult
from corank.exported import Exported
from corank.inputs import Example
from corank.sparsity import count_zeros

COPIES = 0.02  # by which the speed of two copies of one network can differ


@dataclass(frozen=True, slots=True)
class Size:
    """The share of zeros in a network's layers, and the bytes of its weights, plain and zipped.

    Of a file that was opened the share is not known, and the bytes are the file's.
    """

    zeros: float | None
    bytes: int
    compressed_bytes: int


@dataclass(frozen=True, slots=True)
class SparsityReport:
    """Sizes by model, and their times."""

    sizes: Mapping[str, Size]
    bench: BenchResult

    def verdicts(self) -> list[str]:
        """Say of every model and engine whether it is faster than the first, slower, or neither.

        Neither, where the interval reaches within the 2% that two copies of one network can differ by.
        """
        lines = []
        for timing in self.bench.timings:
            if timing.model == self.bench.reference:
                continue
            low, high = timing.speedup_ci
            says = "is faster" if low > 1 + COPIES else "is slower" if high < 1 - COPIES else "buys no time"
            lines.append(
                f"{timing.model} {says} in {timing.backend}: {timing.speedup:.2f} ({low:.2f} to {high:.2f})"
            )
        return lines

    def __str__(self) -> str:
        width = max(len(name) for name in self.sizes)
        lines = [f"{'model':{width}}  zeros       MB   zipped MB"]
        for name, size in self.sizes.items():
            share = "    -" if size.zeros is None else f"{size.zeros:5.1%}"
            lines.append(
                f"{name:{width}}  {share}  {size.bytes / 1e6:7.3f}  {size.compressed_bytes / 1e6:10.3f}"
            )
        return "\n".join([*lines, *self.verdicts(), "", str(self.bench)])


def sparsity_report(
    models: Mapping[str, nn.Module],
    example: Example,
    *,
    backends: Sequence[str] = ("torch", "onnxruntime"),
    **options: Any,
) -> SparsityReport:
    """Measure what the zeros of networks buy against the first of them: size when zipped, and time.

    Args:
        models: `{name: network}`; files that `open_exported` opened are taken too.
        example: one input, at the batch size that matters.
        backends, options: as for `bench`.
    Returns: a SparsityReport; its text says where nothing is gained.
    Raises: as `bench`.

    >>> import torch
    >>> from corank.sparsity import Unstructured, sparsify
    >>> net = nn.Linear(64, 64)
    >>> nets = {"dense": net, "zeros": sparsify(net, Unstructured(0.9)).model}
    >>> report = sparsity_report(
    ...     nets, torch.ones(1, 64), backends=["torch"], rounds=2, min_time=1e-4, memory=False
    ... )
    >>> report.sizes["zeros"].compressed_bytes < 0.3 * report.sizes["dense"].compressed_bytes
    True
    """
    times = bench(models, example, backends=backends, **options)
    return SparsityReport({name: _size(model) for name, model in models.items()}, times)


def _size(model: nn.Module) -> Size:
    if isinstance(model, Exported):
        data = model.path.read_bytes()
        return Size(None, len(data), len(zlib.compress(data)))
    zeros = count_zeros(model)
    return Size(zeros.share, zeros.bytes, zeros.compressed_bytes)
