"""The force in the Trainer of Hugging Face. Run: python examples/trainers/with_transformers.py"""

from __future__ import annotations

import tempfile

import torch
import transformers
from digits_problem import STRENGTH, cut, make_data, make_net, report
from torch import Tensor, nn
from torch.utils.data import TensorDataset

import corank
from corank.integrations.transformers import ForceCallback


class Classifier(nn.Module):
    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, pixel_values: Tensor, labels: Tensor) -> dict[str, Tensor]:
        logits = self.net(pixel_values)
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


def fit(model: Classifier, data: TensorDataset, epochs: int, rate: float, callbacks=()) -> None:
    with tempfile.TemporaryDirectory() as folder:
        arguments = transformers.TrainingArguments(
            output_dir=folder,
            num_train_epochs=epochs,
            per_device_train_batch_size=64,
            optim="sgd",
            optim_args="momentum=0.9",
            learning_rate=rate,
            save_strategy="no",
            report_to=[],
            use_cpu=True,
            disable_tqdm=True,
        )
        samples = [{"pixel_values": x, "labels": y} for x, y in data]
        transformers.Trainer(model, arguments, train_dataset=samples, callbacks=list(callbacks)).train()


def main(epochs: int = 8) -> float:
    torch.manual_seed(0)
    train, final = make_data()
    model = Classifier(make_net())
    fit(model, train, epochs, 0.05, [ForceCallback(corank.ForceRegularizer(model, STRENGTH))])
    small = cut(model.net, train)
    fit(Classifier(small), train, max(epochs // 2, 1), 0.01)
    return report(model.net, small, final)


if __name__ == "__main__":
    main()
