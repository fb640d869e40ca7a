"""The force in timm's training: its model, optimizer, schedule, loss, scaler and moving average.

timm imports torchvision. Run: python examples/trainers/with_timm.py
"""

from __future__ import annotations

import timm
import timm.loss
import timm.optim
import timm.scheduler
import timm.utils
import torch
from digits_problem import STRENGTH, batches, cut, make_data, report
from torch import nn

import corank


def fit(model: nn.Module, loader, epochs: int, rate: float, strength: float = 0.0) -> nn.Module:
    optimizer = timm.optim.create_optimizer_v2(model, opt="sgd", lr=rate, momentum=0.9, weight_decay=1e-4)
    scheduler = timm.scheduler.CosineLRScheduler(optimizer, t_initial=epochs)
    loss, average = timm.loss.LabelSmoothingCrossEntropy(0.1), timm.utils.ModelEmaV3(model, decay=0.9)
    scaler = timm.utils.NativeScaler(device="cpu")
    force = corank.ForceRegularizer(model, strength)  # of the model that trains, not of its average
    force.attach(optimizer)
    for epoch in range(epochs):
        model.train()
        for x, y in loader:
            scaler(loss(model(x), y), optimizer, clip_grad=1.0, parameters=model.parameters())
            optimizer.zero_grad()
            average.update(model)
        scheduler.step(epoch + 1)
    force.detach()
    return average.module


def main(epochs: int = 4) -> float:
    torch.manual_seed(0)
    train, final = make_data()
    model = timm.create_model("resnet10t", in_chans=1, num_classes=10)
    model = fit(model, batches(train), epochs, 0.05, STRENGTH)
    small = fit(cut(model, train), batches(train), max(epochs // 2, 1), 0.01)
    return report(model, small, final)


if __name__ == "__main__":
    main()
