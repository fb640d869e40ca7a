"""What is known of one request: who answered, how, and later how well."""

from __future__ import annotations

from dataclasses import dataclass

Labels = tuple[int | str, ...]
CHAMPION, CHALLENGER = "champion", "challenger"


@dataclass(frozen=True, slots=True)
class Run:
    """One model's answer to one request: its time in ms, whether it failed, its mean confidence."""

    ms: float
    failed: bool = False
    confidence: float | None = None


@dataclass(frozen=True, slots=True)
class Observation:
    """What was seen without a label.

    `arm` is whose request it was by the split. A run that only stood in for a failed one is left out: it says
    nothing of the requests on which the other did not fail. `agreement` is the share of equal labels where
    both answered, `features` describe the input.
    """

    request: str
    stage: int
    arm: str
    champion: Run | None = None
    challenger: Run | None = None
    agreement: float | None = None
    features: tuple[float, ...] | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """How well one request was answered, from 0 to 1: by its arm, or by both where both answered."""

    request: str
    stage: int
    arm: str
    champion: float | None = None
    challenger: float | None = None


def score(predicted: Labels | None, truth: Labels) -> float | None:
    """Return the share of labels that were right; None where they do not match one to one.

    >>> score((1, 2), (1, 3))
    0.5
    """
    if predicted is None or len(predicted) != len(truth) or not truth:
        return None
    return sum(a == b for a, b in zip(predicted, truth, strict=True)) / len(truth)
