"""The errors that corank raises on purpose: each says what, where, allowed, got, and the next step."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from corank.plans import Plan


class CorankError(Exception):
    """Base of every error that corank raises on purpose."""


class LayerError(CorankError):
    """A layer, or a pattern that should name one, cannot be used as asked."""


class FileError(CorankError):
    """A file cannot be written, or cannot be loaded safely."""


class OutOfMemoryError(CorankError):
    """Memory ran out; the message says on how large a batch."""


class ExtraError(CorankError, ImportError):
    """An optional dependency is missing; the message names the extra that brings it."""


class InfeasibleError(CorankError):
    """No plan meets the rules; `best_plan` is the closest one that can be reached."""

    def __init__(self, message: str, best_plan: Plan) -> None:
        super().__init__(message)
        self.best_plan = best_plan


class StoreError(CorankError):
    """The database of a roll-out cannot be used: unreachable, locked, or of another roll-out."""


class ReceiptError(CorankError):
    """An outcome's receipt was not given out by this roll-out, or the outcome does not fit it."""


def one_line(error: BaseException, most: int | None = None) -> str:
    """Write the kind of an error and the first line of what it says, at most so many letters of it.

    >>> one_line(ValueError("too long\\nby far"))
    'ValueError: too long'
    >>> one_line(ValueError())
    'ValueError: no message'
    """
    first = (str(error).strip().splitlines() or ["no message"])[0]
    return f"{type(error).__name__}: {first[:most]}"
