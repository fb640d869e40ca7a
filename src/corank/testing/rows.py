"""What the contract says: one row a check, with the figure measured and the limit it has to keep."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from corank.errors import one_line
from corank.inputs import tensors

_OF_DENSE_LAYERS = (  # what torch says of some layers of the zoo themselves
    "Using padding='same' with even kernel lengths",
    "quantized::linear_dynamic: an autograd kernel was not registered",
)

LIMITS: dict[torch.dtype, float] = {  # of the relative error at full rank
    torch.float64: 1e-10,
    torch.float32: 1e-5,
    torch.float16: 2e-3,
    torch.bfloat16: 2e-2,
}


class Finding(NamedTuple):
    """What one check found: `passed` is None where the check does not apply, and the note says why."""

    passed: bool | None
    figure: float | None = None
    limit: float | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the contract: a layer or network, a method, a check, and what it found."""

    subject: str
    method: str
    check: str
    passed: bool | None
    figure: float | None = None
    limit: float | None = None
    note: str = ""

    def __str__(self) -> str:
        verdict = {True: "pass", False: "FAIL", None: "n/a"}[self.passed]
        figure = "" if self.figure is None else f" {self.figure:.1e}"
        limit = "" if self.limit is None else f" (allowed {self.limit:.1e})"
        note = f": {self.note}" if self.note else ""
        return f"{verdict}  {self.subject}, {self.method}, {self.check}{figure}{limit}{note}"


def within(figure: float, limit: float, note: str = "") -> Finding:
    """Judge a figure by its limit; NaN fails.

    >>> within(2.0, 1.0).passed, within(float("nan"), 1.0).passed
    (False, False)
    """
    return Finding(figure <= limit, figure, limit, note)


def without(problems: Sequence[str]) -> Finding:
    """Judge a list of problems: it passes when there is none.

    >>> without(["it is blue"])
    Finding(passed=False, figure=None, limit=None, note='it is blue')
    """
    return Finding(not problems, note="; ".join(problems))


def found(subject: str, method: str, check: str, run: Callable[[], Finding]) -> Row:
    """Run a check and make it a row; what it raises is a failure, with the error as note."""
    try:
        with warnings.catch_warnings():
            for message in _OF_DENSE_LAYERS:
                warnings.filterwarnings("ignore", message)
            return Row(subject, method, check, *run())
    except Exception as error:  # a check of foreign code: whatever it raises is the finding
        return Row(subject, method, check, False, note=f"raised {say(error)}")


def say(error: BaseException) -> str:
    """Put an error into one short line.

    >>> say(ValueError("too long\\nby far"))
    'ValueError: too long'
    """
    reason = getattr(error, "reason", None)  # of a failed export, without the advice
    if reason is not None:
        return str(reason)[:200]
    return one_line(error, 160)


def failures(rows: Iterable[Row]) -> list[Row]:
    """Return the rows that failed.

    >>> failures([Row("conv", "svd", "fold", True), Row("conv", "svd", "trains", None)])
    []
    """
    return [row for row in rows if row.passed is False]


def difference(got: Any, wanted: Any) -> float:
    """Return the largest relative error ‖a − b‖ / ‖b‖ over all tensors of two outputs.

    Infinite where their number, shapes or dtypes disagree.

    >>> difference(torch.tensor([3.0, 4.0]), (torch.tensor([3.0, 5.0]),)) < 0.2
    True
    """
    ours, theirs = tensors(got), tensors(wanted)
    if len(ours) != len(theirs):
        return math.inf
    return max((_distance(a, b) for a, b in zip(ours, theirs, strict=True)), default=0.0)


def _distance(got: Tensor, wanted: Tensor) -> float:
    if (got.shape, got.dtype) != (wanted.shape, wanted.dtype):
        return math.inf
    a, b = got.detach().double(), wanted.detach().double()
    error, size = float((a - b).norm()), float(b.norm())
    if error == 0:
        return 0.0
    return error / size if size and math.isfinite(error) else math.inf


def same_bits(got: Any, wanted: Any) -> bool:
    """Say whether two outputs hold the same bits, NaN and zeros of either sign included."""
    ours, theirs = tensors(got), tensors(wanted)
    return len(ours) == len(theirs) and all(
        (a.shape, a.dtype) == (b.shape, b.dtype) and torch.equal(_bytes(a), _bytes(b))
        for a, b in zip(ours, theirs, strict=True)
    )


def _bytes(tensor: Tensor) -> Tensor:
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8)
