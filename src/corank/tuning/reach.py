"""How deep the cuts of a search can go on a network, told before anything is trained."""

from __future__ import annotations

import logging
from dataclasses import replace
from math import ceil
from typing import Any

from corank.errors import CorankError, InfeasibleError
from corank.latency import LatencyTable
from corank.pilot.arms import first_rules
from corank.pilot.options import TrialOptions
from corank.pilot.problem import Problem
from corank.planning import plan
from corank.plans import Plan
from corank.tuning.space import Space, defaults, options_at

logger = logging.getLogger(__name__)


def within_reach(
    problem: Problem, options: TrialOptions, space: Space, table: LatencyTable | None = None
) -> Space:
    """Return a space whose deepest cut can be planned on the network, which is no matter of its weights.

    Args:
        problem: the task and the network.
        options: all that is not searched.
        space: what is searched; its cut begins later in what is returned, where it must.
        table: of the network's latency, where that is the cost.
    Raises: CorankError, when no cut of the space can be planned.
    """
    model, task = problem.make_model(), problem.make_task(options.seeds[0])
    low, high = space.cut
    point = {**defaults(space, options)[0], "cut": low}
    rules = first_rules(options_at(point, space, options).target.rules)
    terms: dict[str, Any] = {"multiple": options.multiple, "exclude": problem.keep, "table": table}
    try:
        plan(model.eval(), rules, example=task.example, **terms)
    except InfeasibleError as error:
        least = ceil(100 * share_left(error.best_plan, space)) / 100
        told = f"the deepest plan of this network leaves {least:g} of the {space.cost}"
        if least > high:
            raise CorankError(
                f"space: cut ends at {high:g}, and {told}. Choose another cost or engine, or a higher end."
            ) from error
        logger.warning("space: cut begins at %g instead of %g: %s", least, low, told)
        return replace(space, cut=(least, high))
    return space


def share_left(made: Plan, space: Space) -> float:
    """Return the share of the cost that a plan leaves."""
    if space.timed:
        assert made.ms_before is not None
        assert made.ms_after is not None  # planned from a table
        return made.ms_after / made.ms_before
    return float(getattr(made.after, space.cost)) / float(getattr(made.before, space.cost))
