"""Everything that can be found wrong with a problem before any work is done on it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from corank.data.batches import Batches
from corank.data.splits import content_hashes
from corank.engines import import_onnxruntime, import_openvino
from corank.errors import CorankError, OutOfMemoryError, one_line
from corank.extras import import_extra
from corank.inputs import call, tensors
from corank.layers import copy_network, match_names, named_weighted
from corank.mishaps import is_out_of_memory, memory_advice
from corank.pilot.arms import first_rules, make_force
from corank.pilot.corruptions import require_images
from corank.pilot.options import ARMS, TrialOptions
from corank.pilot.problem import Problem
from corank.planning import plan
from corank.replay import undisturbed
from corank.tasks import Metric, Task, cross_entropy

_BATCHES = 200  # of training that are looked at, where they are not in memory
_ENGINES: dict[str, Callable[[], object]] = {
    "onnxruntime": lambda: (
        import_onnxruntime(),
        import_extra("onnx", "onnx"),
        import_extra("onnxscript", "onnx"),
    ),
    "openvino": import_openvino,
}
PACKAGES = {
    "jinja2": "report",
    "matplotlib": "report",
    "statsmodels": "decision",
    "pydantic": "decision",
    "babel": "decision",
}
_LEAST_SHIFTED = 2  # samples, for an interval
_HELD = ("dev", "final")
_APART = (  # two parts, and why they share no sample
    ("dev", "final", "Final must be new when it is read"),
    ("train", "final", "Final must be new when it is read"),
    ("train", "dev", "What is trained on cannot say which choice is better"),
)
Value = TypeVar("Value")


def check_problem(problem: Problem, options: TrialOptions) -> dict[str, int]:
    """Look for what would stop a trial later, and count the samples.

    The network takes the example, the loss and the metrics work on one batch, the target can be reached, the
    engines and the report's packages are installed, train, dev and final share no sample and are split alike
    for every seed, and the data are finite, with labels that the network has outputs for, of at least two
    classes.

    Returns: the samples of train, dev and final.
    Raises: CorankError, with what is wrong and what to do.
    """
    for package, extra in PACKAGES.items():
        import_extra(package, extra)
    for engine in {*options.backends, options.target.backend if options.target.timed else "torch"}:
        _ENGINES.get(engine, lambda: None)()
    task = _guard("task", "the factory failed", lambda: problem.make_task(options.seeds[0]))
    model = _guard("model", "the factory failed", problem.make_start or problem.make_model)
    outputs = _check_example(model, task)
    for pattern in problem.keep:
        match_names(pattern, named_weighted(model))
    with undisturbed(task.train):
        counts, held = check_data(task, outputs)
        _check_batch(model, task)
        if options.drift:
            require_images(next(iter(task.final)), task.pixels)
    if options.energy:
        import_extra("codecarbon", "energy")
    if problem.shifted is not None:
        shifted = _look("shifted", problem.shifted[1], task.loss is cross_entropy, outputs)
        if shifted.count < _LEAST_SHIFTED:
            raise CorankError(
                f"shifted: has {shifted.count} sample. Give at least {_LEAST_SHIFTED}; the gate wants as "
                "many as its policy's minimum_samples."
            )
    check_slices(task, counts["final"])
    _check_split(problem, options.seeds[0], task, held)
    if any(ARMS[name].force for name in options.arms):
        make_force(model, options)
    rules = first_rules(options.target.rules)
    if rules and not options.target.timed:
        for wanted in (rules, *(first_rules(options.target.at(depth).rules) for depth in options.front)):
            plan(model, wanted, example=task.example, multiple=options.multiple, exclude=problem.keep)
    return counts


def _guard(what: str, failed: str, run: Callable[[], Value]) -> Value:
    """Run the user's own code; what it raises becomes one line that says where."""
    try:
        return run()
    except CorankError:
        raise
    except Exception as error:
        raise CorankError(f"{what}: {failed} ({one_line(error, 200)}).") from error


def _check_example(model: nn.Module, task: Task) -> int | None:
    """Run the network on the example; return how many classes it tells apart, if it is such a network."""
    shapes = ", ".join(str(tuple(one.shape)) for one in tensors(task.example)) or "no tensor"
    model.eval()
    with torch.no_grad():
        output = _guard(
            "example", f"the network does not take it, shape {shapes}", lambda: call(model, task.example)
        )
    return output.shape[1] if isinstance(output, Tensor) and output.dim() == 2 else None


def _check_batch(model: nn.Module, task: Task) -> None:
    batch = next(iter(task.train))
    trial = copy_network(model).train()
    try:
        loss = _guard("loss", "it failed on the first batch", lambda: task.loss(trial, batch))
    except CorankError as error:
        if error.__cause__ is not None and is_out_of_memory(error.__cause__):
            raise OutOfMemoryError(f"train: {memory_advice(batch)}") from error
        raise
    if not isinstance(loss, Tensor) or loss.numel() != 1 or not loss.requires_grad:
        raise CorankError(
            f"loss: allowed is one number that follows from the network's weights, got {_kind(loss)}. "
            "Return (model, batch) -> scalar."
        )
    if not bool(torch.isfinite(loss)):
        raise CorankError(
            f"loss: it is {loss.item()} on the first batch, before any training. Look at the loss."
        )
    first = [next(iter(task.dev))]
    scores = _guard(
        "evaluate", "it failed on the first dev batch", lambda: task.evaluate(trial.eval(), first)
    )
    if not isinstance(scores, Mapping) or not scores:
        raise CorankError(
            f"evaluate: allowed is {{name: Metric}} with at least one, got {_kind(scores)}. "
            'Return {"accuracy": corank.Metric(value)}.'
        )
    for name, metric in scores.items():
        if not isinstance(metric, Metric):
            raise CorankError(f"evaluate: {name!r} is {_kind(metric)}. Wrap it: corank.Metric(value).")


def _kind(value: object) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    return f"a {type(value).__name__}"


@dataclass(slots=True)
class Seen:
    """What was seen of one part of the data."""

    count: int
    labels: Counter[int]
    hashes: list[bytes]


def check_data(task: Task, outputs: int | None) -> tuple[dict[str, int], dict[str, list[bytes]]]:
    """Check all of dev and final, and train as far as it is in memory.

    Returns: how many samples each has, and the hashes of those of dev and final.
    Raises: CorankError, for a part without samples, values that are not finite, labels that the network has
        no output for, one class alone, and samples that two parts share.
    """
    labelled = task.loss is cross_entropy
    parts = {"train": task.train, "dev": task.dev, "final": task.final}
    seen = {name: _look(name, loader, labelled, outputs) for name, loader in parts.items()}
    for one, other, why in _APART:
        _require_apart(one, seen[one].hashes, other, seen[other].hashes, why)
    if labelled and len(seen["train"].labels) < 2:
        only = next(iter(seen["train"].labels), None)
        raise CorankError(f"train: every sample has the label {only}. At least two classes are needed.")
    counts = {name: one.count for name, one in seen.items()}
    data = getattr(task.train, "dataset", None)
    counts |= {"train": len(data)} if isinstance(data, Sized) else {}
    return counts, {name: seen[name].hashes for name in _HELD}


def _require_apart(one: str, hashes: list[bytes], other: str, others: list[bytes], why: str) -> None:
    first = {digest: index for index, digest in enumerate(hashes)}
    shared = [(first[digest], index) for index, digest in enumerate(others) if digest in first]
    if shared:
        raise CorankError(
            f"{one} and {other} share {len(shared)} samples, such as number {shared[0][0]} of {one} and "
            f"{shared[0][1]} of {other}. {why}; remove them from {one}."
        )


def _check_split(problem: Problem, seed: int, task: Task, held: Mapping[str, list[bytes]]) -> None:
    """Raise CorankError unless the task made again, and of another seed, has the same dev and final.

    What is one object, or one tensor, as before is not looked at again.
    """
    for other in (seed, seed + 1):
        again = _guard("task", "the factory failed", partial(problem.make_task, other))
        for name in _HELD:
            old, new = getattr(task, name), getattr(again, name)
            if new is old or _in_one_memory(old, new):
                continue
            if sorted(_look(name, new, task.loss is cross_entropy, None).hashes) != sorted(held[name]):
                asked = f"of seed {other}" if other != seed else f"of seed {seed} once more"
                raise CorankError(
                    f"task: the factory's task {asked} has other samples in {name} than that of seed {seed}, "
                    "so that one trains on what the other judges by. Split by a generator of a fixed seed, "
                    "such as torch.Generator().manual_seed(0); let the seed decide only the order of train."
                )


def _in_one_memory(old: object, new: object) -> bool:
    if not isinstance(old, Batches) or not isinstance(new, Batches):
        return False
    places = [(one.images.data_ptr(), one.images.shape, one.images.stride()) for one in (old, new)]
    return places[0] == places[1]


def check_slices(task: Task, samples: int) -> None:
    """Raise CorankError unless each slice has a flag, a text or a whole number for each sample."""
    for name, values in (task.slices or {}).items():
        listed = values.tolist() if isinstance(values, Tensor) else list(values)
        if len(listed) != samples:
            raise CorankError(
                f"slices: {name!r} has {len(listed)} values and final has {samples} samples. "
                "Give one value a sample, in the order of final."
            )
        if odd := [one for one in listed if not isinstance(one, bool | int | str)]:
            raise CorankError(
                f"slices: {name!r} holds {odd[0]!r}. Allowed are true and false, texts, or whole numbers."
            )


def _look(name: str, loader: Iterable[Any], labelled: bool, outputs: int | None) -> Seen:
    seen = Seen(0, Counter(), [])
    with undisturbed(loader):
        for batch in _guard(name, "the loader failed", lambda: _batches(name, loader)):
            if labelled and (not isinstance(batch, list | tuple) or len(batch) != 2):
                raise CorankError(f"{name}: a batch of classification is (input, label), got {_kind(batch)}.")
            found = [one for one in tensors(batch) if one.dim()]
            if not found:
                raise CorankError(f"{name}: a batch holds no tensor, got {_kind(batch)}.")
            for one in found:
                _require_finite(name, one, seen.count)
            if labelled:
                _take_labels(name, batch[1], seen, outputs)
            seen.hashes += _hashes(batch[:1] if labelled else batch, len(found[0]))
            seen.count += len(found[0])
    if seen.count == 0:
        raise CorankError(f"{name}: has no samples. Give at least one batch.")
    return seen


def _hashes(inputs: Any, count: int) -> list[bytes]:
    rows = [content_hashes(one) for one in tensors(inputs) if one.dim() and len(one) == count]
    return [b"".join(row) for row in zip(*rows, strict=True)]


def _batches(name: str, loader: Iterable[Any]) -> Iterator[Any]:
    if isinstance(loader, Batches):
        return iter([(loader.images, loader.labels)] if len(loader.labels) else [])
    return islice(iter(loader), _BATCHES if name == "train" else None)


def _require_finite(name: str, values: Tensor, before: int) -> None:
    if values.is_floating_point() and not bool(torch.isfinite(values).all()):
        bad = (~torch.isfinite(values)).flatten(1).any(1) if values.dim() > 1 else ~torch.isfinite(values)
        raise CorankError(
            f"{name}: {int(bad.sum())} samples of a batch are NaN or infinite, the first is number "
            f"{before + int(bad.nonzero()[0])}. Repair or remove them."
        )


def _take_labels(name: str, labels: Any, seen: Seen, outputs: int | None) -> None:
    if not isinstance(labels, Tensor) or labels.is_floating_point() or labels.dim() != 1:
        raise CorankError(f"{name}: labels are whole numbers, one a sample, got {_kind(labels)}.")
    seen.labels.update(labels.tolist())
    low, high = min(seen.labels, default=0), max(seen.labels, default=0)
    if outputs is not None and (low < 0 or high >= outputs):
        raise CorankError(
            f"{name}: has the label {low if low < 0 else high}, and the network puts out {outputs} classes, "
            f"0 to {outputs - 1}. Change the labels or the network's last layer."
        )
