"""What may be done to each layer: every method and rank that pays, with its cost and its predicted loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import log

from corank.candidates import Candidate
from corank.cost import Cost
from corank.footprint import dense_work, structure_work
from corank.latency import LatencyTable
from corank.plans import Choice
from corank.sensitivities import Sensitivity
from corank.spectra import rank_at

_MOST_RANKS = 64  # tried in one layer by one method; a wide layer's are spread evenly


@dataclass(frozen=True, slots=True)
class Option:
    """One thing that may be done to a layer: a split, or nothing where `choice` is None."""

    choice: Choice | None
    cost: Cost
    loss: float
    ms: float = 0.0
    work: int = 0  # bytes that the layer adds while it runs, where they were asked for


@dataclass(frozen=True, slots=True)
class LayerOptions:
    """All options of a layer, to leave it dense first; `reason` says why there is no other, if so."""

    options: tuple[Option, ...]
    reason: str = ""


def list_options(
    candidates: Mapping[str, Sequence[Candidate]],
    *,
    floor: float,
    multiple: int,
    table: LatencyTable | None,
    sensitivity: Sensitivity | None,
    with_work: bool,
) -> dict[str, LayerOptions]:
    """List for every layer what keeps the energy floor and saves something.

    Without a latency table a split must save multiply-accumulates, at any rank that is a multiple. With one
    it must be faster than the dense layer in measured time, the whole interval of the ratio below 1, at a
    rank that was measured.

    Predicted loss of a split that keeps the share e of the energy: s (1 − e) with the measured sensitivity s
    of `measure_sensitivity`, else −log e, so that the product of the kept shares is the largest.
    """
    found = {}
    for name, several in candidates.items():
        size = several[0].layer.weight.element_size()
        splits = []
        if table is None:
            choices = [choice for one in several for choice in _saving(one, floor, multiple)]
            reason = "break-even: no rank that is allowed would save multiply-accumulates"
        else:
            choices = [choice for one in several for choice in _paying(one, floor, table)]
            reason = _why_none_pays(name, table, floor)
        by_method = {one.method.name: one for one in several}
        for choice in choices:
            candidate = by_method[choice.method]
            splits.append(
                Option(
                    choice,
                    choice.after,
                    _loss(name, choice, sensitivity),
                    choice.ms_after or 0.0,
                    structure_work(candidate.structure(choice.rank), candidate.calls) if with_work else 0,
                )
            )
        first = several[0]
        dense_ms = table.dense(name).ms if table is not None and name in table.layers else 0.0
        dense = Option(None, first.before, 0.0, dense_ms, dense_work(first.calls, size))
        found[name] = LayerOptions((dense, *splits), "" if splits else reason)
    return found


def _loss(name: str, choice: Choice, sensitivity: Sensitivity | None) -> float:
    if sensitivity is None:
        return -log(max(choice.energy, 1e-12))
    return sensitivity[name, choice.method] * (1 - choice.energy)


def _saving(candidate: Candidate, floor: float, multiple: int) -> list[Choice]:
    """List the splits that save multiply-accumulates, from the lowest rank that keeps the floor."""
    first = rank_at(candidate.spectrum(), floor) if floor > 0 else 1
    start = min(-(-first // multiple) * multiple, candidate.full)
    ranks = range(start, candidate.full + 1, multiple)
    step = -(-len(ranks) // _MOST_RANKS)
    choices = [candidate.choice(rank) for rank in ranks[::step]]
    return [one for one in choices if one.after.macs < one.before.macs]


def _paying(candidate: Candidate, floor: float, table: LatencyTable) -> list[Choice]:
    """List the measured splits that are faster than the dense layer."""
    rows = [row for row in table.splits(candidate.name) if row.method == candidate.method.name]
    dense = table.dense(candidate.name).ms if rows else None
    choices = [
        replace(candidate.choice(row.rank), ms_before=dense, ms_after=row.ms)
        for row in rows
        if row.ratio_ci[1] < 1 and row.rank <= candidate.full
    ]
    return [one for one in choices if one.energy >= floor - 1e-12]


def _why_none_pays(name: str, table: LatencyTable, floor: float) -> str:
    if name not in table.layers:
        return table.skipped.get(name, "the latency table does not cover it")
    rows = table.splits(name)
    if not rows:
        return "the latency table has only its dense time"
    best = min(rows, key=lambda row: row.ratio)
    low, high = best.ratio_ci
    told = f"the fastest measured, {best.method} at rank {best.rank}, takes {best.ratio:.2f} ({low:.2f} to "
    told += f"{high:.2f}) of the dense layer's time"
    if high < 1 and floor > 0:
        return f"no split that keeps an energy of {floor:g} pays; {told}"
    return f"no split pays in {table.backend}: {told}"
