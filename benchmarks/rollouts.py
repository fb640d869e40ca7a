"""Simulated roll-outs, ten thousand at once: who is promoted, who is stopped, after how many requests.

The evidence, the guards and their thresholds are the library's; traffic and stages are drawn here with numpy.

    python -m benchmarks.rollouts --runs 10000
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from dataclasses import dataclass

import numpy as np

from benchmarks.record import describe_run, rounded, say, store, table
from corank.rollout.evidence import BLOCK, begin, bets, grow, log_evidence, stake
from corank.rollout.guards import guards_of
from corank.rollout.policy import Policy

RIGHT = 0.92  # the champion's accuracy
CHANGED = 0.02  # of requests that the challenger loses where it is no worse; it wins as many
RUNNING, PROMOTED, BACK = 0, 1, 2
POLICY = Policy(seconds=0.0)
PAIRED = dataclasses.replace(POLICY, paired_share=1.0)


@dataclass(frozen=True)
class Scenario:
    """One kind of challenger.

    `gain` is the difference of mean scores; `fails` are both arms' failure rates, `later` the challenger's
    from the stage `from_stage` on; `labels` says whether outcomes come at all.
    """

    name: str
    policy: Policy
    gain: float = 0.0
    fails: tuple[float, float] = (0.001, 0.001)
    later: float | None = None
    from_stage: int = 99
    labels: bool = True
    most: int = 400_000


SCENARIOS = (
    Scenario("half a point better, both answer", PAIRED, 0.005),
    Scenario("equal, both answer", PAIRED),
    Scenario("half a point worse, both answer", PAIRED, -0.005),
    Scenario("one point worse, both answer", PAIRED, -0.01),
    Scenario("equal, split only", POLICY, most=1_000_000),
    Scenario("half a point worse, split only", POLICY, -0.005, most=1_000_000),
    Scenario("two points worse, split only", POLICY, -0.02, most=1_000_000),
    Scenario("equal, no labels ever", POLICY, labels=False, most=200_000),
    Scenario(
        "fails on 2% from the 10% stage on, no labels", POLICY, 0.0, later=0.02, from_stage=2, labels=False
    ),
    Scenario(
        "fails always from the 10% stage on, no labels", POLICY, 0.0, later=1.0, from_stage=2, labels=False
    ),
)


class Roll:
    """Many roll-outs of one scenario, each where its own evidence has brought it."""

    def __init__(self, scenario: Scenario, runs: int, draw: np.random.Generator) -> None:
        self.scenario, self.draw = scenario, draw
        self.guards = {
            one.name: one
            for one in guards_of(scenario.policy)
            if one.name in ("quality", "no worse", "errors") and (scenario.labels or one.name == "errors")
        }
        self.log_staked = {name: begin((runs,)) for name in self.guards}
        self.status, self.stage = np.zeros(runs, dtype=int), np.zeros(runs, dtype=int)
        self.seen, self.requests, self.exposed = (np.zeros(runs, dtype=np.int64) for _ in range(3))
        self.at_break = np.zeros(runs, dtype=np.int64)
        self.proven = np.zeros(runs, dtype=bool)
        self.compared = 0

    def run(self) -> None:
        """Go on until every roll-out is over or has had all its requests."""
        while len(alive := np.flatnonzero((self.status == RUNNING) & (self.requests < self.scenario.most))):
            for stage in np.unique(self.stage[alive]):
                group = alive[self.stage[alive] == stage]
                for part in np.array_split(group, max(1, len(group) // 500)):  # stays in the cache
                    self._compare(part, int(stage))
            self.compared += BLOCK
            self._move(alive)

    def _compare(self, runs: np.ndarray, stage: int) -> None:
        policy, draw, size = self.scenario.policy, self.draw, (len(runs), BLOCK)
        share = policy.share(stage)
        fails = self._fails(stage)
        if share == 0 or policy.paired_share == 1:
            taken = draw.binomial(BLOCK, share, len(runs))
            self._count(runs, np.full(len(runs), BLOCK), taken if share else np.full(len(runs), BLOCK), share)
            won, lost = CHANGED + max(self.scenario.gain, 0), CHANGED - min(self.scenario.gain, 0)
            quality = draw.multinomial(BLOCK, [won, lost, 1 - won - lost], len(runs))
            a, b = fails
            odds = [b * (1 - a), a * (1 - b), 1 - a - b + 2 * a * b]
            errors = draw.multinomial(BLOCK, odds, len(runs))
        else:
            # each challenger's value meets those of the champion since the last, or the champion's next;
            # at one half all are taken to meet one, which is a little less exact than what the library does
            between = draw.geometric(share, size) - 1 if share < 0.5 else np.ones(size, dtype=int)
            between = between if share < 1 else np.zeros(size, dtype=int)
            self._count(runs, (between + 1).sum(1), np.full(len(runs), BLOCK), share)
            met = np.maximum(between, 1)
            quality = (draw.random(size) < RIGHT + self.scenario.gain) - self._mean(met, RIGHT)
            usual = self._rare(met, fails[0]) if share < 1 else fails[0]
            errors = (draw.random(size) < fails[1]) - usual
        values = {"quality": quality, "errors": errors}
        for name, guard in self.guards.items():
            if guard.stream == "quality" and share == 1 and policy.paired_share == 0:
                continue  # at 100% there is no champion to compare with
            staked = self.log_staked[name]
            new = values[guard.stream]
            if new.shape[1] == 3:
                up, down = (new[:, 0], new[:, 1]) if guard.sign > 0 else (new[:, 1], new[:, 0])
                staked[runs] = grow_counts(staked[runs], self.compared, up, down, guard.bound)
            else:
                staked[runs] = grow(staked[runs], self.compared, guard.sign * new, guard.low, guard.bound)

    def _mean(self, count: np.ndarray, rate: float) -> np.ndarray:
        return self.draw.binomial(count, rate) / count

    def _rare(self, count: np.ndarray, rate: float) -> np.ndarray:
        """Do what `_mean` does where hits are rare: draw the place of the first, and the rest after it."""
        dice, found = self.draw.random(count.shape), np.zeros(count.shape)
        some = dice < 1 - (1 - rate) ** count
        first = np.ceil(np.log1p(-dice[some]) / np.log1p(-rate)).astype(int)
        found[some] = 1 + self.draw.binomial(np.maximum(count[some] - first, 0), rate)
        return found / count

    def _fails(self, stage: int) -> tuple[float, float]:
        champion, challenger = self.scenario.fails
        later = self.scenario.later
        return champion, challenger if later is None or stage < self.scenario.from_stage else later

    def _count(self, runs: np.ndarray, requests: np.ndarray, challenger: np.ndarray, share: float) -> None:
        self.requests[runs] += requests
        self.seen[runs] += challenger
        if share:
            self.exposed[runs] += challenger

    def _move(self, alive: np.ndarray) -> None:
        """What `moves.decide` does, for many."""
        policy = self.scenario.policy
        evidence = {
            name: log_evidence(staked[alive], self.compared) >= self.guards[name].threshold
            for name, staked in self.log_staked.items()
        }
        if "no worse" in evidence:
            self.proven[alive] |= evidence["no worse"]
        back = evidence["errors"] | evidence.get("quality", np.zeros(len(alive), dtype=bool))
        self.status[alive[back]] = BACK
        left = alive[~back]
        left = left[self.seen[left] >= policy.requests]
        ahead = np.array([*policy.stages[1:], 1.0])[self.stage[left]]
        left = left[(ahead <= policy.unlabelled_ceiling) | self.proven[left]]
        last = self.stage[left] == len(policy.stages) - 1
        self.status[left[last]] = PROMOTED
        on = left[~last]
        self.stage[on] += 1
        self.seen[on] = 0
        self.at_break[on[self.stage[on] == self.scenario.from_stage]] = self.requests[
            on[self.stage[on] == self.scenario.from_stage]
        ]


def grow_counts(
    log_staked: np.ndarray, count: int, up: np.ndarray, down: np.ndarray, bound: float
) -> np.ndarray:
    """Do what `grow` does with one block of values −1, 0 and 1, of which only the counts are given.

    >>> values = np.array([1.0, -1.0, 1.0] + [0.0] * 47)
    >>> counted = grow_counts(begin(), 50, np.array(2), np.array(1), 0.01)
    >>> bool(np.allclose(grow(begin(), 50, values, -1.0, 0.01), counted))
    True
    """
    sizes = bets(-1.0, bound)
    log_staked = np.logaddexp(log_staked, np.log(stake(count // BLOCK)))
    for times, value in ((up, 1.0), (down, -1.0), (BLOCK - up - down, 0.0)):
        log_staked = log_staked + np.asarray(times)[..., None] * np.log1p(sizes * (value - bound))
    return log_staked


def summarise(roll: Roll) -> dict[str, object]:
    """Return shares, and quantiles of what the decided ones took."""
    runs, over = len(roll.status), roll.status != RUNNING

    def spread(values: np.ndarray) -> list[float] | None:
        return [float(one) for one in np.quantile(values, [0.5, 0.9])] if len(values) else None

    back = roll.status == BACK
    since = roll.requests - roll.at_break
    return {
        "promoted": float((roll.status == PROMOTED).mean()),
        "rolled_back": float(back.mean()),
        "rolled_back_ci": wilson(int(back.sum()), runs),
        "waiting": float((~over).mean()),
        "shown_no_worse": float(roll.proven.mean()),
        "requests_until_over": spread(roll.requests[over]),
        "requests_until_back": spread(since[back]),
        "challenger_answers_until_back": spread(roll.exposed[back]),
        "highest_stage": int(roll.stage.max()),
    }


def wilson(count: int, total: int, z: float = 1.96) -> tuple[float, float]:
    """Return the 95% interval of a share.

    >>> [round(end, 3) for end in wilson(50, 100)]
    [0.404, 0.596]
    """
    share = count / total
    middle = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * np.sqrt(share * (1 - share) / total + z * z / (4 * total**2))
    return float(middle - half), float(middle + half)


def all_at_their_limits(runs: int, draw: np.random.Generator, length: int = 5000) -> float:
    """Return how often any guard rolls back, each of five with its mean exactly at its bound, for so long."""
    guards = {one.name: one for one in guards_of(PAIRED) if one.action == "roll back"}
    rejected = np.zeros(runs, dtype=bool)
    for part in np.array_split(np.arange(runs), max(1, runs // 500)):
        staked = {name: begin((len(part),)) for name in guards}
        for compared in range(0, length, BLOCK):
            for name, guard in guards.items():
                values = at_limit(guard.stream, guard.bound, (len(part), BLOCK), draw)
                staked[name] = grow(staked[name], compared, values, guard.low, guard.bound)
                rejected[part] |= log_evidence(staked[name], compared + BLOCK) >= guard.threshold
    return float(rejected.mean())


def at_limit(stream: str, bound: float, size: tuple[int, int], draw: np.random.Generator) -> np.ndarray:
    """Draw what a guard bets on (its sign taken in), with its mean at the bound."""
    if stream == "disagreement":
        return (draw.random(size) < bound) * 1.0
    if stream == "confidence":
        return np.clip(draw.normal(bound, 0.1, size), bound - 0.4, bound + 0.4)
    rest = {"quality": 0.04, "errors": 0.004, "slow": 0.1}[stream]
    dice = draw.random(size)
    return (dice < (rest + bound) / 2) * 1.0 - (dice > 1 - (rest - bound) / 2)


def main() -> None:
    """Simulate every scenario and store the page."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="100 runs, and nothing is stored")
    options = parser.parse_args()
    if options.quick:
        options.runs = 100
    found, rows = {}, []
    for number, scenario in enumerate(SCENARIOS):
        begun = time.monotonic()
        roll = Roll(scenario, options.runs, np.random.default_rng((options.seed, number)))
        roll.run()
        one = found[scenario.name] = summarise(roll)
        say(f"{scenario.name}: {time.monotonic() - begun:.0f} s")
        rows.append([scenario.name, *line(one)])
    limits = all_at_their_limits(options.runs, np.random.default_rng((options.seed, 99)))
    data = rounded(
        {"runs": options.runs, "policy": POLICY.to_dict(), "scenarios": found, "at_limits": limits}
    )
    data["at_limits_ci"] = rounded(wilson(round(limits * options.runs), options.runs))
    if options.quick:
        say(page(options.runs, rows, data))
        return
    store(
        "rollouts",
        "Simulated roll-outs",
        page(options.runs, rows, data),
        data,
        describe_run(options.seed, "float64"),
    )


COLUMNS = (
    "Challenger",
    "promoted",
    "rolled back (95%)",
    "still going",
    "requests until over: median, 90%",
    "until rolled back: median, 90%",
    "answered by the challenger till then: median, 90%",
)


def line(one: dict[str, object]) -> list[str]:
    """Write one row."""

    def two(values: list[float] | None) -> str:
        return "–" if values is None else ", ".join(f"{value:,.0f}" for value in values)

    low, high = one["rolled_back_ci"]
    return [
        f"{one['promoted']:.1%}",
        f"{one['rolled_back']:.2%} ({low:.2%} – {high:.2%})",
        f"{one['waiting']:.1%}",
        two(one["requests_until_over"]),
        two(one["requests_until_back"]),
        two(one["challenger_answers_until_back"]),
    ]


def page(runs: int, rows: list[list[str]], data: dict) -> str:
    """Write the page."""
    scenarios = data["scenarios"]
    fair = ("equal", "half a point better")
    worst = max(one["rolled_back"] for name, one in scenarios.items() if name.startswith(fair))
    passed = scenarios["half a point worse, both answer"]["shown_no_worse"]
    low, high = data["at_limits_ci"]
    level, promotion = POLICY.level, POLICY.promotion_level
    return "\n".join(
        [
            f"{runs:,} roll-outs of each kind, with the default policy (level {level:g}, margin "
            f"{POLICY.margin:g}, harm {POLICY.harm:g}, {POLICY.requests} requests a stage) but without least "
            f"times. The champion is right on {RIGHT:.0%}; an equal challenger loses {CHANGED:.0%} of the "
            'requests and wins as many. Outcomes come with the request, where they come. "Both answer" is '
            f"`paired_share=1`. One looks after every {BLOCK} comparisons, which at 10% are "
            "500 requests. Where a challenger breaks later, "
            "requests are counted from there.\n",
            table(COLUMNS, rows),
            "",
            f"- **False roll-backs**: at most {worst:.2%} among challengers that are no worse; the stated "
            f"level is {level:.0%}: {verdict(worst <= level)}. With all guards at their limits at once for "
            f"5,000 comparisons, the least favourable case: {data['at_limits']:.2%} "
            f"({low:.2%} – {high:.2%}): {verdict(low <= level)}.",
            "- **Passed though worse**: a challenger exactly at the margin, half a point worse, was shown to "
            f'be "no worse than half a point" in {passed:.2%} of the runs where both answer; the stated '
            f"level is {promotion:.0%}: {verdict(passed <= promotion)}.",
            "- A split alone sees half a point slowly: at 10% of the keys most outcomes fall on one side, "
            "and the two sides differ by chance. Where half a point matters, let both answer "
            "(`paired_share`), or stay in shadow until the outcomes are in (`unlabelled_ceiling=0`).",
            "- Only quality and errors are simulated in the table; the other guards keep their share of the "
            "level unused.",
        ]
    )


def verdict(kept: bool) -> str:
    """Say whether a level was kept."""
    return "kept" if kept else "**missed**"


if __name__ == "__main__":
    main()
