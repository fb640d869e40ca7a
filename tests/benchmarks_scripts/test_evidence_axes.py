"""Training data along an axis: as many, as unlike and as wrong as said, and the same at every seed."""

from __future__ import annotations

import pytest
import torch
from benchmarks.evidence_axes import AXES, along

from corank.pilot.digits import digits

pytest.importorskip("sklearn", reason="the digits come with the extra `digits`")


def _counts(task):
    return torch.bincount(task.train.labels, minlength=10).tolist()


@pytest.fixture(scope="module")
def whole():
    return digits().make_task(0)


@pytest.mark.parametrize("axis", AXES)
def test_every_seed_trains_on_the_same_images_and_the_rest_is_untouched(axis, whole):
    problem = along(digits(), axis)
    first, second = problem.make_task(0), problem.make_task(1)
    assert torch.equal(first.train.images, second.train.images)
    assert torch.equal(first.train.labels, second.train.labels)
    assert torch.equal(first.dev.labels, whole.dev.labels)
    assert torch.equal(first.final.images, whole.final.images)
    assert axis in problem.data


def test_a_tenth_of_every_class(whole):
    task = along(digits(), "few").make_task(0)
    assert _counts(task) == [round(0.1 * one) for one in _counts(whole)]


def test_classes_fall_to_a_hundredth(whole):
    counts = _counts(along(digits(), "imbalanced").make_task(0))
    assert counts[0] == _counts(whole)[0]
    assert counts == sorted(counts, reverse=True)
    assert 1 <= counts[-1] <= 2


def test_a_fifth_of_the_labels_is_wrong_and_none_of_them_by_chance_right(whole):
    task = along(digits(), "noisy").make_task(0)
    assert torch.equal(task.train.images, whole.train.images)
    wrong = (task.train.labels != whole.train.labels).sum().item()
    assert wrong == round(0.2 * len(whole.train.labels))


def test_no_axis_is_the_problem_itself():
    problem = digits()
    assert along(problem, None) is problem
