"""Rivals' factors, run as they stand: AIMET's spatial and weight SVD, and davidgonmar/compress.

Each takes a network, a share of its multiply-accumulates and training images, and gives a smaller network
with the ranks that it chooses itself. What cannot be run here is left out with the reason.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import hashlib
import importlib
import importlib.metadata
import io
import tempfile
from collections.abc import Callable
from unittest import mock

import torch
from torch import Tensor, nn

Batches = list[tuple[Tensor, Tensor]]
RIVALS = ("AIMET spatial SVD", "AIMET weight SVD", "compress, SVD", "compress, activation-aware")
Rival = Callable[[nn.Module, float, Batches], nn.Module]


@functools.cache
def rivals() -> tuple[dict[str, Rival], dict[str, str]]:
    """Return those that can run here, and a line about each: its version, or why it was not run."""
    found: dict[str, Rival] = {}
    notes = {}
    try:
        _declare_torchvision_operators()
        with contextlib.redirect_stdout(io.StringIO()):
            importlib.import_module("aimet_torch.compress")
        # Its candidates are the same at every share; each network is judged once.
        found["AIMET spatial SVD"] = functools.partial(_aimet, "spatial_svd", {})
        found["AIMET weight SVD"] = functools.partial(_aimet, "weight_svd", {})
        version = importlib.metadata.version("aimet-torch")
        notes["AIMET"] = (
            f"aimet-torch {version}, greedy selection with ten candidates a layer, as is its default; it "
            "judges each by the accuracy on 500 training images, once for all shares"
        )
    except Exception as error:
        notes["AIMET"] = f"not run: {type(error).__name__}: {error}"
    try:
        importlib.import_module("compress.factorization.factorize")
        importlib.import_module("pulp")
        found["compress, SVD"] = _compress
        found["compress, activation-aware"] = _compress_aware
        notes["compress"] = (
            "davidgonmar/compress, its automatic ranks by a knapsack over FLOPs, on the same 2,000 training "
            "images; it asks for CUDA in one line, which was answered with the processor"
        )
    except Exception as error:
        notes["compress"] = f"not run: {type(error).__name__}: {error}"
    return found, notes


@functools.cache  # the declarations last as long as the library that made them
def _declare_torchvision_operators() -> torch.library.Library:
    """Let torchvision, which AIMET imports, load beside a torch that lacks its compiled operators."""
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        with contextlib.suppress(RuntimeError):  # it is declared already
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return library


def _digest(model: nn.Module) -> bytes:
    found = hashlib.sha256()
    for value in model.state_dict().values():
        found.update(value.numpy().tobytes())
    return found.digest()


def _aimet(
    scheme: str, seen: dict[bytes, float], model: nn.Module, share: float, train: Batches
) -> nn.Module:
    from aimet_torch.common.defs import (
        CompressionScheme,
        CostMetric,
        GreedySelectionParameters,
        RankSelectScheme,
    )
    from aimet_torch.compress import ModelCompressor
    from aimet_torch.defs import SpatialSvdParameters, WeightSvdParameters

    model = copy.deepcopy(model)
    greedy = GreedySelectionParameters(target_comp_ratio=share)
    ignored = {"modules_to_ignore": [model.linear]}
    if scheme == "spatial_svd":
        kind = SpatialSvdParameters
        mode = kind.AutoModeParams(greedy, **ignored)
    else:
        kind = WeightSvdParameters
        mode = kind.AutoModeParams(RankSelectScheme.greedy, greedy, **ignored)

    def evaluate(candidate: nn.Module, iterations: int | None = None, use_cuda: bool = False) -> float:
        key = _digest(candidate)
        if key not in seen:
            candidate.eval()
            with torch.no_grad():
                right = [(candidate(x).argmax(1) == y).float() for x, y in train[:2]]
            seen[key] = torch.cat(right).mean().item()
        return seen[key]

    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):  # AIMET leaves files
        small, _ = ModelCompressor.compress_model(
            model,
            evaluate,
            1,
            (1, *train[0][0].shape[1:]),
            CompressionScheme[scheme],
            CostMetric.mac,
            kind(kind.Mode.auto, mode),
        )
    return small


def _keys(model: nn.Module) -> list[str]:
    return [name for name, layer in model.named_modules() if isinstance(layer, nn.Conv2d)]


def _loader(train: Batches) -> torch.utils.data.DataLoader:
    images = torch.cat([x for x, _ in train])
    labels = torch.cat([y for _, y in train])
    return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(images, labels), batch_size=250)


def _compress(model: nn.Module, share: float, train: Batches) -> nn.Module:
    from compress.factorization import factorize

    keys = _keys(model)
    cache = factorize.collect_cache_low_rank_auto(model, keys, _loader(train))
    return factorize.to_low_rank_auto(
        model, metric="flops", ratio_to_keep=share, keys=keys, cache=cache, inplace=False
    )


def _compress_aware(model: nn.Module, share: float, train: Batches) -> nn.Module:
    from compress.factorization import factorize

    keys = _keys(model)
    cache = factorize.collect_cache_activation_aware(model, keys, _loader(train))
    with mock.patch.object(torch.Tensor, "cuda", lambda self: self):
        return factorize.to_low_rank_activation_aware_auto(
            model, cache, keys, share, metric="flops", inplace=False
        )
