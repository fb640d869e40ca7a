"""The page of factors says what was measured, missed marks and failed rivals included."""

from __future__ import annotations

import pytest
import torch
from benchmarks.factors import mark, missing, page
from benchmarks.sentences import by_length, embed, nearest
from torch import nn


def _row(accuracy: float, low: float, **more) -> dict:
    row = {"share": 0.69, "method": "spatial", "factors": "asymmetric", "macs": 0.688, "seconds": 4.0}
    return row | {"accuracy": accuracy, "accuracy_ci": [low, 0.95], "accuracy_batchnorm": 0.9} | more


def _part(*rows: dict) -> dict:
    dense = {"accuracy": 0.92, "accuracy_ci": [0.91, 0.93]}
    run = {"command": "python -m benchmarks.factors resnet20", "date": "today", "threads": 1}
    return {"dense": dense, "rows": list(rows), "runs": [run], "images": 2000}


@pytest.mark.parametrize(
    ("accuracy", "low", "wanted"),
    [
        (0.9, 0.88, "**passed**. The best row is spatial, asymmetric, 90.0% (88.0 to 95.0); 1 of 2 rows"),
        (0.88, 0.86, "1 of 2 rows reach the mark, 0 with their whole interval"),
        (0.87, 0.85, "**missed**. The best row is spatial, asymmetric, 87.0%"),
    ],
)
def test_the_mark(accuracy, low, wanted):
    assert wanted in mark({"resnet20": _part(_row(accuracy, low), _row(0.5, 0.4))})


def test_a_part_that_was_not_measured_is_said_to_be_missing():
    assert "Not measured" in mark({})


def test_the_page_holds_failures_and_reasons():
    failed = {"share": 0.5, "method": "AIMET spatial SVD", "failed": "RuntimeError: no"}
    rivals = _part(_row(0.8, 0.7, method="compress, SVD"), failed)
    text = page(
        {"resnet20": _part(_row(0.9, 0.88)), "rivals": rivals | {"notes": {"AIMET": "not run: reason"}}}
    )
    assert "| spatial | asymmetric | 0.688 | 90.0 | 88.0 to 95.0 | 90.0 | 4.0 |" in text
    assert "| compress, SVD | 0.688 | 80.0 |" in text
    assert "- AIMET: not run: reason." in text
    assert "- AIMET spatial SVD at 0.5: failed, RuntimeError: no." in text
    assert "- rivals: `python -m benchmarks.factors resnet20`, today, 1 thread" in text


def test_what_has_no_figure_is_named():
    left = missing({"resnet20": _part(_row(0.9, 0.88))})
    assert "resnet20: spatial at 69% of the MACs" not in left
    assert "resnet20: spatial at 50% of the MACs" in left
    assert "rivals: AIMET weight SVD at 30% of the MACs" in left
    assert "- minilm: svd at 30% of the MACs" in page({"resnet20": _part(_row(0.9, 0.88))})


def _words(sentence: str, **_: object) -> dict[str, list[int]]:
    return {"input_ids": [len(word) for word in sentence.split()]}


class _Encoder(nn.Module):
    def forward(self, input_ids: torch.Tensor) -> object:
        states = nn.functional.one_hot(input_ids, 8).float()
        return type("Output", (), {"last_hidden_state": states})


def test_batches_hold_sentences_of_one_length():
    batches = by_length(["a bb", "ccc", "dddd e", "ff g", "hh a"], _words, size=3)
    assert [tuple(batch["input_ids"].shape) for batch in batches] == [(1, 1), (3, 2), (1, 2)]
    embeddings = embed(_Encoder(), batches)
    assert torch.allclose(embeddings.norm(dim=1), torch.ones(5))
    assert nearest(embeddings).tolist()[1] in (3, 4)  # one word of one letter, another of two
