"""Rows on their way into the store, and how they are parted where one of them cannot be written."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING

from corank.errors import StoreError
from corank.extras import import_extra
from corank.rollout.records import Recorded
from corank.rollout.rows import Labels, Observation

if TYPE_CHECKING:
    import sqlalchemy as sa
else:
    sa = import_extra("sqlalchemy", "rollout")


@dataclass(frozen=True, slots=True)
class Batch:
    """What is written in one transaction."""

    outcomes: Sequence[tuple[Recorded, Future[bool]]] = ()
    observations: Sequence[Observation] = ()
    shadows: Sequence[tuple[str, Labels, float]] = ()

    def __len__(self) -> int:
        return len(self.outcomes) + len(self.observations) + len(self.shadows)

    def parts(self) -> list[Batch]:
        """Return a batch of each kind, or where there is one kind only, its halves.

        >>> [len(part) for part in Batch((), (), [("a", (1,), 0.0)] * 3).parts()]
        [1, 2]
        """
        kinds = [Batch(self.outcomes), Batch((), self.observations), Batch((), (), self.shadows)]
        kinds = [one for one in kinds if len(one)]
        if len(kinds) > 1:
            return kinds
        half = len(self) // 2
        cuts = (slice(None, half), slice(half, None))
        return [Batch(self.outcomes[cut], self.observations[cut], self.shadows[cut]) for cut in cuts]


def is_of_a_row(error: Exception) -> bool:
    """Say whether a row may be to blame, rather than a store that does not answer.

    >>> is_of_a_row(StoreError("store: gone")), is_of_a_row(TypeError("no JSON"))
    (False, True)
    """
    if not isinstance(error, StoreError):
        return True
    cause = error.__cause__
    return isinstance(cause, sa.exc.StatementError) and not isinstance(cause, sa.exc.OperationalError)
