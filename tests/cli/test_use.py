"""The command line as people meet it: help, examples, completion, quiet, JSON, and no colours."""

from __future__ import annotations

import importlib
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import corank
from corank import cli
from corank.benchmarks import comparison, timing
from corank.exporting import export
from corank.pilot import digits
from tests.cli import own
from tests.cli.running import corank as run
from tests.cli.test_bad_input import GOOD, OWN
from tests.pilot.sample import make_result

__all__ = ["run"]  # a fixture
pytest.importorskip("matplotlib", reason="the report comes with the extra `report`")
CORANK = str(Path(sys.executable).with_name("corank"))
NETWORK = """
import torch
from torch import nn


def make():
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 32, 3, padding=1, stride=2), nn.ReLU(), nn.Conv2d(32, 32, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 4)).eval()
"""


def _write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def _example(verb):
    help_ = cli.app.registered_commands
    (command,) = [one for one in help_ if one.callback.__name__ == verb]
    return re.search(r"Example: corank (.*)", command.callback.__doc__)[1]


def _prepare_report(folder):
    _write(folder / "demo" / "pilot.json", json.dumps(make_result(seeds=(0,))))


def _prepare_headroom(folder):
    pytest.importorskip("openvino", reason="the example is for OpenVINO, an extra")
    export(mynet().make(), torch.zeros(1, 3, 16, 16), folder / "model.onnx", dynamic_batch=False)


def _prepare_plan(folder):
    """Write a table in which every split takes less than half of its layer's time."""
    network, example = mynet().make(), torch.zeros(1, 3, 32, 32)
    _write(
        folder / "table.json",
        corank.latency_table(network, example, backend="torch", progress=False).to_json(),
    )


def _prepare_apply(folder):
    _write(folder / "mine.py", NETWORK.replace("make", "make_model"))
    network = mynet().make()
    made = corank.plan(network, corank.Budget(macs=0.5), example=torch.zeros(1, 3, 16, 16))
    _write(folder / "plan.json", made.to_json())
    save_file(network.state_dict(), folder / "model.safetensors")


def mynet():
    return importlib.import_module("mynet")


EXAMPLES = {  # what stands in the folder where a verb's example is run, and what is there afterwards
    "pilot": (lambda folder: None, "demo/report.html"),
    "report": (_prepare_report, "demo/report.html"),
    "gate": (_prepare_report, "demo/pilot.json"),
    "tune": (lambda folder: None, "tuned/tune.json"),
    "table": (lambda folder: None, "table.json"),
    "headroom": (_prepare_headroom, "model.onnx"),
    "plan": (_prepare_plan, "plan.json"),
    "compress": (lambda folder: None, "small.safetensors"),
    "apply": (_prepare_apply, "small.safetensors"),
    "sparsify": (_prepare_apply, "sparse.safetensors"),
}


SERVED = {"bundle", "serve", "rollout"}  # run one after another in tests/serving/test_command_line.py


def test_the_example_of_corank_itself_is_that_of_a_verb():
    verb, words = re.search(r"Example: corank (\w+) (.*)", cli.app.info.help).groups()
    assert _example(verb) == f"{verb} {words}"


def test_every_verb_has_an_example_that_is_run():
    assert {one.callback.__name__ for one in cli.app.registered_commands} == set(EXAMPLES) | SERVED


@pytest.mark.parametrize("verb", EXAMPLES)
def test_the_example_of_a_verb_runs(run, tmp_path, monkeypatch, verb):
    prepare, made = EXAMPLES[verb]
    _write(tmp_path / "mynet.py", NETWORK)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))  # where the times are kept
    for name in ("mynet", "mine"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    if verb not in ("pilot", "report", "gate", "tune"):
        pytest.importorskip("onnxscript", reason="files for ONNX Runtime come with the extra `onnx`")
        # everything runs once, and what comes first, the dense layer or network, takes longest
        for module in (timing, comparison):
            monkeypatch.setattr(module, "time_interleaved", _first_is_slowest)
    # the same command, with a network that takes a second instead of minutes
    monkeypatch.setattr(digits, "vgg", _small_vgg)
    prepare(tmp_path)
    code, out, err = run(*shlex.split(_example(verb)))
    assert code == (10 if verb == "gate" else 0), err  # 360 samples are too few to advance
    assert (tmp_path / made).exists()
    if verb == "headroom":
        assert "worth it" in out
    for name in ("mynet", "mine"):
        sys.modules.pop(name, None)


def _first_is_slowest(runners, rounds, **_):
    for one in runners.values():
        one()
    return {name: np.full(rounds, 4e-4 if at else 1e-3) for at, name in enumerate(runners)}


@pytest.mark.slow
def test_the_example_of_the_pilot_runs_as_it_stands(run, tmp_path):
    code, out, err = run(*shlex.split(_example("pilot")))
    assert code == 0, err
    assert "| Force + low rank" in out


def _small_vgg():
    from torch import nn

    layers = [nn.Conv2d(1, 64, 3, stride=4), nn.ReLU(), nn.Conv2d(64, 64, 3, stride=2), nn.ReLU()]
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    model.add_module("head", nn.Linear(64, 10))
    return model


def test_own_network_weights_and_recipe(run, tmp_path):
    save_file(own.net().state_dict(), tmp_path / "a.safetensors")
    recipe = [
        f'data = "{OWN}:TASK"',
        f'model = "{OWN}:net"',
        'weights = "a.safetensors"',
        'arms = ["dense", "lowrank", "force_plan"]',
        'keep = ["6"]',
        'backends = ["torch"]',
        "epochs = 8",
        "rounds = 4",
        "multiple = 1",
        "seeds = [3]",
        "[target]",
        "macs = 0.9",
    ]
    _write(tmp_path / "recipe.toml", "\n".join(recipe))
    words = ["pilot", "--out", "out", "--recipe", "recipe.toml", "--epochs", "2", "--json", "-q"]
    code, out, err = run(*words)
    assert (code, err) == (0, "")
    result = json.loads(out)
    assert [arm["name"] for arm in result["arms"]] == ["dense", "lowrank", "force_plan"]
    assert result["protocol"]["epochs"] == {"shared": 0, "before_cut": 1, "after_cut": 1, "total": 2}
    assert result["protocol"]["seeds"] == [3]
    assert result["identity"]["keep"] == ["6"]
    assert result == json.loads((tmp_path / "out" / "pilot.json").read_text())
    code, out, err = run(*words)  # done already: shown again, not run again
    assert json.loads(out) == result
    code, _, err = run(*words, "--strength", "0.1")
    assert code == 2
    assert "strength is 0.2 there and 0.1 here" in err


def test_a_finished_trial_is_replaced_when_asked(run, tmp_path):
    code, _, err = run("pilot", *GOOD, "--arms", "dense,lowrank,force")
    assert code == 0, err
    first = json.loads((tmp_path / "out" / "pilot.json").read_text())
    code, _, err = run("pilot", *GOOD, "--arms", "dense,lowrank", "--kind", "l1", "--again")
    assert code == 0, err
    second = json.loads((tmp_path / "out" / "pilot.json").read_text())
    for folder in ("models", "plans"):  # none is left of the arm that is not in the new one
        assert not [path for path in (tmp_path / "out" / folder).iterdir() if path.stem == "force"]
    assert (first["protocol"]["force"]["kind"], second["protocol"]["force"]["kind"]) == ("l2", "l1")


def _run(*words, **environment):
    return subprocess.run(
        [CORANK, *words], capture_output=True, text=True, check=False, env={**os.environ, **environment}
    )


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_offered(shell):
    done = _run("--show-completion", shell, _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1")
    assert done.returncode == 0, done.stderr
    assert "corank" in done.stdout


def test_help_loads_neither_torch_nor_numpy():
    code = (
        "import sys; sys.argv = ['corank', 'pilot', '--help']\nfrom corank.cli import main\ntry:\n main()\n"
    )
    heavy = "('torch', 'numpy', 'scipy', 'rich')"
    code += f"except SystemExit:\n print([one for one in {heavy} if one in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_without_a_terminal_there_are_no_colours():
    for words in (["--help"], ["pilot", "--help"], ["pilot"], ["report", "absent.json"]):
        done = _run(*words, NO_COLOR="1", FORCE_COLOR="")
        assert "\x1b" not in done.stdout + done.stderr
