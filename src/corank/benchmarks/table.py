"""Measuring a latency table: every split of every layer, beside the dense layer, in the serving engine."""

from __future__ import annotations

import contextlib
import gc
import hashlib
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from corank.benchmarks import timing
from corank.benchmarks.machine import describe_machine, pinned
from corank.benchmarks.table_cache import open_times
from corank.benchmarks.table_fill import MIN_TIME, fill, note_missed, note_unsteady
from corank.benchmarks.table_measure import measure_whole
from corank.benchmarks.table_ranks import Methods, RankChoice
from corank.benchmarks.table_rows import make_rows
from corank.benchmarks.table_runners import Prepared, Run, check_terms, prepare_chain, prepare_whole, terms_of
from corank.benchmarks.table_survey import Survey, Wanted, survey_model
from corank.errors import CorankError
from corank.inputs import Example, first_tensor
from corank.latency import LatencyTable
from corank.layers import LAYER_TYPES, unwrap
from corank.probing import unchanged
from corank.targets import Target


@dataclass(frozen=True, slots=True)
class Terms:
    """Under which terms a table is measured; see `latency_table`."""

    backend: str
    precision: str
    threads: int = field(default_factory=torch.get_num_threads)
    rounds: int = 10
    time_budget: float | None = None
    cache: Path | str | None = None
    seed: int = 0
    progress: bool = True

    def __post_init__(self) -> None:
        if self.threads < 1:
            raise CorankError(f"threads: allowed is 1 or more, got {self.threads}.")
        if self.rounds < 2 or self.rounds % 2:
            raise CorankError(f"rounds: allowed is an even number from 2, got {self.rounds}.")
        if self.time_budget is not None and not self.time_budget > 0:
            raise CorankError(f"time_budget: allowed are seconds above 0, got {self.time_budget}.")


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
    multiple: int | None = None,
    target: Target | None = None,
    types: Collection[str] = LAYER_TYPES,
    include: Iterable[str] | None = None,
    exclude: Iterable[str] | None = None,
    seed: int = 0,
    progress: bool = True,
) -> LatencyTable:
    """Time every split of every layer beside the dense layer, in the engine that will serve the network.

    Each different layer is timed once, with random weights, on the shape, dtype and memory format of its real
    input, together with the batch norm and the activation that fuse with it. Dense and splits take turns in
    one run. What ONNX Runtime and OpenVINO spend on reordering the input and output of a layer timed alone is
    left out of both, since inside a network they do not. A run during which the machine drifted is repeated,
    at most twice, then noted. A row's `ms` is the dense layer's time times the ratio, of all the layer's
    calls in one run of the network. The whole dense network is timed in turns with all its dense layers.

    Args:
        model: the network; its weights do not matter. It is left as it was.
        example: one input, at the batch size that matters.
        methods: names for every layer, or `{layer pattern: names}`. By default filter basis, input basis,
            spatial and Tucker-2 for convolutions (filter basis alone if they are 1×1), SVD for linear ones.
        ranks: shares of the full rank, or `{layer pattern: [ranks]}`. By default at most eight multiples of
            `multiple` a method, up to a little past the rank at which multiply-accumulates break even.
        backend: one of torch, torch_channels_last, torch_compile, torch_cuda, onnxruntime, openvino.
        precision: f32, bf16 for OpenVINO on a processor that has it, or int8 for ONNX Runtime and OpenVINO
            (quantized with one input: the times hold, its accuracy is not looked at). For torch it is the
            model's dtype.
        threads: for the engine; torch's present number if None.
        rounds: samples of each candidate, an even number.
        time_budget: seconds; the most informative is measured first, what is left out is in the notes.
        cache: a folder that keeps every time under the terms it was measured under (processor, versions,
            threads, precision), so that a run that was interrupted goes on where it stopped.
        multiple: of the ranks that are tried, 8 or the target's; engines run multiples of 8 or 16 best.
        target: what the hardware takes; it narrows methods and splits, and gives multiple and precision.
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
    target = target or Target()
    wanted = Wanted(methods, ranks, target.multiple if multiple is None else multiple, target)
    precision = check_terms(model, example, backend, precision or target.precision)
    threads = torch.get_num_threads() if threads is None else threads
    terms = Terms(backend, precision, threads, rounds, time_budget, cache, seed, progress)
    start = time.monotonic()
    model = unwrap(model)
    survey = survey_model(model, example, wanted, types=types, include=include, exclude=exclude)
    first = first_tensor(example)

    def run_whole(folder: Path) -> Run:
        return prepare_whole(backend, model, example, threads, folder, precision)

    with unchanged(model):
        model.eval()
        batch = first.shape[0] if first.dim() else 1
        return time_survey(survey, terms, run_whole, whole_key(model, survey), batch, start)


def time_survey(
    survey: Survey,
    terms: Terms,
    run_whole: Callable[[Path], Run],
    key: str,
    batch: int,
    start: float | None = None,
) -> LatencyTable:
    """Time what there is to time in a network, and the whole of it.

    Args:
        survey: the units and their splits.
        terms: under which they are timed.
        run_whole: makes the whole network ready, given an empty folder.
        key: what tells the whole network from others in the cache.
        batch: the first dimension of the input.
        start: when the time budget began, by `time.monotonic`; now if None.
    """
    start = time.monotonic() if start is None else start
    machine = describe_machine()
    times = open_times(terms.cache, terms_of(terms.backend, terms.threads, terms.precision, machine))

    def measure(runners: Mapping[str, Run]) -> Mapping[str, timing.Times]:
        return timing.time_interleaved(runners, terms.rounds, min_time=MIN_TIME, seed=terms.seed)

    def prepare(chain: nn.Sequential, x: Tensor, folder: Path) -> Prepared:
        return prepare_chain(terms.backend, chain, x, terms.threads, folder, terms.precision)

    stop = None if terms.time_budget is None else start + terms.time_budget
    with pinned(terms.threads), _settled_heap(), torch.random.fork_rng(devices=()):
        measure_whole(key, survey.units, times, run_whole, prepare, measure, terms.seed)
        dense = times.dense[key]
        missed = fill(
            survey, times, dense, prepare, measure, terms.rounds, stop, terms.seed, progress=terms.progress
        )
    notes = *note_unsteady(survey, times, key), *note_missed(missed, survey, terms.time_budget)
    return LatencyTable(
        backend=terms.backend,
        threads=terms.threads,
        precision=terms.precision,
        batch=batch,
        whole_ms=times.whole[key] * 1e3,
        rows=make_rows(survey.layers, survey.calls, survey.units, dense, times),
        skipped=survey.skipped,
        machine=machine,
        versions=times.terms["versions"],
        notes=notes,
    )


@contextlib.contextmanager
def _settled_heap() -> Iterator[None]:
    """Spare the collection before each run the objects that were there before: 0.3 s with torch loaded."""
    mine = gc.get_freeze_count() == 0
    gc.collect()
    if mine:
        gc.freeze()
    try:
        yield
    finally:
        if mine:
            gc.unfreeze()


def whole_key(model: nn.Module, survey: Survey) -> str:
    """Return what tells a network from others in the cache: its modules, and which units it calls."""
    called = [sorted(counter.items()) for counter in survey.calls.values()]
    return hashlib.sha256(f"{model!r}{called}".encode()).hexdigest()[:16]
