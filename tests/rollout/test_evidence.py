"""The betting test holds its level however often one looks, finds what it should, and forgets."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corank.rollout.evidence import BLOCK, begin, bets, grow, log_evidence, stake

PAIRS = (0.02, 0.963, 0.017)


def ever_rejects(draw, runs, length, low, bound, level, step=25):
    """Return the share of runs whose evidence passes 1/level at any look, one look each `step` values."""
    state, rejected, count = begin((runs,)), np.zeros(runs, dtype=bool), 0
    while count < length:
        state = grow(state, count, draw((runs, step)), low, bound)
        count += step
        rejected |= log_evidence(state, count) >= np.log(1 / level)
    return rejected.mean()


def nulls(generator):
    """The least favourable streams: each has its mean exactly at the bound."""
    return {
        "coin": (lambda size: (generator.random(size) < 0.1).astype(float), 0.0, 0.1),
        "rare": (lambda size: (generator.random(size) < 0.005).astype(float), 0.0, 0.005),
        "pairs": (lambda size: generator.choice([-1.0, 0.0, 1.0], size, p=PAIRS), -1.0, -0.003),
        "uniform": (lambda size: generator.random(size), 0.0, 0.5),
    }


@pytest.mark.parametrize("name", ["coin", "rare", "pairs", "uniform"])
def test_the_level_holds_at_every_look(name):
    draw, low, bound = nulls(np.random.default_rng(3))[name]
    assert ever_rejects(draw, 400, 1000, low, bound, 0.05) <= 0.05 + 2.6 * np.sqrt(0.05 * 0.95 / 400)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["coin", "rare", "pairs", "uniform"])
def test_the_level_holds_over_10000_null_runs(name):
    draw, low, bound = nulls(np.random.default_rng(4))[name]
    assert ever_rejects(draw, 10_000, 5000, low, bound, 0.05) <= 0.05 + 2.6 * np.sqrt(0.05 * 0.95 / 10_000)


def test_capital_is_not_expected_to_grow_under_the_hypothesis():
    """The exact mean over every sequence of coins, not a simulation."""
    probability, length = 0.3, 10
    sequences = (np.arange(2**length)[:, None] >> np.arange(length)) & 1
    weights = np.prod(np.where(sequences == 1, probability, 1 - probability), axis=1)
    state = grow(begin((2**length,)), BLOCK - 5, sequences.astype(float), 0.0, probability)  # over a stake
    state_before = begin()
    before = np.exp(log_evidence(state_before, BLOCK - 5))
    # nothing was staked in this made-up past but the weight of its one block, which is lost
    lost = stake(0)
    after = np.exp(log_evidence(state, BLOCK + 5))
    assert (weights * after).sum() == pytest.approx(before, abs=1e-9)
    assert before == pytest.approx(1 - lost)


def test_what_is_above_the_bound_is_found():
    generator = np.random.default_rng(0)
    assert ever_rejects(lambda size: (generator.random(size) < 0.2) * 1.0, 100, 1000, 0.0, 0.1, 0.01) == 1.0


def test_what_is_below_the_bound_is_left_alone():
    assert ever_rejects(lambda size: np.zeros(size), 1, 1000, 0.0, 0.1, 0.5) == 0.0


def test_a_break_after_a_long_good_time_is_seen_soon():
    generator = np.random.default_rng(1)
    good = (generator.random(100_000) < 0.01) - (generator.random(100_000) < 0.01) * 1.0
    state = grow(begin(), 0, -good, -1.0, 0.0025)
    plain = np.log1p(-good[:, None] * bets(-1.0, 0.0025)).sum(0)  # one stake at the start, never again
    broken = np.full(200, 0.5)
    again = log_evidence(grow(state, 100_000, broken, -1.0, 0.0025), 100_200)
    plain = plain + np.log1p((broken[:, None] - 0.0025) * bets(-1.0, 0.0025)).sum(0)
    assert again > np.log(1000)
    assert np.log(np.exp(plain).mean()) < 5


@settings(max_examples=30, deadline=None)
@given(
    values=st.lists(st.floats(-1, 1), min_size=1, max_size=180),
    cut=st.integers(0, 180),
    bound=st.floats(-0.5, 0.5),
)
def test_it_does_not_matter_how_values_are_parcelled(values, cut, bound):
    array, cut = np.array(values), min(cut, len(values))
    whole = grow(begin(), 0, array, -1.0, bound)
    parts = grow(grow(begin(), 0, array[:cut], -1.0, bound), cut, array[cut:], -1.0, bound)
    np.testing.assert_allclose(whole, parts, rtol=1e-9, atol=1e-9)


def test_it_equals_the_naive_sum_over_beginnings():
    values, low, bound = np.random.default_rng(2).random(130), 0.0, 0.4
    total = 0.0
    for size in bets(low, bound):
        factors = 1 + size * (values - bound)
        total += sum(stake(b) * np.prod(factors[b * BLOCK :]) for b in range(3)) / 10
    total += 1 - sum(stake(b) for b in range(3))
    assert np.exp(log_evidence(grow(begin(), 0, values, low, bound), 130)) == pytest.approx(total)
