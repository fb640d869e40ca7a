"""The force in a loop that accelerate drives. Run: accelerate launch examples/trainers/with_accelerate.py"""

from __future__ import annotations

from contextlib import nullcontext

import accelerate
import torch
from digits_problem import STRENGTH, batches, cut, make_data, make_net, report
from torch import nn

import corank
from corank.integrations.accelerate import forced


def fit(accelerator, model: nn.Module, loader, epochs: int, rate: float, strength: float | None = None):
    optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9)
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    force = None if strength is None else corank.ForceRegularizer(model, strength)
    with nullcontext() if force is None else forced(force, accelerator, optimizer):
        for _ in range(epochs):
            for x, y in loader:
                with accelerator.accumulate(model):
                    accelerator.backward(nn.functional.cross_entropy(model(x), y))
                    optimizer.step()
                    optimizer.zero_grad()
    return accelerator.unwrap_model(model)


def main(epochs: int = 8) -> float:
    accelerator = accelerate.Accelerator(cpu=True)
    train, final = make_data()
    model = fit(accelerator, make_net(), batches(train), epochs, 0.05, STRENGTH)
    small = fit(accelerator, cut(model, train), batches(train), max(epochs // 2, 1), 0.01)
    return report(model, small, final)


if __name__ == "__main__":
    main()
