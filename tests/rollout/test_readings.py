"""What is read off answers and inputs of any kind."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from corank.rollout.readings import Reading, describe_input, read_output

LOGITS = np.array([[0.0, 2.0, -1.0], [3.0, 0.0, 0.0]])
SURE = float(np.exp(LOGITS).max(1) @ (1 / np.exp(LOGITS).sum(1)) / 2)


@pytest.mark.parametrize(
    "output",
    [
        LOGITS,
        torch.tensor(LOGITS),
        torch.tensor(LOGITS, dtype=torch.bfloat16),
        (LOGITS, "more"),
        {"logits": LOGITS},
        np.exp(LOGITS) / np.exp(LOGITS).sum(1, keepdims=True),
    ],
)
def test_logits_and_probabilities_read_alike(output):
    reading = read_output(output)
    assert reading.labels == (1, 0)
    assert reading.confidence == pytest.approx(SURE, abs=0.01)
    assert reading.finite


@pytest.mark.parametrize(
    "output", ["text", None, 3, np.ones(4), np.ones((2, 1)), np.ones((0, 3)), [1, 2], []]
)
def test_other_answers_have_no_labels(output):
    assert read_output(output) == Reading()


@pytest.mark.parametrize("odd", [float("nan"), float("inf")])
def test_what_is_not_finite_is_seen(odd):
    for output in (np.array([[0.0, odd]]), torch.tensor([odd]), [np.array([odd])]):
        assert read_output(output) == Reading(finite=False)


def test_inputs():
    draw = np.random.default_rng(0).normal(3, 2, (3, 500, 500)).astype(np.float32)
    mean, spread = describe_input(draw)
    assert mean == pytest.approx(3, abs=0.15)  # of 4,096 elements
    assert spread == pytest.approx(2, abs=0.15)
    assert describe_input({"ids": torch.tensor([[1, 3]])}) == (2.0, 1.0)
    assert describe_input([1.0, 3.0]) == (2.0, 1.0)
    for nothing in ("text", None, np.ones(0), np.array(["a"])):
        assert describe_input(nothing) is None
