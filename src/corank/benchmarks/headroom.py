"""Measuring what low rank could gain, before any training: a small latency table, summed up."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import nn

from corank.benchmarks.memory import weight_bytes
from corank.benchmarks.onnx_layers import OnnxNetwork, read_layers
from corank.benchmarks.table import Terms, time_survey, whole_key
from corank.benchmarks.table_ranks import Methods
from corank.benchmarks.table_runners import FILE_ENGINES, Run, check_terms, prepare_file, prepare_whole
from corank.benchmarks.table_survey import Survey, Wanted, survey_model, survey_units
from corank.errors import CorankError
from corank.headrooms import RATIOS, Headroom, LayerHeadroom
from corank.inputs import Example, first_tensor, tensors
from corank.latency import LatencyTable
from corank.layers import LAYER_TYPES, unwrap
from corank.methods import METHODS
from corank.probing import unchanged
from corank.targets import PRECISIONS, Target


def headroom(
    model: nn.Module | Path | str,
    example: Example | None = None,
    *,
    backend: str | None = None,
    precision: str | None = None,
    threads: int | None = None,
    methods: Methods = None,
    target: Target | None = None,
    rounds: int = 6,
    time_budget: float | None = 120.0,
    cache: Path | str | None = None,
    types: Collection[str] = LAYER_TYPES,
    include: Iterable[str] | None = None,
    exclude: Iterable[str] | None = None,
    seed: int = 0,
    progress: bool = True,
) -> Headroom:
    """Measure how much faster low rank could make a network on this hardware, before any training.

    Every layer is timed dense and split at an eighth, a quarter and half of its full rank. The whole
    network's speedup is whole / (whole − Σ what the layers save); a layer that does not gain stays dense.
    Where the layers alone take longer than the whole network, which fuses more, they are scaled to it. It is
    a prediction, from layers timed alone; and it says nothing about accuracy.

    Args:
        model: the network, or an .onnx file, whose layers are timed with random weights.
        example: one input, at the batch size that matters; for a file only where it leaves shapes open.
        backend: an engine as in `latency_table`; torch for a network and onnxruntime for a file if None.
        precision, threads, methods, target, rounds, cache, types, include, exclude, seed, progress: as in
            `latency_table`; types, include and exclude are for networks only.
        time_budget: seconds; None measures everything.
    Returns: a Headroom with the verdict "worth it" or "do not bother".
    Raises: CorankError, as `latency_table`; FileError, for a file that is not ONNX or leaves shapes open.

    >>> net = nn.Sequential(nn.Linear(8, 8), nn.ReLU())
    >>> found = headroom(net, torch.ones(1, 8), rounds=2, progress=False)
    >>> found.verdict.split(":")[0] in ("worth it", "do not bother")
    True
    """
    start = time.monotonic()
    target = target or Target()
    precision = precision or target.precision
    threads = torch.get_num_threads() if threads is None else threads
    wanted = Wanted(methods, RATIOS, target.multiple, target)
    if isinstance(model, nn.Module):
        if example is None:
            raise CorankError("headroom: a network needs an example input. Give one.")
        engine = backend or "torch"
        used = check_terms(model, example, engine, precision)
        terms = Terms(engine, used, threads, rounds, time_budget, cache, seed, progress)
        network, inputs = unwrap(model), example

        def run_network(folder: Path) -> Run:
            return prepare_whole(engine, network, inputs, threads, folder, used)

        survey = survey_model(network, example, wanted, types=types, include=include, exclude=exclude)
        first = first_tensor(example)
        with unchanged(network):
            network.eval()
            batch = first.shape[0] if first.dim() else 1
            table = time_survey(survey, terms, run_network, whole_key(network, survey), batch, start)
        return sum_up(table, survey, weight_bytes(network))
    path = Path(model)
    engine = backend or "onnxruntime"
    if engine not in FILE_ENGINES:
        raise CorankError(f"backend: a file runs in {' or '.join(FILE_ENGINES)}, got {engine!r}.")
    shapes = None if example is None else [tuple(one.shape) for one in tensors(example)]
    file = read_layers(path, shapes)
    used = PRECISIONS.get(precision or "f32", "")
    check_terms(nn.Identity(), torch.zeros(1), engine, precision)
    terms = Terms(engine, used, threads, rounds, time_budget, cache, seed, progress)
    survey = survey_units(file.units, file.calls, file.layers, file.skipped, wanted)
    key = hashlib.sha256(path.read_bytes() + repr(file.inputs).encode()).hexdigest()[:16]

    def run_file(folder: Path) -> Run:
        return prepare_file(engine, path, _arrays(file, seed), threads, folder, used).run

    batch = next(iter(file.inputs.values()))[0][0] if file.inputs else 1
    table = time_survey(survey, terms, run_file, key, batch, start)
    return sum_up(table, survey, path.stat().st_size)


def sum_up(table: LatencyTable, survey: Survey, size: int) -> Headroom:
    """Return what a table says about the whole network, at each rank ratio and at best.

    `size` is that of the network's weights, in bytes.
    """
    dense = {name: table.dense(name).ms for name in table.layers}
    total = sum(dense.values())
    scale = min(1.0, table.whole_ms / total)
    layers = tuple(_layer(table, survey, name, dense[name] * scale / table.whole_ms) for name in dense)
    skipped = dict(table.skipped)
    for one in layers:
        if one.method is None:
            offered = any(survey.layers[one.layer].values())
            skipped[one.layer] = (
                "no split of it was measured"
                if offered
                else "no rank of any split saves multiply-accumulates"
            )
    speedups = {
        f"{ratio:g}": _whole(
            {one.layer: one.speedups.get(f"{ratio:g}", 1.0) for one in layers},
            {one.layer: one.share for one in layers},
        )
        for ratio in RATIOS
    }
    shares = {one.layer: one.share for one in layers}
    splittable = sum(one.share for one in layers if one.method is not None)
    notes = list(table.notes)
    if scale < 1:
        notes.append(
            f"the layers timed alone take {1 / scale:.2f} times as long as the whole network, in which the "
            "engine saves work between them; they are scaled to it"
        )
    return Headroom(
        backend=table.backend,
        threads=table.threads,
        precision=table.precision,
        batch=table.batch,
        whole_ms=table.whole_ms,
        layers=layers,
        skipped=skipped,
        speedups=speedups,
        best=_whole({one.layer: one.best for one in layers}, shares),
        bound=1 / max(1 - splittable, 1e-3),
        machine=table.machine,
        versions=table.versions,
        notes=tuple(notes),
        weight_bytes=(size, size - sum(_saved_bytes(survey, one) for one in layers)),
    )


def _layer(table: LatencyTable, survey: Survey, name: str, share: float) -> LayerHeadroom:
    dense = table.dense(name)
    splits = table.splits(name)
    unit = survey.units[next(iter(survey.calls[name]))]
    full = {method: METHODS[method].full_rank(unit.layer) for method in {row.method for row in splits}}
    if not splits:
        return LayerHeadroom(name, share, dense.rank, {})
    speedups = {
        f"{ratio:g}": max(
            dense.ms / table.ms(name, method, max(round(ratio * rank), 1)) for method, rank in full.items()
        )
        for ratio in RATIOS
    }
    best = min(splits, key=lambda row: row.ms)
    return LayerHeadroom(name, share, full[best.method], speedups, best.method, best.rank, dense.ms / best.ms)


def _saved_bytes(survey: Survey, one: LayerHeadroom) -> int:
    """Return the bytes of weights that a layer's fastest split does without."""
    if one.method is None or one.rank is None or one.best <= 1:
        return 0
    layer = survey.units[next(iter(survey.calls[one.layer]))].layer
    return _parameter_bytes(layer) - _parameter_bytes(METHODS[one.method].structure(layer, one.rank))


def _parameter_bytes(layer: nn.Module) -> int:
    return sum(each.numel() * each.element_size() for each in layer.parameters())  # also on meta


def _whole(speedups: Mapping[str, float], shares: Mapping[str, float]) -> float:
    """Return the whole network's speedup where each layer that gains is split."""
    return 1 / (1 - sum(shares[name] * (1 - 1 / max(speedup, 1.0)) for name, speedup in speedups.items()))


def _arrays(file: OnnxNetwork, seed: int) -> list[np.ndarray]:
    generator = np.random.default_rng(seed)
    return [
        generator.standard_normal(shape).astype(dtype)
        if np.issubdtype(np.dtype(dtype), np.floating)
        else np.ones(shape, dtype)
        for shape, dtype in file.inputs.values()
    ]
