"""`corank sparsify` on files: dense and decomposed, and everything that can be wrong."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

import corank as library
from tests.cli import own
from tests.cli.running import corank

__all__ = ["corank"]  # a fixture
MODEL = ["--model", "tests.cli.own:net"]
OUT = ["--out", "out.safetensors"]


@pytest.fixture
def weights(tmp_path):
    net = own.net()
    save_file(net.state_dict(), tmp_path / "net.safetensors")
    plan = library.plan(net, library.Budget(macs=0.7), example=own.EXAMPLE)
    small = library.decompose(net, plan)
    library.save(small, tmp_path / "small.safetensors", reference=own.net, plan=plan)
    return tmp_path


@pytest.mark.parametrize("file", ["net.safetensors", "small.safetensors"])
def test_every_kind_in_one_call_and_the_plan_is_kept(corank, weights, file):
    pytest.importorskip("torch_pruning", reason="channels come with the extra `prune`")
    words = ["--channels", "0.3", "--multiple", "4", "--shape", "2,1,8,8", "--semi-structured"]
    code, out, err = corank("sparsify", weights / file, *MODEL, *OUT, *words, "--unstructured", "0.7")
    assert code == 0, err
    assert "zipped" in out
    thin = library.load(weights / "out.safetensors", own.net)
    assert library.count_zeros(thin).share == pytest.approx(0.7, abs=0.01)
    assert thin(torch.zeros(3, 1, 8, 8)).shape == (3, 3)
    plan = library.store.read_plan(weights / "out.safetensors")
    assert (plan is not None) == (file == "small.safetensors")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "give --unstructured 0.8, --semi-structured or --channels 0.3"),
        (["--unstructured", "80"], "sparsity is a fraction in [0, 1), got 80"),
        (["--unstructured", "0.5", "--scope", "all"], "scope is 'global' or 'layer', got 'all'"),
        (["--channels", "0.5"], "shape: give the shape of each input"),
        (["--unstructured", "0.5", "--include", "conv9"], "'conv9' matches no weighted layer"),
        (["--semi-structured", "--include", "0"], "0: SemiStructured includes it, but it cannot be used"),
    ],
)
def test_an_error_is_one_line_and_exit_code_2_and_leaves_nothing(corank, weights, words, message):
    code, _, err = corank("sparsify", weights / "net.safetensors", *MODEL, *OUT, *words)
    assert code == 2
    assert message in err
    assert len(err.strip().splitlines()) == 1
    assert not (weights / "out.safetensors").exists()
