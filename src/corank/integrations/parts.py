"""What callbacks do alike with the force or the sparsifier that they attach."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from corank.regularizer import ForceRegularizer
from corank.sparsity import Sparsifier


def begin_again(part: ForceRegularizer | Sparsifier, fresh: Mapping[str, Any] | None) -> dict[str, Any]:
    """Put a part back to how it first began, for a trainer that begins again at step 0; return that state.

    Args:
        fresh: what this returned before; None at the first beginning, which changes nothing.
    """
    if fresh is None:
        return part.state_dict()
    part.load_state_dict(fresh)
    return dict(fresh)
