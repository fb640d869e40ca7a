"""Carrying out the steps of a latency table: dense and splits in turns, again where the machine drifted."""

from __future__ import annotations

import itertools
import json
import logging
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
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
_DENSE, _WHOLE = "dense", "whole"


def split_key(unit: Unit, split: Split) -> str:
    """Return what tells the structure of a split from others, as JSON."""
    method, rank = split
    return json.dumps(signature(METHODS[method].structure(unit.layer, rank)))


def missing(unit: Unit, splits: Sequence[Split], times: Times) -> dict[str, Split]:
    """Return the splits that were not measured yet, by their structure, each once."""
    known = times.ratios.get(unit.key, {})
    keyed = {split_key(unit, split): split for split in splits}
    return {key: split for key, split in keyed.items() if key not in known}


def measure_whole(
    key: str,
    units: Mapping[str, Unit],
    times: Times,
    run_whole: Callable[[Path], Run],
    prepare: Prepare,
    measure: Measure,
    seed: int = 0,
) -> None:
    """Time a whole network and all its dense layers in turns, unless that is known, and keep it.

    In turns, so that a layer's share of the whole holds however fast the machine is at the moment. A run in
    which the whole network drifted is measured again, at most twice, then noted.
    """
    if key in times.whole:
        return
    with tempfile.TemporaryDirectory() as place:
        folders = _folders(Path(place))
        ready = {_WHOLE: Prepared(run_whole(next(folders)))}
        for name, unit in units.items():
            generator = torch.Generator().manual_seed(seed)
            x = make_input(unit, generator)
            ready[name] = prepare(build(unit, nn.Sequential(unit.layer), generator), x, next(folders))
        own = _measure(key, _WHOLE, ready, times, measure)
    whole = float(np.median(own[_WHOLE]))
    times.dense[key] = {name: whole * float(np.median(own[name] / own[_WHOLE])) for name in units}
    times.whole[key] = whole
    times.save()


def measure_step(
    unit: Unit, step: Step, times: Times, prepare: Prepare, measure: Measure, seed: int = 0
) -> None:
    """Time a unit's dense layer and some splits in turns, and keep the ratios, on disk too.

    What is already known is not measured again. Where the dense layer drifted during the run, all of it is
    measured again, at most twice; if it still does, the unit is noted as unsteady.
    """
    splits = missing(unit, step.splits, times)
    if not splits:
        return
    generator = torch.Generator().manual_seed(seed)
    chains = {_DENSE: nn.Sequential(unit.layer)}
    chains |= {key: METHODS[method].structure(unit.layer, rank) for key, (method, rank) in splits.items()}
    with tempfile.TemporaryDirectory() as place:
        folders = _folders(Path(place))
        x = make_input(unit, generator)
        ready = {
            key: prepare(build(unit, chain, generator), x, next(folders)) for key, chain in chains.items()
        }
        own = _measure(unit.key, _DENSE, ready, times, measure)
    kept = times.ratios.setdefault(unit.key, {})
    for key in splits:
        kept[key] = ratio_of(own[key], own[_DENSE], seed)
    times.save()


def _measure(
    key: str, reference: str, ready: Mapping[str, Prepared], times: Times, measure: Measure
) -> dict[str, timing.Times]:
    """Return the times of all, without what is none of their own; again where the reference drifted."""
    runners = {name: one.run for name, one in ready.items()}
    found = measure(runners)
    for _ in range(AGAIN):
        if timing.drift(found[reference]) is None:
            break
        logger.debug("the machine was not steady, measuring again: %s", key)
        found = measure(runners)
    if timing.drift(found[reference]) is not None and key not in times.unsteady:
        times.unsteady.append(key)
    return {name: found[name] * (1 - one.edge_share()) for name, one in ready.items()}


def _folders(place: Path) -> Iterator[Path]:
    for number in itertools.count():
        folder = place / str(number)
        folder.mkdir()
        yield folder


def ratio_of(split_R: timing.Times, dense_R: timing.Times, seed: int) -> Ratio:
    """Return the time of a split over that of its dense layer, and the interval."""
    ratio, (low, high) = timing.speedup(split_R, dense_R, seed)
    return ratio, min(low, ratio), max(high, ratio)
