"""What benchmarks/evidence.py cuts to: a share of dense's multiply-accumulates, or of its time."""

from __future__ import annotations

import corank

Rule = corank.Budget | corank.Latency
DENSE = "1"  # the cut that is none: the dense control, with as many epochs


def cut_rules(*macs: float, time: float | None = None) -> dict[str, Rule]:
    """Return the rule of each cut by its name, such as "0.5" or "time 0.7".

    >>> list(cut_rules(0.7, 0.5, time=0.7))
    ['0.7', '0.5', 'time 0.7']
    """
    rules: dict[str, Rule] = {f"{ratio:g}": corank.Budget(macs=ratio) for ratio in macs}
    return rules if time is None else rules | {f"time {time:g}": corank.Latency(ratio=time)}
