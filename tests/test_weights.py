"""Trained weights from a file: they fit and are loaded, or the first few misfits are named."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import corank
from corank.errors import FileError
from corank.weights import file_digest, load_weights


def make():
    return nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.Flatten(), nn.Linear(16, 4))


def _equal(one, two):
    return all(
        torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True)
    )


def test_weights_are_loaded_and_told_apart(tmp_path):
    model, path = make(), tmp_path / "a.safetensors"
    save_file(model.state_dict(), path)
    loaded = load_weights(make, path)
    assert _equal(loaded, model)
    assert not loaded.training
    other = tmp_path / "b.safetensors"
    save_file(make().state_dict(), other)
    assert file_digest(path) != file_digest(other)


def test_names_of_wrappers_and_old_files_without_counters_fit(tmp_path):
    model, path = make(), tmp_path / "a.safetensors"
    weights = {f"module.{n}": w for n, w in model.state_dict().items() if "num_batches" not in n}
    save_file(weights, path)
    assert _equal(load_weights(make, path), model)


def test_a_decomposed_network_comes_back_as_it_is(tmp_path):
    model, path = make(), tmp_path / "a.safetensors"
    plan = corank.plan(model, corank.Ranks({"0": 4}), example=torch.ones(1, 3, 3, 3))
    small = corank.decompose(model, plan).eval()
    corank.save(small, path, reference=make, plan=plan)
    assert _equal(load_weights(make, path), small)


def test_a_pickle_is_never_loaded_and_the_advice_works(tmp_path):
    model, path = make(), tmp_path / "a b.pth"
    torch.save({"state_dict": model.state_dict()}, path)
    with pytest.raises(FileError, match="Convert it once") as raised:
        load_weights(make, path)
    (code,) = re.findall(r"python -c (.*)$", str(raised.value))
    done = subprocess.run(
        f"{sys.executable} -c {code}", shell=True, capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert _equal(load_weights(make, tmp_path / "a b.safetensors"), model)
    assert "weights_only=True" in code


def test_only_the_first_misfits_are_listed(tmp_path):
    path = tmp_path / "a.safetensors"
    save_file({f"x{i}": torch.ones(1) for i in range(9)}, path)
    message = "0.weight is not in the file; 0.bias is not in the file; .*, and 14 more"
    with pytest.raises(FileError, match=message):
        load_weights(make, path)
