"""What keeps the good start that a data-aware cut gives: factors, batch norm and teacher, by accuracy on dev.

A trained ResNet-20 is cut to a share of its multiply-accumulates by factors of each layer's outputs, with
batch norm measured anew, or by asymmetric factors, which are fitted to the batch norm that is there. Then it
recovers on all training images, batch norm in training or frozen, with the dense network as teacher or
without. All choices of the kind that defaults are made of, so final is not read.

    python -m benchmarks.recoveries                      # all that is not done yet, then the page
    python -m benchmarks.recoveries --arms asymmetric    # only these, for two processes side by side
"""

from __future__ import annotations

import argparse
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice, product
from statistics import fmean
from typing import Any

import torch
from torch import nn

import corank
from benchmarks.cifar import resnet
from benchmarks.real_network import RUNS, make_problem
from benchmarks.record import describe_run, kept, rounded, say, store, table
from corank.cost import model_cost
from corank.latency import LatencyTable
from corank.pilot.scores import dev_score
from corank.replay import set_seed
from corank.tasks import Task

CALIBRATION = 16  # batches
FACTORS = ("outputs", "asymmetric")
RATES = {False: (0.01, 0.03), True: (0.001,)}  # by whether batch norm is frozen: at 0.01 that diverges


@dataclass(frozen=True, slots=True)
class Arm:
    """One way to cut and recover."""

    factors: str
    frozen_norm: bool
    teacher: bool
    learning_rate: float

    @property
    def name(self) -> str:
        """The name of its file."""
        norm = "frozen" if self.frozen_norm else "batch"
        return f"{self.factors}-{norm}-{'teacher' if self.teacher else 'alone'}-{self.learning_rate:g}"


def arms() -> list[Arm]:
    """List the arms."""
    return [
        Arm(factors, frozen, teacher, rate)
        for factors, frozen, teacher in product(FACTORS, (False, True), (False, True))
        for rate in RATES[frozen]
    ]


def plan_from(
    model: nn.Module,
    rule: corank.Budget | corank.Latency,
    task: Task,
    batches: list[Any],
    table: LatencyTable | None = None,
) -> tuple[corank.Plan, dict[str, corank.Moments]]:
    """Plan a cut from the outputs on some batches; return what was measured too."""
    stats = corank.calibrate(model, batches, inputs=True)
    return corank.plan(model, rule, example=task.example, stats=stats, table=table), stats


def cut(
    model: nn.Module,
    factors: str,
    rule: corank.Budget | corank.Latency,
    task: Task,
    samples: Any,
    table: LatencyTable | None = None,
) -> nn.Module:
    """Cut a network by a rule, every way with the same plan."""
    batches = list(islice(samples, CALIBRATION))
    made, stats = plan_from(model, rule, task, batches, table)
    if factors == "asymmetric":
        return corank.decompose(model, made, stats, asymmetric=batches)
    small = corank.decompose(model, made, stats)
    corank.recalibrate_batchnorm(small, samples)
    return small


def recover(arm: Arm, depth: int, ratio: float, epochs: int, seed: int, files: int | None) -> dict[str, Any]:
    """Cut and recover one arm; return its accuracy on dev at every stage."""
    problem = make_problem(depth, files)
    set_seed(seed)
    task, dense = problem.make_task(seed), resnet(depth)
    rule = corank.Budget(macs=ratio)
    small = cut(dense, arm.factors, rule, task, problem.make_task(seed + 1).train)
    course = [dev_score(small, task)]
    macs = model_cost(small.eval(), task.example).macs / model_cost(dense, task.example).macs
    row = {**asdict(arm), "macs": macs, "dense": dev_score(dense, task), "dev": course}
    try:
        corank.finetune(
            small,
            task.train,
            epochs=epochs,
            loss=task.loss,
            teacher=dense if arm.teacher else None,
            learning_rate=arm.learning_rate,
            frozen_norm=arm.frozen_norm,
            precision="bfloat16",
            after_epoch=lambda _: course.append(dev_score(small, task)),
            progress=False,
        )
    except corank.CorankError as error:  # the loss is no number any more
        row["failed"] = str(error)
    return row


def effect(rows: list[dict[str, Any]], setting: str, one: object, other: object) -> tuple[float, int]:
    """Return what one value of a setting is worth over another, over the pairs of arms alike in all else."""
    alike = [name for name in ("factors", "frozen_norm", "teacher", "learning_rate") if name != setting]
    ends = {tuple(row[name] for name in [*alike, setting]): row["dev"][-1] for row in rows}
    gaps = [end - ends[*key[:-1], other] for key, end in ends.items() if key[-1] == one]
    return fmean(gaps), len(gaps)


def page(rows: list[dict[str, Any]], depth: int, epochs: int) -> str:
    """Write the table, the best first."""
    lines = [
        [
            row["factors"],
            "frozen" if row["frozen_norm"] else "trained",
            "dense" if row["teacher"] else "none",
            row["learning_rate"],
            f"{row['macs']:.2f}",
            *(f"{100 * one:.2f}" for one in row["dev"]),
            *["diverged"] * (epochs + 1 - len(row["dev"])),
        ]
        for row in sorted(rows, key=lambda row: ("failed" in row, -row["dev"][-1]))
    ]
    pairs = [
        ("the dense network as teacher", "teacher", True, False),
        ("asymmetric factors over those of outputs", "factors", "asymmetric", "outputs"),
        ("a learning rate of 0.03 over 0.01", "learning_rate", 0.03, 0.01),
    ]
    effects = [(said, *effect(rows, *pair)) for said, *pair in pairs]
    worth = "; ".join(f"{said} {100 * gap:+.2f} points ({count} pairs)" for said, gap, count in effects)
    heads = ["factors", "batch norm", "teacher", "learning rate", "MACs", "after the cut"]
    return (
        f"ResNet-{depth} on CIFAR-10, {100 * rows[0]['dense']:.2f}% on 5,000 dev images before the cut; all "
        f"arms have one plan and recover {epochs} epochs on 50,000 images, one seed: differences below 0.4 "
        "points are noise. Accuracy on dev, percent, the best at the end first.\n\n"
        f"At the end, over the pairs of arms alike in all else: {worth}. Batch norm frozen at a learning "
        "rate of 0.01 diverges.\n\n"
        + table([*heads, *(f"epoch {number + 1}" for number in range(epochs))], lines)
    )


def main() -> None:
    """Recover what is not done yet, and write the page when all are there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--depth", type=int, choices=(20, 56), default=20)
    parser.add_argument("--arms", choices=FACTORS, help="only those with these factors")
    parser.add_argument("--ratio", type=float, default=0.5, help="of the multiply-accumulates")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--files", type=int, help="only so many thousand images; nothing is stored then")
    given = parser.parse_args()
    folder = RUNS / "recoveries" / f"{given.depth}-{given.ratio:g}-{given.epochs}-{given.files or 'all'}"
    rows = []
    for arm in arms():
        path = folder / f"{arm.name}-{given.seed}.json"
        if path.exists() or given.arms in (None, arm.factors):
            terms = (arm, given.depth, given.ratio, given.epochs, given.seed, given.files)
            rows.append(kept(path, arm.name, partial(recover, *terms)))
            say(f"{arm.name}: {', '.join(f'{100 * one:.2f}' for one in rows[-1]['dev'])}")
    if given.files is None and len(rows) == len(arms()):
        run = describe_run(given.seed, f"trained in bfloat16, judged in float32, torch {torch.__version__}")
        store(
            "recoveries", "What keeps a good start", page(rows, given.depth, given.epochs), rounded(rows), run
        )


if __name__ == "__main__":
    main()
