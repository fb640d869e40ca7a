"""The leading directions of a symmetric matrix, and the smaller Gram matrix of filters, in float64.

Shapes: G groups, N filters in a group, D weights in a filter, R = min(N, D), M wanted directions.
"""

from __future__ import annotations

import torch
from torch import Tensor

TILE = 1024  # columns of the weights that are in float64 at a time
_BLOCK = 256  # rows of the Gram matrix that are multiplied at a time, its lower half is copied
_SMALL = 512  # below it a full decomposition is as fast as anything
_LARGE = 2048  # from here on a partial decomposition is as fast as a full one, and takes less memory
_FEW = 32  # a rank of at most R / 32 is few directions
_STEPS = 24  # of the block Krylov space, before the exact way is taken
_TOLERANCE = 2e-5  # of the energy that the best basis loses: 1e-5 of the relative error


def gram(w_GND: Tensor) -> Tensor:
    """Return the smaller Gram matrix, W Wᵀ or Wᵀ W, (G, R, R), in float64; of a square one W Wᵀ.

    It is summed over tiles of the longer side, so that W is never in float64 as a whole, and only its upper
    blocks are multiplied.

    >>> gram(torch.tensor([[[1.0, 2.0]]]))
    tensor([[[5.]]], dtype=torch.float64)
    """
    w = w_GND.detach()
    rows = w if w.shape[1] <= w.shape[2] else w.mT
    size = rows.shape[1]
    total = rows.new_zeros(len(rows), size, size, dtype=torch.float64)
    for tile in torch.split(rows, TILE, -1):
        wide = tile.double()
        for start in range(0, size, _BLOCK):
            total[:, start : start + _BLOCK, start:].baddbmm_(
                wide[:, start : start + _BLOCK], wide[:, start:].mT
            )
    for start in range(0, size, _BLOCK):
        stop = start + _BLOCK
        total[:, stop:, start:stop] = total[:, start:stop, stop:].mT
    return total


def leading_vectors(w_GND: Tensor, rank: int) -> Tensor:
    """Return the leading right singular vectors of each group, (G, D, M), orthonormal, in float64.

    They come from the smaller Gram matrix: of Wᵀ W directly, or as the orthonormalised Wᵀ U.

    >>> leading_vectors(torch.diag(torch.tensor([1.0, 2.0]))[None], 1).abs().tolist()
    [[[0.0], [1.0]]]
    """
    w = w_GND.detach()
    if w.shape[2] <= w.shape[1]:
        return leading_eigenvectors(gram(w.mT), rank)
    found = leading_eigenvectors(gram(w), rank)
    vectors: Tensor = torch.linalg.qr(project_rows(found, w).mT).Q
    return vectors


def project_rows(basis_GNM: Tensor, w_GND: Tensor) -> Tensor:
    """Return Uᵀ W, (G, M, D), in float64, tile by tile.

    >>> project_rows(torch.ones(1, 2, 1, dtype=torch.float64), torch.ones(1, 2, 3)).tolist()
    [[[2.0, 2.0, 2.0]]]
    """
    g, _, m = basis_GNM.shape
    product = basis_GNM.new_empty(g, m, w_GND.shape[2])
    parts = torch.split(product, TILE, -1), torch.split(w_GND.detach(), TILE, -1)
    for out, tile in zip(*parts, strict=True):
        out.copy_(basis_GNM.mT @ tile.double())
    return product


def leading_eigenvectors(symmetric: Tensor, rank: int) -> Tensor:
    """Return the eigenvectors of the largest eigenvalues, (..., N, M), largest first.

    A small matrix, or one of which most directions are wanted, is decomposed in full. A few directions of a
    larger one are found in a random block Krylov space, which is grown until what it keeps settles within
    2·10⁻⁵ of what is lost, Σ_{m>M} λ_m: the relative error of a split is then the best to 10⁻⁵, and a higher
    rank still never loses more, for a direction outweighs the tolerance on all that follow it. Everything
    between, and what does not settle, is decomposed exactly: in full, or by LAPACK's solver for part of the
    spectrum where the matrix is large.

    Args:
        symmetric: positive semidefinite, in float64.
        rank: M.
    Source: Musco and Musco 2015 (arXiv 1504.05477), block Krylov iteration; LAPACK `dsyevr`.
    """
    size = symmetric.shape[-1]
    if size < _SMALL or 2 * rank > size or symmetric.device.type != "cpu":
        return _full(symmetric, rank)
    flat = symmetric.reshape(-1, size, size)
    found = [_krylov(one, rank) if _FEW * rank <= size else None for one in flat]
    solve = _full if size < _LARGE else _partial
    exact = [solve(matrix, rank) if one is None else one for one, matrix in zip(found, flat, strict=True)]
    return torch.stack(exact).reshape(*symmetric.shape[:-1], rank)


def _full(symmetric: Tensor, rank: int) -> Tensor:
    vectors: Tensor = torch.linalg.eigh(symmetric).eigenvectors  # smallest first
    return vectors[..., -rank:].flip(-1)


def _partial(symmetric: Tensor, rank: int) -> Tensor:
    from scipy.linalg import eigh  # here, since `import corank` is to stay light

    size = len(symmetric)
    matrix = symmetric.numpy().T  # LAPACK's order, without a copy
    _, vectors = eigh(matrix, subset_by_index=(size - rank, size - 1), check_finite=False)
    return torch.from_numpy(vectors).flip(-1)


def _krylov(symmetric: Tensor, rank: int) -> Tensor | None:
    """Search span{X, A X, A² X, …} for a random block X; None where it does not settle."""
    size = len(symmetric)
    width = rank + min(8, rank) + rank // 4
    generator = torch.Generator().manual_seed(0)
    block = torch.linalg.qr(torch.randn(size, width, generator=generator, dtype=torch.float64)).Q
    total = float(symmetric.diagonal().sum())
    rounding = size * torch.finfo(torch.float64).eps * total
    basis = block
    compressed = torch.empty(0, 0, dtype=torch.float64)  # Qᵀ A Q
    kept = 0.0
    for _ in range(_STEPS):
        image = symmetric @ block
        column = basis.mT @ image
        old = basis.shape[1] - width
        compressed = torch.cat([torch.cat([compressed, column[:old].mT]), column], 1)
        values, vectors = torch.linalg.eigh((compressed + compressed.mT) / 2)
        before, kept = kept, float(values[-rank:].sum())
        lost = max(total - kept, 0.0)
        slack = max(_TOLERANCE * lost, rounding)
        if min(kept - before, lost) <= slack:
            found: Tensor = torch.linalg.qr(basis @ vectors[:, -rank:].flip(-1)).Q
            again = float((found * (symmetric @ found)).sum())  # a space that has degenerated shows here
            return found if abs(again - kept) <= slack else None
        if basis.shape[1] + width > size // 2:
            return None
        image -= basis @ column
        image -= basis @ (basis.mT @ image)  # twice is enough
        block = torch.linalg.qr(image).Q
        basis = torch.cat([basis, block], 1)
    return None
