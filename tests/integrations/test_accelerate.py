"""The accelerate block: the plain loop's training, its state in checkpoints, nothing left behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from corank.regularizer import ForceRegularizer
from tests.integrations.training import (
    ACCUMULATE,
    CLIP,
    STRENGTH,
    assert_trained_alike,
    hooks_of,
    make_data,
    make_net,
    make_optimizer,
    make_sparsifier,
    zeros_of,
)

accelerate = pytest.importorskip("accelerate", reason="needs the extra `transformers`")


def make_accelerator(tmp_path: Path) -> Any:
    return accelerate.Accelerator(cpu=True, gradient_accumulation_steps=ACCUMULATE, project_dir=tmp_path)


def train(accelerator: Any, model: nn.Module, optimizer: Any, data: list) -> None:
    for x, y in data:
        with accelerator.accumulate(model):
            accelerator.backward(nn.functional.cross_entropy(model(x), y))
            if accelerator.sync_gradients:
                accelerator.clip_grad_norm_(model.parameters(), CLIP)
            optimizer.step()
            optimizer.zero_grad()


def test_it_trains_as_the_plain_loop(tmp_path: Path) -> None:
    from corank.integrations.accelerate import forced, log_force

    accelerator = make_accelerator(tmp_path)
    model = make_net()
    inner = make_optimizer(model)
    model, optimizer = accelerator.prepare(model, inner)
    logged: list[dict[str, float]] = []
    with forced(ForceRegularizer(model, STRENGTH, types=("linear",)), accelerator, optimizer) as force:
        train(accelerator, model, optimizer, make_data())
        accelerator.log = lambda values, step: logged.append(values)
        log_force(force, accelerator, 4)
    assert_trained_alike(model)
    assert hooks_of(inner) == []
    assert "force/effective_rank/2" in logged[0]


def test_its_state_is_in_the_checkpoint(tmp_path: Path) -> None:
    from corank.integrations.accelerate import forced

    def fresh() -> tuple[Any, nn.Module, Any, ForceRegularizer]:
        accelerator = make_accelerator(tmp_path)
        model = make_net()
        model, optimizer = accelerator.prepare(model, make_optimizer(model))
        return (
            accelerator,
            model,
            optimizer,
            ForceRegularizer(model, lambda step: 0.1 * step, types=("linear",)),
        )

    accelerator, model, optimizer, force = fresh()
    with forced(force, accelerator, optimizer):
        train(accelerator, model, optimizer, make_data()[:4])
        accelerator.save_state(str(tmp_path / "half"))
        train(accelerator, model, optimizer, make_data()[4:])
    assert (tmp_path / "half" / "force.safetensors").exists()
    accelerator, resumed, optimizer, force = fresh()
    with forced(force, accelerator, optimizer):
        accelerator.load_state(str(tmp_path / "half"))
        train(accelerator, resumed, optimizer, make_data()[4:])
    assert force.state_dict()["steps"] == [4]
    for a, b in zip(model.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_sparsifier_resumes_where_it_was(tmp_path: Path) -> None:
    from corank.integrations.accelerate import sparsified

    def fresh() -> tuple[Any, nn.Module, Any]:
        accelerator, model = make_accelerator(tmp_path), make_net()
        return accelerator, *accelerator.prepare(model, make_optimizer(model))

    accelerator, model, optimizer = fresh()
    with sparsified(make_sparsifier(model), accelerator, optimizer):
        train(accelerator, model, optimizer, make_data())
        accelerator.save_state(str(tmp_path / "half"))
        assert 0 < sum(zeros_of(model)) < 54
        train(accelerator, model, optimizer, make_data())
    assert sum(zeros_of(model)) == 54  # half of 72 + 36 weights
    accelerator, resumed, optimizer = fresh()
    with sparsified(make_sparsifier(resumed), accelerator, optimizer):
        accelerator.load_state(str(tmp_path / "half"))
        train(accelerator, resumed, optimizer, make_data())
    for a, b in zip(model.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)
