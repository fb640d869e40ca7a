from __future__ import annotations

import json
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from corank.cli.recipes import make_options, read_recipe
from corank.cost import Cost
from corank.errors import CorankError, ExtraError, FileError, OutOfMemoryError
from corank.latency import LatencyTable, TableRow
from corank.pilot.arm import Arm
from corank.pilot.arms import Trainer
from corank.pilot.folder import locked
from corank.pilot.options import TrialOptions
from corank.pilot.problems import make_problem
from corank.spectra import Spectrum
from corank.tuning import Space, record, search, tune
from corank.tuning.reach import within_reach
from corank.tuning.space import RATES
from tests.cli import own

optuna = pytest.importorskip("optuna", reason="the search comes with the extra `tune`")
pytest.importorskip("matplotlib", reason="the pictures come with the extra `report`")
OPTIONS = TrialOptions(shared=1, before_cut=1, after_cut=2, multiple=1, backends=("torch",))
SPACE = Space(kinds=("none", "l2"), cut=(0.5, 0.95))


@pytest.fixture
def problem():
    return make_problem("own", "net", own.net, task=own.seeded, keep=("6",))


def rows(result):
    return [{key: one[key] for key in ("settings", "state", "scores", "cost")} for one in result["trials"]]


def test_a_search_ends_with_a_front_recipes_and_pictures(problem, tmp_path):
    result = tune(problem, tmp_path, OPTIONS, SPACE, trials=4, progress=False)
    assert result == json.loads((tmp_path / "tune.json").read_text())
    assert [one["settings"]["kind"] for one in result["trials"][:2]] == ["none", "l2"]
    complete = [one for one in result["trials"] if one["state"] == "complete"]
    for one in complete:
        assert len(one["scores"]) == 2
        assert one["score"] == one["scores"][-1]
        assert 0 < one["cost"] <= one["settings"]["cut"]
    for number in result["front"]:
        mine = result["trials"][number]
        assert not any(
            one["score"] >= mine["score"]
            and one["cost"] <= mine["cost"]
            and (one["score"], one["cost"]) != (mine["score"], mine["cost"])
            for one in complete
        )
        assert (tmp_path / "recipes" / f"{number}.toml").exists()
    assert 0 <= result["dense"] <= 1
    assert (result["metric"], result["higher_is_better"]) == ("accuracy", True)
    best = max(complete, key=lambda one: one["score"])["number"]
    scores = {path.parent.name: json.loads(path.read_text()) for path in tmp_path.glob("work/*/score.json")}
    fixed = [result["trials"][0]["settings"][rate] for rate in RATES]
    tuned = [result["trials"][best]["settings"][rate] for rate in RATES]
    assert sorted(scores) == (["dense"] if tuned == fixed else ["dense", f"dense-{best}"])
    assert result["dense"] == max(scores.values())
    assert not list(tmp_path.glob("work/trial*/*")), "what no one reads any more is left"
    for picture in ("front.svg", "mattered.svg"):
        assert "<svg" in (tmp_path / picture).read_text()


def test_a_search_that_was_killed_ends_as_if_it_had_not_been(problem, tmp_path, monkeypatch):
    whole = tune(problem, tmp_path / "whole", OPTIONS, SPACE, trials=4, progress=False)
    make_arm = Trainer.make_arm
    arms = []

    def dying(self, name, start):
        arms.append(name)
        if len(arms) == 3:
            object.__setattr__(self, "watch", _die)
        return make_arm(self, name, start)

    monkeypatch.setattr(Trainer, "make_arm", dying)
    with pytest.raises(KeyboardInterrupt):
        tune(problem, tmp_path / "killed", OPTIONS, SPACE, trials=4, progress=False)
    early = json.loads((tmp_path / "killed" / "tune.json").read_text())  # of what was finished by then
    assert rows(early) == rows(whole)[:1]
    assert early["dense"] is not None
    again = tune(problem, tmp_path / "killed", OPTIONS, SPACE, trials=4, progress=False)
    assert rows(again) == rows(whole)
    assert again["dense"] == whole["dense"]
    more = tune(problem, tmp_path / "killed", OPTIONS, SPACE, trials=5, progress=False)
    assert rows(more)[:4] == rows(whole)
    assert len(more["trials"]) == 5


def _die(arm):
    raise KeyboardInterrupt


class Pretended(Trainer):
    """Trains nothing: a cut's score follows from its settings, after each of two epochs."""

    def make_start(self):
        return Arm("shared", own.net(), Spectrum(()))

    def make_arm(self, name, start):
        cut = self.options.target.to_dict().get("macs", 1.0)
        cost = [Cost(macs=1000, params=1, bytes=4), Cost(macs=int(1000 * cut), params=1, bytes=4)]
        arm = Arm(name, start.model, Spectrum(()), SimpleNamespace(before=cost[0], after=cost[1]))
        for epoch in (1, 2):
            accuracy = 0.5 + 0.1 * epoch + 0.2 * cut - 0.1 * (self.options.strength > 0.1)
            arm.history.append({"epoch": epoch, "phase": "after_cut", "dev_accuracy": accuracy})
            if self.watch is not None:
                self.watch(arm)
        return arm


def test_many_trials_with_some_given_up_and_what_mattered(problem, tmp_path, monkeypatch):
    monkeypatch.setattr(search, "Trainer", Pretended)
    space = Space(kinds=("l2",), strength=(0.001, 1.0))
    result = tune(problem, tmp_path, OPTIONS, space, trials=30, progress=False)
    states = [one["state"] for one in result["trials"]]
    assert len(states) == 30
    assert set(states) == {"complete", "pruned"}
    given_up = [one for one in result["trials"] if one["state"] == "pruned"]
    assert all(len(one["scores"]) == 1 for one in given_up)
    assert next(iter(result["mattered"]["cost"])) == "cut"
    assert sum(result["mattered"]["score"].values()) == pytest.approx(1.0)


def test_a_trial_that_cannot_be_done_is_a_result(problem, tmp_path, monkeypatch):
    class Failing(Pretended):
        def make_arm(self, name, start):
            if name != "dense":
                raise CorankError("finetune: the loss is nan")
            return super().make_arm(name, start)

    monkeypatch.setattr(search, "Trainer", Failing)
    result = tune(problem, tmp_path, OPTIONS, SPACE, trials=2, progress=False)
    assert [one["state"] for one in result["trials"]] == ["fail", "fail"]
    assert "the loss is nan" in result["trials"][0]["failed"]
    assert result["front"] == []


def test_a_lower_metric_is_better_where_the_task_says_so(tmp_path, monkeypatch):
    problem = make_problem("own", "named", own.Named, task=own.named, keep=("net.6",))
    monkeypatch.setattr(search, "Trainer", Pretended)
    result = tune(problem, tmp_path, OPTIONS, SPACE, trials=2, progress=False)
    assert result["higher_is_better"] is False
    assert all(one["score"] > 0 for one in result["trials"])  # as the task has it
    assert result["dense"] > 0


def test_a_folder_in_use_is_left_to_its_worker(tmp_path):
    with locked(tmp_path):
        assert not search.is_free(tmp_path)
    assert search.is_free(tmp_path)


def test_a_trial_whose_worker_died_before_it_made_a_folder_is_taken_up(problem, tmp_path, monkeypatch):
    monkeypatch.setattr(search, "Trainer", Pretended)
    mkdir = search.Path.mkdir

    def dying(path, *args, **options):
        if path.name == "trial1" and not path.exists():
            raise KeyboardInterrupt
        return mkdir(path, *args, **options)

    with monkeypatch.context() as dead:
        dead.setattr(search.Path, "mkdir", dying)
        with pytest.raises(KeyboardInterrupt):
            tune(problem, tmp_path, OPTIONS, SPACE, trials=3, progress=False)
    result = tune(problem, tmp_path, OPTIONS, SPACE, trials=3, progress=False)
    assert [one["state"] for one in result["trials"]] == ["complete"] * 3


def test_a_trial_that_died_while_it_drew_draws_what_it_would_have_drawn(problem, tmp_path, monkeypatch):
    monkeypatch.setattr(search, "Trainer", Pretended)
    whole = tune(problem, tmp_path / "whole", OPTIONS, SPACE, trials=5, progress=False)
    suggest = optuna.trial.Trial.suggest_float

    def dying(trial, name, *args, **options):
        if trial.number == 3 and name == "learning_rate_after":
            raise KeyboardInterrupt
        return suggest(trial, name, *args, **options)

    with monkeypatch.context() as dead:
        dead.setattr(optuna.trial.Trial, "suggest_float", dying)
        with pytest.raises(KeyboardInterrupt):
            tune(problem, tmp_path / "killed", OPTIONS, SPACE, trials=5, progress=False)
    again = tune(problem, tmp_path / "killed", OPTIONS, SPACE, trials=5, progress=False)
    assert rows(again) == rows(whole)


@pytest.mark.parametrize("error", [FileError("a: full"), OutOfMemoryError("finetune: too much")])
def test_a_full_disk_or_memory_is_no_result_and_the_trial_goes_on(problem, tmp_path, monkeypatch, error):
    class Failing(Pretended):
        def make_arm(self, name, start):
            raise error

    monkeypatch.setattr(search, "Trainer", Failing)
    with pytest.raises(type(error)):
        tune(problem, tmp_path, OPTIONS, SPACE, trials=2, progress=False)
    monkeypatch.setattr(search, "Trainer", Pretended)
    result = tune(problem, tmp_path, OPTIONS, SPACE, trials=2, progress=False)
    assert [one["state"] for one in result["trials"]] == ["complete"] * 2


@pytest.mark.parametrize("name", ["pilot.json", "work/trial.json"])
def test_the_folder_of_a_trial_is_left_alone(problem, tmp_path, name):
    (tmp_path / "work").mkdir()
    (tmp_path / name).write_text("{}")
    with pytest.raises(FileError, match="holds a trial of `corank pilot`"):
        tune(problem, tmp_path, OPTIONS, SPACE, trials=1)
    assert not (tmp_path / "work" / "search.json").exists()


@pytest.mark.parametrize("storage", ["nonsense", "sqlite:////absent/folder/a.db", "nobase://x"])
def test_a_storage_that_cannot_be_opened_is_said_before_anything_is_written(problem, tmp_path, storage):
    with pytest.raises(CorankError, match="storage: it cannot be opened .*Give a URL that Optuna takes"):
        tune(problem, tmp_path / "out", OPTIONS, SPACE, trials=1, storage=storage)
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_searched_is_said_before_any_work(problem, tmp_path, monkeypatch):
    with pytest.raises(CorankError, match="trials: allowed is a whole number from 1, got 0"):
        tune(problem, tmp_path, OPTIONS, SPACE, trials=0)
    monkeypatch.setattr(search, "Trainer", Pretended)
    tune(problem, tmp_path, OPTIONS, SPACE, trials=1, progress=False)
    with pytest.raises(FileError, match="holds another search: .*Choose another folder"):
        tune(problem, tmp_path, OPTIONS, Space(), trials=1)
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ExtraError, match=r"corank\[tune\]"):
        tune(problem, tmp_path, OPTIONS, SPACE, trials=1)


def test_the_storage_of_another_search_is_refused(problem, tmp_path):
    storage = f"sqlite:///{tmp_path / 'shared.db'}"
    first = tune(problem, tmp_path / "a", OPTIONS, SPACE, trials=1, storage=storage, progress=False)
    other = make_problem("other", "net", own.net, task=own.seeded, keep=("6",))
    with pytest.raises(FileError, match="storage: it holds another search: .*Give another database"):
        tune(other, tmp_path / "b", OPTIONS, SPACE, trials=1, storage=storage, progress=False)
    again = tune(problem, tmp_path / "a", OPTIONS, SPACE, trials=1, storage=storage, progress=False)
    assert rows(again) == rows(first)


@pytest.mark.parametrize("directions", [["maximize"], ["maximize", "minimize"]])
def test_a_study_that_is_no_searchs_is_left_alone(problem, tmp_path, directions):
    storage = f"sqlite:///{tmp_path / 'own.db'}"
    study = optuna.create_study(study_name="corank", storage=storage, directions=directions)
    study.enqueue_trial({"x": 1})
    with pytest.raises(FileError, match="a study 'corank' that is no search's"):
        tune(problem, tmp_path / "a", OPTIONS, SPACE, trials=1, storage=storage, progress=False)
    assert len(study.trials) == 1


def test_a_folder_keeps_to_its_study(problem, tmp_path):
    storage = f"sqlite:///{tmp_path / 'a.db'}"
    out = tmp_path / "out"
    tune(problem, out, OPTIONS, SPACE, trials=1, storage=storage, progress=False)
    before = (out / "tune.json").read_text()
    with pytest.raises(FileError, match="of a study in another database. Give the storage that it was begun"):
        tune(problem, out, OPTIONS, SPACE, trials=2, progress=False)
    assert (out / "tune.json").read_text() == before


def test_every_workers_costs_are_from_one_table(problem, tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime", reason="an optional engine")
    pytest.importorskip("onnxscript", reason="ONNX files come with the extra `onnx`")
    monkeypatch.setattr(search, "within_reach", lambda *terms: terms[2])  # a network too small to gain time
    space = Space(kinds=("none",), cut=(0.5, 0.95), cost="latency", time_budget=2.0)
    options = {"storage": f"sqlite:///{tmp_path / 'a.db'}", "progress": False}
    tune(problem, tmp_path / "a", OPTIONS, space, trials=1, **options)
    with pytest.raises(FileError, match=r"Copy work/table.json from there to .*b/work/table.json"):
        tune(problem, tmp_path / "b", OPTIONS, space, trials=2, **options)
    table = (tmp_path / "a/work/table.json").read_text()
    (tmp_path / "b/work/table.json").write_text(table)
    result = tune(problem, tmp_path / "b", OPTIONS, space, trials=2, **options)
    assert len(result["trials"]) == 2


def test_recipes_of_trials_that_left_the_front_are_gone(problem, tmp_path):
    tune(problem, tmp_path, OPTIONS, SPACE, trials=1, progress=False)
    (tmp_path / "recipes/77.toml").touch()
    result = tune(problem, tmp_path, OPTIONS, SPACE, trials=2, progress=False)
    assert {int(one.stem) for one in (tmp_path / "recipes").iterdir()} == set(result["front"])


def test_a_damaged_search_is_one_clear_error(problem, tmp_path):
    (tmp_path / "work").mkdir()
    (tmp_path / "work/search.json").write_text("{")
    with pytest.raises(FileError, match=r"search.json: is damaged .*Choose another folder"):
        tune(problem, tmp_path, OPTIONS, SPACE, trials=1, progress=False)


@pytest.mark.parametrize(
    ("space", "trials", "message"),
    [
        (lambda: Space(layers=("*", "nope*")), 1, r"'nope\*' matches no"),
        (lambda: Space(strength=0.3), 1, "space: strength is a list, got 0.3"),
        (lambda: Space(cooldowns=("a",)), 1, "space: cooldowns is a list, each a number, got 'a'"),
        (lambda: Space(toward=("yes",)), 1, "space: toward is a list, each a flag"),
        (lambda: Space(layers="conv"), 1, "space: layers is a list, got 'conv'"),
        (Space, 2.5, "trials: allowed is a whole number from 1, got 2.5"),
    ],
)
def test_a_search_that_cannot_be_is_refused_before_any_work(problem, tmp_path, space, trials, message):
    with pytest.raises(CorankError, match=message):
        tune(problem, tmp_path / "out", OPTIONS, space(), trials=trials, progress=False)
    assert not (tmp_path / "out").exists()


def test_a_trial_is_not_given_up_after_its_last_epoch(problem, tmp_path, monkeypatch):
    monkeypatch.setattr(search, "Trainer", Pretended)
    options = replace(OPTIONS, after_cut=1)
    space = Space(kinds=("l2",), strength=(0.001, 1.0))
    result = tune(problem, tmp_path, options, space, trials=12, progress=False)
    assert {one["state"] for one in result["trials"]} == {"complete"}


def test_nothing_is_given_up_where_that_is_not_wanted(problem, tmp_path, monkeypatch):
    monkeypatch.setattr(search, "Trainer", Pretended)
    space = Space(kinds=("l2",), strength=(0.001, 1.0))
    seeds = []

    def sampler(seed):
        seeds.append(seed)
        return optuna.samplers.RandomSampler(seed=seed)

    terms = {"sampler": sampler, "give_up": False, "progress": False}
    result = tune(problem, tmp_path, OPTIONS, space, trials=12, **terms)
    assert {one["state"] for one in result["trials"]} == {"complete"}
    assert len(set(seeds)) > 12  # one for each value of each trial


def test_what_a_few_trials_cannot_say_is_not_said(problem, tmp_path, monkeypatch):
    monkeypatch.setattr(search, "Trainer", Pretended)
    space = Space(kinds=("none", "l2"), strength=(0.001, 1.0))
    few = tune(problem, tmp_path, OPTIONS, space, trials=record.ENOUGH - 1, give_up=False, progress=False)
    assert few["mattered"] == {}
    enough = tune(problem, tmp_path, OPTIONS, space, trials=record.ENOUGH, give_up=False, progress=False)
    assert {"cut", "kind", "strength", "cooldown", "toward"} <= set(enough["mattered"]["score"])
    assert next(iter(enough["mattered"]["cost"])) == "cut"


def test_dense_starts_within_the_space(problem, tmp_path, monkeypatch):
    rates = []
    make_arm = Pretended.make_arm

    def noting(self, name, start):
        if name == "dense":
            rates.append(self.options.learning_rate_before)
        return make_arm(self, name, start)

    monkeypatch.setattr(Pretended, "make_arm", noting)
    monkeypatch.setattr(search, "Trainer", Pretended)
    options = replace(OPTIONS, learning_rate_before=0.9)
    result = tune(problem, tmp_path, options, SPACE, trials=2, progress=False)
    assert rates == [SPACE.learning_rate_before[1]]  # both trials have the fixed rates
    result = tune(problem, tmp_path, options, SPACE, trials=6, progress=False)
    best = max(result["trials"], key=lambda one: one["score"] or 0.0)["settings"]["learning_rate_before"]
    assert rates[1:] == ([best] if best != SPACE.learning_rate_before[1] else [])


def test_the_cut_begins_where_the_network_can_follow(problem, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(search, "Trainer", Pretended)
    space = replace(SPACE, cut=(0.01, 0.95))
    least = within_reach(problem, OPTIONS, space).cut[0]
    assert 0.1 < least < 0.5
    result = tune(problem, tmp_path / "out", OPTIONS, space, trials=6, progress=False)
    assert "cut begins at" in caplog.text
    assert all(one["settings"]["cut"] >= least for one in result["trials"])
    assert within_reach(problem, OPTIONS, replace(space, cut=(least, 0.95))).cut == (least, 0.95)
    again = tune(problem, tmp_path / "out", OPTIONS, space, trials=6, progress=False)
    assert again["trials"] == result["trials"]


def test_a_space_out_of_reach_is_refused_before_anything_is_written(problem, tmp_path):
    with pytest.raises(CorankError, match="cut ends at 0.02, and the deepest plan .* Choose another cost or"):
        tune(problem, tmp_path / "out", OPTIONS, replace(SPACE, cut=(0.01, 0.02)), trials=1)
    assert not (tmp_path / "out").exists()


def test_a_time_out_of_reach_is_said_once_the_table_is_there(problem, tmp_path, monkeypatch):
    rows = (TableRow("0", "dense", 8, 1.0), TableRow("0", "filter_basis", 4, 0.8, 0.8, (0.7, 0.9)))
    monkeypatch.setattr(search, "one_table", lambda *_: LatencyTable("torch", 1, "float32", 4, 1.2, rows))
    space = replace(SPACE, cost="latency", backend="torch", cut=(0.5, 0.8))
    with pytest.raises(CorankError, match=r"cut ends at 0.8, and .* leaves 0.84 of the latency. Choose"):
        tune(problem, tmp_path, OPTIONS, space, trials=1, progress=False)
    assert not list(tmp_path.glob("work/trial*"))


def test_workers_of_unlike_machines_share_a_search(problem, tmp_path, monkeypatch):
    monkeypatch.setattr(search, "Trainer", Pretended)
    storage = f"sqlite:///{tmp_path / 'a.db'}"
    terms = {"storage": storage, "progress": False}
    tune(problem, tmp_path / "a", OPTIONS, SPACE, trials=1, **terms)
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        result = tune(problem, tmp_path / "b", OPTIONS, SPACE, trials=2, **terms)
    finally:
        torch.set_num_threads(threads)
    assert len(result["trials"]) == 2


def test_a_storage_that_was_refused_does_not_spoil_the_folder(problem, tmp_path, monkeypatch):
    monkeypatch.setattr(search, "Trainer", Pretended)
    terms = {"storage": f"sqlite:///{tmp_path / 'a.db'}", "progress": False}
    tune(problem, tmp_path / "a", OPTIONS, SPACE, trials=1, **terms)
    with pytest.raises(FileError, match=r"options.multiple is 1 there and 2 here"):
        tune(problem, tmp_path / "b", replace(OPTIONS, multiple=2), SPACE, trials=1, **terms)
    assert len(tune(problem, tmp_path / "b", OPTIONS, SPACE, trials=2, **terms)["trials"]) == 2


def test_a_folder_of_any_name(problem, tmp_path, monkeypatch):
    monkeypatch.setattr(search, "Trainer", Pretended)
    out = tmp_path / "we?ird%20 #na me"
    tune(problem, out, OPTIONS, SPACE, trials=1, progress=False)
    assert (out / "tune.db").exists()
    assert [one.name for one in tmp_path.iterdir()] == [out.name]


@pytest.mark.parametrize(
    ("name", "said"), [("tune.db", "cannot be opened"), ("work/study.json", "is damaged")]
)
def test_a_damaged_folder_is_one_clear_error(problem, tmp_path, monkeypatch, name, said):
    monkeypatch.setattr(search, "Trainer", Pretended)
    tune(problem, tmp_path, OPTIONS, SPACE, trials=1, progress=False)
    (tmp_path / name).write_text("no longer what it was" * 100)
    with pytest.raises(FileError, match=f"{name}: {said} .*Choose another folder, or delete this one"):
        tune(problem, tmp_path, OPTIONS, SPACE, trials=2, progress=False)


def test_a_recipe_names_its_problem(problem, tmp_path, monkeypatch):
    monkeypatch.setattr(search, "Trainer", Pretended)
    named = {"data": "tests.cli.own:seeded", "keep": ("6",), "batch_size": 8}
    result = tune(problem, tmp_path, OPTIONS, SPACE, trials=2, named=named, progress=False)
    for number in result["front"]:
        found = read_recipe(tmp_path / "recipes" / f"{number}.toml")
        assert found.problem == named
        made = make_options(found.options, trained=False)
        assert made.learning_rate_before == result["trials"][number]["settings"]["learning_rate_before"]
        assert (made.shared, made.before_cut, made.after_cut) == (1, 1, 2)
