"""Whether a trial that is under way is worth finishing.

Optuna's pruners are for one aim; here there are two.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

ENOUGH = 2  # trials that must be better at less cost before one is given up


class Course(NamedTuple):
    """What a trial scored after each epoch, higher is better, and the share of the cost that it keeps."""

    scores: Sequence[float]
    cost: float


def is_hopeless(course: Course, finished: Sequence[Course], enough: int = ENOUGH) -> bool:
    """Say whether enough finished trials that cost no more had scored higher by this epoch.

    >>> is_hopeless(Course([0.6], 0.5), [Course([0.7, 0.9], 0.4), Course([0.8, 0.9], 0.5)])
    True
    >>> is_hopeless(Course([0.6], 0.3), [Course([0.7, 0.9], 0.4), Course([0.8, 0.9], 0.5)])
    False
    """
    at = len(course.scores)
    if at == 0:
        return False
    better = [
        other
        for other in finished
        if other.cost <= course.cost and len(other.scores) >= at and other.scores[at - 1] > course.scores[-1]
    ]
    return len(better) >= enough
