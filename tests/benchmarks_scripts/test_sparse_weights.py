"""The benchmark of what zeros buy: its networks, and its page on canned data."""

from __future__ import annotations

import pytest
import torch
from benchmarks.sparse_weights import COPIED, page, sparse
from torch import nn

import corank


def test_every_network_is_as_sparse_as_its_name_says():
    pytest.importorskip("torch_pruning", reason="channels come with the extra `prune`")
    net = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 16))
    made = sparse(net, torch.randn(2, 16), (0.5, 0.75))
    shares = {name: corank.count_zeros(one).share for name, one in made.items()}
    copies = dict.fromkeys(COPIED, 0)
    zeros = {"50% zeros": 0.5, "75% zeros": 0.75, "2:4": 0.5}
    assert shares == {"dense": 0} | copies | zeros | {"half of the channels": 0}
    assert made["half of the channels"][0].out_features == 16


def test_the_page_says_in_words_where_zeros_buy_nothing():
    def row(zeros, torch_speed, openvino_speed):
        speedup = {"torch": [torch_speed] * 3, "openvino": [openvino_speed] * 3}
        return {"zeros": zeros, "zipped": 0.5, "speedup": speedup, "int8": [1.0] * 3, "packed": [1.0] * 3}

    rows = {"dense": row(0.0, 1, 1)} | {name: row(0.0, 1.05, 1.05) for name in COPIED}
    rows |= {"80% zeros": row(0.8, 1.04, 1.2), "half of the channels": row(0.0, 2, 2)}
    text = page({"a block": {"rows": rows}}, amx=False)
    assert "Zeros buy no time in torch. They buy some in openvino" in text
    assert "This processor has no AMX" in text
    assert "| 80% zeros | 80% | 0.50 | 1.04 (1.04 – 1.04) | 1.20" in text
