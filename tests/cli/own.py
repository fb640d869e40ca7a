"""A user's own project: networks and tasks, and everything that can be wrong with them."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import corank

EXAMPLE = torch.zeros(4, 1, 8, 8)
LIMIT = 10**9  # steps until the loss breaks
BREAK = float("nan")
steps = 0


def net() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1, stride=2),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, padding=1, stride=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(0.1),
        nn.Linear(64, 3),
    )


class Named(nn.Module):
    """Takes its input by name."""

    def __init__(self) -> None:
        super().__init__()
        self.net = net()

    def forward(self, pixels, scale=None):
        return self.net(pixels if scale is None else pixels * scale)


INSTANCE = net()
NUMBER = 3


def failing() -> nn.Module:
    raise RuntimeError("no such\nfile")


def nothing() -> None:
    return None


def wants_argument(width: int) -> nn.Module:
    return nn.Linear(width, 3)


def without_convolutions() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.ReLU())


def parts(count=60, shift=0.0):
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(2 * count, 1, 8, 8, generator=generator), torch.arange(2 * count) % 3
    x += y[:, None, None, None] * 0.5 + shift
    quarter = count // 2
    return [
        TensorDataset(x[a:b], y[a:b])
        for a, b in ((0, count), (count, count + quarter), (count + quarter, 2 * count))
    ]


def make(train, dev, final, **changes):
    loaders = DataLoader(train, 16, shuffle=True), DataLoader(dev, 16), DataLoader(final, 16)
    return replace(corank.classification(*loaders, example=EXAMPLE), **changes)


TASK = make(*parts())


def seeded(seed):
    return make(*parts())


def failing_task(seed):
    raise ValueError("no data here")


def no_task(seed):
    return "a task"


def without_seed():
    return TASK


def one_class(seed):
    train, dev, final = parts()
    return make(TensorDataset(train.tensors[0], torch.zeros(60).long()), dev, final)


def no_train(seed):
    return replace(make(*parts()), train=[])


def no_dev(seed):
    return replace(make(*parts()), dev=[])


def nan_images(seed):
    train, dev, final = parts()
    dev.tensors[0][5, 0, 0, 0] = float("nan")
    return make(train, dev, final)


def nan_train(seed):
    train, dev, final = parts()
    train.tensors[0][5, 0, 0, 0] = float("inf")
    return replace(make(train, dev, final), train=DataLoader(train, 16))


def high_label(seed):
    train, dev, final = parts()
    final.tensors[1][3] = 7
    return make(train, dev, final)


def negative_label(seed):
    train, dev, final = parts()
    train.tensors[1][3] = -1
    return make(train, dev, final)


def float_labels(seed):
    train, dev, final = parts()
    return make(TensorDataset(train.tensors[0], train.tensors[1].float()), dev, final)


def overlapping(seed):
    train, dev, final = parts()
    final.tensors[0][2] = dev.tensors[0][4]
    return make(train, dev, final)


def trained_on_final(seed):
    train, dev, final = parts()
    train.tensors[0][7] = final.tensors[0][3]
    return replace(make(train, dev, final), train=DataLoader(train, 16))


def trained_on_dev(seed):
    train, dev, final = parts()
    return make(torch.utils.data.ConcatDataset([train, dev]), dev, final)


def split_by_seed(seed):
    train, dev, final = parts()
    order = torch.randperm(60, generator=torch.Generator().manual_seed(seed))
    x, y = (torch.cat([a, b])[order] for a, b in zip(dev.tensors, final.tensors, strict=True))
    return make(train, TensorDataset(x[:30], y[:30]), TensorDataset(x[30:], y[30:]))


def split_by_chance(seed):
    whole = torch.utils.data.ConcatDataset(parts())
    return make(*torch.utils.data.random_split(whole, [60, 30, 30]))


def wrong_example(seed):
    return make(*parts(), example=torch.zeros(4, 3, 8, 8))


def odd_batches(seed):
    return replace(make(*parts()), train=[torch.ones(4, 1, 8, 8)])


class Broken:
    def __iter__(self):
        raise OSError("the disk is gone")


def broken_loader(seed):
    return replace(make(*parts()), dev=Broken())


def vector_loss(seed):
    return make(*parts(), loss=lambda model, batch: model(batch[0]))


def failing_loss(seed):
    return make(*parts(), loss=lambda model, batch: batch["labels"])


def nan_loss(seed):
    return make(*parts(), loss=lambda model, batch: model(batch[0]).sum() * float("nan"))


def no_metrics(seed):
    return make(*parts(), evaluate=lambda model, loader: {})


def bare_metric(seed):
    return make(*parts(), evaluate=lambda model, loader: {"accuracy": 0.9})


def failing_metric(seed):
    return make(*parts(), evaluate=lambda model, loader: 1 / 0)


def breaking_loss(model, batch):
    """Cross-entropy that breaks after `LIMIT` steps, as `BREAK` says."""
    global steps
    steps += 1
    value = nn.functional.cross_entropy(model(batch[0]), batch[1])
    if steps <= LIMIT:
        return value
    if isinstance(BREAK, BaseException):
        raise BREAK
    return value * BREAK


def breaking(seed):
    return make(*parts(), loss=breaking_loss)


def regression_metrics(model, loader):
    """Two metrics of which lower and higher are better, from inputs by name."""
    model.eval()
    errors, hits = [], []
    with torch.no_grad():
        for batch in loader:
            logits = model(batch["pixels"])
            errors.append(nn.functional.cross_entropy(logits, batch["label"], reduction="none"))
            hits.append((logits.argmax(1) == batch["label"]).float())
    errors, hits = torch.cat(errors), torch.cat(hits)
    return {
        "log_loss": corank.Metric(errors.mean().item(), higher_is_better=False, per_sample=errors),
        "accuracy": corank.Metric(hits.mean().item(), per_sample=hits),
        "worst": corank.Metric(errors.max().item(), higher_is_better=False),
    }


def named(seed):
    """Batches that are dicts, inputs by name, three metrics."""

    def loader(data, shuffle=False):
        def collate(rows):
            return {"pixels": torch.stack([x for x, _ in rows]), "label": torch.stack([y for _, y in rows])}

        return DataLoader(data, 16, shuffle=shuffle, collate_fn=collate)

    train, dev, final = parts()
    return corank.Task(
        train=loader(train, shuffle=True),
        dev=loader(dev),
        final=loader(final),
        loss=lambda model, batch: nn.functional.cross_entropy(model(batch["pixels"]), batch["label"]),
        evaluate=regression_metrics,
        example={"pixels": EXAMPLE},
    )


def shifted_parts():
    return DataLoader(parts(shift=0.5)[0], 16)


def pictured(seed, fold=None, folds=None):
    """Images whose scale is known, with a slice; train and dev can be split again."""
    train, dev, final = parts()
    slices = {"early": [True] * 10 + [False] * 20}
    if fold is not None:
        x, y = (torch.cat([a, b]) for a, b in zip(train.tensors, dev.tensors, strict=True))
        held = torch.arange(len(y)) % folds == fold
        train, final, slices = TensorDataset(x[~held], y[~held]), TensorDataset(x[held], y[held]), None
    return make(train, dev, final, pixels=corank.Pixels((0.5,), (0.25,)), slices=slices)


def wrong_slices(seed):
    return make(*parts(), slices={"early": [True] * 10})


def odd_slices(seed):
    return make(*parts(), slices={"early": [0.5] * 30})
