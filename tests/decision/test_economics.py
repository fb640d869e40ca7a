"""Money by hand, and the numbers that are refused."""

from __future__ import annotations

from dataclasses import replace

import pytest

from corank.decision.economics import DAYS, Economics, Measured, as_dict, estimate
from corank.errors import CorankError
from corank.headrooms import Headroom
from corank.pilot.conclusion import conclude
from corank.pilot.money_lines import money_lines
from tests.cli.running import corank as run
from tests.pilot.sample import make_result

__all__ = ["run"]  # a fixture
TERMS = Economics(
    2.0, 8_640_000, utilisation=0.5, watts=500, electricity=0.2, engineer_hours=10, engineer_cost=100
)
MEASURED = Measured("torch", 16.0, 8, 2.0, (1.6, 2.5), (4e8, 2e8), training_hours=3)


def test_the_money_by_hand():
    found = estimate(TERMS, MEASURED)
    # 2 ms a sample, on an instance that is paid for twice as long, since it is busy half the time
    per_million = 0.002 * 1e6 / 3600 * (2.0 / 0.5 + 0.5 * 0.2)
    assert found["cost_per_million"]["before"] == pytest.approx(per_million)
    assert found["cost_per_million"]["after"] == pytest.approx(per_million / 2)
    saving = 8.64 * DAYS * per_million / 2
    assert found["saving_per_month"] == pytest.approx(saving)
    assert found["investment"] == pytest.approx(10 * 100 + 3 * 2.0)
    assert found["payback_months"] == pytest.approx(1006 / saving)
    # 100 requests a second of 2 ms each keep 0.2 instances busy, so 0.4 are needed, and one is the least
    assert found["instances"] == pytest.approx(
        {"before": 0.4, "after": 0.2, "whole_before": 1, "whole_after": 1}
    )
    # no instance less, only the electricity of 0.1 busy hours an hour
    assert found["saving_per_month_whole_instances"] == pytest.approx(0.1 * 24 * DAYS * 0.1)
    assert found["memory_bytes"] == {"before": 4e8, "after": 2e8}


def test_whole_instances_are_saved_where_there_are_many():
    found = estimate(replace(TERMS, requests_per_day=8_640_000 * 25), MEASURED)
    assert (found["instances"]["whole_before"], found["instances"]["whole_after"]) == (10, 5)
    electricity = 2.5 * 24 * DAYS * 0.1
    assert found["saving_per_month_whole_instances"] == pytest.approx(5 * 24 * DAYS * 2.0 + electricity)
    assert found["saving_per_month_whole_instances"] == pytest.approx(found["saving_per_month"])


def test_the_interval_is_that_of_the_speedup():
    found = estimate(TERMS, MEASURED)
    ends = [estimate(TERMS, replace(MEASURED, speedup=one))["saving_per_month"] for one in (1.6, 2.5)]
    assert found["saving_per_month_ci"] == pytest.approx(ends)
    assert found["payback_months_ci"] == pytest.approx([1006 / ends[1], 1006 / ends[0]])


def test_what_is_slower_never_pays_back():
    found = estimate(TERMS, replace(MEASURED, speedup=0.9, interval=(0.8, 1.1)))
    assert found["saving_per_month"] < 0
    assert found["payback_months"] is None
    assert found["payback_months_ci"][1] is None
    assert "paid back never" in money_lines(TERMS, found)[-1]


def test_the_sensitivity_is_the_estimate_with_one_number_changed():
    for row in estimate(TERMS, MEASURED)["sensitivity"]:
        for value, saving in zip(row["values"], row["savings"], strict=True):
            if row["name"] == "speedup":
                again = estimate(TERMS, replace(MEASURED, speedup=value))
            else:
                again = estimate(replace(TERMS, **{row["name"]: value}), MEASURED)
            assert saving == pytest.approx(again["saving_per_month"])


def test_money_is_written_as_the_locale_does():
    assert replace(TERMS, currency="JPY", locale="ja_JP").money(1234.5).endswith("1,234")
    assert replace(TERMS, currency="EUR", locale="de_DE").money(0.01234).startswith("0,012")
    assert replace(TERMS, currency="EUR", locale="de_DE").money(-1234.5).startswith("-1.234,50")


def test_a_result_keeps_its_numbers_when_it_is_concluded_again():
    result = make_result()
    assert Economics(**result["economics"]["terms"]).currency == "EUR"
    assert list(result["economics"]["arms"]) == ["lowrank", "force"]
    assert result["economics"]["arms"]["force"]["engine"] == "onnxruntime"  # where dense is fastest
    before = result["economics"]
    assert conclude(result)["economics"] == before
    assert any("Saving per month" in one for one in result["summary"])
    with pytest.raises(CorankError, match="backend: allowed are those that were timed, torch, onnxruntime"):
        conclude(result, economics=replace(TERMS, backend="openvino"))
    assert Economics(**as_dict(TERMS)) == TERMS


def test_headroom_tells_the_money_as_a_bound(run, tmp_path, monkeypatch):
    found = Headroom(
        "torch",
        1,
        "float32",
        8,
        16.0,
        (),
        {},
        {"0.125": 2.0, "0.25": 1.8, "0.5": 1.2},
        2.0,
        9.0,
        weight_bytes=(2**21, 2**20),
    )
    monkeypatch.setattr("corank.benchmarks.headroom.headroom", lambda *_, **__: found)
    (tmp_path / "costs.toml").write_text("cost_per_hour = 3.6\nrequests_per_day = 1e6\nutilisation = 1.0")
    code, out, err = run("headroom", "torch.nn:Identity", "--economics", "costs.toml")
    assert code == 0, err
    assert out.startswith("worth it")
    assert "cost $2.00 before and at least $1.00 after" in out
    assert "Saving per month: at most $30.44" in out
    assert "weights in all instances take 2.00 MiB before and at least 1.00 MiB after" in out
    assert (
        "requests per day at 500,000 or 2,000,000, the saving per month is at most $15.22 or at most" in out
    )


def test_headroom_measures_the_engine_that_the_money_is_about(run, tmp_path):
    (tmp_path / "costs.toml").write_text('cost_per_hour = 1\nrequests_per_day = 1e6\nbackend = "openvino"')
    code, _, err = run("headroom", "torch.nn:Identity", "--economics", "costs.toml")
    assert code == 2
    assert "Add --backend openvino" in err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cost_per_hour = 1", "costs.toml: requests_per_day is missing"),
        ("cost_per_hour = 1\nrequests_per_day = 1\ncosts = 3", "unknown key 'costs'; the nearest is"),
        ("cost_per_hour = -1\nrequests_per_day = 1", "cost_per_hour: allowed is a number from 0, got -1"),
        ("cost_per_hour = 0\nrequests_per_day = 1", "must be above 0"),
        ("cost_per_hour = nan\nrequests_per_day = 1", "cost_per_hour: allowed is a number"),
        ("cost_per_hour = 1\nrequests_per_day = 1\nutilisation = 50", "a fraction in (0, 1], got 50"),
        ('cost_per_hour = 1\nrequests_per_day = 1\ncurrency = "Euro"', "ISO 4217, such as EUR, got 'Euro'"),
        ('cost_per_hour = 1\nrequests_per_day = 1\nlocale = "xx_YY"', "locale: allowed is such as en_US"),
        ("cost_per_hour = 1\nrequests_per_day = 1\ncurrency = 3", "currency is a text, got 3"),
        ("cost_per_hour =", "is no TOML"),
    ],
)
@pytest.mark.parametrize("verb", ["pilot", "headroom"])
def test_bad_numbers_are_one_line_before_any_work(run, tmp_path, text, message, verb):
    (tmp_path / "costs.toml").write_text(text)
    words = ["--out", "out"] if verb == "pilot" else ["torch.nn:Identity"]
    code, out, err = run(verb, *words, "--economics", "costs.toml")
    assert (code, out) == (2, "")
    assert message in err
    assert len(err.strip().splitlines()) == 1
    assert [one.name for one in tmp_path.iterdir()] == ["costs.toml"]
