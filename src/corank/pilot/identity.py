"""What makes a trial or a search this one and no other: whatever would change its networks."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import torch

from corank._version import __version__
from corank.pilot.problem import Problem


def identity_of(problem: Problem, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the problem, the settings and what they run on, as they come back from a JSON file."""
    found = {
        "corank": __version__,
        "torch": str(torch.__version__),
        "training_threads": torch.get_num_threads(),
        "data": problem.data,
        "model": problem.model,
        "weights": problem.weights,
        "keep": list(problem.keep),
        "shifted": None if problem.shifted is None else problem.shifted[0],
        **problem.terms,
        **settings,
    }
    return json.loads(json.dumps(found))  # type: ignore[no-any-return]
