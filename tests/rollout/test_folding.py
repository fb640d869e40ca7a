"""Roll-outs over made-up traffic, without a database: who is promoted, who is stopped and why."""

from __future__ import annotations

import dataclasses
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corank.errors import CorankError
from corank.rollout.folding import fold
from corank.rollout.guards import guards_of
from corank.rollout.moves import decide, order, waits_for
from corank.rollout.policy import Policy
from corank.rollout.rows import CHALLENGER, CHAMPION, Observation, Outcome, Run, score
from corank.rollout.state import State
from tests.rollout.traffic import Traffic, roll

QUICK = Policy(stages=(0.0, 0.1, 0.5, 1.0), requests=200, seconds=0.0, margin=0.05, reference=100)


def test_a_good_challenger_is_promoted_through_every_stage():
    state, moves = roll(QUICK, Traffic())
    assert state.status == "promoted"
    assert [move.stage for move in moves] == [1, 2, 3, 3]
    assert state.proven


@pytest.mark.parametrize(
    ("worse", "guard"),
    [
        ({"right": (0.9, 0.75)}, "quality"),
        ({"fails": (0.001, 0.2)}, "errors"),
        ({"differs": 0.3}, "disagreement"),
        ({"slow": (0.03, 0.4)}, "latency"),
    ],
)
def test_a_bad_challenger_is_rolled_back_for_its_reason(worse, guard):
    state, moves = roll(QUICK, Traffic(**worse))
    assert state.status == "rolled back"
    assert state.reason.startswith(f"{guard}: ")
    assert moves[-1].action == "rolled back"


@pytest.mark.parametrize(("sure", "way"), [((0.8, 0.95), "up"), ((0.8, 0.6), "down")])
def test_confidence_that_drifts_rolls_back_without_labels(sure, way):
    traffic = Traffic(labels=0.0)
    traffic.sure = sure
    state, _ = roll(QUICK, traffic)
    assert state.reason.startswith(f"confidence {way}: ")


@pytest.mark.parametrize("shift", [2.0, -2.0])
def test_inputs_that_drift_hold_and_a_person_resumes(shift):
    def change(traffic, state):
        traffic.shift = shift if traffic.count > 300 else 0.0

    traffic = Traffic()
    state, moves = roll(QUICK, traffic, change=change)
    assert state.status == "held"
    assert moves[-1].action == "hold"
    assert "of the inputs drifts" in state.reason
    stage = state.stage
    state, _ = order(state, QUICK, "resume", 0.0)
    state, _ = roll(QUICK, traffic, state=state, change=change)
    assert state.status == "promoted"
    assert state.stage > stage


def test_a_held_roll_out_is_still_watched():
    state, _ = order(State(), QUICK, "hold", 0.0)
    traffic = Traffic(fails=(0, 0.5))
    state, move = decide(fold(state, QUICK, *traffic.rows(QUICK, 0, 200)), QUICK, 0.0)
    assert move is not None
    assert state.status == "rolled back"


def test_exposure_stops_at_the_ceiling_while_there_are_no_labels():
    traffic = Traffic(labels=0.0)
    state, moves = roll(QUICK, traffic, most=6000)
    assert state.status == "running"
    assert QUICK.share(state.stage) == QUICK.unlabelled_ceiling
    assert "waits for outcomes" in state.reason
    assert len(moves) == 1
    traffic.labels = 1.0
    state, _ = roll(QUICK, traffic, state=state)  # the labels come late
    assert state.status == "promoted"


def test_with_the_ceiling_at_one_labels_are_not_needed():
    policy = dataclasses.replace(QUICK, unlabelled_ceiling=1.0)
    assert roll(policy, Traffic(labels=0.0))[0].status == "promoted"


def test_a_challenger_that_breaks_later_is_stopped_soon():
    policy = dataclasses.replace(QUICK, requests=10**6)  # it stays in its stage
    traffic = Traffic(differs=0.0)
    state = dataclasses.replace(State(), stage=2)
    state, _ = roll(policy, traffic, most=4000, state=state)
    assert state.status == "running"
    traffic.right = (0.9, 0.1)
    begun = traffic.count
    state, _ = roll(policy, traffic, state=state, size=50)
    assert state.reason.startswith("quality: ")
    assert traffic.count - begun <= 300


def test_errors_at_full_share_are_held_against_the_champion_before():
    policy = dataclasses.replace(QUICK, requests=10**6)
    traffic = Traffic(fails=(0.01, 0.01))
    state, _ = roll(policy, traffic, most=2000, state=dataclasses.replace(State(), stage=2))
    state, _ = order(state, policy, "advance", 0.0)
    traffic.fails = (0.01, 0.5)
    state, _ = roll(policy, traffic, most=600, state=state)
    assert state.reason.startswith("errors: ")


def test_the_next_stage_waits_for_time():
    policy = dataclasses.replace(QUICK, seconds=60.0)
    state = State(seen=200, entered=100.0)
    assert "20 s of this stage are left" in str(waits_for(state, policy, 140.0))
    assert decide(state, policy, 159.0)[1] is None
    after, move = decide(state, policy, 160.0)
    assert (move.action, after.stage, after.seen, after.entered) == ("next stage", 1, 0, 160.0)


def test_only_requests_of_this_stage_count_towards_the_next():
    rows = [
        Observation("a", 0, CHAMPION, Run(1.0), Run(1.0)),
        Observation("b", 1, CHALLENGER, None, Run(1.0)),
    ]
    assert fold(State(stage=1), QUICK, rows, []).seen == 1
    assert fold(State(stage=0), QUICK, rows, []).seen == 1


def test_folding_leaves_its_state_alone_and_survives_json():
    traffic = Traffic(right=(0.9, 0.88))
    state = fold(State(), QUICK, *traffic.rows(QUICK, 0, 300))
    text = state.to_json()
    more = traffic.rows(QUICK, 0, 100)
    one = fold(state, QUICK, *more)
    assert state.to_json() == text
    assert fold(State.from_json(text), QUICK, *more) == one
    assert "NaN" not in one.to_json()
    assert "Infinity" not in one.to_json()


@settings(max_examples=25, deadline=None)
@given(cuts=st.lists(st.integers(0, 120), max_size=4), seed=st.integers(0, 5))
def test_it_does_not_matter_how_rows_are_parcelled(cuts, seed):
    traffic = Traffic(seed, right=(0.9, 0.7), fails=(0.1, 0.1))
    observations, outcomes = traffic.rows(QUICK, 1, 120)
    whole = fold(fold(State(), QUICK, observations, []), QUICK, [], outcomes)
    edges = [0, *sorted(cuts), 120]
    state = State()
    for part in ("observations", "outcomes"):
        for a, b in pairwise(edges):
            rows = (observations[a:b], []) if part == "observations" else ([], outcomes[a:b])
            state = fold(state, QUICK, *rows)
    assert state.totals == whole.totals
    assert state.blocks == whole.blocks
    for name, kept in whole.evidence.items():
        assert state.evidence[name].log_value == pytest.approx(kept.log_value, abs=1e-6)


def test_a_block_takes_the_mean_of_the_surplus():
    rows = [Outcome("1", 1, CHAMPION, champion=1.0), Outcome("2", 1, CHAMPION, champion=0.0)]
    rows.append(Outcome("3", 1, CHALLENGER, challenger=1.0))
    kept = fold(State(stage=1), QUICK, [], rows).evidence["no worse"]
    assert (kept.count, kept.total) == (1, 0.5)


def test_each_challenger_has_a_champion_of_its_own():
    """A burst of one arm is not lost in one mean; it waits for the other arm."""
    burst = [Outcome(str(n), 1, CHALLENGER, challenger=0.0) for n in range(120)]
    state = fold(State(stage=1), QUICK, [], burst)
    assert "quality" not in state.evidence
    state = fold(state, QUICK, [], [Outcome(f"c{n}", 1, CHAMPION, champion=1.0) for n in range(60)])
    kept = state.evidence["quality"]
    assert (kept.count, kept.total) == (50, 50.0)
    assert state.blocks["quality"].champion.count == 10


def test_odd_values_do_no_harm():
    odd = Run(float("nan"), confidence=float("inf"))
    rows = [Observation("1", 1, CHALLENGER, None, odd, float("nan"), (float("nan"), float("inf")))] * 150
    outcomes = [Outcome("1", 1, CHALLENGER, challenger=float("nan")), Outcome("2", 1, CHAMPION)]
    state = fold(State(), QUICK, rows, outcomes)
    assert "NaN" not in state.to_json()
    assert state.outcomes == 2


def test_orders():
    state, move = order(State(stage=1), QUICK, "advance", 5.0)
    assert (state.stage, state.entered, move.reason) == (2, 5.0, "by order")
    state, _ = order(dataclasses.replace(state, stage=3), QUICK, "advance", 6.0)
    assert state.status == "promoted"
    state, _ = order(state, QUICK, "roll-back", 7.0)  # even after the end
    assert state.status == "rolled back"
    with pytest.raises(CorankError, match="it is over"):
        order(state, QUICK, "resume", 8.0)
    with pytest.raises(CorankError, match="allowed are hold, resume, advance, roll-back, got 'stop'"):
        order(State(), QUICK, "stop", 0.0)


def test_what_is_over_only_counts():
    state = dataclasses.replace(State(), status="rolled back")
    after = fold(state, QUICK, *Traffic().rows(QUICK, 0, 50))
    assert (after.outcomes, after.seen, after.evidence) == (50, 0, {})
    assert decide(after, QUICK, 1e9) == (after, None)


def test_scores():
    assert score((1, 2, 3, 4), (1, 2, 3, 5)) == 0.75
    assert score((1,), (1, 2)) is None
    assert score(None, (1,)) is None


def test_every_guard_says_what_it_means():
    assert len({guard.name for guard in guards_of(QUICK)}) == len(guards_of(QUICK))
    assert all(guard.means for guard in guards_of(QUICK))


@pytest.mark.slow
def test_fair_challengers_are_rolled_back_at_most_as_often_as_stated():
    """All guards alive, nothing wrong: 300 whole roll-outs at a level of 20%."""
    policy = dataclasses.replace(QUICK, level=0.2, margin=0.005)
    back = sum(roll(policy, Traffic(seed), most=5000)[0].status == "rolled back" for seed in range(300))
    assert back / 300 <= 0.2 + 2.6 * (0.2 * 0.8 / 300) ** 0.5
