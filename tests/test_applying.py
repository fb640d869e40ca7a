from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file, save_model
from torch import nn

from corank.applying import apply_plan
from corank.calibration import calibrate
from corank.decomposition import decompose
from corank.errors import CorankError, FileError, LayerError
from corank.planning import plan
from corank.rules import Energy, Ranks
from corank.store import load, save
from corank.testing import awkward, networks

CORANK = str(Path(sys.executable).with_name("corank"))
IMAGE = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
ROWS = torch.randn(2, 8, generator=torch.Generator().manual_seed(0))


class _Small(nn.Module):
    """A split layer, a frozen one, batch norm, and a buffer that is in no file."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3).to(memory_format=torch.channels_last)
        self.norm = nn.BatchNorm2d(8)
        self.up = nn.ConvTranspose2d(8, 8, 2, stride=2, groups=2)
        self.head = nn.Linear(8, 4).requires_grad_(False)
        self.register_buffer("scale", torch.linspace(1, 2, 4), persistent=False)

    def forward(self, x):
        return self.head(self.up(self.norm(self.conv(x))).mean((2, 3))) * self.scale


CASES = {
    "small": (_Small, IMAGE, {"conv": 3, "up": 2, "head": 2}),
    "residual": (networks.Residual, IMAGE, {"body.*": 2}),
    "twice": (awkward.Twice, ROWS, {"first": 3}),
    "tied": (awkward.Tied, torch.zeros(2, 3, dtype=torch.long), None),
    "root": (lambda: nn.Linear(8, 6), ROWS, {"": 2}),
    "bfloat16": (lambda: nn.Sequential(nn.Linear(8, 6)).bfloat16(), ROWS.bfloat16(), {"0": 2}),
    "encoder": (awkward.encoder, torch.randn(2, 5, 16), None),
}


def _made(case):
    make, example, ranks = CASES[case]
    torch.manual_seed(3)
    model = make()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_()
    rules = Energy(0.5) if ranks is None else Ranks(ranks)
    return make, model, plan(model, rules, example=example)


def _saved(model, path):
    save_model(model, str(path))  # one of each tie, as checkpoints are
    return path


@pytest.mark.parametrize("case", CASES)
def test_it_writes_the_file_that_save_writes_after_decompose(tmp_path, case):
    make, model, made = _made(case)
    weights = _saved(model, tmp_path / "dense.safetensors")
    state = torch.random.get_rng_state()
    apply_plan(made, weights, tmp_path / "files.safetensors", make)
    assert torch.equal(torch.random.get_rng_state(), state)
    save(decompose(model, made), tmp_path / "memory.safetensors", reference=make, plan=made)
    one, two = (tmp_path / f"{name}.safetensors" for name in ("files", "memory"))
    assert one.read_bytes() == two.read_bytes()
    load(one, make)
    assert len(list(tmp_path.iterdir())) == 3


def test_weights_in_shards(tmp_path):
    make, model, made = _made("small")
    whole = model.state_dict()
    places = {name: f"part-{number % 3}.safetensors" for number, name in enumerate(whole)}
    for part in set(places.values()):
        save_file({name: whole[name].contiguous() for name in whole if places[name] == part}, tmp_path / part)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": places}))
    apply_plan(made, index, tmp_path / "small.safetensors", make)
    save(decompose(model, made), tmp_path / "memory.safetensors", reference=make, plan=made)
    assert (tmp_path / "small.safetensors").read_bytes() == (tmp_path / "memory.safetensors").read_bytes()
    (tmp_path / "part-1.safetensors").unlink()
    with pytest.raises(FileError, match=r"part-1.safetensors: there is no file"):
        apply_plan(made, index, tmp_path / "again.safetensors", make)
    index.write_text(json.dumps({"weight_map": {"conv.weight": "../part-0.safetensors"}}))
    with pytest.raises(FileError, match="shards lie beside their index"):
        apply_plan(made, index, tmp_path / "again.safetensors", make)
    index.write_text("[]")
    with pytest.raises(FileError, match="no index of safetensors files"):
        apply_plan(made, index, tmp_path / "again.safetensors", make)


def _without(state):
    del state["norm.running_var"]


def _another_shape(state):
    state["conv.weight"] = torch.ones(8, 3, 5, 5)


def _one_more(state):
    state["extra"] = torch.ones(1)


def _whole_numbers(state):
    state["head.weight"] = torch.ones(4, 8, dtype=torch.int64)


def _not_finite(state):
    state["up.weight"] = torch.full_like(state["up.weight"], float("nan"))


@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        (_without, FileError, "norm.running_var is not in the file"),
        (_another_shape, FileError, r"conv.weight is \(8, 3, 5, 5\) in the file, \(8, 3, 3, 3\)"),
        (_one_more, FileError, "the network has no 'extra'"),
        (_whole_numbers, FileError, "head.weight is torch.int64 in the file"),
        (_not_finite, LayerError, "up: its weight has NaN"),
    ],
)
def test_weights_that_do_not_fit_are_refused_by_name_and_nothing_is_written(tmp_path, damage, error, message):
    make, model, made = _made("small")
    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    damage(state)
    save_file(state, tmp_path / "dense.safetensors")
    with pytest.raises(error, match=message):
        apply_plan(made, tmp_path / "dense.safetensors", tmp_path / "small.safetensors", make)
    assert [one.name for one in tmp_path.iterdir()] == ["dense.safetensors"]


def test_files_that_are_no_weights(tmp_path):
    make, model, made = _made("small")
    torch.save(model.state_dict(), tmp_path / "dense.pt")
    with pytest.raises(FileError, match=r"dense.pt: it looks like a pickle"):
        apply_plan(made, tmp_path / "dense.pt", tmp_path / "small.safetensors", make)
    (tmp_path / "short.safetensors").write_bytes(b"\x08" + bytes(7) + b"{}")
    with pytest.raises(FileError, match=r"short.safetensors: it is no safetensors file"):
        apply_plan(made, tmp_path / "short.safetensors", tmp_path / "small.safetensors", make)
    assert not (tmp_path / "small.safetensors").exists()


def test_plans_that_do_not_fit(tmp_path):
    make, model, made = _made("small")
    weights = _saved(model, tmp_path / "dense.safetensors")
    out = tmp_path / "small.safetensors"
    with pytest.raises(LayerError, match="matches no weighted layer"):
        apply_plan(made, weights, out, networks.Residual)
    outputs = plan(model, Energy(0.5), example=IMAGE, stats=calibrate(model, [IMAGE]))
    with pytest.raises(CorankError, match=r"use corank.decompose with the statistics"):
        apply_plan(outputs, weights, out, make)
    assert not out.exists()


def test_the_command_line_writes_the_same_file(tmp_path):
    torch.manual_seed(0)
    (tmp_path / "mine.py").write_text(
        "from torch import nn\ndef make():\n    return nn.Sequential(nn.Linear(8, 6))\n"
    )
    model = nn.Sequential(nn.Linear(8, 6))
    made = plan(model, Ranks({"0": 2}), example=ROWS)
    (tmp_path / "plan.json").write_text(made.to_json())
    _saved(model, tmp_path / "dense.safetensors")
    words = ["apply", "plan.json", "dense.safetensors", "--out", "small.safetensors", "--model"]

    def run(name):
        return subprocess.run([CORANK, *words, name], cwd=tmp_path, capture_output=True, text=True)

    done = run("mine:make")
    assert done.returncode == 0, done.stderr
    small = load(tmp_path / "small.safetensors", lambda: nn.Sequential(nn.Linear(8, 6)))
    assert torch.equal(small(ROWS), decompose(model, made)(ROWS))
    (tmp_path / "small.safetensors").unlink()
    for name, message in (("mine", "package.module:factory"), ("mine:absent", "has no 'absent'")):
        refused = run(name)
        assert (refused.returncode, len(refused.stderr.splitlines())) == (2, 1)
        assert message in refused.stderr
        assert not (tmp_path / "small.safetensors").exists()


_APPLY = """
import resource, sys
import torch
from torch import nn
from corank import Plan
from corank.applying import apply_plan
from corank.store import load

def make():
    return nn.Sequential(*(nn.Linear(2048, 2048, bias=False) for _ in range(96)))

before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
made = Plan.from_json(open("plan.json").read())
apply_plan(made, "dense.safetensors", "small.safetensors", make)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""


@pytest.mark.slow
def test_a_large_model_never_is_in_memory_as_a_whole(tmp_path):
    """Of 1.6 GB in 96 layers, a fresh process takes one layer's work, and hardly more than its file."""
    one = plan(
        nn.Sequential(nn.Linear(2048, 2048, bias=False)), Ranks({"0": 64}), example=torch.ones(1, 2048)
    )
    choice = one.layers["0"]
    many = type(one)({str(i): choice for i in range(0, 96, 24)}, {}, before=one.before, after=one.after)
    (tmp_path / "plan.json").write_text(many.to_json())
    weight = torch.randn(2048, 2048)
    save_file({f"{i}.weight": weight + i for i in range(96)}, tmp_path / "dense.safetensors")
    done = subprocess.run(
        [sys.executable, "-c", _APPLY], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 400 * 2**20, done.stdout
