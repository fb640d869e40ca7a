"""The Hugging Face callback: the plain loop's training, its state in checkpoints, nothing left behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from corank.errors import FileError
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

transformers = pytest.importorskip("transformers", reason="needs the extra `transformers`")

pytestmark = pytest.mark.filterwarnings("ignore")  # the Trainer warns about devices and pinned memory


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = make_net()

    def forward(self, x: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        logits = self.net(x)
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


def make_trainer(
    tmp_path: Path, model: Model, strength: Any, epochs: int = 1, callback: Any = None
) -> tuple[Any, Any]:
    from corank.integrations.transformers import ForceCallback

    samples = [{"x": x[i], "labels": y[i]} for x, y in make_data() for i in range(len(x))]
    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path),
        per_device_train_batch_size=4,
        gradient_accumulation_steps=ACCUMULATE,
        max_grad_norm=CLIP,
        num_train_epochs=epochs,
        logging_steps=2,
        save_strategy="epoch",
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
        train_sampling_strategy="sequential",
    )
    optimizer = make_optimizer(model)
    constant = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
    callback = callback or ForceCallback(ForceRegularizer(model, strength, types=("linear",)))
    trainer = transformers.Trainer(
        model, arguments, train_dataset=samples, optimizers=(optimizer, constant), callbacks=[callback]
    )
    return trainer, optimizer


def test_it_trains_as_the_plain_loop(tmp_path: Path) -> None:
    model = Model()
    trainer, optimizer = make_trainer(tmp_path, model, STRENGTH)
    trainer.train()
    assert_trained_alike(model.net)
    assert hooks_of(optimizer) == []
    assert any("force/rank/net.0" in row for row in trainer.state.log_history)


def test_its_state_is_in_the_checkpoint(tmp_path: Path) -> None:
    def schedule(step: int) -> float:
        return 0.1 * step

    straight = Model()
    make_trainer(tmp_path / "straight", straight, schedule, epochs=2)[0].train()
    half = Model()
    make_trainer(tmp_path, half, schedule, epochs=1)[0].train()
    checkpoint = next(tmp_path.glob("checkpoint-*"))
    assert (checkpoint / "force.safetensors").exists()
    resumed = Model()
    make_trainer(tmp_path, resumed, schedule, epochs=2)[0].train(resume_from_checkpoint=str(checkpoint))
    for a, b in zip(straight.parameters(), resumed.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-8)


def test_a_checkpoint_elsewhere_is_named_or_the_training_is_refused(tmp_path: Path) -> None:
    from corank.integrations.transformers import ForceCallback

    make_trainer(tmp_path / "a", Model(), STRENGTH)[0].train()
    checkpoint = next((tmp_path / "a").glob("checkpoint-*"))

    def go_on(folder: str, resume_from: Path | None) -> ForceRegularizer:
        model = Model()
        force = ForceRegularizer(model, STRENGTH, types=("linear",))
        callback = ForceCallback(force, resume_from)
        trainer, _ = make_trainer(tmp_path / folder, model, STRENGTH, 2, callback)
        trainer.train(resume_from_checkpoint=str(checkpoint))
        return force

    with pytest.raises(FileError, match=r"Give the callback the checkpoint as resume_from="):
        go_on("b", None)
    steps = go_on("c", checkpoint).state_dict()["steps"]
    assert steps == [2 * len(make_data()) // ACCUMULATE]


def test_a_second_training_begins_the_schedule_again(tmp_path: Path) -> None:
    asked: list[int] = []

    def schedule(step: int) -> float:
        asked.append(step)
        return 0.0

    trainer, _ = make_trainer(tmp_path, Model(), schedule)
    trainer.train()
    first = set(asked)
    asked.clear()
    trainer.train()
    assert set(asked) == first
    assert 0 in first


@pytest.mark.parametrize("sparse", [False, True])
def test_a_training_that_failed_can_be_begun_again(tmp_path: Path, sparse: bool) -> None:
    from corank.integrations.transformers import SparsifierCallback

    class Failing(Model):
        fails = True

        def forward(self, x: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
            if self.fails:
                raise RuntimeError("no")
            return super().forward(x, labels)

    model = Failing()
    callback = SparsifierCallback(make_sparsifier(model)) if sparse else None
    trainer, optimizer = make_trainer(tmp_path, model, STRENGTH, callback=callback)
    with pytest.raises(RuntimeError, match="no"):
        trainer.train()
    model.fails = False
    trainer.train()
    assert hooks_of(optimizer) == []


def test_a_sparsifier_resumes_where_it_was(tmp_path: Path) -> None:
    from corank.integrations.transformers import SparsifierCallback

    def train(folder: Path, epochs: int, resume: Path | None = None) -> nn.Sequential:
        model = Model()
        callback = SparsifierCallback(make_sparsifier(model))
        trainer, optimizer = make_trainer(folder, model, 0.0, epochs, callback)
        trainer.train(resume_from_checkpoint=str(resume) if resume else None)
        assert hooks_of(optimizer) == []
        return model.net

    straight = train(tmp_path / "straight", 2)
    assert sum(zeros_of(straight)) == 54  # half of 72 + 36 weights
    assert 0 < sum(zeros_of(train(tmp_path, 1))) < 54
    resumed = train(tmp_path, 2, next(tmp_path.glob("checkpoint-*")))
    for a, b in zip(straight.parameters(), resumed.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-8)
    assert zeros_of(resumed) == zeros_of(straight)
