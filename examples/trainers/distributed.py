"""DDP or FSDP2 from end to end: force, checkpoint, resume, gather, cut, fine-tune, evaluate.

Run: torchrun --nproc-per-node=2 examples/trainers/distributed.py [ddp|fsdp] [folder] [epochs]
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from digits_problem import STRENGTH, batches, cut, make_data, make_net, report
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict, set_state_dict
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

import corank


def wrap(model: nn.Module, mode: str) -> nn.Module:
    if mode == "ddp":
        return DistributedDataParallel(model)
    for layer in model:
        if list(layer.parameters()):
            fully_shard(layer)
    return fully_shard(model)


def fit(model: nn.Module, optimizer, loader, epochs: int) -> None:
    model.train()
    for _ in range(epochs):
        for x, y in loader:
            mine = slice(dist.get_rank(), None, dist.get_world_size())
            nn.functional.cross_entropy(model(x[mine]), y[mine]).backward()
            optimizer.step()
            optimizer.zero_grad()


def start(mode: str, net: nn.Module, rate: float):
    model = wrap(net, mode)
    return model, torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9)


def gather(model: nn.Module, optimizer, into: nn.Module) -> nn.Module:
    """Collect the whole weights in every process, in a network that is not wrapped."""
    weights, _ = get_state_dict(model, optimizer, options=StateDictOptions(full_state_dict=True))
    into.load_state_dict(weights)
    return into


def main(mode: str, folder: Path, epochs: int = 4) -> None:
    train, final = make_data()

    model, optimizer = start(mode, make_net(), 0.05)
    force = corank.ForceRegularizer(model, STRENGTH)
    force.attach(optimizer)
    fit(model, optimizer, batches(train), epochs // 2)
    weights, momentum = get_state_dict(model, optimizer)
    dcp.save({"model": weights, "optimizer": momentum}, checkpoint_id=folder / "half")
    if dist.get_rank() == 0:
        corank.save_force(force, folder / "half" / "force.safetensors")
    dist.barrier()

    model, optimizer = start(mode, make_net(), 0.05)  # as after a restart
    weights, momentum = get_state_dict(model, optimizer)
    dcp.load({"model": weights, "optimizer": momentum}, checkpoint_id=folder / "half")
    set_state_dict(model, optimizer, model_state_dict=weights, optim_state_dict=momentum)
    force = corank.ForceRegularizer(model, STRENGTH)
    corank.load_force(force, folder / "half" / "force.safetensors")
    force.attach(optimizer)
    fit(model, optimizer, batches(train), epochs - epochs // 2)
    force.detach()
    dense = gather(model, optimizer, make_net())

    if dist.get_rank() == 0:  # one process decides, all load what it decided
        corank.save(cut(dense, train), folder / "cut.safetensors", reference=make_net)
    dist.barrier()
    model, optimizer = start(mode, corank.load(folder / "cut.safetensors", make_net), 0.01)
    fit(model, optimizer, batches(train), max(epochs // 2, 1))
    small = gather(model, optimizer, corank.load(folder / "cut.safetensors", make_net))
    if dist.get_rank() == 0:
        corank.save(small, folder / "small.safetensors", reference=make_net)
        report(dense, small, final)


if __name__ == "__main__":
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser()
    parser.add_argument("mode", nargs="?", choices=["ddp", "fsdp"], default="fsdp")
    parser.add_argument("folder", nargs="?", type=Path, default=Path(tempfile.gettempdir(), "corank-trained"))
    parser.add_argument("epochs", nargs="?", type=int, default=4)
    asked = parser.parse_args()
    dist.init_process_group("gloo")
    main(asked.mode, asked.folder, asked.epochs)
    dist.barrier()
    dist.destroy_process_group()
    sys.stdout.flush()
    os._exit(0)  # all is written, and threads of torch's that are still ending abort the usual exit at times
