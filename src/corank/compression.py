"""The whole road in one call, with the guarantee: what comes out is measured faster, or it is dense."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from corank.benchmarks.comparison import bench
from corank.benchmarks.table import latency_table
from corank.calibration import Moments, calibrate
from corank.decomposition import decompose
from corank.errors import CorankError, InfeasibleError
from corank.inputs import Example, run_batch, to_device
from corank.latency import LatencyTable
from corank.layers import copy_network
from corank.planning import plan as make_plan
from corank.plans import Plan
from corank.recovery import finetune
from corank.rules import Accuracy, Budget, Latency, Ranks, Rule
from corank.sensitivities import Sensitivity, sensitivity
from corank.tasks import Task, device_of
from corank.undoing import find_unpaid, fold_back
from corank.verdicts import Run, Verdict, judge

logger = logging.getLogger(__name__)

_OFF = 0.10  # a prediction further off than this is reported
_REPLANS = 2
_CALIBRATION_BATCHES = 16
_LOSS_BATCHES = 4


@dataclass(frozen=True, slots=True)
class Result:
    """What `compress` gives: the network to ship, its plan, and the verdict.

    `attempt` is the cut network where it was not shipped, for a look at it.
    """

    model: nn.Module
    plan: Plan
    verdict: Verdict
    table: LatencyTable
    attempt: nn.Module | None = None


def compress(
    model: nn.Module,
    rules: Rule | Sequence[Rule],
    *,
    example: Example,
    task: Task | None = None,
    backend: str = "torch",
    threads: int | None = None,
    table: LatencyTable | None = None,
    methods: Mapping[str, str | Sequence[str]] | None = None,
    epochs: int = 3,
    learning_rate: float = 0.01,
    time_budget: float = 120.0,
    rounds: int = 20,
    exclude: Sequence[str] | None = None,
    seed: int = 0,
    progress: bool = True,
) -> Result:
    """Make a network faster, and never slower: measure, plan, cut, time, undo what does not pay, fine-tune.

    1. Every candidate of every layer is timed (`latency_table`), and the plan is made from these times.
    2. The cut network is timed against dense, in turns. Off the prediction by more than 10%, it is said; over
       a `Latency` rule, the plan is made again with the target tightened by as much, twice at most.
    3. Splits that the assembled network is as fast without are folded back.
    4. With a task it is fine-tuned, the dense network as teacher.
    5. Two independent runs decide: the cut network is shipped if it is faster in both, the whole interval
       above 1; with a `Budget` rule alone, if it is not slower. With `Accuracy`, only if it is accurate
       enough on dev. Otherwise dense is returned, and the verdict says why.

    Args:
        model: the trained network, float32 on the CPU; left as it was.
        rules: as in `plan`, but `Ranks`: such as `[Latency(ratio=0.5), Accuracy(max_drop=0.005)]`.
        example: one input, at the batch size that matters.
        task: loaders, loss and metric: data-aware factors, measured sensitivities, fine-tuning, accuracy.
        backend, threads: the engine that will serve the network.
        table: a latency table measured before, of this network, engine and example, in float32.
        methods: `{layer pattern: method or methods}`, where not all are wanted.
        epochs: of fine-tuning, with a task.
        learning_rate: where its cosine starts.
        time_budget: seconds for the latency table.
        rounds: of each timing, an even number.
        exclude: layers left alone.
        seed: of the timing's orders.
        progress: show bars on a terminal, log lines elsewhere.
    Returns: the result; its model is a new network, in eval mode, of stock `nn` modules.
    Raises: InfeasibleError, when no plan keeps the rules; CorankError, for rules that lack what they need.

    >>> from corank.rules import Energy
    >>> model, x = nn.Sequential(nn.Linear(8, 8)), torch.ones(2, 8)
    >>> options = {"backend": "torch", "time_budget": 0.1, "rounds": 2, "progress": False}
    >>> result = compress(model, Energy(0.999), example=x, **options)
    >>> len(result.plan.layers), torch.equal(result.model(x), model(x))  # too small to gain: dense again
    (0, True)
    """
    rules = (rules,) if isinstance(rules, Rule) else tuple(rules)
    threads = torch.get_num_threads() if threads is None else threads
    _check(rules, task)
    if table is None:
        table = latency_table(
            model,
            example,
            methods=methods,
            backend=backend,
            threads=threads,
            time_budget=time_budget,
            exclude=exclude,
            seed=seed,
            progress=progress,
        )
    if table.precision != "float32":
        raise CorankError(
            f"table: its times are in {table.precision}, and compress races networks in float32. Measure it "
            "with precision f32; corank.plan takes any."
        )
    work = _Work(model, rules, example, task, table, methods, exclude, rounds, seed)
    made, small, first, notes = work.cut()
    predicted = made.ms_after
    undone = work.undo(small, made, first)
    if undone:
        small = fold_back(small, list(undone))
        made = made.without(undone)
    accuracy = None
    if task is not None:
        if made.layers and epochs:
            finetune(
                small,
                task.train,
                epochs=epochs,
                loss=task.loss,
                teacher=model,
                learning_rate=learning_rate,
                progress=progress,
            )
        accuracy = _score(model, task), _score(small, task)
    small.eval()
    runs = tuple(work.time(small, number, memory=number == 1) for number in (1, 2)) if made.layers else ()
    notes += [f"latency table: {note}" for note in table.notes]  # such as what the time budget left out
    found = Verdict(
        False, (), table.backend, table.threads, runs, predicted, undone, accuracy, notes=tuple(notes)
    )
    verdict = judge(found, rules, made)
    if verdict.shipped:
        return Result(small, made, verdict, table)
    dense = copy_network(model).eval()
    nothing = made.without(dict.fromkeys(made.layers, "not shipped: see the verdict"))
    return Result(dense, nothing, verdict, table, attempt=small if made.layers else None)


@dataclass(frozen=True, slots=True)
class _Work:
    """What the steps of `compress` share."""

    model: nn.Module
    rules: tuple[Rule, ...]
    example: Example
    task: Task | None
    table: LatencyTable
    methods: Mapping[str, str | Sequence[str]] | None
    exclude: Sequence[str] | None
    rounds: int
    seed: int

    def cut(self) -> tuple[Plan, nn.Module, Run | None, list[str]]:
        """Plan and cut, and plan again where the measured time misses the target."""
        task, stats, found = self.task, None, None
        batches: list[Any] = []
        if task is not None:
            batches = [batch for batch, _ in zip(task.train, range(_CALIBRATION_BATCHES), strict=False)]
            stats = calibrate(
                self.model, batches, inputs=True, forward=task.loss
            )  # it knows what an input is
            found = sensitivity(
                self.model,
                _mean_loss(task, batches[:_LOSS_BATCHES]),
                example=self.example,
                methods=self.methods,
                stats=stats,
                table=self.table,
                exclude=self.exclude,
            )
        costly = any(isinstance(rule, Latency | Budget) for rule in self.rules)
        rules = tuple(one for one in self.rules if not (costly and isinstance(one, Accuracy)))
        made, small = self._plan_and_cut(rules, stats, batches, found, 1.0)
        notes: list[str] = []
        if not made.layers:
            return made, small, None, notes
        run = self.time(small, 10)
        notes += _deviation(made, run)
        asked = min((one.limit(run.dense_ms) for one in self.rules if isinstance(one, Latency)), default=None)
        tightened = 1.0
        for number in range(_REPLANS):
            if asked is None or run.small_ms <= asked:
                break
            tightened *= asked / run.small_ms
            notes.append(
                f"the cut network takes {run.small_ms:.3g} ms of {asked:.3g} allowed: planned again with "
                f"{tightened:.2f} of the target"
            )
            try:
                made, small = self._plan_and_cut(rules, stats, batches, found, tightened)
            except InfeasibleError:
                notes.append("no plan reaches that: the one before it stands")
                break
            run = self.time(small, 11 + number)
        return replace(made, rules=self.rules), small, run, notes

    def _plan_and_cut(
        self,
        rules: Sequence[Rule],
        stats: Mapping[str, Moments] | None,
        batches: Sequence[Any],
        found: Sensitivity | None,
        tightened: float,
    ) -> tuple[Plan, nn.Module]:
        task = self.task
        made = make_plan(
            self.model,
            [one.times(tightened) if isinstance(one, Latency) else one for one in rules],
            example=self.example,
            methods=self.methods,
            stats=stats,
            table=self.table,
            sensitivity=found,
            evaluate=None if task is None else lambda net: _score(net, task),
            exclude=self.exclude,
        )
        aware = batches if made.layers else None  # each layer makes up for the splits before it
        forward = run_batch if task is None else task.loss
        # batch norm stays as it is: re-estimated after such a cut it was measured to lose accuracy
        return made, decompose(self.model, made, stats, asymmetric=aware or None, forward=forward)

    def time(self, small: nn.Module, number: int, *, memory: bool = False) -> Run:
        """Time a cut network against dense; each number is a run of its own."""
        return self.race({"dense": self.model, "small": small}, number, memory=memory)

    def race(self, pair: Mapping[str, nn.Module], number: int, *, memory: bool = False) -> Run:
        """Time two networks in turns, in the engine and under the terms of the table."""
        backend, (reference, rival) = self.table.backend, pair
        result = bench(
            pair,
            self.example,
            backends=[backend],
            threads=self.table.threads,
            rounds=self.rounds,
            seed=self.seed + number,
            memory=memory,
        )
        row, other = result.row(rival, backend), result.row(reference, backend)
        both = other.peak_memory, row.peak_memory
        peaks = None if both[0] is None or both[1] is None else (both[0], both[1])
        return Run(row.speedup, row.speedup_ci, other.median_ms, row.median_ms, peaks)

    def undo(self, small: nn.Module, made: Plan, first: Run | None) -> dict[str, str]:
        """Return the layers whose split the assembled network is as fast without, with the reason."""
        if first is None:
            return {}
        gains = {
            name: (choice.ms_before or 0.0) - (choice.ms_after or 0.0) for name, choice in made.layers.items()
        }
        promised = sum(gains.values())
        if first.speedup_ci[0] > 1 and first.dense_ms - first.small_ms >= 0.75 * promised:
            return {}  # the network gains what its layers gain alone
        unpaid = find_unpaid(small, gains, lambda pair: self.race(pair, 20).speedup)
        return {
            name: f"the network is {faster:.2f} times as fast without this split and those beside it"
            for name, faster in unpaid.items()
        }


def _check(rules: Sequence[Rule], task: Task | None) -> None:
    if any(isinstance(rule, Ranks) for rule in rules):
        raise CorankError(
            "compress: Ranks is an order, and compress decides by measurement. Use corank.plan and "
            "corank.decompose, or give Latency, Budget, Energy or Accuracy."
        )
    if any(isinstance(rule, Accuracy) for rule in rules) and task is None:
        raise CorankError("compress: Accuracy is measured and needs task=corank.Task(...).")


def _mean_loss(task: Task, batches: Sequence[object]) -> Callable[[nn.Module], float]:
    def measure(net: nn.Module) -> float:
        training = net.training
        net.eval()
        with torch.no_grad():
            values = [task.loss(net, to_device(batch, device_of(net))).item() for batch in batches]
        net.train(training)
        return sum(values) / len(values)

    return measure


def _score(net: nn.Module, task: Task) -> float:
    metric = next(iter(task.evaluate(net, task.dev).values()))
    return metric.value if metric.higher_is_better else -metric.value


def _deviation(made: Plan, run: Run) -> list[str]:
    if made.ms_after is None or made.ms_before is None:
        return []
    predicted = made.ms_after / made.ms_before * run.dense_ms  # on the machine as it is now
    off = run.small_ms / predicted - 1
    logger.info("predicted %.3g ms, measured %.3g ms (%+.0f%%)", predicted, run.small_ms, 100 * off)
    if abs(off) <= _OFF:
        return []
    return [f"predicted {predicted:.3g} ms, measured {run.small_ms:.3g} ms: off by {100 * off:+.0f}%"]
