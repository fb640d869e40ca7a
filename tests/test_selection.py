from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corank.selection import Limit, select


def _brute_force(losses, limits):
    every = product(*(range(len(row)) for row in losses))
    allowed = [chosen for chosen in every if all(limit.holds(chosen) for limit in limits)]
    return min(
        (sum(row[i] for row, i in zip(losses, chosen, strict=True)) for chosen in allowed), default=None
    )


@given(st.integers(0, 10_000), st.integers(1, 5), st.integers(1, 5), st.integers(1, 3), st.floats(0.1, 1.1))
@settings(max_examples=60, deadline=None)
def test_it_is_the_best_of_all_choices(seed, layers, options, count, share):
    draw = np.random.default_rng(seed)
    losses = draw.random((layers, options)).tolist()
    limits = []
    for number in range(count):
        costs = draw.random((layers, options)) * 10.0 ** draw.integers(-6, 9)
        limits.append(Limit(str(number), costs.tolist(), share * costs.max(1).sum()))
    best = _brute_force(losses, limits)
    chosen = select(losses, limits)
    if best is None:
        assert chosen is None
    else:
        assert all(limit.holds(chosen) for limit in limits)
        assert sum(row[i] for row, i in zip(losses, chosen, strict=True)) == pytest.approx(
            best, rel=1e-3, abs=1e-6
        )


def test_without_limits_it_takes_the_least_loss_and_without_layers_nothing():
    assert select([[3.0, 1.0, 2.0], [0.0, 5.0]], []) == [1, 0]
    assert select([], []) == []
    assert select([], [Limit("rest", [], -1.0)]) is None


def test_it_prints_nothing(capfd):
    draw = np.random.default_rng(2)
    costs = [np.sort(draw.random(40)) for _ in range(100)]
    losses = [np.sort(draw.random(40))[::-1] ** 2 for _ in range(100)]
    assert select(losses, [Limit("ms", costs, 0.4 * sum(row.max() for row in costs))]) is not None
    assert capfd.readouterr().out == ""
