from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from corank import leading
from corank.leading import gram, leading_eigenvectors, leading_vectors, project_rows


def _random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _covariance(size, decay, seed=0):
    """A matrix with the spectrum m^(-2 · decay), in random directions."""
    directions = torch.linalg.qr(_random(size, size, seed=seed)).Q
    return (directions * torch.arange(1, size + 1, dtype=torch.float64) ** (-2 * decay)) @ directions.mT


def _kept(symmetric, vectors):
    return float((vectors * (symmetric @ vectors)).sum())


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 3))
@settings(max_examples=20, deadline=None)
def test_gram_of_either_side_in_tiles_and_blocks(n, d, g):
    w = _random(g, n, d, seed=n * 10 + d)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(leading, "TILE", 4)
        patch.setattr(leading, "_BLOCK", 3)
        assert torch.allclose(gram(w), w @ w.mT if n <= d else w.mT @ w, rtol=1e-12, atol=1e-12)
        assert torch.allclose(project_rows(w[..., :1], w), w[..., :1].mT @ w, rtol=1e-12, atol=1e-12)


def test_the_gram_matrix_of_half_precision_is_that_of_its_values():
    w = _random(1, 5, 7).bfloat16()
    assert torch.equal(gram(w), w.double() @ w.double().mT)


@pytest.mark.parametrize("rank", [4, 18, 100, 255, 400, 512])
@pytest.mark.parametrize("decay", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("large", [576, 577])
def test_leading_directions_keep_what_the_best_ones_keep(rank, decay, large, monkeypatch):
    monkeypatch.setattr(leading, "_LARGE", large)
    symmetric = _covariance(576, decay) if decay else gram(_random(1, 576, 2000))[0]
    vectors = leading_eigenvectors(symmetric, rank)
    energies = torch.linalg.eigvalsh(symmetric).flip(0)
    assert vectors.shape == (576, rank)
    assert torch.allclose(vectors.mT @ vectors, torch.eye(rank, dtype=torch.float64), atol=1e-12)
    lost, best = float(energies.sum()) - _kept(symmetric, vectors), float(energies[rank:].sum())
    assert lost - best <= 2e-5 * best + 1e-12 * float(energies.sum())


@pytest.mark.parametrize("decay", [0.0, 1.0])
def test_a_higher_rank_never_loses_more_where_the_way_of_finding_it_changes(decay):
    symmetric = _covariance(576, decay) if decay else gram(_random(1, 576, 600))[0]
    kept = [
        _kept(symmetric, leading_eigenvectors(symmetric, rank)) for rank in (*range(1, 24), 287, 288, 289)
    ]
    assert kept == sorted(kept)


@pytest.mark.parametrize("true_rank", [0, 1, 5, 40])
def test_a_matrix_of_low_rank_is_kept_whole(true_rank):
    factor = _random(600, true_rank)
    symmetric = factor @ factor.mT
    vectors = leading_eigenvectors(symmetric, 18)
    best = float(torch.linalg.eigvalsh(symmetric)[-18:].sum())
    assert _kept(symmetric, vectors) >= best * (1 - 1e-6)
    assert torch.allclose(vectors.mT @ vectors, torch.eye(18, dtype=torch.float64), atol=1e-12)


def test_a_search_that_does_not_settle_gives_way_to_the_exact_solver(monkeypatch):
    symmetric = gram(_random(1, 576, 600))[0]
    monkeypatch.setattr(leading, "_STEPS", 1)
    assert leading._krylov(symmetric, 4) is None
    values = torch.linalg.eigvalsh(symmetric)[-4:].flip(0)
    vectors = leading_eigenvectors(symmetric, 4)
    assert torch.allclose((vectors * (symmetric @ vectors)).sum(0), values, rtol=1e-12)


def test_the_same_matrix_gives_the_same_directions():
    symmetric = _covariance(576, 0.5)
    state = torch.random.get_rng_state()
    assert torch.equal(leading_eigenvectors(symmetric, 6), leading_eigenvectors(symmetric, 6))
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize(("n", "d"), [(520, 700), (700, 520), (520, 520), (8, 9), (9, 8), (8, 8)])
def test_vectors_of_several_groups(n, d):
    w = _random(2, n, d)
    rank = min(n, d) * 2 // 5
    found = leading_vectors(w, rank)
    exact = torch.linalg.svd(w, full_matrices=False).Vh[:, :rank].mT
    assert torch.allclose(found @ found.mT, exact @ exact.mT, atol=1e-9)
