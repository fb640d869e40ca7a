"""The tables of the decision hold what pilot.json holds."""

from __future__ import annotations

import copy

from corank.pilot.decision_tables import decision_tables, decision_to_markdown
from corank.pilot.page import render
from tests.pilot.sample import make_result

DRIFT = {
    "corruptions": [],
    "unknown": [{"name": "noise", "confidence": 0.9, "reference": 0.8, "ci": [0.0, 0.2], "auroc": 0.9}],
    "shifted": {"name": "night", "extra": -0.02, "ci": [-0.04, 0.0]},
    "judged": [
        {"name": "blur", "extra": -0.01, "ci": [-0.03, 0.01]},
        {"name": "night", "extra": -0.02, "ci": [-0.04, 0.0]},
    ],
}


def _full():
    result = copy.deepcopy(make_result())
    result["arms"][2]["drift"] = DRIFT
    result["arms"][2]["energy"] = {"kwh_per_million": 0.012, "label": "estimated", "by": "codecarbon 3"}
    arms = {"dense": {"accuracy": [0.9, 0.8, 0.7], "mean_accuracy": 0.8, "difference": None}}
    arms["force"] = {"accuracy": [0.9] * 3, "mean_accuracy": 0.9, "difference": [0.0] * 3}
    arms["force"]["difference_ci"], arms["dense"]["difference_ci"] = [-0.1, 0.1], None
    result["folds"] = {"folds": 3, "samples": [10, 10, 10], "arms": arms}
    return result


def test_every_table_is_there_and_square():
    tables = decision_tables(_full())
    assert [one.title for one in tables] == [
        "Decision on Force + low rank: hold",
        "Sample by sample",
        "Classes and slices: Low rank",
        "Classes and slices: Force + low rank",
        "Drift: Force + low rank",
        "Cross-validation",
        "Money",
        "Money, if",
        "Energy",
    ]
    for one in tables:
        assert one.note
        assert {len(row.cells) for row in one.table.rows} == {len(one.table.columns)}
    drift = tables[4].table
    assert [(row.title, row.note) for row in drift.rows] == [
        ("blur", "mean of five strengths"),
        ("night", "second data set"),
    ]
    assert drift.rows[0].cells[0].value == "−1.0"
    assert tables[-1].table.rows[0].cells[0].notes == ("estimated",)


def test_the_slice_that_loses_most_comes_first():
    result = _full()
    rows = decision_tables(result)[3].table.rows
    assert rows[0].title == result["arms"][2]["comparison"]["worst_slice"]


def test_the_page_and_the_terminal_show_them():
    page = render(_full())
    for said in (
        "Decision on Force + low rank: hold",
        "Cross-validation",
        "€",
        "estimated",
        "Drift: Force + low rank",
    ):
        assert said in page
    text = decision_to_markdown(_full())
    assert text.startswith("Decision on Force + low rank: hold\n\n| Check |")
    assert "| Force + low rank (on onnxruntime) |" in text


def test_without_a_decision_there_are_no_tables():
    result = _full() | {"decision": None, "economics": None, "folds": None}
    for arm in result["arms"]:
        arm |= {"comparison": None, "drift": None, "energy": None}
    assert decision_tables(result) == []
