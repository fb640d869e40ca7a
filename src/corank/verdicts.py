"""What `compress` found and decided: timings against dense, rules kept or missed, and the reasons."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

from corank.plans import Plan
from corank.rules import Accuracy, Budget, Latency, Rule

SLOWER = 1.02  # slower means: the time over dense's has a lower bound above this in two independent runs


@dataclass(frozen=True, slots=True)
class Run:
    """One timing of the result against dense: how many times as fast it is, with its 95% interval.

    `peaks` are the bytes that dense and the result take at the peak in the engine, where they were measured.
    """

    speedup: float
    speedup_ci: tuple[float, float]
    dense_ms: float
    small_ms: float
    peaks: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found, and what was done about it.

    `shipped` says whether the result is the cut network; if not it is the dense one, and `reasons` say why.
    `kept` tells for each rule whether the cut network keeps it as measured; `predicted_ms` is the plan's
    prediction, before anything was undone.
    """

    shipped: bool
    reasons: tuple[str, ...]
    backend: str
    threads: int
    runs: tuple[Run, ...] = ()
    predicted_ms: float | None = None
    undone: Mapping[str, str] | None = None
    accuracy: tuple[float, float] | None = None  # dense, cut; on dev
    kept: Mapping[str, bool] | None = None
    notes: tuple[str, ...] = ()

    @property
    def slower(self) -> bool:
        """Whether the cut network is slower than dense, in both runs, by more than 2%."""
        return bool(self.runs) and all(1 / run.speedup_ci[1] > SLOWER for run in self.runs)

    @property
    def faster(self) -> bool:
        """Whether the cut network is faster than dense in both runs, the whole interval above 1."""
        return bool(self.runs) and all(run.speedup_ci[0] > 1 for run in self.runs)

    def to_json(self) -> str:
        """Write the verdict as JSON."""
        return json.dumps(asdict(self), indent=1)

    def __str__(self) -> str:
        lines = [
            "shipped: the cut network" if self.shipped else "not shipped: the result is the dense network"
        ]
        for number, run in enumerate(self.runs, 1):
            low, high = run.speedup_ci
            lines.append(
                f"run {number}: {run.speedup:.2f} times as fast (95%: {low:.2f} to {high:.2f}), "
                f"{run.small_ms:.3g} against {run.dense_ms:.3g} ms; {self.backend}, {self.threads} threads"
            )
        lines += [
            f"peak memory: {small / 1e6:.1f} MB against {dense / 1e6:.1f}, in {self.backend}"
            for dense, small in (run.peaks for run in self.runs if run.peaks is not None)
        ]
        if self.accuracy is not None:
            dense, cut = self.accuracy
            lines.append(f"on dev: {cut:.4f} against {dense:.4f} dense ({100 * (cut - dense):+.2f} points)")
        lines += [f"{rule}: {'kept' if kept else 'missed'}" for rule, kept in (self.kept or {}).items()]
        lines += [f"{name}: undone, {reason}" for name, reason in (self.undone or {}).items()]
        return "\n".join([*lines, *self.reasons, *(f"note: {note}" for note in self.notes)])


def judge(verdict: Verdict, rules: Sequence[Rule], made: Plan) -> Verdict:
    """Decide from what was measured whether the cut network is shipped, and say why not.

    It is shipped if it is faster in both runs beyond doubt, or with a `Budget` and no `Latency` not slower,
    and if an `Accuracy` rule is kept. A `Latency` that is missed is reported, and no reason to throw away
    what was gained.
    """
    verdict = replace(verdict, kept=_kept(verdict, rules, made))
    reasons = _reasons_against(verdict, rules, made)
    return replace(verdict, shipped=not reasons, reasons=tuple(reasons))


def _kept(verdict: Verdict, rules: Sequence[Rule], made: Plan) -> dict[str, bool]:
    kept, runs, accuracy = {}, verdict.runs, verdict.accuracy
    for rule in rules:
        if isinstance(rule, Latency):
            kept[str(rule)] = bool(runs) and all(run.small_ms <= rule.limit(run.dense_ms) for run in runs)
        elif isinstance(rule, Accuracy) and accuracy is not None:
            kept[str(rule)] = accuracy[0] - accuracy[1] <= rule.max_drop
        elif isinstance(rule, Budget):
            kept[str(rule)] = _within(rule, made)
    return kept


def _within(rule: Budget, made: Plan) -> bool:
    pairs = (
        (rule.macs, made.after.macs, made.before.macs),
        (rule.params, made.after.params, made.before.params),
        (rule.bytes, made.after.bytes, made.before.bytes),
        (rule.peak_memory, made.peak_after or 0, made.peak_before or 0),
    )
    return all(share is None or after <= share * before for share, after, before in pairs)


def _reasons_against(verdict: Verdict, rules: Sequence[Rule], made: Plan) -> list[str]:
    if not made.layers:
        return ["no split that was measured pays here: nothing is left of the plan"]
    reasons = []
    size_only = any(isinstance(rule, Budget) for rule in rules) and not any(
        isinstance(rule, Latency) for rule in rules
    )
    if verdict.slower:
        reasons.append("the cut network is slower than dense")
    elif not verdict.faster and not size_only:
        reasons.append("the cut network is not faster than dense beyond doubt, so it has nothing to offer")
    missed = [name for name, kept in (verdict.kept or {}).items() if not kept and name.startswith("Accuracy")]
    reasons += [f"{name} is missed after fine-tuning" for name in missed]
    return reasons
