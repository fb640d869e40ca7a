"""Other ways to split a layer at a rank: plain SVD, and the libraries that are installed.

Each takes a layer and a rank and returns two matrices whose product approximates the layer's filters,
(N, M) and (M, D); AIMET's unfolds a convolution along its input channels instead, (C, M) and (M, N·k).
Run where they are installed, each without the dependencies that it does not need here:
`pip install --no-deps aimet-torch fasterai tensorly torchvision` and what they then miss at import;
davidgonmar/compress (commit 32751aa) is a folder on PYTHONPATH, never in this repository.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import sys
from collections.abc import Callable

import torch
from torch import Tensor, nn

from corank.layers import FilterLayer, filter_matrix, full_rank

Split = Callable[[FilterLayer, int], tuple[Tensor, Tensor]]
PLAIN = "torch.linalg.svd"
_DECLARED: list[torch.library.Library] = []  # what is declared lasts as long as the library object


def plain_svd(layer: FilterLayer, rank: int) -> tuple[Tensor, Tensor]:
    u, s, v = torch.linalg.svd(filter_matrix(layer)[0].detach(), full_matrices=False)
    return u[:, :rank] * s[:rank], v[:rank]


def aimet(layer: FilterLayer, rank: int) -> tuple[Tensor, Tensor]:
    """The split of AIMET's weight SVD, `WeightSvdModuleSplitter`."""
    from aimet_torch.svd.svd_splitter import WeightSvdModuleSplitter as Splitter

    if not isinstance(layer, nn.Linear):  # the same share of another full rank
        channels = layer.in_channels
        rank = max(1, rank * min(channels, layer.weight.numel() // channels) // full_rank(layer))
    split = Splitter.split_fc_module if isinstance(layer, nn.Linear) else Splitter.split_conv_module
    first, second = (part.weight.detach() for part in split(layer, rank))
    if isinstance(layer, nn.Linear):
        return second, first
    return first.flatten(1).mT, second.transpose(0, 1).flatten(1)


def fasterai(layer: FilterLayer, rank: int) -> tuple[Tensor, Tensor]:
    """The SVD of fasterai's two decomposers, which take a share to remove in place of a rank."""
    from fasterai.misc.conv_decomposer import Conv_Decomposer
    from fasterai.misc.fc_decomposer import FC_Decomposer

    if isinstance(layer, nn.Linear):
        side, made = min(layer.weight.shape), FC_Decomposer()
    else:
        side, made = min(layer.out_channels, layer.in_channels), Conv_Decomposer()
    first, last = made.SVD(layer, 1 - (rank + 0.5) / side)
    return last.weight.detach().flatten(1), first.weight.detach().flatten(1)


def compress(layer: FilterLayer, rank: int) -> tuple[Tensor, Tensor]:
    """davidgonmar/compress: a full SVD, and its factors."""
    from compress.factorization import factorize

    factor = factorize.factorize_linear if isinstance(layer, nn.Linear) else factorize.factorize_conv2d
    made = factor(layer, lambda *_: rank)
    if made is layer:
        raise ValueError("it leaves this layer as it is")
    if isinstance(layer, nn.Linear):  # its factors act on rows
        return made.w1.detach().mT, made.w0.detach().mT
    return made.w1.detach().flatten(1), made.w0.detach().flatten(1)


def tensorly(method: str) -> Split:
    """One of tensorly's SVDs, which its Tucker and tltorch's layers are built on."""

    def split(layer: FilterLayer, rank: int) -> tuple[Tensor, Tensor]:
        import tensorly as tl
        from tensorly.tenalg.svd import randomized_svd, symeig_svd, truncated_svd

        tl.set_backend("pytorch")
        found = {"truncated": truncated_svd, "symeig": symeig_svd, "randomized": randomized_svd}[method]
        options = {"random_state": 0} if method == "randomized" else {}
        u, s, v = found(filter_matrix(layer)[0].detach(), rank, **options)
        return u * s, v

    return split


RIVALS: dict[str, tuple[str, str, Split]] = {  # name: (module, distribution, how)
    "AIMET weight SVD": ("aimet_torch.svd.svd_splitter", "aimet-torch", aimet),
    "fasterai SVD": ("fasterai.misc.conv_decomposer", "fasterai", fasterai),
    "compress": ("compress.factorization.factorize", "", compress),
    "tensorly truncated_svd": ("tensorly", "tensorly", tensorly("truncated")),
    "tensorly symeig_svd": ("tensorly", "tensorly", tensorly("symeig")),
    "tensorly randomized_svd": ("tensorly", "tensorly", tensorly("randomized")),
}


def find_rivals() -> tuple[dict[str, Split], dict[str, str]]:
    """Return the rivals that can be imported, and of every one its version or why it is absent."""
    declare_torchvision()
    found, said = {}, {}
    for name, (module, distribution, split) in RIVALS.items():
        try:
            importlib.import_module(module)
        except Exception as error:  # what a half-installed package raises is its own affair
            said[name] = f"absent ({type(error).__name__}: {str(error)[:80]})"
        else:
            found[name] = split
            said[name] = importlib.metadata.version(distribution) if distribution else "from its repository"
    return found, said


def declare_torchvision() -> None:
    """Declare the two operators without which torchvision cannot be imported beside this torch."""
    try:
        importlib.import_module("torchvision")
    except Exception:
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]  # it is half imported
        library = torch.library.Library("torchvision", "FRAGMENT")
        for operator in ("nms", "qnms"):
            library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _DECLARED.append(library)
