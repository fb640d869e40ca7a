"""How sure a trial can be: 95% intervals of a metric, and of the difference of two on the same samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import sqrt
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from corank.extras import import_extra

RESAMPLES = 2000
_FEW_RESAMPLES = 500  # where each takes many metrics
_BATCH = 2_000_000  # numbers that are resampled at once

Reduce = Callable[[Tensor], float]


class Interval(NamedTuple):
    """An interval, of 95% where nothing else is said."""

    low: float
    high: float


def accuracy_interval(correct: Tensor) -> Interval:
    """Return the 95% interval of an accuracy from one 0 or 1 a sample.

    Source: Wilson's score interval, from scipy.

    >>> low, high = accuracy_interval(torch.ones(360))
    >>> round(low, 4), high
    (0.9894, 1.0)
    """
    from scipy.stats import binomtest

    found = binomtest(int(correct.sum()), len(correct)).proportion_ci(0.95, method="wilson")
    return Interval(float(found.low), float(found.high))


def difference_interval(correct: Tensor, reference: Tensor, confidence: float = 0.95) -> Interval:
    """Return the interval of accuracy minus the reference's, on the same samples.

    d̄ ± z s / √(n + 2), where d̄ and s are mean and standard deviation of the n differences in hits and of two
    more that are put to them, +1 and −1.

    Args:
        correct, reference: 0 or 1 a sample, (n,); or (n, k) from k pairs of trainings, whose differences are
            averaged sample by sample first: k seeds on one sample are no k samples.
        confidence: of the interval.

    Source: Bonett and Price 2012, adjusted Wald interval for paired proportions, there written by counts; it
    stays honest where no sample differs. The averages over seeds are ours. Neither scipy nor statsmodels has
    an interval of a paired difference of proportions.

    >>> low, high = difference_interval(torch.ones(360), torch.ones(360))
    >>> round(low, 4), round(high, 4)
    (-0.0077, 0.0077)
    """
    from scipy.stats import norm

    gaps = _gaps(correct, reference)
    half = float(norm.ppf((1 + confidence) / 2)) * gaps.std(correction=0).item() / sqrt(len(gaps))
    return Interval(gaps.mean().item() - half, gaps.mean().item() + half)


def difference_spread(correct: Tensor, reference: Tensor) -> float:
    """Return the standard deviation of a sample's difference in hits, as the interval above has it."""
    return _gaps(correct, reference).std(correction=0).item()


def _gaps(correct: Tensor, reference: Tensor) -> Tensor:
    gaps = correct.double() - reference.double()
    return _padded(gaps if gaps.dim() == 1 else gaps.mean(1))


def _padded(gaps: Tensor) -> Tensor:
    gaps = gaps.double()
    return torch.cat([gaps, gaps.new_tensor([1.0, -1.0])])


def mean_interval(values: Tensor, confidence: float = 0.95, seed: int = 0) -> Interval:
    """Return the interval of a mean: the percentile bootstrap of scipy.

    >>> low, high = mean_interval(torch.arange(100.0))
    >>> low < 49.5 < high
    True
    """
    from scipy.stats import bootstrap

    found = bootstrap(
        (values.double().numpy(),),
        np.mean,
        n_resamples=RESAMPLES,
        batch=max(1, _BATCH // len(values)),
        confidence_level=confidence,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Interval(float(found.low), float(found.high))


def metric_interval(values: Tensor, reduce: Reduce | None, seed: int = 0) -> Interval:
    """Return the interval of any metric that follows from one row a sample; see `metric_difference`."""
    if reduce is None:
        return mean_interval(values, seed=seed)
    return _resampled(len(values), lambda chosen: reduce(values[chosen]), 0.95, seed)


def metric_difference(
    values: Tensor, reference: Tensor, reduce: Reduce | None, confidence: float = 0.95, seed: int = 0
) -> Interval:
    """Return the interval of a metric minus the reference's, both resampled on the same samples.

    Args:
        values, reference: (n,) or (n, k), one row a sample.
        reduce: how the metric follows from the rows; None is the mean.
        confidence: of the interval.
        seed: of the resampling.

    Source: percentile bootstrap of scipy over the numbers of the samples.

    >>> metric_difference(torch.ones(9), torch.zeros(9), lambda rows: rows.mean().sqrt().item())
    Interval(low=1.0, high=1.0)
    """
    if reduce is None:
        return mean_interval(values.double() - reference.double(), confidence, seed)
    return _resampled(
        len(values), lambda chosen: reduce(values[chosen]) - reduce(reference[chosen]), confidence, seed
    )


def change_of_difference(
    shifted: Sequence[tuple[Tensor, Tensor]], clean: tuple[Tensor, Tensor], reduce: Reduce, seed: int = 0
) -> Interval:
    """Return the interval of how a difference of two metrics changes, all resampled on the same samples.

    Args:
        shifted: rows of a network and of its reference, once for each way the samples were changed; the mean
            of their differences counts.
        clean: rows of both on the samples as they were.
        reduce: how the metric follows from the rows.
        seed: of the resampling.

    >>> ones, zeros = torch.ones(9), torch.zeros(9)
    >>> change_of_difference([(ones, ones)], (ones, zeros), lambda rows: rows.mean().item())
    Interval(low=-1.0, high=-1.0)
    """

    def gap(pair: tuple[Tensor, Tensor], chosen: Tensor) -> float:
        return reduce(pair[0][chosen]) - reduce(pair[1][chosen])

    return _resampled(
        len(clean[0]),
        lambda chosen: sum(gap(pair, chosen) for pair in shifted) / len(shifted) - gap(clean, chosen),
        0.95,
        seed,
        _FEW_RESAMPLES,
    )


def two_sample_interval(values: Tensor, others: Tensor, seed: int = 0) -> Interval:
    """Return the 95% interval of the mean of values minus that of other samples.

    Differences of hits, −1, 0 or 1 each, have Bonett and Price's interval (see `difference_interval`) on both
    sides, which stays honest where nothing differs; all else is resampled, each side alone.

    >>> same = torch.zeros(8)
    >>> low, high = two_sample_interval(same, same)
    >>> low < -0.3 and high > 0.3
    True
    """
    if all(bool(((side == 0) | (side.abs() == 1)).all()) for side in (values, others)):
        return _two_sample_hits(values, others)
    from scipy.stats import bootstrap

    found = bootstrap(
        (values.double().numpy(), others.double().numpy()),
        lambda one, two, axis: one.mean(axis) - two.mean(axis),
        n_resamples=RESAMPLES,
        batch=max(1, _BATCH // (len(values) + len(others))),
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Interval(float(found.low), float(found.high))


def _two_sample_hits(values: Tensor, others: Tensor) -> Interval:
    from scipy.stats import norm

    one, two = _padded(values), _padded(others)
    middle = (one.mean() - two.mean()).item()
    variance = one.var(correction=0) / len(one) + two.var(correction=0) / len(two)
    half = float(norm.ppf(0.975)) * sqrt(variance.item())
    return Interval(middle - half, middle + half)


def _resampled(
    n: int,
    statistic: Callable[[Tensor], float],
    confidence: float,
    seed: int,
    resamples: int = RESAMPLES,
) -> Interval:
    from scipy.stats import bootstrap

    found = bootstrap(
        (np.arange(n),),
        lambda chosen: statistic(torch.from_numpy(np.ascontiguousarray(chosen))),
        n_resamples=resamples,
        vectorized=False,
        confidence_level=confidence,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Interval(float(found.low), float(found.high))


def samples_needed(spread: float, margin: float, power: float = 0.8) -> int:
    """Return how many samples show that no more than the margin is lost, if in truth nothing is.

    n = ((z₀.₉₇₅ + z_power) · spread / margin)²

    Args:
        spread: standard deviation of a sample's difference.
        margin: what may be lost, above 0.
        power: how often a trial of so many samples would show it.

    Source: `normal_sample_size_one_tail` of statsmodels.

    >>> samples_needed(0.1, 0.005)
    3140
    """
    size = import_extra("statsmodels.stats.power", "decision").normal_sample_size_one_tail
    return int(np.ceil(size(margin, power, 0.025, std_null=spread)))
