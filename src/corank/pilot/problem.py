"""What a trial is about: a task, a network, and how they are called in the report."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from corank.replay import loader_state, set_loader_state
from corank.tasks import Loader, Task


@dataclass(frozen=True, slots=True)
class Problem:
    """A named problem.

    Args:
        data, model: how the report calls them.
        samples: how many samples train, dev and final hold; counted where it is empty.
        classes: the names of the classes, in label order; empty for other tasks.
        make_task: `seed -> Task`; the same seed gives the same split and data order.
        make_model: a factory of the untrained network.
        keep: layers that are never cut, such as the classifier, whose outputs are already few.
        make_start: a factory of the trained network that every arm starts from, where there is one.
        weights: what tells trained weights apart, such as a hash.
        make_fold: `(seed, fold, folds) -> Task`, for cross-validation, where the data can be split again.
        shifted: a second data set, on which small is compared with dense under shift, by its name.
        terms: what else tells this problem from others that are called alike, as plain values.
    """

    data: str
    model: str
    samples: Mapping[str, int]
    classes: tuple[str, ...]
    make_task: Callable[[int], Task]
    make_model: Callable[[], nn.Module]
    keep: tuple[str, ...] = ()
    make_start: Callable[[], nn.Module] | None = None
    weights: str = ""
    shifted: tuple[str, Loader] | None = None
    make_fold: Callable[[int, int, int], Task] | None = None
    terms: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SameTask:
    """Give one task again and again, its training loader as it was at first.

    A loader that shuffles by torch's global generator is in the order that the trial's seed decides.
    """

    task: Task
    _order: dict[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._order.update(loader_state(self.task.train))

    def __call__(self, seed: int) -> Task:
        """Return the task; the seed is left to the global generators."""
        set_loader_state(self.task.train, dict(self._order))
        return self.task
