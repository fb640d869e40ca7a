"""samples.csv: what every arm said of every final sample."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from corank.tasks import Classified, Metric

Columns = dict[str, Tensor]


def sample_columns(scores: Mapping[str, Mapping[str, Metric]], share: bool) -> Columns:
    """Return a column for each thing known of a sample: its label, and each arm's value and prediction.

    Args:
        scores: the metrics of each arm; the first decides.
        share: whether the deciding metric counts hits.
    """
    deciding = {arm: next(iter(metrics.values())) for arm, metrics in scores.items()}
    columns: Columns = {}
    for arm, metric in deciding.items():
        if metric.per_sample is not None and metric.per_sample.dim() == 1:
            columns[f"{arm}_correct" if share else f"{arm}_value"] = metric.per_sample
    said: dict[str, Classified] = {
        arm: one.classified for arm, one in deciding.items() if one.classified is not None
    }
    for arm, classified in said.items():
        columns.setdefault("label", classified.labels)
        columns[f"{arm}_prediction"] = classified.predictions
        columns[f"{arm}_confidence"] = classified.confidence
    return columns


def samples_to_csv(columns: Mapping[str, Tensor]) -> str:
    """Write the columns, a row a sample, numbered in the order of final."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["final_sample", *columns])
    listed = [_plain(name, one) for name, one in columns.items()]
    for number, row in enumerate(zip(*listed, strict=True)):
        table.writerow([number, *row])
    return text.getvalue()


def _plain(name: str, values: Tensor) -> list[Any]:
    if name.endswith("_correct"):
        return values.int().tolist()
    if name.endswith("_confidence"):
        return [f"{one:.6f}" for one in values.tolist()]
    return values.tolist()
