"""Timing several models against the first of them, in one engine after the other."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from corank.benchmarks.backends import find_backend
from corank.benchmarks.machine import describe_machine, pinned, usable_threads
from corank.benchmarks.results import BenchResult, Timing
from corank.benchmarks.timing import Times, drift, speedup, time_interleaved
from corank.engines import OPENERS
from corank.errors import CorankError
from corank.exported import Exported
from corank.inputs import Example, first_tensor, tensors
from corank.probing import unchanged

_SMALLEST_NORMAL = torch.finfo(torch.float32).tiny


def bench(
    models: Mapping[str, nn.Module],
    example: Example,
    *,
    backends: Sequence[str] = ("torch",),
    threads: int | None = None,
    rounds: int = 30,
    warmup: int = 3,
    min_time: float = 0.005,
    seed: int = 0,
    memory: bool = True,
) -> BenchResult:
    """Measure how much faster than the first model the others are, in eval mode on the CPU.

    In each engine the models take turns, in an order that is drawn and then reversed. The speedup is
    median over rounds of (time of the first / time of the model), with a 95% bootstrap interval: the model
    is faster if the interval lies above 1. It speaks for these copies in memory: two copies of one network
    can differ by a percent or two, so do not build on less.
    Every engine gets the same number of threads and float32. ONNX Runtime and OpenVINO run files
    exported at the example's batch size and checked against torch; a file that `open_exported` opened,
    in int8 perhaps, they run as it is.

    Args:
        models: `{name: network}`; the first is the reference. Their mode is given back.
        example: one input, at the batch size that matters.
        backends: of torch, torch_channels_last, torch_compile, torch_cuda, onnxruntime, openvino.
        threads: for every engine; torch's present number if None.
        rounds: samples of each model, an even number.
        warmup: calls before anything is timed.
        min_time: shortest sample, in seconds; short calls are repeated to fill it.
        seed: of the orders and of the bootstrap.
        memory: also measure peak memory, for ONNX Runtime and OpenVINO in a process of its own.
    Returns: a BenchResult; what makes a number doubtful is in its notes.
    Raises: CorankError, for an unknown engine, or a model that is not float32 on the CPU;
        ExtraError, for an engine that is not installed; FileError, for a model that cannot be exported.

    >>> nets = {"wide": nn.Linear(512, 512), "narrow": nn.Linear(512, 8)}
    >>> result = bench(nets, torch.ones(64, 512), rounds=10, min_time=0.002, memory=False)
    >>> result.row("narrow", "torch").speedup > 1
    True
    """
    _check(models, example)
    found = {name: find_backend(name) for name in backends}
    _require_engines(models, backends)
    if not found:
        raise CorankError("backends: there is no engine to time in. Give at least one.")
    threads = torch.get_num_threads() if threads is None else threads
    if threads < 1:
        raise CorankError(f"threads: allowed is 1 or more, got {threads}.")
    notes = _notes(models, threads)
    timings: list[Timing] = []
    versions: dict[str, str] = {}
    with pinned(threads), _eval(models), tempfile.TemporaryDirectory() as place:
        for backend, prepare in found.items():
            runners = {}
            for index, (name, model) in enumerate(models.items()):
                folder = Path(place, backend, str(index))
                folder.mkdir(parents=True)
                runners[name] = prepare(model, example, threads, folder)
                versions |= runners[name].versions
                notes += [f"{name} in {backend}: {note}" for note in runners[name].notes]
            times = time_interleaved(
                {name: runner.run for name, runner in runners.items()},
                rounds,
                warmup=warmup,
                min_time=min_time,
                seed=seed,
            )
            reference = times[next(iter(models))]
            for name, runner in runners.items():
                peak = runner.peak_memory() if memory else None
                if memory and peak is None:
                    notes.append(f"{name} in {backend}: peak memory cannot be read on this system")
                timings.append(_timing(name, backend, reference, times[name], seed, peak))
            changed = drift(reference)
            if changed is not None:
                notes.append(
                    f"{backend}: the reference took {changed:.2f} times as long in the second half as in the "
                    "first; the machine was not steady"
                )
    first = first_tensor(example)
    return BenchResult(
        timings=tuple(timings),
        reference=next(iter(models)),
        threads=threads,
        precision="float32",
        batch=first.shape[0] if first.dim() else 1,
        rounds=rounds,
        versions=versions,
        machine=describe_machine(),
        notes=tuple(notes),
    )


def _timing(name: str, backend: str, reference: Times, times: Times, seed: int, peak: int | None) -> Timing:
    ratio, interval = speedup(reference, times, seed)
    p5, median, p95 = (float(value) * 1e3 for value in np.quantile(times, [0.05, 0.5, 0.95]))
    return Timing(name, backend, median, p5, p95, ratio, interval, peak)


def _check(models: Mapping[str, nn.Module], example: Example) -> None:
    if not models:
        raise CorankError("models: there is nothing to time. Give {name: network}, the reference first.")
    for name, model in models.items():
        for tensor in (*model.parameters(), *model.buffers(), *tensors(example)):
            if tensor.device.type != "cpu":
                raise CorankError(f"{name}: bench times on the CPU, got {tensor.device}. Call .cpu() first.")
            if tensor.is_floating_point() and tensor.dtype != torch.float32:
                raise CorankError(
                    f"{name}: bench compares in float32, got {tensor.dtype} in the model or the example. "
                    "Call .float() first."
                )


def _require_engines(models: Mapping[str, nn.Module], backends: Sequence[str]) -> None:
    files = {name: model for name, model in models.items() if isinstance(model, Exported)}
    for name, model in files.items():
        for backend in backends:
            if backend not in OPENERS or (backend == "onnxruntime" and model.path.suffix != ".onnx"):
                raise CorankError(
                    f"{name}: {model.path.name} is a file, and {backend} does not run it. "
                    f"Time it in {' or '.join(OPENERS)}."
                )


def _notes(models: Mapping[str, nn.Module], threads: int) -> list[str]:
    notes = []
    usable = usable_threads()
    if threads > usable:
        notes.append(f"{threads} threads share {usable} processors")
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    if load + threads > usable + 0.5:
        notes.append(f"the machine is busy: load {load:.1f} on {usable} processors before the start")
    for name, model in models.items():
        count = count_subnormal(model)
        if count:
            notes.append(f"{name}: {count} weights are subnormal and may slow it many times; zero them")
    return notes


def count_subnormal(model: nn.Module) -> int:
    """Count the float32 weights that are not zero and smaller than the smallest normal number, 1.2e-38.

    >>> layer = nn.Linear(2, 1)
    >>> _ = layer.weight.data.fill_(1e-40)
    >>> count_subnormal(layer)
    2
    """
    weights = [
        weight.detach() for weight in (*model.parameters(), *model.buffers()) if weight.is_floating_point()
    ]
    return sum(int(((weight != 0) & (weight.abs() < _SMALLEST_NORMAL)).sum()) for weight in weights)


@contextlib.contextmanager
def _eval(models: Mapping[str, nn.Module]) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        for model in models.values():
            stack.enter_context(unchanged(model))
            model.eval()
        yield
