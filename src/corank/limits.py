"""The rules as limits on what the options of all layers cost together, and the plan that keeps them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from torch import nn

from corank.calibration import Moments
from corank.decomposition import decompose
from corank.errors import CorankError, InfeasibleError
from corank.footprint import Footprint
from corank.latency import LatencyTable
from corank.options import LayerOptions, Option
from corank.plans import Plan
from corank.rules import Accuracy, Budget, Latency
from corank.selection import Limit, select

_EVALUATIONS = 8  # of cut networks, in the search of `choose_by_accuracy`
_RELEASED = "dense: within the limits, the energy that a split loses is worth more elsewhere"


@dataclass(frozen=True, slots=True)
class Network:
    """What is known of a network before its options are chosen."""

    base: Plan  # nothing chosen yet
    options: Mapping[str, LayerOptions]
    footprint: Footprint | None  # where a rule limits the peak of memory
    table: LatencyTable | None
    floor: float

    def values(self, of: Callable[[Option], float]) -> list[list[float]]:
        """Return one number for every option of every layer."""
        return [[of(option) for option in one.options] for one in self.options.values()]

    @property
    def layers_ms(self) -> float:
        """The time of the layers that have options, all dense."""
        return sum(one.options[0].ms for one in self.options.values())

    @property
    def scale(self) -> float:
        """What a layer's time alone is multiplied by, where the layers together would exceed the whole."""
        whole = self.table.whole_ms if self.table is not None else 0.0
        return min(1.0, whole / self.layers_ms) if self.layers_ms else 1.0

    def predict_ms(self, layers_ms: float) -> float:
        """Return the time of the whole network, its layers taking `layers_ms` when timed alone."""
        whole = self.table.whole_ms if self.table is not None else 0.0
        return whole - self.scale * (self.layers_ms - layers_ms)


def choose(network: Network) -> Plan:
    """Choose one option a layer: the least predicted loss within the limits, or without any the cheapest.

    Raises: InfeasibleError, with the plan that comes closest to the first limit that cannot be kept.
    """
    limits = list_limits(network)
    if not limits:
        return assemble(network, _cheapest(network))
    chosen = select(network.values(lambda option: option.loss), limits)
    if chosen is None:
        raise _infeasible(network, limits)
    return assemble(network, chosen)


def choose_by_accuracy(
    network: Network,
    rules: Sequence[Accuracy],
    model: nn.Module,
    stats: Mapping[str, Moments] | None,
    evaluate: Callable[[nn.Module], float],
    refit: Callable[[nn.Module], object] | None,
) -> Plan:
    """Choose the cheapest options whose cut network, evaluated, loses no more accuracy than allowed.

    Bisection on the predicted loss: for each bound the cheapest plan within it, carried out, refitted and
    evaluated. With limits besides, the plan of least loss within them is evaluated, and that is all.
    Raises: InfeasibleError, when the limits leave no plan that is accurate enough.
    """
    allowed = evaluate(model) - min(rule.max_drop for rule in rules)

    def accurate(made: Plan) -> bool:
        small = decompose(model, made, stats)
        if refit is not None:
            refit(small)
        return evaluate(small) >= allowed

    if list_limits(network):
        made = choose(network)
        if not accurate(made):
            raise InfeasibleError(
                "plan: within the other limits the least lossy plan still loses more accuracy than allowed "
                "right after the cut. Raise them or max_drop, or fine-tune first (corank.compress judges "
                "after fine-tuning); the plan is in .best_plan.",
                made,
            )
        return made
    losses, prices = network.values(lambda option: option.loss), network.values(_price(network))
    deepest = _cheapest(network)
    low, high = 0.0, sum(row[index] for row, index in zip(losses, deepest, strict=True))
    best = assemble(network, [0] * len(losses))
    bound = high
    for _ in range(_EVALUATIONS):
        chosen = select(prices, [Limit("loss", losses, bound)]) or [0] * len(losses)
        made = assemble(network, chosen)
        if accurate(made):
            best, low = made, bound
            if bound >= high:
                break
        else:
            high = bound
        bound = (low + high) / 2
    return best


def _price(network: Network) -> Callable[[Option], float]:
    if network.table is not None:
        return lambda option: option.ms
    return lambda option: option.cost.macs


def _cheapest(network: Network) -> list[int]:
    return Limit("", network.values(_price(network)), 0.0).least()


def list_limits(network: Network) -> list[Limit]:
    """Turn budgets and latencies into limits on the options' costs."""
    base, limits = network.base, []
    for rule in base.rules:
        if isinstance(rule, Latency):
            rest = network.predict_ms(0.0)
            at_most = rule.limit(base.ms_before or 0.0) - rest
            limits.append(Limit("time", network.values(lambda one: network.scale * one.ms), at_most))
        if isinstance(rule, Budget):
            limits += _budget(network, rule)
    return limits


def _budget(network: Network, rule: Budget) -> list[Limit]:
    before, limits = network.base.before, []
    counts: dict[str, tuple[float | None, Callable[[Option], float], int]] = {
        "multiply-accumulates": (rule.macs, lambda one: one.cost.macs, before.macs),
        "parameters": (rule.params, lambda one: one.cost.params, before.params),
        "bytes": (rule.bytes, lambda one: one.cost.bytes, before.bytes),
    }
    for name, (share, count, whole) in counts.items():
        if share is not None:
            costs = network.values(count)
            rest = whole - sum(row[0] for row in costs)  # of what has no options
            limits.append(Limit(name, costs, share * whole - rest))
    if rule.peak_memory is not None and network.footprint is not None:
        limits += _peaks(network, network.footprint, rule.peak_memory)
    return limits


def _peaks(network: Network, footprint: Footprint, share: float) -> list[Limit]:
    """Keep the weights and the live activations, at each layer in turn and between them, below a share."""
    weights = network.values(lambda one: one.cost.bytes)
    rest = footprint.weights - sum(row[0] for row in weights)
    at_most = share * _peak(network, footprint, [0] * len(weights)) - rest
    limits = [Limit("peak memory", weights, at_most - footprint.elsewhere)]
    for number, (name, one) in enumerate(network.options.items()):
        costs = [list(row) for row in weights]
        costs[number] = [
            weight + option.work for weight, option in zip(costs[number], one.options, strict=True)
        ]
        limits.append(Limit("peak memory", costs, at_most - footprint.beside.get(name, 0)))
    return limits


def _peak(network: Network, footprint: Footprint, chosen: Sequence[int]) -> int:
    picked = dict(zip(network.options, _picked(network, chosen), strict=True))
    dense = sum(one.options[0].cost.bytes for one in network.options.values())
    weights = footprint.weights - dense + sum(one.cost.bytes for one in picked.values())
    return footprint.peak({name: one.work for name, one in picked.items()}, weights)


def _picked(network: Network, chosen: Sequence[int]) -> list[Option]:
    return [one.options[index] for one, index in zip(network.options.values(), chosen, strict=True)]


def assemble(network: Network, chosen: Sequence[int]) -> Plan:
    """Make the plan of one option a layer, with what it costs and why the others are left alone."""
    choices, left, saved = {}, {}, network.base.before - network.base.before
    picked = _picked(network, chosen)
    for (name, one), option in zip(network.options.items(), picked, strict=True):
        if option.choice is None:
            left[name] = one.reason or _RELEASED
        else:
            choices[name] = option.choice
            saved = saved + (option.choice.before - option.choice.after)
    base = network.base
    made = replace(base, layers=choices, skipped={**base.skipped, **left}, after=base.before - saved)
    if network.table is not None:
        made = replace(made, ms_after=network.predict_ms(sum(option.ms for option in picked)))
    if network.footprint is not None:
        before, after = (_peak(network, network.footprint, one) for one in ([0] * len(picked), chosen))
        made = replace(made, peak_before=before, peak_after=after)
    return made


def _infeasible(network: Network, limits: Sequence[Limit]) -> InfeasibleError:
    """Say which limit cannot be kept, and how close one can come."""
    for limit in limits:
        least = limit.least()
        if not limit.holds(least):
            best = assemble(network, least)
            return InfeasibleError(
                f"plan: the limit on {limit.name} cannot be kept: {_reach(network, best, limit.name)} "
                "Raise the limit or allow more layers, methods or ranks; the closest plan is in .best_plan.",
                best,
            )
    names = " and ".join(dict.fromkeys(limit.name for limit in limits))
    best = assemble(network, limits[0].least())
    return InfeasibleError(
        f"plan: the limits on {names} can each be kept, but not together. Raise one of them; the plan that "
        f"keeps the one on {limits[0].name} best is in .best_plan.",
        best,
    )


def _reach(network: Network, best: Plan, name: str) -> str:
    floor = network.floor
    where = f"with an energy of at least {floor:g}" if floor else "with the deepest cut that saves anything"
    if name == "time":
        if best.ms_before is None or best.ms_after is None:
            raise CorankError("plan: a limit on time without a latency table.")
        ratio = best.ms_after / best.ms_before
        return (
            f"{where} the network is predicted to take {best.ms_after:.3g} of its {best.ms_before:.3g} ms "
            f"({ratio:.3f})."
        )
    if name == "peak memory":
        return f"{where} it still holds {best.peak_after:,} of {best.peak_before:,} bytes."
    before, after = best.before, best.after
    return (
        f"{where} it still has {after.macs / max(before.macs, 1):.3f} of its multiply-accumulates, "
        f"{after.params / max(before.params, 1):.3f} of its parameters and "
        f"{after.bytes / max(before.bytes, 1):.3f} of its bytes."
    )
