"""A whole roll-out: pilot, gate, serve both, watch the good one promoted and a broken one rolled back.

    python -m examples.rollout

It takes about two minutes on one core.
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
from typing import Any

import numpy as np
import torch
from torch import nn

import corank
from corank.cut_targets import parse_target
from corank.pilot.digits import digits, vgg
from corank.pilot.options import TrialOptions
from corank.pilot.trial import run_trial
from corank.rollout import Policy
from corank.serving.bundles import write_bundle

ROOT = Path(__file__).parents[1]
# Quick for an example: see docs/rollout.md for what to choose where it matters.
OPTIONS = TrialOptions(
    arms=("dense", "lowrank"),
    shared=3,
    before_cut=1,
    after_cut=2,
    target=parse_target("macs=0.35"),
    backends=("onnxruntime",),
    rounds=10,
)
GATE = corank.Policy(margin=0.05, minimum_speedup=1.05, minimum_samples=100, worst_slice=None)
POLICY = Policy(stages=(0.0, 0.5, 1.0), requests=40, seconds=0, margin=0.1, paired_share=1.0, reference=40)


def pilot(folder: Path) -> dict[str, Any]:
    """Train the digits' network twice from one start, cut one of them, and measure both side by side."""
    return run_trial(digits(), folder, OPTIONS, command="python -m examples.rollout", progress=False)


def break_on_purpose(model: nn.Module) -> nn.Module:
    """Return a copy that calls one digit in two a one: as a wrong export or a mixed-up file would be."""
    broken = vgg()
    broken.load_state_dict(model.state_dict())
    with torch.no_grad():
        broken.head.bias[1] += 20
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
    decision = corank.gate(pilot(folder / "pilot"), GATE)
    print(f"the gate: {decision.sentence}")
    if decision.verdict != "advance":
        print("in earnest it would end here; this example shows what comes after all the same")
    final = digits().make_task(0).final
    x, y = final.images, final.labels
    trained = folder / "pilot" / "models"
    models = {
        "dense": corank.load(trained / "dense.safetensors", vgg),
        "small": corank.load(trained / "lowrank.safetensors", vgg),
    }
    models["broken"] = break_on_purpose(models["dense"])
    for name, model in models.items():
        corank.save(model.eval(), folder / f"{name}.safetensors", reference=vgg)
        factory = "corank.pilot.digits:vgg"
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
