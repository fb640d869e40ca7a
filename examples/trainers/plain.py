"""The force in a loop of your own. Run: python examples/trainers/plain.py"""

from __future__ import annotations

import torch
from digits_problem import STRENGTH, batches, cut, make_data, make_net, report
from torch import nn

import corank


def fit(model: nn.Module, loader, epochs: int, rate: float, strength: float = 0.0) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9)
    force = corank.ForceRegularizer(model, strength)
    force.attach(optimizer)  # strength 0 changes no bit of the training
    model.train()
    for _ in range(epochs):
        for x, y in loader:
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
            optimizer.zero_grad()
    force.detach()


def main(epochs: int = 8) -> float:
    train, final = make_data()
    model = make_net()
    fit(model, batches(train), epochs, 0.05, STRENGTH)
    small = cut(model, train)
    fit(small, batches(train), max(epochs // 2, 1), 0.01)
    return report(model, small, final)


if __name__ == "__main__":
    main()
