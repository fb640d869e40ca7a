"""Carry out a plan on files: layer by layer, without the whole network in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from corank._version import __version__
from corank.decomposition import planned_layers, split_layer
from corank.errors import CorankError, FileError
from corank.layers import FilterLayer, replace_layer
from corank.methods import METHODS
from corank.methods.structure import hollow
from corank.plans import Plan
from corank.store.assembly import apply
from corank.store.diff import compare, first_few, join
from corank.store.files import write_in_parts
from corank.store.header import Header
from corank.store.inventory import note_tensors
from corank.store.saving import make_reference
from corank.store.slots import find_slots
from corank.store.weights import WeightFiles


class _Untouched(TorchFunctionMode):
    """Leaves parameters as they are allocated: memory that is never written to is never taken."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        target = args[0] if args else kwargs.get("tensor")  # torch.nn.init passes it by name
        writes = name.endswith("_") and not name.endswith("__") and name != "requires_grad_"
        if writes and isinstance(target, nn.Parameter):
            return target
        return func(*args, **kwargs)


def apply_plan(
    plan: Plan,
    weights: str | PathLike[str],
    out: str | PathLike[str],
    reference: Callable[[], nn.Module],
) -> None:
    """Split the layers in a file of weights as planned, and write the file that `corank.save` would.

    The network is built by its factory without filling its parameters in, so that it takes next to no
    memory; then one layer's weights are read, split and written at a time.

    Args:
        plan: made for this network, on its weights.
        weights: a safetensors file with the names of the network's `state_dict`, or the
            `model.safetensors.index.json` of one in shards.
        out: the file; load it with `corank.load(out, reference)`.
        reference: builds the dense network.
    Raises: FileError, naming what is missing, unknown or has another shape; LayerError, when the plan is for
        another network; CorankError, for a plan that needs statistics. Nothing is then written.

    >>> import tempfile
    >>> from safetensors.torch import save_file
    >>> from corank.planning import plan
    >>> from corank.rules import Ranks
    >>> make = lambda: nn.Sequential(nn.Linear(8, 8))
    >>> net = make()
    >>> made = plan(net, Ranks({"0": 2}), example=torch.ones(1, 8))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_file(net.state_dict(), f"{folder}/net.safetensors")
    ...     apply_plan(made, f"{folder}/net.safetensors", f"{folder}/small.safetensors", make)
    """
    if plan.factors == "outputs":
        raise CorankError(
            "apply: this plan keeps the outputs that corank.calibrate measured, and files of weights have "
            "none. Load the network and use corank.decompose with the statistics, or plan without them."
        )
    source = WeightFiles(Path(weights))
    with _Untouched():
        model = make_reference(reference)
    layers = planned_layers(model, plan)
    dense = dict(model.state_dict(keep_vars=True))
    try:
        names = _fit(dense, source)
    except FileError as error:
        raise FileError(f"{weights}: {error}") from error
    paths = {id(module): path for path, module in reversed(list(model.named_modules()))}
    where = {name: paths[id(layer)] for name, layer in layers.items()}
    holder = nn.ModuleList([model])
    for name, layer in layers.items():
        choice = plan.layers[name]
        replace_layer(holder, layer, hollow(METHODS[choice.method].structure(layer, choice.rank), layer))
    small = holder[0]
    with _Untouched():
        fresh = make_reference(reference)
    architecture = compare(small, fresh)
    tensors, notes = note_tensors(small, apply(fresh, architecture))
    header = Header(__version__, str(torch.__version__), architecture, notes, plan.to_json())

    def parts() -> Iterator[tuple[str, Tensor]]:
        rest = dict(tensors)
        for name, layer in layers.items():
            _read_into(layer, where[name], source, names)
            split = split_layer(name, layer, plan.layers[name], None)
            _empty(layer)
            for key, tensor in split.state_dict().items():
                if rest.pop(join(where[name], key), None) is not None:
                    yield join(where[name], key), tensor
        for name, tensor in rest.items():
            yield name, source.read(names[name]).to(tensor.dtype) if name in names else tensor

    write_in_parts(Path(out), tensors, header.to_json(), parts())


def _fit(dense: Mapping[str, Tensor], source: WeightFiles) -> dict[str, str]:
    """Say under which name the file has each tensor of the network; one of a tie is enough."""
    ties: dict[int, str] = {}
    for name, tensor in dense.items():
        if name in source.tensors:
            ties.setdefault(id(tensor), name)
    found, problems = {}, []
    for name, tensor in dense.items():
        stored = name if name in source.tensors else ties.get(id(tensor))
        if stored is None:
            problems.append(f"{name} is not in the file")
            continue
        shape, dtype = source.tensors[stored]
        if shape != tensor.shape:
            problems.append(f"{name} is {tuple(shape)} in the file, {tuple(tensor.shape)} in the network")
        elif dtype.is_floating_point != tensor.dtype.is_floating_point:
            problems.append(f"{name} is {dtype} in the file, {tensor.dtype} in the network")
        found[name] = stored
    problems += [f"the network has no {name!r:.80}" for name in sorted(set(source.tensors) - set(dense))]
    if problems:
        raise FileError(
            f"it does not fit the network: {first_few(problems)}. Give the weights of this model."
        )
    return found


def _read_into(layer: FilterLayer, path: str, source: WeightFiles, names: Mapping[str, str]) -> None:
    for key, slot in find_slots(layer).items():
        if isinstance(slot.tensor, nn.Parameter):
            values = source.read(names[join(path, key)]).to(slot.tensor.dtype)
            layout = torch.empty_like(slot.tensor, requires_grad=False).copy_(values)
            slot.put(nn.Parameter(layout, slot.tensor.requires_grad))


def _empty(layer: FilterLayer) -> None:
    for slot in find_slots(layer).values():
        if isinstance(slot.tensor, nn.Parameter):
            slot.put(nn.Parameter(slot.tensor.detach().to("meta"), slot.tensor.requires_grad))
