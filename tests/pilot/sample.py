"""A made-up pilot result for the tests of the page. No figure in it was measured."""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

import numpy as np
import torch

from corank.decision.comparison import compare, find_groups
from corank.decision.confidence import describe_calibration
from corank.decision.economics import Economics
from corank.decision.results import SCHEMA
from corank.pilot.conclusion import conclude
from corank.tasks import Classified, Metric

SHAPES = {
    "stem.conv": (16, 9),
    "body.0.conv1": (32, 144),
    "body.0.conv2": (32, 288),
    "body.1.conv1": (64, 288),
    "body.1.conv2": (64, 576),
    "body.2.conv1": (64, 576),
    "body.2.conv2": (64, 576),
    "head.fc": (10, 64),
}
ENGINES = ("torch", "onnxruntime")
CLASSES = tuple(str(i) for i in range(10))
ECONOMICS = Economics(0.8, 5_000_000, currency="EUR", engineer_hours=40, engineer_cost=90)
WRONG = {"dense": range(5), "lowrank": range(10), "force": range(2, 8)}  # samples that an arm gets wrong


def make_result(
    *,
    seeds: tuple[int, ...] = (0, 1, 2),
    engines: tuple[str, ...] = ENGINES,
    names: dict[str, str] | None = None,
) -> dict[str, Any]:
    """Build a result of the present schema; `names` renames layers."""
    generator = np.random.default_rng(7)
    renamed = names or {}
    result: dict[str, Any] = {
        "schema": SCHEMA,
        "corank": "0.1.0",
        "command": "corank pilot --out demo",
        "created": "2026-11-24T10:15:00+00:00",
        "protocol": {
            "data": "digits (scikit-learn), 8×8 grey images",
            "model": "corank.pilot.digits:make_network",
            "samples": {"train": 1077, "dev": 360, "final": 360},
            "classes": list(CLASSES),
            "seeds": list(seeds),
            "epochs": {"shared": 6, "before_cut": 12, "after_cut": 8, "total": 26},
            "optimizer": {"name": "SGD", "lr": 0.05, "momentum": 0.9, "weight_decay": 0.0005},
            "force": {"kind": "l2", "strength": 0.003, "scale": "mean"},
            "target": {"macs": 0.5},
            "threads": 2,
            "precision": "float32",
            "latency_batch": 64,
            "versions": {"python": "3.12.3", "torch": "2.13.0+cpu", "onnxruntime": "1.23.1"},
            "machine": {"processor": "x86_64, 2 cores", "system": "Linux 6.1"},
        },
        "arms": [_arm(name, generator, engines, renamed) for name in ("dense", "lowrank", "force")],
        "front": None,
        "spread": _spread(seeds, engines, generator) if len(seeds) > 1 else None,
    }
    result["front"] = _front(result, engines)
    return conclude(result, economics=ECONOMICS)


def _front(result: dict[str, Any], engines: tuple[str, ...]) -> dict[str, Any]:
    """Make up the front of the forced arm: dense, and three cuts."""
    dense, force = result["arms"][0], result["arms"][2]
    points = []
    for share, accuracy in ((1.0, 0.9889), (0.7, 0.9917), (0.5, 0.9861), (0.25, 0.9528)):
        whole, chosen = share == 1.0, share == 0.5
        pace = {
            engine: 1 + 1.3 * (1 - share) + 0.1 * place * (not whole) for place, engine in enumerate(engines)
        }
        change = None if whole else accuracy - 0.9889
        point = {
            "share": share,
            "chosen": chosen,
            "name": "dense" if whole else "force" if chosen else f"force at {share:g}",
            "accuracy": accuracy,
            "accuracy_ci": [accuracy - 0.0124, min(accuracy + 0.0087, 1.0)],
            "accuracy_difference": change,
            "accuracy_difference_ci": None if change is None else [change - 0.0108, change + 0.0093],
            "accuracy_after_cut": None if whole else accuracy - 0.05,
            "macs": int(dense["macs"] * share),
            "params": int(dense["params"] * share),
            "decomposed": 0 if whole else 6,
            "plan_rank_ratio": share,
            "latency_ms": {engine: dense["latency_ms"][engine] / pace[engine] for engine in engines},
            "speedup": pace,
            "speedup_ci": {engine: [x * 0.98, x * 1.03] for engine, x in pace.items()},
            "peak_memory": dict.fromkeys(engines),
            "training_seconds": 58.9,
        }
        points.append(
            point | {key: force[key] for key in ("macs", "params", "latency_ms", "speedup") if chosen}
        )
    return {"arm": "force", "by": "macs", "part": "dev", "epochs_after_cut": 8, "points": points}


def _arm(
    name: str, generator: np.random.Generator, engines: tuple[str, ...], names: dict[str, str]
) -> dict[str, Any]:
    dense, force = name == "dense", name == "force"
    accuracy = {"dense": 0.9861, "lowrank": 0.9722, "force": 0.9833}[name]
    difference = None if dense else accuracy - 0.9861
    latency = {e: (1.92 if dense else 1.13 if force else 1.17) * (1 - 0.3 * i) for i, e in enumerate(engines)}
    base = {e: 1.92 * (1 - 0.3 * i) for i, e in enumerate(engines)}
    speedup = {e: base[e] / latency[e] for e in engines}
    return {
        "name": name,
        "epochs": 26,
        "accuracy": accuracy,
        "accuracy_ci": [accuracy - 0.0141, accuracy + 0.0103],
        "accuracy_difference": difference,
        "accuracy_difference_ci": None if difference is None else [difference - 0.0112, difference + 0.0087],
        "metrics": {
            "accuracy": {
                "value": accuracy,
                "higher_is_better": True,
                "ci": [accuracy - 0.0141, accuracy + 0.0103],
                "difference": difference,
                "difference_ci": None if difference is None else [difference - 0.0112, difference + 0.0087],
            }
        },
        "comparison": None if dense else copy.deepcopy(compared(name)),
        "calibration": describe_calibration(classify(name).classified),
        "accuracy_after_cut": None if dense else (0.9417 if force else 0.8139),
        "macs": 5_283_840 if dense else 2_617_344,
        "params": 141_354 if dense else 71_230,
        "bytes": 571_412 if dense else 291_704,
        "spectral_rank_ratio": 0.47 if force else 0.78,
        "plan_rank_ratio": 1.0 if dense else 0.39,
        "decomposed": 0 if dense else 6,
        "subnormal": {"before_cut": 1234, "final": 1234 if dense else 17},
        "layers": [_layer(layer, name, generator, names) for layer in SHAPES],
        "basis_filters": None if dense else _filters(force, generator, names),
        "latency_ms": latency,
        "latency_p5_p95": {e: [x * 0.96, x * 1.11] for e, x in latency.items()},
        "speedup": speedup,
        "speedup_ci": {e: [x * 0.97, x * 1.04] for e, x in speedup.items()},
        "peak_memory": {e: (None if i else 7_340_032 if dense else 6_815_744) for i, e in enumerate(engines)},
        "training_seconds": 61.3 if force else 58.9,
        "force_overhead": 0.041 if force else None,
        "force_overhead_ci": [0.028, 0.052] if force else None,
        "history": _history(accuracy, dense, force, generator),
        "model_file": f"{name}.safetensors",
        "plan_file": None if dense else f"{name}.plan.json",
    }


def classify(name: str) -> Metric:
    """Make up what an arm said of 360 samples."""
    labels = torch.arange(360) % 10
    predictions = labels.clone()
    predictions[list(WRONG[name])] += 1
    predictions %= 10
    hits = (predictions == labels).float()
    confidence = 0.75 + 0.25 * torch.rand(360, generator=torch.Generator().manual_seed(3))
    classified = Classified(labels, predictions, confidence)
    return Metric(hits.mean().item(), per_sample=hits, classified=classified)


@cache
def compared(name: str) -> dict[str, Any] | None:
    """Compare what an arm said with what dense said; a second of resampling, done once."""
    groups = find_groups(classify(name).classified, CLASSES, {"pen": ["thin", "thick"] * 180}, 360)
    return compare(classify(name), classify("dense"), groups)


def _layer(name: str, arm: str, generator: np.random.Generator, names: dict[str, str]) -> dict[str, Any]:
    n, d = SHAPES[name]
    full = min(n, d)
    steep = 5.0 if arm == "force" else 1.6
    values = np.exp(-steep * np.arange(full) / full) * (1 + 0.05 * generator.random(full))
    values = np.sort(values * 3.1)[::-1]
    energy = np.cumsum(values**2) / (values**2).sum()
    spectral = int(np.searchsorted(energy, 0.95)) + 1
    cut = arm != "dense" and name not in ("head.fc",) and not (arm == "lowrank" and name == "stem.conv")
    plan = max(1, int(full * 0.4)) if cut else None
    positions = 64 if n < 64 else 16
    return {
        "name": names.get(name, name),
        "kind": "Linear" if name == "head.fc" else "Conv2d",
        "full_rank": full,
        "spectral_rank": spectral,
        "plan_rank": plan,
        "method": "filter_basis" if cut else None,
        "reason": None
        if cut
        else "no rank pays: the layer costs less than its split"
        if arm != "dense"
        else None,
        "error": float(np.sqrt(1 - energy[plan - 1])) if plan else None,
        "macs": [n * d * positions, plan * (n + d) * positions if plan else n * d * positions],
        "singular_values": [float(x) for x in values],
    }


def _filters(force: bool, generator: np.random.Generator, names: dict[str, str]) -> dict[str, Any]:
    count = 6 if force else 12
    y, x = np.mgrid[-1:1:3j, -1:1:3j]
    images = [np.cos(a) * x + np.sin(a) * y + 0.3 * generator.standard_normal((3, 3)) for a in range(count)]
    layer = "stem.conv" if force else "body.0.conv1"
    return {"layer": names.get(layer, layer), "filters": [image.tolist() for image in images]}


def _history(
    accuracy: float, dense: bool, force: bool, generator: np.random.Generator
) -> list[dict[str, Any]]:
    rows = []
    for epoch in range(1, 27):
        phase = "shared" if epoch <= 6 else "before_cut" if epoch <= 18 else "after_cut"
        dip = 0.04 * np.exp(-(epoch - 19) / 1.5) if phase == "after_cut" and not dense else 0.0
        noise = 0.004 * generator.standard_normal() if phase != "shared" else 0.0
        dev = min(1.0, accuracy - 0.6 * np.exp(-epoch / 2.5) - dip * (0.5 if force else 1.0) + noise)
        rows.append({"epoch": epoch, "phase": phase, "loss": float(1.1 - dev), "dev_accuracy": float(dev)})
    return rows


def _spread(
    seeds: tuple[int, ...], engines: tuple[str, ...], generator: np.random.Generator
) -> dict[str, Any]:
    def near(x: float, by: float) -> list[float]:
        return [float(x + by * generator.standard_normal()) for _ in seeds]

    return {
        "seeds": list(seeds),
        "arms": {
            name: {
                "accuracy": near(accuracy, 0.004),
                "speedup": {} if name == "dense" else {e: near(1.68, 0.02) for e in engines},
            }
            for name, accuracy in (("dense", 0.9861), ("lowrank", 0.9722), ("force", 0.9833))
        },
    }
