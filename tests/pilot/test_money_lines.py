"""Money in sentences: every figure is one of the estimate, and a bound is called one."""

from __future__ import annotations

from dataclasses import replace

import pytest

from corank.decision.economics import Economics, Measured, estimate
from corank.pilot.money_lines import money_lines, sensitivity_lines
from corank.wording import speaking

TERMS = Economics(2.0, 8_640_000, engineer_hours=10, engineer_cost=100)
MEASURED = Measured("torch", 16.0, 8, 2.0, (1.6, 2.5), (2**29, 2**28))


def test_a_bound_is_called_one():
    said = " ".join(money_lines(TERMS, estimate(TERMS, replace(MEASURED, interval=None)), bound=True))
    assert "at least" in said
    assert "Saving per month: at most" in said
    assert "The weights in all instances take 512 MiB before and at least 256 MiB after." in said
    assert "at the earliest" in said
    assert "interval" not in said


def test_memory_is_told_where_it_was_measured():
    said = money_lines(TERMS, estimate(TERMS, MEASURED))
    assert said[2] == "All instances take 512 MiB of memory at the peak before and 256 MiB after."
    assert len(money_lines(TERMS, estimate(TERMS, replace(MEASURED, peaks=None)))) == len(said) - 1


@pytest.mark.parametrize("bound", [False, True])
def test_each_number_that_was_moved_has_its_sentence(bound):
    found = estimate(TERMS, MEASURED)
    said = sensitivity_lines(TERMS, found, bound=bound)
    assert len(said) == len(found["sensitivity"])
    for line, row in zip(said, found["sensitivity"], strict=True):
        assert line.startswith(f"With {row['name'].replace('_', ' ')} at ")
        assert all(TERMS.money(saving) in line for saving in row["savings"])
        assert ("at most" in line) == bound


def test_they_are_said_in_japanese():
    found = estimate(TERMS, MEASURED)
    english = money_lines(TERMS, found) + sensitivity_lines(TERMS, found)
    with speaking("ja"):
        told = money_lines(TERMS, found) + sensitivity_lines(TERMS, found)
    assert all(one.isascii() != two.isascii() for one, two in zip(english, told, strict=True))
