"""Made-up traffic for the pure part: rows as a router would write them."""

from __future__ import annotations

import numpy as np

from corank.rollout.folding import fold
from corank.rollout.moves import decide
from corank.rollout.rows import CHALLENGER, CHAMPION, Observation, Outcome, Run
from corank.rollout.splits import falls_under
from corank.rollout.state import State


class Traffic:
    """Draw requests with given rates for each arm; `labels` is the share that gets an outcome."""

    def __init__(
        self, seed=0, *, right=(0.9, 0.9), fails=(0, 0), slow=(0.03, 0.03), differs=0.02, labels=1.0
    ):
        self.draw = np.random.default_rng(seed)
        self.right, self.fails, self.slow, self.differs, self.labels = right, fails, slow, differs, labels
        self.sure, self.shift = (0.8, 0.8), 0.0
        self.count = 0

    def run(self, side):
        ms = 20.0 if self.draw.random() < self.slow[side] else 10.0
        sure = self.draw.beta(20 * self.sure[side], 20 * (1 - self.sure[side]))
        failed = bool(self.draw.random() < self.fails[side])
        return Run(ms, failed, None if failed else float(sure))

    def rows(self, policy, stage, size):
        observations, outcomes = [], []
        for _ in range(size):
            self.count += 1
            request, share = str(self.count), policy.share(stage)
            arm = CHALLENGER if falls_under("salt", request, share) else CHAMPION
            both = share == 0
            a = self.run(0) if both or arm == CHAMPION else None
            b = self.run(1) if both or arm == CHALLENGER else None
            features = tuple(self.draw.normal(self.shift, 1, 2))
            agreement = float(self.draw.random() >= self.differs) if both else None
            observations.append(Observation(request, stage, arm, a, b, agreement, features))
            if self.draw.random() < self.labels:
                dice = self.draw.random()  # the same for both: good models fail on the same requests
                scores = [float(dice < right) for right in self.right]
                scores = [s if one else None for s, one in zip(scores, (a, b), strict=True)]
                outcomes.append(Outcome(request, stage, arm, *scores))
        return observations, outcomes


def roll(policy, traffic, most=40_000, size=200, state=None, change=None):
    """Run a roll-out until it is over, held or out of requests; return the state and the moves."""
    state, moves, begun = state or State(), [], traffic.count
    while traffic.count - begun < most and not state.over and state.status == "running":
        if change:
            change(traffic, state)
        state = fold(state, policy, *traffic.rows(policy, state.stage, size))
        state, move = decide(state, policy, now=float(traffic.count))
        moves += [move] if move else []
    return state, moves
