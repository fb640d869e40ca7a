"""Cross-validation: every sample is held out once, and what comes of it is put together rightly."""

from __future__ import annotations

import pytest
import torch

from corank.data.digits import read_digits
from corank.data.splits import content_hashes, fold_parts
from corank.decision.intervals import difference_interval
from corank.errors import CorankError
from corank.pilot.folds import require_folds, summarise
from corank.pilot.options import TrialOptions
from corank.pilot.problems import make_problem
from tests.cli import own


def test_every_sample_of_train_and_dev_is_held_out_once_and_final_never():
    pytest.importorskip("sklearn", reason="the digits come with the extra `digits`")
    parts = read_digits()
    held = []
    for fold in range(4):
        one = fold_parts(parts, fold, 4)
        assert len(one.train) + len(one.dev) + len(one.final) == 1150 + 287
        seen = [set(content_hashes(part.pixels)) for part in (one.train, one.dev, one.final)]
        assert not seen[0] & seen[1]
        assert not (seen[0] | seen[1]) & seen[2]
        held += content_hashes(one.final.pixels)
    pool = content_hashes(torch.cat([parts.train.pixels, parts.dev.pixels]))
    assert sorted(held) == sorted(pool)
    assert not set(held) & set(content_hashes(parts.final.pixels))


def test_the_folds_are_compared_sample_by_sample():
    rows = [(torch.tensor([1.0, 1, 0]), torch.tensor([1.0, 1, 1])), (torch.ones(4), torch.ones(4))]
    runs = [
        {
            "dense": {"value": two.mean().item(), "higher": True, "rows": two},
            "lowrank": {"value": one.mean().item(), "higher": True, "rows": one},
        }
        for one, two in rows
    ]
    found = summarise(runs)
    assert (found["folds"], found["samples"]) == (2, [3, 4])
    arm = found["arms"]["lowrank"]
    assert arm["difference"] == pytest.approx([-1 / 3, 0])
    expected = difference_interval(*(torch.cat(side) for side in zip(*rows, strict=True)))
    assert arm["difference_ci"] == pytest.approx(list(expected))
    assert found["arms"]["dense"]["difference_ci"] is None
    runs[1]["lowrank"]["rows"] = None  # a metric without values a sample
    assert summarise(runs)["arms"]["lowrank"]["difference_ci"] is None


def test_what_cannot_be_split_is_refused():
    problem = make_problem("own", "net", own.net, task=own.TASK)
    with pytest.raises(CorankError, match="cannot be split again"):
        require_folds(problem, TrialOptions(folds=3))
    require_folds(problem, TrialOptions())
