"""The paired comparison against independent oracles: the binomial test, loops by hand, and simulation."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.stats import binomtest

from corank.decision.comparison import compare, correct_slices, find_groups, follows, mcnemar
from corank.decision.confidence import BINS, calibration_error, describe_calibration
from corank.decision.intervals import (
    difference_interval,
    difference_spread,
    metric_difference,
    samples_needed,
)
from corank.tasks import Classified, Metric


def _pairs(generator, n, gained, lost, right=0.9):
    """Draw hits of two networks that differ on a share `gained` and `lost` of the samples."""
    draw = torch.rand(n, generator=generator)
    both = torch.rand(n, generator=generator) < right
    one = torch.where(draw < gained, True, torch.where(draw < gained + lost, False, both))
    two = torch.where(draw < gained, False, torch.where(draw < gained + lost, True, both))
    return one.float(), two.float()


def _metric(hits, labels=None, confidence=None):
    classified = None
    if labels is not None:
        predictions = torch.where(hits.bool(), labels, labels + 1)
        classified = Classified(
            labels, predictions, confidence if confidence is not None else hits * 0.5 + 0.4
        )
    return Metric(hits.mean().item(), per_sample=hits, classified=classified)


@pytest.mark.parametrize(("gained", "lost"), [(0, 0), (1, 0), (3, 9), (9, 3), (5, 5), (0, 12)])
def test_mcnemar_is_the_binomial_test_of_the_flips(gained, lost):
    one = torch.tensor([1] * gained + [0] * lost + [1] * 20 + [0] * 4)
    two = torch.tensor([0] * gained + [1] * lost + [1] * 20 + [0] * 4)
    found = mcnemar(one, two)
    assert (found["gained"], found["lost"], found["both_right"], found["both_wrong"]) == (gained, lost, 20, 4)
    expected = binomtest(gained, gained + lost).pvalue if gained + lost else 1.0
    assert found["p"] == pytest.approx(expected)


def test_so_many_samples_show_the_margin_as_often_as_promised():
    generator = torch.Generator().manual_seed(1)
    spread = difference_spread(*_pairs(generator, 200_000, 0.02, 0.02))
    assert spread == pytest.approx(math.sqrt(0.04), rel=0.05)
    n = samples_needed(0.2, 0.02)
    shown = sum(difference_interval(*_pairs(generator, n, 0.02, 0.02)).low > -0.02 for _ in range(400))
    assert 0.74 <= shown / 400 <= 0.86  # 0.8, three standard errors of the simulation


@pytest.mark.parametrize(
    ("reduce", "truth"), [(None, 0.25), (lambda rows: rows.square().mean().sqrt().item(), None)]
)
def test_the_bootstrap_covers_the_truth_as_often_as_it_says(reduce, truth):
    generator = torch.Generator().manual_seed(2)
    if truth is None:  # root mean square of N(1, 1) + 0.25 and of N(1, 1)
        truth = math.sqrt(1 + 1.25**2) - math.sqrt(2)
    covered, runs = 0, 150 if reduce is None else 30
    for _ in range(runs):
        reference = 1 + torch.randn(120, generator=generator)
        values = 1.25 + 0.9 * (reference - 1) + math.sqrt(0.19) * torch.randn(120, generator=generator)
        low, high = metric_difference(values, reference, reduce)
        covered += low <= truth <= high
    assert 0.87 <= covered / runs <= 0.995


def test_the_calibration_error_by_hand():
    generator = torch.Generator().manual_seed(3)
    confidence = torch.rand(500, generator=generator, dtype=torch.float64)
    hits = (torch.rand(500, generator=generator) < 0.6).double()
    expected = 0.0
    for index in range(BINS):
        inside = (confidence >= index / BINS) & (confidence < (index + 1) / BINS)
        if inside.any():
            gap = abs(hits[inside].mean().item() - confidence[inside].mean().item())
            expected += inside.sum().item() / 500 * gap
    rows = torch.stack([confidence, hits], 1)
    assert calibration_error(rows) == pytest.approx(expected)
    assert calibration_error(torch.tensor([[1.0, 1.0]])) == 0  # the last bin holds its upper end


def test_the_bins_add_up_to_the_error():
    labels = torch.arange(60) % 3
    hits = (torch.arange(60) % 4 > 0).float()
    classified = _metric(hits, labels, torch.linspace(0, 1, 60)).classified
    found = describe_calibration(classified)
    assert sum(one["samples"] for one in found["bins"]) == 60
    total = sum(one["samples"] * abs(one["accuracy"] - one["confidence"]) for one in found["bins"]) / 60
    assert found["ece"] == pytest.approx(total)


def test_holm_by_hand():
    rows = [{"p": 0.01}, {"p": 0.04}, {"p": 0.03}]
    correct_slices(rows)
    assert [row["p_holm"] for row in rows] == pytest.approx([0.03, 0.06, 0.06])


def test_a_comparison_names_the_worst_slice_and_lists_the_flips():
    labels = torch.arange(300) % 3
    dense = torch.ones(300)
    small = dense.clone()
    small[[0, 3, 6, 9, 12, 15, 18, 21, 1]] = 0  # eight of class a, one of class b
    dense[2] = 0
    night = ["night" if index < 30 else "day" for index in range(300)]
    one, two = _metric(small, labels), _metric(dense, labels)
    groups = find_groups(
        two.classified, ("a", "b", "c"), {"light": night, "first": [True] + [False] * 299}, 300
    )
    assert list(groups) == ["a", "b", "c", "light=day", "light=night", "first"]
    found = compare(one, two, groups)
    assert found["flips"] == {"lost": [0, 1, 3, 6, 9, 12, 15, 18, 21], "gained": [2]}
    assert found["mcnemar"]["lost"] == 9
    assert found["agreement"] == pytest.approx(290 / 300)
    assert found["worst_slice"] == "first"
    rows = {row["name"]: row for row in found["slices"]}
    assert rows["a"]["difference"] == pytest.approx(-0.08)
    assert rows["a"]["p"] == pytest.approx(binomtest(8, 8).pvalue)
    assert rows["a"]["p_holm"] > rows["a"]["p"]
    assert rows["first"]["ci"] is None  # one sample has no interval
    for row in found["slices"][:-1]:
        alone = difference_interval(small[groups[row["name"]][1]], dense[groups[row["name"]][1]])
        assert row["ci"][0] < alone.low < row["difference"] < row["ci"][1]


def test_two_classes_of_one_name_stay_two():
    labels = torch.arange(6) % 3
    groups = find_groups(_metric(torch.ones(6), labels).classified, ("cat", "cat", "dog"), None, 6)
    assert list(groups) == ["cat", "cat (1)", "dog"]


def test_what_cannot_be_tested_has_no_p_and_does_not_count_in_holms():
    rows = [{"p": 0.01}, {"p": None}, {"p": 0.03}]
    correct_slices(rows)
    assert [row["p_holm"] for row in rows] == [pytest.approx(0.02), None, pytest.approx(0.03)]


@pytest.mark.parametrize("columns", [0, 2])
def test_a_metric_that_follows_from_rows_is_tested_as_itself(columns):
    """The mean of the rows is the same in both, so only a test of the metric itself can tell them apart."""
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(60, generator=generator)
    small, dense = 5 * noise, 0.1 * noise
    if columns:
        small, dense = (torch.stack([one, one], 1) for one in (small, dense))

    def spread(rows):
        return rows.double().std().item()

    one, two = (Metric(spread(rows), False, rows, spread) for rows in (small, dense))
    found = compare(one, two, {"all": ("slice", torch.ones(60, dtype=torch.bool))})
    assert found["slices"][0]["p"] < 0.05
    same = compare(two, two, {"all": ("slice", torch.ones(60, dtype=torch.bool))})
    assert same["slices"][0]["p"] == 1


def test_a_metric_of_values_is_compared_by_resampling():
    generator = torch.Generator().manual_seed(4)
    dense = torch.rand(80, generator=generator)
    small = dense + 0.1 + 0.01 * torch.rand(80, generator=generator)
    one, two = (Metric(x.mean().item(), higher_is_better=False, per_sample=x) for x in (small, dense))
    found = compare(one, two, find_groups(None, (), {"half": [True] * 40 + [False] * 40}, 80))
    assert found["method"] == "paired bootstrap"
    assert found["mcnemar"] is found["flips"] is found["agreement"] is None
    assert found["worst_slice"] == "half"
    assert found["slices"][0]["p"] < 0.01
    assert found["spread"] == pytest.approx((small - dense).double().std().item())


def test_only_what_a_metric_follows_from_is_compared():
    values = torch.tensor([1.0, 4.0])
    assert follows(Metric(2.5, per_sample=values))
    assert not follows(Metric(4.0, per_sample=values))
    assert follows(Metric(4.0, per_sample=values, reduce=lambda rows: rows.max().item()))
    assert not follows(Metric(1.0, per_sample=torch.ones(1)))
    assert compare(Metric(4.0, per_sample=values), Metric(4.0, per_sample=values), {}) is None
