"""The opening sentences follow from the figures alone, and lead to them."""

import copy

import pytest

from corank.decision.economics import Economics
from corank.decision.policy import Policy
from corank.pilot.conclusion import conclude
from corank.pilot.headline import headline
from corank.pilot.meeting import meeting, plain_sentence
from corank.pilot.money_lines import money_lines
from corank.wording import speaking
from tests.pilot.sample import make_result


@pytest.fixture(scope="module")
def result():
    return make_result()


def _told(result):
    return [plain_sentence(sentence) for _, sentence in meeting(result)]


def test_each_sentence_has_its_figures_and_their_sources(result):
    does, gains, risk = meeting(result)
    assert [part.text for part in does[1] if part.anchor] == ["6", "8", "50%", "50%"]
    engine = [part for part in gains[1] if part.anchor.startswith("arm2-")]
    assert [part.text for part in engine] == ["1.70×", "1.65 to 1.77×", "0.791 ms"]
    assert next(part.text for part in risk[1] if part.anchor == "h-checks") == "Hold"
    needs = f"{result['decision']['needs']:,}"
    assert plain_sentence(risk[1]).endswith(f"collect {needs} final samples, and run the trial again.")


@pytest.mark.parametrize(
    ("ci", "said"),
    [
        ([0.9, 1.1], "On onnxruntime it is not measurably faster, 1.70× (95% interval 0.90 to 1.10×)"),
        ([0.5, 0.9], "On onnxruntime it is slower, 1.70× as fast (95% interval 0.50 to 0.90×)"),
    ],
)
def test_it_is_faster_only_where_the_interval_says_so(result, ci, said):
    changed = copy.deepcopy(result)
    changed["arms"][2]["speedup_ci"]["onnxruntime"] = ci
    assert _told(changed)[1].startswith(said)


@pytest.mark.parametrize(
    ("decision", "said"),
    [
        ({"verdict": "roll back"}, "Roll back: keep serving the dense network."),
        (
            {"verdict": "advance", "stage": {"name": "canary", "share": 0.05, "hours": 48.0}},
            "Advance: next comes canary (5% of the requests, at least 48 hours).",
        ),
        (
            {"verdict": "hold", "needs": None, "reasons": ["too slow"]},
            "Hold: keep serving the dense network until what holds it is settled: too slow.",
        ),
        (None, "No decision was made: ask corank gate."),
    ],
)
def test_the_next_step_follows_from_the_verdict(result, decision, said):
    assert _told(result | {"decision": decision})[2].endswith(said)


def test_without_money_it_says_that_nobody_asked(result):
    assert _told(result | {"economics": None})[1].endswith("was not worked out (--economics does).")


def test_in_japanese_the_figures_are_the_same(result):
    english = [part.text for _, sentence in meeting(result) for part in sentence if part.anchor == "h-layers"]
    with speaking("ja"):
        told = conclude(copy.deepcopy(result))
        sentences = meeting(told)
    assert sorted(part.text for _, one in sentences for part in one if part.anchor == "h-layers") == sorted(
        english
    )
    assert "判定は「保留」" in plain_sentence(sentences[2][1])
    assert told["decision"]["needs"] == result["decision"]["needs"]


def test_the_page_tells_of_the_arm_that_was_judged():
    told = conclude(copy.deepcopy(make_result()), Policy(arm="lowrank"))
    arm = next(one for one in told["arms"] if one["name"] == "lowrank")
    assert told["decision"]["arm"] == "lowrank"
    anchors = {
        part.anchor for _, sentence in meeting(told) for part in sentence if part.anchor.startswith("arm")
    }
    assert {anchor.split("-")[0] for anchor in anchors} <= {"arm0", "arm1"}  # dense and low rank
    assert told["economics"]["said"] == money_lines(
        Economics(**told["economics"]["terms"]), told["economics"]["arms"]["lowrank"]
    )
    assert headline(told).startswith("Low rank runs")
    again = conclude(copy.deepcopy(told), Policy())
    assert again["decision"]["arm"] == "force"
    assert headline(again).startswith("Force + low rank")
    assert arm["accuracy_difference"] is not None
