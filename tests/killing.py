"""A training that is killed again and again, by SIGKILL, until it is done: run as a program of its own.

It forks, so that torch is imported once. Each child trains from the checkpoint on and is killed at a random
step, while a file is being renamed, or by its parent at a random moment.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from corank.recovery import finetune
from corank.regularizer import ForceRegularizer
from corank.strength import AutoStrength
from corank.training import Checkpoint

EPOCHS = 4


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Dropout(0.2),  # draws from the global generator
        nn.Conv2d(8, 8, 3),
        nn.Flatten(),
        nn.Linear(128, 3),
    )


class Noisy(TensorDataset):
    """Images with noise from the global generator, as augmentation draws it."""

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        image, label = super().__getitem__(index)
        return image + 0.1 * torch.randn_like(image), label


def loader() -> DataLoader[tuple[Tensor, ...]]:
    generator = torch.Generator().manual_seed(5)
    data = Noisy(torch.randn(48, 1, 8, 8, generator=generator), torch.arange(48) % 3)
    return DataLoader(data, batch_size=8, shuffle=True, generator=generator)


def train(path: Path | None, die_at: int = 0) -> tuple[nn.Module, list[float]]:
    """Train, from the checkpoint on; with `die_at` the process kills itself in its so many'th step."""
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1e-2, total_steps=EPOCHS * 6)
    force = ForceRegularizer(
        model, AutoStrength(steps=20, rank_ratio=0.5, every=3), kind="subspace", refresh=4
    )
    steps = 0

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        nonlocal steps
        steps += 1
        if steps == die_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return nn.functional.cross_entropy(model(batch[0]), batch[1])

    torch.manual_seed(7)
    done = finetune(
        model,
        loader(),
        epochs=EPOCHS,
        loss=loss,
        optimizer=optimizer,
        scheduler=scheduler,
        force=force,
        checkpoint=None if path is None else Checkpoint(path, every=2),
        progress=False,
    )
    return model, [epoch.loss for epoch in done]


def _child(path: Path, die_at: int, in_rename: bool) -> None:
    if in_rename:
        rename, left = Path.replace, [die_at]

        def replace(self: Path, target: Path) -> Path:
            left[0] -= 1
            if left[0] <= 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return rename(self, target)

        Path.replace = replace  # type: ignore[method-assign]
    train(path, 0 if in_rename else die_at)
    os._exit(0)


def main(folder: Path, seed: int, kills: int) -> None:
    """Kill so many times, then let it end, and print what came of it beside an undisturbed run."""
    torch.set_num_threads(1)
    draw, path = random.Random(seed), folder / "checkpoint.safetensors"
    wanted, losses = train(None)
    signals = []
    for number in range(kills):
        way = number % 3
        pid = os.fork()
        if pid == 0:
            _child(path, draw.randint(1, 5) if way < 2 else 0, in_rename=way == 1)
        if way == 2:
            time.sleep(draw.uniform(0.0, 0.1))
            os.kill(pid, signal.SIGKILL)
        signals.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    model, resumed = train(path)
    again, _ = train(path)  # a finished one is not trained again
    state, other, third = wanted.state_dict(), model.state_dict(), again.state_dict()
    equal = all(
        torch.equal(state[name], other[name]) and torch.equal(other[name], third[name]) for name in state
    )
    print(json.dumps({"equal": equal, "losses": losses == resumed, "killed": signals.count(-9)}))  # noqa: T201


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
