"""The force in Lightning's Trainer. Run: python examples/trainers/with_lightning.py"""

from __future__ import annotations

import lightning.pytorch as lightning
import torch
from digits_problem import STRENGTH, batches, cut, make_data, make_net, report
from torch import Tensor, nn

import corank
from corank.integrations.lightning import ForceCallback


class Classifier(lightning.LightningModule):
    def __init__(self, net: nn.Module, rate: float) -> None:
        super().__init__()
        self.net, self.rate = net, rate

    def training_step(self, batch, index: int) -> Tensor:
        return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.net.parameters(), lr=self.rate, momentum=0.9)


def fit(model: Classifier, loader, epochs: int, callbacks=()) -> None:
    lightning.Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        gradient_clip_val=1.0,  # the force comes after it
        callbacks=list(callbacks),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    ).fit(model, loader)


def main(epochs: int = 8) -> float:
    train, final = make_data()
    model = Classifier(make_net(), 0.05)
    fit(model, batches(train), epochs, [ForceCallback(corank.ForceRegularizer(model, STRENGTH))])
    small = cut(model.net, train)
    fit(Classifier(small, 0.01), batches(train), max(epochs // 2, 1))
    return report(model.net, small, final)


if __name__ == "__main__":
    main()
