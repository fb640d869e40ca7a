"""Each rival's cut of a network to a share of its multiply-accumulates, and ours.

Rivals are used as they are installed, in an environment of their own; what cannot run says why. Only
convolutions are cut, in all of them. Every function takes (model, example, share) and returns a new network.
"""

from __future__ import annotations

import contextlib
import copy
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

import corank
from corank.candidates import find_candidates
from corank.cost import model_cost
from corank.spectra import rank_at

TABLE_SECONDS = 60.0  # for each of our latency tables
STEPS = 9  # bisections of a rival's knob
AIMET_CANDIDATES = 4  # ratios tried in each layer; its default of 10 takes 2.5 times as long
AIMET_TOLERANCE = 0.05  # of the share: what counts as having reached it
COMPRESS = Path("/work/rivals/compress")  # a checkout of github.com/davidgonmar/compress
Cut = Callable[[nn.Module, Tensor, float], nn.Module]
Make = Callable[[nn.Module, float], nn.Module]


def our_plan(model: nn.Module, x: Tensor, share: float, engine: str, threads: int) -> corank.Plan:
    """Plan from times measured in the engine: as many multiply-accumulates as the rivals, or fewer."""
    times = corank.latency_table(
        model, x, backend=engine, threads=threads, types=("conv",), time_budget=TABLE_SECONDS, progress=False
    )
    try:
        return corank.plan(model, corank.Budget(macs=share), example=x, table=times, types=("conv",))
    except corank.InfeasibleError as reason:  # not enough splits pay: as deep as they do
        return reason.best_plan


def macs(model: nn.Module, x: Tensor) -> int:
    """Count multiply-accumulates with torch's counter, the same for all."""
    return model_cost(model, x).macs


def largest(make: Make, model: nn.Module, x: Tensor, share: float) -> float:
    """Return the largest knob in (0, 1) at which a cut has at most a share of the multiply-accumulates.

    It looks at shapes only, on the meta device: `make(network, knob)` cuts a copy without values.
    Raises: ValueError, where even the smallest knob has more.
    """
    with torch.device("meta"):
        model, x = copy.deepcopy(model).to("meta"), x.to("meta")
        before, low, high = macs(model, x), 0.01, 0.99

        def left(knob: float) -> float:
            return macs(make(model, knob), x) / before

        if left(low) > share:
            raise ValueError(f"reaches {left(low):.2f} of the multiply-accumulates at best")
        for _ in range(STEPS):
            middle = (low + high) / 2
            low, high = (middle, high) if left(middle) <= share else (low, middle)
    return low


def uniform_energy(model: nn.Module, x: Tensor, share: float) -> nn.Module:
    """Cut every layer at one energy, with our own filter basis: the paper's rule, as `corank.Energy`."""
    found = find_candidates(model, x, types=("conv",)).layers
    layers = {name: candidate for name, (candidate,) in found.items()}
    before = macs(model, x)

    def at(energy: float) -> tuple[float, dict[str, int]]:
        choices = {name: one.choice(rank_at(one.spectrum(), energy)) for name, one in layers.items()}
        made = {name: one for name, one in choices.items() if one.after.macs < one.before.macs}
        saved = sum(one.before.macs - one.after.macs for one in made.values())
        return 1 - saved / before, {name: one.rank for name, one in made.items()}

    low, high = 0.01, 0.9999
    if at(low)[0] > share:
        raise ValueError(f"reaches {at(low)[0]:.2f} of the multiply-accumulates at best")
    for _ in range(STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if at(middle)[0] <= share else (low, middle)
    return corank.decompose(model, corank.plan(model, corank.Ranks(at(low)[1]), example=x))


def fasterai_tucker(model: nn.Module, x: Tensor, share: float) -> nn.Module:
    """fasterai's Conv_Decomposer, Tucker, one share of the channels in every layer."""
    return _fasterai("tucker", model, x, share)


def fasterai_svd(model: nn.Module, x: Tensor, share: float) -> nn.Module:
    """fasterai's Conv_Decomposer, SVD: k×k, then 1×1."""
    return _fasterai("svd", model, x, share)


def _fasterai(method: str, model: nn.Module, x: Tensor, share: float) -> nn.Module:
    from fasterai.misc.conv_decomposer import Conv_Decomposer

    def make(of: nn.Module, kept: float) -> nn.Module:
        # its iterations change the weights, not the shapes, and their stopping test needs values
        return Conv_Decomposer().decompose(of, percent_removed=1 - kept, method=method, n_iter=0)

    return make(model, largest(make, model, x, share)).eval()


def tltorch_tucker(model: nn.Module, x: Tensor, share: float) -> nn.Module:
    """tltorch's FactorizedConv, Tucker over the channels, one rank for all, implementation "factorized"."""
    from tltorch import FactorizedConv

    def make(of: nn.Module, rank: float) -> nn.Module:
        made = copy.deepcopy(of)
        for name, layer in list(made.named_modules()):
            if isinstance(layer, nn.Conv2d) and layer.groups == 1 and max(layer.kernel_size) > 1:
                # weights as they come: they decide no time, and its decomposition takes minutes
                split = FactorizedConv.from_conv(
                    layer,
                    rank=rank,
                    factorization="tucker",
                    implementation="factorized",
                    decompose_weights=False,
                    fixed_rank_modes="spatial",
                )
                parent, _, child = name.rpartition(".")
                setattr(made.get_submodule(parent), child, split)
        return made.eval()

    return make(model, largest(make, model, x, share))


def compress_global(model: nn.Module, x: Tensor, share: float) -> nn.Module:
    """davidgonmar/compress: to_low_rank_auto by operations over all layers, its knapsack for 60 s at most."""
    if not COMPRESS.exists():
        raise FileNotFoundError(f"no checkout at {COMPRESS}")
    with _on_path(COMPRESS):
        from compress.factorization import factorize

    original = factorize.decompose_params
    # the complete left factor, which is cut off at once, takes minutes; the leading columns are the same
    factorize.decompose_params = lambda w: torch.linalg.svd(w, full_matrices=False)
    try:
        keys = [name for name, one in model.named_modules() if isinstance(one, nn.Conv2d) and one.groups == 1]
        cache = factorize.collect_cache_low_rank_auto(model, keys, [(x, None)])
        total, inner = macs(model, x), 0
        layers = dict(model.named_modules())
        for name in keys:
            inner += cache["sizes"][name].numel() * layers[name].weight[0].numel()
        kept = (share * total - (total - inner)) / inner
        if kept <= 0:
            raise ValueError("the layers that it cuts have too few of the multiply-accumulates")
        return factorize.to_low_rank_auto(model, "flops", kept, keys, cache, inplace=False).eval()
    finally:
        factorize.decompose_params = original


def aimet_greedy(model: nn.Module, x: Tensor, share: float) -> nn.Module:
    """AIMET's greedy choice: spatial SVD, and weight SVD where that does not reach the share."""
    _declare_torchvision()
    reached = []
    for scheme in ("spatial_svd", "weight_svd"):
        try:
            with _elsewhere():
                made = _aimet(scheme, model, x, share).eval()
        except Exception as error:  # AIMET raises bare assertions and more
            reached.append(f"{scheme}: {type(error).__name__} {error}")
            continue
        got = macs(made, x) / macs(model, x)
        if got <= share + AIMET_TOLERANCE:
            return made
        reached.append(f"{scheme}: {got:.2f} of the multiply-accumulates")
    raise ValueError("; ".join(reached))


def _aimet(scheme: str, model: nn.Module, x: Tensor, share: float) -> nn.Module:
    from decimal import Decimal

    from aimet_torch import defs
    from aimet_torch.common.defs import CompressionScheme, CostMetric, GreedySelectionParameters
    from aimet_torch.compress import ModelCompressor

    with torch.no_grad():
        wanted = model(x)

    def score(made: nn.Module, iterations: int, use_cuda: bool = False) -> float:
        del iterations, use_cuda
        with torch.no_grad():
            return float(1 - (made.eval()(x) - wanted).norm() / wanted.norm())

    greedy = GreedySelectionParameters(Decimal(str(share)), AIMET_CANDIDATES, use_monotonic_fit=True)
    ignored = [one for one in model.modules() if isinstance(one, nn.Linear)]
    if scheme == "spatial_svd":
        kind = defs.SpatialSvdParameters
        settings = kind(kind.Mode.auto, kind.AutoModeParams(greedy, ignored))
    else:
        kind = defs.WeightSvdParameters
        rank = defs.RankSelectScheme.greedy
        settings = kind(kind.Mode.auto, kind.AutoModeParams(rank, greedy, ignored))
    made, _ = ModelCompressor.compress_model(
        copy.deepcopy(model),
        score,
        1,
        tuple(x.shape),
        CompressionScheme[scheme],
        CostMetric.mac,
        settings,
    )
    return made


_LIBRARIES: list[torch.library.Library] = []


def _declare_torchvision() -> None:
    """Declare two operators that torchvision from PyPI misses beside the CPU build of torch."""
    if not _LIBRARIES:
        library = torch.library.Library("torchvision", "FRAGMENT")
        library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _LIBRARIES.append(library)


@contextlib.contextmanager
def _elsewhere() -> Iterator[None]:
    """Work in a folder that goes away: AIMET leaves files in the current one."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as place:
        os.chdir(place)
        try:
            yield
        finally:
            os.chdir(before)


@contextlib.contextmanager
def _on_path(folder: Path) -> Iterator[None]:
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))


RIVALS: dict[str, Cut] = {
    "uniform energy": uniform_energy,
    "AIMET greedy": aimet_greedy,
    "compress global": compress_global,
    "tltorch Tucker": tltorch_tucker,
    "fasterai Tucker": fasterai_tucker,
    "fasterai SVD": fasterai_svd,
}
