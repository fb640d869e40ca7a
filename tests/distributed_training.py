"""Run by test_distributed.py under torchrun: two processes must train a network as one process does."""

from __future__ import annotations

import logging
import math
import os
import sys

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from corank.regularizer import ForceRegularizer
from corank.strength import Adaptive, AutoStrength

STEPS = 4
RUNS = {
    "l2": {"strength": 0.3},
    "l2-float32": {"strength": 0.3},
    "l2-sum-repel": {"strength": 0.03, "scale": "sum", "direction": "repel"},
    "l1": {"strength": 0.3, "kind": "l1"},
    "axis": {"strength": 0.3, "kind": "axis"},
    "subspace": {"strength": 0.3, "kind": "subspace", "refresh": 2},
    "output": {"strength": 0.3, "kind": "output", "refresh": 2, "types": ("conv", "linear")},
    "adaptive": {"strength": Adaptive(0.3, ceiling=1.0)},
    "against": {"strength": 0.3, "against_gradient": "zero"},
    "auto": {"strength": AutoStrength(steps=4, rank_ratio=0.3, every=2, start=0.1, ceiling=1.0, slack=0.01)},
    "decoupled": {"strength": 0.3, "coupling": "decoupled"},
}


def make_net(name: str) -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 7, 3),  # odd, so that two processes hold different numbers of rows
        nn.Tanh(),
        nn.Conv2d(7, 8, 3),
        nn.Tanh(),
        nn.Conv2d(8, 6, 3, groups=2),
        nn.ConvTranspose2d(6, 4, 3),
        nn.Tanh(),
        nn.Conv2d(4, 1, 1),  # a single row: one process holds none of it
        nn.Flatten(),
        nn.Linear(36, 5),
    )
    return model if name.endswith("float32") else model.double()


def batch(step: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(step)
    x = torch.randn(8, 3, 10, 10, generator=generator, dtype=torch.float64)
    return x, torch.randint(0, 5, (8,), generator=generator)


def train(model: nn.Module, options: dict, part: slice) -> ForceRegularizer:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    dtype = next(model.parameters()).dtype
    force = ForceRegularizer(model, **options)
    force.attach(optimizer)
    for step in range(STEPS):
        x, y = (one[part] for one in batch(step))
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x.to(dtype)), y)
        loss.backward()
        force.observe_loss(loss)
        optimizer.step()
    force.detach()
    return force


def wrap(model: nn.Sequential, mode: str) -> nn.Module:
    if mode == "ddp":
        return DistributedDataParallel(model)
    for layer in model:
        if list(layer.parameters()):
            fully_shard(layer)
    fully_shard(model)
    return model


def main(mode: str) -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    alone = {}
    for name, options in RUNS.items():  # before there are processes to talk to
        model, plain = make_net(name), make_net(name)
        force = train(model, options, slice(0, 8))
        train(plain, {**options, "strength": 0.0}, slice(0, 8))
        moved = max(
            (a - b).abs().max().item() for a, b in zip(model.parameters(), plain.parameters(), strict=True)
        )
        assert moved > 1e-3, f"{name}: the force moved nothing"
        alone[name] = model, force.stats(), force.state_dict()
    dist.init_process_group("gloo")
    assert dist.get_world_size() == 2
    part = slice(dist.get_rank() * 4, dist.get_rank() * 4 + 4)
    for name, options in RUNS.items():
        inner = make_net(name)
        force = train(wrap(inner, mode), options, part)
        assert any(isinstance(p, DTensor) for p in inner.parameters()) == (mode == "fsdp")
        model, stats, state = alone[name]
        for (key, a), b in zip(model.named_parameters(), inner.parameters(), strict=True):
            b = b.full_tensor() if isinstance(b, DTensor) else b
            error = (a - b).abs().max().item()
            assert error <= 1e-6, f"{mode} {name}: {key} differs by {error}"
        for key, row in force.stats().items():
            for number in ("strength", "force", "gradient", "cosine", "energy", "effective_rank"):
                one, two = getattr(row, number), getattr(stats[key], number)
                assert math.isclose(one, two, rel_tol=1e-4, abs_tol=1e-6), (mode, name, key, number, one, two)
        assert force.state_dict()["steps"] == state["steps"]
        logging.info("%s %s: equal", mode, name)
    dist.destroy_process_group()


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(sys.argv[1])
    logging.shutdown()
    sys.stdout.flush()
    os._exit(
        0
    )  # all is proven; threads of torch's that are still ending have aborted the interpreter's own exit
