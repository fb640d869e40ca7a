"""Fold new rows into the state of a roll-out: a pure function, so that a crash can only repeat it."""

from __future__ import annotations

import copy
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Sequence
from math import inf, isfinite

from corank.rollout.evidence import begin, grow, log_evidence
from corank.rollout.guards import FEATURES, guards_of
from corank.rollout.policy import Policy
from corank.rollout.rows import CHALLENGER, CHAMPION, Observation, Outcome, Run
from corank.rollout.state import Block, Evidence, State, Tally

_SLOWER = 1.2  # times the champion's 95th percentile is a slow answer
_QUANTILES = 100
_WAITING = 50  # challengers' values of a stream, each for a champion's
_LOST = -1e9  # the logarithm of nothing, in JSON
_LONE = ("errors", "slow")  # at 100% held against what the champion did before
_Values = defaultdict[str, list[float]]


def fold(
    state: State, policy: Policy, observations: Sequence[Observation], outcomes: Sequence[Outcome]
) -> State:
    """Return the state after these rows; the one that was given is left as it was.

    A roll-out that is over only counts them.

    >>> after = fold(State(), Policy(), [], [Outcome("a", 0, "champion", champion=1.0, challenger=0.0)])
    >>> after.outcomes, round(after.evidence["quality"].total, 1)
    (1, 1.0)
    """
    state = copy.deepcopy(state)
    state.outcomes += len(outcomes)
    if state.over:
        return state
    values: _Values = defaultdict(list)
    for row in observations:
        _observe(state, policy, row, values)
    for outcome in outcomes:
        _score(state, outcome, values)
    _bet(state, policy, values)
    return state


def _observe(state: State, policy: Policy, row: Observation, values: _Values) -> None:
    shadow = policy.share(row.stage) == 0
    if row.stage == state.stage and (row.challenger is not None if shadow else row.arm == CHALLENGER):
        state.seen += 1
    own = row.challenger if row.arm == CHALLENGER else row.champion
    both = row.champion is not None and row.challenger is not None
    if both and row.champion and row.challenger:
        _pair(state, "errors", float(row.champion.failed), float(row.challenger.failed), values)
    elif own is not None:
        _block(state, policy, "errors", row.arm, float(own.failed), values)
    if own is not None and not own.failed:
        _time(state, policy, row.arm, own, values)
    _confidence(state, policy, row, own, values)
    if row.agreement is not None:
        values["disagreement"].append(1 - _unit(row.agreement))
    if row.features is not None and policy.input_margin is not None:
        for number, feature in enumerate(row.features[:FEATURES]):
            _place_input(state, policy, f"input {number}", feature, values)


def _time(state: State, policy: Policy, arm: str, run: Run, values: _Values) -> None:
    if state.limit_ms is None:
        state.limit_ms = policy.slow_ms
    if state.limit_ms is not None:
        _block(state, policy, "slow", arm, float(not run.ms <= state.limit_ms), values)
    elif arm == CHAMPION and isfinite(run.ms):
        times = state.first.setdefault("ms", [])
        times.append(run.ms)
        if len(times) >= policy.reference:
            state.limit_ms = _SLOWER * sorted(times)[int(0.95 * len(times))]
            del state.first["ms"]


def _confidence(state: State, policy: Policy, row: Observation, own: Run | None, values: _Values) -> None:
    a = row.champion.confidence if row.champion else None
    b = row.challenger.confidence if row.challenger else None
    if a is not None and b is not None:
        _pair(state, "confidence", _unit(a), _unit(b), values)
    elif own is not None and own.confidence is not None:
        _block(state, policy, "confidence", row.arm, _unit(own.confidence), values)


def _place_input(state: State, policy: Policy, stream: str, feature: float, values: _Values) -> None:
    """Take the feature's quantile among the first ones, less one half."""
    if not isfinite(feature):
        feature = inf  # as far out as can be
    table = state.quantiles.get(stream)
    if table is not None:
        middle = (bisect_left(table, feature) + bisect_right(table, feature)) / 2
        values[stream].append(middle / len(table) - 0.5)
        return
    first = state.first.setdefault(stream, [])
    first.append(feature)
    if len(first) >= policy.reference:
        ranked = sorted(first)
        state.quantiles[stream] = [
            ranked[int((part + 0.5) / _QUANTILES * len(ranked))] for part in range(_QUANTILES)
        ]
        del state.first[stream]


def _score(state: State, outcome: Outcome, values: _Values) -> None:
    if outcome.champion is not None and outcome.challenger is not None:
        _pair(state, "quality", _unit(outcome.champion), _unit(outcome.challenger), values)
        return
    own = outcome.challenger if outcome.arm == CHALLENGER else outcome.champion
    if own is not None:
        _block(state, None, "quality", outcome.arm, _unit(own), values)


def _pair(state: State, stream: str, champion: float, challenger: float, values: _Values) -> None:
    totals = state.totals.setdefault(stream, (Tally(), Tally()))
    totals[0].add(champion)
    totals[1].add(challenger)
    values[stream].append(challenger - champion)


def _block(state: State, policy: Policy | None, stream: str, arm: str, value: float, values: _Values) -> None:
    """Hold a value against the other arm's: a challenger's against the mean of the champion's since the last.

    Where none came since, it waits for the champion's next; beyond `_WAITING` those that wait share one.
    """
    side = int(arm == CHALLENGER)
    totals = state.totals.setdefault(stream, (Tally(), Tally()))
    totals[side].add(value)
    alone = policy is not None and policy.share(state.stage) == 1 and stream in _LONE
    if alone and side == 1:
        if (usual := totals[0].mean) is not None:
            values[stream].append(value - usual)
        return
    block = state.blocks.setdefault(stream, Block())
    if side == 0:
        if block.challengers:
            values[stream].append((block.challengers.pop(0).mean or 0.0) - value)
        else:
            block.champion.add(value)
    elif (before := block.champion.mean) is not None:
        values[stream].append(value - before)
        block.champion = Tally()
    else:
        if len(block.challengers) < _WAITING:
            block.challengers.append(Tally())
        block.challengers[-1].add(value)


def _bet(state: State, policy: Policy, values: _Values) -> None:
    import numpy as np

    for guard in guards_of(policy):
        new = values.get(guard.stream)
        if not new:
            continue
        kept = state.evidence.setdefault(guard.name, Evidence(log_staked=[_LOST] * len(begin())))
        array = guard.sign * np.asarray(new, dtype=np.float64)
        staked = grow(np.asarray(kept.log_staked), kept.count, array, guard.low, guard.bound)
        kept.count += len(new)
        kept.total += float(array.sum())
        kept.log_staked = np.maximum(staked, _LOST).tolist()
        kept.log_value = float(log_evidence(staked, kept.count))


def _unit(value: float) -> float:
    return min(max(float(value), 0.0), 1.0) if isfinite(value) else 0.0
