"""The split is even, deterministic, nested, and differs from roll-out to roll-out."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from corank.rollout.splits import falls_under, place


def test_places_are_spread_evenly():
    places = np.sort([place("salt", f"user-{number}") for number in range(20_000)])
    distance = np.abs(places - np.linspace(0, 1, 20_000)).max()  # Kolmogorov and Smirnov
    assert distance < 1.63 / np.sqrt(20_000)  # 1%


def test_one_salt_says_nothing_of_another():
    keys = [f"user-{number}" for number in range(5000)]
    a, b = (np.array([place(salt, key) for key in keys]) for salt in ("one", "two"))
    assert abs(np.corrcoef(a, b)[0, 1]) < 4 / np.sqrt(5000)


@settings(deadline=None)
@given(st.text(), st.text(), st.floats(0, 1), st.floats(0, 1))
def test_who_is_among_a_share_stays_among_a_larger_one(salt, key, a, b):
    low, high = sorted((a, b))
    assert falls_under(salt, key, low) <= falls_under(salt, key, high)
    assert falls_under(salt, key, 1.0)
    assert not falls_under(salt, key, 0.0)


def test_the_split_is_the_same_in_every_version():
    assert round(place("salt", "user-1"), 12) == PLACE


PLACE = 0.204310167463
