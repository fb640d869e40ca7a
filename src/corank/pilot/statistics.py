"""How sure a trial can be: intervals of an accuracy, and of the difference of two on the same samples."""

from __future__ import annotations

from math import sqrt
from typing import NamedTuple

from torch import Tensor


class Interval(NamedTuple):
    """A 95% interval."""

    low: float
    high: float


def accuracy_interval(correct: Tensor) -> Interval:
    """Return the 95% interval of an accuracy from one 0 or 1 a sample.

    Source: Wilson's score interval, from scipy.

    >>> import torch
    >>> low, high = accuracy_interval(torch.ones(360))
    >>> round(low, 4), high
    (0.9894, 1.0)
    """
    from scipy.stats import binomtest

    found = binomtest(int(correct.sum()), len(correct)).proportion_ci(0.95, method="wilson")
    return Interval(float(found.low), float(found.high))


def difference_interval(correct: Tensor, reference: Tensor) -> Interval:
    """Return the 95% interval of accuracy minus the reference's, on the same samples.

    (p₊ − p₋) ± z √(p₊ + p₋ − (p₊ − p₋)²) / √(n + 2), where p₊ = (n₊ + 1)/(n + 2) counts the samples that
    only the first gets right and p₋ those that only the reference does.

    Source: Bonett and Price 2012, adjusted Wald interval for paired proportions; it stays honest where no
    sample differs.

    >>> import torch
    >>> low, high = difference_interval(torch.ones(360), torch.ones(360))
    >>> round(low, 4), round(high, 4)
    (-0.0077, 0.0077)
    """
    from scipy.stats import norm

    n = len(correct) + 2
    gained = (int(((correct == 1) & (reference == 0)).sum()) + 1) / n
    lost = (int(((correct == 0) & (reference == 1)).sum()) + 1) / n
    half = norm.ppf(0.975) * sqrt((gained + lost - (gained - lost) ** 2) / n)
    return Interval(float(gained - lost - half), float(gained - lost + half))


def mean_interval(values: Tensor) -> Interval:
    """Return the 95% interval of a mean: x̄ ± z s / √n.

    >>> import torch
    >>> low, high = mean_interval(torch.tensor([1.0, 2.0, 3.0]))
    >>> round(low, 3), round(high, 3)
    (0.868, 3.132)
    """
    from scipy.stats import norm

    values = values.double()
    half = float(norm.ppf(0.975)) * values.std().item() / sqrt(len(values))
    return Interval(values.mean().item() - half, values.mean().item() + half)


def mean_difference_interval(values: Tensor, reference: Tensor) -> Interval:
    """Return the 95% interval of the mean difference on the same samples."""
    return mean_interval(values.double() - reference.double())
