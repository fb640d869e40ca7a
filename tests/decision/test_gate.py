"""The gate: every verdict, its reasons, and its exit code; and the policies that it takes."""

from __future__ import annotations

import copy
import json

import pytest

import corank
from corank.decision.intervals import samples_needed
from corank.errors import CorankError, FileError
from tests.cli.running import corank as run
from tests.pilot.sample import make_result

__all__ = ["run"]  # a fixture


@pytest.fixture(scope="module")
def sample():
    return make_result()


@pytest.fixture
def good(sample):
    """Return a result that advances: no difference, known on 20,000 samples."""
    result = copy.deepcopy(sample)
    force = result["arms"][2]
    force["accuracy_difference"], force["accuracy_difference_ci"] = 0.0, [-0.001, 0.001]
    force["comparison"] |= {"samples": 20_000, "spread": 0.07}
    return result


def _outcomes(decision):
    return {check.name: check.outcome for check in decision.checks}


def test_what_is_good_in_every_check_advances_to_the_next_stage(good):
    decision = corank.gate(good)
    assert (decision.verdict, decision.exit_code, decision.needs) == ("advance", 0, None)
    assert _outcomes(decision) == {
        "accuracy": "advance",
        "speed": "advance",
        "worst slice": "advance",
        "drift": "not judged",
        "memory": "advance",
        "seeds": "advance",
    }
    assert decision.stage.name == "shadow"
    assert corank.gate(good, stage="1%").stage.name == "10%"
    assert corank.gate(good, stage="100%").stage.name == "100%"
    assert json.loads(json.dumps(decision.to_dict()))["stage"]["share"] == 0


def test_too_few_samples_hold_whatever_the_interval_says(good):
    comparison = good["arms"][2]["comparison"]
    needed = samples_needed(0.07, 0.005)
    comparison["samples"] = needed
    assert corank.gate(good).verdict == "advance"
    comparison["samples"] = needed - 1
    decision = corank.gate(good, stage="10%")
    assert (decision.verdict, decision.exit_code, decision.needs) == ("hold", 10, needed)
    assert f"needs {needed:,} final samples" in decision.sentence
    assert decision.stage.name == "10%"
    assert corank.gate(good, {"minimum_samples": 5000}).needs == 5000


@pytest.mark.parametrize(
    ("change", "verdict", "said"),
    [
        ({"accuracy_difference_ci": [-0.006, 0.004]}, "hold", "reaches beyond the margin of 0.50 points"),
        (
            {"accuracy_difference_ci": [-0.03, -0.006]},
            "roll back",
            "beyond the margin of 0.50 points for certain",
        ),
        ({"accuracy_difference_ci": None}, "hold", "a loss cannot be ruled out"),
        ({"comparison": None}, "hold", "a loss cannot be ruled out"),
        (
            {"speedup_ci": {"torch": [1.05, 1.2], "onnxruntime": [2, 3]}},
            "hold",
            "reaches below the minimum of 1.1",
        ),
        ({"speedup_ci": {"torch": [1.01, 1.05], "onnxruntime": [2, 3]}}, "hold", "below the minimum of 1.1"),
        (
            {"speedup_ci": {"torch": [0.7, 0.9], "onnxruntime": [2, 3]}},
            "roll back",
            "slower than dense for certain",
        ),
        ({"speedup": {}}, "hold", "the speed was not measured"),
        ({"peak_memory": {"torch": 8_000_000}}, "hold", "peak memory is 109% of dense's on torch"),
        (
            {"drift": {"judged": [{"name": "blur", "extra": -0.01, "ci": [-0.03, 0.01]}]}},
            "hold",
            "under blur it loses 1.00 points more than dense",
        ),
        (
            {"drift": {"judged": [{"name": "blur", "extra": -0.05, "ci": [-0.07, -0.03]}]}},
            "roll back",
            "beyond the limit of 2.00 points for certain",
        ),
    ],
)
def test_each_check_can_hold_or_roll_back(good, change, verdict, said):
    good["arms"][2] |= change
    decision = corank.gate(good)
    assert decision.verdict == verdict
    assert decision.exit_code == {"hold": 10, "roll back": 20}[verdict]
    assert said in "; ".join(decision.reasons)
    assert decision.sentence.startswith(verdict.capitalize())


def test_harm_on_one_engine_or_under_one_corruption_counts_whatever_else_is_unsure(good):
    force = good["arms"][2]
    force["speedup_ci"] = {"torch": [0.5, 1.5], "onnxruntime": [0.8, 0.9]}
    assert corank.gate(good).checks[1].outcome == "roll back"
    assert corank.gate(good, {"engines": ["torch"]}).checks[1].outcome == "hold"
    unsure = {"name": "blur", "extra": 0.0, "ci": [-0.2, 0.2]}
    force["drift"] = {"judged": [unsure, {"name": "noise", "extra": -0.05, "ci": [-0.07, -0.03]}]}
    assert corank.gate(good).checks[3].reason.startswith("under noise")


def test_a_margin_of_nothing_is_told_of(good):
    good["protocol"]["metric"] = {"name": "loss", "higher_is_better": False, "share": False}
    good["arms"][0]["accuracy"] = 0.0
    assert "means nothing" in corank.gate(good).sentence


def test_a_slice_that_loses_too_much_is_named(good):
    rows = good["arms"][2]["comparison"]["slices"]
    rows[3] |= {"name": "night", "kind": "slice", "difference": -0.06, "ci": [-0.2, 0.1]}
    decision = corank.gate(good)
    assert decision.reasons[0].startswith("the worst slice, night, loses 6.00 points")
    assert decision.verdict == "hold"
    rows[3] |= {"ci": [-0.2, -0.051], "p_holm": 0.3}
    assert corank.gate(good).verdict == "hold"  # an interval that its own test does not bear out is no proof
    rows[3]["p_holm"] = 0.01
    assert corank.gate(good).verdict == "roll back"
    assert corank.gate(good, {"worst_slice": None}).verdict == "advance"


def _spread(accuracy, speedup):
    return {
        "seeds": [0, 7],
        "arms": {
            "dense": {"accuracy": [0.95, 0.94], "speedup": {"torch": [None, None]}},
            "force": {"accuracy": accuracy, "speedup": {"torch": speedup}},
        },
    }


@pytest.mark.parametrize(
    ("accuracy", "speedup", "outcome", "said"),
    [
        (
            [0.95, 0.938],
            [1.5, 1.4],
            "advance",
            "of 2 seeds, seed 7 loses most, 0.20 points, within the limit",
        ),
        ([0.99, 0.93], [1.5, 1.4], "hold", "seed 7 loses most, 1.00 points, beyond the limit of 0.50 points"),
        ([0.95, 0.94], [1.5, 1.02], "hold", "seed 7 is the slowest, 1.02 times as fast on torch, below"),
        ([0.95, None], [1.5, 1.02], "not judged", "one seed alone was trained"),
    ],
)
def test_every_seed_must_hold(good, accuracy, speedup, outcome, said):
    good["spread"] = _spread(accuracy, speedup)
    (check,) = (one for one in corank.gate(good).checks if one.name == "seeds")
    assert check.outcome == outcome
    assert said in check.reason


@pytest.mark.parametrize("odd", [float("nan"), float("inf")])
def test_what_is_not_finite_holds_and_hides_nothing(good, odd):
    rows = good["arms"][2]["comparison"]["slices"]
    rows[0] |= {"name": "flat", "difference": odd, "ci": [odd, odd]}
    rows[1] |= {"difference": -0.4, "ci": [-0.5, 0.3]}
    decision = corank.gate(good)
    assert decision.verdict == "hold"
    assert "flat has a loss that is not finite" in decision.sentence
    rows[0] |= {"difference": 0.0, "ci": [-0.01, 0.01]}
    good["arms"][2]["drift"] = {"judged": [{"name": "noise", "extra": odd, "ci": [odd, odd]}]}
    assert "under noise the loss has no interval" in corank.gate(good).sentence


def test_drift_without_an_interval_or_on_few_samples_holds(good):
    row = {"name": "noise", "samples": 1000, "extra": -0.4, "ci": None}
    good["arms"][2]["drift"] = {"judged": [row]}
    assert corank.gate(good).verdict == "hold"
    assert corank.gate(good, {"drift": None}).verdict == "advance"
    row |= {"name": "night", "samples": 5, "extra": 0.0, "ci": [-0.001, 0.001]}
    decision = corank.gate(good)
    assert decision.verdict == "hold"
    assert "night has 5 samples, fewer than the 200" in decision.sentence
    row["samples"] = 200
    assert corank.gate(good).verdict == "advance"


def test_a_metric_that_is_no_share_has_a_margin_of_its_dense_value(good):
    good["protocol"]["metric"] = {"name": "loss", "higher_is_better": False, "share": False}
    good["arms"][0]["accuracy"] = 2.0
    force = good["arms"][2]
    force["accuracy_difference"], force["accuracy_difference_ci"] = 0.008, [0.007, 0.009]
    assert corank.gate(good).checks[0].limit == pytest.approx(0.01)
    assert corank.gate(good).checks[0].outcome == "advance"
    force["accuracy_difference_ci"] = [0.011, 0.012]
    assert corank.gate(good).verdict == "roll back"


def test_what_the_policy_requires_and_what_it_leaves_open(good):
    assert corank.gate(good, {"require_drift": True}).verdict == "hold"
    assert "run the trial with --drift" in corank.gate(good, {"require_drift": True}).sentence
    good["arms"][2]["peak_memory"] = {"torch": 8_000_000}
    assert corank.gate(good, {"memory": None}).verdict == "advance"
    assert corank.gate(good, {"engines": ["onnxruntime"]}).checks[1].reason.count("onnxruntime") == 1
    assert "not measured on openvino" in corank.gate(good, {"engines": ["openvino"]}).sentence
    assert corank.gate(good, {"arm": "lowrank"}).arm == "lowrank"


BAD = {
    "marjin: 0.01": "unknown key 'marjin'; the nearest is 'margin'",
    "stages:\n- {name: a, share: 0.5, ours: 3}": "unknown key 'stages.0.ours'; the nearest is 'hours'",
    "stages:\n- {name: a}": "stages.0.share is missing",
    "margin: 5": "margin: allowed is less than 1; got 5",
    "margin: half": "margin: allowed is a valid number; got 'half'",
    "minimum_samples: 2.5": "minimum_samples: allowed is a valid integer",
    "memory: .nan": "memory: allowed is",
    "require_drift: 1": "require_drift: allowed is a valid boolean; got 1",
    "stages: []": "stages",
    "stages:\n- {name: a, share: 0.5}\n- {name: b, share: 0.1}": "rising shares",
    "- 1": "a policy is a table of keys, got a list",
    "a: [": "is no YAML",
    "arm: absent": "arm: allowed are lowrank, force, got 'absent'",
    "arm: dense": "arm: allowed are lowrank, force, got 'dense'",
}


@pytest.mark.parametrize("text", BAD)
def test_a_bad_policy_is_one_line_and_exit_code_2(run, tmp_path, sample, text):
    (tmp_path / "pilot.json").write_text(json.dumps(sample))
    (tmp_path / "policy.yaml").write_text(text)
    code, out, err = run("gate", "pilot.json", "--policy", "policy.yaml")
    assert (code, out) == (2, "")
    assert BAD[text] in err
    assert len(err.strip().splitlines()) == 1
    if "arm" not in text:
        assert err.startswith("corank: policy.yaml: ")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["absent.json"], "absent.json: cannot be read"),
        (
            ["old.json"],
            "old.json: allowed is a pilot.json of schema 2, got schema 1. Run `corank pilot` again",
        ),
        (["none.json"], "arms need names"),
        (["pilot.json", "--policy", "absent.yaml"], "absent.yaml: cannot be read"),
        (
            ["pilot.json", "--stage", "2%"],
            "stage: allowed are shadow, 1%, 10%, 50%, 100% of the policy; got '2%'",
        ),
    ],
)
def test_bad_input_of_the_command(run, tmp_path, sample, words, message):
    (tmp_path / "pilot.json").write_text(json.dumps(sample))
    (tmp_path / "old.json").write_text(json.dumps(sample | {"schema": 1}))
    (tmp_path / "none.json").write_text(json.dumps(sample | {"arms": []}))
    code, _, err = run("gate", *words)
    assert code == 2
    assert message in err


@pytest.mark.parametrize(
    "change",
    [{"comparison": {"slices": []}}, {"speedup": 2}, {"speedup_ci": {"torch": "fast", "onnxruntime": 1}}],
)
def test_a_result_that_was_changed_by_hand_is_told_of(good, change):
    good["arms"][2] |= change
    with pytest.raises(FileError, match="cannot be judged"):
        corank.gate(good)


def test_only_dense_is_nothing_to_decide_on(sample):
    with pytest.raises(CorankError, match="only the dense network"):
        corank.gate(sample | {"arms": sample["arms"][:1]})


@pytest.mark.parametrize(("ci", "code"), [([-0.001, 0.001], 0), ([-0.006, 0.006], 10), ([-0.02, -0.01], 20)])
def test_the_command_ends_with_the_code_of_its_verdict(run, tmp_path, good, ci, code):
    good["arms"][2]["accuracy_difference_ci"] = ci
    (tmp_path / "pilot.json").write_text(json.dumps(good))
    found, out, err = run("gate", "pilot.json", "--json")
    assert (found, err) == (code, "")
    assert json.loads(out) == corank.gate(tmp_path / "pilot.json").to_dict()
    found, out, _ = run("gate", "pilot.json")
    assert out.startswith({0: "advance: force", 10: "hold: force", 20: "roll back: force"}[code])


def test_a_policy_survives_its_values_and_its_file(tmp_path):
    policy = corank.Policy(margin=0.01, engines=("torch",))
    assert corank.Policy.from_dict(policy.model_dump(mode="json")) == policy
    (tmp_path / "empty.yaml").write_text("# nothing\n")
    assert corank.Policy.read(tmp_path / "empty.yaml") == corank.Policy()
    with pytest.raises(FileError):
        corank.Policy.read(tmp_path)
