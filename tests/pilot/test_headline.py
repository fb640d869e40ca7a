import pytest

from corank.pilot.headline import findings, headline
from tests.pilot.sample import make_result


def _with_speedups(**pairs):
    result = make_result(engines=tuple(pairs))
    force = result["arms"][2]
    force["speedup"] = {engine: sum(ci) / 2 if ci else 1.5 for engine, ci in pairs.items()}
    force["speedup_ci"] = dict(pairs)
    return result


@pytest.mark.parametrize(
    ("pairs", "said"),
    [
        ({"torch": [1.7, 1.9]}, "runs 1.80× as fast as dense (95% interval 1.70 to 1.90×)"),
        (
            {"a": [1.1, 1.3], "b": [2.0, 2.2]},
            "runs 1.20× to 2.10× as fast as dense (95% intervals within 1.10 to 2.20×)",
        ),
        ({"torch": [0.9, 1.1]}, "is not measurably faster at 1.00× (95% interval 0.90 to 1.10×)"),
        ({"torch": [0.5, 0.7]}, "is slower at 0.60× (95% interval 0.50 to 0.70×)"),
        ({"torch": None}, "runs 1.50× as fast with no interval measured"),
        (
            {"a": [0.5, 0.7], "b": [1.7, 1.9]},
            "runs 1.80× as fast as dense on b (95% interval 1.70 to 1.90×) and is slower on a at 0.60×",
        ),
    ],
)
def test_only_an_interval_that_leaves_out_one_makes_a_network_faster(pairs, said):
    assert headline(_with_speedups(**pairs)) == f"Force + low rank {said}, at 98.3% accuracy against 98.6%"


@pytest.mark.parametrize(
    ("ci", "said"),
    [
        ([-0.012, 0.006], "a loss above 1.2 points is ruled out at the 95% level; a smaller one is not."),
        ([-0.012, -0.002], "the loss is real, between 0.2 and 1.2 points."),
        ([-0.008, -0.0002], "the loss is real, between 0.0 and 0.8 points."),
        ([0.001, 0.02], "the gain is real."),
        (None, "no interval was measured, so chance cannot be told apart from a real change."),
    ],
)
def test_the_accuracy_is_judged_by_its_interval(ci, said):
    result = make_result()
    result["arms"][2]["accuracy_difference_ci"] = ci
    assert dict(findings(result))["Accuracy"].endswith(said)


def test_more_final_samples_earn_another_decimal():
    result = make_result()
    result["protocol"]["samples"]["final"] = 10_000
    assert headline(result).endswith("at 98.33% accuracy against 98.61%")


def test_the_limits_name_the_luck_of_one_seed():
    assert "With one seed" in dict(findings(make_result(seeds=(0,))))["Limits"]
    assert "3 seeds were trained" in dict(findings(make_result()))["Limits"]


def test_without_a_forced_arm_the_low_rank_one_is_judged():
    result = make_result()
    result["arms"] = result["arms"][:2]
    assert headline(result).startswith("Low rank runs 1.64×")
    assert "Without the force" not in dict(findings(result))
