"""Recall at a fixed rate of false alarms."""

from __future__ import annotations

import pytest
import torch
from examples.alarms import FALSE_ALARMS, recall


@pytest.mark.parametrize("seed", range(4))
def test_recall_is_that_of_the_roc_curve(seed):
    metrics = pytest.importorskip("sklearn.metrics", reason="the extra digits")
    generator = torch.Generator().manual_seed(seed)
    faults = (torch.rand(3000, generator=generator) < 0.1).float()
    scores = torch.randn(3000, generator=generator) + 2 * faults
    alarms, found, _ = metrics.roc_curve(faults, scores, drop_intermediate=False)
    expected = found[alarms <= FALSE_ALARMS].max()
    assert recall(torch.stack([scores, faults], 1)) == pytest.approx(expected, abs=1e-9)


def test_without_faults_there_is_nothing_to_find():
    assert recall(torch.tensor([[0.5, 0.0], [0.2, 0.0]])) == 0
