"""The rows of a latency table from the times of its units: a layer's time is that of all its calls."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from corank.benchmarks.table_cache import Times
from corank.benchmarks.table_measure import split_key
from corank.benchmarks.table_units import Unit
from corank.latency import DENSE, TableRow
from corank.layers import full_rank


def make_rows(
    layers: Mapping[str, Mapping[str, Sequence[int]]],
    calls: Mapping[str, Counter[str]],
    units: Mapping[str, Unit],
    dense: Mapping[str, float],
    times: Times,
) -> tuple[TableRow, ...]:
    """Return each layer's dense row, then the splits of which every call was measured.

    The ratio of a layer that is called on several shapes is the mean of theirs, weighted by dense time.

    Args:
        layers: `{layer: {method: ranks}}`.
        calls: `{layer: {unit: how often}}`.
        units: by key.
        dense: seconds of each unit's dense layer.
        times: the ratios.
    """
    rows: list[TableRow] = []
    keys: dict[tuple[str, str, int], str] = {}
    for name, called in calls.items():
        each = {key: count * dense[key] for key, count in called.items()}
        total = sum(each.values())
        full = full_rank(units[next(iter(called))].layer)
        rows.append(TableRow(name, DENSE, full, total * 1e3))
        for method, ranks in layers[name].items():
            for rank in ranks:
                ratios = []
                for key in called:
                    place = key, method, rank
                    if place not in keys:
                        keys[place] = split_key(units[key], (method, rank))
                    ratios.append(times.ratios.get(key, {}).get(keys[place]))
                if any(one is None for one in ratios):
                    continue
                shares = np.array([each[key] / total for key in called])
                ratio, low, high = (float(value) for value in shares @ np.array(ratios))
                low, high = min(low, ratio), max(high, ratio)  # the sums round differently
                rows.append(TableRow(name, method, rank, total * ratio * 1e3, ratio, (low, high)))
    return tuple(rows)
