"""Choose a method and a rank for every layer from rules, with a reason for each layer left alone."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace

from torch import nn

from corank.calibration import Moments
from corank.candidates import Candidate, find_candidates, find_method
from corank.cost import model_cost
from corank.errors import CorankError, LayerError
from corank.footprint import Footprint, measure_footprint
from corank.inputs import Example
from corank.latency import LatencyTable
from corank.layers import LAYER_TYPES, match_names, named_weighted
from corank.limits import Network, choose, choose_by_accuracy
from corank.options import list_options
from corank.plans import Choice, Plan
from corank.rules import Accuracy, Budget, Energy, Error, Latency, Ranks, Rule
from corank.sensitivities import Sensitivity


def plan(
    model: nn.Module,
    rules: Rule | Sequence[Rule],
    *,
    example: Example,
    methods: Mapping[str, str | Sequence[str]] | None = None,
    stats: Mapping[str, Moments] | None = None,
    table: LatencyTable | None = None,
    sensitivity: Sensitivity | None = None,
    evaluate: Callable[[nn.Module], float] | None = None,
    refit: Callable[[nn.Module], object] | None = None,
    multiple: int = 1,
    types: Collection[str] = LAYER_TYPES,
    include: Iterable[str] | None = None,
    exclude: Iterable[str] | None = None,
) -> Plan:
    """Decide the method and the rank of every layer.

    `Energy` and `Error` are floors: each layer takes its cheapest split that keeps the share. `Budget` and
    `Latency` spend a cost where it keeps most: over all methods and ranks of all layers at once, the least
    predicted loss within the limits, as an integer program. `Accuracy` closes the loop: the cheapest plan
    whose cut network, evaluated, loses no more. All may stand together. `Ranks` is an order and stands alone.
    A split that does not save multiply-accumulates, or with a table measured time, is not made.

    Args:
        model: the trained network; left as it was.
        rules: one rule or several, which must all hold.
        example: one input of the network; it decides the shapes and so the cost.
        methods: `{layer pattern: method, or methods to choose from}`; by default filter basis or SVD, with a
            table all that were measured.
        stats: outputs measured by `corank.calibrate`; then energies and factors are those of the outputs.
        table: measured times, from `corank.latency_table`; `Latency` needs it.
        sensitivity: what `corank.sensitivity` measured: it turns energies into predicted losses. Without it
            each share of energy weighs the same.
        evaluate: the accuracy of a network on dev, higher is better; `Accuracy` needs it.
        refit: called with each cut network before it is evaluated, such as to re-estimate batch norm.
        multiple: round ranks up to a multiple of this, where no table says what the engine likes.
        types, include, exclude: which layers may be split, as in `spectrum`.
    Returns: the plan, which `decompose` carries out.
    Raises: InfeasibleError with the closest plan, when the rules cannot be met; LayerError, for a name or
        rank that does not exist; CorankError, for rules that contradict each other or lack what they need.

    >>> import torch
    >>> net = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 8))
    >>> p = plan(net, Ranks({"0": 16}), example=torch.ones(1, 64))
    >>> p.layers["0"].rank, p.after.macs, p.skipped
    (16, 2560, {'2': 'not named'})
    """
    rules = (rules,) if isinstance(rules, Rule) else tuple(rules)
    _check(rules, table, evaluate, multiple)
    found = find_candidates(
        model, example, methods, stats, table, types=types, include=include, exclude=exclude
    )
    model, candidates = found.model, found.layers
    cost, factors = model_cost(model, example), "outputs" if stats else "weights"
    base = Plan({}, found.skipped, before=cost, after=cost, rules=rules, factors=factors)
    if table is not None:
        base = replace(base, table=table.digest, ms_before=table.whole_ms, ms_after=table.whole_ms)
    if isinstance(rules[0], Ranks):
        made = _ordered(base, candidates, rules[0], table)
    else:
        floor = max((rule.energy for rule in rules if isinstance(rule, Energy | Error)), default=0.0)
        footprint = _footprint(model, candidates, example, rules)
        options = list_options(
            candidates,
            floor=floor,
            multiple=multiple,
            table=table,
            sensitivity=sensitivity,
            with_work=footprint is not None,
        )
        network = Network(base, options, footprint, table, floor)
        accuracy = [rule for rule in rules if isinstance(rule, Accuracy)]
        if accuracy and evaluate is not None:
            made = choose_by_accuracy(network, accuracy, model, stats, evaluate, refit)
        else:
            made = choose(network)
    return _in_order(made, named_weighted(model))


def _check(
    rules: Sequence[Rule],
    table: LatencyTable | None,
    evaluate: Callable[[nn.Module], float] | None,
    multiple: int,
) -> None:
    if not rules:
        raise CorankError("plan: give at least one rule, such as Energy(0.95) or Budget(macs=0.5).")
    if multiple < 1:
        raise CorankError(f"plan: multiple is a whole number from 1, got {multiple}.")
    if any(isinstance(rule, Ranks) for rule in rules) and len(rules) > 1:
        raise CorankError("plan: Ranks is an order and stands alone; drop the other rules or the ranks.")
    if any(isinstance(rule, Latency) for rule in rules) and table is None:
        raise CorankError(
            "plan: Latency is kept in measured time and needs a table. Measure one where the network will "
            "run: table=corank.latency_table(model, example, backend='onnxruntime')."
        )
    if any(isinstance(rule, Accuracy) for rule in rules) and evaluate is None:
        raise CorankError(
            "plan: Accuracy is measured and needs evaluate=, which takes a network and returns its accuracy "
            "on dev as a fraction."
        )


def _footprint(
    model: nn.Module,
    candidates: Mapping[str, Sequence[Candidate]],
    example: Example,
    rules: Sequence[Rule],
) -> Footprint | None:
    """Count the memory of a network, if a rule asks for it."""
    if not any(isinstance(rule, Budget) and rule.peak_memory is not None for rule in rules):
        return None
    return measure_footprint(model, {name: several[0].layer for name, several in candidates.items()}, example)


def _in_order(made: Plan, names: Iterable[str]) -> Plan:
    names = list(names)
    layers = {name: made.layers[name] for name in names if name in made.layers}
    return replace(made, layers=layers, skipped={n: made.skipped[n] for n in names if n in made.skipped})


def _ordered(
    base: Plan, candidates: Mapping[str, Sequence[Candidate]], order: Ranks, table: LatencyTable | None
) -> Plan:
    choices: dict[str, Choice] = {}
    for pattern, rank in order.ranks.items():
        for name in match_names(pattern, [*candidates, *base.skipped]):
            if name in base.skipped:
                raise LayerError(f"{name}: cannot be split: {base.skipped[name]}. Leave it out of the ranks.")
            candidate = candidates[name][0]
            if order.method is not None:
                method = find_method(name, order.method)
                reason = method.refusal(candidate.layer)
                if reason is not None:
                    raise LayerError(f"{name}: {reason}.")
                candidate = candidate.by(method)
            if rank > candidate.full:
                raise LayerError(
                    f"{name}: allowed ranks are 1 to {candidate.full} per group, got {rank}. Lower it."
                )
            choices[name] = _noted(candidate.choice(rank), name, table)
    left = {name: "not named" for name in candidates if name not in choices}
    saved = sum((one.before - one.after for one in choices.values()), start=base.before - base.before)
    made = replace(base, layers=choices, skipped={**base.skipped, **left}, after=base.before - saved)
    if table is None:
        return made
    gained = sum((one.ms_before or 0) - (one.ms_after or 0) for one in choices.values())
    return replace(made, ms_after=max(table.whole_ms - gained, 0.0))


def _noted(choice: Choice, name: str, table: LatencyTable | None) -> Choice:
    """Add the measured time to an ordered choice, and say where it does not pay."""
    if table is not None and any(row.method == choice.method for row in table.splits(name)):
        before, after = table.dense(name).ms, table.ms(name, choice.method, choice.rank)
        choice = replace(choice, ms_before=before, ms_after=after)
        if after >= before:
            return replace(choice, note="ordered past break-even: saves no time")
    if choice.after.macs < choice.before.macs:
        return choice
    return replace(choice, note="ordered past break-even: saves no MACs")
