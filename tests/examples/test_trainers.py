"""The examples under examples/trainers run: the force acts at every step, the small network learns."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
from torch import nn

import corank

EXAMPLES = Path(__file__).parents[2] / "examples" / "trainers"
NEEDS = {
    "plain": "sklearn",
    "with_lightning": "lightning",
    "with_transformers": "transformers",
    "with_accelerate": "accelerate",
    "with_timm": "torchvision",  # timm cannot be imported without it, and CI does not install it
}
BATCHES = 23  # of 64, in 1,437 digits

pytest.importorskip("sklearn", reason="the examples use the extra `digits`")


@pytest.fixture
def run(monkeypatch, capsys):
    """Return `name -> (what it printed, the steps of its force)`, run for two epochs."""
    monkeypatch.syspath_prepend(EXAMPLES)
    forces: list[corank.ForceRegularizer] = []

    class Noted(corank.ForceRegularizer):
        def __init__(self, model: nn.Module, strength: float) -> None:
            super().__init__(model, strength)
            forces.append(self)

    monkeypatch.setattr(corank, "ForceRegularizer", Noted)

    def example(name: str) -> tuple[str, Any]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # trainers warn about loggers, workers and devices
            __import__(name)
            sys.modules[name].main(epochs=2)
        return capsys.readouterr().out, forces[0].state_dict()["steps"]

    yield example
    for name in [*NEEDS, "digits_problem"]:
        sys.modules.pop(name, None)


def figures(text: str) -> dict[str, tuple[float, int]]:
    lines = re.findall(r"(\w+): accuracy ([\d.]+)%, (\d+) parameters", text)
    return {name: (float(accuracy), int(size)) for name, accuracy, size in lines}


@pytest.mark.parametrize("name", list(NEEDS))
def test_an_example_trains_cuts_and_trains_on(run, name):
    pytest.importorskip(NEEDS[name], reason=f"the example needs {NEEDS[name]}")
    text, steps = run(name)
    shown = figures(text)
    assert steps == [2 * BATCHES]
    assert shown["small"][1] < 0.7 * shown["dense"][1]
    assert shown["small"][0] > 50  # of ten digits


def test_accelerate_is_the_plain_loop(run):
    pytest.importorskip("accelerate", reason="needs the extra `transformers`")
    assert figures(run("with_accelerate")[0]) == figures(run("plain")[0])


@pytest.mark.parametrize("mode", [pytest.param("ddp", marks=pytest.mark.slow), "fsdp"])
def test_two_processes_from_force_to_evaluation(mode, tmp_path):
    ran = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"),
            *(EXAMPLES / "distributed.py", mode, tmp_path, "2"),
        ],
        capture_output=True,
        text=True,
        timeout=200,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert ran.returncode == 0, ran.stdout[-2000:] + ran.stderr[-4000:]
    shown = figures(ran.stdout)
    assert shown["small"][1] < 0.7 * shown["dense"][1]
    assert shown["small"][0] > 50
    assert len(list((tmp_path / "half").glob("*.distcp"))) == 2
    sys.path.insert(0, str(EXAMPLES))
    try:
        from digits_problem import accuracy, make_data, make_net
    finally:
        sys.path.remove(str(EXAMPLES))
    small = corank.load(tmp_path / "small.safetensors", make_net)
    assert accuracy(small, make_data()[1]) == pytest.approx(shown["small"][0] / 100, abs=6e-4)
    sys.modules.pop("digits_problem")
