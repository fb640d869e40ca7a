from __future__ import annotations

import pytest
import torch
from benchmarks.paper_exact import Check, check_all, l1_energy, l2_energy, page

CHECKS = check_all()


@pytest.mark.parametrize("check", CHECKS, ids=lambda one: one.what)
def test_the_paper_and_corank_agree(check):
    assert check.holds, check


def test_there_is_a_check_of_every_published_figure():
    assert len(CHECKS) == 6 + 6 + 2 + 3


def test_the_energies_are_those_of_a_plain_loop():
    w = torch.randn(5, 7, dtype=torch.float64)
    u = [one / one.norm() for one in w]
    pairs = [(a - b).norm() for a in u for b in u]
    assert torch.allclose(l2_energy(w), 0.5 * sum(one**2 for one in pairs))
    assert torch.allclose(l1_energy(w), sum(pairs))


def test_what_does_not_hold_is_said():
    assert not Check("a speedup", 1.79, 1.80).holds
    assert "**no**" in page([Check("a speedup", 1.79, 1.80)])
