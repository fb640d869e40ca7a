from __future__ import annotations

import math

import pytest
import torch

from corank.decision.intervals import (
    accuracy_interval,
    change_of_difference,
    difference_interval,
    difference_spread,
    two_sample_interval,
)


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


def test_the_formula_by_counts():
    first, second = torch.tensor([1.0, 1, 1, 0, 1, 0]), torch.tensor([1.0, 0, 0, 1, 1, 0])
    gained, lost = 3 / 8, 2 / 8  # (2 + 1) / (6 + 2) and (1 + 1) / (6 + 2)
    half = 1.959964 * math.sqrt(gained + lost - (gained - lost) ** 2) / math.sqrt(8)
    assert difference_interval(first, second) == pytest.approx(
        (gained - lost - half, gained - lost + half), abs=1e-6
    )
    assert difference_spread(first, second) == pytest.approx(half * math.sqrt(8) / 1.959964, abs=1e-6)


def test_the_same_samples_thrice_are_no_more_samples():
    generator = torch.Generator().manual_seed(0)
    first, second = _hits(generator, 50, 0.9), _hits(generator, 50, 0.8)
    one = difference_interval(first, second)
    thrice = difference_interval(first[:, None].repeat(1, 3), second[:, None].repeat(1, 3))
    assert thrice == pytest.approx(one)


def test_seeds_cover_the_truth_as_often_as_they_say():
    generator = torch.Generator().manual_seed(0)
    covered = 0
    for _ in range(400):
        hard = (torch.rand(300, 1, generator=generator) < 0.1).float()  # for every seed alike
        first, second = ((torch.rand(300, 3, generator=generator) < 1 - p * hard).float() for p in (0.6, 0.5))
        low, high = difference_interval(first, second)
        covered += low <= -0.1 * 0.1 <= high
    assert 0.92 <= covered / 400 <= 0.995


def test_more_samples_say_more():
    narrow = difference_interval(torch.ones(4000), torch.ones(4000))
    wide = difference_interval(torch.ones(40), torch.ones(40))
    assert narrow.high - narrow.low < (wide.high - wide.low) / 50


def test_two_sets_of_differences_of_hits_cover_the_truth_as_often_as_they_say():
    generator = torch.Generator().manual_seed(0)
    covered = 0
    for _ in range(400):
        sides = []
        for n, p in ((40, 0.9), (300, 0.98)):  # the small network loses more on the small, shifted set
            dense = _hits(generator, n, 0.95)
            sides.append(dense * _hits(generator, n, p) - dense)
        low, high = two_sample_interval(*sides)
        covered += low <= 0.95 * (0.9 - 0.98) <= high
    assert 0.92 <= covered / 400 <= 0.995


def test_a_handful_of_samples_that_agree_prove_nothing():
    low, high = two_sample_interval(torch.zeros(5), torch.zeros(300))
    assert low < -0.2
    assert high > 0.2
    low, high = two_sample_interval(torch.rand(50), torch.rand(50) + 1)  # no hits: resampled
    assert low < -1 < high


def test_the_change_of_a_difference_is_that_of_the_metric():
    generator = torch.Generator().manual_seed(3)
    truth = torch.randn(200, generator=generator)
    dense, small = truth + 0.1, truth + 0.1
    worse = small + 0.5 * torch.randn(200, generator=generator)

    def rmse(rows):
        return (rows[:, 0] - rows[:, 1]).square().mean().sqrt().item()

    def rows(predicted):
        return torch.stack([predicted, truth], 1)

    clean = (rows(small), rows(dense))
    low, high = change_of_difference([(rows(worse), rows(dense))] * 2, clean, rmse)
    point = rmse(rows(worse)) - rmse(rows(dense))
    assert low < point < high
    assert high - low < 0.2
    assert change_of_difference([clean], clean, rmse) == (0.0, 0.0)
