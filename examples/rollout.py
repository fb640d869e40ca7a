"""A whole roll-out: train, cut, serve both, watch the good one promoted and a broken one rolled back.

    python -m examples.rollout

It takes about half a minute on one core. For your own networks a pilot (`corank pilot`) stands before this,
and decides whether a cut network is worth trying at all.
"""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
import tempfile
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import corank
from corank.data.digits import read_digits
from corank.rollout import Policy
from corank.serving.bundles import write_bundle

ROOT = Path(__file__).parents[1]
# Quick for an example: see docs/rollout.md for what to choose where it matters.
POLICY = Policy(stages=(0.0, 0.5, 1.0), requests=40, seconds=0, margin=0.1, paired_share=1.0, reference=40)


def make_model() -> nn.Module:
    """Make the network that is served."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32 * 8 * 8, 10),
    )


def train_and_cut(images: torch.Tensor, labels: torch.Tensor) -> tuple[nn.Module, nn.Module]:
    """Train a network, and cut a copy of it to half the multiply-accumulates."""
    torch.manual_seed(0)
    loader = DataLoader(TensorDataset(images, labels), 32, shuffle=True)
    dense, example = make_model(), images[:8]
    corank.finetune(dense, loader, epochs=4, learning_rate=0.05, progress=False)
    plan = corank.plan(dense, corank.Budget(macs=0.5), example=example)
    small = corank.decompose(dense, plan)
    corank.finetune(small, loader, epochs=1, teacher=dense, progress=False)
    return dense.eval(), small.eval()


def break_on_purpose(model: nn.Module) -> nn.Module:
    """Return a copy that calls one digit in two a one: as a wrong export or a mixed-up file would be."""
    broken = make_model()
    broken.load_state_dict(model.state_dict())
    with torch.no_grad():
        broken[-1].bias[1] += 10
    return broken


@contextmanager
def served(challenger: Path, folder: Path):
    """Run `corank serve` with the dense network as champion; give its address."""
    (folder / "policy.json").write_text(json.dumps(POLICY.to_dict()))
    words = ["--champion", folder / "dense", "--challenger", challenger, "--store", folder / "rollout.db"]
    words += ["--name", challenger.name, "--policy", folder / "policy.json", "--port", "0", "--rate", "0"]
    program = "from corank.cli import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", program, "serve", *map(str, words)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    try:
        yield process.stdout.readline().strip()
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
        process.stdout.close()


def ask(where: str, image: torch.Tensor, key: str) -> str:
    """Send one image as npy, and return the receipt of its answer."""
    file = io.BytesIO()
    np.save(file, image[None].numpy(), allow_pickle=False)
    headers = {"content-type": "application/x-npy", "x-corank-key": key}
    with urllib.request.urlopen(
        urllib.request.Request(f"{where}/predict", file.getvalue(), headers)
    ) as reply:
        return json.loads(reply.read())["receipt"]


def tell(where: str, receipt: str, label: int) -> None:
    """Say what the right answer was."""
    body = json.dumps({"receipt": receipt, "label": label}).encode()
    headers = {"content-type": "application/json"}
    urllib.request.urlopen(urllib.request.Request(f"{where}/outcome", body, headers)).close()


def watch(where: str, images: torch.Tensor, labels: torch.Tensor, most: int = 4000) -> dict:
    """Send labelled traffic until the roll-out is over, and return its status."""
    status: dict = {}
    for number in range(most):
        one = number % len(labels)
        tell(where, ask(where, images[one], f"user-{number}"), int(labels[one]))
        if number % 20 == 19:
            with urllib.request.urlopen(f"{where}/status") as reply:
                status = json.loads(reply.read())
            if status["status"] != "running":
                break
    return status


def main(folder: Path) -> dict[str, dict]:
    """Do it all in a folder; return how both roll-outs ended."""
    data = read_digits()
    x, y = data.final.pixels, data.final.labels
    dense, small = train_and_cut(data.train.pixels, data.train.labels)
    models = {"dense": dense, "small": small, "broken": break_on_purpose(dense)}
    for name, model in models.items():
        corank.save(model, folder / f"{name}.safetensors", reference=make_model)
        factory = "examples.rollout:make_model"
        write_bundle(folder / name, folder / f"{name}.safetensors", factory=factory, shape=(1, 1, 32, 32))
        right = (model(x).argmax(1) == y).float().mean()
        print(f"{name}: {right:.1%} right")
    ended = {}
    for name in ("small", "broken"):
        with served(folder / name, folder) as where:
            print(f"{name}: served beside dense at {where}, which shows how it goes")
            ended[name] = watch(where, x, y)
        for move in ended[name]["moves"]:
            print(f"  {move['action']}, stage {move['stage']}: {move['reason']}")
    return ended


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        main(Path(name))
