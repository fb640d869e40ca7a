"""What a decomposition must do with a whole network: each check takes a trial and returns what it found."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from corank.calibration import calibrate
from corank.decomposition import decompose
from corank.errors import CorankError
from corank.inputs import call, tensors
from corank.layers import copy_network, filter_layers, named_weighted, replace_layer, unwrap
from corank.methods import METHODS, default_method, fold
from corank.planning import plan
from corank.plans import Plan
from corank.rules import Energy, Ranks
from corank.store import load, save
from corank.testing.cases import NetworkCase
from corank.testing.rows import LIMITS, Finding, difference, same_bits, say, within, without

_IDLE = 1e-6  # of the largest gradient: what a float32 gradient that should be zero may come to


@dataclass(frozen=True, slots=True)
class Trial:
    """A network with the plans that split every layer which can be split, at full rank and at half of it."""

    case: NetworkCase
    full: Plan
    half: Plan

    def pair(self, made: Plan, dtype: torch.dtype = torch.float32) -> tuple[nn.Module, nn.Module, Any]:
        """Build the network, its copy split by a plan, and an input."""
        model = self.case.build(dtype)
        return model, decompose(model, made), self.case.input(dtype=dtype)


def make_trial(case: NetworkCase, method: str | None = None) -> Trial:
    """Plan to split every layer of a network that can be, by one method or, where it refuses, the default."""
    model, example = case.build(), case.input()
    free = plan(model, Energy(1.0), example=example)
    layers, _ = filter_layers(unwrap(model))
    # the energy of all directions splits nothing that it does not have to; all else has another reason
    open_ = {n: layers[n] for n in layers if n in free.layers or free.skipped[n].startswith("break-even")}
    chosen = {name: default_method(layer) for name, layer in open_.items()}
    if method is not None:
        takes = {name for name, layer in open_.items() if METHODS[method].refusal(layer) is None}
        chosen.update(dict.fromkeys(takes, METHODS[method]))
    methods = {name: one.name for name, one in chosen.items()}
    ranks = {name: chosen[name].full_rank(layer) for name, layer in open_.items()}
    halves = {name: max(rank // 2, 1) for name, rank in ranks.items()}
    full, half = (plan(model, Ranks(one), example=example, methods=methods) for one in (ranks, halves))
    return Trial(case, full, half)


def named(trial: Trial) -> Finding:
    """Check that every weighted layer is split or left alone with a reason, the one expected where known."""
    weighted, left = named_weighted(unwrap(trial.case.build())), dict(trial.half.skipped)
    problems = [f"{n!r} is neither split nor named" for n in weighted if n not in {*trial.half.layers, *left}]
    problems += [f"{name!r} is left alone without a reason" for name, reason in left.items() if not reason]
    note = "; ".join(f"{name or '(root)'}: {reason}" for name, reason in left.items())
    expected = trial.case.left_alone
    if expected is not None:
        problems += [f"{name!r} is left alone: {left[name]}" for name in left if name not in expected]
        problems += [
            f"{name!r} should be left alone: {part}, got {left.get(name, 'a split')}"
            for name, part in expected.items()
            if part not in left.get(name, "")
        ]
    return without(problems) if problems else Finding(True, note=note)


def full_rank(trial: Trial, dtype: torch.dtype) -> Finding:
    """Check that the network split at full rank computes what it did, in eval mode."""
    model, split, example = trial.pair(trial.full, dtype)
    return _compared(model, split, example, LIMITS[dtype])


def full_rank_training(trial: Trial) -> Finding:
    """Check the same in train mode, with the same random numbers."""
    model, split, example = trial.pair(trial.full, torch.float64)
    return _compared(model.train(), split.train(), example, LIMITS[torch.float64])


def full_rank_by_outputs(trial: Trial) -> Finding:
    """Check that factors made from moments are exact at full rank, too, on the inputs they were made for."""
    case, dtype = trial.case, torch.float32
    model, example = case.build(dtype), case.input(8, dtype)
    methods = {name: choice.method for name, choice in trial.full.layers.items()}
    stats = calibrate(model, [example], inputs=True, forward=call)
    ranks = Ranks({name: choice.full_rank for name, choice in trial.full.layers.items() if name in stats})
    made = plan(model, ranks, example=example, methods=methods, stats=stats)
    return _compared(model, decompose(model, made, stats), example, LIMITS[dtype])


def _compared(model: nn.Module, split: nn.Module, example: Any, limit: float) -> Finding:
    dense = run(model, example)
    if isinstance(dense, str):
        return Finding(None, note=f"the network itself does not run: {dense}")
    with torch.no_grad():
        return within(difference(_seeded(split, example), dense), limit)


def run(model: nn.Module, example: Any) -> Any:
    """Run a network without gradients; give the error as a text where it cannot run."""
    try:
        with torch.no_grad():
            return _seeded(model, example)
    except Exception as error:  # whatever a network may raise
        return say(error)


def _seeded(model: nn.Module, example: Any) -> Any:
    with torch.random.fork_rng(devices=()):
        torch.default_generator.manual_seed(3)
        return call(model, example)


def untouched(trial: Trial) -> Finding:
    """Check that planning and splitting leave the network itself as it was: modules, mode, and every bit."""
    model = trial.case.build()
    before = copy_network(model)
    decompose(model, plan(model, Energy(0.9), example=trial.case.input()))
    decompose(model, trial.half)
    problems = [] if repr(model) == repr(before) else ["its modules changed"]
    problems += [f"{name} changed" for name in _changed(model, before)]
    modes = [[module.training for module in one.modules()] for one in (model, before)]
    return without(problems if modes[0] == modes[1] else [*problems, "its mode changed"])


def stock(trial: Trial) -> Finding:
    """Check that every split is a sequence of torch's own layers, and that nothing else changed its class."""
    model, split, _ = trial.pair(trial.half)
    chains = {name: split.get_submodule(name) for name in trial.half.layers}
    problems = [
        f"{name} is a {type(one).__name__}" for name, one in chains.items() if type(one) is not nn.Sequential
    ]
    inside = {id(part): name for name, one in chains.items() for part in one.modules()}
    for name, module in split.named_modules():
        kind = type(module)
        if id(module) in inside:
            if not kind.__module__.startswith("torch.nn.modules."):
                problems.append(f"{name} is a {kind.__module__}.{kind.__qualname__}")
        elif kind is not type(model.get_submodule(name)):
            problems.append(f"{name} became a {kind.__qualname__}")
    return without(problems)


def sharing(trial: Trial) -> Finding:
    """Check that what was one module or one tensor under several names still is, and nothing else is."""
    model, split, _ = trial.pair(trial.half)
    problems = []
    for what, dense, now in (
        (
            "modules",
            dict(model.named_modules(remove_duplicate=False)),
            dict(split.named_modules(remove_duplicate=False)),
        ),
        ("tensors", _values(model), _values(split)),
    ):
        common = [name for name in dense if name in now]
        if _groups([dense[name] for name in common]) != _groups([now[name] for name in common]):
            problems.append(f"the {what} that share a name are not the same as before")
    return without(problems)


def folding(trial: Trial) -> Finding:
    """Check that every split folds back into the class it came from, and the network computes what it did."""
    model, split, example = trial.pair(trial.full, torch.float64)
    holder = nn.ModuleList([split])
    for name in trial.full.layers:
        chain = split.get_submodule(name)
        dense = fold(chain)  # type: ignore[arg-type]  # another check sees to that
        if repr(dense) != repr(model.get_submodule(name)):
            return Finding(False, note=f"{name} folds into {dense}")
        replace_layer(holder, chain, dense)
    return _compared(model, holder[0], example, LIMITS[torch.float64])


def training(trial: Trial) -> Finding:
    """Check that a step of SGD changes every parameter of a split, where it changes the layer's own.

    A weight that the loss does not depend on, or a bias that a batch norm takes out again, is let off.
    """
    model, split, example = trial.pair(trial.half)
    try:
        idle = {name for name, (size, _) in _step(model, example).items() if size < _IDLE}
    except Exception as error:  # whatever a network may raise
        return Finding(None, note=f"the network itself does not train: {say(error)}")
    origin = {
        f"{name}.{part}": f"{name}.{part.rpartition('.')[2]}".lstrip(".")
        for name in trial.half.layers
        for part, _ in split.get_submodule(name).named_parameters()
    }
    origin = {name.lstrip("."): source for name, source in origin.items()}
    step = _step(split, example)
    still = [name for name, (_, moved) in step.items() if not moved and origin.get(name, name) not in idle]
    return without([f"{name} did not change" for name in still])


def _step(model: nn.Module, example: Any) -> dict[str, tuple[float, bool]]:
    """Take a step of SGD; give each parameter's gradient relative to the largest, and whether it changed."""
    outputs = tensors(_seeded(model.train(), example))
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    loss = sum(((one - 1).square().mean() for one in outputs if one.requires_grad), torch.zeros(()))
    loss.backward()  # type: ignore[no-untyped-call]
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    sizes = {n: 0.0 if p.grad is None else float(p.grad.abs().max()) for n, p in model.named_parameters()}
    largest = max(sizes.values(), default=0.0) or 1.0
    return {
        name: (sizes[name] / largest, not torch.equal(value, before[name]))
        for name, value in model.named_parameters()
    }


def copying(trial: Trial) -> Finding:
    """Check that a deep copy computes the same bits and shares no memory."""
    model, split, example = trial.pair(trial.half)
    problem = run(model, example)
    if isinstance(problem, str):
        return Finding(None, note=f"the network itself does not run: {problem}")
    wanted = run(split, example)
    twin = copy.deepcopy(split)
    problems = [] if same_bits(run(twin, example), wanted) else ["a copy computes something else"]
    memory = {value.data_ptr() for value in _values(split).values() if value.numel()}
    shared = any(value.data_ptr() in memory for value in _values(twin).values() if value.numel())
    return without([*problems, "a copy shares memory"] if shared else problems)


def state_dict(trial: Trial) -> Finding:
    """Check that a copy whose values were lost gets them all back from the state dict."""
    _, split, example = trial.pair(trial.half)
    wanted = run(split, example)
    twin = copy.deepcopy(split)
    with torch.no_grad():
        for value in twin.parameters():
            value.zero_()
    twin.load_state_dict(split.state_dict())
    return without([] if same_bits(run(twin, example), wanted) else ["computes something else"])


def saving(trial: Trial) -> Finding:
    """Check that the split network comes back from a corank file bit by bit."""
    model, split, example = trial.pair(trial.half)
    wanted = run(split, example)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "split.safetensors"
        try:
            save(model, file, reference=trial.case.build)
        except CorankError as error:
            return Finding(None, note=f"the network itself cannot be saved: {error}")
        save(split, file, reference=trial.case.build, plan=trial.half)
        again = load(file, trial.case.build)
    problems = [] if repr(again) == repr(split) else ["its modules changed"]
    problems += [f"{name} changed" for name in _changed(again, split)]
    return without(problems if same_bits(run(again, example), wanted) else [*problems, "computes otherwise"])


def _values(model: nn.Module) -> dict[str, Tensor]:
    """Return every parameter and buffer under each of its names, but those that have no shape yet."""
    found = dict(model.named_parameters(remove_duplicate=False))
    found |= dict(model.named_buffers(remove_duplicate=False))  # type: ignore[arg-type]
    return {name: value for name, value in found.items() if not is_lazy(value)}


def _changed(now: nn.Module, then: nn.Module) -> list[str]:
    one, other = _values(now), _values(then)
    names = dict.fromkeys([*one, *other])
    return [n for n in names if n not in one or n not in other or not same_bits(one[n], other[n])]


def _groups(values: Iterable[object]) -> list[int]:
    first: dict[int, int] = {}
    return [first.setdefault(id(one), index) for index, one in enumerate(values)]


NETWORK_CHECKS: dict[str, Callable[[Trial], Finding]] = {
    "nothing raised, all named": named,
    **{f"full rank, {str(dtype)[6:]}": partial(full_rank, dtype=dtype) for dtype in LIMITS},
    "full rank, train mode": full_rank_training,
    "full rank, data-aware": full_rank_by_outputs,
    "network untouched": untouched,
    "stock modules": stock,
    "sharing kept": sharing,
    "folds back": folding,
    "trains": training,
    "deep copy": copying,
    "state dict": state_dict,
    "save and load": saving,
}
