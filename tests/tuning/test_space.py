from __future__ import annotations

import pytest

from corank.cli.recipes import make_options, read_recipe
from corank.errors import CorankError, FileError
from corank.pilot.options import TrialOptions
from corank.tuning import Space
from corank.tuning.pruning import Course, is_hopeless
from corank.tuning.space import defaults, draw, options_at, recipe, require_searched

FORCED = {
    "kind": "subspace",
    "strength": 0.1,
    "cooldown": 0.5,
    "toward": True,
    "layers": "layer1.*,layer2.*",
    "learning_rate_before": 0.03,
    "learning_rate_after": 0.004,
    "cut": 0.4,
}
PLAIN = {"kind": "none", "learning_rate_before": 0.03, "learning_rate_after": 0.004, "cut": 0.4}


class Lowest:
    """Draws the lower end of a range, and the choice that is asked for."""

    def __init__(self, kind):
        self.kind, self.asked = kind, []

    def suggest_float(self, name, low, high, *, log=False):
        self.asked.append(name)
        return low

    def suggest_categorical(self, name, choices):
        self.asked.append(name)
        return self.kind if name == "kind" else choices[-1]


def test_what_belongs_to_a_force_is_drawn_only_with_one():
    without, forced = Lowest("none"), Lowest("l2")
    assert draw(Space(), without)["cut"] == 0.3
    assert without.asked == ["kind", "learning_rate_before", "learning_rate_after", "cut"]
    assert draw(Space(), forced)["toward"] is True
    assert set(forced.asked) == set(FORCED)


@pytest.mark.parametrize("point", [FORCED, PLAIN])
@pytest.mark.parametrize("cost", ["macs", "latency"])
def test_a_point_survives_its_recipe(tmp_path, point, cost):
    space = Space(cost=cost)
    chosen = options_at(point, space, TrialOptions(shared=0, seeds=(3,)))
    assert chosen.arms == (("dense", "force_plan") if point is FORCED else ("dense", "lowrank"))
    assert chosen.target.to_dict()[cost] == 0.4
    assert chosen.seeds == (3,)
    (tmp_path / "a.toml").write_text(recipe(chosen, {}))
    assert make_options(read_recipe(tmp_path / "a.toml").options, trained=False) == chosen


def test_patterns_of_layers_may_be_spaced():
    assert options_at({**FORCED, "layers": "0, 2"}, Space(), TrialOptions()).force_layers == ("0", "2")


def test_where_a_recipe_begins_the_search_begins():
    options = TrialOptions(kind="output", cooldown=0.5, force_layers=("0", "2"), arms=("dense", "force_plan"))
    space = Space(layers=("*", "0,2"))
    forced = defaults(space, options)[1]
    assert (forced["kind"], forced["cooldown"], forced["layers"]) == ("output", 0.5, "0,2")
    assert forced["toward"] is True
    assert defaults(Space(layers=("*", "0, 2")), options)[1]["layers"] == "0, 2"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"target": "x"}, "target: how deep is searched"),
        ({"seeds": (3, 4)}, "seeds: a trial trains one, got 2"),
        ({"kind": "l1"}, "kind: it is searched, among kinds of the space, and 'l1' is not there"),
        ({"cooldown": 0.3}, "cooldown: it is searched, among cooldowns"),
        ({"force_layers": ("2",)}, "force_layers: it is searched, among layers"),
    ],
)
def test_what_a_search_would_not_use_is_refused(settings, message):
    require_searched(Space(), {"seeds": (3,), "kind": "l2", "cooldown": 0.5, "force_layers": ("*",)})
    with pytest.raises(CorankError, match=message):
        require_searched(Space(), settings)


def test_the_fixed_settings_come_first_and_lie_in_the_space():
    space = Space(strength=(0.3, 0.5), learning_rate_after=(0.001, 0.002), cut=(0.4, 0.6))
    plain, forced = defaults(space, TrialOptions())
    assert plain["kind"] == "none"
    assert (forced["kind"], forced["strength"], forced["learning_rate_after"]) == ("l2", 0.3, 0.002)
    assert plain["cut"] == forced["cut"] == pytest.approx(0.5)
    assert [one["kind"] for one in defaults(Space(kinds=("output",)), TrialOptions())] == ["output"]
    assert [one["kind"] for one in defaults(Space(kinds=("none",)), TrialOptions())] == ["none"]


def test_a_space_is_read_from_a_file(tmp_path):
    (tmp_path / "a.toml").write_text('kinds = ["none", "l1"]\nstrength = [0.1, 1]\ncost = "params"\n')
    assert Space.read(tmp_path / "a.toml") == Space(kinds=("none", "l1"), strength=(0.1, 1), cost="params")
    (tmp_path / "a.toml").write_text("time_budget = 60\ncooldowns = [0, 0.5]\n")
    assert Space.read(tmp_path / "a.toml") == Space(time_budget=60.0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kind = ['l2']", "unknown key 'kind'; the nearest is 'kinds'"),
        ("kinds = 'l2'", "kinds is a list, got 'l2'"),
        ("kinds = ['l7']", "kinds: allowed are none, l2"),
        ("kinds = []", "kinds needs at least one choice"),
        ("strength = [0.5, 0.1]", r"strength is a range within \(0, 1000\), got 0.5 to 0.1"),
        ("strength = [0.5]", "strength is a range of two numbers"),
        ("cut = [0.5, 1.5]", r"cut is a range within \(0, 1\)"),
        ("cut = [1.0, 1.0]", r"cut is a range within \(0, 1\), got 1.0 to 1.0"),
        ("kinds = ['l2', 'l2']", "kinds has 'l2' twice"),
        ("time_budget = -5.0", "time_budget is seconds above 0, got -5.0"),
        ("learning_rate_after = [0.1, 10.0]", r"learning_rate_after is a range within \(0, 10\)"),
        ("cooldowns = [2.0]", r"cooldowns are shares in \[0, 1\]"),
        ("strength = ['a', 'b']", "strength is a list, each a number, got 'a'"),
        ("cooldowns = ['x']", "cooldowns is a list, each a number, got 'x'"),
        ("layers = [1]", "layers is a list, each a text, got 1"),
        ("toward = ['yes']", "toward is a list, each a flag, true or false, got 'yes'"),
        ("cut = [true, true]", "cut is a list, each a number, got True"),
        ("time_budget = 'long'", "time_budget is a number, got 'long'"),
        ("backend = 'nonsense'", "backend: allowed are .*got 'nonsense'"),
        ("cost = 'watts'", "cost: allowed are macs"),
        ("kinds = [", "is no TOML"),
    ],
)
def test_a_wrong_space_is_one_clear_error(tmp_path, text, message):
    (tmp_path / "a.toml").write_text(text)
    with pytest.raises(CorankError, match=message):
        Space.read(tmp_path / "a.toml")
    with pytest.raises(FileError, match="cannot be read"):
        Space.read(tmp_path / "absent.toml")


def test_a_trial_is_hopeless_once_enough_cheaper_ones_were_ahead():
    ahead = [Course([0.5, 0.9], 0.4), Course([0.6, 0.9], 0.5)]
    assert is_hopeless(Course([0.4], 0.5), ahead)
    assert not is_hopeless(Course([0.55], 0.5), ahead)  # one is behind
    assert not is_hopeless(Course([0.4], 0.45), ahead)  # one costs more
    assert not is_hopeless(Course([0.4, 0.8, 0.8], 0.5), ahead)  # they never trained so long
    assert not is_hopeless(Course([], 0.5), ahead)
