"""Channel pruning along Torch-Pruning's dependency graph, each group of coupled layers checked."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from corank.engines import silenced
from corank.errors import CorankError
from corank.exporting import relative_error, resize_batch
from corank.extras import import_extra
from corank.inputs import Example, call, tensors
from corank.layers import (
    clean_name,
    copy_network,
    groups,
    is_conv,
    is_transposed,
    layer_type,
    refusal,
    to_filters,
)
from corank.probing import unchanged
from corank.sparsity.choice import choose
from corank.sparsity.specs import Channels
from corank.store.stock import is_stock

_LIMITS = {torch.float16: 2e-3, torch.bfloat16: 2e-2}  # of max |y' − y| / max |y|; 1e-4 for all others


@dataclass(frozen=True, slots=True)
class _Group:
    """Layers that gain or lose channels together: the first of them, and how much each channel matters."""

    root: str
    producers: Mapping[str, nn.Module]
    importance_C: Tensor


def prune_channels(
    model: nn.Module, spec: Channels, example: Example
) -> tuple[nn.Module, dict[str, str], dict[str, str]]:
    """Copy a network without its least important channels.

    Args:
        model: a network without wrappers; it is not touched.
        spec: which and how many.
        example: one input.
    Returns: the copy, what was done to each layer that lost output channels, and why others did not.
    Raises: ExtraError, without Torch-Pruning; CorankError, when the network does not run on the example.
    """
    pruning = import_extra("torch_pruning", "prune")
    usable, left = choose(model, spec)
    example = resize_batch(example, 2)
    try:
        with unchanged(model), torch.no_grad():
            call(model.eval(), example)
    except Exception as error:
        raise CorankError(
            f"example: the network does not run on it ({type(error).__name__}: {error}). "
            "Give an input of the shape and dtype that it was trained on."
        ) from error
    while True:
        copy = copy_network(model)
        with unchanged(copy), _trainable(copy), silenced():
            tried = _Attempt(pruning, copy, example, spec, usable, left).run()
        if tried is not None:  # else one more group is left alone, and the copy is spoilt
            return copy, tried, left


class _Attempt:
    """One copy of a network that is pruned group by group until it is done, or a group turns out wrong."""

    def __init__(
        self,
        pruning: Any,
        copy: nn.Module,
        example: Example,
        spec: Channels,
        usable: Mapping[str, nn.Module],
        left: dict[str, str],
    ) -> None:
        self.tp, self.copy, self.example, self.spec = pruning, copy, example, spec
        self.usable, self.left = usable, left
        self.names = {id(module): clean_name(name) for name, module in copy.named_modules()}
        self.modules = dict(copy.named_modules())
        self.owners = Counter(id(one) for part in copy.modules() for one in part._parameters.values())

    def run(self) -> dict[str, str] | None:
        """Return what was done; None where a group was found that must be left alone."""
        try:
            self.graph = self.tp.DependencyGraph().build_dependency(
                self.copy, example_inputs=self.example, forward_fn=call
            )
            every = list(self.graph.get_all_groups())
            found = [one for group in every if (one := self._read(group)) is not None]
        except Exception as error:  # whatever its tracing runs into
            reason = f"Torch-Pruning cannot follow the network ({type(error).__name__}: {str(error)[:100]})"
            self.left.update(dict.fromkeys(self.usable, reason))
            return {}
        seen = {self.names.get(id(dep.target.module)) for group in every for dep, _ in group}
        unused = [name for name in self.usable if name not in seen]
        self.left.update(dict.fromkeys(unused, "the network does not use it on this example"))
        done: dict[str, str] = {}
        spared: list[str] = []
        for group, indices in zip(found, _weakest(found, self.spec), strict=True):
            if not indices:
                spared += group.producers
                continue
            if (problem := self._prune(group, indices)) is not None:
                self.left.update(dict.fromkeys(group.producers, problem))
                return None
            total = len(group.importance_C)
            text = f"{total - len(indices)} of {total} output channels"
            done.update(dict.fromkeys(group.producers, text))
        self.left.update(dict.fromkeys(spared, _spared(self.spec)))  # last: another attempt ranks them again
        return done

    def _read(self, group: Any) -> _Group | None:
        """Take a group, or note why its layers are left alone."""
        producers: dict[str, nn.Module] = {}
        problems: list[str] = []
        reaches, consumers = False, 0
        for node, handler in ((dep.target, dep.handler) for dep, _ in group):
            module, reads = node.module, self._reads(handler)
            reaches |= not node.outputs and not reads
            if isinstance(module, nn.Parameter):
                problems.append("a bare parameter has these channels too")
            elif (name := self.names.get(id(module))) is not None:  # else an operation of the graph
                if (problem := self._problem(name, module, reads)) is not None:
                    problems.append(problem)
                consumers += reads
                if layer_type(module) is not None and not reads:
                    producers[name] = module
        if not producers or set(producers) & set(self.left):
            known = [self.left[name] for name in producers if name in self.left]
            for name in producers:
                self.left.setdefault(name, f"coupled with a layer that is left alone: {known[0]}")
            return None
        reason = "its channels reach the output of the network" if reaches or not consumers else None
        reason = problems[0] if problems and not reaches else reason
        if reason is not None:
            self.left.update(dict.fromkeys(producers, reason))
            return None
        try:
            importance = self._importance(group)
        except Exception as error:  # its layers do not have the channels that the graph says
            reason = f"Torch-Pruning misreads what shares its channels ({type(error).__name__}: {error})"
            self.left.update(dict.fromkeys(producers, reason[:200]))
            return None
        return _Group(self.names[id(group[0].dep.target.module)], producers, importance)

    def _problem(self, name: str, module: nn.Module, reads: bool) -> str | None:
        if any(self.owners[id(one)] > 1 for one in module._parameters.values() if one is not None):
            return f"{name} has these channels, and its weight is tied to another module's"
        if layer_type(module) is None:
            return None if is_stock(module) else f"a {type(module).__name__} has these channels too"
        if is_conv(module) and 1 < groups(module) < module.out_channels:
            return "a grouped convolution has these channels, and its groups must stay of one size"
        why = refusal(module) if reads else None
        return None if why is None else f"{name} reads its channels: {why}"

    def _reads(self, handler: Any) -> bool:
        return bool(handler in (self.tp.prune_conv_in_channels, self.tp.prune_linear_in_channels))

    def _importance(self, group: Any) -> Tensor:
        """Return how much each channel matters; those whose filters are all zero come first, at −1."""
        found: Tensor = self.tp.importance.GroupMagnitudeImportance(p=2)(group).detach().float().cpu()
        alive = torch.zeros(len(found), dtype=torch.bool)
        for dep, _ in group:
            layer = dep.target.module
            if layer_type(layer) is not None and not self._reads(dep.handler):
                rows = to_filters(layer.weight.detach(), layer).flatten(0, 1)
                alive |= (rows != 0).any(1).cpu() if len(rows) == len(found) else True
        return torch.where(alive, found.nan_to_num(0.0), -torch.ones(()))

    def _prune(self, group: _Group, indices: list[int]) -> str | None:
        """Remove channels; say why they cannot be removed, if so: the network is then spoilt."""
        root = self.modules[group.root]
        try:
            whole = self.graph.get_pruning_group(
                root, self.graph.get_pruner_of_module(root).prune_out_channels, indices
            )
            if not self.graph.check_pruning_group(whole):
                return "a layer that shares its channels would lose all of them"
            readers = [(dep.target.module, list(idxs)) for dep, idxs in whole if self._reads(dep.handler)]
            with _unread(readers):
                wanted = self._outputs()
            whole.prune()
            got = self._outputs()
        except Exception as error:  # shapes that no longer fit, in the user's own forward
            return f"the network does not run without some of its channels ({str(error)[:100]})"
        errors = [relative_error(a, b) for a, b in zip(wanted, got, strict=True)]
        limits = [_LIMITS.get(one.dtype, 1e-4) for one in wanted]
        if any(not error <= limit for error, limit in zip(errors, limits, strict=True)):
            return (
                "without some of its channels the network computes more than their loss: a norm or a shortcut"
            )
        return None

    def _outputs(self) -> list[Tensor]:
        with torch.no_grad():
            return [one.detach().clone() for one in tensors(call(self.copy.eval(), self.example))]


def _spared(spec: Channels) -> str:
    which = "all zero" if spec.ratio is None else "among the weakest"
    return f"none of its channels is {which}, or too few for a multiple of {spec.multiple}"


def _weakest(found: Sequence[_Group], spec: Channels) -> Iterator[list[int]]:
    """Yield the channels that each group loses."""
    if not found:
        return
    sizes = [len(one.importance_C) for one in found]
    every = torch.cat([one.importance_C for one in found])
    gone = torch.zeros(len(every), dtype=torch.bool)
    gone[every.argsort(stable=True)[: round((spec.ratio or 0.0) * len(every))]] = True
    for one, here, total in zip(found, torch.split(gone, sizes), sizes, strict=True):
        if spec.ratio is None:
            wanted = int((one.importance_C < 0).sum())
        else:
            wanted = round(spec.ratio * total) if spec.scope == "layer" else int(here.sum())
        kept = max(total - wanted, math.ceil(total * (1 - spec.max_ratio)), 1)
        kept = min(math.ceil(kept / spec.multiple) * spec.multiple, total)
        yield sorted(one.importance_C.argsort(stable=True)[: total - kept].tolist())


@contextmanager
def _unread(readers: Sequence[tuple[Any, list[int]]]) -> Iterator[None]:
    """Let layers read nothing of some of their input channels."""
    kept = [(layer, layer.weight.detach().clone()) for layer, _ in readers]
    try:
        with torch.no_grad():
            for layer, indices in readers:
                weight = layer.weight
                (weight if is_transposed(layer) else weight.transpose(0, 1))[indices] = 0
        yield
    finally:
        with torch.no_grad():
            for layer, weight in reversed(kept):
                layer.weight.copy_(weight)


@contextmanager
def _trainable(model: nn.Module) -> Iterator[None]:
    """Let every parameter have a gradient, since the graph is read off autograd; without any afterwards."""
    wanted = {name: one.requires_grad for name, one in model.named_parameters()}
    for one in model.parameters():
        if one.is_floating_point() or one.is_complex():
            one.requires_grad_(True)
    try:
        with torch.enable_grad():
            yield
    finally:
        for name, one in model.named_parameters():
            one.requires_grad_(wanted[name])
            one.grad = None
