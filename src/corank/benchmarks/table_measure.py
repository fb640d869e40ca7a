"""Carrying out the steps of a latency table: dense and splits in turns, again where the machine drifted."""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from torch import nn

from corank.benchmarks import timing
from corank.benchmarks.table_cache import Ratio, Times
from corank.benchmarks.table_order import Split, Step
from corank.benchmarks.table_runners import Prepared, Run
from corank.benchmarks.table_units import Unit, build, make_input, signature
from corank.methods import METHODS

logger = logging.getLogger(__name__)

Measure: TypeAlias = Callable[[Mapping[str, Run]], Mapping[str, timing.Times]]  # runners in turns
Prepare: TypeAlias = Callable[[nn.Sequential, torch.Tensor, Path], Prepared]

AGAIN = 2  # times that a run which drifted is repeated
_DENSE = "dense"


def split_key(unit: Unit, split: Split) -> str:
    """Return what tells the structure of a split from others, as JSON."""
    method, rank = split
    return json.dumps(signature(METHODS[method].structure(unit.layer, rank)))


def missing(unit: Unit, splits: Sequence[Split], times: Times) -> dict[str, Split]:
    """Return the splits that were not measured yet, by their structure, each once."""
    known = times.ratios.get(unit.key, {})
    keyed = {split_key(unit, split): split for split in splits}
    return {key: split for key, split in keyed.items() if key not in known}


def measure_step(
    unit: Unit, step: Step, times: Times, prepare: Prepare, measure: Measure, seed: int = 0
) -> None:
    """Time a unit's dense layer and some splits in turns, and keep what was found, on disk too.

    What is already known is not measured again. Where the dense layer drifted during the run, all of it is
    measured again, at most twice; if it still does, the unit is noted as unsteady.
    """
    splits = missing(unit, step.splits, times)
    if not splits and unit.key in times.dense:
        return
    generator = torch.Generator().manual_seed(seed)
    chains = {_DENSE: nn.Sequential(unit.layer)}
    chains |= {key: METHODS[method].structure(unit.layer, rank) for key, (method, rank) in splits.items()}
    with tempfile.TemporaryDirectory() as place:
        x = make_input(unit, generator)
        ready: dict[str, Prepared] = {}
        for number, (key, chain) in enumerate(chains.items()):
            folder = Path(place, str(number))
            folder.mkdir()
            ready[key] = prepare(build(unit, chain, generator), x, folder)
        runners = {key: one.run for key, one in ready.items()}
        found = measure(runners)
        for _ in range(AGAIN):
            if timing.drift(found[_DENSE]) is None:
                break
            logger.debug("the machine was not steady, measuring again: %s", unit.key)
            found = measure(runners)
        steady = timing.drift(found[_DENSE]) is None
        own = {key: found[key] * (1 - one.edge_share()) for key, one in ready.items()}
    times.unsteady = [key for key in times.unsteady if key != unit.key] + ([] if steady else [unit.key])
    times.dense.setdefault(unit.key, []).append(float(np.median(own[_DENSE])))
    kept = times.ratios.setdefault(unit.key, {})
    for key in splits:
        kept[key] = _ratio(own[key], own[_DENSE], seed)
    times.save()


def _ratio(split_R: timing.Times, dense_R: timing.Times, seed: int) -> Ratio:
    ratio, (low, high) = timing.speedup(split_R, dense_R, seed)
    return ratio, min(low, ratio), max(high, ratio)
