"""An outcome as a client gives it, checked against its receipt."""

from __future__ import annotations

from collections.abc import Sequence

from corank.errors import ReceiptError
from corank.rollout.receipts import Receipt
from corank.rollout.records import Recorded
from corank.rollout.rows import Labels

_MOST = 200  # characters of a label


def make_outcome(
    receipt: Receipt,
    *,
    label: int | str | None,
    labels: Sequence[int | str] | None,
    score: float | None,
    now: float,
) -> Recorded:
    """Check an outcome, and return what is recorded.

    Args:
        receipt: of the answer.
        label: the true label, of an answer to one row.
        labels: the true labels, of an answer to several.
        score: from 0 to 1, in place of labels.
        now: seconds since the epoch.
    Raises: ReceiptError, when not exactly one of the three is given, or when it does not fit the answer.

    >>> receipt = Receipt("a", 0, "champion", False, (3,))
    >>> make_outcome(receipt, label=4, labels=None, score=None, now=0.0).truth
    (4,)
    """
    if [label is None, labels is None, score is None].count(False) != 1:
        raise ReceiptError("outcome: give one of label, labels and score.")
    truth: Labels | None = None
    if label is not None:
        truth = _fitting(receipt, (label,))
    elif labels is not None:
        truth = _fitting(receipt, tuple(labels))
    elif isinstance(score, bool) or not isinstance(score, int | float) or not 0 <= score <= 1:
        raise ReceiptError(f"outcome: score is a number from 0 to 1, got {score!r}.")
    return Recorded(
        receipt.request, receipt.stage, receipt.arm, receipt.paired, receipt.labels, truth, score, now
    )


def _fitting(receipt: Receipt, truth: Labels) -> Labels:
    if receipt.labels is None:
        raise ReceiptError("outcome: this answer has no labels to compare. Give a score from 0 to 1.")
    if len(truth) != len(receipt.labels):
        raise ReceiptError(f"outcome: this answer has {len(receipt.labels)} labels, got {len(truth)}.")
    for one in truth:
        whole = hasattr(one, "__index__") and not isinstance(one, bool)  # numpy's as well
        if not whole and not (isinstance(one, str) and len(one) <= _MOST):
            raise ReceiptError(
                f"outcome: a label is a whole number or a text of at most {_MOST} characters, "
                f"got {str(one)[:50]!r}."
            )
        # a text is never equal to a number: both models would be wrong alike, and look equally good
        if isinstance(one, str) not in {isinstance(mine, str) for mine in receipt.labels}:
            kinds = ("a text", "whole numbers") if isinstance(one, str) else ("a whole number", "texts")
            raise ReceiptError(
                f"outcome: the label {str(one)[:50]!r} is {kinds[0]} and this answer has {kinds[1]}, such as "
                f"{str(receipt.labels[0])[:50]!r}. Give labels of its kind."
            )
    return tuple(one if isinstance(one, str) else int(one) for one in truth)
