"""What a small network loses when the data shift, against what the dense one loses, on the same samples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from corank.decision.intervals import change_of_difference, mean_interval, two_sample_interval
from corank.pilot.corruptions import CORRUPTIONS, STRENGTHS, UNKNOWN, corrupted, unknown
from corank.tasks import Loader, Metric, Task

Scores = Mapping[str, Metric]  # the deciding metric of each arm, dense among them


def measure_drift(
    models: Mapping[str, nn.Module],
    clean: Scores,
    task: Task,
    *,
    corruptions: bool,
    shifted: tuple[str, Loader] | None = None,
) -> dict[str, dict[str, Any]]:
    """Measure each arm but dense on data that shifted.

    What counts is `extra`: (small − dense) on shifted data minus (small − dense) on clean data, so that a
    network which is a little worse everywhere is not called brittle.

    Args:
        models: every arm, `dense` among them.
        clean: what they reach on final.
        task: with `pixels`, where corruptions are asked for.
        corruptions: seven ways at five strengths, and inputs that are no images of anything.
        shifted: the name and the batches of the user's second data set.
    Returns: `{arm: {"corruptions", "unknown", "shifted", "judged"}}`, as plain values.
    """
    kinds: dict[tuple[str, int], Scores] = {}
    foreign: dict[str, Scores] = {}
    if corruptions and task.pixels is not None:
        for kind in CORRUPTIONS:
            for strength in STRENGTHS:
                kinds[kind, strength] = _scores(
                    models, task, corrupted(task.final, task.pixels, kind, strength)
                )
        foreign = {kind: _scores(models, task, unknown(task.final, task.pixels, kind)) for kind in UNKNOWN}
    second = None if shifted is None else (shifted[0], _scores(models, task, shifted[1]))
    return {name: _describe(name, clean, kinds, foreign, second) for name in models if name != "dense"}


def _scores(models: Mapping[str, nn.Module], task: Task, loader: Loader) -> Scores:
    return {name: next(iter(task.evaluate(model, loader).values())) for name, model in models.items()}


def _describe(
    arm: str,
    clean: Scores,
    kinds: Mapping[tuple[str, int], Scores],
    foreign: Mapping[str, Scores],
    second: tuple[str, Scores] | None,
) -> dict[str, Any]:
    rows = [
        {"name": kind, "strength": strength, **_row(arm, clean, found)}
        for (kind, strength), found in kinds.items()
    ]
    judged = [_mean(arm, clean, kinds, kind) for kind in CORRUPTIONS] if kinds else []
    shifted = None if second is None else {"name": second[0], **_second(arm, clean, second[1])}
    if shifted is not None:
        judged.append({key: shifted[key] for key in ("name", "samples", "extra", "ci")})
    return {
        "corruptions": rows,
        "unknown": [_unknown(kind, arm, clean, found) for kind, found in foreign.items()],
        "shifted": shifted,
        "judged": judged,
    }


def _row(arm: str, clean: Scores, found: Scores) -> dict[str, Any]:
    """Describe one corruption at one strength: both values, and the extra change with its interval."""
    rows, before = _gap(arm, found), _gap(arm, clean)
    paired = rows is not None and before is not None and len(rows) == len(before)
    return {
        "value": found[arm].value,
        "reference": found["dense"].value,
        "extra": _extra(arm, clean, found),
        "ci": list(mean_interval(rows - before))
        if paired and rows is not None and before is not None
        else None,
    }


def _mean(arm: str, clean: Scores, kinds: Mapping[tuple[str, int], Scores], kind: str) -> dict[str, Any]:
    """Describe one corruption over all strengths: what the gate judges."""
    found = [scores for (name, _), scores in kinds.items() if name == kind]
    extra = [_extra(arm, clean, one) for one in found]
    gaps, before = [_gap(arm, one) for one in found], _gap(arm, clean)
    ci = None
    if before is not None and all(one is not None and len(one) == len(before) for one in gaps):
        rows = torch.stack([one for one in gaps if one is not None]).mean(0) - before
        ci = list(mean_interval(rows))
    elif (reduce := clean[arm].reduce) is not None:
        pairs = [_rows(arm, one) for one in (*found, clean)]
        known = [one for one in pairs if one is not None and len(one[0]) == len(one[1])]
        if len(known) == len(pairs) and len({len(one[0]) for one in known}) == 1:
            ci = list(change_of_difference(known[:-1], known[-1], reduce))
    samples = clean[arm].per_sample
    return {
        "name": kind,
        "samples": None if samples is None else len(samples),
        "extra": sum(extra) / len(extra),
        "ci": ci,
    }


def _rows(arm: str, scores: Scores) -> tuple[Tensor, Tensor] | None:
    """Return the rows of small and of dense, where the metric has one a sample."""
    one, two = scores[arm].per_sample, scores["dense"].per_sample
    return None if one is None or two is None else (one, two)


def _extra(arm: str, clean: Scores, found: Scores) -> float:
    return found[arm].value - found["dense"].value - (clean[arm].value - clean["dense"].value)


def _second(arm: str, clean: Scores, found: Scores) -> dict[str, Any]:
    """Describe the second data set, whose samples are others than those of final."""
    rows, before = _gap(arm, found), _gap(arm, clean)
    ci = None if rows is None or before is None else list(two_sample_interval(rows, before))
    return {
        "samples": None if rows is None else len(rows),
        "value": found[arm].value,
        "reference": found["dense"].value,
        "extra": _extra(arm, clean, found),
        "ci": ci,
    }


def _unknown(kind: str, arm: str, clean: Scores, found: Scores) -> dict[str, Any]:
    """Describe how sure both networks are of inputs that show nothing, and how well that gives them away."""
    sure = {name: _confidence(found[name]) for name in (arm, "dense")}
    usual = {name: _confidence(clean[name]) for name in (arm, "dense")}
    one, two, three, four = sure[arm], sure["dense"], usual[arm], usual["dense"]
    if one is None or two is None or three is None or four is None:
        return {"name": kind, "confidence": None, "reference": None, "ci": None, "auroc": None}
    return {
        "name": kind,
        "confidence": one.mean().item(),
        "reference": two.mean().item(),
        "ci": list(mean_interval(one - two)),
        "auroc": auroc(three, one),
        "reference_auroc": auroc(four, two),
    }


def auroc(known: Tensor, unknown: Tensor) -> float:
    """Return how often a known input is more confident than an unknown one, ties counting half.

    Source: Mann and Whitney's U over the number of pairs, from scipy.

    >>> auroc(torch.tensor([0.9, 0.8]), torch.tensor([0.1, 0.8]))
    0.875
    """
    from scipy.stats import mannwhitneyu

    found = mannwhitneyu(known.numpy(), unknown.numpy(), method="asymptotic")
    return float(found.statistic) / (len(known) * len(unknown))


def _confidence(metric: Metric) -> Tensor | None:
    return None if metric.classified is None else metric.classified.confidence.double()


def _gap(arm: str, scores: Scores) -> Tensor | None:
    """Return small − dense of each sample, where the metric is the mean of one value a sample."""
    rows = _rows(arm, scores)
    if rows is None or scores[arm].reduce is not None or rows[0].dim() > 1:
        return None
    return rows[0].double() - rows[1].double()
