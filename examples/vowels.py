"""Who says "ae"? Conv1d on the Japanese vowels of the package aeon: time series of nine speakers.

python -m examples.vowels trains (a minute on one core), times and writes docs/results/task_vowels.md. The
data come with aeon (pip install --no-deps aeon==1.6.0); only their files are read.
"""

from __future__ import annotations

import importlib.util
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor, nn

import corank
from corank.data.batches import Batches
from examples.study import Study, run

LONGEST, CHANNELS = 32, 12


@lru_cache
def read(split: str) -> tuple[Tensor, Tensor]:
    """Return series (n, CHANNELS, LONGEST), zeros behind their end, and speakers 0 to 8."""
    found = importlib.util.find_spec("aeon")
    if found is None or found.origin is None:
        raise corank.ExtraError("JapaneseVowels: comes with aeon. Run pip install --no-deps aeon==1.6.0.")
    path = Path(found.origin).parent / "datasets" / "data" / "JapaneseVowels" / f"JapaneseVowels_{split}.ts"
    lines = path.read_text(encoding="utf-8").split("@data\n")[1].splitlines()
    series, speakers = torch.zeros(len(lines), CHANNELS, LONGEST), torch.zeros(len(lines)).long()
    for number, line in enumerate(lines):
        *channels, speaker = line.split(":")
        values = torch.tensor([[float(one) for one in channel.split(",")] for channel in channels])
        series[number, :, : values.shape[1]] = values
        speakers[number] = int(speaker) - 1
    return series, speakers


def task(seed: int) -> corank.Task:
    """Every fourth training utterance is for dev; the test set of the archive is final."""
    (series, speakers), final = read("TRAIN"), read("TEST")
    dev = torch.arange(len(speakers)) % 4 == 0
    return corank.classification(
        train=Batches(series[~dev], speakers[~dev], 32, shuffle_seed=seed, prepare=jitter),
        dev=Batches(series[dev], speakers[dev], 128),
        final=Batches(*final, 128),
        example=series[:16],
    )


def jitter(series: Tensor, generator: torch.Generator) -> Tensor:
    """Add a little noise: 202 utterances are few."""
    return series + 0.05 * torch.randn(series.shape, generator=generator)


def make(width: int = 128) -> nn.Module:
    layers: list[nn.Module] = []
    for channels in (CHANNELS, width, width):
        layers += [nn.Conv1d(channels, width, 5, padding=2), nn.BatchNorm1d(width), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(width, 9))


STUDY = Study(
    name="vowels",
    title="Japanese vowels: Conv1d on time series",
    about=(
        "Japanese vowels of nine speakers, 12 channels and at most 29 steps: 202 utterances to train on, "
        "68 to choose on, 370 final. Three layers of Conv1d. What may fail: accuracy is near its ceiling, "
        "so that the intervals, not the values, say what a cut may cost; series this short leave little "
        "to gain."
    ),
    task=task,
    make=make,
    rules=corank.Budget(macs=0.4),
    epochs=(30, 10, 10),
)

if __name__ == "__main__":
    run(STUDY)
