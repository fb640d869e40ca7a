"""Whether a force at every k-th step, k times as strong, does what it does at every step."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from corank import ForceRegularizer, spectrum
from corank.pilot.digits import digits_task, vgg

EPOCHS = 3
# Strengths at which the ranks begin to fall, and the accuracy not yet much.
ARMS: dict[str, dict[str, Any] | None] = {
    "no force": None,
    "l1": {"kind": "l1", "strength": 0.25, "every": 1},
    "l1, every=8": {"kind": "l1", "strength": 0.25, "every": 8},
    "subspace, every=1": {"kind": "subspace", "strength": 0.1, "every": 1},
    "subspace": {"kind": "subspace", "strength": 0.1},
}


def train(seed: int, epochs: int, options: dict[str, Any] | None) -> dict[str, float]:
    """Train the digits' VGG, and return its accuracy on dev and the mean rank ratio of its convolutions."""
    torch.manual_seed(seed)
    task, model = digits_task(seed), vgg()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, nesterov=True, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * len(task.train))
    if options is not None:
        ForceRegularizer(model, **options).attach(optimizer)
    for _ in range(epochs):
        for images, labels in task.train:
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images), labels).backward()
            optimizer.step()
            schedule.step()
    (accuracy,) = (metric.value for metric in task.evaluate(model, task.dev).values())
    return {"accuracy": accuracy, "rank_ratio": spectrum(model, types=("conv",)).rank_ratio()}


def compare(seeds: int, epochs: int) -> dict[str, list[dict[str, float]]]:
    """Train each arm on the same seeds: the same first weights and the same order of the data."""
    return {name: [train(seed, epochs, options) for seed in range(seeds)] for name, options in ARMS.items()}
