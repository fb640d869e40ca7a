"""What is read off an answer and an input, to compare without labels."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from corank.rollout.rows import Labels

_MOST = 4096  # elements of an input that are looked at


@dataclass(frozen=True, slots=True)
class Reading:
    """The labels of an answer, its mean confidence, and whether every number in it is finite."""

    labels: Labels | None = None
    confidence: float | None = None
    finite: bool = True


def read_output(output: Any) -> Reading:
    """Read logits or probabilities (N, C): N labels and the mean of their largest probability.

    Of anything else only whether it is finite is read. Of a tuple or a mapping the first part counts.

    >>> import numpy as np
    >>> read_output(np.array([[0.1, 0.9], [0.7, 0.3]])).labels
    (1, 0)
    """
    import numpy as np

    array = _array(output)
    if array is None or array.dtype.kind not in "fiu":
        return Reading()
    if not np.isfinite(array).all():
        return Reading(finite=False)
    if array.ndim != 2 or array.shape[1] < 2 or not len(array) or array.dtype.kind != "f":
        return Reading()
    labels = tuple(int(one) for one in array.argmax(1))
    rows = array.astype(np.float64)
    if rows.min() < 0 or np.abs(rows.sum(1) - 1).max() > 1e-3:
        rows = np.exp(rows - rows.max(1, keepdims=True))
        rows = rows / rows.sum(1, keepdims=True)
    return Reading(labels, float(rows.max(1).mean()))


def describe_input(inputs: Any) -> tuple[float, float] | None:
    """Return mean and standard deviation of an input, over at most 4,096 of its elements; None of no array.

    >>> import numpy as np
    >>> describe_input(np.ones((2, 3)))
    (1.0, 0.0)
    """
    import numpy as np

    array = _array(inputs)
    if array is None or array.dtype.kind not in "fiub" or not array.size:
        return None
    flat = array.reshape(-1)
    with np.errstate(all="ignore"):
        part = flat[:: -(-flat.size // _MOST)].astype(np.float64)
        return float(part.mean()), float(part.std())


def plain(reading: Reading) -> Reading:
    """Return a reading in Python's own numbers, as JSON takes them; whoever made it may use numpy's.

    Raises: an exception, for what is no label or no number.

    >>> import numpy as np
    >>> plain(Reading(np.array([2, 1]), np.float32(0.5)))
    Reading(labels=(2, 1), confidence=0.5, finite=True)
    """
    labels, confidence = reading.labels, reading.confidence
    if labels is not None:
        labels = tuple(str(one) if isinstance(one, str) else operator.index(one) for one in labels)
    return Reading(labels, None if confidence is None else float(confidence), bool(reading.finite))


def _array(value: Any) -> Any:
    import numpy as np

    while isinstance(value, tuple | list | Mapping) and value:
        first = next(iter(value.values())) if isinstance(value, Mapping) else value[0]
        if isinstance(first, int | float):
            return np.asarray(value)
        value = first
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        value = value.float().numpy() if value.is_floating_point() else value.numpy()
    return value if isinstance(value, np.ndarray) else None
