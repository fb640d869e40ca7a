"""The servers of the router benchmark, each a process of its own: the app with the router, and without.

python -m benchmarks.router_server --app router --model slow --folder here --blocks 50
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
import uuid
from concurrent.futures import Future
from pathlib import Path

import numpy as np
import torch
from torch import nn

from corank.rollout import Policy, Router
from corank.rollout.router import Answer
from corank.serving.options import ServeOptions
from corank.serving.running import listen, serve

SHAPE = (1, 3, 64, 64)
LIVE = Policy(stages=(0.5, 1.0), requests=10**9, seconds=0, input_margin=0.49)
POLICIES = {"router": LIVE, "shadow": dataclasses.replace(LIVE, stages=(0.0, 1.0))}


class Plain:
    """What stands in for a router in the same app: it runs the model and gives its answer."""

    def __init__(self, model) -> None:
        self.model, self.store_age, self.dtype = model, 0.0, None

    def __call__(self, inputs, *, key=None, request=None) -> Answer:
        return Answer(self.model(inputs), "", request or uuid.uuid4().hex, "champion")

    def submit(self, receipt: str, **_: object) -> Future[bool]:
        done: Future[bool] = Future()
        done.set_result(True)
        return done

    def close(self) -> None:
        """Nothing is open."""


def layers() -> tuple[nn.Module, nn.Module, nn.Module]:
    """Make the first layer, the block that is repeated, and the last layer of the slow model."""
    torch.manual_seed(0)
    block = nn.Sequential(nn.Conv2d(32, 32, 3, padding=1), nn.ReLU()).eval()
    return nn.Conv2d(3, 32, 3, padding=1).eval(), block, nn.Linear(32, 10).eval()


def blocks_for(ms: float) -> int:
    """Return how many blocks take about so many ms here; chosen once, all servers do the same work."""
    _, block, _ = layers()
    x = torch.zeros(1, 32, *SHAPE[2:])
    with torch.inference_mode():
        times = []
        for _ in range(100):
            begun = time.perf_counter()
            block(x)
            times.append(time.perf_counter() - begun)
    return max(1, round(ms / 1e3 / float(np.median(times[10:]))))


def slow_model(blocks: int):
    """Return a convolutional network of so many equal blocks, as a function of arrays."""
    first, block, last = layers()

    def run(inputs):
        with torch.inference_mode():
            x = first(torch.from_numpy(inputs))
            for _ in range(blocks):
                x = block(x)
            return last(x.mean((2, 3))).numpy()

    return run


def fast_model(inputs):
    """Answer at once."""
    return np.eye(10, dtype=np.float32)[[int(abs(float(inputs.flat[0]))) % 10]]


def main() -> None:
    """Serve until told to stop; the address is the first line that is printed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--app", choices=["plain", *POLICIES], required=True)
    parser.add_argument("--model", choices=["slow", "fast"], required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--blocks", type=int, default=1, help="of the slow model")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--port", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = slow_model(options.blocks) if options.model == "slow" else fast_model
    if options.app == "plain":
        router = Plain(model)
    else:
        router = Router(model, model, POLICIES[options.app], options.folder / f"{options.app}.db")
    limits = ServeOptions(port=options.port, rate=None, concurrent=256, seconds=60, threads=options.threads)

    def ready(where: str) -> None:
        sys.stdout.write(where + "\n")
        sys.stdout.flush()

    with listen(limits) as listening:
        serve(router, limits, listening, ready=ready)


if __name__ == "__main__":
    main()
