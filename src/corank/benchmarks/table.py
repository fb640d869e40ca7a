"""Measuring a latency table: every split of every layer, beside the dense layer, in the serving engine."""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from corank.benchmarks import timing
from corank.benchmarks.machine import describe_machine, pinned
from corank.benchmarks.table_cache import Times, open_times
from corank.benchmarks.table_measure import Measure, measure_step, missing
from corank.benchmarks.table_order import Step, plan_steps
from corank.benchmarks.table_ranks import Methods, RankChoice, methods_by_layer, ranks_by_layer, ranks_to_time
from corank.benchmarks.table_rows import make_rows
from corank.benchmarks.table_runners import Run, check_terms, prepare_chain, prepare_whole, terms_of
from corank.benchmarks.table_units import Unit, find_units
from corank.errors import CorankError
from corank.inputs import Example, first_tensor
from corank.latency import LatencyTable
from corank.layers import LAYER_TYPES, FilterLayer, filter_layers, unwrap
from corank.methods import METHODS
from corank.probing import observe, unchanged
from corank.progress import track

_MIN_TIME = 0.004  # seconds of a sample
_EXTRA = 6  # runs of each candidate before it is sampled: warming up, and finding how often to repeat it


@dataclass(frozen=True, slots=True)
class Survey:
    """What there is to time: units, how often each layer calls which, and the candidates of both."""

    units: Mapping[str, Unit]
    calls: Mapping[str, Counter[str]]
    layers: Mapping[str, Mapping[str, Sequence[int]]]  # {layer: {method: ranks}}
    candidates: Mapping[str, Mapping[str, Sequence[int]]]  # {unit: {method: ranks}}
    skipped: Mapping[str, str]


def latency_table(
    model: nn.Module,
    example: Example,
    *,
    methods: Methods = None,
    ranks: RankChoice = None,
    backend: str = "torch",
    precision: str | None = None,
    threads: int | None = None,
    rounds: int = 10,
    time_budget: float | None = None,
    cache: Path | str | None = None,
    multiple: int = 8,
    types: Collection[str] = LAYER_TYPES,
    include: Iterable[str] | None = None,
    exclude: Iterable[str] | None = None,
    seed: int = 0,
    progress: bool = True,
) -> LatencyTable:
    """Time every split of every layer beside the dense layer, in the engine that will serve the network.

    Each different layer is timed once, with random weights, on the shape, dtype and memory format of its real
    input, together with the batch norm and the activation that fuse with it. Dense and splits take turns in
    one run; a run during which the machine drifted is repeated, at most twice, then noted. A row's `ms` is
    the dense layer's time times the ratio, of all the layer's calls in one run of the network. The whole
    dense network is timed as well.

    Args:
        model: the network; its weights do not matter. It is left as it was.
        example: one input, at the batch size that matters.
        methods: names for every layer, or `{layer pattern: names}`. By default filter basis, input basis,
            spatial and Tucker-2 for convolutions (filter basis alone if they are 1×1), SVD for linear ones.
        ranks: shares of the full rank, or `{layer pattern: [ranks]}`. By default at most eight multiples of
            `multiple` a method, up to a little past the rank at which multiply-accumulates break even.
        backend: one of torch, torch_channels_last, torch_compile, onnxruntime, openvino.
        precision: f32, or bf16 for OpenVINO on a processor that has it; for torch it is the model's dtype.
            int8 is not measured yet.
        threads: for the engine; torch's present number if None.
        rounds: samples of each candidate, an even number.
        time_budget: seconds; the most informative is measured first, what is left out is in the notes.
        cache: a folder that keeps every time under the terms it was measured under (processor, versions,
            threads, precision), so that a run that was interrupted goes on where it stopped.
        multiple: of the ranks that are tried; engines run multiples of 8 or 16 best.
        types, include, exclude: which layers, as in `spectrum`.
        seed: of the weights, the orders and the intervals.
        progress: show how far it is.
    Returns: a LatencyTable.
    Raises: CorankError, for an unknown engine, method or precision, a model that is not on the CPU, or a
        network in which nothing can be timed; LayerError, for a pattern that matches nothing; ExtraError, for
        an engine that is not installed; FileError, for a network that cannot be exported.

    >>> net = nn.Sequential(nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10))
    >>> table = latency_table(net, torch.ones(8, 256), ranks=[0.1], rounds=4, include=["0"], progress=False)
    >>> table.layers, table.splits("0")[0].rank
    (('0',), 24)
    """
    clock = time.monotonic
    start = clock()
    precision = check_terms(model, example, backend, precision)
    threads = _check_numbers(threads, rounds, time_budget, multiple)
    model = unwrap(model)
    survey = find_candidates(model, example, methods, ranks, multiple, types, include, exclude)
    machine = describe_machine()
    times = open_times(cache, terms_of(backend, threads, precision, machine))

    def measure(runners: Mapping[str, Run]) -> Mapping[str, timing.Times]:
        return timing.time_interleaved(runners, rounds, min_time=_MIN_TIME, seed=seed)

    def prepare(chain: nn.Sequential, x: Tensor, folder: Path) -> Run:
        return prepare_chain(backend, chain, x, threads, folder, precision)

    with pinned(threads), torch.random.fork_rng():
        whole = _whole(model, survey, times, example, backend, threads, precision, measure)
        stop = None if time_budget is None else start + time_budget
        missed = fill(survey, times, prepare, measure, rounds, stop, seed, progress=progress, clock=clock)
    rows = make_rows(survey.layers, survey.calls, survey.units, times)
    first = first_tensor(example)
    return LatencyTable(
        backend=backend,
        threads=threads,
        precision=precision,
        batch=first.shape[0] if first.dim() else 1,
        whole_ms=whole * 1e3,
        rows=rows,
        skipped=survey.skipped,
        machine=machine,
        versions=times.terms["versions"],
        notes=(*_unsteady(survey, times), *_left_out(missed, survey, time_budget)),
    )


def find_candidates(
    model: nn.Module,
    example: Example,
    methods: Methods = None,
    ranks: RankChoice = None,
    multiple: int = 8,
    types: Collection[str] = LAYER_TYPES,
    include: Iterable[str] | None = None,
    exclude: Iterable[str] | None = None,
) -> Survey:
    """Return what there is to time in a network.

    Raises: CorankError, when that is nothing.
    """
    usable, skipped = filter_layers(model, types=types, include=include, exclude=exclude)
    uses = observe(model, usable, example)
    layers: dict[str, FilterLayer] = {}
    for name, layer in usable.items():
        problem = uses[name].problem
        if problem is None:
            layers[name] = layer
        else:
            skipped[name] = problem
    if not layers:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in skipped.items()) or "it has no such layer"
        raise CorankError(f"latency_table: no layer of the network can be timed ({reasons}).")
    units, calls = find_units(model, layers, example)
    by_layer, asked = methods_by_layer(methods, layers), ranks_by_layer(ranks, layers)
    wanted: dict[str, dict[str, Sequence[int]]] = {}
    candidates: dict[str, dict[str, Sequence[int]]] = {key: {} for key in units}
    known: dict[tuple[str, str, Sequence[float] | None], tuple[int, ...]] = {}
    for name in layers:
        wanted[name] = {}
        for method in by_layer[name]:
            for key in calls[name]:
                terms = key, method, asked[name]
                if terms not in known:
                    unit = units[key]
                    known[terms] = ranks_to_time(
                        unit.layer, METHODS[method], unit.shape, asked[name], multiple
                    )
                wanted[name][method] = known[terms]
            for key in calls[name]:
                both = {*candidates[key].get(method, ()), *wanted[name][method]}
                candidates[key][method] = sorted(both)
    return Survey(units, calls, wanted, candidates, skipped)


def fill(
    survey: Survey,
    times: Times,
    prepare: Callable[[nn.Sequential, Tensor, Path], Run],
    measure: Measure,
    rounds: int,
    stop: float | None,
    seed: int = 0,
    *,
    progress: bool = False,
    clock: Callable[[], float] = time.monotonic,
) -> list[Step]:
    """Measure what is missing, the most informative first, and return the steps that no time was left for.

    Args:
        survey: what there is to time.
        times: what is known; it grows.
        prepare: makes a chain ready to run.
        measure: times some runners in turns.
        rounds: how many samples `measure` takes.
        stop: when the clock stops it; None measures everything. Every dense layer is measured regardless.
        seed: of weights and intervals.
        progress: show how far it is.
        clock: returns seconds.
    """
    for key in track(list(survey.units), "time the dense layers", enabled=progress):
        measure_step(survey.units[key], Step(key), times, prepare, measure, seed)
    each = {key: float(np.median(times.dense[key])) for key in survey.units}
    total: Counter[str] = Counter()
    for called in survey.calls.values():
        total += called
    weight = {key: each[key] * total[key] for key in survey.units}
    steps = [
        Step(step.unit, tuple(left))
        for step in plan_steps(survey.candidates, weight)
        if (left := missing(survey.units[step.unit], step.splits, times).values())
    ]
    missed = []
    for step in track(steps, "time the splits", enabled=progress):
        needs = (len(step.splits) + 1) * max(each[step.unit], _MIN_TIME) * (rounds + _EXTRA)
        if stop is not None and clock() + needs > stop:
            missed.append(step)
        else:
            measure_step(survey.units[step.unit], step, times, prepare, measure, seed)
    return missed


def _whole(
    model: nn.Module,
    survey: Survey,
    times: Times,
    example: Example,
    backend: str,
    threads: int,
    precision: str,
    measure: Measure,
) -> float:
    """Return the seconds of the whole dense network, from the cache where the same one was timed."""
    called = [sorted(counter.items()) for counter in survey.calls.values()]
    key = hashlib.sha256(f"{model!r}{called}".encode()).hexdigest()[:16]
    if key not in times.whole:
        with unchanged(model), tempfile.TemporaryDirectory() as place:
            model.eval()
            run = prepare_whole(backend, model, example, threads, Path(place), precision)
            times.whole[key] = float(np.median(measure({"whole": run})["whole"]))
        times.save()
    return times.whole[key]


def _check_numbers(threads: int | None, rounds: int, time_budget: float | None, multiple: int) -> int:
    threads = torch.get_num_threads() if threads is None else threads
    if threads < 1:
        raise CorankError(f"threads: allowed is 1 or more, got {threads}.")
    if multiple < 1:
        raise CorankError(f"multiple: allowed is 1 or more, got {multiple}.")
    if rounds < 2 or rounds % 2:
        raise CorankError(f"rounds: allowed is an even number from 2, got {rounds}.")
    if time_budget is not None and not time_budget > 0:
        raise CorankError(f"time_budget: allowed are seconds above 0, got {time_budget}.")
    return threads


def _unsteady(survey: Survey, times: Times) -> list[str]:
    names = [name for name, called in survey.calls.items() if any(key in times.unsteady for key in called)]
    return [f"the machine was not steady while these were timed: {', '.join(names)}"] if names else []


def _left_out(missed: Sequence[Step], survey: Survey, time_budget: float | None) -> list[str]:
    if not missed:
        return []
    splits: dict[str, Counter[str]] = {}
    for step in missed:
        name = next(name for name, called in survey.calls.items() if step.unit in called)
        splits.setdefault(name, Counter()).update(method for method, _ in step.splits)
    said = [
        f"{name} ({', '.join(f'{count} of {method}' for method, count in counts.items())})"
        for name, counts in splits.items()
    ]
    return [f"the time budget of {time_budget:g} s left unmeasured: {'; '.join(said)}"]
