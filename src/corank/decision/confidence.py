"""Whether a network is as often right as it is confident: the expected calibration error."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from corank.decision.intervals import Interval, metric_difference
from corank.tasks import Classified

BINS = 15


def calibration_error(rows: Tensor) -> float:
    """Return the expected calibration error: Σ n_b / n · |accuracy_b − confidence_b| over 15 equal bins.

    Args:
        rows: (n, 2), confidence in [0, 1] and 1 or 0 for right or wrong.

    Source: Guo et al. 2017, equation 3.

    >>> round(calibration_error(torch.tensor([[0.9, 1.0], [0.9, 0.0]])), 6)
    0.4
    """
    confidence, hits = rows.double().numpy().T
    gaps = np.bincount(_bins(confidence), hits - confidence, BINS)  # n_b (accuracy_b − confidence_b)
    return float(np.abs(gaps).sum() / len(rows))


def describe_calibration(classified: Classified) -> dict[str, Any]:
    """Return the error and its bins that hold samples, as plain values."""
    rows = as_rows(classified)
    confidence, hits = rows.numpy().T
    chosen = _bins(confidence)
    counts = np.bincount(chosen, minlength=BINS)
    sums = [np.bincount(chosen, one, BINS) for one in (confidence, hits)]
    bins = [
        {
            "low": index / BINS,
            "high": (index + 1) / BINS,
            "samples": int(count),
            "confidence": float(sums[0][index] / count),
            "accuracy": float(sums[1][index] / count),
        }
        for index, count in enumerate(counts)
        if count
    ]
    return {"ece": calibration_error(rows), "bins": bins}


def calibration_difference(small: Classified, dense: Classified) -> Interval:
    """Return the 95% interval of the small network's error minus the dense one's, on the same samples."""
    return metric_difference(as_rows(small), as_rows(dense), calibration_error)


def as_rows(classified: Classified) -> Tensor:
    """Return confidence and hit of each sample, (n, 2)."""
    return torch.stack(
        [classified.confidence.double(), (classified.predictions == classified.labels).double()], 1
    )


def _bins(confidence: NDArray[np.float64]) -> NDArray[np.intp]:
    return np.minimum((confidence * BINS).astype(np.intp), BINS - 1)
