"""The Lightning callback: the plain loop's training, its state in checkpoints, nothing left behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from corank.errors import CorankError
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

lightning = pytest.importorskip("lightning.pytorch", reason="needs the extra `lightning`")

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning warns about workers, loggers and devices


class Noted(lightning.loggers.Logger):
    """Keep what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[int, dict[str, float]]] = []

    name, version = "noted", 0

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        pass

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.seen.append((step or 0, dict(metrics)))


class Module(lightning.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.net = make_net()

    def training_step(self, batch: Any, index: int) -> torch.Tensor:
        return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return make_optimizer(self.net)


def make_trainer(tmp_path: Path, callback: Any, **options: Any) -> Any:
    return lightning.Trainer(
        accelerator="cpu",
        default_root_dir=tmp_path,
        callbacks=[callback],
        accumulate_grad_batches=ACCUMULATE,
        gradient_clip_val=CLIP,
        enable_progress_bar=False,
        enable_model_summary=False,
        **{"max_epochs": 1, "enable_checkpointing": False, "logger": False, **options},
    )


def loader() -> DataLoader:
    return DataLoader(make_data(), batch_size=None)  # type: ignore[arg-type]


def test_it_trains_as_the_plain_loop(tmp_path: Path) -> None:
    from corank.integrations.lightning import ForceCallback

    module = Module()
    force = ForceRegularizer(module, STRENGTH, types=("linear",))
    noted = Noted()
    trainer = make_trainer(tmp_path, ForceCallback(force, log_every=1), logger=noted)
    trainer.fit(module, loader())
    assert_trained_alike(module.net)
    assert hooks_of(trainer.optimizers[0]) == []
    steps = len(make_data()) // ACCUMULATE
    mine = [(step, values) for step, values in noted.seen if "force/rank/net.0" in values]
    assert [step for step, _ in mine] == list(range(1, steps + 1))  # once a step, however many batches it has
    assert "force/cosine/net.2" in mine[-1][1]
    assert force.state_dict()["steps"] == [steps]


def test_the_loss_that_the_force_sees_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from corank.integrations.lightning import ForceCallback

    module, own, seen = Module(), [], []
    force = ForceRegularizer(module, STRENGTH, types=("linear",))
    monkeypatch.setattr(force, "observe_loss", lambda loss: seen.append(float(loss)))
    step = module.training_step

    def noting(batch: Any, batch_idx: int) -> torch.Tensor:
        own.append(step(batch, batch_idx))
        return own[-1]

    module.training_step = noting  # type: ignore[method-assign]
    make_trainer(tmp_path, ForceCallback(force)).fit(module, loader())
    assert seen == pytest.approx([float(one) for one in own])


def test_a_second_fit_begins_the_schedule_again(tmp_path: Path) -> None:
    from corank.integrations.lightning import ForceCallback

    asked: list[int] = []

    def schedule(step: int) -> float:
        asked.append(step)
        return 0.0

    module = Module()
    callback = ForceCallback(ForceRegularizer(module, schedule, types=("linear",)))
    make_trainer(tmp_path, callback).fit(module, loader())
    first = set(asked)
    asked.clear()
    make_trainer(tmp_path, callback).fit(module, loader())
    assert set(asked) == first
    assert 0 in first


def test_log_every_is_a_number_of_steps() -> None:
    from corank.integrations.lightning import ForceCallback

    with pytest.raises(CorankError, match="log_every is a whole number from 1, got 0"):
        ForceCallback(ForceRegularizer(Module(), STRENGTH, types=("linear",)), log_every=0)


def test_its_state_is_in_the_checkpoint(tmp_path: Path) -> None:
    from corank.integrations.lightning import ForceCallback

    def schedule(step: int) -> float:
        return 0.1 * step

    def fit(epochs: int, resume: Path | None) -> tuple[Module, Any]:
        module = Module()
        callback = ForceCallback(ForceRegularizer(module, schedule, types=("linear",)))
        trainer = make_trainer(tmp_path, callback, max_epochs=epochs)
        trainer.fit(module, loader(), ckpt_path=resume)
        return module, trainer

    straight, _ = fit(2, None)
    _, trainer = fit(1, None)
    trainer.save_checkpoint(tmp_path / "half.ckpt")
    resumed, _ = fit(2, tmp_path / "half.ckpt")
    for a, b in zip(straight.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)


def test_an_exception_detaches(tmp_path: Path) -> None:
    from corank.integrations.lightning import ForceCallback

    module = Module()
    callback = ForceCallback(ForceRegularizer(module, STRENGTH, types=("linear",)))
    trainer = make_trainer(tmp_path, callback)
    module.on_train_batch_start = lambda batch, index: 1 / 0  # type: ignore[method-assign]
    with pytest.raises(ZeroDivisionError):
        trainer.fit(module, loader())
    assert hooks_of(trainer.optimizers[0]) == []


def test_a_sparsifier_resumes_where_it_was(tmp_path: Path) -> None:
    from corank.integrations.lightning import SparsifierCallback

    def fit(epochs: int, resume: Path | None) -> tuple[Module, Any]:
        module = Module()
        trainer = make_trainer(tmp_path, SparsifierCallback(make_sparsifier(module)), max_epochs=epochs)
        trainer.fit(module, loader(), ckpt_path=resume)
        return module, trainer

    straight, trainer = fit(2, None)
    assert sum(zeros_of(straight.net)) == 54  # half of 72 + 36 weights
    assert hooks_of(trainer.optimizers[0]) == []
    half, trainer = fit(1, None)
    assert 0 < sum(zeros_of(half.net)) < 54
    trainer.save_checkpoint(tmp_path / "half.ckpt")
    resumed, _ = fit(2, tmp_path / "half.ckpt")
    for a, b in zip(straight.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)
