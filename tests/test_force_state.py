"""The state of a force on disk: exact, no pickle, and a clear error for what it is not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from corank.errors import CorankError, FileError
from corank.force_state import load_force, save_force
from corank.regularizer import ForceRegularizer
from corank.state_files import read_state, write_state
from corank.strength import AutoStrength


def make_force(seed: int) -> tuple[nn.Module, ForceRegularizer]:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten())
    auto = AutoStrength(steps=9, rank_ratio=0.5)
    return model, ForceRegularizer(model, auto, kind="output", refresh=2)


def test_round_trip(tmp_path: Path) -> None:
    model, force = make_force(0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    force.attach(optimizer)
    for _ in range(3):
        loss = model(torch.randn(2, 3, 6, 6)).pow(2).mean()
        loss.backward()
        force.observe_loss(loss)
        optimizer.step()
    path = save_force(force, tmp_path / "new" / "force.safetensors")
    _, other = make_force(1)
    load_force(other, path)
    torch.testing.assert_close(other.state_dict(), force.state_dict(), rtol=0, atol=0, equal_nan=True)


def test_before_training_there_is_a_state_as_well(tmp_path: Path) -> None:
    _, force = make_force(0)
    load_force(force, save_force(force, tmp_path / "force.safetensors"))
    assert force.state_dict()["steps"] == [0]


def test_other_files_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    _, force = make_force(0)
    save_file({"weight": torch.ones(2)}, tmp_path / "weights.safetensors")
    (tmp_path / "text.safetensors").write_text("no tensors at all, only text")
    for name in ("weights", "text", "missing"):
        with pytest.raises(FileError, match=f"{name}.safetensors: holds no state of a force"):
            load_force(force, tmp_path / f"{name}.safetensors")


def test_the_strides_come_back_too(tmp_path: Path) -> None:
    state = {
        "a": torch.randn(3, 4).mT,
        0: (torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last), None),
    }
    again = read_state(write_state(tmp_path / "state.safetensors", state))
    assert again["a"].stride() == state["a"].stride()
    assert again[0][0].stride() == state[0][0].stride()
    torch.testing.assert_close(again, state, rtol=0, atol=0)


def test_only_plain_values_and_tensors_are_written(tmp_path: Path) -> None:
    with pytest.raises(CorankError, match=r"state\.a: allowed in a checkpoint .* got a object"):
        write_state(tmp_path / "state.safetensors", {"a": object()})
    assert list(tmp_path.iterdir()) == []
