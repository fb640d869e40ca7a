"""Training data changed along one axis: few images, classes of unlike size, wrong labels.

Dev and final stay as they are. What is trained on depends on a fixed seed alone, never on that of a trial.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from corank.data.batches import Batches
from corank.pilot.problem import Problem
from corank.tasks import Task

SEED = 0
FEW = 0.1  # of the images of each class: 5,000 of CIFAR-10
TAIL = 0.01  # the smallest class over the largest
WRONG = 0.2  # of the labels
Change = Callable[[Tensor, torch.Generator], tuple[Tensor, Tensor]]


def few(labels: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Keep a tenth of each class.

    Args:
        labels: (n,).
        generator: draws which.
    Returns: indices of the images that are kept, and their labels.
    """
    return _keep(labels, lambda place: FEW, generator)


def imbalanced(labels: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Keep less of each class than of the one before, along an exponential down to a hundredth.

    Source: the long-tailed sets of Cao et al. 2019.
    """
    last = max(int(labels.max()), 1)
    return _keep(labels, lambda place: TAIL ** (place / last), generator)


def noisy(labels: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Give a fifth of the images the label of another class, any alike."""
    classes = int(labels.max()) + 1
    wrong = torch.randperm(len(labels), generator=generator)[: round(WRONG * len(labels))]
    changed = labels.clone()
    changed[wrong] += torch.randint(1, classes, (len(wrong),), generator=generator)
    return torch.arange(len(labels)), changed % classes


def _keep(labels: Tensor, share: Callable[[int], float], generator: torch.Generator) -> tuple[Tensor, Tensor]:
    kept = []
    for place in labels.unique().tolist():
        rows = (labels == place).nonzero().flatten()
        count = max(round(share(place) * len(rows)), 1)
        kept.append(rows[torch.randperm(len(rows), generator=generator)[:count]])
    chosen = torch.cat(kept).sort().values
    return chosen, labels[chosen]


AXES: dict[str, Change] = {"few": few, "imbalanced": imbalanced, "noisy": noisy}


@dataclass(frozen=True, slots=True)
class ChangedTask:
    """A factory of tasks whose training images are changed along an axis."""

    make_task: Callable[[int], Task]
    change: Change

    def __call__(self, seed: int) -> Task:
        task = self.make_task(seed)
        train: Any = task.train
        chosen, labels = self.change(train.labels, torch.Generator().manual_seed(SEED))
        images = train.images[chosen]
        return replace(
            task, train=Batches(images, labels, train.batch_size, train.shuffle_seed, train.prepare)
        )


def along(problem: Problem, axis: str | None) -> Problem:
    """Return the problem with its training images changed along an axis, or as it is."""
    if axis is None:
        return problem
    return replace(
        problem,
        data=f"{problem.data}; trained on {axis} images",
        make_task=ChangedTask(problem.make_task, AXES[axis]),
    )
