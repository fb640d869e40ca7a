"""A small network against the dense one, sample by sample: what differs, where, and how surely."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from corank.decision.confidence import calibration_difference
from corank.decision.intervals import (
    Interval,
    difference_interval,
    difference_spread,
    metric_difference,
)
from corank.extras import import_extra
from corank.tasks import Classified, Metric, Slices

Groups = Mapping[str, tuple[str, Tensor]]  # a name, its kind (class or slice) and which samples (n,)


def compare(small: Metric, dense: Metric, groups: Groups) -> dict[str, Any] | None:
    """Compare the deciding metric of two networks on the same samples, as plain values for pilot.json.

    Args:
        small, dense: measured on the same samples in the same order.
        groups: parts of the samples to look at apart; see `find_groups`.
    Returns: None where the metric has no value a sample whose mean (or `reduce`) it is.
    """
    one, two = small.per_sample, dense.per_sample
    if one is None or two is None or len(one) != len(two) or not (follows(small) and follows(dense)):
        return None
    hits = counts_hits(small) and counts_hits(dense)
    rows = [_slice(small, dense, name, kind, mask, len(groups)) for name, (kind, mask) in groups.items()]
    correct_slices(rows)
    spread = difference_spread(one, two) if hits else _spread(one, two)
    told, known = small.classified, dense.classified
    both = told is not None and known is not None
    return {
        "samples": len(one),
        "method": "Bonett-Price" if hits else "paired bootstrap",
        "spread": spread,
        "mcnemar": mcnemar(one, two) if hits else None,
        "agreement": _agreement(small, dense) if hits else None,
        "flips": _flips(one, two) if hits else None,
        "slices": rows,
        "worst_slice": _worst(rows, small.higher_is_better),
        "ece_difference_ci": list(calibration_difference(told, known)) if both and told and known else None,
    }


def follows(metric: Metric) -> bool:
    """Say whether a metric is the mean, or its own `reduce`, of one row a sample."""
    values = metric.per_sample
    if values is None or len(values) < 2 or (metric.reduce is None and values.dim() != 1):
        return False
    found = values.double().mean().item() if metric.reduce is None else metric.reduce(values)
    return abs(found - metric.value) <= max(1e-6, 1e-4 * abs(metric.value))


def counts_hits(metric: Metric) -> bool:
    """Say whether a metric counts hits: each sample has 0 or 1."""
    values = metric.per_sample
    return (
        values is not None
        and metric.reduce is None
        and values.dim() == 1
        and bool(((values == 0) | (values == 1)).all())
    )


def difference_ci(small: Metric, dense: Metric, confidence: float = 0.95) -> Interval:
    """Return the interval of the difference of a metric of two networks on the same samples."""
    one, two = small.per_sample, dense.per_sample
    if one is None or two is None:
        raise ValueError("both metrics need per_sample")
    if counts_hits(small) and counts_hits(dense):
        return difference_interval(one, two, confidence)
    return metric_difference(one, two, small.reduce, confidence)


def mcnemar(correct: Tensor, reference: Tensor) -> dict[str, Any]:
    """Count on which samples two networks are right, and test whether one is right more often.

    Returns: the four counts, and p of the two-sided exact test.

    Source: McNemar's exact test, from statsmodels.

    >>> mcnemar(torch.tensor([1, 1, 0, 0]), torch.tensor([1, 0, 1, 0]))["p"]
    1.0
    """
    test = import_extra("statsmodels.stats.contingency_tables", "decision").mcnemar
    one, two = correct.bool(), reference.bool()
    both, gained, lost, neither = (
        int(mask.sum()) for mask in (one & two, one & ~two, ~one & two, ~one & ~two)
    )
    p = float(test([[both, gained], [lost, neither]], exact=True).pvalue)
    return {"both_right": both, "gained": gained, "lost": lost, "both_wrong": neither, "p": min(p, 1.0)}


def correct_slices(rows: Sequence[dict[str, Any]]) -> None:
    """Add `p_holm` to each slice: its p-value, corrected for how many were tested; None where it was not.

    Source: Holm's step-down method, from statsmodels.
    """
    if rows:
        multipletests = import_extra("statsmodels.stats.multitest", "decision").multipletests
        tested = [row for row in rows if row["p"] is not None]
        corrected = multipletests([row["p"] for row in tested], method="holm")[1] if tested else ()
        for row in rows:
            row["p_holm"] = None
        for row, p in zip(tested, corrected, strict=True):
            row["p_holm"] = float(p)


def find_groups(
    classified: Classified | None, classes: Sequence[str], slices: Slices | None, samples: int
) -> dict[str, tuple[str, Tensor]]:
    """Return what is looked at apart: each class, and each slice of the task; empty ones are left out.

    Args:
        classified: where labels are known.
        classes: their names; a label without one is called by its number.
        slices: of the task.
        samples: of final.

    >>> list(find_groups(None, (), {"light": ["day", "night"], "near": [True, False]}, 2))
    ['light=day', 'light=night', 'near']
    """
    groups: dict[str, tuple[str, Tensor]] = {}
    if classified is not None:
        for label in sorted(set(classified.labels.tolist())):
            name = classes[label] if 0 <= label < len(classes) else str(label)
            named = name if name not in groups else f"{name} ({label})"
            groups[named] = ("class", classified.labels == label)
    for name, values in (slices or {}).items():
        listed = values.tolist() if isinstance(values, Tensor) else list(values)
        if all(isinstance(one, bool) for one in listed):
            groups[_free(name, groups)] = ("slice", torch.tensor(listed, dtype=torch.bool))
            continue
        for label in sorted(set(listed), key=str):
            mask = torch.tensor([one == label for one in listed])
            groups[_free(f"{name}={label}", groups)] = ("slice", mask)
    return {name: found for name, found in groups.items() if bool(found[1].any())}


def _free(name: str, groups: Mapping[str, object]) -> str:
    return name if name not in groups else f"slice {name}"


def _slice(small: Metric, dense: Metric, name: str, kind: str, mask: Tensor, count: int) -> dict[str, Any]:
    one, two = (_only(metric, mask) for metric in (small, dense))
    a, b = one.per_sample, two.per_sample
    hits = counts_hits(one) and counts_hits(two)
    enough = a is not None and len(a) > 1
    return {
        "name": name,
        "kind": kind,
        "samples": int(mask.sum()),
        "value": one.value,
        "reference": two.value,
        "difference": one.value - two.value,
        # Bonferroni: all of them hold together at 95%
        "ci": list(difference_ci(one, two, 1 - 0.05 / count)) if enough else None,
        "p": mcnemar(a, b)["p"] if hits and a is not None and b is not None else _p(one, two, count),
    }


def _only(metric: Metric, mask: Tensor) -> Metric:
    values = metric.per_sample
    if values is None:
        raise ValueError("a slice needs per_sample")
    rows = values[mask]
    value = rows.double().mean().item() if metric.reduce is None else metric.reduce(rows)
    return Metric(value, metric.higher_is_better, rows, metric.reduce)


def _p(small: Metric, dense: Metric, count: int) -> float | None:
    """Return p of the paired permutation test of scipy: which network a row is of is drawn anew.

    It draws so often that Holm's correction over `count` slices can still find 5%; None of a single sample.
    """
    from scipy.stats import permutation_test

    one, two = small.per_sample, dense.per_sample
    if one is None or two is None or len(one) < 2:
        return None
    if bool((one == two).all()):
        return 1.0
    rows, n = torch.cat([one, two]), len(one)
    reduce = small.reduce or (lambda chosen: chosen.double().mean().item())
    found = permutation_test(
        (np.arange(n), np.arange(n, 2 * n)),  # the numbers of the rows, which are exchanged in pairs
        lambda a, b: reduce(rows[torch.from_numpy(a)]) - reduce(rows[torch.from_numpy(b)]),
        permutation_type="samples",
        vectorized=False,
        n_resamples=max(999, 50 * count),
        rng=0,
    )
    return float(found.pvalue)


def _spread(one: Tensor, two: Tensor) -> float | None:
    return (one.double() - two.double()).std().item() if one.dim() == 1 else None


def _agreement(small: Metric, dense: Metric) -> float:
    """Return the share of samples with one prediction, or where none are known, right or wrong alike."""
    one, two = small.classified, dense.classified
    if one is not None and two is not None:
        return (one.predictions == two.predictions).double().mean().item()
    if small.per_sample is None or dense.per_sample is None:
        raise ValueError("agreement needs per_sample")
    return (small.per_sample == dense.per_sample).double().mean().item()


def _flips(one: Tensor, two: Tensor) -> dict[str, list[int]]:
    """Return the numbers of the final samples that only the dense, or only the small network gets right."""
    return {
        "lost": ((one == 0) & (two == 1)).nonzero()[:, 0].tolist(),
        "gained": ((one == 1) & (two == 0)).nonzero()[:, 0].tolist(),
    }


def _worst(rows: Sequence[Mapping[str, Any]], higher: bool) -> str | None:
    """Return the slice that loses most; of equals the one with the fewest samples."""
    sign = 1 if higher else -1
    worst = min(rows, key=lambda row: (sign * row["difference"], row["samples"]), default=None)
    return None if worst is None else str(worst["name"])
