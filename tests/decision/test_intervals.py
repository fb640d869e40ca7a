from __future__ import annotations

import pytest
import torch

from corank.decision.intervals import accuracy_interval, difference_interval


def _hits(generator, n, p):
    return (torch.rand(n, generator=generator) < p).float()


def test_the_interval_of_an_accuracy_covers_the_truth_as_often_as_it_says():
    generator = torch.Generator().manual_seed(0)
    covered = 0
    for _ in range(400):
        low, high = accuracy_interval(_hits(generator, 360, 0.97))
        covered += low <= 0.97 <= high
    assert 0.92 <= covered / 400 <= 0.99


def test_the_interval_of_a_difference_covers_the_truth_as_often_as_it_says():
    generator = torch.Generator().manual_seed(0)
    covered = 0
    for _ in range(400):
        shared = _hits(generator, 360, 0.95)
        first = shared * _hits(generator, 360, 0.98)
        second = shared * _hits(generator, 360, 0.99)
        low, high = difference_interval(first, second)
        covered += low <= 0.95 * (0.98 - 0.99) <= high
    assert 0.92 <= covered / 400 <= 0.995


def test_a_difference_and_its_mirror():
    first, second = torch.tensor([1.0, 1, 0, 1]), torch.tensor([1.0, 0, 0, 1])
    low, high = difference_interval(first, second)
    back = difference_interval(second, first)
    assert (low, high) == pytest.approx((-back.high, -back.low))
    assert low < 0.25 < high


def test_more_samples_say_more():
    narrow = difference_interval(torch.ones(4000), torch.ones(4000))
    wide = difference_interval(torch.ones(40), torch.ones(40))
    assert narrow.high - narrow.low < (wide.high - wide.low) / 50
